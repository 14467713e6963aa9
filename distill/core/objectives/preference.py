"""Losses on pairs of answers of which one is better: DPO, and a form of KTO on pairs, against any reference model.

With d = log p_student(y | x) - log p_reference(y | x), sums over the tokens of an answer that count, of the better
answer (+) and the worse one (-):

    DirectPreference   -log sigmoid(b (d+ - d-))                                        arXiv 2305.18290, equation 7
    PairedKto          1 - sigmoid(b (d+ - max(0, mean d-))), 1 - sigmoid(b (max(0, mean d+) - d-))
                                                          arXiv 2402.01306 on pairs, as LLaVA-MoD's code has it

The reference may be the student as it was, or a stronger teacher (LLaVA-MoD, arXiv 2408.15881). Where it is much
stronger, d begins far below 0 and the sigmoids are flat: lower `beta`.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, positive
from distill.core.precision import wide
from distill.core.signals import SampledLogProbs, TeacherSignal


@dataclass(frozen=True)
class Preference(Objective):
    """Of logits `[B, 2, T, V]`, the better answer first, and the reference's log-probabilities of tokens `[B, 2, T]`.

    The mask `[B, 2, T]` says which tokens are of an answer; weights `[B]` are of pairs.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (SampledLogProbs,)
    beta: float = 0.1
    """How fast a gain against the reference counts."""

    def __post_init__(self) -> None:
        positive("beta", self.beta)

    def __call__(
        self, student: StudentOutput, signal: Any, mask: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """The mean over pairs. Raises `DistillError` for shapes that do not fit, and without a mask."""
        self.require(signal.__class__)
        logits, shape = self.elements(student, signal)
        if mask is None or mask.shape != signal.tokens.shape or mask.dtype != torch.bool:
            raise DistillError(f"pairs of answers need a boolean mask of their tokens {list(signal.tokens.shape)}")
        if weights is not None and weights.shape != shape:
            raise DistillError(f"weights must be of pairs {list(shape)}, got {list(weights.shape)}")
        logits = wide(logits)
        own = logits.log_softmax(-1).gather(-1, signal.tokens[..., None]).squeeze(-1)
        gains = torch.where(mask, own - signal.log_probs.to(own.dtype), 0).sum(-1)
        losses = self.of_gains(gains[:, 0], gains[:, 1])
        if weights is None:
            return losses.mean()
        total = weights.sum().to(losses.dtype)
        return (losses * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))

    @abstractmethod
    def of_gains(self, better: Tensor, worse: Tensor) -> Tensor:
        """Loss of each pair `[B]`, of what the student gives both answers beyond the reference, `[B]` each."""

    def elements(self, student: StudentOutput, signal: SampledLogProbs) -> tuple[Tensor, torch.Size]:
        """The logits, and the pairs `[B]`."""
        logits = student.need("logits", self)
        if logits.ndim != 4 or logits.shape[:3] != signal.tokens.shape or logits.shape[1] != 2:
            shapes = list(logits.shape), list(signal.tokens.shape)
            raise DistillError(f"logits [B, 2, T, V] and tokens [B, 2, T] of pairs are wanted, got {shapes}")
        return logits, logits.shape[:1]

    def losses(self, student: StudentOutput, signal: Any, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Not defined: what counts are tokens, what is averaged are pairs."""
        raise DistillError("preferences are about pairs of answers, not about their tokens")


@dataclass(frozen=True)
class DirectPreference(Preference):
    """DPO."""

    def of_gains(self, better: Tensor, worse: Tensor) -> Tensor:
        """`[B]`."""
        return -F.logsigmoid(self.beta * (better - worse))


@dataclass(frozen=True)
class PairedKto(Preference):
    """KTO whose estimates of the divergence are batch means over the answers of the other kind."""

    through: bool = True
    """Whether gradients pass through those means, as in LLaVA-MoD's code; KTO's own stops them."""

    def of_gains(self, better: Tensor, worse: Tensor) -> Tensor:
        """`[B]`, the mean of both answers' losses."""
        means = [gains.mean().clamp(min=0) for gains in (better, worse)]
        means = means if self.through else [mean.detach() for mean in means]
        up, down = torch.sigmoid(self.beta * (better - means[1])), torch.sigmoid(self.beta * (means[0] - worse))
        return 1 - (up + down) / 2
