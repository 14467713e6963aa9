"""What the control loop knows of the outside: what came in last and when, where joint targets go, who asks for what.

A transport (the in-process simulation, ROS 2) hands every message to an `Intake`, which checks its form and its numbers
before anything else sees them, and is given an `Output` every control step. Times are on the steady clock of this
computer, ns; the stamps inside messages are their senders' and only compared with each other.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np

from robot.loop.refusals import Refusals
from sim import observation as obs
from sim.course.description import SKILLS
from sim.robots.description import Robot

NS = 1_000_000_000
NEVER = -(2**62)
"""The time of something that has not happened, ns."""


class Mode(IntEnum):
    """What joints are asked for."""

    NOTHING = 0
    """Nothing is sent: the robot is not ours."""
    POSITION = 1
    """Joint targets, held by the drives' own PD."""
    DAMP = 2
    """No target: the drives only brake (their velocity gain alone)."""


class State(IntEnum):
    """State of the controller."""

    DISARMED = 0
    STANDING_UP = 1
    RUNNING = 2
    SOFT_STOP = 3
    """Brakes, stands, then damps and disarms."""
    EMERGENCY = 4
    """Damping at once, until armed again."""


@dataclass
class Output:
    """What the loop asks of the joints in one control step."""

    mode: Mode
    targets: np.ndarray
    """Joint targets, rad, float32 `[12]`, `Robot.joint_names` order; without meaning unless `mode` is POSITION."""
    stamp: int
    """Stamp of the joint reading that it answers, ns on its sender's clock."""


@dataclass
class Snapshot:
    """The newest accepted message of each kind, with the time it came in (ns, steady clock; NEVER before the first)."""

    position: np.ndarray = field(default_factory=lambda: np.zeros(12))
    """Joint angles, rad `[12]`."""
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(12))
    """rad/s `[12]`."""
    effort: np.ndarray = field(default_factory=lambda: np.full(12, np.nan))
    """N m `[12]`; NaN where the robot does not report it."""
    joints_time: int = NEVER
    joints_stamp: int = 0
    orientation: np.ndarray = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, 0.0]))
    """Quaternion (w, x, y, z), world from base `[4]`."""
    angular_velocity: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Gyro, rad/s, base frame `[3]`."""
    imu_time: int = NEVER
    pose: np.ndarray = field(default_factory=lambda: np.zeros(4))
    """x, y, z (m) and heading (rad) in the course frame `[4]`."""
    pose_time: int = NEVER
    command: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """Forward, leftward velocity (m/s) and yaw rate (rad/s) in the heading frame `[3]`."""
    command_time: int = NEVER
    skill: int = 0
    """Index into `sim.course.description.SKILLS` of the skill that is asked for (specialists only)."""
    heights: np.ndarray | None = None
    """A measured height grid `[rows, columns]`, see `robot.loop.terrain`; None where only the course map is known."""
    heights_time: int = NEVER

    def copy(self) -> "Snapshot":
        """A snapshot that later messages do not change."""
        return Snapshot(**vars(self))  # arrays are replaced, never written into


class Request:
    """An operator's `arm`, `disarm` or `stop`, answered by the loop in its next step."""

    def __init__(self, kind: str, asked: int | None = None) -> None:
        """`asked` is when, ns: who asked a loop that stood still must not be heard when it goes on."""
        self.kind, self.asked = kind, asked
        self.granted = False
        self.message = "the control loop does not answer"
        self._done = threading.Event()

    def answer(self, granted: bool, message: str) -> None:
        """Called by the loop."""
        self.granted, self.message = granted, message
        self._done.set()

    def wait(self, seconds: float) -> bool:
        """Waits for the answer; whether it was granted."""
        self._done.wait(seconds)
        return self.granted


