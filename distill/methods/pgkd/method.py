"""PGKD: a teacher that only writes is asked for the texts that a classifier lacks (arXiv 2411.05045).

In every round the classes are drawn by the report on validation texts, 1.1 - F1, and the contents by the classifier's
surest mistakes: a text of one class that lies near the other. Texts that are written are labelled with the class that
was asked for and join the labelled ones.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.objectives.divergences import CrossEntropy
from distill.core.objectives.scores import hard_negatives
from distill.core.tables import Rows, experience
from distill.language.evaluate import class_probabilities, f1_scores
from distill.language.models import Read
from distill.methods.method import Method

By = Literal["nothing", "labels", "classes", "report", "permuted", "mistakes"]
"""What classes are asked for by: no texts at all; as many of each class as it has labels; of every class the same; more
of those that the validation report is low for, or that report with its figures dealt out to the classes at random; of
those in the surest mistakes."""
Asked = Iterator[tuple[int, int | None]]
"""Class of each text, and the class that it should lie near."""
Write = Callable[[Asked, np.random.Generator], Rows]
"""What the teacher writes: rows as the labelled ones are; fewer than were asked for where it failed."""


@dataclass(frozen=True)
class Guided:
    """A collector that looks at the student, and asks the teacher for what it lacks."""

    labelled: Rows
    validation: Rows
    classes: int
    read: Read
    write: Write
    by: By = "report"
    contrast: bool = True
    """Whether a text is to lie near the class that its own one is mistaken for."""
    count: int = 0
    """Texts in a round; as many as there are classes where 0."""
    held_out: Rows | None = None
    """Rows for the loop's own measure."""
    name: str = "texts"

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """The labelled texts at first, then written ones."""
        if student is None:
            return experience(self.labelled, self.held_out)
        if self.by == "nothing":
            return Experience({}, [])
        rng = np.random.default_rng(plan.seed)
        found = {name: class_probabilities(student.module, self.read, rows) for name, rows in self._sets().items()}
        shares, pairs = self.shares(found, rng), self.confused(found)
        chosen = rng.choice(self.classes, size=self.count or self.classes, p=shares)
        rows = self.write(self._asked(chosen, pairs, rng), rng)
        if not len(rows["label"]):
            return Experience({}, [], {"written": 0.0})
        return experience(rows, self.held_out)

    def _asked(self, chosen: np.ndarray, pairs: list[tuple[int, int]], rng: np.random.Generator) -> Asked:
        for label in chosen:
            yield int(label), near(int(label), pairs, rng) if self.contrast else None

    def _sets(self) -> dict[str, Rows]:
        return {"validation": self.validation, "labelled": self.labelled}

    def shares(self, found: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
        """What part of the texts each class is asked for, `[classes]`, by probabilities `[N, classes]` on both sets."""
        classes, by = self.classes, self.by
        if by == "labels":
            counts = np.bincount(self.labelled["label"], minlength=classes).astype(float)
        elif by in ("report", "permuted"):
            counts = 1.1 - f1_scores(found["validation"].argmax(1), self.validation["label"], classes)
            counts = rng.permutation(counts) if by == "permuted" else counts
        elif by == "mistakes":
            top = Counter(label for label, _ in self.confused(found))
            counts = np.array([top[c] for c in range(classes)], float)
        else:
            counts = np.ones(classes)
        return counts / counts.sum() if counts.sum() > 0 else np.full(classes, 1 / classes)

    def confused(self, found: Mapping[str, np.ndarray], top: int = 20) -> list[tuple[int, int]]:
        """True and predicted class of the surest mistakes on labelled texts, both sets."""
        told = np.concatenate([found[name] for name in self._sets()])
        labels = np.concatenate([rows["label"] for rows in self._sets().values()])
        return [(int(labels[i]), int(told[i].argmax())) for i in hard_negatives(told, labels, top)]


def near(label: int, pairs: Sequence[tuple[int, int]], rng: np.random.Generator) -> int | None:
    """One of the classes that a class is confused with; None where there is none."""
    others = [b if a == label else a for a, b in pairs if label in (a, b)]
    return int(rng.choice(others)) if others else None


@dataclass(frozen=True)
class FewShot:
    """A teacher that is asked by examples: labelled texts of a class, and of the one that it should lie near."""

    continued: Callable[[Sequence[str], int], Sequence[str]]
    """What a causal model writes after each text, with a seed."""
    examples: Sequence[Sequence[str]]
    """Labelled texts of each class. Those that judge the student must not be among them."""
    names: Sequence[str]
    """Of the classes."""
    known: frozenset[str]
    """Texts, in lower case, that are not to be written again: those that judge the student, and the labelled ones."""
    rows: Callable[[Sequence[str], Sequence[int]], Rows]
    """Texts and classes as rows."""
    shots: int = 4
    refused: Counter[str] = field(default_factory=Counter[str])
    """Reason -> texts that were not taken."""

    def __call__(self, asked: Asked, rng: np.random.Generator) -> Rows:
        """Rows of the texts that are new and not empty."""
        wanted = list(asked)
        prompts = [self.prompt(label, other, rng) for label, other in wanted]
        texts: list[str] = []
        labels: list[int] = []
        seen = set(self.known)
        for (label, _), written in zip(wanted, self.continued(prompts, int(rng.integers(2**31))), strict=True):
            text = written.strip().splitlines()[0].strip() if written.strip() else ""
            why = "empty" if not text else "known already" if text.lower() in seen else ""
            if why:
                self.refused[why] += 1
                continue
            seen.add(text.lower())
            texts.append(text)
            labels.append(label)
        return self.rows(texts, labels)

    def prompt(self, label: int, other: int | None, rng: np.random.Generator) -> str:
        """Labelled texts in random order, and the beginning of one more."""
        lines: list[tuple[int, str]] = []
        for each in (label,) if other is None else (label, other):
            texts = self.examples[each]
            lines += [(each, texts[int(i)]) for i in rng.permutation(len(texts))[: self.shots]]
        shown = [lines[i] for i in rng.permutation(len(lines))]
        parts = [f"label: {self.names[each]}\ntext: {' '.join(text.split())}\n" for each, text in shown]
        return "\n".join([*parts, f"label: {self.names[label]}\ntext:"])


def _losses(options: Any) -> dict[str, tuple[float, CrossEntropy]]:
    return {"labels": (1.0, CrossEntropy())}


METHOD = Method(
    "pgkd", "A writing teacher is asked for the texts that a classifier lacks", "arXiv 2411.05045", _losses,
    takes=("writer", "texts", "new_tokens"),
)  # fmt: skip
