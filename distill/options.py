"""What `barkour bench distill` is asked for. Light to import: shown without PyTorch."""

from dataclasses import dataclass
from typing import Annotated

from sim.options import Options, Range


@dataclass(frozen=True)
class DistillBenchOptions(Options):
    """Train a language model here, by hand and with TRL, and compare tokens per second and memory."""

    rounds: Annotated[int, Range(1, 1000)] = 3
    """turns of every arm"""
    quick: bool = False
    """few steps: tries the code, proves nothing"""
    vocabularies: tuple[Annotated[int, Range(64, 10**6)], ...] = ()
    """sizes at which every arm is measured, such as 8192 49152 152064; without them and --lengths, how memory grows"""
    lengths: tuple[Annotated[int, Range(17, 10**5)], ...] = ()
    """tokens of a text, such as 512 2048, at each of the vocabularies"""
    processes: tuple[Annotated[int, Range(1, 64)], ...] = ()
    """that train one student together, such as 1 2, at each of these sizes"""
