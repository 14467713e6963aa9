"""One figure decides a claim: its interval over seeds, the power that was asked for before, and Holm's correction.

    Claim("gain", "SinKD teaches more than the same distance sample by sample",
          Difference("SinKD", "per-sample L1"), Power(effect=0.01, spread=0.012, pilot=(900, 901, 902, 903)))

A figure gives one number a seed, and the claim says that it is above 0. The verdict is

- `supported`: the interval lies wholly above 0,
- `contradicted`: wholly below 0,
- `null`: neither, and it excludes an effect of the size that was worth finding,
- `undecided`: neither, and it does not; or a precondition failed, pilot seeds are among those that judge, or no pilot
  has said yet how many seeds it takes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from distill.core.errors import DistillError
from distill.methods.power import LEVEL, POWER, Power, above_t, detectable, power, seeds_for
from distill.methods.statistics import CONTRADICTED, NULL, SUPPORTED, UNDECIDED, Check, Interval, Results

Role = Literal["claim", "mechanism"]


@dataclass(frozen=True)
class Difference:
    """A figure: what the first arm measured less what the second did, paired by seed."""

    first: str
    second: str
    metric: str = ""
    """The recipe's main one where empty."""

    def __call__(self, results: Results) -> np.ndarray:
        """`[seeds]`."""
        return results.values(self.first, self.metric) - results.values(self.second, self.metric)

    def __str__(self) -> str:
        return f"{self.metric}{': ' * bool(self.metric)}{self.first} less {self.second}"


@dataclass(frozen=True)
class Claim:
    """What one figure decides."""

    name: str
    """Short, for tables."""
    text: str
    """What is claimed, in one sentence."""
    figure: Callable[[Results], Any]
    """`results -> [seeds]`, one number a seed, which the claim says to be above 0; a module's function or an instance
    such as `Difference`, as recipes travel to other processes."""
    power: Power
    role: Role = field(default="claim", kw_only=True)
    """The first `claim` is the experiment's own; a `mechanism` says why, and is judged by itself."""
    unit: str = field(default="", kw_only=True)
    """What the figure is, in words, where it is no `Difference`."""

    @property
    def about(self) -> str:
        """What the figure is, in words."""
        return self.unit or str(self.figure)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim over the seeds that were run, JSON-ready by `about`."""

    claim: Claim
    interval: Interval
    level: float
    """Of the two-sided test that the interval stands for: 0.05, or Holm's share of it."""
    p: float
    """Two-sided, of the paired t-test, before correction."""
    spread: float
    """Standard deviation over the seeds that were run."""
    verdict: str
    why: str = ""
    """What an undecided verdict lacks."""

    @property
    def excludes(self) -> float | None:
        """A null verdict's: effects of this size and above lie outside of the interval."""
        return max(self.interval.high, 0.0) if self.verdict == NULL else None

    def about(self) -> dict[str, Any]:
        """Name -> value."""
        claim, plan, n = self.claim, self.claim.power, self.interval.n
        seen = self.spread if n > 1 and self.spread > 0 else None
        return {
            **planned(claim, n, self.level), "verdict": self.verdict, "why": self.why,
            "mean": self.interval.mean, "ci": [self.interval.low, self.interval.high] if n > 1 else None,
            "confidence": 1 - self.level, "p": self.p if n > 1 else None, "excludes": self.excludes,
            "spread_seen": self.spread if n > 1 else None,
            "power_seen": None if seen is None else power(plan.effect, seen, n, self.level),
            "detectable": None if seen is None else detectable(seen, n, self.level),
            "seeds_needed_seen": self._needed(seen),
        }  # fmt: skip

    def _needed(self, seen: float | None) -> int | None:
        try:
            return None if seen is None else seeds_for(self.claim.power.effect, seen, self.level)
        except DistillError:
            return None  # more than anyone would run


def family(claims: Sequence[Claim], role: Role) -> list[Claim]:
    """Those that are corrected for each other."""
    return [claim for claim in claims if claim.role == role]


def level_of(claim: Claim, claims: Sequence[Claim]) -> float:
    """The level that seeds are planned with: the strictest that Holm's correction may ask of the claim."""
    return LEVEL / max(len(family(claims, claim.role)), 1)


def seeds_of(claims: Sequence[Claim]) -> int:
    """Fewest seeds of which every claim has the power that is asked for.

    Raises:
      DistillError: a claim without a pilot, of which no number follows.
    """
    asked = [claim.power.seeds(level_of(claim, claims)) for claim in claims]
    found = [count for count in asked if count is not None]
    if not found or len(found) < len(asked):
        raise DistillError("a claim has no pilot, from whose spread its number of seeds would follow")
    return max(found)


