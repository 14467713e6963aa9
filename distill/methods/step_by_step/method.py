"""Distilling step by step: the teacher's rationale as a second task (arXiv 2305.02301).

Rows of the data have a `rationale` beside prompt and answer. The student learns the answer as it will be asked for it,
and the rationale after the word "explain: "; the paper also marks the first task. Each task is averaged by itself, as
long rationales would drown the answers, and nothing is written at test time.
"""

from distill.core.objectives.divergences import CrossEntropy
from distill.core.teachers import Teachers
from distill.language.examples import Chat, Example, Pair
from distill.language.views import Views
from distill.methods.method import Losses, Method, MethodOptions, weighed
from distill.methods.tasks import a_view_each, asked_otherwise, tasks_together

EXPLAIN = "explain: "


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy of both tasks; the rationale, the teacher's part, has the weight alpha."""
    return weighed(labels=(1 - options.alpha, CrossEntropy()), rationales=(options.alpha, CrossEntropy()))


def two_tasks(parts: Losses) -> tuple[Views, Teachers]:
    """The objective over both views and the next tokens of each."""
    return a_view_each(parts, ("labels", "rationales"))


def views(example: Example) -> list[Example] | None:
    """The example, and what asks for its rationale; None where it has none."""
    if isinstance(example, Pair) and example.rationale:
        return [example, Pair(EXPLAIN + example.prompt, example.rationale)]
    if isinstance(example, Chat) and example.rationale:
        found = asked_otherwise(example, lambda question: EXPLAIN + question, example.rationale)
        return None if found is None else [example, found]
    return None


METHOD = Method(
    "step_by_step", "The answer and, as a second task, the rationale", "arXiv 2305.02301", losses, reads=("alpha",),
    stage=tasks_together, views=views, own=("labels", "rationales"),
)  # fmt: skip
