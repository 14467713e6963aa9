"""Adverse drug events: a small tagger that learns from a labelling model's answers (arXiv 2307.06439).

Fitting many labels averages out errors that have nothing to do with the sentence, so the student passes its teacher;
errors that are a function of the sentence are learned like the truth, so it must not.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distill.core.tables import Epochs
from distill.language.models import Shape
from distill.language.span_tagger import Asked, SpanTagger, spans_of, tagged_rows
from distill.language.spans import overlap
from distill.methods.ade_extraction.drug_world import DrugWorld, Noise, Sentence, answer, truth
from distill.methods.ade_extraction.method import labelled, pairs_of, parts
from distill.methods.claims import Claim, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.statistics import Check, Interval, Results

LENGTH = 32


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    student: Shape = Shape(0, 64, 2, 4, kind="encoder", context=64)
    test: int = 600
    steps: int = 700
    batch: int = 32
    learning_rate: float = 1e-3


@dataclass(frozen=True)
class Labels(Arm):
    """Who labelled how many sentences."""

    noise: Noise = "independent"
    pool: int = 4000


class Lab:
    """One seed's world and test sentences."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        self.world = DrugWorld(trial.rng(1))
        self.ids = {word: i for i, word in enumerate(self.world.words, 1)}
        self.test = self.world.draw(trial.rng(2), trial.scaled(self.settings.test, 20), test=True)
        self.asked = self.rows([Asked(s.words, [drug]) for s in self.test for drug in s.drugs])

    def rows(self, asked: Sequence[Asked]) -> Any:
        """A token a word."""
        return tagged_rows(asked, lambda words: ([self.ids[w] for w in words], list(range(len(words)))), LENGTH)

    def label(self, sentences: Sequence[Sentence], noise: Noise, stream: int) -> list[str]:
        """What the labelling model says of each."""
        rng = self.trial.rng(stream)
        return [answer(sentence, noise, rng) for sentence in sentences]

    def scores(self, said: Sequence[Any], lenient: bool = False) -> float:
        """F1 on the test sentences."""
        return overlap(truth(self.test), said, lenient)["f1"]

    def found(self, student: Any) -> list[set[Any]]:
        """Pairs of drug and event that a student finds in each test sentence."""
        spans, said = iter(spans_of(student, self.asked)), []
        for sentence in self.test:
            said.append({(drug, span) for drug in sentence.drugs for span in next(spans)})
        return said


def run_arm(trial: Trial, lab: Lab, arm: Labels) -> dict[str, Any]:
    """One student of one labelling model, and that model's own score on the same sentences by the same scorer."""
    s = lab.settings
    rejects: Counter[str] = Counter()
    sentences = lab.world.draw(trial.rng(3), trial.scaled(arm.pool, 30))
    answers = lab.label(sentences, arm.noise, 4)
    pairs = zip(sentences, answers, strict=True)
    asked = [one for each, text in pairs for one in labelled(each.words, each.drugs, text, rejects)]
    shape = Shape(**{**vars(s.student), "vocabulary": len(lab.ids) + 1})
    student = tagger(shape, trial.number(5))
    how = {"batch": s.batch, "learning_rate": s.learning_rate, "sampler": Epochs()}
    trial.fit(*parts(student, lab.rows(asked)), steps=s.steps, **how)
    trial.keep(student)
    texts = zip(lab.test, lab.label(lab.test, arm.noise, 6), strict=True)
    teacher, said = [pairs_of(each.words, text, rejects) for each, text in texts], lab.found(student)
    return {
        "f1": lab.scores(said), "lenient": lab.scores(said, True), "teacher": lab.scores(teacher),
        "teacher, lenient": lab.scores(teacher, True), "refused": sum(rejects.values()),
    }  # fmt: skip


def tagger(shape: Shape, seed: int) -> SpanTagger:
    """A tagger with random weights of this seed."""
    torch.manual_seed(seed)
    return SpanTagger(shape.config().to_dict())


def gain(results: Results, arm: str) -> Interval:
    """What a student has over its teacher."""
    return Interval.of(results.values(arm) - results.values(arm, "teacher"))


def ahead(results: Results) -> np.ndarray:
    """`[seeds]`: what a student has over a teacher whose errors are independent."""
    return results.values(LARGEST) - results.values(LARGEST, "teacher")


def undone(results: Results) -> np.ndarray:
    """`[seeds]`: how much more that is than over a teacher that errs by the sentence."""
    return ahead(results) - (results.values("systematic 4000") - results.values("systematic 4000", "teacher"))


def rule(results: Results) -> list[Check]:
    """Beside the claims: what a teacher that errs by the sentence leaves, how many sentences it takes, the ceiling."""
    control = gain(results, "systematic 4000")
    return [
        Check(f"student less teacher with systematic errors: {control}", not control.positive, "reported"),
        results.higher(LARGEST, "independent 250", role="reported"),
        results.higher("gold 4000", LARGEST, role="reported"),
        Check(f"mixed errors: {gain(results, 'mixed 4000')}", gain(results, "mixed 4000").positive, "reported"),
    ]


LARGEST = "independent 4000"
PILOT = (900, 901)
"""The student less its teacher there: -0.110 and -0.098."""
RECIPE = Recipe(
    name="ade_extraction",
    title="A tagger that learns from a labelling model's answers",
    source="arXiv 2307.06439",
    place=Place(
        "labelling", "fine-tuning", "text", granularity="token", same_tokenizer=False, skill="understanding",
        vertical="medicine",
    ),
    signals=("text",),
    data="sentences about drugs, what they caused and what they were given for, generated; four labelling models",
    claim="A small tagger finds more than the model that labelled its sentences, where that one's errors have nothing "
    "to do with the sentence, and no more where they do",
    falsified="it stays below a teacher of independent errors, or passes one of systematic errors",
    needs="texts, the mentions in them that are asked about, and one answer of a labelling model to each text",
    costs="one answer of the teacher a text, then one training of an encoder",
    arms={
        **{f"independent {n}": Labels(f"{n} sentences, errors at random", pool=n) for n in (250, 1000, 4000)},
        "systematic 4000": Labels("control: indications are always taken for events", "systematic"),
        "mixed 4000": Labels("half of each", "mixed"),
        "gold 4000": Labels("bound: labels without errors", "none"),
    },
    metric="f1",
    seeds=8,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "ahead", "A small tagger finds more than the model that labelled its sentences, where that one's errors "
            "have nothing to do with the sentence",
            ahead, Power(0.03, 0.0089, PILOT), unit="F1 of the student less its teacher's",
        ),
        Claim(
            "independence", "It gains less where the errors follow from the sentence",
            undone, Power(0.03, 0.0091, PILOT), role="mechanism",
            unit="that gain less the gain over a teacher of systematic errors",
        ),
    ),
    presets={"small": Settings()},
    scale=Scale(
        {
            "student": (
                "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract",
                Shape(30522, 768, 12, 12, 3072, kind="encoder"),
            )
        },
        devices=1,
        tokens="tens of thousands of sentences that name a drug, one answer of the teacher each; 5 to 10 epochs",
    ),
    command="tagger",
    call="distill.methods.ade_extraction.method.parts",
)  # fmt: skip
