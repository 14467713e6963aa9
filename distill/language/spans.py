"""Spans in texts of words: structured answers of a model that is only read, where they stand, how well they fit."""

import json
import re
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

Span = tuple[int, int]
"""First word and the one after the last."""
NO_JSON, NO_LIST, NO_FIELD, NOT_FOUND = "no JSON", "no list", "a field is missing or no text", "not in the text"
"""Why a part of an answer is not taken."""


def split(text: str) -> list[str]:
    """Words and single signs."""
    return re.findall(r"\w+|[^\w\s]", text)


def records(answer: str, fields: Sequence[str], rejects: Counter[str]) -> list[dict[str, str]]:
    """The objects of an answer that is a JSON list, perhaps with words around it; `rejects` counts what is not taken.

    An answer without such a list gives none. Objects that lack one of the `fields`, or have no text there, are left
    out.
    """
    found, opens, closes = None, answer.find("["), answer.rfind("]")
    if 0 <= opens < closes:
        try:
            found = json.loads(answer[opens : closes + 1])
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, list):
        rejects[NO_JSON if opens < 0 or found is None else NO_LIST] += 1
        return []
    taken: list[dict[str, str]] = []
    for item in found:
        values: dict[str, Any] = item if isinstance(item, dict) else {}
        if all(isinstance(values.get(name), str) and values[name].strip() for name in fields):
            taken.append({name: values[name] for name in fields})
        else:
            rejects[NO_FIELD] += 1
    return taken


def located(words: Sequence[str], part: Sequence[str]) -> list[Span]:
    """Every place where the words of `part` stand one after the other, case aside."""
    low, wanted = [w.lower() for w in words], [w.lower() for w in part]
    n = len(wanted)
    return [(i, i + n) for i in range(len(low) - n + 1) if n and low[i : i + n] == wanted]


def runs(flags: Sequence[bool] | np.ndarray) -> list[Span]:
    """The longest spans of words that are all flagged."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def overlap(
    truth: Sequence[Collection[tuple[Any, Span]]], said: Sequence[Collection[tuple[Any, Span]]], lenient: bool = False
) -> dict[str, float]:
    """`precision`, `recall` and `f1` over all texts together, of spans with what they are of.

    Strict: the same span of the same thing. `lenient`: one word in common is enough; each span is matched once.
    """
    right = ours = theirs = 0
    for gold, found in zip(truth, said, strict=True):
        left, different = set(gold), set(found)
        ours, theirs = ours + len(different), theirs + len(left)
        for what, span in sorted(different, key=str):
            hit = next((g for g in sorted(left, key=str) if g[0] == what and _fits(g[1], span, lenient)), None)
            if hit is not None:
                right += 1
                left.discard(hit)
    return {
        "precision": right / max(ours, 1), "recall": right / max(theirs, 1), "f1": 2 * right / max(ours + theirs, 1),
    }  # fmt: skip


def _fits(gold: Span, span: Span, lenient: bool) -> bool:
    return max(gold[0], span[0]) < min(gold[1], span[1]) if lenient else gold == span
