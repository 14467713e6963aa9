"""What learns from itself in the experiment: small networks, each from a fresh start, and ridge regression."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from distill.core.objectives.probabilities import ProbabilityMSE
from distill.core.teachers import RecordedLogits
from distill.language.tasks import Unigrams, flipped
from distill.methods.framework import Trial
from distill.methods.labs.feature_lab import (
    Perceptron,
    Sentences,
    few_classes,
    labelled,
    learned,
    logits_of,
    softmax,
    word_counts,
)

SETS = ("train", "validation", "test")
Said = Mapping[str, np.ndarray]
"""Set -> what a model says of it, `[N, classes]`."""


class Lab(Protocol):
    """One seed's data and one kind of model."""

    truth: dict[str, np.ndarray]
    """Set -> one-hot labels `[N, classes]`, wrong in part but for the test set."""
    last: nn.Module
    """The model that was fitted last."""

    def fit(self, targets: np.ndarray, generation: int, strength: float = 1.0) -> Said:
        """What a model says that learned `targets` `[N, classes]`, with `strength` times the usual weight penalty."""
        ...


def error(lab: Lab, said: Said, name: str = "test") -> float:
    """Share of wrong answers."""
    return float((said[name].argmax(1) != lab.truth[name].argmax(1)).mean())


class Networks:
    """Perceptrons on the word counts of generated sentences. Every generation has weights and batches of its own."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s, rng = self.settings, trial.rng()
        task = Unigrams(s.classes, seed=trial.seed)
        self.x: dict[str, np.ndarray] = {}
        self.truth = {}
        for name in SETS:
            tokens, labels = task.draw(rng, trial.scaled(getattr(s, name), 60))
            self.x[name] = word_counts(tokens, task.vocabulary)
            self.truth[name] = np.eye(s.classes)[_noisy(labels, name, s, rng)]
        self.last = nn.Identity()

    def fit(self, targets: np.ndarray, generation: int, strength: float = 1.0) -> Said:
        """By AdamW on the squared distance of probabilities."""
        s = self.settings
        model = Perceptron(self.x["train"].shape[1], s.classes, s.hidden, self.trial.number(10 + generation))
        rows = {"x": self.x["train"], "logits": np.log(np.maximum(targets, 1e-26)).astype(np.float32)}
        learned(
            self.trial, model, ProbabilityMSE(), RecordedLogits(), rows, steps=s.updates, batch=64,
            learning_rate=s.learning_rate, weight_decay=strength * s.weight_decay,
            seed=self.trial.number(100 + generation),
        )  # fmt: skip
        self.last = model
        return {name: softmax(logits_of(model, x)) for name, x in self.x.items()}


class Ridge:
    """Ridge regression on vectors of a frozen encoder, in closed form; its strength is chosen on the validation set."""

    def __init__(self, trial: Trial) -> None:
        s, rng = trial.settings, trial.rng()
        train, test, names = labelled(trial, s.encoder)
        train, test = few_classes((train, test), min(s.classes, len(names)), rng)
        order = rng.permutation(len(train.label))
        cut = round(0.8 * len(order))
        sets: dict[str, Sentences] = {
            "train": train.take(order[:cut]), "validation": train.take(order[cut:]), "test": test,
        }  # fmt: skip
        classes = min(s.classes, len(names))
        self.x = {name: found.x.astype(float) for name, found in sets.items()}
        self.truth = {name: np.eye(classes)[_noisy(found.label, name, s, rng, classes)] for name, found in sets.items()}
        self.last: nn.Module = nn.Identity()
        self.strength = 1.0
        self.strength = min(s.strengths, key=lambda strength: self._validation(strength))

    def _validation(self, strength: float) -> float:
        self.strength = strength
        return error(self, self.fit(self.truth["train"], 0), "validation")

    def fit(self, targets: np.ndarray, generation: int, strength: float = 1.0) -> Said:  # noqa: ARG002
        """`x (X'X + strength I)^-1 X' targets`."""
        x = self.x["train"]
        weights = np.linalg.solve(x.T @ x + strength * self.strength * np.eye(x.shape[1]), x.T @ targets)
        model = Perceptron(*weights.shape, hidden=0, seed=0)
        linear: Any = model.layers[0]
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(weights.T))
            linear.bias.zero_()
        self.last = model
        return {name: values @ weights for name, values in self.x.items()}


def _noisy(labels: np.ndarray, name: str, s: Any, rng: np.random.Generator, classes: int = 0) -> np.ndarray:
    """A real validation set is as wrong as the training set; the test set is clean."""
    return labels if name == "test" else flipped(labels, classes or s.classes, s.flipped, rng)


__all__ = ["Lab", "Networks", "Ridge", "error"]
