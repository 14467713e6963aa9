"""Runs of `barkour distill tagger` and others: read and checked, trained by the core's loop, kept as a folder."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from rich.console import Console
from torch import nn

from distill.core.checkpoints import newest, plain, write_json
from distill.core.collect import Collector, Student
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.loop import Distiller, LoopConfig, load_best
from distill.core.objectives.base import Objective
from distill.core.tables import Epochs
from distill.core.teachers import Teacher, Teachers
from distill.language.begun import OPTIONS, Begun, begins, check_begun, read_begun
from distill.language.card import write_card
from distill.language.models import context_of, parameters
from distill.language.places import load_silently
from distill.language.plans import peak_bytes, seconds_per_step, timed_config
from distill.language.rounds import in_rounds
from distill.language.trained_options import RunOptions, TrainedOptions
from distill.results import OwnDistilled
from policies.learning import runs
from sim.errors import InputError
from sim.folders import makeable

SUMMARY, RUN, CURVE = "summary.json", "run", "curve.png"
FREE = ("out", "resume", "plan", "dry_run", "checkpoint_minutes")
"""Options that do not decide a run's result."""
Asked = TypeVar("Asked", bound=TrainedOptions)
Parts = tuple[Student, Objective, Teacher | Teachers, Sequence[Collector]]


@dataclass(frozen=True)
class Stage:
    """One of the trainings of a student, each of which begins where the one before ended."""

    parts: Parts
    rows: int
    """That are trained on."""
    judge: Callable[[], Mapping[str, float]]
    """Figures of the student as it is, on what it is judged by during training; `golden` says how good it is."""
    name: str = ""
    """Of its folder below the run's, where there are several."""
    changed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Options that are others in this stage than in the run."""
    micro_batch: int = 0
    """Rows that are computed at once; 0: the whole batch."""


@dataclass(frozen=True)
class Task:
    """What a run is made of, read and checked."""

    about: Mapping[str, Any]
    """What is known before the first step, JSON-ready: `method`, `student`, `parameters`, `data` and more."""
    module: nn.Module
    """What is trained."""
    stages: Iterable[Stage]
    """One after the other, each asked for when the one before has ended."""
    figures: Callable[[], Mapping[str, float]]
    """Those at the start and at the end."""
    save: Callable[[Path], Mapping[str, Any]]
    """Writes the student's folder, and says what more is known."""


def distil(options: Asked, prepare: Callable[[Asked], Task]) -> OwnDistilled:
    """Distils as the options say and writes the student's folder.

    Raises:
      InputError: options, models, data or a folder that cannot be used.
    """
    return carried(options, lambda: prepare(options).about, lambda folder: _run(options, prepare, folder))


def planned(options: TrainedOptions, task: Task, steps: int = 4) -> dict[str, Any]:
    """What a run would take, from so many steps of each stage in folders that are then deleted.

    Returns:
      What the task is known for, `steps` in all, `seconds` a step of each stage, `minutes` of fitting in all, `peak_gb`
      of this process or its device, `training_gb` (16 bytes a parameter: weights, gradients, both moments).
    """
    seconds: dict[str, float] = {}
    in_all, minutes, module = 0, 0.0, task.module
    if torch.cuda.is_available():
        module.to("cuda")
    for stage in task.stages:
        own = replace(options, **stage.changed)
        count = steps_of(own, stage.rows)
        config = timed_config(in_rounds(own, steps), steps, own.batch)
        with tempfile.TemporaryDirectory() as folder:
            seconds[stage.name or "training"] = each = seconds_per_step(_distiller(stage, Path(folder) / RUN, config))
        in_all, minutes, module = in_all + count, minutes + each * count / 60, stage.parts[0].module
    return {
        **task.about, "plan": True, "steps": in_all, "seconds": seconds, "minutes": minutes,
        "peak_gb": peak_bytes() / 1e9, "training_gb": 16 * parameters(module) / 1e9,
    }  # fmt: skip


def told_of(out: Path, about: Callable[[], Mapping[str, Any]]) -> OwnDistilled:
    """What is known of a run in the folder `out` that is not made. Raises `InputError` where it could not be."""
    makeable(out)
    load_silently()
    try:
        return OwnDistilled.of({**about(), "interrupted": False})
    except DistillError as error:
        raise InputError(str(error)) from error


