"""The A-frame: two ramps that meet in a ridge."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np

from sim.course.obstacles.base import Obstacle, Point, registered, require
from sim.course.placement import WAY, Placed, gate_across, joined, lane, step_ahead, too_sharp, unit, xy
from sim.course.terrain import Block, Piece, Ramp, footprint
from sim.planar import wrap

SLOPE = np.deg2rad(20.0), np.deg2rad(30.0)
"""Of generated ones, rad."""
FOOT = 0.5
"""Free way before and behind the A-frame, m."""


@dataclass(frozen=True)
class AFrame:
    """Two ramps that meet in a ridge; `yaw` is the direction of travel."""

    center: Point
    yaw: float
    ramp_length: float = 2.0
    """Length of each deck along its slope, m."""
    width: float = 1.0
    slope: float = float(np.deg2rad(30.0))

    @property
    def half_length(self) -> float:
        """Plan distance from ridge to foot, m."""
        return self.ramp_length * float(np.cos(self.slope))

    @property
    def apex(self) -> float:
        """Height of the ridge, m."""
        return self.ramp_length * float(np.sin(self.slope))


def ramps(frame: AFrame, name: str = "a frame") -> tuple[Ramp, Ramp]:
    """The two decks of an A-frame."""
    direction = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    half = frame.half_length
    first, second = (np.array(frame.center) + sign * half / 2 * direction for sign in (-1, 1))
    size = (half, frame.width)
    return (
        Ramp(f"{name} up", (float(first[0]), float(first[1])), size, 0.0, frame.apex, frame.yaw, deck=True),
        Ramp(f"{name} down", (float(second[0]), float(second[1])), size, frame.apex, 0.0, frame.yaw, deck=True),
    )


@registered
@dataclass(frozen=True)
class AFrameObstacle(Obstacle):
    """An A-frame with gates at its feet and its ridge."""

    frame: AFrame

    KIND: ClassVar[str] = "a frame"
    SKILL: ClassVar[str] = "climb"
    SIZE: ClassVar[float] = 6.0

    def pieces(self) -> tuple[Piece, ...]:
        return ramps(self.frame, self.name)

    def footprints(self) -> list[tuple[str, np.ndarray]]:
        f = self.frame
        return [(self.name, footprint(Block("", f.center, (2 * f.half_length, f.width), 0.0, yaw=f.yaw)))]

    def check(self) -> None:
        super().check()
        frame = self.frame
        require(
            frame.ramp_length > 0 and frame.width > 0,
            f"the frame of '{self.name}' needs positive ramp_length and width, got {frame.ramp_length} and "
            f"{frame.width}",
        )
        require(0 < frame.slope < 1.2, f"the slope of '{self.name}' must be between 0 and 1.2 rad, got {frame.slope}")

    def moved(self, move: Callable[[Point], Point]) -> Self:
        return replace(super().moved(move), frame=replace(self.frame, center=move(self.frame.center)))

    @classmethod
    def place(cls, rng: np.random.Generator, before: Placed, last: bool, poles: int) -> Placed | None:
        entry, bearing = step_ahead(rng, before)
        heading = bearing + rng.uniform(-1.6, 1.6)
        return None if too_sharp(before, heading) else joined(before, cls._at(rng, entry, heading))

    @classmethod
    def _at(cls, rng: np.random.Generator, entry: np.ndarray, heading: float) -> Placed:
        """With gates at its feet and its ridge, as wide as the official ones."""
        frame = AFrame((0.0, 0.0), float(wrap(heading)), slope=float(rng.uniform(*SLOPE)))
        along, half = unit(heading), frame.half_length
        center = entry + (FOOT + half) * along
        gates = tuple(gate_across(center + at * along, along, 1.14) for at in (-half, 0.0, half))
        leave = center + (half + FOOT) * along
        solid = lane(center - half * along, center + half * along, frame.width / 2)
        ways = [lane(entry, center, WAY), lane(center, leave, WAY)]
        obstacle = cls(cls.KIND, cls.SIZE, gates, replace(frame, center=xy(center)))
        return Placed(obstacle, entry, heading, leave, heading, [solid], ways)
