"""FIRST: distilling a calibrated teacher's five likeliest tokens (arXiv 2408.12168).

Eight words of one of 20 classes, then the class as the next token: the Bayes posterior is known, so is perfect
calibration. The teacher over-fits; its five largest probabilities are rescaled so that they mean what they say.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.objectives.base import Objective
from distill.core.objectives.divergences import CrossEntropy, ForwardKL, TopKKL
from distill.core.objectives.topk import kept_mass, trustworthy
from distill.core.signals import TopKLogits
from distill.core.teachers import RecordedLogits
from distill.language.collect import RecordedTopK
from distill.language.evaluate import accuracy, calibration_error, label_nats
from distill.language.models import Shape
from distill.language.student import Next
from distill.language.tasks import Unigrams
from distill.methods.claims import Claim, Difference, Power
from distill.methods.first.method import Change, calibrated, head_error
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.labs.class_lab import ClassLab
from distill.methods.statistics import Check, Results

NOTHING = -1e4
"""Log-probability of a rest that the teacher rules out; finite, as it is written down."""
SMOOTHING = 0.1
"""Probability that smoothed labels leave to all tokens, evenly."""
MARGIN = 0.015
"""Of accuracy, that a better calibration may cost."""
PILOT = (900, 901, 902)
"""There top-5 less FIRST was 0.257, labels and a temperature less FIRST -0.003, and FIRST lost 0.036 of accuracy more
than the margin."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    classes: int = 20
    words: int = 40
    train: int = 1500
    validation: int = 800
    test: int = 4000
    teacher: Shape = Shape(0, 64, 2, 4)
    student: Shape = Shape(0, 48, 1, 4)
    teacher_steps: int = 500
    steps: int = 1000
    batch: int = 64
    k: int = 5


@dataclass(frozen=True)
class Use(Arm):
    """What one arm learns from, and what is done to it."""

    signal: Literal["labels", "smoothed", "logits", "top-k"] = "top-k"
    change: Change | None = None
    """What is done to the teacher's likeliest tokens, at the level of the least calibration error."""
    rest: Literal["bucket", "drop"] = "bucket"
    """What becomes of the probability of all other tokens."""
    temperature: bool = False
    """Whether the student's own logits get one, fitted on the validation set after training."""


