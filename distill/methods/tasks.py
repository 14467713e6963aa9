"""Methods that learn several texts of one example as tasks side by side, each averaged by itself."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from distill.core.tables import Epochs, FixedDomain, Rows
from distill.core.teachers import Teachers
from distill.language.examples import Chat
from distill.language.models import Read
from distill.language.student import ModelStudent
from distill.language.views import NextOf, Views, every_view
from distill.methods.method import Losses, Material, Method, MethodOptions, Stage, by_size


def a_view_each(parts: Losses, order: Sequence[str]) -> tuple[Views, Teachers]:
    """The objective over views whose tasks are in that order, of which `parts` may lack some, and their next tokens."""
    places = {name: (order.index(name), order.index(name)) for name in parts}
    return Views(parts, places), Teachers({name: NextOf(view) for name, (view, _) in places.items()})


def tasks_together(method: Method, material: Material, options: MethodOptions) -> Stage:
    """All tasks, `method.own` in the order of the views, on the same examples in every step."""
    objective, teachers = a_view_each(method.losses(options), method.own)
    collectors = [
        FixedDomain(d.name, side_by_side([d.rows, *d.views]), side_by_side([d.held_out, *d.held_out_views]))
        for d in material.domains
    ]
    student = student_of(material.student, material.read)
    return Stage(student, objective, teachers, collectors, Epochs(), by_size(material))


def side_by_side(rows: Sequence[Rows]) -> Rows:
    """Rows of several views, one after the other -> `tokens` `[N, views, T + 1]`, `mask` `[N, views, T]`."""
    return {name: np.stack([view[name] for view in rows], 1) for name in ("tokens", "mask")}


def student_of(model: object, read: Read) -> ModelStudent:
    """Logits of every view."""
    return ModelStudent(model, every_view(read))  # pyright: ignore[reportArgumentType] (models of transformers: untyped)


def asked_otherwise(example: Chat, question: Callable[[str], str], answer: str) -> Chat | None:
    """The conversation with another last question and another answer to it; None where no user asks."""
    asked = [dict(turn) for turn in example.messages[:-1]]
    user = max((i for i, turn in enumerate(asked) if turn["role"] == "user"), default=None)
    if user is None:
        return None
    asked[user]["content"] = question(asked[user]["content"])
    return replace(example, messages=(*asked, {"role": "assistant", "content": answer}))
