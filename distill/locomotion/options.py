"""What `barkour distill locomotion` is asked for. Light to import: the front door shows it without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

OPTIONS = "options.json"
"""Where a run keeps the options it was begun with."""


def is_run(path: Path) -> bool:
    """Whether a folder holds a run of this recipe."""
    return (path / OPTIONS).is_file()


@dataclass(frozen=True)
class Options:
    """Options of one run, with the words that the command line shows."""

    teachers: str = "specialists"
    out: Path | None = None
    """the bundle FILE.onnx to write; generalist.onnx in the run's folder without it"""
    run: Path = Path("runs/generalist")
    """folder of the run: data, checkpoints, curve, summary"""
    resume: bool = False
    """continue the run in --run"""
    force: bool = False
    """replace an existing bundle"""
    seed: int = 0
    rounds: int = 8
    """rounds in which the student drives, after one of behavioural cloning"""
    first_rows: int = 150_000
    """control steps that each domain (course, walk, climb, jump) collects at first"""
    rows: int = 40_000
    """control steps that each domain collects in every later round"""
    first_steps: int = 2500
    """optimiser steps of the first round"""
    steps: int = 500
    """optimiser steps of every later round"""
    batch: int = 192
    """windows in a batch"""
    learning_rate: float = 1e-3
    beta_decay: float = 0.3
    """the specialists drive this share of round 1, its square of round 2, and so on"""
    smoothing: float = 0.5
    """how far the mixture of domains follows where the student lags; 0: equal shares"""
    width: int = 128
    layers: int = 3
    context: int = 15
    """control steps that the student sees"""
    courses: tuple[str, ...] = ("official",)
    """courses on which experience is collected"""
    score_runs: int = 32
    """runs of the first course that score the student after each round"""
    patience: int = 0
    """stop after so many rounds without a better score; 0: never"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    threads: int = 0
    """physics threads; 0 takes every core"""
