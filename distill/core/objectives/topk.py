"""What FIRST does with a teacher's K likeliest tokens before they are matched (arXiv 2408.12168).

The matching itself is `TopKKL`: with `tail="bucket"` the tokens outside the head are one more class (here with a target
of 0, which holds the student's tail down), with `tail="drop"` both heads are normalised alone, as the paper has it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import positive
from distill.core.objectives.divergences import FLOOR, TopKKL
from distill.core.precision import wide
from distill.core.signals import TopKLogits


@dataclass(frozen=True)
class TopKCrossEntropy(TopKKL):
    """-sum over the head and the bucket of p log q, in the direction forward: `TopKKL` plus the teacher's entropy.

    The entropy has no gradient; with it the loss is comparable with a hard-label cross-entropy.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.direction != "forward":
            raise DistillError(f"a cross-entropy has the direction forward, got {self.direction!r}")

    def token_losses(self, logits: Tensor, signal: TopKLogits) -> Tensor:
        """`[n]`."""
        teacher = signal.log_probs.to(logits.dtype)
        if self.tail == "bucket":
            teacher = torch.cat([teacher, signal.tail.to(logits.dtype)[:, None]], -1)
        log_p = teacher.log_softmax(-1).clamp(min=FLOOR)
        return super().token_losses(logits, signal) - (log_p.exp() * log_p).sum(-1)


def trustworthy(signal: TopKLogits, scale: float) -> TopKLogits:
    """Trustworthy maximisation: P(i) = exp(p_i / c) / sum over the head of exp(p_j / c), nothing left for the tail.

    *Probabilities*, not logits, are divided by c = `scale`: small c sharpens the head, large c makes it uniform.
    """
    positive("scale", scale)
    head = (wide(signal.log_probs).exp() / scale).log_softmax(-1)
    return TopKLogits(head, signal.indices, torch.full_like(head[..., 0], -torch.inf), signal.temperature)


def smoothed(signal: TopKLogits, share: float = 0.1) -> TopKLogits:
    """Label smoothing inside the head: `share` of the likeliest token's probability is spread evenly over the others.

    A baseline of FIRST; the tail keeps its probability. Raises `DistillError` for a head of one token.
    """
    k = signal.log_probs.shape[-1]
    if not 0 <= share <= 1 or k < 2:
        raise DistillError(f"smoothing moves a share from 0 to 1 among 2 tokens or more, got {share} among {k}")
    head = wide(signal.log_probs).exp()
    first = head.argmax(-1, keepdim=True)
    moved = share * head.gather(-1, first)
    spread = (head + moved / (k - 1)).scatter_add(-1, first, -moved * k / (k - 1))
    return TopKLogits(spread.log(), signal.indices, wide(signal.tail), signal.temperature)


def two_pass_search(measure: Callable[[float], float]) -> float:
    """The scale in (0, 1] with the least `measure` (calibration error on validation data): steps of 0.1, then 0.02.

    The second pass looks within 0.1 of the first one's best. The first of equals wins; values that are not finite never
    do. Raises `DistillError` where none is finite.
    """
    known: dict[float, float] = {}

    def best(scales: Iterable[float]) -> float:
        for scale in scales:
            if scale not in known:
                known[scale] = float(measure(scale))
        finite = {scale: value for scale, value in known.items() if value - value == 0}
        if not finite:
            raise DistillError("no scale has a finite calibration error")
        return min(finite, key=lambda scale: (finite[scale], scale))

    coarse = best(round(0.1 * i, 2) for i in range(1, 11))
    near = (round(coarse + 0.02 * i, 2) for i in range(-5, 6))
    return best(scale for scale in near if 0 < scale <= 1)


def kept_mass(signal: TopKLogits) -> Tensor:
    """The probability `[...]` that the head holds: FIRST's "concentrated knowledge"."""
    return wide(signal.log_probs).exp().sum(-1)
