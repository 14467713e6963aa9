"""UniversalNER: a teacher's entity labels as a conversation, one question for each type (arXiv 2308.03279).

Rows of the data have a `text` and its `entities`, as a strong model labelled them. Every type that a text has becomes a
question, whose answer is a JSON list of the spans; types that it lacks are asked for too, with an empty list as the
answer, drawn as often as they occur in the data: without them a student invents entities for every type. Answers alone
are learned. How many types a text lacks are asked for is open in the paper; it is an option here.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from distill.core.objectives.divergences import CrossEntropy
from distill.language.examples import Chat, Example, Text
from distill.methods.method import Method, MethodOptions

NO_TYPE = frozenset({"", "none", "na", "n/a", "misc", "else"})
"""Names that say nothing, as labels have them."""
Spans = Mapping[str, Sequence[str]]
"""Type -> mentions in one text."""


def question(kind: str, text: str = "") -> str:
    """What a student is asked for one type; the first question of a conversation has the text before it."""
    asked = f'List the spans that are of the type "{kind}" as JSON.'
    return f"{text}\n\n{asked}" if text else asked


def answer(mentions: Iterable[str]) -> str:
    """The JSON list of different mentions, in their order."""
    return json.dumps(list(dict.fromkeys(mentions)), ensure_ascii=False)


def parsed(written: str) -> list[str]:
    """The mentions of an answer; none where it is no JSON list of texts."""
    try:
        found = json.loads(written.strip())
    except (ValueError, RecursionError):
        return []
    return [item for item in found if isinstance(item, str)] if isinstance(found, list) else []


def strict_scores(truth: Sequence[Spans], said: Sequence[Spans]) -> dict[str, float]:
    """`precision`, `recall` and `f1` over all texts and types together: a mention counts where it is letter for letter
    the same under the same type, once a text."""
    right = wrong = missed = 0
    for gold, found in zip(truth, said, strict=True):
        ours, theirs = ({(kind, span) for kind, spans in part.items() for span in spans} for part in (found, gold))
        right, wrong, missed = right + len(ours & theirs), wrong + len(ours - theirs), missed + len(theirs - ours)
    precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
    return {"precision": precision, "recall": recall, "f1": 2 * right / max(2 * right + wrong + missed, 1)}


def absent(
    present: Iterable[str], counts: Mapping[str, int], count: int, rng: np.random.Generator, even: bool = False
) -> list[str]:
    """`count` types that a text lacks, or all of them where they are fewer, drawn by how often each occurs; or `even`:
    each as likely."""
    others = sorted(set(counts) - set(present))
    if not others:
        return []
    weights = np.array([1 if even else counts[kind] for kind in others], float)
    chosen = rng.choice(len(others), min(count, len(others)), replace=False, p=weights / weights.sum())
    return [others[int(place)] for place in chosen]


def conversation(text: str, entities: Spans, negatives: Sequence[str], rng: np.random.Generator) -> Chat:
    """One question for each type in random order, those of `negatives` answered by an empty list."""
    asked = {**dict.fromkeys(negatives, ()), **entities}
    kinds = [list(asked)[int(place)] for place in rng.permutation(len(asked))]
    turns: list[dict[str, str]] = []
    for kind in kinds:
        turns.append({"role": "user", "content": question(kind, "" if turns else text)})
        turns.append({"role": "assistant", "content": answer(asked[kind])})
    return Chat(tuple(turns))


def conversations(
    examples: Sequence[Example], rng: np.random.Generator, options: MethodOptions
) -> list[Example | None]:
    """Each labelled text as a conversation; None for what is not labelled, or has no type that says something."""
    usable: list[dict[str, Sequence[str]]] = []
    for example in examples:
        spans = example.entities if isinstance(example, Text) else {}
        usable.append({kind: found for kind, found in spans.items() if kind.lower() not in NO_TYPE and found})
    counts = Counter({kind: 0 for spans in usable for kind in spans})
    counts.update(kind for spans in usable for kind, found in spans.items() for _ in found)
    return [
        conversation(example.text, spans, absent(spans, counts, options.negatives, rng), rng)
        if spans and isinstance(example, Text)
        else None
        for example, spans in zip(examples, usable, strict=True)
    ]


METHOD = Method(
    "universal_ner", "A teacher's entity labels as questions for each type, absent types among them",
    "arXiv 2308.03279", losses=lambda options: {"labels": (1.0, CrossEntropy())}, reads=("negatives",),
    convert=conversations,
)  # fmt: skip
