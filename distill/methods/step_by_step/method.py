"""Distilling step by step: the teacher's rationale as a second task (arXiv 2305.02301).

Rows of the data have a `rationale` beside prompt and answer. The student learns the answer as it will be asked for it,
and the rationale after the word "explain: "; the paper also marks the first task. Each task is averaged by itself, as
long rationales would drown the answers, and nothing is written at test time.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import Epochs, FixedDomain, Rows
from distill.core.teachers import Teachers
from distill.language.examples import Chat, Example, Pair
from distill.language.models import Read
from distill.language.student import ModelStudent
from distill.language.views import NextOf, Views, every_view
from distill.methods.method import Losses, Material, Method, MethodOptions, Stage, by_size, weighed

EXPLAIN = "explain: "


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy of both tasks; the rationale, the teacher's part, has the weight alpha."""
    return weighed(labels=(1 - options.alpha, CrossEntropy()), rationales=(options.alpha, CrossEntropy()))


def two_tasks(parts: Losses) -> tuple[Views, Teachers]:
    """The objective over both views and the next tokens of each."""
    places = {"labels": (0, 0), "rationales": (1, 1)}
    objective = Views(parts, {name: places[name] for name in parts})
    return objective, Teachers({name: NextOf(places[name][0]) for name in parts})


def views(example: Example) -> list[Example] | None:
    """The example, and what asks for its rationale; None where it has none."""
    if isinstance(example, Pair) and example.rationale:
        return [example, Pair(EXPLAIN + example.prompt, example.rationale)]
    if isinstance(example, Chat) and example.rationale:
        asked = [dict(turn) for turn in example.messages[:-1]]
        user = max((i for i, turn in enumerate(asked) if turn["role"] == "user"), default=None)
        if user is not None:
            asked[user]["content"] = EXPLAIN + asked[user]["content"]
            answer = {"role": "assistant", "content": example.rationale}
            return [example, replace(example, messages=(*asked, answer))]
    return None


def side_by_side(rows: Sequence[Rows]) -> Rows:
    """Rows of several views, one after the other -> `tokens` `[N, views, T + 1]`, `mask` `[N, views, T]`."""
    return {name: np.stack([view[name] for view in rows], 1) for name in ("tokens", "mask")}


def student_of(model: object, read: Read) -> ModelStudent:
    """Logits of every view."""
    return ModelStudent(model, every_view(read))  # pyright: ignore[reportArgumentType] (models of transformers: untyped)


def stage(method: Method, material: Material, options: MethodOptions) -> Stage:
    """Both tasks on the same examples in every step."""
    objective, teachers = two_tasks(method.losses(options))
    collectors = [
        FixedDomain(d.name, side_by_side([d.rows, *d.views]), side_by_side([d.held_out, *d.held_out_views]))
        for d in material.domains
    ]
    student = student_of(material.student, material.read)
    return Stage(student, objective, teachers, collectors, Epochs(), by_size(material))


METHOD = Method(
    "step_by_step", "The answer and, as a second task, the rationale", "arXiv 2305.02301", losses, reads=("alpha",),
    stage=stage, views=views, own=("labels", "rationales"),
)  # fmt: skip
