"""The weave poles: a line of poles that are passed from side to side."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from sim.course.obstacles.base import Obstacle, Point, registered, require
from sim.course.placement import Placed, gate_between, joined, lane, left_of, step_ahead, too_sharp, unit, xy

POLE_GAP = 0.54, 0.83
"""Distance between the feet of two neighbouring poles, m (official: 0.539 to 0.825)."""
POLE_ASIDE = 0.1
"""Poles stand this far left and right of their line in turns, m (official)."""
OPEN_GATE = 0.7
"""Width of the gates between a pole and the open, m (official)."""
WEAVE_WAY = 0.75
"""Half width of what is kept free around the line of poles, m."""


@dataclass(frozen=True)
class Pole:
    """An upright weave pole."""

    x: float
    y: float
    radius: float = 0.03
    height: float = 1.0


@registered
@dataclass(frozen=True)
class WeavePoles(Obstacle):
    """Poles, with gates between them and to the open at both ends."""

    poles: tuple[Pole, ...]

    KIND: ClassVar[str] = "weave poles"
    SIZE: ClassVar[float] = 6.0
    TRIED_AGAIN: ClassVar[bool] = True

    @property
    def standing_poles(self) -> tuple[Pole, ...]:
        return self.poles

    def check(self) -> None:
        super().check()
        require(len(self.poles) > 0, f"the obstacle '{self.name}' needs poles")

    def moved(self, move: Callable[[Point], Point]) -> Self:
        poles = (move((pole.x, pole.y)) for pole in self.poles)
        there = tuple(replace(pole, x=x, y=y) for pole, (x, y) in zip(self.poles, poles, strict=True))
        return replace(super().moved(move), poles=there)

    @classmethod
    def place(cls, rng: np.random.Generator, before: Placed, last: bool, poles: int) -> Placed | None:
        entry, bearing = step_ahead(rng, before)
        heading = bearing + rng.uniform(-1.6, 1.6)
        return None if too_sharp(before, heading) else joined(before, cls._at(rng, entry, heading, poles))

    @classmethod
    def _at(cls, rng: np.random.Generator, entry: np.ndarray, heading: float, count: int) -> Placed:
        """In a line along `heading`; the first is passed on `side` (1: its left), the gaps from side to side."""
        along, side = unit(heading), int(rng.choice([-1, 1]))
        across = side * left_of(along)
        steps = np.sqrt(rng.uniform(*POLE_GAP, count - 1) ** 2 - (2 * POLE_ASIDE) ** 2)
        first = entry + 0.25 * along - 0.35 * across
        reach = np.concatenate([[0.0], np.cumsum(steps)])
        aside = 2 * POLE_ASIDE * (np.arange(count) % 2)
        poles = [first + r * along + a * across for r, a in zip(reach, aside, strict=True)]
        out = (1 if count % 2 == 0 else -1) * across  # the side reached by the last gate
        gates = [gate_between(first + OPEN_GATE * across, first), *map(gate_between, poles, poles[1:])]
        gates.append(gate_between(poles[-1] + OPEN_GATE * along, poles[-1]))
        middle = first + POLE_ASIDE * across
        solid = lane(middle - 0.1 * along, middle + (reach[-1] + 0.1) * along, 0.15)
        way = lane(middle - 0.35 * along, middle + (reach[-1] + 0.6) * along, WEAVE_WAY)
        leave = gates[-1].center + 0.6 * out
        obstacle = cls(cls.KIND, cls.SIZE, tuple(gates), tuple(Pole(*xy(pole)) for pole in poles))
        return Placed(obstacle, entry, heading, leave, float(np.arctan2(out[1], out[0])), [solid], [way])
