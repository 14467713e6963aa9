"""SinKD: a Sinkhorn distance between the outputs of a whole batch beside the usual losses (arXiv 2402.17110).

Generated sentences whose Bayes accuracy leaves room above the students, or BANKING77 on a frozen pretrained encoder.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.core.objectives.base import Objective, WeightedSum
from distill.core.objectives.divergences import CrossEntropy
from distill.core.objectives.sinkhorn import SinkhornDistance
from distill.core.teachers import RecordedLogits
from distill.language.evaluate import accuracy, calibration_error, label_nats
from distill.language.models import Shape
from distill.language.student import Next
from distill.language.tasks import Unigrams, flipped
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.labs.feature_lab import (
    MINILM,
    Perceptron,
    Sentences,
    few_classes,
    labelled,
    learned,
    logits_of,
    softmax,
    word_counts,
)
from distill.methods.method import MethodOptions, taught
from distill.methods.sinkd.method import METHOD
from distill.methods.statistics import Check, Results

LOSSES: dict[str, Objective] = {
    "per-sample L1": SinkhornDistance(group=1),
    "SinKD 4": SinkhornDistance(group=4),
    "SinKD": SinkhornDistance(),
}
"""What is added to labels and KD; the whole batch is compared where no number says how many samples."""
ROOM = (0.95, 0.7, 0.9)
"""Least Bayes accuracy, and the range in which KD's must lie for an experiment that can show a gain."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    classes: int = 10
    train: int = 30
    validation: int = 500
    test: int = 4000
    teacher_train: int = 4000
    length: int = 20
    """Words of a generated sentence."""
    noise: float = 0.1
    encoder: str = ""
    """Of real sentences; generated ones are counted word by word."""
    hidden: int = 16
    """Units of a student; a teacher is linear, which is as good as Bayes on word counts."""
    teacher_steps: int = 300
    steps: int = 200
    batch: int = 32
    alpha: float = 0.9
    """Of KD; labels have the rest."""
    temperature: float = 2.0
    weights: tuple[float, ...] = (0.2, 0.8)
    """Tried for every added loss, a mean per sample, and chosen on validation."""
    learning_rate: float = 1e-2


@dataclass(frozen=True)
class Added(Arm):
    """What one arm adds to labels and KD."""

    loss: Objective | None = None