class Transport(Protocol):
    """Where outputs go. Everything that comes in goes to the `Intake` that the transport was given."""

    def write(self, output: Output) -> None:
        """Sends joint targets or damping; called once a control step unless there is nothing to send."""
        ...

    def report(self, status: dict[str, Any]) -> None:
        """Publishes the controller's status, JSON-ready; called about twice a second and at every change of state."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...


@dataclass(frozen=True)
class Plausible:
    """What a message may contain to be believed."""

    joint_margin: float = 0.2
    """Joint angles may lie this far outside the joint's range, rad."""
    joint_speed: float = 60.0
    """rad/s; the motors' no-load speed is less than half."""
    jump: float = 0.2
    """How far a joint angle or the attitude may be from where its own speeds have led since the last reading, rad."""
    drift: float = 3.0
    """What is added to `jump` for the time since the last reading that was believed, rad/s."""
    acceleration: float = 2500.0
    """How fast a joint's speed may change between two readings, rad/s^2: what they do not show is added to `jump`."""
    gyro: float = 20.0
    """rad/s; three times what the course takes."""
    quaternion: float = 0.05
    """How far a quaternion's length may be from 1."""
    pose_step: float = 0.5
    """How far a pose may be from the one before it, m; believed after `RELOCATED` in a row that agree."""
    pose_range: float = 1e5
    """How far a pose may be from the origin, m."""
    delay: float = 0.06
    """How much later than usual a message may come in, by its own stamp, s."""
    frozen: float = 0.01
    """Readings of a moving robot that do not change in their last digit for this long are frozen, s."""


RELOCATED = 25
CLOCK_JUMP = 1.0
"""Stamps that run backwards by less than this are old messages, not a clock that was set, s."""
AGREE = 3
"""A clock was set when as many stamps in a row agree about it."""
SILENCE = 1.0
"""A sender that was silent for so long may have been started anew, with another clock, s."""
DRIFT = 2e-4
"""Clocks of two computers may drift apart by this, s/s."""


def _message(take: Callable[..., bool]) -> Callable[..., bool]:
    """A method that takes a message: one at a time, and whatever the message holds, nothing is raised."""

    @functools.wraps(take)
    def guarded(self: "Intake", *values: Any, **named: Any) -> bool:
        with self._taking, np.errstate(all="ignore"):
            try:
                return take(self, *values, **named)
            except Exception as error:
                return self._refuse(take.__name__, f"{take.__name__}: no such message ({type(error).__name__})")

    return guarded


