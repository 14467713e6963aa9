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
