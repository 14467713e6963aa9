"""Knowledge kept as text beside a model: entries found by the questions that they were written for."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import torch

from distill.core.checkpoints import write_text
from distill.core.errors import DistillError, first_line
from distill.core.reading import read_text, unique
from distill.language.examples import NOT_TEXT, Chat, Example, Pair, fault_of

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts -> vectors `[N, D]` of length 1."""


@dataclass(frozen=True)
class Entry:
    """What is to be known for questions like this one."""

    question: str
    knowledge: str


@dataclass(frozen=True)
class Hit:
    """An entry that was found for a question, and how well it fits: higher is better."""

    place: int
    entry: Entry
    score: float


class KnowledgeBase:
    """Entries, found by BM25 over their questions' words, or by vectors of an embedder where one is given."""

    def __init__(self, entries: Sequence[Entry], embed: Embed | None = None) -> None:
        """Raises `DistillError` without an entry that has a word."""
        self.entries, self.embed = tuple(entries), embed
        questions = [entry.question for entry in self.entries]
        if not any(map(words, questions)):
            raise DistillError("a knowledge base needs an entry whose question has a word")
        self.vectors = None if embed is None else embed(questions)
        self.index: Any = bm25s.BM25()
        if embed is None:
            self.index.index([words(question) for question in questions], show_progress=False)

    @classmethod
    def of(cls, examples: Iterable[Example], embed: Embed | None = None) -> "KnowledgeBase":
        """Of the examples that have `knowledge`. Errors as of the class."""
        found: list[Entry] = []
        for example in examples:
            if isinstance(example, Pair) and example.knowledge:
                found.append(Entry(example.prompt, example.knowledge))
            elif isinstance(example, Chat) and example.knowledge:
                asked = [str(turn["content"]) for turn in example.messages if turn["role"] == "user"]
                found.append(Entry("\n".join(asked), example.knowledge))
        return cls(found, embed)

    def find(self, questions: Sequence[str], count: int = 1) -> list[list[Hit]]:
        """The best `count` entries for each question, the best first; none that has no word in common with it."""
        count = min(count, len(self.entries))
        if not questions:
            return []
        if self.embed is not None and self.vectors is not None:
            scores = self.embed(questions) @ self.vectors.T
            places = np.argsort(-scores, axis=1, kind="stable")[:, :count]
            return [self._hits(row, scores[i, row]) for i, row in enumerate(places)]
        found = [self.index.retrieve([words(question)], k=count, show_progress=False) if words(question) else None
                 for question in questions]  # fmt: skip
        return [[] if one is None else self._hits(one[0][0], one[1][0], 0.0) for one in found]

    def _hits(self, places: Any, scores: Any, least: float = -np.inf) -> list[Hit]:
        pairs = zip(places, scores, strict=True)
        return [Hit(int(p), self.entries[int(p)], float(s)) for p, s in pairs if s > least]

    def shuffled(self, rng: np.random.Generator) -> "KnowledgeBase":
        """The same questions with each other's knowledge, none with its own: what a method makes of wrong texts."""
        count = len(self.entries)
        if count < 2:
            raise DistillError("knowledge of one entry alone cannot be shuffled")
        order = rng.permutation(count)
        other = np.empty(count, int)
        other[order] = np.roll(order, 1)  # one cycle through all: nothing stays
        mixed = [replace(e, knowledge=self.entries[int(o)].knowledge) for e, o in zip(self.entries, other, strict=True)]
        return KnowledgeBase(mixed, self.embed)

    def save(self, path: Path) -> None:
        """JSONL, a row an entry."""
        rows = "".join(json.dumps(asdict(entry), ensure_ascii=False) + "\n" for entry in self.entries)
        write_text(path, rows)

    @classmethod
    def load(cls, path: Path, embed: Embed | None = None) -> "KnowledgeBase":
        """What `save` wrote. Raises `DistillError` where the file is something else."""
        try:
            # lines of the file alone: `splitlines` also breaks where a text within a row has U+2028
            lines = read_text(path, 2**30).split("\n")
            rows = [json.loads(line, object_pairs_hook=unique) for line in lines if line.strip()]
            texts = [(row["question"], row["knowledge"]) for row in rows]
            if any(text is None or fault_of(text) == NOT_TEXT for pair in texts for text in pair):
                raise DistillError(f"{path} holds no knowledge: a question or its knowledge is no text")
            return cls([Entry(*pair) for pair in texts], embed)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, DistillError):
                raise
            raise DistillError(f"{path} holds no knowledge: {first_line(error)}") from error


def words(text: str) -> list[str]:
    """In lower case, without punctuation."""
    return re.findall(r"\w+", text.lower())


def mean_embedder(model: Any, tokenizer: Any, length: int = 256, batch: int = 64) -> Embed:
    """The mean of an encoder's last states over the tokens of a text, of length 1: as MiniLM's sentence models do."""

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> np.ndarray:
        model.eval()
        parts: list[np.ndarray] = []
        for first in range(0, len(texts), batch):
            part = list(texts[first : first + batch])
            read = tokenizer(part, padding=True, truncation=True, max_length=length, return_tensors="pt")
            inputs = {name: read[name].to(next(model.parameters()).device) for name in ("input_ids", "attention_mask")}
            states, seen = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
            mean = (states * seen).sum(1) / seen.sum(1).clamp(min=1)
            parts.append(torch.nn.functional.normalize(mean, dim=-1).cpu().numpy())
        return np.concatenate(parts)

    return embed