class Intake:
    """Takes messages from any thread, believes them or not, and keeps the newest of each kind.

    A message that is refused leaves the one before it in place, which then ages. Every refusal is counted and logged.
    Arrays are copied: what a sender does with its own afterwards changes nothing here.
    """

    def __init__(
        self,
        robot: Robot,
        clock: Callable[[], int],
        refusals: Refusals | None = None,
        plausible: Plausible = Plausible(),
    ) -> None:
        """`clock` is the steady clock, ns."""
        self.robot, self.clock, self.plausible = robot, clock, plausible
        self.refusals = refusals or Refusals()
        self.requests: deque[Request] = deque()
        self.moving = False
        """The robot moves, so its readings must change: set by the loop. One that stands may read the same twice."""
        self._latest = Snapshot()
        self._lock = threading.Lock()
        """Held for a copy only, so that the loop never waits for a message that is looked at."""
        self._taking = threading.Lock()
        self._order: tuple[tuple[str, ...], np.ndarray] | None = None
        self._senders: dict[str, _Sender] = {}
        self._path = _Path()
        self._relocated = 0
        self._elsewhere = np.zeros(3)
        """The last pose that was refused for its distance, m `[3]`."""

    def snapshot(self) -> Snapshot:
        """The newest of everything."""
        with self._lock:
            return self._latest.copy()

    def ask(self, kind: str) -> Request:
        """Puts an operator's `arm`, `disarm` or `stop` before the loop."""
        request = Request(kind, self.clock())
        self.requests.append(request)
        return request

    # --- messages -------------------------------------------------------------------------------------------------

    @_message
    def joints(
        self,
        names: Sequence[str],
        position: Sequence[float],
        velocity: Sequence[float],
        effort: Sequence[float] = (),
        stamp: int = 0,
    ) -> bool:
        """Joint angles (rad), speeds (rad/s) and torques (N m, may be empty), matched by name; `stamp` ns.

        Returns whether it was believed.
        """
        now = self.clock()
        index = self._index(names)
        if index is None:
            return False
        q, v = self._numbers("joints", position, len(names)), self._numbers("joints", velocity, len(names))
        torque = self._torques(effort, len(names))
        if q is None or v is None or torque is None:
            return False
        q, v, torque = q[index], v[index], torque[index]
        robot, limits = self.robot, self.plausible
        beyond = np.maximum(robot.joint_lower - q, q - robot.joint_upper)
        worst = int(beyond.argmax())
        if beyond[worst] > limits.joint_margin:
            low, high = float(robot.joint_lower[worst]), float(robot.joint_upper[worst])
            return self._refuse(
                "joint range",
                f"{robot.joint_names[worst]} is at {q[worst]:.3f} rad, its range is {low:.3f} to {high:.3f}",
            )
        fastest = int(np.abs(v).argmax())
        if abs(v[fastest]) > limits.joint_speed:
            return self._refuse(
                "joint speed",
                f"{robot.joint_names[fastest]} turns at {v[fastest]:.1f} rad/s, limit {limits.joint_speed}",
            )
        if self._latest.joints_time != NEVER:
            self._path.goes_on(now, v)
            off = np.abs(q - self._path.position)
            most = int(off.argmax())
            unseen = limits.acceleration * self._path.squares / 8
            allowed = limits.jump + limits.drift * (now - self._latest.joints_time) / NS + unseen
            if off[most] > allowed:
                return self._refuse(
                    "joint jump", f"{robot.joint_names[most]} jumped by {off[most]:.3f} rad, limit {allowed:.3f}"
                )
        if not self._timely("joints", now, stamp, np.concatenate([q, v])):
            return False
        self._path.begin(now, q, v)
        with self._lock:
            latest = self._latest
            latest.position, latest.velocity, latest.effort = q, v, torque
            latest.joints_time, latest.joints_stamp = now, stamp
        return True

    @_message
    def imu(self, orientation: Sequence[float], angular_velocity: Sequence[float], stamp: int = 0) -> bool:
        """Quaternion (w, x, y, z) and gyro (rad/s, base frame). Returns whether it was believed."""
        now = self.clock()
        q, w = self._numbers("imu", orientation, 4), self._numbers("imu", angular_velocity, 3)
        if q is None or w is None:
            return False
        length = self._unit("imu", q)
        if length is None:
            return False
        fastest = float(np.abs(w).max())
        if fastest > self.plausible.gyro:
            return self._refuse("gyro", f"the gyro reads {fastest:.1f} rad/s, limit {self.plausible.gyro}")
        q = q / length
        before = self._latest
        if before.imu_time != NEVER:
            turned = 2 * float(np.arccos(min(abs(float(q @ before.orientation)), 1.0)))
            rate = max(float(np.linalg.norm(w)), float(np.linalg.norm(before.angular_velocity)))
            allowed = self.plausible.jump + (rate + self.plausible.drift) * (now - before.imu_time) / NS
            if turned > allowed:
                return self._refuse("imu jump", f"the attitude jumped by {turned:.3f} rad, limit {allowed:.3f}")
        if not self._timely("imu", now, stamp, np.concatenate([q, w])):
            return False
        with self._lock:
            self._latest.orientation, self._latest.angular_velocity = q, w
            self._latest.imu_time = now
        return True

    @_message
    def odometry(self, position: Sequence[float], orientation: Sequence[float], stamp: int = 0) -> bool:
        """Base position (m) and quaternion (w, x, y, z) in the course frame. Returns whether it was believed."""
        now = self.clock()
        p, q = self._numbers("pose", position, 3), self._numbers("pose", orientation, 4)
        if p is None or q is None or self._unit("pose", q) is None:
            return False
        far, limits = float(np.abs(p).max()), self.plausible
        if far > limits.pose_range:
            return self._refuse("pose range", f"the pose is {far:.3g} m from the origin, limit {limits.pose_range:g}")
        if not self._timely("pose", now, stamp, np.concatenate([p, q])):
            return False
        before = self._latest
        moved = float(np.linalg.norm(p - before.pose[:3])) if before.pose_time != NEVER else 0.0
        if moved > limits.pose_step:
            agrees = float(np.linalg.norm(p - self._elsewhere)) <= limits.pose_step
            self._relocated, self._elsewhere = self._relocated + 1 if agrees else 1, p
            if self._relocated < RELOCATED:
                return self._refuse("pose jump", f"the pose jumped by {moved:.2f} m, limit {limits.pose_step}")
        self._relocated = 0
        yaw = float(obs.yaw_of(np, q))
        with self._lock:
            self._latest.pose, self._latest.pose_time = np.array([*p, yaw]), now
        return True

    @_message
    def velocity_command(self, command: Sequence[float], stamp: int = 0) -> bool:
        """Forward, leftward velocity (m/s) and yaw rate (rad/s). Returns whether it was believed."""
        now = self.clock()
        c = self._numbers("command", command, 3)
        if c is None or not self._timely("command", now, stamp, None):
            return False
        with self._lock:
            self._latest.command, self._latest.command_time = c, now
        return True

    @_message
    def skill(self, index: int) -> bool:
        """The skill that is asked for, an index into `sim.course.description.SKILLS`. Returns whether there is one."""
        if not isinstance(index, int) or not 0 <= index < len(SKILLS):
            return self._refuse("skill", f"there is no skill {str(index)[:40]!r}, only 0 to {len(SKILLS) - 1}")
        with self._lock:
            self._latest.skill = int(index)
        return True

    @_message
    def height_grid(self, heights: np.ndarray) -> bool:
        """A measured height grid, m above the course plane, `[rows, columns]`, NaN where nothing is known."""
        now = self.clock()
        grid = _plain(heights).astype(np.float32)
        if grid.ndim != 2 or 0 in grid.shape or np.isinf(grid).any():
            return self._refuse("height grid", f"a height grid of shape {grid.shape} or with infinite heights")
        with self._lock:
            self._latest.heights, self._latest.heights_time = grid, now
        return True

    # --- what is believed -----------------------------------------------------------------------------------------

    def _refuse(self, what: str, why: str) -> bool:
        self.refusals.add(self.clock(), what, why)
        return False

    def _index(self, names: Sequence[str]) -> np.ndarray | None:
        """Where each of the robot's joints stands in a message."""
        key = tuple(names)
        if self._order is not None and self._order[0] == key:
            return self._order[1]
        if not all(isinstance(name, str) for name in key):
            self._refuse("joint names", "a joint's name is no text")
            return None
        missing = [name for name in self.robot.joint_names if name not in key]
        if missing:
            self._refuse("joint names", f"the joint '{missing[0]}' is missing ({len(missing)} of 12)")
            return None
        if len(set(key)) != len(key):
            self._refuse("joint names", "a joint is named twice")
            return None
        extra = sorted(set(key) - set(self.robot.joint_names))
        if extra:
            self.refusals.note(
                self.clock(), "joint names", f"{extra[0][:40]!r} is no joint of this robot and is left out"
            )
        index = np.array([key.index(name) for name in self.robot.joint_names])
        self._order = key, index
        return index

    def _numbers(self, what: str, values: Sequence[float], count: int) -> np.ndarray | None:
        array = _plain(values)
        if array.shape != (count,):
            self._refuse(what, f"{what}: {array.size} numbers came, {count} are needed")
            return None
        if not np.isfinite(array).all():
            self._refuse(what, f"{what}: a number is not finite ({array[~np.isfinite(array)][0]})")
            return None
        return array

    def _torques(self, effort: Sequence[float] | None, count: int) -> np.ndarray | None:
        """Joint torques, NaN where they are not reported."""
        array = np.full(count, np.nan) if effort is None or len(effort) == 0 else _plain(effort)
        if array.shape != (count,) or np.isinf(array).any():
            self._refuse("joints", f"joints: {array.size} torques came for {count} joints, or one is infinite")
            return None
        return array

    def _unit(self, what: str, quaternion: np.ndarray) -> float | None:
        length = float(np.linalg.norm(quaternion))
        if abs(length - 1) > self.plausible.quaternion:
            self._refuse(
                f"{what} quaternion",
                f"the {what}'s quaternion has length {length:.3f}, 1 within {self.plausible.quaternion}",
            )
            return None
        return length

    def _timely(self, what: str, now: int, stamp: int, reading: np.ndarray | None) -> bool:
        """Whether a message is new: its stamp moves on, it is not late by its own stamp, its numbers still change."""
        sender = self._senders.setdefault(what, _Sender())
        problem, note = sender.look(now, stamp, reading if self.moving else None, self.plausible)
        if note:
            self.refusals.note(now, f"{what} clock", f"{what}: {note}")
        return self._refuse(f"{what} time", f"{what}: {problem}") if problem else True


