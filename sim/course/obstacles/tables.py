"""The two tables: a run begins on one and ends on the other."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from sim.course.obstacles.base import Obstacle, Point, registered, require
from sim.course.placement import WAY, Placed, gate_across, lane, step_ahead, unit, xy
from sim.course.terrain import Block, Piece, footprint
from sim.planar import wrap

OPEN_GATE = 0.7
"""Width of the start table's gate, m (official)."""
AFTER_START = 1.1
"""Least distance of all other gates from the start table's middle along the way off it, m (official: 1.2)."""
TABLE_BEHIND = 0.9, 1.2
"""From the board's far edge to a table that follows, m (official: 1.0)."""
BEHIND_BOARD = 0.7
"""From the board to the jump's last gate, m (official)."""


@dataclass(frozen=True)
class Table:
    """A square-cornered platform."""

    center: Point
    size: tuple[float, float] = (1.0, 1.0)
    height: float = 0.1


@dataclass(frozen=True)
class _OnTable(Obstacle):
    """An obstacle that is a table."""

    table: Table

    def pieces(self) -> tuple[Piece, ...]:
        return (Block(self.name, self.table.center, self.table.size, top=self.table.height),)

    def check(self) -> None:
        super().check()
        sizes = (*self.table.size, self.table.height)
        require(min(sizes) > 0, f"a table needs positive size and height, got {self.table}")

    def moved(self, move: Callable[[Point], Point]) -> Self:
        return replace(super().moved(move), table=replace(self.table, center=move(self.table.center)))


@registered
@dataclass(frozen=True)
class StartTable(_OnTable):
    """Where the robot stands at first; the clock starts at its gate."""

    KIND: ClassVar[str] = "start table"
    ONCE: ClassVar[bool] = True
    STARTS_CLOCK: ClassVar[bool] = True
    TRIED_AGAIN: ClassVar[bool] = True

    @classmethod
    def first(cls, rng: np.random.Generator) -> Placed:
        """The table that a generated course begins with, at the origin."""
        yaw = int(rng.integers(4)) * np.pi / 2
        along = unit(yaw)
        center, gate = np.zeros(2), gate_across(0.9 * along, along, OPEN_GATE)
        obstacle = cls(cls.KIND, cls.SIZE, (gate,), Table((0.0, 0.0)))
        way = lane(center, 1.15 * along, WAY)
        return Placed(
            obstacle, center, yaw, 1.15 * along, yaw, [_corners(center)], [way],
            start=(0.0, 0.0, float(wrap(yaw))), clear=AFTER_START,
        )  # fmt: skip


@registered
@dataclass(frozen=True)
class EndTable(_OnTable):
    """Where the robot has to stay."""

    KIND: ClassVar[str] = "end table"
    ONCE: ClassVar[bool] = True
    ENDS_RUN: ClassVar[bool] = True

    def completed(self, passed: int, held: bool, touched: bool) -> bool:
        return held

    @classmethod
    def place(cls, rng: np.random.Generator, before: Placed, last: bool, poles: int) -> Placed | None:
        if before.table_behind:
            yaw = float(np.round(before.leaving / (np.pi / 2)) * np.pi / 2)
            center = before.exit + (rng.uniform(*TABLE_BEHIND) - BEHIND_BOARD + 0.5) * unit(before.leaving)
            return cls._at(center, yaw, before.exit, [lane(before.exit, center, WAY)])
        entry, bearing = step_ahead(rng, before)  # walked onto squarely from there, half a metre before its edge
        yaw = float(np.round(bearing / (np.pi / 2)) * np.pi / 2)
        center = entry + 1.0 * unit(yaw)
        return cls._at(center, yaw, entry, [lane(before.exit, entry, WAY), lane(entry, center, WAY)])

    @classmethod
    def _at(cls, center: np.ndarray, yaw: float, entry: np.ndarray, ways: list[np.ndarray]) -> Placed:
        """With its gate 0.1 m behind the edge that is crossed (official)."""
        along = unit(yaw)
        obstacle = cls(cls.KIND, cls.SIZE, (gate_across(center - 0.4 * along, along, 1.0),), Table(xy(center)))
        return Placed(obstacle, entry, yaw, center, yaw, [_corners(center)], ways)


def _corners(center: np.ndarray) -> np.ndarray:
    return footprint(Block("", xy(center), (1.0, 1.0), 0.0))
