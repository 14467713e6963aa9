"""The terrain that a policy sees on the robot: from the course's map and the pose, and from a measured height grid."""

from dataclasses import dataclass

import numpy as np

from robot.loop.parameters import number
from robot.loop.transport import NS, Array, Snapshot
from sim import observation as obs
from sim.course.description import Course
from sim.observation import Layout
from sim.robots.description import Robot

FRESH = 0.5
"""A measured grid older than this is not used, s."""


@dataclass(frozen=True)
class GridPlace:
    """Where a measured height grid lies: it moves with the base and turns with its heading, but does not tilt."""

    resolution: float = number(0.05, 0.005, 1.0, "Edge of a cell of the height grid, in m.")
    front: float = number(2.0, 0.0, 10.0, "Distance ahead from the base to the grid's first row, in m.")
    left: float = number(0.5, 0.0, 10.0, "Distance to the left from the base to the grid's first column, in m.")

    def sample(self, heights: Array, x: Array, y: Array, pose: Array) -> Array:
        """Heights at world points `x`, `y` (m): the cell's, NaN outside the grid."""
        return obs.sampled(heights, x, y, pose, self.resolution, self.front, self.left)


class TerrainHeights:
    """Gives the policy's terrain heights. Boards that must not be touched are on the map alone."""

    def __init__(self, robot: Robot, course: Course | None, grid: GridPlace = GridPlace()) -> None:
        """Without a `course` and a measured grid the ground is flat, level with the pose's origin."""
        self.robot, self.course, self.grid = robot, course, grid
        self._mapped = None if course is None else course.whole
        self.doubted = False
        """Whether the newest grid is not to be believed, see `robot.loop.motion`: the map takes its place."""

    def ground(self, x: Array, y: Array) -> Array:
        """Height of the mapped ground, m, at arrays of x and y, m."""
        return np.zeros(np.shape(x)) if self._mapped is None else self._mapped.height(x, y)

    def below(self, snapshot: Snapshot) -> float:
        """Height of the mapped ground under the base, m."""
        return float(self.ground(snapshot.pose[None, 0], snapshot.pose[None, 1])[0])

    def is_measured(self, snapshot: Snapshot, now: int) -> bool:
        """Whether there is a fresh measured grid at `now` (ns)."""
        return snapshot.heights is not None and (now - snapshot.heights_time) / NS < FRESH

    def measured(self, snapshot: Snapshot, x: Array, y: Array) -> Array:
        """Height by the measured grid, m, at arrays of x and y, m; NaN where it has no cell."""
        if snapshot.heights is None:
            return np.full(np.shape(x), np.nan)
        return self.grid.sample(snapshot.heights, x, y, snapshot.pose)

    def heights(self, layout: Layout, snapshot: Snapshot, now: int, known: bool = True) -> Array:
        """The heights input of a layout, float32 `[1, n]`; flat ground where the pose is not `known`."""
        if not known:
            return np.zeros((1, layout.height_size), np.float32)
        pose = snapshot.pose
        used = self.is_measured(snapshot, now) and not self.doubted

        def ground(x: Array, y: Array) -> Array:
            mapped = self.ground(x, y)
            if not used:
                return mapped
            seen = self.measured(snapshot, x, y)
            return np.where(np.isnan(seen), mapped, seen)

        pits = None if self.course is None else self.course.pit
        place = pose[None, :2], pose[3:4], pose[2:3]
        return obs.terrain_heights(np, self.robot, layout, ground, *place, pits=pits).astype(np.float32)
