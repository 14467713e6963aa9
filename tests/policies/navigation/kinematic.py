"""A kinematic omnidirectional robot for tests of the navigator: lag, delay, acceleration limit, noise, a body."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sim.course.description import Course
from sim.course.score import CourseScore, Scorer
from sim.planar import to_body, to_world, wrap

DT = 0.02
FRONT, REAR, HALF_WIDTH = 0.25, 0.42, 0.18
"""The standing robot's colliders (sim/robots/barkour_v0/robot.xml) ahead of, behind and beside its base, m."""


@dataclass
class Robot:
    """Velocity follows the command through a delay, a first-order lag and an acceleration limit.

    The defaults lag as the trained walker does in evaluation physics: 0.21 s in velocity, 0.10 s in yaw rate.
    """

    pose: np.ndarray
    lag: float = 0.17
    yaw_lag: float = 0.06
    delay: int = 2
    acceleration: float = 5.0
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    queue: list[np.ndarray] = field(default_factory=list)

    def step(self, command: np.ndarray) -> None:
        """One control period: command `[3]` in the heading frame, m/s and rad/s."""
        self.queue.append(np.asarray(command, float))
        delayed = self.queue.pop(0) if len(self.queue) > self.delay else np.zeros(3)
        change = (delayed - self.velocity) * (1 - np.exp(-DT / np.array([self.lag, self.lag, self.yaw_lag])))
        planar = np.linalg.norm(change[:2])
        if planar > self.acceleration * DT:
            change[:2] *= self.acceleration * DT / planar
        self.velocity = self.velocity + change
        forward, left, turn = self.velocity
        self.pose = self.pose + DT * np.array([*to_world(forward, left, self.pose[2]), turn])


def clearance(pose: np.ndarray, course: Course) -> float:
    """Free distance between the robot's rectangle and the nearest pole's surface, m; negative in contact."""
    if not course.poles:
        return np.inf
    poles = np.array([(p.x, p.y) for p in course.poles]) - pose[:2]
    x, y = to_body(poles[:, 0], poles[:, 1], pose[2])
    dx, dy = np.maximum(x - FRONT, -REAR - x), np.abs(y) - HALF_WIDTH
    outside = np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0)
    return float((outside - [p.radius for p in course.poles]).min())


@dataclass
class Run:
    """What happened: `[T, 3]` poses, `[T, 3]` commands."""

    result: CourseScore
    poses: np.ndarray
    commands: np.ndarray
    steps: list[Any]
    clearance: float
    gate_times: dict[tuple[str, int], float]

    @property
    def weave_time(self) -> float:
        """From the start table's gate to the last weave gate, s."""
        return self.gate_times[("weave poles", 5)] - self.gate_times[("start table", 0)]


def drive(
    course: Course,
    navigator: Any,
    start: tuple[float, float, float] | None = None,
    *,
    seconds: float = 60.0,
    noise: tuple[float, float] = (0.0, 0.0),
    seed: int = 0,
    lag: float = 0.17,
    tracking: float = 0.0,
    disturb: Callable[[int, Robot], None] | None = None,
    corrupt: Callable[[int, np.ndarray], np.ndarray] | None = None,
) -> Run:
    """Runs a navigator from `start` until the scorer calls the run over.

    `noise`: standard deviation of the measured position (m) and yaw (rad); `tracking`: of slowly varying errors of the
    velocity (m/s, rad/s); `disturb` may move the robot, `corrupt` what is measured, at a step.
    """
    rng = np.random.default_rng(seed)
    robot = Robot(np.array(start if start is not None else course.start, float), lag=lag)
    scorer, drift = Scorer(course), np.zeros(3)
    poses, commands, steps, near, times = [], [], [], np.inf, {}
    for k in range(int(seconds / DT)):
        measured = robot.pose + rng.normal(size=3) * [noise[0], noise[0], noise[1]]
        measured[2] = wrap(measured[2])
        out = navigator.step(corrupt(k, measured) if corrupt else measured, DT)
        drift = 0.95 * drift + 0.312 * tracking * rng.normal(size=3)
        moving = float(np.any(out.velocity != 0))
        left = robot.pose[:2]
        robot.step(out.velocity + drift * moving)
        if disturb:
            disturb(k, robot)
        before = list(scorer.passed)
        for share in (0.5, 1.0):  # every 10 ms, as course runs and official logs: gates are thin
            x, y = (left + share * (robot.pose[:2] - left)).tolist()
            scorer.update((k + share) * DT, x, y)
        for obstacle, was, now in zip(course.obstacles, before, scorer.passed, strict=True):
            if now > was:
                times[(obstacle.name, was)] = (k + 1) * DT
        near = min(near, clearance(robot.pose, course))
        poses.append(robot.pose)
        commands.append(out.velocity)
        steps.append(out)
        if scorer.over:
            break
    return Run(scorer.result(), np.array(poses), np.array(commands), steps, near, times)
