"""What methods about models that see share: rows with a mask for each loss, and what the loop is given for a stage."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from distill.core.collect import Collector, Student
from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, OwnMasks
from distill.core.signals import DenseLogits
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import OneModel, Teachers
from distill.language.models import Read
from distill.language.student import Next
from distill.methods.method import Losses

Given = tuple[Student, Objective, Teachers, Sequence[Collector]]
"""What `distill.core.fit.fit` is given for one stage."""


def picture_rows(tokens: np.ndarray, images: np.ndarray, masks: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Rows of `tokens` `[N, ..., T + 1]`, `images` `[N, 3, H, W]` and what counts for each loss, `[N, ..., T]` each.

    `images` may be numbers `[N]` by which `read` finds them.

    Raises `DistillError` where nothing counts for the first of them.
    """
    if not masks[0].any():
        raise DistillError("no token of these rows is part of a response")
    images = images if images.ndim == 1 else images.astype(np.float32)
    return {"tokens": tokens, "target": tokens[..., 1:], "image": images, "mask": np.stack(masks, 1)}


def stage(
    learner: Student, teacher: Any, table: Rows, losses: Losses, order: Sequence[str], read: Read,
    own: Collection[str] = ("labels",), held_out: Rows | None = None,
) -> Given:  # fmt: skip
    """One stage of `losses` whose masks stand in that `order` in the table; those not in `own` ask the `teacher`.

    Raises:
      DistillError: a loss that asks a teacher where there is none.
    """
    asked = [name for name in losses if name not in own]
    if asked and teacher is None:
        raise DistillError(f"the losses {', '.join(asked)} need a teacher")

    def signals(model: Any, batch: Any) -> dict[str, Any]:
        logits = DenseLogits(read(model, batch))
        return dict.fromkeys(asked, logits)

    labels = {name: Next("target") for name in losses if name in own}
    kinds = dict.fromkeys(asked, DenseLogits)
    teachers = OneModel(teacher, signals, kinds, "what is seen and said", labels) if asked else Teachers(labels)
    domain: list[Collector] = [FixedDomain("images", table, held_out)]
    return learner, OwnMasks(losses, order), teachers, domain
