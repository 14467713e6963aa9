"""The law of the capacity gap: is there a best teacher size for a student, and does it grow with it? (arXiv 2311.07052)

Every student is distilled from every teacher, once from weights that are pruned out of its teacher, as in the paper,
and once from the same random ones: a larger teacher also means harsher pruning.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.language.collect import Table
from distill.language.evaluate import Rows, batches, nats_per_token
from distill.language.models import Shape, parameters
from distill.language.pruning import Importance, importance, pruned
from distill.recipes.framework import Place, Recipe, Scale, Trial
from distill.recipes.statistics import Check, Results
from distill.recipes.text_lab import TextLab

HEAD = 8
"""Width of every attention head."""
STARTS = ("pruned", "random")
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
    """Language: characters of source and prose."""

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

    def size(self, width: int) -> int:
        """Parameters without embeddings."""
        return parameters(self.model(shape(width), 0), embeddings=False)

    def student(self, width: int, start: str, teacher: int | None, rows: Rows | None = None) -> float:
        """Held-out loss of a student after distillation, or after labels alone without a teacher."""
        model = self.model(shape(width), 1000 + width)
        if teacher is None and rows is None:
            self.learn(model, {"text": self.rows}, self.settings.steps, **self.options)
            return self.loss(model)
        if teacher is not None:
            whole, gates, rows = self.teacher(teacher)
            if start == "pruned":
                model = pruned(whole, gates, Shape(**{**vars(shape(width)), "vocabulary": self.vocabulary}))
        assert rows is not None
        self.distil(model, [Table("text", rows)], self.settings.steps, (0.5, 0.5), **self.options)
        return self.loss(model)


DOMAINS: Mapping[str, Callable[[Trial], Any]] = {"language": TextGap}
"""Where the question can be asked: each gives `teacher`, `student`, `size`, `loss` and `taught` by width."""


def prepare(trial: Trial) -> Any:
    """The laboratory of the trial's domain."""
    return DOMAINS[trial.domain](trial)


def run_arm(trial: Trial, lab: Any, name: str) -> dict[str, Any]:
    """One student and one start, from every teacher; or a baseline."""
    s = trial.settings
    if name == "teacher quality":
        points = []
        for share in s.quality:
            model = lab.taught(s.quality_teacher, max(round(share * s.teacher_steps), 1))
            student = lab.student(s.students[1], "random", None, lab.with_logits(model, lab.rows))
            points.append((lab.loss(model), student))
        return {"loss": points[-1][1], "points": points}
    start, width = name.split()[0], s.students[STUDENTS.index(int(name.split()[1]))]
    if start == "labels":
        return {"loss": lab.student(width, start, None), "size": lab.size(width)}
    losses = {teacher: lab.student(width, start, teacher) for teacher in s.teachers}
    return {
        "loss": losses[s.teachers[-1]], "losses": list(losses.values()), "size": lab.size(width),
        "teachers": [lab.size(teacher) for teacher in s.teachers],
        "teacher_losses": [lab.loss(lab.teacher(teacher)[0]) for teacher in s.teachers],
    }  # fmt: skip


def optimum(sizes: np.ndarray, losses: np.ndarray) -> float:
    """The teacher size of least loss: the vertex of a parabola in log size through the least and its neighbours, or the
    end of the grid where the least lies there."""
    best = int(losses.argmin())
    if best in (0, len(losses) - 1):
        return float(sizes[best])
    a, b, _ = np.polyfit(np.log(sizes[best - 1 : best + 2]), losses[best - 1 : best + 2], 2)
    return float(np.exp(-b / (2 * a)))


