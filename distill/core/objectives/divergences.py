"""Divergences between the teacher's distribution p and the student's q over a vocabulary, position by position.

    ForwardKL      KL(p || q)                                    covers every mode of the teacher
    ReverseKL      KL(q || p)                                    seeks modes
    JensenShannon  b KL(p || m) + (1 - b) KL(q || m), m = b p + (1 - b) q           GKD, arXiv 2306.13649
    SkewForwardKL  KL(p || a p + (1 - a) q)                                         DistiLLM, arXiv 2402.03898
    SkewReverseKL  KL(q || (1 - a) p + a q)                                         DistiLLM
    TopKKL         forward or reverse KL over the K likeliest tokens and one bucket for all others
    CrossEntropy   -log q(token)                                 hard labels, or texts that the teacher sampled

Vocabularies are large, so tokens are taken in chunks (`chunks`). With `StudentOutput.lm_head` the student's full logits
never exist, nor does their gradient; with `ProjectedLogits` the teacher's do not either. All sums are in float32, or in
float64 for float64 inputs, over log-probabilities, which keeps logits of 1e4 exact enough. A teacher's logit of -inf is
a probability of exactly 0.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives import chunks
from distill.core.objectives.base import Objective, StudentOutput, choice, positive
from distill.core.precision import wide
from distill.core.signals import (
    DenseLogits,
    LogitScaling,
    ProjectedLogits,
    SampledLogProbs,
    TeacherSignal,
    TopKLogits,
)

FLOOR = -1e30
"""Log-probability that stands for that of a probability of 0: finite, so that 0 log 0 is 0 and its gradient 0 too."""


@dataclass(frozen=True, kw_only=True)
class VocabularyObjective(Objective):
    """An objective on the student's logits; elements are positions `[...]`, of tokens or of whole sequences.

    What all share is given by name, so that a bare number is an objective's own parameter: `JensenShannon(0.5)`.
    """

    chunk_size: int | None = None
    """How many logits are held at a time: a chunk has `chunk_size // V` positions, and at least one. None: what suits
    the device."""

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            positive("chunk_size", self.chunk_size)

    @abstractmethod
    def shape(self, signal: Any, vocabulary: int) -> torch.Size:
        """The signal's elements `[...]`. Raises `DistillError` where it does not fit the student's `vocabulary`."""

    def elements(self, student: StudentOutput, signal: TeacherSignal) -> tuple[Tensor, torch.Size]:
        """The student's logits `[..., V]`, or its last hidden states `[..., D]` where it gave an `lm_head`."""
        features, head = _features(student, self)
        shape = self.shape(signal, _vocabulary(features, head))
        if features.shape[:-1] != shape:
            raise DistillError(
                f"the student has the positions {list(features.shape[:-1])}, the teacher's signal {list(shape)}"
            )
        return features, shape


