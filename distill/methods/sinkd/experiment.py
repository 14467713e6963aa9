"""SinKD: a Sinkhorn distance between the outputs of a whole batch beside the usual losses (arXiv 2402.17110)."""

from dataclasses import dataclass
from typing import Any

from distill.core.objectives.base import Objective, WeightedSum
from distill.core.objectives.divergences import CrossEntropy, JensenShannon, ReverseKL
from distill.core.objectives.sinkhorn import SinkhornDistance
from distill.core.teachers import RecordedLogits
from distill.language.evaluate import accuracy, calibration_error, label_nats
from distill.language.models import Shape
from distill.language.student import Next
from distill.language.tasks import Unigrams
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.labs.class_lab import ClassLab
from distill.methods.method import MethodOptions, taught
from distill.methods.sinkd.method import METHOD
from distill.methods.statistics import Check, Results

LOSSES: dict[str, Objective] = {
    "reverse KL": ReverseKL(),
    "JS": JensenShannon(),
    "per-sample L1": SinkhornDistance(group=1),
    "SinKD 4": SinkhornDistance(group=4),
    "SinKD 16": SinkhornDistance(group=16),
    "SinKD": SinkhornDistance(),
}
"""What is added to labels and KD; the whole batch is compared where no number says how many samples."""
CONTRASTED = ("KD", "per-sample L1", "SinKD")
"""Arms that are also tried from a wrong start and on other tasks."""
OTHERS = (2, 6)
"""Numbers of classes beside the main one."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    classes: int = 3
    train: int = 2000
    validation: int = 1000
    test: int = 5000
    teacher_train: int = 20_000
    noise: float = 0.1
    teacher: Shape = Shape(0, 48, 3, 4, kind="encoder", context=16)
    student: Shape = Shape(0, 32, 1, 2, kind="encoder", context=16)
    teacher_steps: int = 500
    steps: int = 400
    wrong_steps: int = 150
    """In which a student learns rotated labels first, for the condition of little overlap."""
    after: int = 200
    """Steps after which that condition is measured."""
    batch: int = 64
    alpha: float = 0.9
    """Of KD; labels have the rest."""
    temperature: float = 2.0
    weights: tuple[float, ...] = (0.05, 0.2, 0.8)
    """Tried for every added loss, a mean per sample, and chosen on validation."""
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Added(Arm):
    """What one arm adds to labels and KD, and where."""

    loss: Objective | None = None
    classes: int = 0
    """Of the task; the main one's where 0."""
    alone: bool = False
    """The loss without labels and KD."""
    wrong_start: bool = False
    """From a student that learned rotated labels, and for `Settings.after` steps."""


class Classes(ClassLab):
    """One task, its teacher, and the teacher's logits on the student's data."""

    def __init__(self, trial: Trial, classes: int) -> None:
        s, rng = trial.settings, trial.rng(classes)
        task = Unigrams(classes, 40, 8, scale=0.6, seed=trial.seed)
        super().__init__(trial, task, batch=s.batch, learning_rate=s.learning_rate)
        for name in ("train", "validation", "test", "teacher_train"):
            self.draw(rng, name, 80)
            if name != "test":
                self.flip(rng, name, s.noise)
        rows = self.sets["teacher_train"]
        teacher = self.learn(self.model(s.teacher), CrossEntropy(), Next("label"), rows, s.teacher_steps)
        self.answers = self.probabilities(teacher, "test").argmax(1)
        self.sets["train"]["logits"] = self.logits(teacher, "train")

    def misled(self) -> Any:
        """A student that learned labels rotated by one class."""
        s, rows = self.settings, self.sets["train"]
        rotated = {**rows, "label": (rows["label"] + 1) % self.task.classes}
        return self.learn(self.model(s.student), CrossEntropy(), Next("label"), rotated, s.wrong_steps)

    def distil(
        self, loss: Objective | None, weight: float, steps: int, model: Any = None, anchored: bool = True
    ) -> Any:
        """A student of labels, KD and one more loss, or of that loss alone."""
        s = self.settings
        options = MethodOptions(alpha=s.alpha, temperature=s.temperature, weight=0.0)
        parts = dict(METHOD.losses(options)) if anchored else {}
        if loss is not None:
            parts["sinkhorn"] = (weight, loss)
        teachers = taught(parts, RecordedLogits(), Next("label"))
        model = self.model(s.student) if model is None else model
        return self.learn(model, WeightedSum(parts), teachers, self.sets["train"], steps)

    def measure(self, model: Any) -> dict[str, float]:
        """On the test set, whose labels are clean."""
        found, labels = self.probabilities(model, "test"), self.sets["test"]["label"]
        agreement = float((found.argmax(1) == self.answers).mean())
        return {
            "accuracy": accuracy(found, labels), "agreement": agreement, "ece": calibration_error(found, labels),
        }  # fmt: skip

    def best(self, loss: Objective | None) -> tuple[Any, dict[str, float]]:
        """Of the weights that are tried, the student with the least validation loss, and its measures."""
        found = []
        for weight in (0.0,) if loss is None else self.settings.weights:
            model = self.distil(loss, weight, self.settings.steps)
            loss_here = label_nats(self.probabilities(model, "validation"), self.sets["validation"]["label"])
            found.append((loss_here, weight, model, self.measure(model)))
        _, weight, model, measures = min(found, key=lambda item: item[0])
        return model, {**measures, "weight": weight}


