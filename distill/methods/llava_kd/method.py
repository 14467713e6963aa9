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

from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.gram import GramMatching
from distill.core.tables import Rows
from distill.language.models import Read
from distill.language.student import ModelStudent
from distill.language.vision import train_only
from distill.methods.method import Losses, MethodOptions, weighed
from distill.methods.pictures import Given, picture_rows, stage

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
    asked, seen = responses[:, 1:].astype(bool), tokens[:, :-1] == image_token
    return picture_rows(tokens, images, [asked, asked, seen, seen])


def parts(student: Any, teacher: Any, table: Rows, parts_: Losses, read: Read, held_out: Rows | None = None) -> Given:
    """What `distill.core.fit.fit` is given for one stage; `table` as `rows` makes it, `read` of both models."""
    return stage(ModelStudent(student, read), teacher, table, parts_, PARTS, read, held_out=held_out)


def stages(
    student: Any,
    teacher: Any,
    captions: Rows,
    instructions: Rows,
    read: Read,
    plan: Sequence[str] = METHOD_STAGES,
    distilled: Losses | None = None,
    held_out: tuple[Rows, Rows] | None = None,
) -> Iterator[tuple[str, Given]]:
    """The stages of a plan, one after the other: its name and what `distill.core.fit.fit` is given.

    What learns in a stage is freed when it is asked for, so each must be trained before the next is. `held_out` are
    captions and instructions that are never trained on.
    """
    every = losses(MethodOptions()) if distilled is None else distilled
    for name in plan:
        kind = STAGES[name]
        train_only(student, kind.language)
        part = every if kind.distilled else {"labels": (1.0, CrossEntropy())}
        table, held = captions if kind.captions else instructions, held_out and held_out[not kind.captions]
        yield name, parts(student, teacher, table, part, read, held or None)
