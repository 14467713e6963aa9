"""How obstacles are put down on generated courses: what each leaves to the next, and small geometry.

Points `[2]` and quadrilaterals `[4, 2]` in m, headings in rad, on a plane without borders.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sim.course.obstacles.base import Gate, Obstacle
from sim.planar import wrap

AREA = (0.0, -5.0, 5.0, 0.0)
OVERHANG, WAY_OVERHANG = 0.35, 0.75
"""Obstacles, and the ways between and past them, may reach this far over the area's border, m; the run at the board
stays inside."""
STEP = 0.05, 1.3
"""From the end of one piece's way to the beginning of the next one's, m."""
SHARPEST = np.deg2rad(145.0)
"""Largest change of heading from one obstacle to the next (official)."""
WAY = 0.38
"""Half width of what is kept free along the way, m."""


@dataclass(frozen=True, eq=False)
class Placed:
    """An obstacle that has been put down."""

    obstacle: Obstacle
    entry: np.ndarray
    heading: float
    """On entering."""
    exit: np.ndarray
    leaving: float
    """Heading on leaving."""
    solids: list[np.ndarray]
    """What others' ways must not cross."""
    ways: list[np.ndarray] = field(default_factory=list)
    """What others' solids must leave free; the ways of the run from this piece to the next ones are added."""
    run: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    """Points that must lie inside the area."""
    start: tuple[float, float, float] | None = None
    """Start pose of a robot that begins here."""
    clear: float | None = None
    """Least distance of the next obstacle's gates along the way off this one, m."""
    table_behind: bool = False
    """A table that follows stands straight behind it."""

    @cached_property
    def shifts(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest shift `[2]` along x and y that brings this piece into the area, m."""
        low, high = np.full(2, -np.inf), np.full(2, np.inf)
        for shapes, over in ((self.solids, OVERHANG), (self.ways, WAY_OVERHANG), ([self.run], 0.0)):
            points = np.concatenate(shapes)
            if len(points):
                low = np.maximum(low, np.array(AREA[:2]) - over - points.min(0))
                high = np.minimum(high, np.array(AREA[2:]) + over - points.max(0))
        return low, high


def step_ahead(rng: np.random.Generator, before: Placed) -> tuple[np.ndarray, float]:
    """A random place `[2]` ahead of a piece, and the bearing from its exit to there."""
    bearing = before.leaving + rng.uniform(-1.4, 1.4)
    return before.exit + rng.uniform(*STEP) * unit(bearing), bearing


def too_sharp(before: Placed, heading: float) -> bool:
    """Whether the turn to the next heading is too sharp."""
    return abs(wrap(heading - before.leaving)) > SHARPEST


def joined(before: Placed, piece: Placed) -> Placed | None:
    """A piece with the way to it; None where its gates come too near to what stands before."""
    if before.clear is not None:
        ends = np.array([end for gate in piece.obstacle.gates for end in (gate.left, gate.right)])
        if (ends @ unit(before.leaving)).min() < before.clear:
            return None
    return replace(piece, ways=[*piece.ways, lane(before.exit, piece.entry, WAY)])


def unit(angle: float) -> np.ndarray:
    """The direction `[2]` of an angle."""
    return np.array([math.cos(angle), math.sin(angle)])


def left_of(direction: np.ndarray) -> np.ndarray:
    """A direction `[2]` turned by 90 degrees to the left."""
    return np.array([-direction[1], direction[0]])


def xy(point: np.ndarray) -> tuple[float, float]:
    """A point as plain numbers."""
    return float(point[0]), float(point[1])


def gate_between(left: np.ndarray, right: np.ndarray) -> Gate:
    """A gate from one point to another."""
    return Gate(xy(left), xy(right))


def gate_across(center: np.ndarray, along: np.ndarray, width: float) -> Gate:
    """A gate of that width across the way."""
    return gate_between(center + width / 2 * left_of(along), center - width / 2 * left_of(along))


def lane(start: Sequence[float] | np.ndarray, end: np.ndarray, half_width: float) -> np.ndarray:
    """A strip from one point to another, `[4, 2]`."""
    way = end - start
    aside = half_width / math.hypot(way[0], way[1]) * left_of(way)
    return np.array([start - aside, end - aside, end + aside, start + aside])
