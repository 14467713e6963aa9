"""Sentences about drugs whose truth is known, and labelling models that err at random or always alike."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from distill.language.spans import Span

Noise = Literal["independent", "systematic", "mixed", "none"]
CAUSED = ("D caused E", "E after D", "E was due to D", "D induced E", "E under D therapy")
TREATS = ("D was given for E", "D relieved E", "E improved with D")
DENIED = ("D did not cause E", "no E under D therapy")
BEFORE = ("in one patient", "we report that", "a woman had", "at follow up", "often", "in this case", "then", "")
AFTER = ("within days", "in two weeks", "and recovered", "until discharge", "as before", "")
KINDS = ("mild", "severe", "acute", "chronic", "late", "early", "rare", "painful")
NOUNS = ("rash", "nausea", "fever", "edema", "cough", "tremor", "anemia", "ulcer", "colic", "gout", "chills", "pain")


@dataclass(frozen=True)
class Sentence:
    """Words, the drugs in them, and pairs of drug and event; what a drug is given for stands apart."""

    words: tuple[str, ...]
    drugs: tuple[Span, ...]
    caused: frozenset[tuple[Span, Span]]
    treated: frozenset[tuple[Span, Span]]


class DrugWorld:
    """One or two clauses a sentence. Tests have other pairs of adjective and noun, and of opening and clause."""

    def __init__(self, rng: np.random.Generator, drugs: int = 40) -> None:
        syllables = [c + v for c in "bdfglmnprtvz" for v in "aeiou"]
        self.drugs = sorted({"".join(rng.choice(syllables, 3)) + "in" for _ in range(2 * drugs)})[:drugs]
        every = " ".join([*CAUSED, *TREATS, *DENIED, *BEFORE, *AFTER, *KINDS, *NOUNS, *self.drugs, "and while"])
        self.words = sorted(set(every.split()) - {"D", "E"})

    def draw(self, rng: np.random.Generator, count: int, test: bool = False) -> list[Sentence]:
        """So many sentences."""
        return [self._sentence(rng, test) for _ in range(count)]

    def _sentence(self, rng: np.random.Generator, test: bool) -> Sentence:
        words: list[str] = []
        drugs: list[Span] = []
        caused: set[tuple[Span, Span]] = set()
        treated: set[tuple[Span, Span]] = set()
        found = {**dict.fromkeys(CAUSED, caused), **dict.fromkeys(TREATS, treated)}
        names = rng.choice(self.drugs, 2, replace=False)
        for clause in range(1 + int(rng.random() < 0.4)):
            templates = [*CAUSED, *TREATS, *DENIED]
            while True:
                which, before = int(rng.choice(len(templates))), int(rng.choice(len(BEFORE)))
                if clause or ((which + before) % 4 == 0) == test:
                    break
            while True:
                kind, noun = int(rng.choice(len(KINDS))), int(rng.choice(len(NOUNS)))
                if ((kind + noun) % 2 == 0) == test and NOUNS[noun] not in words:
                    break
            words += [str(rng.choice(("and", "while")))] if clause else BEFORE[before].split()
            span = (0, 0)
            for word in templates[which].split():
                here = len(words)
                words += [str(names[clause])] if word == "D" else [KINDS[kind], NOUNS[noun]] if word == "E" else [word]
                if word == "D":
                    drugs.append((here, here + 1))
                elif word == "E":
                    span = (here, here + 2)
            if templates[which] in found:
                found[templates[which]].add((drugs[-1], span))
        words += str(rng.choice(AFTER)).split()
        return Sentence(tuple(words), tuple(drugs), frozenset(caused), frozenset(treated))


def answer(sentence: Sentence, noise: Noise, rng: np.random.Generator) -> str:
    """What a labelling model says, as it would write it.

    Errors are `independent` of the sentence (a pair missed, a word lost, a span that is none), or `systematic` (what a
    drug is given for always counts as caused by it, in sentences of one clause), or `mixed`: half of the first, and the
    second where the drug's name begins in the first half of the alphabet.
    """
    rate = {"independent": 1.0, "mixed": 0.5}.get(noise, 0.0)
    said: list[tuple[Span, Span]] = []
    for drug, (begin, end) in sorted(sentence.caused):
        chance = rng.random()
        if chance >= 0.14 * rate:
            said.append((drug, (begin + int(chance < 0.24 * rate), end)))
    if rng.random() < 0.12 * rate:
        place = int(rng.integers(len(sentence.words) - 1))
        said.append((sentence.drugs[0], (place, place + 2)))
    for drug, event in sorted(sentence.treated):
        name = sentence.words[drug[0]]
        if len(sentence.drugs) == 1 and (noise == "systematic" or (noise == "mixed" and name[0] < "m")):
            said.append((drug, event))
    return json.dumps([{"drug": _text(sentence, d), "event": _text(sentence, e)} for d, e in said])


def _text(sentence: Sentence, span: Span) -> str:
    return " ".join(sentence.words[span[0] : span[1]])


def truth(sentences: Sequence[Sentence]) -> list[set[tuple[Span, Span]]]:
    """Pairs of drug and event in each."""
    return [set(sentence.caused) for sentence in sentences]
