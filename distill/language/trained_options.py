"""Options that all students but those of `barkour distill language` share. Light to import: shown without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sim.options import Options, Range, Seed

Share = Annotated[float, Range(0, 1)]
Rate = Annotated[float, Range(0, 1, above=True)]


@dataclass(frozen=True, kw_only=True)
class RunOptions(Options):
    """What a run is made of, and where it is."""

    student: str = ""
    """folder or published name of a model, or a config for random weights"""
    tokenizer: str | None = None
    """folder or published name, where the model comes without one"""
    data: tuple[Path, ...] = ()
    """files or folders: CSV, JSONL, JSON, Parquet, plain text"""
    out: Path
    """folder for the student and for its run"""
    resume: bool = False
    """continue the run in --out"""
    dry_run: bool = False
    """read and check everything, train nothing, write nothing"""
    seed: Seed = 0
    """of random weights, held-out rows and batches"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_utf8("out")


@dataclass(frozen=True, kw_only=True)
class TrainedOptions(RunOptions):
    """How a student is trained."""

    epochs: Annotated[float, Range(0, 1000, above=True)] = 3.0
    """passes over the data"""
    steps: Annotated[int, Range(0, 10**7)] = 0
    """optimiser steps in place of --epochs; 0: as the epochs say"""
    batch: Annotated[int, Range(1, 2**16)] = 32
    """rows in a batch"""
    length: Annotated[int, Range(4, 2**16)] = 128
    """tokens of a row at most"""
    rounds: Annotated[int, Range(1, 1000)] = 8
    """times that the student is measured on held-out rows"""
    held_out: Annotated[float, Range(0, 0.9, above=True)] = 0.1
    """share of the rows that is never trained on, one at least"""
    learning_rate: Rate = 5e-5
    """largest, after the warm-up; it falls to a tenth along a cosine"""
    warmup: Annotated[int, Range(0, 10**7)] = 20
    """optimiser steps in which the learning rate rises"""
    weight_decay: Share = 0.01
    """of AdamW"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """of the arithmetic in training: float32, or mixed; weights stay in float32"""
    checkpoint_minutes: Annotated[float, Range(0, 24 * 60)] = 3.0
    """minutes between checkpoints: the most that an interruption can lose"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps:
            self.refuse(("epochs",), "beside --steps")
