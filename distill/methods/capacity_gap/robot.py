"""The capacity gap on the robot: specialists of many sizes, each the teacher of Locomotion-Transformers of three.

Reinforcement learning of seven specialists would take hours. They are distilled from the shipped walker instead, from
few and noisy labels, so that size decides how near they come to it; students see the same states and, in place of the
labels, what a specialist does there. A Transformer cannot be pruned out of a specialist: all start from random weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import CollectionPlan, Experience, Sampler, Student
from distill.core.errors import DistillError
from distill.core.objectives.actions import SquaredError
from distill.core.teachers import RecordedActions
from distill.language.evaluate import over
from distill.language.models import parameters
from distill.locomotion.experience import Windows
from distill.locomotion.student import TransformerStudent
from distill.methods.capacity_gap.law import checks
from distill.methods.framework import Trial
from distill.methods.statistics import Check, Results
from policies.bundle.shipped import bundle_file
from policies.skills.library import load_skills
from policies.transformer import Normalizer, TransformerConfig, generalist_layout
from sim.errors import InputError
from sim.observation import frame_size
from sim.robots.gaits import DRIVEN

STUDENTS = (16, 24, 40)
CONTEXT = 8
"""Control steps that a student sees; the shipped generalist sees 15."""
SEEN = 3
"""Control steps that a specialist sees."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    teachers: tuple[int, ...] = (16, 24, 36, 56, 88, 136, 200)
    """Widths of 3-layer networks, 375 width + 3 width^2 parameters."""
    students: tuple[int, ...] = STUDENTS
    """Widths of 2-layer Transformers."""
    rows: int = 12_000
    """Control steps that are learned from, four minutes of walking in all."""
    noise: float = 0.3
    """Standard deviation of the noise on the walker's actions that specialists learn from, action units."""
    test: int = 3000
    drive: int = 2000
    """Control steps in which each student drives."""
    teacher_steps: int = 800
    teacher_batch: int = 64
    steps: int = 400
    batch: int = 32
    """Windows of a student's context."""
    quality: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of `teacher_steps` of the control's teacher, which has one size."""
    quality_teacher: int = 56
    learning_rate: float = 2e-3


class Specialist(nn.Module):
    """A network like the shipped specialists', of any width, on what those see: three steps, command, clock, ground."""

    def __init__(self, width: int, joints: int) -> None:
        super().__init__()
        layout, self.frame = generalist_layout(joints, SEEN), frame_size(joints)
        self.ground = layout.grids[0].size
        self.frames, self.heights = Normalizer(layout.frame_size), Normalizer(layout.height_size)
        sizes = (SEEN * self.frame + layout.frame_size - self.frame + self.ground, 2 * width, width, width)
        dense = [layer for a, b in zip(sizes, sizes[1:], strict=False) for layer in (nn.Linear(a, b), nn.ELU())]
        self.dense = nn.Sequential(*dense, nn.Linear(width, DRIVEN.actions(joints)))

    def forward(self, frames: Tensor, heights: Tensor) -> Tensor:
        """The action after the last frame `[B, 1, J + 1]`.

        `frames` are `[B, 3, frame]`, oldest first, `heights` `[B, 3, n]`.
        """
        x, ground = self.frames(frames), self.heights(heights[:, -1])[:, : self.ground]
        parts = [x[..., : self.frame].flatten(1), x[:, -1, self.frame :], ground]
        return self.dense(torch.cat(parts, -1))[:, None]


