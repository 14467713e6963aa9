"""Who drives: specialists, a student, or both in turns, over the same robots with one memory.

Whoever drives, the specialists are asked what they would do, as they would be asked had they got the robots into this
state themselves: their memory is of what was applied, their clock is the robot's clock. With the student at the wheel
this is DAgger; the robot's clock is then the student's own.
"""

from collections.abc import Callable

import numpy as np

from distill.core.episodes import EpisodeRecorder
from distill.locomotion.student import TorchBundle
from policies.bundle.reader import target_step
from policies.skills.library import Skills
from policies.skills.runner import PolicyRunner
from policies.transformer import generalist_layout
from sim import gait as clocks
from sim import observation as obs
from sim.robots.description import Robot
from sim.robots.gaits import DRIVEN

SEGMENT = 40
"""Control steps after which it is drawn again who drives."""
NOISE = 0.25
"""Largest standard deviation of the exploration noise while specialists drive, in their action units; each world has
its own, from 0 on."""


class Wheel:
    """Draws, world by world, who drives and with how much noise."""

    def __init__(self, worlds: int, joints: int, beta: float, seed: int, noise: float = NOISE) -> None:
        self.joints = joints
        self.rng, self.beta = np.random.default_rng([seed, 0xD21]), beta
        self.sigma = noise * np.maximum(self.rng.uniform(-0.3, 1.0, worlds), 0.0)[:, None]
        self.teacher = np.ones(worlds, bool)
        self._offset = self.rng.integers(0, SEGMENT, worlds)
        self._steps = 0

    def turn(self) -> np.ndarray:
        """Worlds that a specialist drives in this step, bool `[worlds]`."""
        due = ((self._steps + self._offset) % SEGMENT == 0) | (self._steps == 0)
        drawn = self.rng.random(len(self.teacher)) < self.beta
        self.teacher = np.where(due, drawn, self.teacher)
        self._steps += 1
        return self.teacher

    def noise(self) -> np.ndarray:
        """Exploration noise in action units, `[worlds, J]`."""
        return (self.sigma * self.rng.standard_normal((len(self.sigma), self.joints))).astype(np.float32)


