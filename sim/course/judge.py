"""Why a run on a course ends: one judge for course runs, environments and the referee of a real course."""

import numpy as np

from sim.course.description import Course
from sim.course.score import DOWN_SECONDS, Scorer, outside
from sim.robots.description import Fall


class Falls:
    """Which of several robots have fallen: those that have been down for longer than `DOWN_SECONDS`."""

    def __init__(self, fall: Fall, robots: int) -> None:
        self.fall = fall
        self._up = np.zeros(robots)
        """When each robot was last seen not to be down, s."""

    def begin(self, time: float) -> None:
        """All robots stand at `time`, s."""
        self._up[:] = time

    def look(
        self, time: float, clearance: np.ndarray, upright: np.ndarray, resting: np.ndarray | bool = False
    ) -> np.ndarray:
        """Who has fallen by `time` (s), bool `[robots]`.

        Args:
          clearance: of each base over the ground, m `[robots]`.
          upright: cosine of each base's tilt `[robots]`.
          resting: whether its trunk touches anything, where that is known: such a robot is down earlier `[robots]`.
        """
        down = (upright < self.fall.upright) | (clearance < self.fall.clearance)
        down |= resting & (clearance < RESTING * self.fall.clearance)
        self._up = np.where(down, self._up, time)
        return time - self._up > DOWN_SECONDS + 1e-9


RESTING = 1.5
"""A robot whose trunk touches something is down below so many times the clearance at which any robot is."""


def ending(scorer: Scorer, course: Course, x: float, y: float, *, fallen: bool, overtime: bool) -> str:
    """Why a run ends with the base at `x`, `y` (m); "" while it goes on."""
    if scorer.over:
        return "held the end table" if scorer.result().finished else "left the end table"
    if fallen:
        return "fell"
    if outside(course, x, y):
        return "left the course"
    return "time limit" if overtime else ""