class SpecialistStudent(TransformerStudent):
    """A specialist, fed as Transformers are."""

    def __init__(self, width: int, joints: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.module = Specialist(width, joints)  # type: ignore[assignment]


@dataclass(frozen=True)
class Rollouts:
    """Episodes that are there from the start: a domain of the loop."""

    fields: Mapping[str, np.ndarray]
    """`frames` `[rows, frame]`, `heights` `[rows, n]` and `action` `[rows, J + 1]`."""
    episodes: Sequence[int]
    name: str = "walk"

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """All of them in the first round, none later."""
        return Experience({}, []) if plan.round else Experience(self.fields, self.episodes)

    def labelled(self, action: np.ndarray) -> "Rollouts":
        """The same states with other actions."""
        return replace(self, fields={**self.fields, "action": action.astype(np.float32)})

    def windows(self, context: int) -> dict[str, np.ndarray]:
        """`frames` and `heights` of every row and the steps before it, `[rows, context, ...]`, as of `Windows`."""
        first = np.repeat(np.cumsum([0, *self.episodes[:-1]]), self.episodes)
        last = np.arange(len(first))
        steps = np.maximum(last[:, None] + np.arange(1 - context, 1), first[:, None])
        return {name: self.fields[name][steps].astype(np.float32) for name in ("frames", "heights")}


class RobotGap:
    """What the recipe asks of a domain, on the robot."""

    def __init__(self, trial: Trial) -> None:
        """Raises `DistillError` where the robot's walker is missing or damaged."""
        from distill.locomotion.tasks import TaskCollector  # the catalogue needs no physics engine

        self.trial, self.settings = trial, trial.settings
        try:
            walker = load_skills(str(bundle_file("walk", trial.robot)))
            self.walk = TaskCollector("walk", walker, threads=1)
        except InputError as error:
            raise DistillError(str(error)) from error
        self.joints = walker.robot.joints
        clean = self._rollouts(self.settings.rows, 0)
        noise = trial.rng(1).standard_normal(clean.fields["action"].shape)
        self.rows = clean.labelled(clean.fields["action"] + self.settings.noise * noise)
        self.test = self._rollouts(self.settings.test, 2)
        self.teachers: dict[int, tuple[Student, Rollouts]] = {}

    def loss(self, student: Student, context: int = SEEN) -> float:
        """Squared distance from what the walker would do, without noise, on held-out episodes; summed over actions."""
        error = _actions(student, self.test, context) - self.test.fields["action"]
        return float(np.square(error.astype(np.float64)).sum(-1).mean())

    def taught(self, width: int, steps: int) -> Student:
        """A specialist after so many steps."""
        student = SpecialistStudent(width, self.joints, self.trial.number(width))
        self._learn(student, self.rows, steps, self.settings.teacher_batch, Windows(SEEN, last_only=True))
        return student

    def teacher(self, width: int) -> tuple[Student, Rollouts]:
        """A fully trained specialist, and the rows with what it does; made once."""
        if width not in self.teachers:
            student = self.taught(width, self.settings.teacher_steps)
            self.teachers[width] = student, self.answered(student)
        return self.teachers[width]

    def teacher_loss(self, width: int) -> float:
        """Of a fully trained specialist."""
        return self.loss(self.teacher(width)[0])

    def teacher_size(self, width: int) -> int:
        """Parameters of a specialist."""
        return parameters(Specialist(width, self.joints))

    def size(self, width: int) -> int:
        """Parameters of a Transformer."""
        return parameters(TransformerStudent(_config(width, self.joints)).module)

    def about(self) -> dict[str, Any]:
        """Nothing more of the teachers."""
        return {}

    def answered(self, student: Student) -> Rollouts:
        """The rows with a specialist's actions."""
        return self.rows.labelled(_actions(student, self.rows, SEEN))

    def student(self, width: int, start: str, teacher: int | None, rows: Rollouts | None = None) -> Mapping[str, float]:
        """Measures of a Transformer that learned from a specialist's actions, from `rows` that one answered, or from
        the labels without both: alone on held-out states, and at the wheel over the walker's training ground."""
        s = self.settings
        student = TransformerStudent(_config(width, self.joints), self.trial.number(1000 + width))
        if rows is None:
            rows = self.rows if teacher is None else self.teacher(teacher)[1]
        self._learn(student, rows, s.steps, s.batch, Windows(CONTEXT))
        self.trial.keep(student.module, "" if teacher is None else f"of teacher {teacher}")
        found = self.walk.collect(
            student, CollectionPlan(1, 0.0, self.trial.scaled(s.drive, 100), self.trial.number(3))
        ).measured
        return {
            "loss": self.loss(student, CONTEXT),
            "reward_per_s": found["gain"],
            "falls_per_10s": found["falls_per_10s"],
        }

    def _rollouts(self, rows: int, stream: int) -> Rollouts:
        found = self.walk.collect(None, CollectionPlan(0, 1.0, self.trial.scaled(rows, 200), self.trial.number(stream)))
        return Rollouts({name: found.fields[name] for name in ("frames", "heights", "action")}, found.episodes)

    def _learn(self, student: Student, rows: Rollouts, steps: int, batch: int, sampler: Sampler) -> None:
        options: dict[str, Any] = {"batch": batch, "learning_rate": self.settings.learning_rate, "sampler": sampler}
        self.trial.fit(student, SquaredError(), RecordedActions(), [rows], steps=steps, **options)


def rule(results: Results) -> list[Check]:
    """As in language, for the one start that there is; and what the loss is worth at the wheel."""
    pairs = [
        (np.array(row[f"random {width}"]["losses"]), np.array(row[f"random {width}"]["reward_per_s"]))
        for row in results.rows.values()
        for width in STUDENTS
    ]
    found = [float(np.corrcoef(losses, rewards)[0, 1]) for losses, rewards in pairs if np.ptp(rewards) > 0]
    mean = float(np.mean(found)) if found else 0.0
    text = f"students of less loss earn more reward at the wheel: mean correlation over teachers {mean:.2f}, below 0"
    return [*checks(results, STUDENTS, "random"), Check(text, mean < 0, "reported")]


def _config(width: int, joints: int) -> TransformerConfig:
    return TransformerConfig(CONTEXT, width, layers=2, heads=2, channels=2, joints=joints)


def _actions(student: Student, rows: Rollouts, context: int) -> np.ndarray:
    """What a student does at every row, `[rows, J + 1]`."""
    module = student.module
    return over(module, rows.windows(context), lambda b: module(b["frames"], b["heights"])[:, -1], 256).numpy()
