"""Texts with entities of many types, whose names are made of two words that say what to look for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from distill.language.spans import Span

Spans = Mapping[str, Sequence[Span]]
"""Type -> places in one text."""
DOMAINS = ("music", "film", "sport", "science", "trade", "travel")
KINDS = ("person", "place", "group", "work", "event", "tool", "date", "award")


@dataclass(frozen=True)
class Passage:
    """Words, and the entities in them."""

    words: tuple[str, ...]
    entities: Spans


class TypeWorld:
    """A type is a domain and a kind, a mention a name of that domain and a word that only this kind has.

    Types are drawn by Zipf's law. One of four never occurs in training: it is made of words that others have as well.
    """

    def __init__(self, rng: np.random.Generator, names: int = 15, markers: int = 3, fillers: int = 60) -> None:
        syllables = [c + v for c in "bdfghklmnprstvz" for v in "aeiou"]
        pool = sorted({a + b for a in syllables for b in syllables})
        shuffled = (pool[int(i)] for i in rng.permutation(len(pool)))
        words = (word for word in shuffled if word not in (*DOMAINS, *KINDS))  # "date" is two syllables
        self.names = {domain: [next(words) for _ in range(names)] for domain in DOMAINS}
        self.markers = {kind: [next(words) for _ in range(markers)] for kind in KINDS}
        self.fillers = [next(words) for _ in range(fillers)]
        pairs = [(d, k) for d in range(len(DOMAINS)) for k in range(len(KINDS))]
        self.types = [f"{DOMAINS[d]} {KINDS[k]}" for d, k in pairs]
        self.unseen = {f"{DOMAINS[d]} {KINDS[k]}" for d, k in pairs if (d + k) % 4 == 0}
        seen = [kind for kind in self.types if kind not in self.unseen]
        weights = 1 / np.arange(1, len(seen) + 1.0)
        self.order = [seen[int(i)] for i in rng.permutation(len(seen))]
        self.shares = weights / weights.sum()
        lists = [*self.names.values(), *self.markers.values(), self.fillers, DOMAINS, KINDS]
        self.vocabulary = {word: i for i, word in enumerate((word for part in lists for word in part), 1)}

    def goes_with(self, word: str) -> list[str]:
        """The words that one word of a type's name speaks of: names of a domain, or what a kind's mentions end with."""
        return self.names[word] if word in self.names else self.markers[word]

    def draw(self, rng: np.random.Generator, count: int, test: bool = False) -> list[Passage]:
        """Passages with up to four entities; in tests of every type, each as likely."""
        return [self._passage(rng, test) for _ in range(count)]

    def _passage(self, rng: np.random.Generator, test: bool) -> Passage:
        words: list[str] = [str(rng.choice(self.fillers)) for _ in range(int(rng.integers(1, 4)))]
        entities: dict[str, list[Span]] = {}
        for _ in range(int(rng.integers(0, 5))):
            kind = str(rng.choice(self.types) if test else rng.choice(self.order, p=self.shares))
            domain, what = kind.split()
            entities.setdefault(kind, []).append((len(words), len(words) + 2))
            words += [str(rng.choice(self.names[domain])), str(rng.choice(self.markers[what]))]
            words += [str(rng.choice(self.fillers)) for _ in range(int(rng.integers(1, 4)))]
        return Passage(tuple(words), entities)

    def annotated(self, passages: Sequence[Passage], rng: np.random.Generator) -> list[Passage]:
        """As a labelling model would: of ten mentions it misses two and gives one another type."""
        found: list[Passage] = []
        for passage in passages:
            kept: dict[str, list[Span]] = {}
            for kind, spans in passage.entities.items():
                for span in spans:
                    chance = rng.random()
                    if chance >= 0.2:
                        kept.setdefault(str(rng.choice(self.order)) if chance < 0.3 else kind, []).append(span)
            found.append(Passage(passage.words, kept))
        return found
