"""UniversalNER: questions about types that a text lacks teach a student to find nothing there (arXiv 2308.03279).

The student here is an encoder that tags the words of a text for one type, whose name stands before it: it learns the
same questions several times faster than a model that writes lists. It begins with what words mean, which a large model
has read: which ones go with each word of a type's name. Types are judged that no training text has.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill.core.tables import Epochs
from distill.language.models import Shape
from distill.language.span_tagger import Asked, spans_of, tagged_rows
from distill.language.spans import Span, overlap
from distill.methods.ade_extraction.experiment import tagger
from distill.methods.ade_extraction.method import parts
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.statistics import Check, Results
from distill.methods.universal_ner.method import absent
from distill.methods.universal_ner.type_world import Passage, TypeWorld

LENGTH = 40
PILOT = (920, 921, 922)
"""There F1 of unseen types was 0.39, 0.33 and 0.31 above that without absent types."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    student: Shape = Shape(0, 64, 2, 4, kind="encoder", context=64)
    passages: int = 1500
    test: int = 60
    """Passages, each of which is asked for every type."""
    negatives: int = 4
    start_passages: int = 1500
    start_steps: int = 1500
    """Of the start that all arms share, in which it learns what words mean."""
    steps: int = 900
    batch: int = 32
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Asking(Arm):
    """Which types that a passage lacks are asked for."""

    negatives: Literal["none", "even", "frequency"] = "frequency"


class Lab:
    """One seed's world, passages as a labelling model sees them, and test passages with the truth."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        self.world = TypeWorld(trial.rng(1))
        passages = self.world.draw(trial.rng(2), trial.scaled(self.settings.passages, 30))
        self.passages = self.world.annotated(passages, trial.rng(3))
        self.counts = Counter(kind for each in self.passages for kind, spans in each.entities.items() for _ in spans)
        self.test = self.world.draw(trial.rng(4), trial.scaled(self.settings.test, 3), test=True)
        start = self.student()
        rng = trial.rng(7)
        every = self.world.draw(rng, trial.scaled(self.settings.start_passages, 30), test=True)
        self.learn(start, [asked for each in every for asked in meanings(self.world, each, rng)], "start_steps")
        self.start = {name: tensor.clone() for name, tensor in start.state_dict().items()}

    def student(self) -> Any:
        """One that knows nothing."""
        shape = Shape(**{**vars(self.settings.student), "vocabulary": len(self.world.vocabulary) + 1})
        return tagger(shape, self.trial.number(6))

    def learn(self, student: Any, asked: Sequence[Asked], steps: Literal["start_steps", "steps"]) -> None:
        """Learns to answer."""
        s = self.settings
        how = {"batch": s.batch, "learning_rate": s.learning_rate, "sampler": Epochs()}
        self.trial.fit(*parts(student, self.rows(asked)), steps=getattr(s, steps), **how)

    def rows(self, asked: Sequence[Asked]) -> Any:
        """A token a word."""
        ids = self.world.vocabulary
        return tagged_rows(asked, lambda words: ([ids[w] for w in words], list(range(len(words)))), LENGTH)

    def found(self, student: Any, kinds: Sequence[str]) -> list[set[tuple[str, Span]]]:
        """What a student finds in each test passage, asked for each type."""
        asked = [question(each, kind) for each in self.test for kind in kinds]
        spans = iter(spans_of(student, self.rows(asked)))
        return [{(kind, (a - 2, b - 2)) for kind in kinds for a, b in next(spans)} for _ in self.test]


def question(passage: Passage, kind: str) -> Asked:
    """A type's name of two words before a passage, whose words are judged."""
    words = [*kind.split(), *passage.words]
    spans = [(a + 2, b + 2) for a, b in passage.entities.get(kind, ())]
    return Asked(words, [(0, 2)], spans, (2, len(words)))


def meanings(world: TypeWorld, passage: Passage, rng: np.random.Generator) -> list[Asked]:
    """Which words of a passage go with one word of a type's name, said twice: two such words that some do with, one
    that none does with. What two words together ask for is not learned from these."""
    here = sorted({word for kind in passage.entities for word in kind.split()})
    away = sorted({*world.names, *world.markers} - set(here))
    chosen = [str(rng.choice(part)) for part in (here, here, away) if part]
    return [
        Asked(
            [word, word, *passage.words], [(0, 2)],
            [(i, i + 1) for i, each in enumerate(passage.words, 2) if each in world.goes_with(word)],
            (2, 2 + len(passage.words)),
        )
        for word in chosen
    ]  # fmt: skip


def run_arm(trial: Trial, lab: Lab, arm: Asking) -> dict[str, Any]:
    """One student, and its strict scores on types that were never trained on and on the others."""
    s, rng = lab.settings, trial.rng(5)
    asked: list[Asked] = []
    for each in lab.passages:
        kinds = list(each.entities)
        if arm.negatives != "none":
            kinds += absent(kinds, lab.counts, s.negatives, rng, even=arm.negatives == "even")
        asked += [question(each, kind) for kind in kinds]
    student = lab.student()
    student.load_state_dict(lab.start)
    lab.learn(student, asked, "steps")
    trial.keep(student)
    measured: dict[str, Any] = {}
    for name, kinds in (("unseen", sorted(lab.world.unseen)), ("seen", sorted(lab.world.order))):
        truth = [{(k, s) for k, spans in each.entities.items() if k in kinds for s in spans} for each in lab.test]
        scores = overlap(truth, lab.found(student, kinds))
        measured |= {f"{name} {figure}": value for figure, value in scores.items()}
    return measured


def rule(results: Results) -> list[Check]:
    """Asking for absent types, by how often they occur, finds more of unseen types; it is precision that none lacks."""
    return [
        results.higher("frequency", "uniform", role="reported"),
        results.higher("uniform", "none", role="reported"),
        results.higher("frequency", "none", "unseen precision", role="reported"),
        results.higher("frequency", "none", "unseen recall", role="reported"),
        results.higher("frequency", "none", "seen f1", role="reported"),
    ]


RECIPE = Recipe(
    name="universal_ner",
    title="UniversalNER: one question for each type, absent types among them",
    source="arXiv 2308.03279",
    place=Place(
        "labelling", "fine-tuning", "text", granularity="sequence", same_tokenizer=False, skill="understanding"
    ),
    signals=("text",),
    data="passages with entities of 48 types, a quarter of them for tests alone, generated; a noisy labelling model",
    claim="Questions about types that a text lacks, drawn by how often each occurs, make a student find entities of "
    "types that it never saw more exactly than without them",
    falsified="it is less exact with them",
    needs="texts whose entities a strong model labelled by their types",
    costs="several questions a text; one question a type at test time",
    arms={
        "none": Asking("control: types that are there alone", "none"),
        "uniform": Asking("absent types, each as likely", "even"),
        "frequency": Asking("the method: absent types by how often they occur"),
    },
    metric="unseen f1",
    seeds=0,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "absent types", "Questions about types that a text lacks, drawn by how often each occurs, make a student "
            "find entities of unseen types more exactly",
            Difference("frequency", "none"), Power(0.03, 0.0446, PILOT),
        ),
    ),
    presets={"small": Settings()},
    scale=Scale(
        {"student": ("huggyllama/llama-7b", Shape(32000, 4096, 32, 32, 11008, 2048, tied=False))},
        tokens="45,889 passages of the Pile as conversations, 3 epochs; 8 devices as in the paper's script",
    ),
)  # fmt: skip
