"""Squared error between probabilities, the loss of self-distillation with ground truth (arXiv 2102.13088)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from distill.core.objectives.divergences import CrossEntropy, ForwardKL, TokenObjective
from distill.core.signals import DenseLogits, SampledLogProbs


@dataclass(frozen=True)
class ProbabilityMSE(TokenObjective):
    """mean over classes of (softmax(z_S) - target)^2, torch's `mse_loss`; the Brier score is V times that.

    The target is the teacher's softmax, or one-hot for labels. With weight alpha on the labels, as the paper has it:

        WeightedSum({"labels": (alpha, ProbabilityMSE()), "teacher": (1 - alpha, ProbabilityMSE())})
    """

    accepts = (DenseLogits, SampledLogProbs)

    def shape(self, signal: DenseLogits | SampledLogProbs, vocabulary: int) -> torch.Size:
        """`[...]`."""
        if isinstance(signal, SampledLogProbs):
            return CrossEntropy().shape(signal, vocabulary)
        return ForwardKL().shape(signal, vocabulary)

    def token_losses(self, logits: Tensor, signal: DenseLogits | SampledLogProbs) -> Tensor:
        """`[n]`."""
        ours = logits.softmax(-1)
        if isinstance(signal, SampledLogProbs):
            one = torch.ones_like(signal.tokens, dtype=ours.dtype)[:, None]
            return ours.scatter_add(-1, signal.tokens[:, None], -one).square().mean(-1)
        return (ours - signal.logits.to(ours.dtype).softmax(-1)).square().mean(-1)