def _plain(values: Any) -> np.ndarray:
    """A copy of some numbers as float64; empty where they are none, such as texts that only look like numbers."""
    try:
        array = np.array(values)
    except (TypeError, ValueError):
        return np.empty(0)
    return array.astype(float) if array.dtype.kind in "fiu" else np.empty(0)


class _Path:
    """Where joints must be by now, by the speeds that came since the last reading that was believed."""

    def __init__(self) -> None:
        self.position = self._velocity = np.zeros(12)
        """Expected joint angles, rad `[12]`."""
        self.squares = 0.0
        """Sum of squared times between readings: what a speed may do in between grows with it, s^2."""
        self._time = NEVER

    def begin(self, now: int, position: np.ndarray, velocity: np.ndarray) -> None:
        """A reading was believed."""
        self._time, self.position, self._velocity, self.squares = now, position, velocity, 0.0

    def goes_on(self, now: int, velocity: np.ndarray) -> None:
        """Joints have turned on until `now`, when `velocity` (rad/s `[12]`) came in."""
        seconds = (now - self._time) / NS
        self.position = self.position + seconds * (velocity + self._velocity) / 2
        self._time, self._velocity, self.squares = now, velocity, self.squares + seconds**2


class _Sender:
    """What is known of a sender's clock and of whether its readings still move."""

    def __init__(self) -> None:
        self.stamp = 0
        self.heard = NEVER
        """When the last message came in, ns."""
        self.offset = 0.0
        """Least delay of late, s; it creeps up, so that clocks may drift."""
        self.jumped = 0
        """How many stamps in a row have jumped, and the delay of the last of them, s."""
        self.elsewhere = 0.0
        self.reading: np.ndarray | None = None
        self.changed = NEVER

    def look(self, now: int, stamp: int, reading: np.ndarray | None, limits: Plausible) -> tuple[str, str]:
        """What is wrong with a message ("" if nothing), and what is worth a note."""
        problem, note = self._look_at_stamp(now, stamp, limits) if stamp else ("", "")
        self.heard = now
        return problem or self._look_at_reading(now, reading, limits), note

    def _look_at_stamp(self, now: int, stamp: int, limits: Plausible) -> tuple[str, str]:
        if not isinstance(stamp, (int, np.integer)):
            return "its stamp is no whole number", ""
        delay, silent = (now - stamp) / NS, (now - self.heard) / NS
        if self.stamp and stamp == self.stamp:
            return "its stamp stands still", ""
        if silent > SILENCE or not self.stamp:
            self.stamp, self.offset, self.jumped = stamp, delay, 0
            return "", ""
        ahead, note = self.offset - delay, ""
        if ahead > limits.delay or (stamp < self.stamp and -ahead > CLOCK_JUMP):
            self.jumped = self.jumped + 1 if abs(delay - self.elsewhere) <= limits.delay else 1
            self.elsewhere = delay
            if self.jumped < AGREE:
                return f"its stamp jumped by {ahead:+.3f} s", ""
            note, self.offset = f"its clock was set by {ahead:+.3f} s", delay
        elif stamp < self.stamp:
            return f"its stamp runs backwards by {(self.stamp - stamp) / NS:.3f} s", ""
        late = delay - self.offset
        self.offset = min(self.offset + DRIFT * silent, delay)
        self.stamp, self.jumped = stamp, 0
        return (f"it is {late:.3f} s late, limit {limits.delay}" if late > limits.delay else ""), note

    def _look_at_reading(self, now: int, reading: np.ndarray | None, limits: Plausible) -> str:
        if reading is None or self.reading is None or not np.array_equal(reading, self.reading):
            self.reading, self.changed = reading, now
        elif now - self.changed > limits.frozen * NS:
            return f"its numbers have not changed for {(now - self.changed) / NS:.3f} s, limit {limits.frozen}"
        return ""
