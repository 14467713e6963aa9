"""What recipes that classify share: sets of sentences of known classes, models that learn them, and what those say."""

from typing import Any

import numpy as np

from distill.core.objectives.base import Objective
from distill.core.tables import FixedDomain, Rows
from distill.language.evaluate import class_probabilities, over
from distill.language.models import Read, Shape, build, classifier
from distill.language.student import ModelStudent
from distill.language.tasks import Unigrams, flipped
from distill.methods.framework import Trial


class ClassLab:
    """One seed's task: sets of it, each rows of `tokens` `[N, T]` and `label` `[N]`, and models of its vocabulary."""

    def __init__(self, trial: Trial, task: Unigrams, read: Read | None = None, vocabulary: int = 0, **options: Any):
        """`read` takes a model's logits `[B, C]`, by default those of a classifier; `vocabulary` is the models', by
        default the task's; every training has the `options`."""
        self.trial, self.settings, self.task = trial, trial.settings, task
        self.read, self.vocabulary, self.options = read or classifier(), vocabulary or task.vocabulary, options
        self.sets: dict[str, dict[str, np.ndarray]] = {}

    def draw(self, rng: np.random.Generator, name: str, least: int) -> None:
        """Makes the set of that name, of the size that the settings give under the same name, within the budget."""
        tokens, labels = self.task.draw(rng, self.trial.scaled(getattr(self.settings, name), least))
        self.sets[name] = {"tokens": tokens, "label": labels}

    def flip(self, rng: np.random.Generator, name: str, share: float) -> None:
        """Makes a share of a set's labels wrong."""
        self.sets[name]["label"] = flipped(self.sets[name]["label"], self.task.classes, share, rng)

    def model(self, shape: Shape, seed: int | None = None) -> Any:
        """A model for this task with random weights of this seed and the shape's width, or of a `seed` of its own."""
        sizes = {"vocabulary": self.vocabulary, "classes": self.task.classes}
        return build(Shape(**{**vars(shape), **sizes}), self.trial.number(shape.width) if seed is None else seed)

    def learn(self, model: Any, objective: Objective, teacher: Any, rows: Rows, steps: int, **options: Any) -> Any:
        """The model after so many steps on rows."""
        student, options = ModelStudent(model, self.read), {**self.options, **options}
        self.trial.fit(student, objective, teacher, [FixedDomain("rows", rows)], steps=steps, **options)
        return model

    def logits(self, model: Any, name: str) -> np.ndarray:
        """`[N, C]` on one of the sets."""
        return over(model, self.sets[name], lambda batch: self.read(model, batch), 256).numpy()

    def probabilities(self, model: Any, name: str) -> np.ndarray:
        """`[N, C]` on one of the sets."""
        return class_probabilities(model, self.read, self.sets[name])
