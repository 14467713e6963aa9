"""ERNIE-Tiny: teacher, data and objective become those of the task one after the other (arXiv 2106.02241).

| stage | teacher | data | objective |
|---|---|---|---|
| GD, general distillation | pre-trained | general text | latent |
| GED, general-enhanced distillation | of the task | general text | latent |
| TAD, task-adaptive distillation | of the task | of the task | latent |
| TSD, task-specific distillation | of the task | of the task | latent, soft label, hard label |

The latent loss is TinyBERT's (arXiv 1909.10351): squared differences of attention scores before softmax and, through
one projection that all stages go on learning, of hidden states, over layers that are shared out evenly. The paper's
abstract gives neither its form nor the weights: all are 1 here. Each stage has a learning-rate schedule and an
optimiser of its own. The soft label's loss is a divergence: the teacher's entropy, which it lacks, has no gradient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill.core.errors import DistillError
from distill.core.mixture import Mixture
from distill.core.objectives.base import RowsAndTokens
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.features import AttentionMatching, HiddenStateMatching, uniform_layers
from distill.core.tables import Epochs
from distill.language.inner import InnerStudent, inner_teacher
from distill.language.models import layers_and_width
from distill.language.student import Next
from distill.methods.method import ClassMaterial, Losses, Method, MethodOptions, Pass, Stage

LATENT = ("attention", "hidden")
SIGNALS: Mapping[str, str] = {"attention": "attention", "hidden": "hidden", "soft": "logits"}
"""Loss -> what it asks of the teacher; hard labels ask nothing."""


@dataclass(frozen=True)
class Kind:
    """What a stage learns from whom."""

    pretrained: bool
    """Whether its teacher is the one that has not learned the task."""
    general: bool
    losses: tuple[str, ...]


STAGES: Mapping[str, Kind] = {
    "GD": Kind(True, True, LATENT), "GED": Kind(False, True, LATENT), "TAD": Kind(False, False, LATENT),
    "TSD": Kind(False, False, (*LATENT, "soft", "labels")),
}  # fmt: skip


def losses(student: tuple[int, int], teacher: tuple[int, int], options: MethodOptions) -> Losses:
    """All losses, for models of (layers, width). Raises `DistillError` where layers cannot be shared out evenly."""
    states = uniform_layers(student[0], teacher[0])
    maps = {ours - 1: theirs - 1 for ours, theirs in states.items() if ours}
    widths = None if student[1] == teacher[1] else (student[1], teacher[1])
    return {
        "attention": (1.0, AttentionMatching(maps, "mse")),
        "hidden": (1.0, HiddenStateMatching(states, widths)),
        "soft": (1.0, ForwardKL(temperature=options.temperature)),
        "labels": (1.0, CrossEntropy()),
    }


def passes(
    material: ClassMaterial, options: MethodOptions, plan: Sequence[tuple[str, Kind, float]] | None = None
) -> list[Pass]:
    """The stages of a plan of names, kinds and shares of the steps; by default the four, evenly.

    Raises:
      DistillError: models or text that a stage needs are missing, or models that do not fit together.
    """
    plan = plan or [(name, kind, 1 / len(STAGES)) for name, kind in STAGES.items()]
    every = losses(layers_and_width(material.student), layers_and_width(material.teacher), options)
    if material.pretrained is not None and layers_and_width(material.pretrained) != layers_and_width(material.teacher):
        raise DistillError("the teacher and the model that it was before must be of one size")
    found: list[Pass] = []
    for name, kind, share in plan:
        model = material.pretrained if kind.pretrained else material.teacher
        collectors = material.general if kind.general else material.task
        if model is None or not collectors:
            raise DistillError(f"the stage {name} needs {'a pre-trained teacher' if model is None else 'its text'}")
        parts = {part: every[part] for part in kind.losses}
        asked = {part: SIGNALS[part] for part in parts if part in SIGNALS}
        hard = {"labels": Next("label")} if "labels" in parts else {}
        stage = Stage(
            InnerStudent(material.student, material.inputs), RowsAndTokens(parts, ("soft", "labels")),
            inner_teacher(model, material.inputs, asked, hard, material.order), collectors, Epochs(),
            Mixture([collector.name for collector in collectors], 0.0),
        )  # fmt: skip
        found.append(Pass(name, stage, share))
    return found


METHOD = Method(
    "ernie_tiny", "Teacher, data and objective become those of the task one after the other", "arXiv 2106.02241",
    losses=lambda options: {"soft": (1.0, ForwardKL()), "labels": (1.0, CrossEntropy())}, reads=("temperature",),
    passes=passes, takes=("pretrained", "general"),
)  # fmt: skip
