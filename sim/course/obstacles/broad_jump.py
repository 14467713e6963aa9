"""The broad jump: a thin board that must not be touched."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from sim.course.obstacles.base import Obstacle, Point, registered, require
from sim.course.obstacles.tables import BEHIND_BOARD
from sim.course.placement import WAY, Placed, gate_across, joined, lane, step_ahead, too_sharp, unit, xy
from sim.course.terrain import Block, own_axes, pit
from sim.planar import wrap

BERTH = 0.055
"""A board is shown to policies as a pit that is longer by this at both ends, m: feet come down within centimetres."""
BOARD_LENGTH = 0.3, 0.5
"""Of generated ones, m."""
BEFORE_BOARD = 0.8
"""From the jump's first gate to the board, m (official)."""
FREE_RUN_UP = 0.85
"""Free way before the jump's first gate, m: with `BEFORE_BOARD` a run-up of 1.65 m (official: 1.55)."""
STOP = 0.9
"""Free way behind the jump's last gate, m, where no table follows."""


@dataclass(frozen=True)
class Board:
    """A thin board that must not be touched."""

    center: Point
    yaw: float = 0.0
    """Direction of the jump, rad."""
    length: float = 0.5
    width: float = 1.0
    thickness: float = 0.001


@registered
@dataclass(frozen=True)
class BroadJump(Obstacle):
    """A board between two gates."""

    board: Board

    KIND: ClassVar[str] = "jump"
    SKILL: ClassVar[str] = "jump"
    SIZE: ClassVar[float] = 4.0

    def forbidden(self) -> Block:
        b = self.board
        return Block(f"{self.name} board", b.center, (b.length, b.width), top=b.thickness, yaw=b.yaw)

    def pit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        b = self.board
        return pit(np, *own_axes(b.center, b.yaw, x, y), b.length / 2 + BERTH, b.width / 2)

    def completed(self, passed: int, held: bool, touched: bool) -> bool:
        return passed >= len(self.gates) and not touched

    def check(self) -> None:
        super().check()
        b = self.board
        positive = min(b.length, b.width, b.thickness) > 0
        require(positive, f"the board of '{self.name}' needs positive length, width and thickness, got {b}")

    def moved(self, move: Callable[[Point], Point]) -> Self:
        return replace(super().moved(move), board=replace(self.board, center=move(self.board.center)))

    @classmethod
    def place(cls, rng: np.random.Generator, before: Placed, last: bool, poles: int) -> Placed | None:
        entry, bearing = step_ahead(rng, before)
        heading = bearing + rng.uniform(-1.6, 1.6)
        if last:  # towards a table, squarely: it has no yaw
            heading = np.round(heading / (np.pi / 2)) * np.pi / 2 + rng.uniform(-0.06, 0.06)
        return None if too_sharp(before, heading) else joined(before, cls._at(rng, entry, heading, last))

    @classmethod
    def _at(cls, rng: np.random.Generator, entry: np.ndarray, heading: float, last: bool) -> Placed:
        """With its gates, its run-up and room to stop; where a table follows, the table is the room."""
        along, length = unit(heading), float(rng.uniform(*BOARD_LENGTH))
        first = entry + FREE_RUN_UP * along
        center = first + (BEFORE_BOARD + length / 2) * along
        end = center + (length / 2 + BEHIND_BOARD) * along
        leave = end + (0.0 if last else STOP) * along
        board = Board(xy(center), float(wrap(heading)), length)
        gates = tuple(gate_across(at, along, 1.0) for at in (first, end))
        solid = lane(center - length / 2 * along, center + length / 2 * along, board.width / 2)
        return Placed(
            cls(cls.KIND, cls.SIZE, gates, board), entry, heading, leave, heading, [solid], [lane(entry, leave, WAY)],
            np.array([entry, end]), table_behind=True,
        )  # fmt: skip