class Lab:
    """One seed's task, its teacher, and the teacher's logits on the student's data. The test set's labels are clean."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s, rng = self.settings, trial.rng()
        self.sets, self.bayes = self._encoded(rng) if s.encoder else self._counted(rng)
        for name in ("train", "validation", "teacher_train"):
            found = self.sets[name]
            self.sets[name] = Sentences(found.x, flipped(found.label, s.classes, s.noise, rng))
        inputs = self.sets["train"].x.shape[1]
        teacher = learned(
            trial, Perceptron(inputs, s.classes, 0, trial.number(1)), CrossEntropy(), Next("label"),
            self.sets["teacher_train"].rows(), steps=s.teacher_steps, batch=s.batch, learning_rate=3 * s.learning_rate,
        )  # fmt: skip
        self.teacher = {name: logits_of(teacher, self.sets[name].x) for name in ("train", "test")}

    def _counted(self, rng: np.random.Generator) -> tuple[dict[str, Sentences], float]:
        s, trial = self.settings, self.trial
        task = Unigrams(s.classes, 40, s.length, seed=trial.seed)
        found, bayes = {}, 1.0
        for name in ("train", "validation", "test", "teacher_train"):
            tokens, labels = task.draw(rng, trial.scaled(getattr(s, name), 20))
            found[name] = Sentences(word_counts(tokens, task.vocabulary), labels)
            if name == "test":
                bayes = accuracy(task.posterior(tokens), labels)
        return found, bayes

    def _encoded(self, rng: np.random.Generator) -> tuple[dict[str, Sentences], float]:
        s, trial = self.settings, self.trial
        train, test, _ = labelled(trial, s.encoder)
        train, test = few_classes((train, test), s.classes, rng)
        order = rng.permutation(len(train.label))
        cuts = s.train, s.train + s.validation
        few, validation = order[: cuts[0]], order[cuts[0] : cuts[1]]
        sets = {"train": train.take(few), "validation": train.take(validation), "test": test, "teacher_train": train}
        return sets, 1.0

    def distil(self, loss: Objective | None, weight: float) -> Perceptron:
        """A student of labels, KD and one more loss. All have the same weights and batches at first."""
        s, rows = self.settings, self.sets["train"]
        options = MethodOptions(alpha=s.alpha, temperature=s.temperature, weight=0.0)
        parts = dict(METHOD.losses(options)) | ({} if loss is None else {"sinkhorn": (weight, loss)})
        return learned(
            self.trial, Perceptron(rows.x.shape[1], s.classes, s.hidden, self.trial.number(2)), WeightedSum(parts),
            taught(parts, RecordedLogits(), Next("label")), {**rows.rows(), "logits": self.teacher["train"]},
            steps=s.steps, batch=s.batch, learning_rate=s.learning_rate,
        )  # fmt: skip

    def measure(self, model: Perceptron) -> dict[str, float]:
        """On the test set."""
        test = self.sets["test"]
        found = softmax(logits_of(model, test.x))
        agreement = float((found.argmax(1) == self.teacher["test"].argmax(1)).mean())
        return {
            "accuracy": accuracy(found, test.label), "agreement": agreement,
            "ece": calibration_error(found, test.label),
            "teacher_accuracy": accuracy(softmax(self.teacher["test"]), test.label), "bayes": self.bayes,
        }  # fmt: skip


def run_arm(trial: Trial, lab: Lab, arm: Added) -> dict[str, Any]:
    """Of the weights that are tried, the student with the least validation loss."""
    found = []
    for weight in (0.0,) if arm.loss is None else trial.settings.weights:
        model, rows = lab.distil(arm.loss, weight), lab.sets["validation"]
        found.append((label_nats(softmax(logits_of(model, rows.x)), rows.label), weight, model))
    _, weight, model = min(found, key=lambda item: item[:2])
    trial.keep(model)
    return {**lab.measure(model), "weight": weight}


def claims(batch: Power, gain: Power, size: Power) -> tuple[Claim, ...]:
    """What is asked, with the power of each figure."""
    return (
        Claim(
            "batch", "The distance over the batch teaches more than the same distance sample by sample",
            Difference("SinKD", "per-sample L1"), batch,
        ),
        Claim("gain", "Beside labels and KD it teaches more than nothing", Difference("SinKD", "KD"), gain),
        Claim(
            "size", "A larger batch teaches more than groups of four",
            Difference("SinKD", "SinKD 4"), size, role="mechanism",
        ),
    )  # fmt: skip


def rule(results: Results) -> list[Check]:
    """There must be room for a gain."""
    bayes, kd = results.values("KD", "bayes").mean(), results.values("KD").mean()
    least, low, high = ROOM
    return [
        Check(f"Bayes accuracy {bayes:.3f}, at least {least}", bayes >= least, "precondition"),
        Check(f"KD's accuracy {kd:.3f}, {low} to {high}", low <= kd <= high, "precondition"),
    ]


PILOT, PILOT_REAL = (900, 901, 902), (900, 901, 902, 903)

RECIPE = Recipe(
    name="sinkd",
    title="SinKD: Sinkhorn distance between batches of outputs",
    source="arXiv 2402.17110",
    place=Place("feature", "divergence", "token logits", granularity="class", skill="understanding"),
    signals=("dense logits",),
    data="sentences of 10 classes with 10 % flipped labels, generated, or labelled tables by --data (BANKING77)",
    claim="Beside labels and KD, a Sinkhorn distance over the batch teaches a student more than nothing, and more than "
    "the same distance sample by sample; its gain grows with the batch",
    falsified="with it the student is worse than with KD alone, or than with the sample-wise distance",
    needs="labelled texts, or text, and a teacher whose class or token probabilities are open",
    costs="distances between all samples of a group",
    arms={
        "KD": Added("labels and KD"),
        **{name: Added(f"{name} added, weight chosen on validation", loss) for name, loss in LOSSES.items()},
    },
    metric="accuracy",
    seeds=22,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=claims(Power(0.005, 0.0026, PILOT), Power(0.01, 0.0142, PILOT), Power(0.005, 0.003, PILOT)),
    presets={
        "small": Settings(),
        "real-small": Settings(classes=20, encoder=MINILM, train=60, validation=100),
    },
    by_preset={
        "real-small": {
            "seeds": 20,
            "claims": claims(
                Power(0.005, 0.0047, PILOT_REAL), Power(0.005, 0.0033, PILOT_REAL), Power(0.005, 0.0025, PILOT_REAL)
            ),
        },
    },
    reads=("labelled",),
    scale=Scale(
        {
            "teacher": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="encoder")),
            "student": ("its first 6 layers", Shape(30522, 768, 6, 12, 3072, kind="encoder")),
        },
        devices=1,
        tokens="GLUE, the teacher fine-tuned on each task first; 2 to 20 epochs of batch 16 or 32",
    ),
)
