"""Hidden states beside logits, block by block (as TinyBERT's, arXiv 1909.10351, for models that write).

Each of the student's blocks learns what the teacher's block at the same share of its depth puts out, by the mean
squared difference, through one learned linear map where the models' widths differ. The map is not part of the student.
"""

from typing import Any

from distill.core.objectives.base import WeightedSum
from distill.core.objectives.features import HiddenStateMatching
from distill.core.tables import Epochs, FixedDomain
from distill.language.models import layers_and_width
from distill.language.states import STATES, StatefulStudent, stateful_teacher
from distill.language.student import Next, read_in_parts
from distill.methods.kd.method import losses
from distill.methods.method import Material, Method, MethodOptions, Stage, by_size, learner


def blocks(student: int, teacher: int) -> dict[int, int]:
    """Student's block -> the teacher's at the same share of the depth; places in tuples that begin with embeddings."""
    return {m: max(round(m * teacher / student), 1) for m in range(1, student + 1)}


def states(student: Any, teacher: Any) -> HiddenStateMatching:
    """The loss on the blocks of two causal models. Raises `DistillError` where a config does not say their sizes."""
    ours, theirs = layers_and_width(student), layers_and_width(teacher)
    widths = None if ours[1] == theirs[1] else (ours[1], theirs[1])
    return HiddenStateMatching(blocks(ours[0], theirs[0]), widths)


def stage(method: Method, material: Material, options: MethodOptions) -> Stage:
    """One pass of each model a step, for logits and states."""
    size = material.writing.vocabulary
    named = method.losses(options)
    if options.weight:
        named = {**named, STATES: (options.weight, states(material.student, material.teacher))}
    parts = [name for name in named if name != "labels"]
    hard = {"labels": Next()} if "labels" in named else {}
    return Stage(
        StatefulStudent(learner(material), size), WeightedSum(named),
        stateful_teacher(read_in_parts(material.teacher, size), size, parts, hard),
        [FixedDomain(domain.name, domain.rows, domain.held_out) for domain in material.domains], Epochs(),
        by_size(material),
    )  # fmt: skip


METHOD = Method(
    "hidden_states", "Knowledge distillation with hidden states", "arXiv 1909.10351", losses,
    reads=("alpha", "temperature", "weight"), defaults={"weight": 1.0}, stage=stage, inside=True,
)  # fmt: skip
