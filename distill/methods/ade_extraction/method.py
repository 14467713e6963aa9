"""Adverse drug events: a small tagger that learns from a labelling model's answers (arXiv 2307.06439).

A strong model, which is only read, is asked for pairs of a drug and what it caused, as a JSON list of objects. What
cannot be read or does not stand in the text is refused and counted. For each drug of a text, one without events too, an
encoder learns which words are an event that this drug caused.

    asked = [one for text, answer in ... for one in labelled(split(text), drugs, answer, rejects)]
    student = SpanTagger.of(AutoModel.from_pretrained("..."), pad)
    fit(*parts(student, tagged_rows(asked, encoder_of(tokenizer), 128, pad)), folder, steps=..., batch=32, seed=0)
    kept.save(student, folder)

`barkour distill tagger` does that.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from distill.core.collect import Collector, Student
from distill.core.objectives.base import Objective
from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import Teacher
from distill.language.span_tagger import Asked, read
from distill.language.spans import NOT_FOUND, Span, located, records, split
from distill.language.student import ModelStudent, Next

FIELDS = ("drug", "event")
PROMPT = (
    "List every adverse event that a drug caused in the sentence, as a JSON list of objects with the fields "
    '"drug" and "event", both word for word as they stand there; [] where there is none.\n\nSentence: {text}\nList:'
)
"""What the labelling model may be asked; put worked examples before it."""


def pairs_of(
    words: Sequence[str], answer: str, rejects: Counter[str], fields: tuple[str, str] = FIELDS
) -> set[tuple[Span, Span]]:
    """Places of drug and event for each pair of an answer that stands in the text; the first place of each. `fields`
    are what the answer calls them."""
    found: set[tuple[Span, Span]] = set()
    for one in records(answer, fields, rejects):
        places = [located(words, split(one[name])) for name in fields]
        if all(places):
            found.add((places[0][0], places[1][0]))
        else:
            rejects[NOT_FOUND] += 1
    return found


def labelled(
    words: Sequence[str], drugs: Sequence[Span], answer: str, rejects: Counter[str],
    fields: tuple[str, str] = FIELDS,
) -> list[Asked]:  # fmt: skip
    """One question for each drug of a text with the events that an answer gives it."""
    pairs = pairs_of(words, answer, rejects, fields)
    return [Asked(words, [drug], [event for other, event in sorted(pairs) if other == drug]) for drug in drugs]


def parts(
    student: Any, rows: Rows, held_out: Rows | None = None
) -> tuple[Student, Objective, Teacher, list[Collector]]:
    """What `distill.core.fit.fit` is given: a `SpanTagger` and rows of `tagged_rows`; every word's tag is learned."""
    return ModelStudent(student, read), CrossEntropy(), Next("tag"), [FixedDomain("texts", rows, held_out)]
