"""Rows of a student whose teacher splits texts into other tokens: pieces that begin and end in both, and what the
teacher thinks of each.

A piece ends wherever a token ends in both splits of the same text, so that it holds one token or a few of each. Of
conversations each model reads its own chat template: what is compared is what the assistant says, and the token with
which its turn ends. The teacher is asked once, before training, and not needed any more then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from torch import nn

from distill.core.collect import Student
from distill.core.signals import SpanLogProbs
from distill.core.tables import Rows
from distill.core.teachers import Batch
from distill.language.encoding import Encoded, Encoder, Passage, padded_rows
from distill.language.evaluate import token_log_probs
from distill.language.examples import Chat, Example, Pair, Text

Offsets = Sequence[tuple[int, int]]
"""Of each token, the characters that it stands for, `[first, end)`."""
APART = "no piece in it is split alike by both tokenizers"
TOGETHER = 8
"""Rows that the teacher is asked about at once."""


def aligned(ours: Offsets, theirs: Offsets) -> list[tuple[int, int, int, int]]:
    """Pieces of one text: first and last token in `ours`, first and last in `theirs`.

    Tokens that share a character, as those of one that is several bytes do, stay together.
    """
    a, b = _ends(ours), _ends(theirs)
    found: list[tuple[int, int, int, int]] = []
    i = j = 0
    for end in sorted(a.keys() & b.keys()):
        found.append((i, a[end], j, b[end]))
        i, j = a[end] + 1, b[end] + 1
    return found


def _ends(offsets: Offsets) -> dict[int, int]:
    """Character -> the last token that ends there, where none that follows begins before it."""
    found: dict[int, int] = {}
    high = 0
    for i, (_, end) in enumerate(offsets):
        high = max(high, end)
        if i + 1 == len(offsets) or offsets[i + 1][0] >= high:
            found[high] = i
    return found


@dataclass(frozen=True)
class Side:
    """A passage in one model's row."""

    tokens: Sequence[int]
    """The row."""
    first: int
    """Place in it of the passage's first token."""
    offsets: Offsets
    """Of the passage's tokens, in its own characters."""
    end: int | None
    """Place of the token that ends it, None where it goes on."""


def _passage(ours: Side, theirs: Side) -> Passage:
    pieces = [
        (ours.first + i, ours.first + k, theirs.first + j, theirs.first + m)
        for i, k, j, m in aligned(ours.offsets, theirs.offsets)
    ]
    if ours.end is not None and theirs.end is not None:
        pieces.append((ours.end, ours.end, theirs.end, theirs.end))
    return Passage(theirs.tokens, pieces)


class AlignedEncoder(Encoder):
    """Encodes examples for a student, and with each row the passages that a teacher of other tokens is asked about."""

    def __init__(self, tokenizer: Any, length: int, teacher: Any, most: int | None = None) -> None:
        """`teacher` is its tokenizer, `most` the number of tokens that it reads, None where there is no end.

        Raises:
          DistillError: as `Encoder` does.
        """
        super().__init__(tokenizer, length)
        self.theirs = Encoder(teacher, most or 1 << 30)

    def encode(self, example: Example) -> list[Encoded]:
        """As `Encoder.encode`. Rows without a piece are kept for their labels, and counted."""
        found: list[Encoded] = []
        for row in super().encode(example):
            told = tuple(passage for each in row.told if (passage := self._fitting(row, each)).pieces)
            if not told:
                self.cut[APART] += 1
            found.append(replace(row, told=told))
        return found

    def _fitting(self, row: Encoded, passage: Passage) -> Passage:
        """With the pieces that are learned whole, and before which something stands in the teacher's row."""
        most = self.theirs.length
        pieces = [
            (i, k, j, m) for i, k, j, m in passage.pieces
            if k < len(row.tokens) and all(row.learned[i : k + 1]) and j > 0 and m <= most
        ]  # fmt: skip
        return Passage(passage.tokens[: most + 1], pieces)

    def text(self, example: Text) -> list[Encoded]:
        """The teacher reads what each row holds of the text."""
        _, offsets = self.split(example.text)
        found: list[Encoded] = []
        for number, row in enumerate(super().text(example)):
            shift = number * self.length - len(self.start)  # from places in the row to places in the text
            here = offsets[max(shift, 0) : shift + len(row.tokens)]
            begin, end = (here[0][0], here[-1][1]) if here else (0, 0)
            last = len(row.tokens) - 1 if shift + len(row.tokens) > len(offsets) else None
            ours = Side(row.tokens, max(-shift, 0), [(a - begin, b - begin) for a, b in here], last)
            theirs = self._their_side(self.theirs.start, example.text[begin:end])
            found.append(replace(row, told=(_passage(ours, theirs),)))
        return found

    def pair(self, example: Pair) -> Encoded:
        """The teacher reads the same prompt."""
        row = super().pair(example)
        _, offsets = self.split(example.completion)
        ours = Side(row.tokens, len(row.tokens) - 1 - len(offsets), offsets, len(row.tokens) - 1)
        before = [*self.theirs.start, *self.theirs.split(example.prompt)[0]]
        return replace(row, told=(_passage(ours, self._their_side(before, example.completion)),))

    def _their_side(self, before: Sequence[int], text: str) -> Side:
        ids, offsets = self.theirs.split(text)
        return Side([*before, *ids, self.theirs.end], len(before), offsets, len(before) + len(ids))

    def _row(self, example: Chat, text: str, answers: Sequence[tuple[int, int, int]]) -> Encoded:
        row = super()._row(example, text, answers)
        split = self.split(text)
        passages: list[Passage] = []
        for turn, begin, end in answers:
            said, shown = str(example.messages[turn]["content"]), self.theirs.answer(example, turn)
            ours = _shown(split, text, begin, end, said)
            if ours is not None and shown is not None:
                their_text, their_begin = shown
                theirs = _shown(self.theirs.split(their_text), their_text, their_begin, len(their_text), said)
                passages += [] if theirs is None else [_passage(ours, theirs)]
        return replace(row, told=tuple(passages))