def after_the_words(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits `[B, V]` of the token after the words."""
    return module(input_ids=batch["tokens"], use_cache=False).logits[:, -1]


class Lab(ClassLab):
    """Data, the teacher's answers on them, and students. A label is a token: classes come after the words."""

    def __init__(self, trial: Trial) -> None:
        s, rng = trial.settings, trial.rng()
        task = Unigrams(s.classes, s.words, seed=trial.seed)
        size = task.vocabulary + s.classes
        super().__init__(trial, task, after_the_words, size, batch=s.batch, weight_decay=0.0)
        for name in ("train", "validation", "test"):
            self.draw(rng, name, 60)
            self.sets[name]["label"] += task.vocabulary
        shifted = self.sets["test"]["tokens"].copy()  # every fifth word is any word
        places = rng.random(shifted.shape) < 0.2
        shifted[places] = rng.integers(1, s.words + 1, places.sum())
        self.sets["shifted"] = {"tokens": shifted, "label": self.sets["test"]["label"]}
        rows = self.sets["train"]
        teacher = self.learn(self.model(s.teacher), CrossEntropy(), Next("label"), rows, s.teacher_steps)
        logits = {name: self.logits(teacher, name) for name in ("train", "validation")}
        self.logits_train = logits["train"]
        self.head = {n: TopKLogits.from_logits(torch.from_numpy(values), s.k) for n, values in logits.items()}
        self.mass = float(kept_mass(self.head["validation"]).mean())

    def student(
        self, objective: Objective, teacher: Any, fields: Mapping[str, Any]
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """A student that learned with these fields beside the labels, and its logits on the sets that are measured."""
        s, rows = self.settings, {**self.sets["train"], **fields}
        model = self.learn(self.model(s.student), objective, teacher, rows, s.steps)
        return model, {name: self.logits(model, name) for name in ("validation", "test", "shifted")}

    @cached_property
    def by_labels(self) -> tuple[Any, dict[str, np.ndarray]]:
        """A student that learned the labels alone, and its logits; trained once."""
        return self.student(CrossEntropy(), Next("label"), {})

    def smoothed(self) -> np.ndarray:
        """Log-probabilities `[N, V]` of the training labels, which leave a share to every token."""
        labels = np.eye(self.vocabulary)[self.sets["train"]["label"]]
        return np.log((1 - SMOOTHING) * labels + SMOOTHING / self.vocabulary).astype(np.float32)

    def best_temperature(self, logits: np.ndarray) -> float:
        """The one that gives logits on the validation set the least cross-entropy."""
        grid, labels = np.arange(0.5, 8.01, 0.1), self.sets["validation"]["label"]
        return float(grid[int(np.argmin([label_nats(_softmax(logits / t), labels) for t in grid]))])


def run_arm(trial: Trial, lab: Lab, arm: Use) -> dict[str, Any]:
    """One way to use the teacher, measured on the answer's whole distribution."""
    extra: dict[str, Any] = {"top5_mass": lab.mass}
    head, change = lab.head["train"], arm.change
    if change is not None:
        told, labels = lab.head["validation"], lab.sets["validation"]["label"]
        errors = {c: head_error(change(told, c), labels) for c in np.round(np.arange(1, 11) / 10, 1)}
        extra["c"] = calibrated(told, labels, change)
        extra["u_shape"] = float(min(errors.values()) < min(errors[0.1], errors[1.0]))
        head = change(head, extra["c"])
    if arm.signal == "labels":
        model, logits = lab.by_labels
    elif arm.signal == "smoothed":
        model, logits = lab.student(ForwardKL(), RecordedLogits(), {"logits": lab.smoothed()})
    elif arm.signal == "logits":
        model, logits = lab.student(ForwardKL(), RecordedLogits(), {"logits": lab.logits_train})
    else:
        written = {"log_probs": head.log_probs, "indices": head.indices, "tail": head.tail.clamp(min=NOTHING)}
        objective = TopKKL(tail=arm.rest)
        model, logits = lab.student(objective, RecordedTopK(), {key: values.numpy() for key, values in written.items()})
    trial.keep(model)
    if arm.temperature:
        extra["temperature"] = lab.best_temperature(logits["validation"])
        logits = {split: values / extra["temperature"] for split, values in logits.items()}
    found = {split: _softmax(values) for split, values in logits.items()}
    tests, labels = lab.sets["test"], lab.sets["test"]["label"]
    bayes, mine = lab.task.posterior(tests["tokens"]), found["test"][:, lab.task.vocabulary :]
    distance = (bayes * (np.log(np.maximum(bayes, 1e-30)) - np.log(np.maximum(mine, 1e-30)))).sum(1).mean()
    return {
        "ece": calibration_error(found["test"], labels), "accuracy": accuracy(found["test"], labels),
        "nats": label_nats(found["test"], labels), "kl_to_bayes": float(distance),
        "shifted_ece": calibration_error(found["shifted"], labels), **extra,
    }  # fmt: skip


def at_temperature(head: TopKLogits, c: float) -> TopKLogits:
    """The head's *logits* divided by 1 / c instead, rest 0."""
    log_probs = (head.log_probs * c).log_softmax(-1)
    return TopKLogits(log_probs, head.indices, torch.full_like(head.tail, -torch.inf))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def rule(results: Results) -> list[Check]:
    """Five tokens must hold the mass; beside the claims, other controls and other measures of calibration."""
    mass, shape = results.values("FIRST", "top5_mass"), results.values("FIRST", "u_shape")
    away = results.difference("FIRST", "labels, temperature", "shifted_ece")
    bare = results.difference("FIRST, no rest", "labels")
    inside = f"the error against c has its least inside the grid in {shape.mean():.0%} of the seeds"
    return [
        Check(
            f"the teacher's top-5 mass is {mass.mean():.3f}, at least 0.95", bool(mass.mean() >= 0.95), "precondition"
        ),
        Check(inside, shape.mean() >= 0.8, "reported"),
        results.lower("top-5", "labels", role="reported"),
        results.lower("FIRST", "smoothed labels", role="reported"),
        results.lower("FIRST", "labels, temperature", "nats", role="reported"),
        Check(f"ece on shifted words: FIRST less the labels' student at a temperature is {away}", away.negative,
              "reported"),
        Check(f"ece: FIRST as written, without a rest bucket, less labels is {bare}", bare.negative, "reported"),
    ]  # fmt: skip


def spared(results: Results) -> np.ndarray:
    """`[seeds]`, what is left of the margin of accuracy after what FIRST loses against labels."""
    return MARGIN - (results.values("labels", "accuracy") - results.values("FIRST", "accuracy"))


RECIPE = Recipe(
    name="first",
    title="FIRST: trustworthy distillation of the five likeliest tokens",
    source="arXiv 2408.12168",
    place=Place("feature", "divergence", "token logits", skill="understanding"),
    signals=("top-k logits",),
    data="8 words of one of 20 classes, with the exact Bayes posterior, generated",
    claim="Five tokens hold 95 % of the teacher's probability, and matching them after rescaling makes the student "
    "better calibrated than matching them as they are or than labels, at the same accuracy",
    falsified="the rescaling changes the student's calibration error by no more than a standard error, or raises it",
    needs="text, some of it held out, and a teacher whose logits are open and whose tokenizer is the student's",
    costs="the teacher reads the held-out rows once more than in plain distillation",
    arms={
        "labels": Use("hard labels", "labels"),
        "full KD": Use("the whole vocabulary", "logits"),
        "top-5": Use("five tokens as they are, and a bucket for the rest"),
        "FIRST": Use("five tokens rescaled for the least calibration error, rest 0", change=trustworthy),
        "FIRST, no rest": Use(
            "as written: both sides normalised over the five tokens", change=trustworthy, rest="drop"
        ),
        "smoothed labels": Use(f"control: hard labels with {SMOOTHING:.0%} for all other tokens", "smoothed"),
        "labels, temperature": Use(
            "control: hard labels, then one temperature fitted on the validation set", "labels", temperature=True
        ),
        "top-5, temperature": Use("control: five tokens at a temperature, rest 0", change=at_temperature),
    },
    metric="ece",
    seeds=0,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "rescaling",
            "Five tokens, rescaled, make a student better calibrated than the same tokens as they are",
            Difference("top-5", "FIRST"),
            Power(0.05, 0.0183, PILOT),
        ),
        Claim(
            "against temperature",
            "They make it better calibrated than labels and one temperature fitted afterwards",
            Difference("labels, temperature", "FIRST"),
            Power(0.02, 0.0246, PILOT),
        ),
        Claim(
            "accuracy",
            f"They cost less than {MARGIN:g} of accuracy against labels",
            spared,
            Power(0.01, 0.00998, PILOT),
            unit="margin less what FIRST loses of accuracy",
        ),
    ),
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("Qwen/Qwen1.5-7B", Shape(151936, 4096, 32, 32, 11008, 32768, tied=False)),
            "student": ("Qwen/Qwen1.5-1.8B", Shape(151936, 2048, 24, 16, 5504, 32768, tied=False)),
        },
        devices=8,
        tokens="52,000 instructions, 3 epochs of batch 128; 5 ids and 5 half floats a position",
    ),
)