class Lab:
    """The tasks of one seed, made when they are first asked for."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.tasks = trial, {}

    def of(self, classes: int) -> Classes:
        """The task with so many classes."""
        if classes not in self.tasks:
            self.tasks[classes] = Classes(self.trial, classes)
        return self.tasks[classes]


def run_arm(trial: Trial, lab: Lab, arm: Added) -> dict[str, Any]:
    """One added loss, on one task or from one start."""
    s = trial.settings
    task = lab.of(arm.classes or s.classes)
    if arm.alone or arm.wrong_start:
        if arm.alone:
            model = task.distil(arm.loss, 1.0, s.steps, anchored=False)
        else:
            model = task.distil(arm.loss, s.weights[1], s.after, task.misled())
        measures = task.measure(model)
    else:
        model, measures = task.best(arm.loss)
    trial.keep(model)
    return measures


def rule(results: Results) -> list[Check]:
    """The batch adds something to KD, and more than the same distance sample by sample; more so in larger batches."""
    alone = results.difference("SinKD, alone", "KD")
    checks = [
        results.higher("SinKD", "KD"),
        results.higher("SinKD", "per-sample L1"),
        results.higher("SinKD", "SinKD 4"),
        results.lower("SinKD", "KD", role="falsifies"),
        results.lower("SinKD", "per-sample L1", role="falsifies"),
        Check(f"without labels and KD it fails: alone less KD is {alone}", alone.negative, "reported"),
        results.higher("SinKD, wrong start", "KD, wrong start", role="reported"),
        results.higher("SinKD, wrong start", "per-sample L1, wrong start", role="reported"),
    ]
    return checks + [results.higher(f"SinKD, {c} classes", f"KD, {c} classes", role="reported") for c in OTHERS]


RECIPE = Recipe(
    name="sinkd",
    title="SinKD: Sinkhorn distance between batches of outputs",
    source="arXiv 2402.17110",
    place=Place("feature", "divergence", "token logits", granularity="class", skill="understanding"),
    signals=("dense logits",),
    data="sentences of 2, 3 and 6 classes with 10 % flipped labels, generated",
    claim="Beside labels and KD, a Sinkhorn distance over the batch teaches a student more than nothing, and more than "
    "the same distance sample by sample; its gain grows with the batch",
    falsified="with it the student is worse than with KD alone, or than with the sample-wise distance",
    arms={
        "KD": Added("labels and KD"),
        **{name: Added(f"{name} added, weight chosen on validation", loss) for name, loss in LOSSES.items()},
        "SinKD, alone": Added(
            "control: without labels and KD nothing says which sample is which", LOSSES["SinKD"], alone=True
        ),
        **{
            f"{name}, wrong start": Added(
                "200 steps from a student of rotated labels", LOSSES.get(name), wrong_start=True
            )
            for name in CONTRASTED
        },
        **{
            f"{name}, {classes} classes": Added("another task", LOSSES.get(name), classes)
            for classes in OTHERS
            for name in CONTRASTED
        },
    },
    metric="accuracy",
    seeds=5,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="encoder")),
            "student": ("its first 6 layers", Shape(30522, 768, 6, 12, 3072, kind="encoder")),
        },
        devices=1,
        tokens="GLUE, the teacher fine-tuned on each task first; 2 to 20 epochs of batch 16 or 32",
    ),
)
