"""The referee: a stream of poses in, the live score out; the timing system of a course, simulated or real."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from robot.loop.transport import NS, Array
from sim import observation as obs
from sim.course.description import Course
from sim.course.judge import Falls, ending
from sim.course.score import MAX_TIME, Scorer, write_log
from sim.errors import InputError
from sim.robots.description import Fall, default_robot


class Referee:
    """Scores one run. Time is that of the poses' stamps."""

    def __init__(self, course: Course, time_limit: float = MAX_TIME, fall: Fall | None = None) -> None:
        """`time_limit` counts from the start table's gate, s; `fall` says when the robot is down (the default robot's
        where it is not given)."""
        self.course, self.time_limit = course, time_limit
        self.falls = Falls(fall or default_robot().fall, 1)
        self.scorer = Scorer(course)
        self.end = ""
        """Why the run ended; "" while it goes on."""
        self.times: list[float] = []
        self.positions: list[tuple[float, float]] = []
        self._first: int | None = None
        self._started: float | None = None
        self._start = [o.name for o in course.obstacles].index("start table")

    def pose(self, stamp: int, position: Array, orientation: Array) -> bool:
        """The base at `position` (m) `[3]` with `orientation` (w, x, y, z) at `stamp` (ns). Returns whether the run
        goes on. Poses that are not finite or not newer than the last are left out."""
        if self.end:
            return False
        if not (np.isfinite(position).all() and np.isfinite(orientation).all()):
            return True
        if self._first is None:
            self._first = stamp
        time = (stamp - self._first) / NS
        if self.times and time <= self.times[-1]:
            return True
        x, y, z = (float(value) for value in position)
        self.times.append(time)
        self.positions.append((x, y))
        self.scorer.update(time, x, y)
        if self._started is None and self.scorer.passed[self._start] > 0:
            self._started = time
        self.end = self._ending(time, x, y, z, orientation)
        return not self.end

    def touch_board(self) -> None:
        """The board was touched: by the simulator's contact sensor, or by a judge."""
        self.scorer.touch_jump()

    def give_up(self, why: str) -> None:
        """Ends a run from outside, as where no poses come any more."""
        self.end = self.end or why

    def _ending(self, time: float, x: float, y: float, z: float, orientation: Array) -> str:
        upright = -obs.projected_gravity(np, orientation[None])[:, 2]
        clearance = z - self.course.height(np.array([x]), np.array([y]))
        fallen = bool(self.falls.look(time, clearance, upright)[0])
        overtime = self._started is not None and time - self._started >= self.time_limit
        return ending(self.scorer, self.course, x, y, fallen=fallen, overtime=overtime)

    def result(self) -> dict[str, Any]:
        """JSON-ready: what `barkour score` says, how the run ended, and whether it fell."""
        result = self.scorer.result().to_dict()
        return {**result, "end": self.end or "running", "fell": self.end == "fell", "course": self.course.name}

    def live(self) -> dict[str, Any]:
        """JSON-ready, for a display: time, score so far, gates passed."""
        now = self.scorer.result()
        return {
            "time_s": now.time_s if math.isfinite(now.time_s) else 0.0,
            "score": now.score,
            "obstacles": {name: obstacle.completed for name, obstacle in now.obstacles.items()},
            "end": self.end,
        }

    def write(self, path: Path) -> None:
        """Writes the pose log that `barkour score` and the official scorer read.

        Raises:
          InputError: it cannot be written, or there are no poses.
        """
        if not self.times:
            raise InputError("no pose ever came: there is no log to write")
        write_log(path, self.times, self.positions, f"referee, {self.course.name}")
