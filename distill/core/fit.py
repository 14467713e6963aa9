"""One call that distils a student with the core's loop: what recipes use in place of a training loop of their own."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from distill.core import checkpoints
from distill.core.collect import Collector, Sampler, Student
from distill.core.errors import DistillError
from distill.core.folders import LOCK
from distill.core.loop import Distiller, LoopConfig, load_best
from distill.core.mixture import Mixture
from distill.core.objectives.base import Objective
from distill.core.schedules import Beta
from distill.core.tables import RowSampler
from distill.core.teachers import Teacher, Teachers

MADE = (
    checkpoints.NAME, checkpoints.OLD, f"{checkpoints.NAME}.partial", "data", "best", "tensorboard", "log.jsonl",
    "summary.json", "summary.partial", "curve.png",
)  # fmt: skip
"""What a run makes in its folder."""


def fit(
    student: Student,
    objective: Objective,
    teacher: Teacher | Teachers,
    collectors: Sequence[Collector],
    folder: Path,
    *,
    steps: int,
    batch: int,
    seed: int,
    rounds: int = 1,
    rows: int = 1,
    learning_rate: float = 3e-3,
    last_learning_rate: float | None = None,
    warmup: int = 20,
    weight_decay: float = 0.01,
    beta: float = 1.0,
    evaluate: Callable[[Student], Mapping[str, float]] | None = None,
    sampler: Sampler | None = None,
    mixture: Mixture | None = None,
    smoothing: float = 0.0,
    keep: bool = False,
    best: bool = False,
) -> dict[str, Any]:
    """Trains the student in place and returns the loop's summary, with what was `measured` after every round.

    Args:
      steps: optimiser steps in all, spread evenly over `rounds` (at least 1), at the ends of which `evaluate` is asked.
      rows: that each collector brings in each round, for those that make new ones.
      last_learning_rate: at the end of a cosine; a tenth of the first where None. Equal rates stay constant.
      beta: the teacher's share of what is written in every round.
      keep: leaves data and checkpoints in `folder`; they are deleted otherwise, and nothing else that is there. A run
        that was interrupted there goes on.
      best: gives the student the parameters of the round with the best `golden` in place of the last.

    Raises:
      DistillError: bad settings, a folder with files of something else, or a loss that is not finite.
    """
    rounds = min(max(rounds, 1), max(steps, 1))
    each = steps // rounds
    config = LoopConfig(
        rounds=rounds - 1, first_rows=rows, rows=rows, first_steps=steps - (rounds - 1) * each, steps=each,
        batch=batch, learning_rate=learning_rate, weight_decay=weight_decay,
        last_learning_rate=learning_rate / 10 if last_learning_rate is None else last_learning_rate,
        warmup=min(warmup, steps), beta=Beta(beta, 1.0), smoothing=smoothing, held_out=batch, seed=seed,
        light=not keep,
    )  # fmt: skip
    resume = checkpoints.newest(folder) is not None
    theirs = [name for name in MADE if os.path.lexists(folder / name)]
    if theirs and not resume and not (folder / LOCK).is_file():  # where a run was killed early there is its lock
        raise DistillError(
            f"{folder} holds '{theirs[0]}' of something else, which would be lost: choose another folder"
        )
    distiller = Distiller(
        student, objective, teacher, collectors, sampler or RowSampler(), folder, config, evaluate, resume,
        Console(stderr=True, quiet=True), mixture,
    )  # fmt: skip
    summary = distiller.run()
    if summary["interrupted"]:
        raise KeyboardInterrupt
    if best:
        load_best(folder, student)
    student.module.eval()
    if not keep:
        remove(folder)
    return summary


def remove(folder: Path) -> None:
    """Deletes what a run leaves in its folder, and the folder if nothing else is in it."""
    for path in (*(folder / name for name in (*MADE, LOCK)), *folder.glob("rank_*")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
