"""Examples as tokens, and which of them are learned: completions, and the assistant's turns of a conversation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distill.core.errors import DistillError
from distill.language.examples import Chat, Example, Pair, Text

TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' + message['content'] }}"
    "{{ eos_token + '\\n' if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For tokenizers that come without a chat template, as those of base models do."""
CUT, TOO_LONG, REWRITTEN = (
    "cut at the greatest length",
    "nothing to learn within the greatest length",
    "the chat template refuses it, or shows no answer as it was given",
)


@dataclass(frozen=True)
class Encoded:
    """One example, or a part of one."""

    tokens: Sequence[int]
    learned: Sequence[bool]
    """Of each token, whether its prediction is learned; never of the first."""
    teacher: int | None = None
    """Which of several teachers it is learned from; None where there is one at most."""
    told: tuple["Passage", ...] = ()
    """Parts of which a teacher with other tokens says how likely they are."""


@dataclass(frozen=True)
class Passage:
    """A part of a row as a teacher reads it that splits texts into other tokens."""

    tokens: Sequence[int]
    """The teacher's row, with what stands before the passage."""
    pieces: Sequence[tuple[int, int, int, int]]
    """Of the same text: first and last token in the student's row, first and last in the teacher's."""


class Encoder:
    """Encodes examples with a Hugging Face tokenizer and counts what does not fit."""

    def __init__(self, tokenizer: Any, length: int) -> None:
        """`length` is the greatest number of tokens that are predicted in one row, so that a row has one more.

        Raises:
          DistillError: a tokenizer without an end token or without a fast form, or a length below 2.
        """
        if tokenizer.eos_token_id is None or not getattr(tokenizer, "is_fast", False):
            raise DistillError("the tokenizer has no end token or no fast form")
        if length < 2:
            raise DistillError(f"rows need a length of 2 tokens at least, got {length}")
        self.tokenizer, self.length = tokenizer, length
        self.end, self.start = int(tokenizer.eos_token_id), _prefix(tokenizer)
        self.dropped: Counter[str] = Counter()
        """Reason -> examples that are left out wholly."""
        self.cut: Counter[str] = Counter()
        """Reason -> examples of which a part is left out."""

    def encode(self, example: Example) -> list[Encoded]:
        """The example's rows of `length + 1` tokens at most: a long text gives several, others are cut at their end."""
        if isinstance(example, Text):
            return self.text(example)
        found = [self.pair(example)] if isinstance(example, Pair) else self.chat(example)
        kept = [part for part in map(self._fitted, found) if part is not None]
        if not kept:
            self.dropped[TOO_LONG if found else REWRITTEN] += 1
        elif len(kept) < len(found) or any(len(a.tokens) < len(b.tokens) for a, b in zip(kept, found, strict=False)):
            self.cut[CUT] += 1
        return kept

    def prompt(self, example: Example) -> list[int]:
        """What a model is given to write on: a pair's prompt, a conversation up to its last answer, half a text."""
        if isinstance(example, Text):
            ids = [*self.start, *self._ids(example.text)][: self.length]
            return ids[: max(len(ids) // 2, 1)]
        if isinstance(example, Pair):
            return [*self.start, *self._ids(example.prompt)]
        last = example.answers[-1]
        return self._ids(self._render(example, last, asks=True) or "") if last else list(self.start)

    def text(self, example: Text) -> list[Encoded]:
        """Rows of a text that learn every token but the first once: neighbours share a token."""
        tokens = [*self.start, *self._ids(example.text), self.end]
        pieces = [tokens[first : first + self.length + 1] for first in range(0, len(tokens) - 1, self.length)]
        return [Encoded(piece, [False] + [True] * (len(piece) - 1)) for piece in pieces]

    def pair(self, example: Pair) -> Encoded:
        """A prompt and its completion, of which the latter is learned, its end with it."""
        prompt, completion = [*self.start, *self._ids(example.prompt)], [*self._ids(example.completion), self.end]
        return Encoded([*prompt, *completion], [False] * len(prompt) + [True] * len(completion))

    def chat(self, example: Chat) -> list[Encoded]:
        """A conversation in one row with every answer learned, its end with it.

        Some templates show earlier turns otherwise once others follow, such as those that leave out earlier reasoning:
        then every answer becomes a row of its own. None where even so an answer does not stand where it is asked for.
        """
        whole = self._render(example, len(example.messages))
        spans = [(turn, self.answer(example, turn)) for turn in example.answers]
        shown = [(turn, *span) for turn, span in spans if span is not None]
        if whole and len(shown) == len(spans) and all(whole.startswith(text) for _, text, _ in shown):
            return [self._row(example, whole, [(turn, begin, len(text)) for turn, text, begin in shown])]
        return [self._row(example, text, [(turn, begin, len(text))]) for turn, text, begin in shown]

    def answer(self, example: Chat, turn: int) -> tuple[str, int] | None:
        """The conversation up to a turn of the assistant, and the character at which its answer begins; None where the
        template does not show it as it was given."""
        text = self._render(example, turn + 1)
        for asks in (True, False):  # a template may open an answer otherwise than it asks for it
            before = self._render(example, turn, asks=asks) if turn else ""
            if text and before is not None and text.startswith(before) and len(before) < len(text):
                return text, len(before)
        return None

    def _render(self, example: Chat, turns: int, asks: bool = False) -> str | None:
        """The first turns as text, None where the template refuses them: some want a user first, or turns in turn."""
        options: dict[str, Any] = {"tokenize": False, "add_generation_prompt": asks}
        if not self.tokenizer.chat_template:
            options["chat_template"] = TEMPLATE
        if example.tools:
            options["tools"] = [dict(tool) for tool in example.tools]
        try:
            said = self.tokenizer.apply_chat_template([dict(m) for m in example.messages[:turns]], **options)
            said.encode()  # what a row has beside its texts, as a call of a tool, may hold half of a surrogate pair
            return said
        except Exception:  # a template is a program, which raises what it likes
            return None

    def _row(self, example: Chat, text: str, answers: Sequence[tuple[int, int, int]]) -> Encoded:
        """A rendered conversation of which answers are learned: each its turn, and its characters `[begin, end)`."""
        ids, offsets = self.split(text)
        inside = [
            any(first < end and last > begin for _, begin, end in answers) if last > first else False
            for first, last in offsets
        ]
        return Encoded(ids, inside)

    def split(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of a text, and of each the characters `[first, end)` that it stands for."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(found["input_ids"]), list(found["offset_mapping"])

    def _ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _fitted(self, row: Encoded) -> Encoded | None:
        tokens, learned = list(row.tokens[: self.length + 1]), list(row.learned[: self.length + 1])
        if learned:
            learned[0] = False  # nothing stands before it
        return replace(row, tokens=tokens, learned=learned) if any(learned) else None


def padded_rows(rows: Sequence[Encoded], length: int, pad: int) -> dict[str, np.ndarray]:
    """One example a row: `tokens` `[N, length + 1]`, `mask` and `positions` `[N, length]`, and `teacher` `[N]` where
    there are several."""
    return _laid([[row] for row in rows], length, pad)


def packed_rows(rows: Sequence[Encoded], length: int, pad: int) -> dict[str, np.ndarray]:
    """Several examples a row, each of which begins at position 0 anew: as `padded_rows`, in fewer rows.

    The longest goes first, each into the fullest row of its teacher that has room (best fit). Where positions begin
    anew, attention must: see `models.causal`. The first token of an example is never learned from the one before.
    """
    order = sorted(range(len(rows)), key=lambda i: -len(rows[i].tokens))
    rooms: dict[int | None, dict[int, list[list[Encoded]]]] = {}
    bins: list[list[Encoded]] = []
    for i in order:
        need, room = len(rows[i].tokens), rooms.setdefault(rows[i].teacher, {})
        left = next((space for space in range(need, length + 2) if room.get(space)), None)
        if left is None:
            chosen: list[Encoded] = []
            bins.append(chosen)
            left = length + 1
        else:
            chosen = room[left].pop()
        chosen.append(rows[i])
        room.setdefault(left - need, []).append(chosen)
    return _laid(bins, length, pad)


def _laid(bins: Sequence[Sequence[Encoded]], length: int, pad: int) -> dict[str, np.ndarray]:
    if not bins:
        raise DistillError("there is nothing to lay out in rows")
    tokens = np.full((len(bins), length + 1), pad, np.int64)
    mask = np.zeros((len(bins), length + 1), bool)
    positions = np.zeros((len(bins), length + 1), np.int64)
    for place, row in enumerate(bins):
        at = 0
        for part in row:
            end = at + len(part.tokens)
            tokens[place, at:end], mask[place, at:end] = part.tokens, part.learned
            mask[place, at] = False
            positions[place, at:end] = np.arange(end - at)
            at = end
        positions[place, at:] = np.arange(length + 1 - at)
    found = {"tokens": tokens, "mask": mask[:, 1:], "positions": positions[:, :-1]}
    if bins[0][0].teacher is not None:
        found["teacher"] = np.array([row[0].teacher for row in bins], np.int64)
    return found


def _prefix(tokenizer: Any) -> list[int]:
    """What the tokenizer puts before every text of its own accord, such as a token for its beginning."""
    plain, special = (tokenizer("a", add_special_tokens=chosen)["input_ids"] for chosen in (False, True))
    place = next((i for i in range(len(special)) if special[i : i + len(plain)] == plain), 0)
    return list(special[:place])


def counted(*counts: Mapping[str, int]) -> dict[str, int]:
    """Reason -> number, summed over several counts."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(total)
