"""The capacity gap in language: characters of source and prose, students of random weights or cut out of a teacher."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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

HEAD = 4
"""Width of every attention head."""
STUDENTS = (8, 12, 16, 24, 32)


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment: widths of 2-layer models, 20 width^2 parameters without embeddings."""

    teachers: tuple[int, ...] = (12, 16, 24, 32, 48, 80, 160)
    """The same for all students: of a grid that moves with them an end would grow as they do."""
    students: tuple[int, ...] = STUDENTS
    length: int = 64
    rows: int = 8000
    """Of each of two domains, standard-library source and prose, that teachers learn from: of 2,000 the largest learned
    much by heart, and knew less of other text (1.445 nats) than one of three tenths of its width (1.411)."""
    student_rows: int = 2000
    """Of each, among them, that students learn from."""
    valid: int = 64
    """Rows of each that say when a teacher is at its best."""
    test: int = 64
    teacher_steps: int = 3000
    looks: int = 8
    """At a teacher while it learns, of which the best is kept: converged, and its rows not learned by heart."""
    steps: int = 300
    batch: int = 16
    quality: tuple[float, ...] = (0.25, 0.5, 1.0)
    """Shares of `teacher_steps` of the control's teacher, which has one size."""
    quality_teacher: int = 48
    learning_rate: float = 3e-3


def shape(width: int) -> Shape:
    """A model of one of the widths."""
    return Shape(0, width, 2, width // HEAD)


class TextGap(TextLab):
    """What the recipe asks of a domain, in language."""

    def __init__(self, trial: Trial) -> None:
        self.settings = s = trial.settings
        super().__init__(trial, ("python", "prose"), s.length, {"train": s.rows, "valid": s.valid, "test": s.test})
        self.text, self.valid, self.test = (self._together(split) for split in ("train", "valid", "test"))
        self.rows = self._together("train", trial.scaled(s.student_rows, 4))
        """That students learn from."""
        self.options: Any = {"batch": s.batch, "learning_rate": s.learning_rate}
        self.teachers: dict[int, tuple[Any, Importance, Rows]] = {}
        self.curves: dict[tuple[int, int], list[float]] = {}
        """Of teachers by width and steps: nats at each look."""

    def _together(self, split: str, count: int | None = None) -> Rows:
        """The rows of both domains, of each the first `count`."""
        parts = list(self.of(split).values())
        return {key: np.concatenate([part[key][:count] for part in parts]) for key in parts[0]}

    def loss(self, model: Any) -> float:
        """Held-out nats a token on true text."""
        return nats_per_token(model, self.read, self.test)

    def taught(self, width: int, steps: int) -> Any:
        """A teacher at its best within so many steps."""
        model, looks = self.model(shape(width), width), min(self.settings.looks, self.trial.scaled(steps))

        def look(_: Any) -> dict[str, float]:
            return {"golden": -nats_per_token(model, self.read, self.valid)}

        how = {**self.options, "rounds": looks, "evaluate": look, "best": looks > 1}
        found = self.learn(model, {"text": self.text}, steps, **how)
        self.curves[width, steps] = [-each["golden"] for each in found["measured"]]
        return model

    def teacher(self, width: int) -> tuple[Any, Importance, Rows]:
        """A fully trained teacher, its gates, and the rows with its logits; made once."""
        if width not in self.teachers:
            model = self.taught(width, self.settings.teacher_steps)
            few = {key: values[:: max(len(values) // 64, 1)] for key, values in self.rows.items()}  # of both domains
            self.teachers[width] = model, importance(model, batches(few, 16)), self.with_logits(model, self.rows)
        return self.teachers[width]

    def teacher_loss(self, width: int) -> float:
        """Of a fully trained teacher."""
        return self.loss(self.teacher(width)[0])

    def about(self) -> dict[str, Any]:
        """Of fully trained teachers: `teacher_curves` `[T, looks]`, nats on text that is not learned from."""
        s = self.settings
        return {"teacher_curves": [self.curves[width, s.teacher_steps] for width in s.teachers]}

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
    """Interior minima, a best teacher that grows, along a line; what pruning changes; whether teachers converged."""
    arms = [row[f"random {STUDENTS[0]}"] for row in results.rows.values()]
    curves = np.array([arm["teacher_curves"] for arm in arms])
    late = (curves[..., curves.shape[-1] // 4 * 3 - 1] - curves.min(-1)).mean(0).max()
    text = f"what the last quarter of its steps is worth to the teacher that gains most: {late:.3f} nats, below 0.05"
    teachers = np.array([arm["teacher_losses"] for arm in arms]).mean(0)
    known = ", ".join(f"{loss:.3f}" for loss in teachers)
    grows = f"every larger teacher knows text better, the largest best: {known} nats"
    small = np.array([[row[f"{start} {STUDENTS[0]}"]["losses"] for start in ("random", "pruned")]
                      for row in results.rows.values()]).mean(0)  # fmt: skip
    best = [results.rows[results.seeds[0]][f"pruned {STUDENTS[0]}"]["teachers"][k] for k in small.argmin(-1)]
    smallest = (
        f"the best teacher of the smallest student has {best[0]:,} parameters, {best[1]:,} where it is cut out of it"
    )
    return [
        Check(grows, bool((np.diff(teachers) < 0).all()), "precondition"),
        *checks(results, STUDENTS, "random"), Check(smallest, best[1] < best[0], "reported"),
        Check(text, bool(late < 0.05), "reported"),
    ]  # fmt: skip
