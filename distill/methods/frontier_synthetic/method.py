"""A strong model's answers after thinking, learned without the thoughts (arXiv 2410.18588).

The teacher is asked with a richer prompt than the student (`RICH`) and answers with a JSON object. Rows of the data
have the student's everyday prompt and what the teacher wrote, as it wrote it; the method reads the answer out of it and
learns that alone, so that the student needs no more tokens than before. Rows whose object cannot be read are dropped
and counted; where fewer than 70 % are left, the run is refused, as in Microsoft's public pipeline.
"""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from distill.core.errors import DistillError
from distill.core.objectives.divergences import CrossEntropy
from distill.language.examples import Chat, Example, Pair
from distill.methods.method import Method, MethodOptions
from distill.methods.tasks import asked_otherwise

RICH = (
    "Think step by step in at most 80 words, then answer. Reply with one JSON object with the fields "
    '"reason" and "answer" and nothing else.\n\n{prompt}'
)
"""What the teacher is asked for a chain of thought."""
KEPT = 0.7
"""Share of the rows that must be readable."""
Target = Literal["answer", "reason and answer"]


def target(written: str, rejects: Counter[str], mode: Target = "answer") -> str | None:
    """What a student is to write, out of what a teacher wrote; None where it is no object with both fields as texts."""
    opens, closes = written.find("{"), written.rfind("}")
    try:
        found: Any = json.loads(written[opens : closes + 1]) if 0 <= opens < closes else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        rejects["no JSON object"] += 1
        return None
    reason, answer = (found.get(name) for name in ("reason", "answer"))
    answer = str(answer) if isinstance(answer, int | float) and not isinstance(answer, bool) else answer
    if not all(isinstance(text, str) and text.strip() for text in (reason, answer)):
        rejects["a field is missing or no text"] += 1
        return None
    return f"{reason} {answer}" if mode == "reason and answer" else str(answer)


def stripped(examples: Sequence[Example], rng: np.random.Generator, options: MethodOptions) -> list[Example | None]:
    """Each example with the answer alone; None for what cannot be read.

    Raises:
      DistillError: fewer than `KEPT` of them can.
    """
    rejects: Counter[str] = Counter()
    found: list[Example | None] = []
    for example in examples:
        if isinstance(example, Pair):
            said = target(example.completion, rejects)
            found.append(None if said is None else Pair(example.prompt, said))
        elif isinstance(example, Chat):
            said = target(str(example.messages[-1]["content"]), rejects)
            found.append(None if said is None else asked_otherwise(example, lambda question: question, said))
        else:
            rejects["no prompt with an answer"] += 1
            found.append(None)
    left = sum(each is not None for each in found)
    if left < KEPT * len(found):
        why = ", ".join(f"{count} {reason}" for reason, count in rejects.most_common())
        raise DistillError(f"of {len(found)} answers of the teacher {left} can be read, fewer than {KEPT:.0%}: {why}")
    return found


METHOD = Method(
    "frontier_synthetic", "A teacher's answers after thinking, without the thoughts", "arXiv 2410.18588",
    losses=lambda options: {"labels": (1.0, CrossEntropy())}, convert=stripped,
)  # fmt: skip
