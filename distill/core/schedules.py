"""Numbers that change over a run: who drives while experience is collected, and the learning rate."""

from dataclasses import dataclass

import numpy as np

from distill.core.errors import DistillError


@dataclass(frozen=True)
class Beta:
    """DAgger's beta (Ross et al., arXiv 1011.0686): the share of experience in which the teacher drives.

    1 in every round is behavioural cloning (off-policy), 0 is on-policy distillation, what lies between is mixed.
    """

    first: float = 1.0
    """In round 0."""
    decay: float = 0.5
    """Factor from round to round."""
    least: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.least <= self.first <= 1.0 and 0.0 <= self.decay <= 1.0):
            raise DistillError(f"beta must fall from {self.first} to no less than {self.least}, both from 0 to 1")

    def at(self, round_: int) -> float:
        """Beta in a round, counted from 0."""
        return max(self.least, self.first * self.decay**round_)


@dataclass(frozen=True)
class WarmupCosine:
    """A learning rate that rises linearly to its peak, then falls along a cosine."""

    peak: float
    steps: int
    """In which it reaches `last`."""
    warmup: int = 100
    last: float = 0.0

    def at(self, step: int) -> float:
        """The rate for an optimiser step, counted from 0."""
        if step < self.warmup:
            return self.peak * (step + 1) / self.warmup
        share = min((step - self.warmup) / max(self.steps - self.warmup, 1), 1.0)
        return self.last + (self.peak - self.last) * 0.5 * (1 + float(np.cos(np.pi * share)))
