"""The capacity gap in language: characters of source and prose, students pruned out of their teachers or random."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill.core.tables import FixedDomain, Rows
from distill.language.evaluate import batches, nats_per_token
from distill.language.models import Shape, parameters
from distill.language.pruning import Importance, importance, pruned
from distill.methods.capacity_gap.law import checks
from distill.methods.capacity_gap.method import METHOD
from distill.methods.framework import Trial
from distill.methods.labs.text_lab import TextLab
from distill.methods.method import MethodOptions
from distill.methods.statistics import Check, Results

HEAD = 8
"""Width of every attention head."""
STARTS: tuple[Literal["pruned", "random"], ...] = ("pruned", "random")
STUDENTS = (16, 24, 32)


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment: widths of 2-layer models, 20 width^2 parameters without embeddings."""

    teachers: tuple[int, ...] = (32, 40, 56, 72, 96, 128, 176)
    students: tuple[int, ...] = STUDENTS
    length: int = 64
    rows: int = 700
    """Of each of two domains, standard-library source and prose."""
    test: int = 64
    teacher_steps: int = 400
    steps: int = 300
    batch: int = 16
    quality: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of `teacher_steps` of the control's teacher, which has one size."""
    quality_teacher: int = 96
    learning_rate: float = 3e-3


def shape(width: int) -> Shape:
    """A model of one of the widths."""
    return Shape(0, width, 2, width // HEAD)


class TextGap(TextLab):
    """What the recipe asks of a domain, in language."""

    def __init__(self, trial: Trial) -> None:
        self.settings = s = trial.settings
        super().__init__(trial, ("python", "prose"), s.length, {"train": s.rows, "test": s.test})
        parts = list(self.of("train").values())
        self.rows: Rows = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        tests = list(self.of("test").values())
        self.test: Rows = {key: np.concatenate([part[key] for part in tests]) for key in tests[0]}
        self.options: Any = {"batch": s.batch, "learning_rate": s.learning_rate}
        self.teachers: dict[int, tuple[Any, Importance, Rows]] = {}

    def loss(self, model: Any) -> float:
        """Held-out nats a token on true text."""
        return nats_per_token(model, self.read, self.test)

    def taught(self, width: int, steps: int) -> Any:
        """A teacher after so many steps."""
        model = self.model(shape(width), width)
        self.learn(model, {"text": self.rows}, steps, **self.options)
        return model

    def teacher(self, width: int) -> tuple[Any, Importance, Rows]:
        """A fully trained teacher, its gates, and the rows with its logits; made once."""
        if width not in self.teachers:
            model = self.taught(width, self.settings.teacher_steps)
            few = {key: values[:64] for key, values in self.rows.items()}
            self.teachers[width] = model, importance(model, batches(few, 16)), self.with_logits(model, self.rows)
        return self.teachers[width]

    def teacher_loss(self, width: int) -> float:
        """Of a fully trained teacher."""
        return self.loss(self.teacher(width)[0])

    def answered(self, model: Any) -> Rows:
        """The rows with a teacher's logits."""
        return self.with_logits(model, self.rows)

    def size(self, width: int) -> int:
        """Parameters without embeddings."""
        return parameters(self.model(shape(width), 0), embeddings=False)

    def teacher_size(self, width: int) -> int:
        """Teachers are models of the same kind."""
        return self.size(width)

    def student(self, width: int, start: str, teacher: int | None, rows: Rows | None = None) -> Mapping[str, float]:
        """Measures of a student after distillation from a teacher, or from `rows` that one answered; of labels alone
        without both."""
        model = self.model(shape(width), 1000 + width)
        if teacher is None and rows is None:
            self.learn(model, {"text": self.rows}, self.settings.steps, **self.options)
            self.trial.keep(model, tokens=self.tokens)
            return {"loss": self.loss(model)}
        if teacher is not None:
            whole, gates, rows = self.teacher(teacher)
            if start == "pruned":
                model = pruned(whole, gates, Shape(**{**vars(shape(width)), "vocabulary": self.vocabulary}))
        assert rows is not None
        losses = METHOD.losses(MethodOptions())
        self.distil(model, [FixedDomain("text", rows)], self.settings.steps, losses, **self.options)
        self.trial.keep(model, "" if teacher is None else f"of teacher {teacher}", self.tokens)
        return {"loss": self.loss(model)}


def rule(results: Results) -> list[Check]:
    """Of both starts: interior minima, a best teacher that grows, along a line."""
    return checks(results, STUDENTS, STARTS)