def planned(claim: Claim, seeds: int, level: float) -> dict[str, Any]:
    """The power statement of a claim, JSON-ready, for so many seeds."""
    plan = claim.power
    return {
        "name": claim.name, "text": claim.text, "role": claim.role, "figure": claim.about,
        "effect": plan.effect, "spread": plan.spread, "pilot": list(plan.pilot),
        "seeds_needed": plan.seeds(level), "seeds": seeds, "power": plan.at(seeds, level),
    }  # fmt: skip


def plans(claims: Sequence[Claim], seeds: int) -> list[dict[str, Any]]:
    """The power statements of an experiment's claims."""
    return [planned(claim, seeds, level_of(claim, claims)) for claim in claims]


def judge(claims: Sequence[Claim], results: Results, conditions: Sequence[Check] = ()) -> list[Judged]:
    """The verdict of each claim, those of one role corrected for each other by Holm's step-down.

    The interval of a claim is that of the level at which Holm asked, so that it leaves 0 out exactly where the claim
    is decided. `conditions` are checks, of which those with the role `precondition` must hold for a verdict.

    Raises:
      DistillError: a figure that is not one finite number a seed.
    """
    values = {claim.name: _values(claim, results) for claim in claims}
    p = {name: p_value(found) for name, found in values.items()}
    levels: dict[str, float] = {}
    for role in ("claim", "mechanism"):
        levels |= holm({claim.name: p[claim.name] for claim in family(claims, role)})
    failed = "; ".join(check.text for check in conditions if check.role == "precondition" and not check.holds)
    found = []
    for claim in claims:
        seen, level = values[claim.name], levels[claim.name]
        interval = Interval.of(seen, 1 - level)
        pilots = sorted(set(claim.power.pilot) & set(results.seeds))
        verdict, why = _verdict(interval, claim.power.effect)
        if failed:
            verdict, why = UNDECIDED, f"precondition failed: {failed}"
        elif pilots:
            verdict, why = UNDECIDED, f"seeds {', '.join(map(str, pilots))} are the pilot's"
        elif claim.power.spread is None:
            verdict, why = UNDECIDED, "no pilot has said how many seeds it takes"
        spread = float(seen.std(ddof=1)) if len(seen) > 1 else 0.0
        found.append(
            Judged(
                claim=claim, interval=interval, level=level, p=p[claim.name], spread=spread, verdict=verdict, why=why
            )
        )
    return found


def holm(p: Mapping[str, float], level: float = LEVEL) -> dict[str, float]:
    """The level at which each hypothesis is tested: the smallest p at level / m, the next at level / (m - 1), until one
    is not rejected; all after it are tested at its level."""
    found: dict[str, float] = {}
    share, stopped = level, False
    for place, name in enumerate(sorted(p, key=lambda name: p[name])):
        if not stopped:
            share = level / (len(p) - place)
            stopped = p[name] >= share
        found[name] = share
    return found


def p_value(values: np.ndarray) -> float:
    """Two-sided, of the t-test that the mean of `values` `[n]` is 0; 1 of a single one, which tells nothing."""
    spread = float(values.std(ddof=1)) if len(values) > 1 else math.inf
    if spread == 0:
        return float(values.mean() == 0)
    if not math.isfinite(spread):
        return 1.0
    return min(2 * above_t(abs(float(values.mean())) / spread * math.sqrt(len(values)), len(values) - 1), 1.0)


def summary(judged: Sequence[Judged]) -> str:
    """The experiment's verdict: that of its first claim."""
    return next(one.verdict for one in judged if one.claim.role == "claim")


def _verdict(interval: Interval, effect: float) -> tuple[str, str]:
    if interval.positive:
        return SUPPORTED, ""
    if interval.negative:
        return CONTRADICTED, ""
    if interval.high < effect:
        return NULL, ""
    return UNDECIDED, f"the interval holds both 0 and {effect:g}, the effect worth finding: power too low"


def _values(claim: Claim, results: Results) -> np.ndarray:
    found = np.asarray(claim.figure(results), float)
    if found.shape != (len(results.seeds),) or not np.isfinite(found).all():
        raise DistillError(f"the figure '{claim.name}' is not one finite number a seed: {found.tolist()}")
    return found


__all__ = ["POWER", "Claim", "Difference", "Judged", "Power", "holm", "judge", "level_of", "plans", "seeds_of"]