def _shown(split: tuple[Sequence[int], Offsets], text: str, begin: int, stop_at: int, said: str) -> Side | None:
    """What an answer says that takes characters `[begin, stop_at)` of a text with these tokens and offsets, None where
    it is not shown so."""
    said = said.strip()  # templates may take away what stands around it
    at = text.find(said, begin, stop_at)
    if at < 0 or not said:
        return None
    ids, offsets = split
    stop = at + len(said)
    inside = [
        i for i, (a, b) in enumerate(offsets)
        if at < b and a < stop and a < b and not (text[a:at].strip() or text[stop:b].strip())
    ]  # fmt: skip
    if not inside:
        return None
    here = offsets[inside[0] : inside[-1] + 1]
    end = next((i for i in range(inside[-1] + 1, len(ids)) if stop <= offsets[i][0] < stop_at), None)
    return Side(ids, inside[0], [(max(a, at) - at, min(b, stop) - at) for a, b in here], end)


def with_likelihoods(
    rows: Rows, encoded: Sequence[Encoded], teacher: nn.Module, reader: Student, pad: int, console: Console
) -> tuple[Rows, dict[str, float]]:
    """Rows with the ends of their pieces, `span` `[N, T]`, and the teacher's log-probability of each at its end,
    `span_log_prob` `[N, T]`; and in sums the `tokens` in `pieces` and their `nats` by the teacher."""
    shape = rows["tokens"][:, 1:].shape
    ends, told = np.full(shape, -1, np.int64), np.zeros(shape, np.float32)
    asked = [(n, passage) for n, row in enumerate(encoded) for passage in row.told]
    asked.sort(key=lambda each: len(each[1].tokens))
    blocks = [asked[i : i + TOGETHER] for i in range(0, len(asked), TOGETHER)]
    sums = {"tokens": 0.0, "pieces": 0.0, "nats": 0.0}
    for block in track(blocks, "the teacher reads", console=console, transient=True, disable=not console.is_terminal):
        longest = max(len(passage.tokens) for _, passage in block)
        theirs = [Encoded(passage.tokens, [True] * len(passage.tokens)) for _, passage in block]
        laid = padded_rows(theirs, longest - 1, pad)
        found = token_log_probs(teacher, reader, {name: laid[name] for name in ("tokens", "mask")}, TOGETHER)
        for (n, passage), each in zip(block, found, strict=True):
            for i, k, j, m in passage.pieces:
                ends[n, i - 1 : k] = k - 1
                told[n, k - 1] = min(each[j - 1 : m].sum(), 0.0)
                sums["tokens"] += k - i + 1
                sums["pieces"] += 1
                sums["nats"] -= float(told[n, k - 1])
    return {**rows, "span": ends, "span_log_prob": told}, sums


class RecordedSpans:
    """The teacher of rows that `with_likelihoods` wrote."""

    kind = SpanLogProbs

    def label(self, batch: Batch) -> SpanLogProbs:
        """What was written."""
        return SpanLogProbs(batch["tokens"][:, 1:], batch["span"], batch["span_log_prob"])

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return "07"
