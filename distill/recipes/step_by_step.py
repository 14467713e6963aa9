"""Distilling step by step: the teacher's rationale as a second task (arXiv 2305.02301).

Every entity of a fixed world weighs the sum of two attributes; a question names two entities, the label says which is
heavier. The rationale looks the attributes up. It is learned beside the label and never written at test time.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.objectives.divergences import CrossEntropy
from distill.core.teachers import Teachers
from distill.language.collect import Table
from distill.language.generation import generate
from distill.language.models import Shape, build, causal
from distill.language.packing import answers
from distill.language.student import ModelStudent, Next
from distill.language.views import NextOf, Views, every_view
from distill.recipes.framework import Place, Recipe, Scale, Trial
from distill.recipes.statistics import Check, Results

PAD, END, PREDICT, EXPLAIN, YES, NO, NUMBER = range(7)
HIGHEST = 9
"""Of an attribute; numbers up to twice that are tokens from NUMBER on, entities come after them."""
ENTITY = NUMBER + 2 * HIGHEST + 1
PAIRS = (100, 150, 200)
MAIN = 150


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    entities: int = 60
    test: int = 600
    student: Shape = Shape(0, 64, 2, 4)
    steps: int = 400
    warm_steps: int = 300
    batch: int = 32
    alpha: float = 0.5
    """Weight of the label task; the rationale has the rest."""
    learning_rate: float = 2e-3


class Lab:
    """One world, its questions, and a student that was warmed up on sums."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s, rng = self.settings, trial.rng()
        self.attributes = rng.integers(HIGHEST + 1, size=(s.entities, 2))
        self.vocabulary = ENTITY + s.entities
        self.read = causal(self.vocabulary)
        weight = self.attributes.sum(1)
        pairs = np.array([(a, b) for a in range(s.entities) for b in range(s.entities) if weight[a] != weight[b]])
        pairs = rng.permutation(pairs)
        tested = {tuple(sorted(pair)) for pair in pairs[: s.test].tolist()}
        self.test = pairs[: s.test]
        rest = [pair for pair in pairs[s.test :].tolist() if tuple(sorted(pair)) not in tested]
        self.train = np.array(rest[: max(PAIRS)])  # never seen together in a test, in either order
        self.warm = self._warmed()

    def prompt(self, pair: np.ndarray, task: int) -> list[int]:
        """Task, first and second entity."""
        return [task, *(ENTITY + pair).tolist()]

    def label(self, pair: np.ndarray) -> list[int]:
        """Whether the first is heavier."""
        first, second = self.attributes[pair].sum(1)
        return [YES if first > second else NO]

    def rationale(self, pair: np.ndarray) -> list[int]:
        """Both entities' attributes and their sums."""
        return [NUMBER + int(n) for x, y in self.attributes[pair] for n in (x, y, x + y)]

    def rows(self, prompts: list[list[int]], targets: list[list[int]]) -> dict[str, np.ndarray]:
        """One view."""
        return answers(prompts, targets, 11, END, PAD)

    def fresh(self) -> Any:
        """A student with this seed's random weights."""
        s = self.settings
        return build(Shape(**{**vars(s.student), "vocabulary": self.vocabulary}), self.trial.number(1))

    def fit(self, model: Any, rows: dict[str, np.ndarray], steps: int, both: bool = False) -> Any:
        """Learning on rows of one view, or of two."""
        s = self.settings
        objective, labels, read = CrossEntropy(), Next(), self.read
        if both:
            weights, read = {"label": s.alpha, "rationale": 1 - s.alpha}, every_view(read)
            objective = Views(
                {n: (w, CrossEntropy()) for n, w in weights.items()}, {"label": (0, 0), "rationale": (1, 1)}
            )
            labels = Teachers({"label": NextOf(0), "rationale": NextOf(1)})
        student = ModelStudent(model, read)
        options = {"batch": s.batch, "learning_rate": s.learning_rate}
        self.trial.fit(student, objective, labels, [Table("questions", rows)], steps=steps, **options)
        return model

    def _warmed(self) -> dict[str, Tensor]:
        """Weights after sentences of the same words that say nothing of this world: entity, two numbers, their sum."""
        rng = self.trial.rng(2)
        x, y = rng.integers(HIGHEST + 1, size=(2, 2000))
        who = ENTITY + rng.integers(self.settings.entities, size=2000)
        rows = self.rows(
            [[int(w)] for w in who], [[NUMBER + int(n) for n in (a, b, a + b)] for a, b in zip(x, y, strict=True)]
        )
        return self.fit(self.fresh(), rows, self.settings.warm_steps).state_dict()

    def accuracy(self, model: Any, after: int = 0) -> float:
        """Share of right labels on the test pairs, the label read after so many tokens of the model's own."""
        prompts = torch.tensor([self.prompt(pair, PREDICT) for pair in self.test])
        found, _ = generate(model, prompts, after + 1, self.vocabulary, 0, temperature=0)
        return float(np.mean(found[:, -1].numpy() == [self.label(pair)[0] for pair in self.test]))


