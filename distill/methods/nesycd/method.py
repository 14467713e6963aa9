"""NesyCD: general skill in the weights, rare knowledge as text beside them (arXiv 2409.13203).

A first student learns the teacher's chains of thought (`--method labels`) and is asked the training questions. Where it
is wrong, the teacher writes what one must know: `lessons` does that with any two models. The final student starts anew,
on rows with a `rationale` and, where the first one failed, `knowledge`; it learns three tasks that share its weights:

| task | from | learned |
|---|---|---|
| `labels` | knowledge, if any, and the question | chain of thought and answer |
| `answers` | "answer: ", knowledge, if any, and the question | answer |
| `direct` | the question | chain of thought and answer |

Later questions are given the knowledge that `language.knowledge.KnowledgeBase` finds for them, or none. The weights of
the last two are open in the paper; both are `weight`. So is how the second task is marked.
"""

from collections.abc import Callable, Sequence

from distill.core.objectives.divergences import CrossEntropy
from distill.language.examples import Chat, Example, Pair
from distill.language.knowledge import KnowledgeBase
from distill.methods.method import Losses, Method, MethodOptions, weighed
from distill.methods.tasks import asked_otherwise, tasks_together

ANSWER = "answer: "
TASKS = ("labels", "answers", "direct")


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy of the three tasks."""
    beside = (options.weight, CrossEntropy())
    return weighed(labels=(1.0, CrossEntropy()), answers=beside, direct=beside)


def informed(question: str, knowledge: str = "") -> str:
    """The question after the knowledge, where there is some."""
    return f"{knowledge}\n{question}" if knowledge else question


def views(example: Example) -> list[Example] | None:
    """The three tasks of an example; None where it has no chain of thought."""
    if isinstance(example, Pair) and example.rationale:
        known, whole = informed(example.prompt, example.knowledge), f"{example.rationale} {example.completion}"
        return [Pair(known, whole), Pair(ANSWER + known, example.completion), Pair(example.prompt, whole)]
    if isinstance(example, Chat) and example.rationale:
        answer = str(example.messages[-1]["content"])
        whole = f"{example.rationale} {answer}"
        ways: list[tuple[Callable[[str], str], str]] = [
            (lambda question: informed(question, example.knowledge), whole),
            (lambda question: ANSWER + informed(question, example.knowledge), answer),
            (lambda question: question, whole),
        ]
        found = [asked_otherwise(example, question, said) for question, said in ways]
        return None if None in found else [chat for chat in found if chat is not None]
    return None


def lessons(
    questions: Sequence[str],
    answered: Callable[[Sequence[str]], Sequence[str]],
    right: Callable[[int, str], bool],
    write: Callable[[int, str], str],
) -> list[str]:
    """What is to be known for each question, empty where the student needs nothing.

    Args:
      answered: what the student says to questions.
      right: whether an answer to the question of that number is right.
      write: what the teacher writes about the question of that number and the student's wrong answer.
    """
    said = answered(questions)
    return ["" if right(i, text) else write(i, text) for i, text in enumerate(said)]


def recalled(base: KnowledgeBase, questions: Sequence[str], count: int = 1) -> list[str]:
    """Questions after the knowledge that is found for them."""
    found = base.find(questions, count)
    return [
        informed(q, " ".join(hit.entry.knowledge for hit in hits)) for q, hits in zip(questions, found, strict=True)
    ]


METHOD = Method(
    "nesycd", "Chains of thought in the weights, knowledge for what the first student got wrong beside them",
    "arXiv 2409.13203", losses, reads=("weight",), defaults={"weight": 0.5}, stage=tasks_together, views=views,
    own=TASKS,
)  # fmt: skip
