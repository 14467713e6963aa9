"""LLaVA-KD: a small model that sees learns from a large one in three stages (arXiv 2410.16236).

| stage | data | what learns | losses |
|---|---|---|---|
| DPT, distilled pre-training | captions | projector | labels, responses, visual, relation |
| SFT, fine-tuning | instructions | projector and language model | labels |
| DFT, distilled fine-tuning | instructions | projector and language model | labels, responses, visual, relation |

`responses` and `visual` are KL(teacher || student) where the response is due and at the image's tokens, where the
model emits a distribution although no word is due; `relation` compares how the outputs at the image's tokens lie to
each other. The formulas sum over positions and the published code averages: here all are means, so that weights do not
depend on the number of patches. Y of `relation` are logits; the published text does not settle it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.core.collect import Collector, Student
from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, OwnMasks
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.gram import GramMatching
from distill.core.signals import DenseLogits
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import OneModel, Teachers
from distill.language.models import Read
from distill.language.student import ModelStudent, Next
from distill.language.vision import train_only
from distill.methods.method import Losses, MethodOptions, weighed

PARTS = ("labels", "responses", "visual", "relation")
"""Losses in the order of the masks `[B, 4, T]`: responses count for the first two, image tokens for the others."""


@dataclass(frozen=True)
class Kind:
    """What a stage learns, and what learns in it."""

    captions: bool
    distilled: bool
    language: bool
    """Whether the language model learns beside the projector."""


STAGES: Mapping[str, Kind] = {
    "PT": Kind(True, False, False), "DPT": Kind(True, True, False), "SFT": Kind(False, False, True),
    "DFT": Kind(False, True, True),
}  # fmt: skip
"""The method's own, and plain pre-training, which controls begin with."""
METHOD_STAGES = ("DPT", "SFT", "DFT")


def losses(options: MethodOptions, responses: float = 1.0, visual: float = 1.0, relation: float = 0.5) -> Losses:
    """All losses of a distilled stage by their weights."""
    kl = ForwardKL(temperature=options.temperature)
    return weighed(
        labels=(1.0, CrossEntropy()), responses=(responses, kl), visual=(visual, kl),
        relation=(relation, GramMatching()),
    )  # fmt: skip


def rows(tokens: np.ndarray, images: np.ndarray, responses: np.ndarray, image_token: int) -> dict[str, np.ndarray]:
    """Rows of a stage from `tokens` `[N, T + 1]`, `images` `[N, 3, H, W]` and `responses` `[N, T + 1]`, which says
    which tokens are part of a response. Raises `DistillError` where none is."""
    asked = responses[:, 1:].astype(bool)
    if not asked.any():
        raise DistillError("no token of these rows is part of a response")
    seen = tokens[:, :-1] == image_token
    mask = np.stack([asked, asked, seen, seen], 1)
    return {"tokens": tokens, "target": tokens[:, 1:], "image": images.astype(np.float32), "mask": mask}


def parts(
    student: Any, teacher: Any, table: Rows, parts_: Losses, read: Read, held_out: Rows | None = None
) -> tuple[Student, Objective, Teachers, Sequence[Collector]]:
    """What `distill.core.fit.fit` is given for one stage; `table` as `rows` makes it, `read` of both models."""
    asked = [name for name in parts_ if name != "labels"]
    if asked and teacher is None:
        raise DistillError(f"the losses {', '.join(asked)} need a teacher")

    def signals(model: Any, batch: Any) -> dict[str, Any]:
        logits = DenseLogits(read(model, batch))
        return dict.fromkeys(asked, logits)

    labels = {"labels": Next("target")} if "labels" in parts_ else {}
    kinds = dict.fromkeys(asked, DenseLogits)
    teachers = OneModel(teacher, signals, kinds, "what is seen and said", labels) if asked else Teachers(labels)
    domain: list[Collector] = [FixedDomain("images", table, held_out)]
    return ModelStudent(student, read), OwnMasks(parts_, PARTS), teachers, domain


def stages(
    student: Any,
    teacher: Any,
    captions: Rows,
    instructions: Rows,
    read: Read,
    plan: Sequence[str] = METHOD_STAGES,
    distilled: Losses | None = None,
) -> Iterator[tuple[str, tuple[Student, Objective, Teachers, Sequence[Collector]]]]:
    """The stages of a plan, one after the other: its name and what `distill.core.fit.fit` is given.

    What learns in a stage is freed when it is asked for, so each must be trained before the next is.
    """
    every = losses(MethodOptions()) if distilled is None else distilled
    for name in plan:
        kind = STAGES[name]
        train_only(student, kind.language)
        part = every if kind.distilled else {"labels": (1.0, CrossEntropy())}
        yield name, parts(student, teacher, captions if kind.captions else instructions, part, read)
