"""More divergences between teacher p and student q, and a register of all by name.

    TotalVariation   1/2 sum |p - q|                                         arXiv 2307.15190
    SymmetricKL      (1 - w) KL(p || q) + w KL(q || p)                       DistiLLM, arXiv 2402.03898
    AlphaDivergence  (sum p^a q^(1-a) - 1) / (a (a - 1))                     Amari; towards 1 and 0 the two KL
    AdaptiveKL       forward KL where p's head is missed, reverse where its tail is    arXiv 2404.02657

**p is always the teacher.** Other codes call the student p, swap the names of the two directions, or give the student's
weight as the parameter of a mixture.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput, choice
from distill.core.objectives.divergences import (
    Divergence,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewForwardKL,
    SkewReverseKL,
)
from distill.core.signals import DenseLogits


@dataclass(frozen=True)
class TotalVariation(Divergence):
    """1/2 sum |p - q|, from 0 to 1, symmetric; its gradient does not grow where the models differ more."""

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


@dataclass(frozen=True)
class SymmetricKL(Divergence):
    """(1 - w) KL(p || q) + w KL(q || p); at w = 0 and 1 it is `ForwardKL` and `ReverseKL`."""

    weight: float = 0.9
    """w, the share of the reverse direction; the default is that of DistiLLM's code."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _share("weight", self.weight)

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        forward, reverse = ForwardKL().between(log_p, log_q), ReverseKL().between(log_p, log_q)
        return (1 - self.weight) * forward + self.weight * reverse


@dataclass(frozen=True)
class AlphaDivergence(Divergence):
    """(sum p^a q^(1-a) - 1) / (a (a - 1)) for 0 < a < 1: bounded by 1 / (a (1 - a)), whatever the models rule out.

    a -> 1 is the forward KL and a -> 0 the reverse one; a = 1/2 is four times (1 - sum of sqrt(p q)), the squared
    Hellinger distance up to that factor, and symmetric.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise DistillError(
                f"alpha must lie between 0 and 1, got {self.alpha}; at the ends take ReverseKL or ForwardKL"
            )

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        a = self.alpha
        log_mean = torch.logsumexp(a * log_p + (1 - a) * log_q, -1)
        return -torch.expm1(log_mean) / (a * (1 - a))


@dataclass(frozen=True)
class AdaptiveKL(Divergence):
    """w KL(p || q) + (1 - w) KL(q || p), with w = g_head / (g_head + g_tail) at each position (arXiv 2404.02657).

    The head are the teacher's likeliest tokens up to `head` of its probability, the least set that reaches it; g sums
    |p - q| over the head, and over the other tokens. w has no gradient. At equality w is 1/2.
    """

    head: float = 0.5
    """Probability of the head, above 0 and below 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.head < 1:
            raise DistillError(f"head must lie between 0 and 1, got {self.head}")

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        with torch.no_grad():
            p, order = log_p.exp().sort(-1, descending=True)
            gap = (p - log_q.exp().gather(-1, order)).abs()
            before = p.cumsum(-1) - p  # probability of the tokens likelier than each
            total, head = gap.sum(-1), torch.where(before < self.head, gap, 0).sum(-1)
            forward = torch.where(total > 0, head / torch.where(total > 0, total, 1), 0.5)
        return forward * ForwardKL().between(log_p, log_q) + (1 - forward) * ReverseKL().between(log_p, log_q)


DIVERGENCES: dict[str, type[Divergence]] = {
    "forward-kl": ForwardKL,
    "reverse-kl": ReverseKL,
    "jensen-shannon": JensenShannon,
    "skew-forward-kl": SkewForwardKL,
    "skew-reverse-kl": SkewReverseKL,
    "total-variation": TotalVariation,
    "symmetric-kl": SymmetricKL,
    "alpha": AlphaDivergence,
    "adaptive-kl": AdaptiveKL,
}
"""Every divergence of full distributions, by the name that configurations use."""


def divergence(name: str, **values: Any) -> Divergence:
    """The divergence of that name with its settings, such as `divergence("jensen-shannon", beta=0.1)`.

    Raises `DistillError` for unknown names and settings.
    """
    choice("divergence", name, tuple(DIVERGENCES))
    known = [f.name for f in fields(DIVERGENCES[name])]
    for key in values:
        choice(f"setting of {name}", key, tuple(known))
    return DIVERGENCES[name](**values)


def generalised_jsd(beta: float, **values: Any) -> Divergence:
    """GKD's family over 0 <= beta <= 1 (arXiv 2306.13649): `ForwardKL` at 0, `ReverseKL` at 1, else `JensenShannon`.

    The ends are not limits of the values between, which tend to 0 there, but of JSD / beta and JSD / (1 - beta).
    """
    _share("beta", beta)
    if beta in (0, 1):
        return (ReverseKL if beta else ForwardKL)(**values)
    return JensenShannon(beta=beta, **values)


def token_values(objective: Divergence, teacher: Tensor, student: Tensor, mask: Tensor | None = None) -> Tensor:
    """Values `[...]` of every position, of logits `[..., V]`; 0 where `mask` `[...]` is False, which is never read."""
    every = torch.ones(student.shape[:-1], dtype=torch.bool, device=student.device) if mask is None else mask
    output, signal = StudentOutput(logits=student), DenseLogits(teacher)
    _, shape = objective.elements(output, signal)
    if every.shape != shape:
        raise DistillError(f"mask must have the elements' shape {list(shape)}, got {list(every.shape)}")
    rows = every.flatten().nonzero().squeeze(-1)
    values = objective.losses(output, signal, rows, mask)
    return values.new_zeros(every.numel()).index_copy(0, rows, values).reshape(shape)


def _share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise DistillError(f"{name} must be from 0 to 1, got {value}")
