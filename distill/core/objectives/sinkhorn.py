"""Sinkhorn distance between the output distributions of a whole batch (SinKD, arXiv 2402.17110)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput, positive
from distill.core.objectives.divergences import ForwardKL, VocabularyObjective
from distill.core.objectives.rows import student_logits, teacher_logits
from distill.core.signals import DenseLogits


def transport_plan(costs: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Entropic transport plan `[..., N, N]` of costs W `[..., N, N]`: exp(-W / epsilon), made doubly stochastic.

    `iterations` times, rows first, each divided by its sum; so columns sum to 1 exactly and rows nearly. In log space,
    where no epsilon underflows. Gradients flow through all iterations.
    """
    log_plan = -costs / epsilon
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(-1, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(-2, keepdim=True)
    return log_plan.exp()


@dataclass(frozen=True)
class SinkhornDistance(VocabularyObjective):
    """sum over i, j of G_ij W_ij, divided by N, with W_ij = ||p_S(i) - p_T(j)||_1 and G the transport plan of W.

    Elements are samples (or tokens): those that count form the batch, in their order. **The public code sums** over the
    batch; this is the mean per sample, so a published weight w is N w here. It alone matches the *set* of predictions,
    and does not see which sample got which: add cross-entropy or a KL. The distance is not 0 at equality for few
    classes. Weights weigh the rows' costs and leave the plan as it is.
    """

    accepts = (DenseLogits,)
    temperature: float = 2.0
    """Both models' logits are divided by it (fixed in the public code)."""
    epsilon: float = 0.1
    """Weight of the entropy; small: a plan near a permutation."""
    iterations: int = 20
    group: int | None = None
    """How many samples are compared with each other, neighbours first; None: all. 1 is the sample-wise control, where
    the loss is ||p_S - p_T||_1, twice the total variation. For tokens set it, as costs take N x N numbers."""
    classes: tuple[int, ...] | None = None
    """Only these tokens (a verbaliser's words), normalised over themselves; None: the vocabulary."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("temperature", self.temperature)
        positive("epsilon", self.epsilon)
        for name, value in (("iterations", self.iterations), ("group", self.group)):
            if value is not None and value < 1:
                raise DistillError(f"{name} must be at least 1, got {value}")
        if self.classes is not None and len(set(self.classes)) != len(self.classes) or self.classes == ():
            raise DistillError(f"classes must be different token ids, got {list(self.classes or ())}")

    def shape(self, signal: DenseLogits, vocabulary: int) -> torch.Size:
        """`[...]`."""
        if self.classes is not None and not 0 <= min(self.classes) <= max(self.classes) < vocabulary:
            raise DistillError(f"classes must lie in the vocabulary of {vocabulary}, got {list(self.classes)}")
        return ForwardKL().shape(signal, vocabulary)

    def token_losses(self, logits: Tensor, signal: DenseLogits) -> Tensor:
        """Costs `[n]` of one batch: student's logits `[n, V]` and teacher's signal `[n, V]`."""
        ours, theirs = self._probabilities(logits), self._probabilities(signal.logits.to(logits.dtype))
        size = self.group or max(1, len(ours))
        whole = len(ours) // size * size
        parts = [self._costs(*(p[:whole].reshape(-1, size, p.shape[-1]) for p in (ours, theirs)))]
        if whole < len(ours):
            parts.append(self._costs(ours[whole:][None], theirs[whole:][None]))
        return torch.cat([part.flatten() for part in parts])

    def losses(self, student: StudentOutput, signal: DenseLogits, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`: rows of the cost matrix, weighted by the plan."""
        logits = student_logits(student, rows)
        return self.token_losses(logits, DenseLogits(teacher_logits(signal.logits, rows, logits.dtype)))

    def _probabilities(self, logits: Tensor) -> Tensor:
        if self.classes is not None:
            logits = logits[..., list(self.classes)]
        return (logits / self.temperature).softmax(-1)

    def _costs(self, ours: Tensor, theirs: Tensor) -> Tensor:
        """`[G, N]` of groups `[G, N, C]`."""
        costs = torch.cdist(ours, theirs, p=1)
        return (transport_plan(costs, self.epsilon, self.iterations) * costs).sum(-1)
