"""How many seeds a paired comparison takes: the power of Student's t-test, from the noncentral t distribution."""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from distill.core.errors import DistillError
from distill.methods.statistics import quantile_t

POWER = 0.8
"""Asked of every experiment: the chance that it finds an effect of the size that is worth finding."""
LEVEL = 0.05
"""Of the two-sided test."""
MOST = 10_000
"""Seeds that are thought of."""


@dataclass(frozen=True)
class Power:
    """What an experiment's seeds follow from, written down before it runs."""

    effect: float
    """Smallest effect worth finding, in the unit of the figure; above 0."""
    spread: float | None = None
    """Standard deviation of the figure over the pilot's seeds; None until there was one."""
    pilot: tuple[int, ...] = ()
    """Seeds of the pilot; they give the spread, and no verdict."""

    def __post_init__(self) -> None:
        numbers = [self.effect, *([] if self.spread is None else [self.spread])]
        if not all(number > 0 and math.isfinite(number) for number in numbers):
            raise DistillError(f"effect and spread must be above 0, got {self.effect} and {self.spread}")
        if len(set(self.pilot)) < 2 and (self.pilot or self.spread is not None):
            raise DistillError(f"a spread takes at least two pilot seeds, got {list(self.pilot)}")
        if self.pilot and self.spread is None:
            raise DistillError(f"the pilot seeds {list(self.pilot)} have no spread")

    def seeds(self, level: float = LEVEL) -> int | None:
        """Fewest seeds of which the test finds the effect with a chance of `POWER`; None before a pilot."""
        return None if self.spread is None else seeds_for(self.effect, self.spread, level)

    def at(self, seeds: int, level: float = LEVEL) -> float | None:
        """The chance with so many seeds; None before a pilot."""
        return None if self.spread is None else power(self.effect, self.spread, seeds, level)


@cache
def power(effect: float, spread: float, seeds: int, level: float = LEVEL) -> float:
    """The chance that a two-sided paired t-test at `level` over so many seeds says that a true `effect` (above 0) is
    above 0, where single seeds differ by the standard deviation `spread`; of one seed there is none."""
    if seeds < 2:
        return 0.0
    return above_t(quantile_t(seeds - 1, 1 - level / 2), seeds - 1, effect / spread * math.sqrt(seeds))


@cache
def seeds_for(effect: float, spread: float, level: float = LEVEL, wanted: float = POWER) -> int:
    """Fewest seeds whose `power` is what is wanted. Raises `DistillError` where `MOST` are too few."""
    normal = NormalDist()
    whole = (normal.inv_cdf(1 - level / 2) + normal.inv_cdf(wanted)) * spread / effect
    if whole**2 > MOST:
        raise DistillError(f"an effect of {effect:g} at a spread of {spread:g} takes more than {MOST} seeds")
    found = max(int(whole**2), 2)  # what a known spread would take: Student's t asks for a few more
    while power(effect, spread, found, level) < wanted:
        found += 1
    while found > 2 and power(effect, spread, found - 1, level) >= wanted:
        found -= 1
    return found


@cache
def detectable(spread: float, seeds: int, level: float = LEVEL, wanted: float = POWER) -> float:
    """The effect that so many seeds find with the chance that is wanted; infinite of one seed."""
    if seeds < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(high, 1.0, seeds, level) < wanted:
        low, high = high, 2 * high
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, 1.0, seeds, level) >= wanted else (middle, high)
    return high * spread


def above_t(bound: float, freedom: int, shift: float = 0.0) -> float:
    """P(T > bound) of the noncentral t distribution, T = (Z + shift) / S with Z normal and S the root of a chi-squared
    variable over its `freedom`; to 1e-7, by Simpson's rule over S. Student's t where `shift` is 0."""
    width = 10 / math.sqrt(2 * freedom)
    s = np.linspace(max(1 - width, 1e-9), 1 + width, 2001)
    constant = math.log(2) + freedom / 2 * math.log(freedom / 2) - math.lgamma(freedom / 2)
    density = np.exp(constant + (freedom - 1) * np.log(s) - freedom / 2 * s**2)
    tail = np.array([math.erfc(x) / 2 for x in (bound * s - shift) / math.sqrt(2)])
    values = density * tail
    return float((values[:-1:2] + 4 * values[1::2] + values[2::2]).sum() * (s[1] - s[0]) / 3)
