"""Means over seeds with their 95 % intervals, and the verdict that they give."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from distill.core.errors import DistillError

LARGEST = 1e150
"""Above which a number has no square, and so no spread."""
SUPPORTED, NULL, CONTRADICTED, UNDECIDED = "supported", "null", "contradicted", "undecided"


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its interval by Student's t, of 95 % unless said otherwise; infinite of one seed."""

    mean: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray, confidence: float = 0.95) -> "Interval":
        """Raises `DistillError` for no values, or values that are not finite or have no finite square."""
        values = np.asarray(values, float)
        if not len(values) or not (np.abs(values) < LARGEST).all():
            raise DistillError(f"an interval needs finite values, got {values.tolist()}")
        mean = float(values.mean())
        if len(values) == 1:
            return cls(mean, -math.inf, math.inf, 1)
        half = quantile_t(len(values) - 1, (1 + confidence) / 2) * float(values.std(ddof=1)) / math.sqrt(len(values))
        return cls(mean, mean - half, mean + half, len(values))

    @property
    def positive(self) -> bool:
        """Whether all of it lies above 0."""
        return self.low > 0

    @property
    def negative(self) -> bool:
        """Whether all of it lies below 0."""
        return self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.4g} [{self.low:+.4g}, {self.high:+.4g}]"


@cache
def quantile_t(freedom: int, level: float = 0.975) -> float:
    """Student's t: the quantile at `level` (above 1/2) with that many degrees of freedom, to 1e-6, by bisection."""
    if freedom < 1:
        raise DistillError(f"Student's t needs at least 1 degree of freedom, got {freedom}")
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)

    def below(t: float) -> float:  # Simpson's rule from 0 in the angle, where the density is smooth
        angles = np.linspace(0, math.atan(t / math.sqrt(freedom)), 2001)
        values = np.cos(angles) ** (freedom - 1) * scale * math.sqrt(freedom)
        return 0.5 + float((values[:-1:2] + 4 * values[1::2] + values[2::2]).sum() * (angles[1] - angles[0]) / 3)

    low, high = 0.0, 1.0
    while below(high) < level:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) < level else (low, middle)
    return (low + high) / 2


@dataclass(frozen=True)
class Check:
    """One question that a rule asks of the results."""

    text: str
    """What was asked, with the figures."""
    holds: bool
    role: Literal["required", "falsifies", "precondition", "reported"] = "required"
    """Beside claims: a `precondition` must hold for any verdict, what is `reported` decides nothing. In a rule alone:
    `required` must hold for the claim to be supported; one `falsifies` that holds contradicts it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "holds", bool(self.holds))  # JSON knows no numpy


def verdict(checks: Sequence[Check]) -> str:
    """Contradicted where a check that falsifies holds, supported where every required one does, null otherwise."""
    required = [check for check in checks if check.role == "required"]
    if not required:
        raise DistillError("a verdict rule needs at least one required check")
    if any(check.holds for check in checks if check.role == "falsifies"):
        return CONTRADICTED
    return SUPPORTED if all(check.holds for check in required) else NULL


class Results:
    """What each arm measured with each seed."""

    def __init__(self, rows: Mapping[int, Mapping[str, Mapping[str, Any]]], metric: str) -> None:
        """`rows`: seed -> arm -> metric -> number (or anything that a rule knows); `metric` is the main one."""
        self.rows, self.metric = {seed: rows[seed] for seed in sorted(rows)}, metric

    @property
    def seeds(self) -> list[int]:
        """In order."""
        return list(self.rows)

    def values(self, arm: str, metric: str = "") -> np.ndarray:
        """`[seeds]`, in order of the seeds."""
        try:
            found = [row[arm][metric or self.metric] for row in self.rows.values()]
        except KeyError as error:
            raise DistillError(f"the results have no {error} for the arm '{arm}'") from error
        if not all(isinstance(value, int | float | np.number) for value in found):
            raise DistillError(f"the arm '{arm}' has no number as its {metric or self.metric} of every seed")
        return np.array(found, float)

    def mean(self, arm: str, metric: str = "") -> Interval:
        """Over seeds."""
        return Interval.of(self.values(arm, metric))

    def difference(self, first: str, second: str, metric: str = "") -> Interval:
        """First less second, paired by seed."""
        return Interval.of(self.values(first, metric) - self.values(second, metric))

    def lower(self, first: str, second: str, metric: str = "", role: Any = "required") -> Check:
        """A check that `first` is lower than `second` beyond the 95 % interval of their paired difference."""
        found = self.difference(first, second, metric)
        return Check(f"{metric or self.metric}: {first} less {second} is {found}, wholly below 0", found.negative, role)

    def higher(self, first: str, second: str, metric: str = "", role: Any = "required") -> Check:
        """As `lower`, the other way."""
        found = self.difference(first, second, metric)
        return Check(f"{metric or self.metric}: {first} less {second} is {found}, wholly above 0", found.positive, role)
