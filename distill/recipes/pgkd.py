"""PGKD: a black-box teacher writes the texts that a small classifier lacks (arXiv 2411.05045).

The loop is the core's own: each round collects texts that the teacher is asked for after a look at the student, labels
them with the class that was asked for, and fits. The teacher here is a stand-in, word chains of each class with wrong
labels among them; it is reached through `write` alone, as a chat model would be.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import Experience, Plan, Student
from distill.core.errors import DistillError
from distill.core.objectives.divergences import CrossEntropy
from distill.core.objectives.scores import hard_negatives
from distill.language.collect import Table
from distill.language.evaluate import accuracy, class_probabilities, f1_scores, macro_f1
from distill.language.models import Shape
from distill.language.packing import padded
from distill.language.student import ModelStudent, Next
from distill.language.tasks import Unigrams, WordChains, draw_labels
from distill.language.text import words
from distill.recipes.framework import Place, Recipe, Scale, Trial
from distill.recipes.statistics import Check, Results


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment; with `--data` the classes are the data's own."""

    classes: int = 40
    words: int = 200
    length: int = 10
    labelled: int = 400
    validation: int = 150
    even: int = 5
    """Labels of each class in the even draw, and 2 for validation."""
    pool: int = 3000
    """Texts that the teacher was made of and the student never sees."""
    test: int = 2000
    most: int = 25
    """Labels of one class at most, in the skewed draw by Zipf's law."""
    noise: float = 0.1
    """Share of the teacher's labels that are wrong."""
    rounds: int = 8
    updates: int = 100
    """In each round."""
    batch: int = 32
    learning_rate: float = 1e-2


