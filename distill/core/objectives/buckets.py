"""Divergences where the teacher told its K likeliest tokens and no more: those, and all others as one class."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective
from distill.core.objectives.divergences import (
    FLOOR,
    CrossEntropy,
    Divergence,
    ForwardKL,
    TokenObjective,
    TopKKL,
    log_probabilities,
)
from distill.core.signals import TeacherSignal, TopKLogits


@dataclass(frozen=True)
class Bucketed(TokenObjective):
    """Any `Divergence` between two distributions over the teacher's K tokens and one bucket for all others.

    Merging tokens never adds to an f-divergence (data processing): the loss is at least 0, at most the divergence of
    the whole distributions, and equal to it where K is the vocabulary or one less.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (TopKLogits,)
    divergence: Divergence = ForwardKL()

    def token_losses(self, logits: Tensor, signal: TopKLogits) -> Tensor:
        """`[n]`. Raises `DistillError` where the signal was made at another temperature than the divergence's."""
        temperature = self.divergence.temperature
        if signal.temperature != temperature:
            raise DistillError(f"the teacher's likeliest tokens are at temperature {signal.temperature:g}, the loss "
                               f"wants {temperature:g}")  # fmt: skip
        log_q = log_probabilities(logits / temperature)
        others = log_q.scatter(-1, signal.indices, FLOOR).logsumexp(-1, keepdim=True)
        student = torch.cat([log_q.gather(-1, signal.indices), others], -1)
        teacher = torch.cat([signal.log_probs.to(logits.dtype), signal.tail.to(logits.dtype)[:, None]], -1)
        losses = self.divergence.between(log_probabilities(teacher), log_probabilities(student))
        return losses * temperature**2 if self.divergence.scale_by_temperature else losses

    def shape(self, signal: TopKLogits, vocabulary: int) -> torch.Size:
        """`[...]`."""
        return TopKKL().shape(signal, vocabulary)


def bucketed(objective: Objective) -> Objective:
    """The objective for `TopKLogits`; those that take no divergence of a teacher's stay as they are.

    Raises:
      DistillError: one that needs all of the teacher's logits.
    """
    if isinstance(objective, Bucketed | TopKKL | CrossEntropy):
        return objective
    if not isinstance(objective, Divergence):
        raise DistillError(f"{type(objective).__name__} needs all of the teacher's logits, not its likeliest tokens")
    return Bucketed(objective, chunk_size=objective.chunk_size)