def carried(
    options: RunOptions, about: Callable[[], Mapping[str, Any]], work: Callable[[Path], Mapping[str, Any]]
) -> OwnDistilled:
    """What `about` says in a dry run, else what `work` found in the run's folder, which it has to itself.

    Raises:
      InputError: options, models, data or a folder that cannot be used.
    """
    if options.dry_run:
        return told_of(options.out, lambda: {**about(), "steps": 0, "dry_run": True})
    load_silently()
    try:
        folder = options.out / RUN
        with begins(folder), runs.stopping():
            return OwnDistilled.of(work(folder))
    except DistillError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot write to {options.out}: {error.strerror or error}") from error


def begun(options: RunOptions, folder: Path) -> tuple[dict[str, Any], Begun | None]:
    """The options that decide a run's result, and the run that is there. Raises `DistillError` where it is another."""
    asked = {name: value for name, value in plain(asdict(options)).items() if name not in FREE}
    known = read_begun(folder, "start", dict)
    check_begun(options.out, folder, known, newest(folder) is not None, options.resume, asked, {})
    return asked, known


def finished(options: RunOptions, found: Mapping[str, Any]) -> None:
    """Writes summary and card."""
    write_json(options.out / SUMMARY, plain(found))
    write_card(options.out, options, found)


def steps_of(options: TrainedOptions, rows: int) -> int:
    """Optimiser steps in all."""
    return options.steps or max(math.ceil(options.epochs * rows / options.batch), 1)


def require_room(model: Any, tokens: int, what: str) -> None:
    """Raises `DistillError` where so many tokens are more than a model has places for."""
    most = context_of(model)
    if most is not None and tokens > most:
        raise DistillError(f"{what} is {tokens} tokens, and the model reads {most} at most")


def held_out_rows(count: int, share: float, seed: int) -> np.ndarray:
    """Which of so many rows are never trained on, booleans `[count]`: one at least, and not all.

    Raises:
      DistillError: fewer than two.
    """
    if count < 2:
        raise DistillError(f"too few rows can be used ({count}): a student learns from some and is measured on others")
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng([seed, 31]).permutation(count)[: min(max(round(share * count), 1), count - 1)]] = True
    return chosen


def _run(options: Asked, prepare: Callable[[Asked], Task], folder: Path) -> dict[str, Any]:
    asked, known = begun(options, folder)
    task = prepare(options)
    module = task.module
    if torch.cuda.is_available():
        module.to("cuda")
    start = known.start if known is not None else dict(task.figures())
    if known is None:
        runs.say_begun(options.resume, options.out)
        write_json(folder / OPTIONS, {"options": asked, "start": start})
    found: dict[str, Any] = {**task.about, "steps": 0, "out": str(options.out), "minutes": 0.0}
    place = folder
    for stage in task.stages:
        own = replace(options, **stage.changed)
        place, steps = folder / stage.name, steps_of(own, stage.rows)
        student = stage.parts[0]
        summary = _distiller(stage, place, in_rounds(own, steps), options.resume, quiet=False).run()
        found |= {
            "steps": found["steps"] + steps, "minutes": found["minutes"] + summary["minutes"],
            "interrupted": summary["interrupted"],
        }  # fmt: skip
        if summary["interrupted"]:
            return found
        best = load_best(place, student)
        module = student.module.eval()  # a student may become another one on the way
        found |= {"best_round": best["round"], "rounds": summary["rounds"], "measured": summary["measured"]}
    found["figures"] = {"start": start, "end": dict(task.figures())}
    found |= task.save(options.out)
    Journal(place).plot(f"{found['method']}: {type(module).__name__}")
    if (place / CURVE).is_file():
        shutil.copyfile(place / CURVE, options.out / CURVE)
    finished(options, found)
    return found


def _distiller(stage: Stage, folder: Path, config: LoopConfig, resume: bool = False, quiet: bool = True) -> Distiller:
    config = replace(config, micro_batch=stage.micro_batch)
    return Distiller(
        *stage.parts, Epochs(), folder, config, lambda _: stage.judge(), resume, Console(stderr=True, quiet=quiet)
    )