class Memory:
    """What a generalist remembers of `worlds` robots, and its action."""

    def __init__(self, robot: Robot, worlds: int, student: TorchBundle | None) -> None:
        self.robot, self.student = robot, student
        self.layout = student.layout if student else generalist_layout(robot.joints)
        self.own = obs.frame_slices(robot.joints)["last_action"]
        self.history = np.zeros((worlds, self.layout.history, self.layout.frame_size), np.float32)
        self.last_action = np.zeros((worlds, robot.joints), np.float32)
        self.fresh = np.ones(worlds, bool)

    def see(
        self, frame: np.ndarray, command: np.ndarray, clock: np.ndarray, heights: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Remembers a step and returns its stamped frame `[worlds, frame]` and the student's action `[worlds, J + 1]`
        (zeros without one).

        `frame` `[worlds, frame_size]` may hold anything for its last action: the generalist's own is put there.
        """
        frame = np.concatenate([frame[:, : self.own.start], self.last_action], 1)
        newest = obs.stamp(np, self.layout, frame, command, clock)
        self.history = obs.remembered(np, self.history, newest, self.fresh)
        self.fresh[:] = False
        if self.student is None:
            return newest, np.zeros((len(frame), DRIVEN.actions(self.robot.joints)), np.float32)
        limit = self.robot.action_limit
        observation = obs.observe(np, self.layout, self.history, command, clock, heights)
        return newest, np.clip(self.student(observation), -limit, limit)

    def targets(self, action: np.ndarray, before: np.ndarray, begun: np.ndarray) -> np.ndarray:
        """The joint targets `[worlds, J]` (rad) of the student's `action` `[worlds, J + 1]`, as far from those `before`
        as it may go; robots that have not `begun` `[worlds]` have none before."""
        own = actions_to_targets(self.robot, action[:, : self.robot.joints])
        return obs.near(np, own, before, target_step(self.student), begun)

    def begin(self, mask: np.ndarray) -> None:
        """Forgets the robots in `mask` `[worlds]`."""
        self.fresh |= mask
        self.last_action[mask] = 0.0


class RecordingDriver:
    """Stands in for the `PolicyRunner` of `policies.evaluation.course_run.CourseWorlds` and records."""

    def __init__(
        self, teachers: Skills, student: TorchBundle | None, worlds: int, beta: float, seed: int, noise: float = NOISE
    ) -> None:
        self.teachers, self.memory = PolicyRunner(teachers, worlds), Memory(teachers.robot, worlds, student)
        self.wheel, self.robot = Wheel(worlds, teachers.robot.joints, beta, seed, noise), teachers.robot
        self.phase, self.drive = np.zeros(worlds, np.float32), np.zeros(worlds, np.float32)
        self.recorder = EpisodeRecorder()
        self.alive = np.ones(worlds, bool)
        """Set from outside: worlds whose steps are recorded."""

    @property
    def users(self) -> np.ndarray:
        """As `PolicyRunner.users`."""
        return self.teachers.users

    @property
    def changed(self) -> np.ndarray:
        """As `PolicyRunner.changed`."""
        return self.teachers.changed

    @property
    def jumps(self) -> np.ndarray:
        """As `PolicyRunner.jumps`."""
        return self.teachers.jumps

    def also(self) -> dict[str, np.ndarray]:
        """Further fields `[worlds, ...]` of the step at hand, once the student was asked."""
        return {}

    def step(
        self, sensors: obs.Sensors, command: np.ndarray, users: np.ndarray, heights: Callable[[obs.Layout], np.ndarray],
        preview: Callable[[obs.Preview], np.ndarray] | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Joint targets to apply, rad `[worlds, J]`; see `PolicyRunner.step`."""
        robot, fresh = self.robot, np.array(self.memory.fresh)
        before = self.teachers.handover.targets
        following = clocks.advance(np, DRIVEN, self.phase, command, robot.control_period, drive=self.drive)
        self.phase = np.where(fresh, 0.0, following).astype(np.float32)
        wanted = self.teachers.step(sensors, command, users, heights, preview, phase=self.phase)
        turning = self.teachers.frequency - DRIVEN.frequency
        seen = heights(self.memory.layout)
        clock = clocks.clock(np, DRIVEN, self.phase, command)
        frame = obs.frame(np, robot, sensors, self.memory.last_action)
        newest, action = self.memory.see(frame, command, clock, seen)
        label = targets_to_actions(robot, wanted)
        self.recorder.add(
            fresh, self.alive, frames=newest, heights=seen.astype(np.float16),
            skill=self.teachers.users.astype(np.uint8),
            action=np.concatenate([label, turning[:, None]], 1).astype(np.float32), **self.also(),
        )  # fmt: skip
        teacher = self.wheel.turn() if self.memory.student else np.ones(len(users), bool)
        noisy = wanted + robot.action_scale.astype(np.float32) * self.wheel.noise()
        own = self.memory.targets(action, before, ~fresh)
        applied = np.clip(np.where(teacher[:, None], noisy, own), robot.joint_lower, robot.joint_upper)
        applied = applied.astype(np.float32)
        self.drive = np.where(teacher, turning, action[:, robot.joints]).astype(np.float32)
        self.memory.last_action = targets_to_actions(robot, applied)
        self.teachers.adopt(applied)
        return applied


def targets_to_actions(robot: Robot, targets: np.ndarray) -> np.ndarray:
    """A generalist's actions `[N, J]` that ask for joint `targets` `[N, J]` (rad)."""
    zero = np.zeros(len(targets), np.float32)
    return obs.action_for(np, robot, DRIVEN, targets, zero, np.zeros((len(targets), 3), np.float32), zero)


def actions_to_targets(robot: Robot, actions: np.ndarray) -> np.ndarray:
    """The inverse of `targets_to_actions`, within the joints' ranges."""
    zero = np.zeros(len(actions), np.float32)
    return obs.joint_targets(np, robot, DRIVEN, actions, zero, np.zeros((len(actions), 3), np.float32), zero)
