"""Losses on whole answers that are ordered by preference (survey arXiv 2402.13116: ranking and reward models).

Pure functions of sequence log-probabilities or rewards; mean over the batch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import positive


def reward_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """-log sigmoid(r(x, y_w) - r(x, y_l)) of a reward model's values `[B]` for the preferred and the other answer."""
    _alike(preferred, other)
    return -F.logsigmoid(preferred - other).mean()


def dpo_loss(
    preferred: Tensor, other: Tensor, reference_preferred: Tensor, reference_other: Tensor, beta: float = 0.1
) -> Tensor:
    """-log sigmoid(beta (log pi/pi_ref of the preferred - log pi/pi_ref of the other)) (DPO, arXiv 2305.18290).

    Each `[B]`, log-probabilities of whole answers under the student and under the frozen reference model.
    """
    positive("beta", beta)
    for tensor in (other, reference_preferred, reference_other):
        _alike(preferred, tensor)
    margins = (preferred - reference_preferred.detach()) - (other - reference_other.detach())
    return -F.logsigmoid(beta * margins).mean()


def rrhf_loss(log_probs: Tensor, rewards: Tensor) -> Tensor:
    """Sum over pairs with r_i < r_j of max(0, p_i - p_j) (RRHF, arXiv 2304.05302), of K answers to each prompt.

    `log_probs` `[B, K]`, as a rule per token (RRHF divides by the length); `rewards` `[B, K]`.

    Equal rewards do not count.
    """
    _alike(log_probs, rewards, least_dims=2)
    worse = rewards[..., :, None] < rewards[..., None, :]
    excess = (log_probs[..., :, None] - log_probs[..., None, :]).clamp(min=0)
    return torch.where(worse, excess, 0).sum((-2, -1)).mean()


def pro_loss(log_probs: Tensor) -> Tensor:
    """-sum over k of log(exp p_k / sum over i >= k of exp p_i) (PRO, arXiv 2306.17492).

    `log_probs` `[B, K]` of answers, the best first: how likely that order is (Plackett and Luce).
    """
    _alike(log_probs, log_probs, least_dims=2)
    rest = log_probs.flip(-1).logcumsumexp(-1).flip(-1)
    return (rest - log_probs).sum(-1).mean()


def _alike(one: Tensor, other: Tensor, least_dims: int = 1) -> None:
    if one.shape != other.shape or one.ndim < least_dims or not one.numel():
        raise DistillError(
            f"a ranking needs values of one shape with at least {least_dims} dimensions, "
            f"got {list(one.shape)} and {list(other.shape)}"
        )