class BagOfWords(nn.Module):
    """A linear classifier on the mean of learned word vectors."""

    def __init__(self, vocabulary: int, classes: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.vectors = nn.EmbeddingBag(vocabulary, 64, mode="mean", padding_idx=0)
        self.last = nn.Linear(64, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class logits `[B, C]` of tokens `[B, T]`."""
        return self.last(self.vectors(tokens))


def read(module: nn.Module, batch: Any) -> Tensor:
    """Class logits."""
    return module(batch["tokens"])


class Lab:
    """One draw of labels, skewed or even, with the teacher beside it."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s, rng = self.settings, trial.rng()
        pool, test, self.classes, self.vocabulary = self._texts(rng)
        share = 1 / np.arange(1, self.classes + 1)
        share = rng.permutation(share / share.sum())
        half = len(pool[1]) // 2
        first, unseen = [(pool[0][part], pool[1][part]) for part in (slice(None, half), slice(half, None))]
        self.test = {"tokens": test[0], "label": test[1]}
        self.writer = WordChains(*unseen, self.classes, s.noise)
        self.sets: dict[bool, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
        for skewed in (True, False):
            if skewed:
                wanted = np.minimum(rng.multinomial(trial.scaled(s.labelled + s.validation, 40), share), s.most)
                cut = s.labelled / (s.labelled + s.validation)
            else:
                wanted, cut = np.full(self.classes, s.even + 2), s.even / (s.even + 2)
            drawn = draw_labels(first[1], wanted, rng)
            parts = drawn[: round(cut * len(drawn))], drawn[round(cut * len(drawn)) :]
            rows = [{"tokens": first[0][part], "label": first[1][part]} for part in parts]
            self.sets[skewed] = rows[0], rows[1]

    def _texts(self, rng: np.random.Generator) -> tuple[Any, Any, int, int]:
        s, corpus = self.settings, self.trial.corpus
        if corpus is None:
            task = Unigrams(s.classes, s.words, s.length, scale=1.2, seed=self.trial.seed)
            sizes = (self.trial.scaled(2 * s.pool, 400), self.trial.scaled(s.test, 200))
            return task.draw(rng, sizes[0]), task.draw(rng, sizes[1]), task.classes, task.vocabulary
        splits = {name.split("/")[-1]: pairs for name, pairs in corpus.labelled.items()}
        if not {"train", "test"} <= set(splits):
            raise DistillError(f"labelled data need the splits train and test, found {sorted(splits)}")
        names = sorted({label for _, label in splits["train"]})
        tokens = words(text.lower() for text, _ in splits["train"])
        found = []
        for name in ("train", "test"):
            order = rng.permutation(len(splits[name])) if name == "train" else np.arange(len(splits[name]))
            chosen = [splits[name][i] for i in order]
            texts = padded(tokens.encode_all([text.lower() for text, _ in chosen]), 24, tokens.pad)
            found.append((texts, np.array([names.index(label) for _, label in chosen])))
        return found[0], found[1], len(names), tokens.size


class Guided:
    """A collector that looks at the student, and asks the teacher for what it lacks."""

    name = "texts"

    def __init__(self, lab: Lab, arm: str, skewed: bool) -> None:
        self.lab, self.arm = lab, arm
        self.labelled, self.validation = lab.sets[skewed]

    def collect(self, student: Student | None, plan: Plan) -> Experience:
        """The labelled texts at first, then as many written ones as there are classes."""
        if student is None:
            return Table(self.name, self.labelled).collect(None, plan)
        if self.arm == "labels":
            return Experience({}, [])
        rng, classes = np.random.default_rng(plan.seed), self.lab.classes
        found = {name: class_probabilities(student.module, read, rows) for name, rows in self._sets().items()}
        shares, pairs = self._shares(found, rng), self._confused(found)
        asked = rng.choice(classes, size=classes, p=shares)
        contrast = self.arm in ("hard negatives", "PGKD")
        texts = [
            self.lab.writer.write(int(c), rng, self._near(int(c), pairs, rng) if contrast else None) for c in asked
        ]
        return Table(self.name, {"tokens": np.stack(texts), "label": asked}).collect(None, Plan(0, 1.0, 0, 0))

    def _sets(self) -> dict[str, dict[str, np.ndarray]]:
        return {"validation": self.validation, "labelled": self.labelled}

    def _shares(self, found: dict[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """What part of the texts each class is asked for, `[classes]`."""
        classes = self.lab.classes
        if self.arm == "prior":
            counts = np.bincount(self.labelled["label"], minlength=classes).astype(float)
        elif self.arm in ("report", "PGKD", "random report"):
            told = found["validation"]
            predicted = rng.integers(classes, size=len(told)) if self.arm == "random report" else told.argmax(1)
            counts = 1.1 - f1_scores(predicted, self.validation["label"], classes)
        elif self.arm == "hard negatives":
            top = Counter(label for label, _ in self._confused(found))
            counts = np.array([top[c] for c in range(classes)], float)
        else:
            counts = np.ones(classes)
        return counts / counts.sum() if counts.sum() > 0 else np.full(classes, 1 / classes)

    def _confused(self, found: dict[str, np.ndarray], top: int = 20) -> list[tuple[int, int]]:
        """True and predicted class of the surest mistakes on labelled texts, both sets."""
        told = np.concatenate([found[name] for name in self._sets()])
        labels = np.concatenate([rows["label"] for rows in self._sets().values()])
        return [(int(labels[i]), int(told[i].argmax())) for i in hard_negatives(told, labels, top)]

    def _near(self, label: int, pairs: list[tuple[int, int]], rng: np.random.Generator) -> int | None:
        others = [b if a == label else a for a, b in pairs if label in (a, b)]
        return int(rng.choice(others)) if others else None


def run_arm(trial: Trial, lab: Lab, name: str) -> dict[str, Any]:
    """One way to ask the teacher; every arm has as many updates, and as many texts but the first."""
    s, (arm, _, setting) = lab.settings, name.partition(", ")
    source = Guided(lab, arm, setting != "even")
    student = ModelStudent(BagOfWords(lab.vocabulary, lab.classes, trial.number(1)), read)

    def evaluate(learner: Student) -> dict[str, float]:
        found = class_probabilities(learner.module, read, source.validation)
        right = found[np.arange(len(found)), source.validation["label"]]
        return {"golden": float(np.log(np.maximum(right, 1e-30)).mean())}

    summary = trial.fit(
        student, CrossEntropy(), Next("label"), [source], steps=(s.rounds + 1) * s.updates, rounds=s.rounds + 1,
        batch=s.batch, learning_rate=s.learning_rate, evaluate=evaluate, best=True,
    )  # fmt: skip
    found = class_probabilities(student.module, read, lab.test)
    return {
        "macro_f1": macro_f1(found.argmax(1), lab.test["label"], lab.classes),
        "accuracy": accuracy(found, lab.test["label"]), "best_round": summary["best_round"],
    }  # fmt: skip


def rule(results: Results) -> list[Check]:
    """Guidance beats as much extra data spread evenly, and a report of another classifier."""
    even = results.difference("PGKD, even", "uniform, even")
    extra = results.difference("uniform", "labels")
    behind = results.difference("PGKD", "report")
    return [
        results.higher("PGKD", "uniform"),
        Check(f"macro_f1: PGKD less report is {behind}, not wholly below 0", not behind.negative),
        results.higher("PGKD", "random report"),
        results.lower("PGKD", "uniform", role="falsifies"),
        results.lower("PGKD", "random report", role="falsifies"),
        Check(f"extra data alone: uniform less labels is {extra}", extra.positive, "reported"),
        Check(f"with 5 labels of every class: PGKD less uniform is {even}", even.positive, "reported"),
    ]


RECIPE = Recipe(
    name="pgkd",
    title="PGKD: performance-guided black-box distillation for classifiers",
    source="arXiv 2411.05045",
    place=Place(
        "expansion", "fine-tuning", "text", prefixes="teacher", granularity="sequence", same_tokenizer=False,
        skill="understanding", vertical="customer service",
    ),
    signals=("text",),
    data="texts of 40 classes, generated, with labels drawn by Zipf's law; or labelled tables by --data (BANKING77)",
    claim="A teacher that is told where the classifier fails writes more useful texts than one that "
    "writes as many evenly",
    falsified="guided texts are worse than even ones, or than those asked for by another classifier's report",
    arms={
        "labels": "labelled texts alone, as many updates",
        "prior": "texts asked for by the labels' frequencies",
        "uniform": "as many texts of every class",
        "report": "by the validation report, 1.1 - F1",
        "hard negatives": "for the surest mistakes alone",
        "PGKD": "classes by the report, contents near the surest mistakes",
        "random report": "control: the report of a classifier that guesses",
        "labels, even": "labels alone, 5 of every class",
        "uniform, even": "even labels, even texts",
        "PGKD, even": "even labels, guided texts",
    },
    metric="macro_f1",
    seeds=10,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {"student": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="encoder", classes=335))},
        devices=1,
        tokens="800 labels, 200 for validation; up to 30 rounds of 32 texts from a chat endpoint",
    ),
    reads=("labelled",),
)  # fmt: skip
