"""The likelihood of whole pieces of a text, for teachers that split texts into other tokens than the student."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distill.core.objectives.base import StudentOutput, positive
from distill.core.objectives.divergences import CrossEntropy, VocabularyObjective
from distill.core.signals import SampledLogProbs, SpanLogProbs, TeacherSignal

LIKELIEST = -1e-6
"""Largest log-probability of a piece that is told from certainty: of what is certain the rest has no logarithm."""


@dataclass(frozen=True, kw_only=True)
class SpanLikelihood(VocabularyObjective):
    """Approximate likelihood matching (arXiv 2503.20083): t KL(B(p^(1/t)) || B(q^(1/t))) of each piece of a text, where
    p and q are its probabilities by teacher and student and B(x) is the yes or no that has the probability x.

    An element is a token; a piece has its loss where its last token stands, its other tokens and those of no piece
    have 0, so that the mean is over tokens as of any other part of a sum. A piece of which some tokens are masked out
    has none. The factor t keeps the size of the gradients; for a large t the loss is near
    (log p - log q)^2 / (2 |log p|).
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (SpanLogProbs,)
    temperature: float = 100.0
    """t. At 1 what teacher and student both find unlikely teaches nothing; the paper takes 100."""

    def __post_init__(self) -> None:
        super().__post_init__()
        positive("temperature", self.temperature)

    def shape(self, signal: SpanLogProbs, vocabulary: int) -> torch.Size:
        """`[..., T]`."""
        return CrossEntropy().shape(SampledLogProbs.labels(signal.tokens), vocabulary)

    def losses(self, student: StudentOutput, signal: SpanLogProbs, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        labels = SampledLogProbs.labels(signal.tokens)
        said = -CrossEntropy(chunk_size=self.chunk_size).losses(student, labels, rows, mask)
        length, count = signal.ends.shape[-1], signal.ends.numel()
        ends = signal.ends.reshape(-1)
        place = torch.arange(count, device=ends.device)
        piece = torch.where(ends >= 0, place - place % length + ends, place)
        ours = said.new_zeros(count).index_add(0, piece[rows], said)
        whole = torch.zeros_like(piece).index_add(0, piece, torch.ones_like(piece))
        seen = torch.zeros_like(piece).index_add(0, piece[rows], torch.ones_like(rows))
        here = (ends[rows] >= 0) & (piece[rows] == rows) & (seen[rows] == whole[rows])
        # where nothing is compared both are the same, so that there is neither a loss nor a gradient
        log_q = torch.where(here, ours[rows], -torch.ones_like(said))
        log_p = torch.where(here, signal.log_probs.reshape(-1)[rows].to(said.dtype), -torch.ones_like(said))
        t = self.temperature
        log_p, log_q = (value.clamp(max=LIKELIEST) / t for value in (log_p, log_q))
        p = log_p.exp()
        rest_p, rest_q = (torch.log(-torch.expm1(value)) for value in (log_p, log_q))
        return t * (p * (log_p - log_q) + (1 - p) * (rest_p - rest_q))
