"""Multi-granularity semantic revision (arXiv 2407.10068): corrected samples, DAC-KL on tokens, correlation in spans.

No public code is known, and the paper leaves points open; how they are filled in is said at each place.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput, positive
from distill.core.objectives.chunks import rows_at_once
from distill.core.objectives.divergences import ForwardKL, VocabularyObjective, log_probabilities
from distill.core.objectives.rows import in_chunks, student_logits, teacher_logits
from distill.core.signals import DenseLogits

NO_ERROR = -1
"""Place of the error in a sequence that has none."""


def error_positions(kl: Tensor, student_tokens: Tensor, teacher_tokens: Tensor, mask: Tensor) -> Tensor:
    """Where to correct each sequence, `[B]`: the position of the largest KL among those where the tokens differ.

    `kl` `[B, T]`, KL(teacher || student) of each position (`token_values`); `teacher_tokens` `[B, T]`, on
    the *student's* prefix; `mask` `[B, T]`, the sampled answer. `NO_ERROR` where no token differs, and the
    sample is kept as it is.
    """
    if not kl.shape == student_tokens.shape == teacher_tokens.shape == mask.shape:
        raise DistillError("KL, tokens of both models and mask must have one shape [B, T]")
    wrong = mask & (student_tokens != teacher_tokens)
    found = torch.where(wrong, kl.double(), -torch.inf).argmax(-1)
    return torch.where(wrong.any(-1), found, NO_ERROR)


def span_pairs(spans: Tensor, mask: Tensor | None = None) -> Tensor:
    """True `[..., T]` at position i where i and i + 1 lie in one span: the mask of `SpanCorrelation`.

    `spans` `[..., T]`, a number for each span from 0 up, negative outside of spans; `mask`, the positions that count.
    """
    inside = (spans >= 0) & (torch.ones_like(spans, dtype=torch.bool) if mask is None else mask)
    pairs = (spans[..., :-1] == spans[..., 1:]) & inside[..., :-1] & inside[..., 1:]
    return F.pad(pairs, (0, 1))


def fixed_spans(shape: tuple[int, ...], length: int, seed: int) -> Tensor:
    """Spans `[..., T]` of one length, each sequence with a random start: the control without linguistic phrases."""
    if length < 1:
        raise DistillError(f"spans need a length of at least 1, got {length}")
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(length, (*shape[:-1], 1), generator=generator)
    return (torch.arange(shape[-1]) + start) // length


@dataclass(frozen=True, eq=False)
class DistributionAdaptiveKL(VocabularyObjective):
    """KL(p' || q') over the part of the vocabulary that a small network picks at each position (DAC-KL).

    The network gives an upper quantile u and a lower one l <= u of the teacher's probabilities; with Q their values,

        m = sigmoid((p - Q_l) / softness) sigmoid((Q_u - p) / softness)
        p' = [m p without the target ; p_target],  q' the same places with the same m,  both normalised

    where the target is the teacher's likeliest token. It learns with the student, by this loss itself, and so may
    prefer easy parts: look at `kept_mass`. Open in the paper and chosen here: its inputs are the teacher's `head`
    largest probabilities, the student's at the same tokens and both entropies, read without gradient; one hidden layer;
    l is a share of u; it starts at u = 0.98 and l = u / 2.
    """

    accepts: ClassVar = (DenseLogits,)
    head: int = 50
    """K inputs of each model; at most the vocabulary."""
    hidden: int = 64
    """Width of the network's hidden layer."""
    softness: float = 0.01
    """Width of the limits, in probability."""
    target: bool = True
    """False: the target is masked like the others (an ablation of the paper)."""
    top_p: float | None = None
    """A control that learns nothing: the mask is 1 on the likeliest tokens up to this probability, 0 elsewhere."""
    seed: int = 0
    """Makes the network's first weights."""
    network: nn.Module = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("softness", self.softness)
        if self.head < 1 or self.hidden < 1:
            raise DistillError(f"head and hidden must be at least 1, got {self.head} and {self.hidden}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise DistillError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        made = nn.Module() if self.top_p else _network(2 * self.head + 2, self.hidden, self.seed)
        object.__setattr__(self, "network", made)

    def learned(self) -> nn.Module:
        """The network of the limits; move it to the student's device, and save it with the student."""
        return self.network

    def shape(self, signal: DenseLogits, vocabulary: int) -> torch.Size:
        """`[...]`."""
        if self.top_p is None and self.head > vocabulary:
            raise DistillError(f"a head of {self.head} tokens needs a vocabulary as large, got {vocabulary}")
        return ForwardKL().shape(signal, vocabulary)

    def token_losses(self, logits: Tensor, signal: DenseLogits) -> Tensor:
        """`[n]`."""
        log_p, log_q = log_probabilities(signal.logits.to(logits.dtype)), log_probabilities(logits)
        log_mask = self._log_mask(log_p, log_q)
        return ForwardKL().between(*(log_probabilities(log_x + log_mask) for log_x in (log_p, log_q)))

    def losses(self, student: StudentOutput, signal: DenseLogits, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`, chunk by chunk; the network gets its gradient too."""

        def losses(part: Tensor) -> Tensor:
            logits = student_logits(student, part)
            return self.token_losses(logits, DenseLogits(teacher_logits(signal.logits, part, logits.dtype)))

        return in_chunks(losses, rows, rows_at_once(signal.logits.shape[-1], rows.device, self.chunk_size))

    @torch.no_grad()
    def kept_mass(self, student: StudentOutput, signal: DenseLogits, mask: Tensor | None = None) -> float:
        """Mean teacher probability under the mask, with the target; below 0.5 for long, the network avoids work."""
        _, shape = self.elements(student, signal)
        rows = torch.arange(math.prod(shape)) if mask is None else mask.flatten().nonzero().squeeze(-1)
        logits = student_logits(student, rows)
        log_p = log_probabilities(teacher_logits(signal.logits, rows, logits.dtype))
        return (log_p + self._log_mask(log_p, log_probabilities(logits))).exp().sum(-1).mean().item()

    def _log_mask(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """log m `[n, V]`, 0 at the target where that is kept."""
        p = log_p.exp()
        log_mask = _nucleus(p, self.top_p) if self.top_p is not None else self._soft(p, log_p, log_q)
        if not self.target:
            return log_mask
        return log_mask.scatter(-1, log_p.argmax(-1, keepdim=True), 0.0)

    def _soft(self, p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
        ordered = p.sort(-1).values
        upper, lower = self._limits(p, log_p, log_q).unbind(-1)
        low, high = (_quantile(ordered, quantile)[:, None] for quantile in (lower, upper))
        return F.logsigmoid((p - low) / self.softness) + F.logsigmoid((high - p) / self.softness)

    def _limits(self, p: Tensor, log_p: Tensor, log_q: Tensor) -> Tensor:
        """Quantiles u and l, `[n, 2]`."""
        with torch.no_grad():
            likely, places = p.topk(self.head, -1)
            theirs = log_q.gather(-1, places).exp()
            entropies = [-(x.exp() * x).sum(-1, keepdim=True) for x in (log_p, log_q)]
            inputs = torch.cat([likely, theirs, *entropies], -1)
        own = next(self.network.parameters()).dtype
        upper, share = self.network(inputs.to(own)).sigmoid().to(p.dtype).unbind(-1)
        return torch.stack([upper, upper * share], -1)


@dataclass(frozen=True)
class SpanCorrelation(VocabularyObjective):
    """||r^p_i - r^q_i||_2 with r_i = P_i P_(i+1), token by token: how neighbours inside a phrase go together.

    An element is the pair of positions (i, i + 1) of `[..., T]`; give `span_pairs` of the phrases as the mask, so that
    only pairs inside one span count. Products of probabilities are near 0 for most tokens, and gradients small; with
    `normalised`, r is divided by its sum first. Norm and averaging are not confirmed in the paper; `squared` takes the
    squared norm instead.
    """

    accepts: ClassVar = (DenseLogits,)
    normalised: bool = False
    """Divide r by its sum before it is compared."""
    squared: bool = False
    """The norm's square."""

    def shape(self, signal: DenseLogits, vocabulary: int) -> torch.Size:
        """`[..., T]`."""
        if signal.logits.ndim < 2:
            raise DistillError("SpanCorrelation needs sequences, logits of the shape [..., T, V]")
        return ForwardKL().shape(signal, vocabulary)

    def token_losses(self, logits: Tensor, signal: DenseLogits) -> Tensor:
        """`[n - 1]` of neighbouring rows of one sequence."""
        p, q = log_probabilities(signal.logits.to(logits.dtype)), log_probabilities(logits)
        return self._between(p[:-1], p[1:], q[:-1], q[1:])

    def losses(self, student: StudentOutput, signal: DenseLogits, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`. Raises `DistillError` where a last position counts, which has no neighbour."""
        length, vocabulary = signal.logits.shape[-2:]
        if ((rows + 1) % length == 0).any():
            raise DistillError("the last position of a sequence has no neighbour: take span_pairs as the mask")

        def losses(part: Tensor) -> Tensor:
            ours = [log_probabilities(student_logits(student, part + i)) for i in (0, 1)]
            theirs = [log_probabilities(teacher_logits(signal.logits, part + i, ours[0].dtype)) for i in (0, 1)]
            return self._between(*theirs, *ours)

        return in_chunks(losses, rows, rows_at_once(2 * vocabulary, rows.device, self.chunk_size))

    def _between(self, p: Tensor, p_next: Tensor, q: Tensor, q_next: Tensor) -> Tensor:
        theirs, ours = p + p_next, q + q_next
        if self.normalised:
            theirs, ours = log_probabilities(theirs), log_probabilities(ours)
        difference = theirs.exp() - ours.exp()
        if self.squared:
            return difference.square().sum(-1)
        norm = cast("Callable[..., Tensor]", torch.linalg.vector_norm)  # pyright: ignore[reportUnknownMemberType] (torch)
        return norm(difference, dim=-1)


def _network(inputs: int, hidden: int, seed: int) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    layers = nn.Linear(inputs, hidden), nn.Linear(hidden, 2)
    with torch.no_grad():
        for layer in layers:
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
        layers[1].weight.mul_(0.01)
        layers[1].bias[0] = 4.0  # sigmoid(4) = 0.98
    return nn.Sequential(layers[0], nn.SiLU(), layers[1])


def _nucleus(p: Tensor, top_p: float) -> Tensor:
    """log m `[n, V]`: 0 on the likeliest tokens up to `top_p`, -inf elsewhere."""
    likely, order = p.sort(-1, descending=True)
    inside = likely.cumsum(-1) - likely < top_p
    chosen = torch.zeros_like(inside).scatter(-1, order, inside)
    return torch.zeros_like(p).masked_fill(~chosen, -torch.inf)


def _quantile(ordered: Tensor, quantile: Tensor) -> Tensor:
    """Values `[n]` at quantiles `[n]` of rows in ascending order `[n, V]`, linear in between, as `torch.quantile`."""
    place = quantile * (ordered.shape[-1] - 1)
    below = place.detach().floor().clamp(0, max(0, ordered.shape[-1] - 2)).long()
    above = (below + 1).clamp(max=ordered.shape[-1] - 1)
    low, high = (ordered.gather(-1, i[:, None]).squeeze(-1) for i in (below, above))
    return low + (place - below) * (high - low)