def run_arm(trial: Trial, lab: Lab, name: str) -> dict[str, Any]:
    """One training; names end with the number of training pairs."""
    kind, _, count = name.rpartition(" ")
    s, rng = lab.settings, trial.rng(3)
    pairs = lab.train[: int(count)]
    model = lab.fresh()
    if kind.endswith("warm"):
        model.load_state_dict(lab.warm)
    prompts, labels = [lab.prompt(p, PREDICT) for p in pairs], [lab.label(p) for p in pairs]
    reasons = [lab.rationale(p) for p in pairs]
    if kind.startswith("labels"):
        lab.fit(model, lab.rows(prompts, labels), 2 * s.steps if kind == "labels, twice" else s.steps)
        return {"accuracy": lab.accuracy(model), "tokens_written": 1}
    if kind == "single target":
        lab.fit(model, lab.rows(prompts, [r + y for r, y in zip(reasons, labels, strict=True)]), s.steps)
        return {"accuracy": lab.accuracy(model, 6), "tokens_written": 7}
    if kind == "shuffled":
        reasons = [reasons[i] for i in rng.permutation(len(reasons))]
    if kind.startswith("corrupted"):
        wrong = rng.random(len(reasons)) < float(kind.split()[1])
        noise = NUMBER + rng.integers(2 * HIGHEST + 1, size=(len(reasons), 6))
        reasons = [noise[i].tolist() if wrong[i] else r for i, r in enumerate(reasons)]
    views = lab.rows(prompts, labels), lab.rows([lab.prompt(p, EXPLAIN) for p in pairs], reasons)
    lab.fit(model, {key: np.stack([view[key] for view in views], 1) for key in views[0]}, s.steps, both=True)
    return {"accuracy": lab.accuracy(model), "tokens_written": 1}


def rule(results: Results) -> list[Check]:
    """More right labels than from labels alone at equal steps and at equal compute, and not by mere noise."""
    steps = [results.difference(f"rationales {n}", f"labels {n}") for n in PAIRS]
    compute = [results.difference(f"rationales {n}", f"labels, twice {n}") for n in PAIRS]
    both = sum(a.positive and b.positive for a, b in zip(steps, compute, strict=True))
    shuffled = results.difference(f"shuffled {MAIN}", f"labels {MAIN}")
    quality = [
        results.mean(arm).mean for arm in (f"rationales {MAIN}", f"corrupted 0.25 {MAIN}", f"corrupted 0.5 {MAIN}")
    ]
    single = results.difference(f"single target {MAIN}", f"labels {MAIN}")
    warm = results.difference(f"rationales, warm {MAIN}", f"labels, warm {MAIN}")
    pairs = ", ".join(f"{n} pairs {a} and {b}" for n, a, b in zip(PAIRS, steps, compute, strict=True))
    return [
        Check(f"rationales less labels at equal steps and at equal compute: {pairs}; above 0 for two", both >= 2),
        Check(f"shuffled rationales less labels is {shuffled}, not wholly above 0", not shuffled.positive),
        Check(f"accuracy falls with corrupted rationales: {', '.join(f'{q:.3f}' for q in quality)}",
              quality[0] > quality[1] > quality[2]),
        Check("at equal compute rationales are worse for every number of pairs, wholly below 0",
              all(b.negative for b in compute), "falsifies"),
        results.higher(f"shuffled {MAIN}", f"rationales {MAIN}", role="falsifies"),
        Check(f"one target of both (6 more tokens to write) less labels: {single}", single.positive, "reported"),
        Check(f"students warmed up on the vocabulary: rationales less labels is {warm}", warm.positive, "reported"),
    ]  # fmt: skip


def _arms() -> dict[str, str]:
    arms = {}
    for n in PAIRS:
        arms[f"labels {n}"] = f"labels alone, {n} training pairs"
        arms[f"labels, twice {n}"] = "labels alone, twice the steps: equal compute"
        arms[f"rationales {n}"] = "label and rationale as two tasks"
    arms[f"single target {MAIN}"] = "rationale and label as one target, written at test time"
    arms[f"shuffled {MAIN}"] = "control: rationales of other pairs"
    arms[f"corrupted 0.25 {MAIN}"] = "a quarter of the rationales is noise"
    arms[f"corrupted 0.5 {MAIN}"] = "half of the rationales is noise"
    arms[f"labels, warm {MAIN}"] = "labels alone, student pre-trained on sums"
    arms[f"rationales, warm {MAIN}"] = "two tasks, student pre-trained on sums"
    return arms


RECIPE = Recipe(
    name="step_by_step",
    title="Distilling step by step: rationales as a second task",
    source="arXiv 2305.02301",
    place=Place(
        "labelling", "fine-tuning", "text", prefixes="corpus", granularity="sequence", same_tokenizer=False,
        skill="reasoning",
    ),
    signals=("text",),
    data="comparisons of 60 entities in a generated world; a program writes the rationales",
    claim="A student that also learns to write the rationale labels unseen questions better than from labels alone, at "
    "equal steps and at equal compute, without writing anything at test time",
    falsified="rationales make it worse at equal compute for every amount of data, or rationales of other questions "
    "help more",
    arms=_arms(),
    metric="accuracy",
    seeds=10,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {"student": ("google/t5-v1_1-base", Shape(32128, 768, 12, 12, 2048, kind="encoder-decoder", tied=False))},
        devices=1,
        tokens="550,000 examples at most, one rationale of 100 to 150 tokens each; 10,000 steps of 64",
    ),
)  # fmt: skip