def curves(results: Results, start: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student sizes `[S]`, teacher sizes `[T]`, losses `[seeds, S, T]`."""
    arms = [f"{start} {width}" for width in STUDENTS]
    row = results.rows[results.seeds[0]]
    losses = np.array([[row[arm]["losses"] for arm in arms] for row in results.rows.values()])
    return np.array([row[arm]["size"] for arm in arms]), np.array(row[arms[0]]["teachers"]), losses


def law(results: Results, start: str) -> dict[str, Any]:
    """Interior minima, best teachers, their growth over bootstrap samples of the seeds, line or constant."""
    students, teachers, losses = curves(results, start)
    interior = []
    for k in range(len(students)):
        gap = losses[:, k, -1] - losses[:, k, losses[:, k].mean(0).argmin()]
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.inf
        interior.append(bool(gap.mean() > 2 * error))
    best = np.array([optimum(teachers, curve) for curve in losses.mean(0)])
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(500):
        sample = losses[rng.integers(len(losses), size=len(losses))].mean(0)
        slopes.append(np.polyfit(students, [optimum(teachers, curve) for curve in sample], 1)[0])
    left_out = [np.arange(len(students)) != k for k in range(len(students))]
    line = [np.polyval(np.polyfit(students[m], best[m], 1), students[~m])[0] - best[~m][0] for m in left_out]
    constant = [best[m].mean() - best[~m][0] for m in left_out]
    return {
        "interior": interior, "best": best, "ratio": best / students,
        "slope": (float(np.percentile(slopes, 2.5)), float(np.percentile(slopes, 97.5))),
        "line": float(np.square(line).sum() < np.square(constant).sum()),
        "largest": losses.mean(0).argmin(-1) == len(teachers) - 1,
    }  # fmt: skip


def rule(results: Results) -> list[Check]:
    """For the paper's pruned start: interior minima, a best teacher that grows, along a line."""
    checks = []
    for start in STARTS:
        found, role = law(results, start), "required" if start == "pruned" else "reported"
        best = ", ".join(f"{b / 1000:.0f}k ({r:.1f}x)" for b, r in zip(found["best"], found["ratio"], strict=True))
        low, high = found["slope"]
        inside = sum(found["interior"])
        checks += [
            Check(f"{start}: the largest teacher is worse than the best for {inside} of 3 students", inside >= 2, role),
            Check(f"{start}: best teachers {best}; slope over students [{low:.2f}, {high:.2f}] above 0", low > 0, role),
            Check(
                f"{start}: a line tells a left-out student's best teacher better than a constant",
                found["line"] > 0,
                role,
            ),
        ]
        if start == "pruned":
            always, text = bool(found["largest"].all()), "pruned: the largest teacher is best for every student"
            checks.append(Check(text, always, "falsifies"))
            checks.append(
                Check("pruned: the best teacher shrinks as students grow: slope below 0", high < 0, "falsifies")
            )
    points = np.array([row["teacher quality"]["points"] for row in results.rows.values()]).mean(0)
    text = ", ".join(f"{teacher:.3f} -> {student:.3f}" for teacher, student in points)
    better = bool(np.all(np.diff(points[:, 1]) < 0))
    return [
        *checks,
        Check(f"one teacher size, longer and longer trained, teacher -> student loss: {text}", better, "reported"),
    ]


RECIPE = Recipe(
    name="capacity_gap",
    title="Law of capacity gap: the best teacher for a student's size",
    source="arXiv 2311.07052",
    place=Place("feature", "divergence", "token logits", skill="language modelling"),
    signals=("dense logits",),
    data="characters of the standard library's source and of generated prose; or text files by --data",
    claim="For a student of one size there is a best teacher size, beyond which larger teachers make it worse; it "
    "grows in proportion to the student (2.5 times its size in the paper)",
    falsified="the largest teacher is the best for every student, or the best teacher shrinks as students grow",
    arms={
        **{f"labels {w}": f"student of width {w}, labels alone, equal steps" for w in STUDENTS},
        **{
            f"{start} {w}": f"student of width {w}, {start} weights, every teacher"
            for start in STARTS
            for w in STUDENTS
        },
        "teacher quality": "control: one teacher size, trained a quarter, a half and the whole time",
    },
    metric="loss",
    seeds=3,
    prepare=prepare,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("meta-llama/Llama-2-7b-hf", Shape(32000, 4096, 32, 32, 11008, 4096, tied=False)),
            "student": ("pruned to 3B", Shape(32000, 3072, 24, 24, 8192, 4096, tied=False)),
        },
        devices=16,
        tokens="126B tokens; 4.2M a step",
    ),
    domains=tuple(DOMAINS),
    reads=("texts", "pairs", "labelled", "tagged"),
)
