"""Two views of the same rows told apart from those of other rows: InfoNCE in both directions (arXiv 1807.03748)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, positive
from distill.core.signals import SampledLogProbs, TeacherSignal


@dataclass(frozen=True)
class Contrast(Objective):
    """-log softmax of the cosine with a row's partner among the cosines with all rows, plus the same the other way.

    The views are two of the student's hidden layers, `[B, D]` each; the signal says which row of the second is a row's
    partner, `[B]`, each once. Every row is in the sum over others, whether it counts or not.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (SampledLogProbs,)
    first: int = -2
    """Place of a layer in the student's hidden states."""
    second: int = -1
    temperature: float = 1.0
    """Cosines are divided by it."""

    def __post_init__(self) -> None:
        positive("temperature", self.temperature)

    def elements(self, student: StudentOutput, signal: SampledLogProbs) -> tuple[Tensor, torch.Size]:
        """The first view, and the rows `[B]`."""
        hidden = student.need("hidden", self)
        ours, theirs = hidden[self.first], hidden[self.second]
        if ours.ndim != 2 or ours.shape != theirs.shape or signal.tokens.shape != ours.shape[:1]:
            shapes = list(ours.shape), list(theirs.shape), list(signal.tokens.shape)
            raise DistillError(f"views [B, D] of one shape and partners [B] are contrasted, got {shapes}")
        if not torch.equal(signal.tokens.sort().values, torch.arange(len(ours), device=signal.tokens.device)):
            raise DistillError("each row must be the partner of one row")
        return ours, ours.shape[:1]

    def losses(self, student: StudentOutput, signal: SampledLogProbs, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        assert student.hidden is not None
        ours, theirs = student.hidden[self.first], student.hidden[self.second][signal.tokens]
        cosines = F.normalize(ours, dim=-1) @ F.normalize(theirs, dim=-1).T / self.temperature
        both = cosines.log_softmax(1) + cosines.log_softmax(0)
        return -both.diagonal()[rows]


class SameRow:
    """Each row is its own partner."""

    kind = SampledLogProbs

    def label(self, batch: dict[str, Tensor]) -> SampledLogProbs:
        """`[B]`."""
        first = next(iter(batch.values()))
        return SampledLogProbs.labels(torch.arange(len(first), device=first.device))

    def fingerprint(self) -> str:
        """Nothing but the place in a batch decides the labels."""
        return "05"