@dataclass(frozen=True)
class TokenObjective(VocabularyObjective):
    """One whose positions have nothing to do with each other, so that they are taken in chunks."""

    @abstractmethod
    def token_losses(self, logits: Tensor, signal: Any) -> Tensor:
        """Losses `[n]` of one chunk: the student's `logits` `[n, V]`, float32 or float64; the teacher's signal of it.

        `signal` is flattened to rows `[n, ...]`.
        """

    def losses(self, student: StudentOutput, signal: TeacherSignal, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`, chunk by chunk, whose logits are computed again in the backward pass."""
        features, head, chunk, losses = self._chunked(student, signal)
        return chunks.row_losses(features, head, rows, chunk, losses)

    def mean(
        self, student: StudentOutput, signal: TeacherSignal, rows: Tensor, weights: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Of all that counts, chunk by chunk, with its gradients made on the way."""
        features, head, chunk, losses = self._chunked(student, signal)
        return chunks.mean_loss(features, head, rows, weights, chunk, losses)

    def _chunked(
        self, student: StudentOutput, signal: TeacherSignal
    ) -> tuple[Tensor, Tensor | None, int, chunks.Losses]:
        features, head = _features(student, self)
        flat = signal.flattened(features.ndim - 1)
        scaling = LogitScaling() if head is None else student.scaling

        def losses(sums: Tensor, part: Tensor) -> Tensor:
            logits = scaling(wide(sums))
            return self.token_losses(logits, flat.index(part))

        chunk = chunks.rows_at_once(_vocabulary(features, head), features.device, self.chunk_size)
        return features.reshape(-1, features.shape[-1]), head, chunk, losses


@dataclass(frozen=True, kw_only=True)
class Divergence(TokenObjective):
    """A divergence between two full distributions over one vocabulary."""

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (DenseLogits, ProjectedLogits)
    temperature: float = 1.0
    """Both models' logits are divided by it."""
    scale_by_temperature: bool = False
    """Multiply by temperature^2, so that gradients keep their size beside a hard-label loss (arXiv 1503.02531)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("temperature", self.temperature)

    @abstractmethod
    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """The divergence `[n]` of teacher and student, given as floored log-probabilities `[n, V]`."""

    def token_losses(self, logits: Tensor, signal: DenseLogits | ProjectedLogits) -> Tensor:
        """`[n]`."""
        log_p = log_probabilities(signal.logits.to(logits.dtype) / self.temperature)
        losses = self.between(log_p, log_probabilities(logits / self.temperature))
        return losses * self.temperature**2 if self.scale_by_temperature else losses

    def shape(self, signal: DenseLogits | ProjectedLogits, vocabulary: int) -> torch.Size:
        """`[...]`."""
        if signal.vocabulary != vocabulary:
            raise DistillError(
                f"the student's vocabulary has {vocabulary} tokens, the teacher's {signal.vocabulary}; "
                "cut both to the tokens they share"
            )
        return signal.positions


@dataclass(frozen=True)
class ForwardKL(Divergence):
    """KL(p || q) = sum of p (log p - log q)."""

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        return _kl(log_p, log_q)


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """KL(q || p) = sum of q (log q - log p).

    It is infinite where the student gives probability to a token that the teacher rules out (logit -inf). Such tokens
    are therefore taken out of the student's distribution as well, which is normalised over the others: the loss is
    finite, 0 only at equality, and says nothing about the ruled-out tokens.
    """

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        return _kl(_supported(log_q, log_p), log_p)


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """Generalised Jensen-Shannon divergence b KL(p || m) + (1 - b) KL(q || m) with m = b p + (1 - b) q.

    The convention of GKD (arXiv 2306.13649, section 2, D_JSD(beta)(P || Q) with P the teacher): JSD / b tends to the
    forward KL for b -> 0, JSD / (1 - b) to the reverse KL for b -> 1. It is symmetric at b = 1/2 and at most log 2.
    """

    beta: float = 0.5
    """The teacher's share of the mixture, between 0 and 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _inside("beta", self.beta)

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        log_m = _mixture(log_p, log_q, self.beta)
        return self.beta * _kl(log_p, log_m) + (1 - self.beta) * _kl(log_q, log_m)


@dataclass(frozen=True)
class SkewForwardKL(Divergence):
    """KL(p || a p + (1 - a) q) (DistiLLM, arXiv 2402.03898, section 3.1): at most -log a, whatever the student."""

    alpha: float = 0.1
    """The teacher's share of the mixture, between 0 and 1; towards 0 it is `ForwardKL`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _inside("alpha", self.alpha)

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        return _kl(log_p, _mixture(log_p, log_q, self.alpha))


@dataclass(frozen=True)
class SkewReverseKL(Divergence):
    """KL(q || (1 - a) p + a q) (DistiLLM, arXiv 2402.03898, section 3.1): at most -log a, whatever the teacher."""

    alpha: float = 0.1
    """The student's share of the mixture, between 0 and 1; towards 0 it is `ReverseKL`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _inside("alpha", self.alpha)

    def between(self, log_p: Tensor, log_q: Tensor) -> Tensor:
        """`[n]`."""
        return _kl(log_q, _mixture(log_p, log_q, 1 - self.alpha))


@dataclass(frozen=True)
class TopKKL(TokenObjective):
    """KL over the teacher's K tokens and, as one more bucket, all others; at the signal's own temperature.

    Merging tokens loses information only about how the tail is shared out: both directions are at least 0, at most the
    full KL of the same direction, and equal to it if K = V - 1. A teacher's tail of -inf (the K tokens are everything)
    presses the student's tail towards 0 in the forward direction; in the reverse one it is left out, as in `ReverseKL`.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (TopKLogits,)
    direction: str = "forward"
    """`forward`: KL(p || q); `reverse`: KL(q || p)."""
    tail: str = "bucket"
    """`bucket`; or `drop`: both models' K probabilities are normalised, and nothing holds the student's tail down."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("direction", self.direction, ("forward", "reverse"))
        choice("tail", self.tail, ("bucket", "drop"))

    def token_losses(self, logits: Tensor, signal: TopKLogits) -> Tensor:
        """`[n]`."""
        log_q = log_probabilities(logits / signal.temperature)
        teacher, student = signal.log_probs.to(logits.dtype), log_q.gather(-1, signal.indices)
        if self.tail == "bucket":
            others = log_q.scatter(-1, signal.indices, FLOOR).logsumexp(-1, keepdim=True)
            teacher = torch.cat([teacher, signal.tail.to(logits.dtype)[:, None]], -1)
            student = torch.cat([student, others], -1)
        log_p, log_q = log_probabilities(teacher), log_probabilities(student)  # rounded values sum to exactly 1 again
        return _kl(log_p, log_q) if self.direction == "forward" else _kl(_supported(log_q, log_p), log_p)

    def shape(self, signal: TopKLogits, vocabulary: int) -> torch.Size:
        """`[...]`."""
        _known(signal.indices, vocabulary)
        return signal.tail.shape


@dataclass(frozen=True)
class CrossEntropy(TokenObjective):
    """-log q(token) for given tokens: labels of a data set (`SampledLogProbs.labels`) or a teacher's own samples.

    The mean over samples of a teacher differs from its forward KL by the teacher's entropy, which has no gradient.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (SampledLogProbs,)

    def token_losses(self, logits: Tensor, signal: SampledLogProbs) -> Tensor:
        """`[n]`."""
        return F.cross_entropy(logits, signal.tokens, reduction="none")

    def shape(self, signal: SampledLogProbs, vocabulary: int) -> torch.Size:
        """`[...]`."""
        _known(signal.tokens, vocabulary)
        return signal.tokens.shape


def _features(student: StudentOutput, objective: Objective) -> tuple[Tensor, Tensor | None]:
    """Logits and None, or last hidden states and the head that makes logits of them."""
    if student.logits is not None or student.lm_head is None:
        return student.need("logits", objective), None
    features = student.need("hidden", objective)[-1]
    if features.shape[-1] != student.lm_head.shape[-1]:
        raise DistillError(
            f"the lm_head takes width {student.lm_head.shape[-1]}, the last hidden states have {features.shape[-1]}"
        )
    return features, student.lm_head


def _vocabulary(features: Tensor, head: Tensor | None) -> int:
    return features.shape[-1] if head is None else head.shape[0]


def log_probabilities(logits: Tensor) -> Tensor:
    """Log-softmax over the last dimension; a probability of 0 is the finite `FLOOR`."""
    return logits.log_softmax(-1).clamp(min=FLOOR)


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    """KL(a || b), `[n]`, of floored log-probabilities `[n, V]`."""
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _mixture(log_p: Tensor, log_q: Tensor, share: float) -> Tensor:
    """log(share p + (1 - share) q)."""
    return torch.logaddexp(log_p + math.log(share), log_q + math.log1p(-share))


def _supported(log_q: Tensor, log_p: Tensor) -> Tensor:
    """q without the tokens that p rules out, normalised over the others."""
    return log_probabilities(log_q.masked_fill(log_p <= FLOOR, FLOOR))


def _known(tokens: Tensor, vocabulary: int) -> None:
    if tokens.numel() and not 0 <= tokens.min() <= tokens.max() < vocabulary:
        raise DistillError(
            f"token ids must lie in the student's vocabulary of {vocabulary}, got {tokens.min()} to {tokens.max()}"
        )


def _inside(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise DistillError(f"{name} must lie between 0 and 1, got {value}; at the ends take ForwardKL or ReverseKL")
