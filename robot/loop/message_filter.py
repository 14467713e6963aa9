"""The message filter: every message that comes in is checked here before anything else sees it.

What is refused leaves the message before it in place, which then ages until the safety chain acts. Form, numbers,
ranges, jumps and stamps are checked; whether messages agree with each other is for `robot.loop.safety`.
"""

import functools
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Concatenate, ParamSpec

import numpy as np

from robot.loop.plausibility import GyroAgainstAttitude, SpeedAgainstPosition
from robot.loop.refusals import Code, Refusal, Refusals, Source
from robot.loop.transport import IMPLAUSIBLE_DAMPS, NEVER, NS, Array, Request, Snapshot
from sim import observation as obs
from sim.course.description import SKILLS
from sim.robots.description import Robot

P = ParamSpec("P")


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
    """How far a pose may be from the one before it, m; believed after `relocated` in a row that agree."""
    pose_range: float = 1e5
    """How far a pose may be from the origin, m."""
    relocated: int = 25
    """A pose elsewhere is believed when so many in a row agree about it: 0.2 s at 125 Hz, by hand."""
    height: float = 5.0
    """How far the ground of a height grid may be from the course's plane, m."""
    frozen: float = 0.01
    """Readings of a moving robot that do not change in their last digit for this long are frozen, s: three readings."""
    delay: float = 0.06
    """How much later than usual a message may come in, by its own stamp, s: as old as a sensor may be."""
    agree: int = 3
    """A clock was set when as many stamps in a row agree about it: soon enough for readings every 8 ms to be believed
    again before they count as stale."""
    silence: float = 1.0
    """A sender that was silent for so long may have been started anew, with another clock, s."""
    rate: float = 0.02
    """A sender's clock may run so much faster or slower than this computer's, s/s: forty times what NTP slews by."""
    hurry: float = 0.1
    """A clock that runs so much faster shows in `BUCKETS` of a fifth of a second, through jitter of 10 ms, s/s."""
    gyro_differs: float = 0.45
    """By how much the gyro may differ from the attitude's change, rad/s; see `plausibility.GyroAgainstAttitude`."""
    joint_differs: float = 1.0
    """By how much a joint's speed may differ from its angle's change, rad/s; see `SpeedAgainstPosition`."""
    lasting: float = 2.0
    """A rise of delay that lasts so long has come to stay, s: longer than the loop brakes for a stale message, so that
    it has stopped by then."""


BUCKET, BUCKETS = 0.2, 4
"""A clock's rate is seen in the least delays of so many stretches, s each."""


DOUBT_EVERY = 0.25
"""The loop is told again of what goes on being implausible, s: sooner than it would let the robot be armed."""


class _Refused(Exception):
    """Carries the refusal of a message out of its checks."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.sentence)
        self.refusal = refusal


def _message(
    source: Source,
) -> Callable[[Callable[Concatenate["MessageFilter", P], None]], Callable[Concatenate["MessageFilter", P], bool]]:
    """A method that takes a message of a source: one at a time, and whatever the message holds, nothing is raised."""

    def wrap(take: Callable[Concatenate["MessageFilter", P], None]) -> Callable[Concatenate["MessageFilter", P], bool]:
        @functools.wraps(take)
        def guarded(self: "MessageFilter", *values: P.args, **named: P.kwargs) -> bool:
            with self.taking, np.errstate(all="ignore"):
                try:
                    take(self, *values, **named)
                    return True
                except _Refused as error:
                    return self.refuse(error.refusal)
                except Exception as error:
                    sentence = f"{source}: no such message ({type(error).__name__})"
                    return self.refuse(Refusal(Code.MALFORMED, sentence, source=source))

        return guarded

    return wrap


class MessageFilter:
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
        self.taking = threading.Lock()
        """Held while a message is looked at."""
        self._latest = Snapshot.blank(robot.joints)
        self._lock = threading.Lock()
        """Held for a copy only, so that the loop never waits for a message that is looked at."""
        self._order: tuple[tuple[str, ...], Array] | None = None
        self._senders: dict[Source, _Sender] = {}
        self._path = _Path(len(robot.joint_names))
        self.gyro = GyroAgainstAttitude(plausible.gyro_differs)
        self.joint_speeds = SpeedAgainstPosition(plausible.joint_differs, plausible.acceleration, robot)
        self._doubted = NEVER
        """When the loop was last told that something is implausible, ns."""
        self._relocated = 0
        self._elsewhere: Array = np.zeros(3)
        """The last pose that was refused for its distance, m `[3]`."""

    def snapshot(self) -> Snapshot:
        """The newest of everything."""
        with self._lock:
            return self._latest.copy()

    def ask(self, kind: str, cause: str = "", code: Code | None = None) -> Request:
        """Puts one of `robot.loop.recording.REQUESTS` before the loop, such as an operator's `stop`."""
        request = Request(kind, self.clock(), cause, code)
        self.requests.append(request)
        return request

    def refuse(self, refusal: Refusal) -> bool:
        """Counts and logs a refusal, also one that a transport found by itself. Returns False."""
        self.refusals.add(self.clock(), refusal)
        return False

    # --- messages -------------------------------------------------------------------------------------------------

    @_message(Source.JOINTS)
    def joints(
        self,
        names: Sequence[str],
        position: Sequence[float] | Array,
        velocity: Sequence[float] | Array,
        effort: Sequence[float] | Array | None = (),
        stamp: int = 0,
        counted: int | None = None,
    ) -> None:
        """Joint angles (rad), speeds (rad/s) and torques (N m, may be empty), matched by name; `stamp` ns; `counted` is
        when they were read by the sender's own count of time, ns, where it has one beside the stamps.

        What belongs to joints that are not this robot's is left out before anything is checked. Returns whether it was
        believed.
        """
        now = self.clock()
        index, count = self._index(names), len(names)
        q = _finite(Source.JOINTS, _numbers(Source.JOINTS, position, count)[index])
        v = _finite(Source.JOINTS, _numbers(Source.JOINTS, velocity, count)[index])
        torque = _torques(effort, count)[index]
        if np.isinf(torque).any():
            raise _refused(Code.NOT_FINITE, "joints: a torque is infinite", source=Source.JOINTS)
        self._look_at_joints(now, q, v)
        self._timely(Source.JOINTS, now, stamp, np.concatenate([q, v]))
        self._path.begin(now, q, v)
        with self._lock:
            latest = self._latest
            latest.position, latest.velocity, latest.effort = q, v, torque
            latest.joints_time, latest.joints_stamp = now, stamp
        self._agrees(now, self.joint_speeds.see(now, stamp, q, v, counted))

    @_message(Source.IMU)
    def imu(
        self,
        orientation: Sequence[float] | Array,
        angular_velocity: Sequence[float] | Array,
        stamp: int = 0,
        counted: int | None = None,
    ) -> None:
        """Quaternion (w, x, y, z) and gyro (rad/s, base frame); `stamp` and `counted` as for joints. Returns whether it
        was believed."""
        now, limits = self.clock(), self.plausible
        q = _finite(Source.IMU, _numbers(Source.IMU, orientation, 4))
        w = _finite(Source.IMU, _numbers(Source.IMU, angular_velocity, 3))
        q = self._rotation(Source.IMU, q)
        fastest = float(np.abs(w).max())
        if fastest > limits.gyro:
            sentence = f"the gyro reads {fastest:.1f} rad/s, limit {limits.gyro}"
            raise _refused(Code.TOO_FAST, sentence, fastest, limits.gyro, Source.IMU)
        before = self._latest
        if before.imu_time != NEVER:
            turned = 2 * float(np.arccos(min(abs(float(q @ before.orientation)), 1.0)))
            rate = max(float(np.linalg.norm(w)), float(np.linalg.norm(before.angular_velocity)))
            allowed = limits.jump + (rate + limits.drift) * (now - before.imu_time) / NS
            if turned > allowed:
                sentence = f"the attitude jumped by {turned:.3f} rad, limit {allowed:.3f}"
                raise _refused(Code.JUMP, sentence, turned, allowed, Source.IMU)
        self._timely(Source.IMU, now, stamp, np.concatenate([q, w]))
        with self._lock:
            self._latest.orientation, self._latest.angular_velocity = q, w
            self._latest.imu_time = now
        self._agrees(now, self.gyro.see(now, stamp, q, w, counted))

    @_message(Source.POSE)
    def odometry(self, position: Sequence[float] | Array, orientation: Sequence[float] | Array, stamp: int = 0) -> None:
        """Base position (m) and quaternion (w, x, y, z) in the course frame. Returns whether it was believed."""
        now, limits = self.clock(), self.plausible
        p = _finite(Source.POSE, _numbers(Source.POSE, position, 3))
        q = _finite(Source.POSE, _numbers(Source.POSE, orientation, 4))
        self._rotation(Source.POSE, q)
        far = float(np.abs(p).max())
        if far > limits.pose_range:
            sentence = f"the pose is {far:.3g} m from the origin, limit {limits.pose_range:g}"
            raise _refused(Code.OUT_OF_RANGE, sentence, far, limits.pose_range, Source.POSE)
        self._timely(Source.POSE, now, stamp, np.concatenate([p, q]))
        before = self._latest
        moved = float(np.linalg.norm(p - before.pose[:3])) if before.pose_time != NEVER else 0.0
        if moved > limits.pose_step:
            agrees = float(np.linalg.norm(p - self._elsewhere)) <= limits.pose_step
            self._relocated, self._elsewhere = self._relocated + 1 if agrees else 1, p
            if self._relocated < limits.relocated:
                sentence = f"the pose jumped by {moved:.2f} m, limit {limits.pose_step}"
                raise _refused(Code.JUMP, sentence, moved, limits.pose_step, Source.POSE)
        self._relocated = 0
        yaw = float(obs.yaw_of(np, q))
        with self._lock:
            self._latest.pose, self._latest.pose_time = np.array([*p, yaw]), now

    @_message(Source.COMMAND)
    def velocity_command(self, command: Sequence[float] | Array, stamp: int = 0) -> None:
        """Forward, leftward velocity (m/s) and yaw rate (rad/s). Returns whether it was believed."""
        now = self.clock()
        c = _finite(Source.COMMAND, _numbers(Source.COMMAND, command, 3))
        self._timely(Source.COMMAND, now, stamp, None)
        with self._lock:
            self._latest.command, self._latest.command_time = c, now

    @_message(Source.SKILL)
    def skill(self, index: int) -> None:
        """The skill that is asked for, an index into `sim.course.description.SKILLS`. Returns whether there is one."""
        if not isinstance(index, int) or not 0 <= index < len(SKILLS):  # pyright: ignore[reportUnnecessaryIsInstance]
            sentence = f"there is no skill {str(index)[:40]!r}, only 0 to {len(SKILLS) - 1}"
            raise _refused(Code.UNKNOWN_NAME, sentence, source=Source.SKILL)
        with self._lock:
            self._latest.skill = int(index)

    @_message(Source.HEIGHT_GRID)
    def height_grid(self, heights: Array) -> None:
        """A measured height grid, m above the course plane, `[rows, columns]`, NaN where nothing is known."""
        now = self.clock()
        grid = _plain(heights).astype(np.float32)
        if grid.ndim != 2 or 0 in grid.shape:
            raise _refused(Code.MALFORMED, f"a height grid of shape {grid.shape}", source=Source.HEIGHT_GRID)
        if np.isinf(grid).any():
            raise _refused(Code.NOT_FINITE, "a height grid with infinite heights", source=Source.HEIGHT_GRID)
        most, limit = float(np.nan_to_num(np.abs(grid)).max()), self.plausible.height
        if most > limit:
            sentence = f"a height grid with ground {most:.3g} m from the plane, limit {limit:g}"
            raise _refused(Code.OUT_OF_RANGE, sentence, most, limit, Source.HEIGHT_GRID)
        with self._lock:
            self._latest.heights, self._latest.heights_time = grid, now

    def _agrees(self, now: int, doubt: Refusal | None) -> None:
        """Tells the loop of readings that do not agree with each other: which of them is wrong cannot be known, so the
        robot is blind."""
        if doubt is None:
            return
        self.refusals.add(now, doubt)
        if now - self._doubted >= DOUBT_EVERY * NS:
            self._doubted = now
            self.ask(IMPLAUSIBLE_DAMPS, doubt.sentence, doubt.code)

    # --- what is believed -----------------------------------------------------------------------------------------

    def _look_at_joints(self, now: int, q: Array, v: Array) -> None:
        """Ranges, speeds, and whether joints are where their speeds have led; `q` and `v` are `[joints]`."""
        robot, limits = self.robot, self.plausible
        beyond = np.maximum(robot.joint_lower - q, q - robot.joint_upper)
        worst = int(beyond.argmax())
        if beyond[worst] > limits.joint_margin:
            low, high = float(robot.joint_lower[worst]), float(robot.joint_upper[worst])
            sentence = f"{robot.joint_names[worst]} is at {q[worst]:.3f} rad, its range is {low:.3f} to {high:.3f}"
            limit = high if q[worst] > high else low
            raise _refused(Code.OUT_OF_RANGE, sentence, float(q[worst]), limit, Source.JOINTS)
        fastest = int(np.abs(v).argmax())
        if abs(v[fastest]) > limits.joint_speed:
            sentence = f"{robot.joint_names[fastest]} turns at {v[fastest]:.1f} rad/s, limit {limits.joint_speed}"
            raise _refused(Code.TOO_FAST, sentence, float(v[fastest]), limits.joint_speed, Source.JOINTS)
        if self._latest.joints_time == NEVER:
            return
        self._path.goes_on(now, v)
        off = np.abs(q - self._path.position)
        most = int(off.argmax())
        unseen = limits.acceleration * self._path.squares / 8
        allowed = limits.jump + limits.drift * (now - self._latest.joints_time) / NS + unseen
        if off[most] > allowed:
            sentence = f"{robot.joint_names[most]} jumped by {off[most]:.3f} rad, limit {allowed:.3f}"
            raise _refused(Code.JUMP, sentence, float(off[most]), allowed, Source.JOINTS)

    def _index(self, names: Sequence[str]) -> Array:
        """Where each of the robot's joints stands in a message."""
        key = tuple(names)
        if self._order is not None and self._order[0] == key:
            return self._order[1]
        count = len(self.robot.joint_names)
        if not all(isinstance(name, str) for name in key):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _refused(Code.MALFORMED, "a joint's name is no text", source=Source.JOINTS)
        missing = [name for name in self.robot.joint_names if name not in key]
        if missing:
            sentence = f"the joint '{missing[0]}' is missing ({len(missing)} of {count})"
            raise _refused(Code.MISSING_JOINT, sentence, count - len(missing), count, Source.JOINTS)
        if len(set(key)) != len(key):
            raise _refused(Code.DUPLICATE_JOINT, "a joint is named twice", source=Source.JOINTS)
        extra = sorted(set(key) - set(self.robot.joint_names))
        if extra:
            sentence = f"{extra[0][:40]!r} is no joint of this robot and is left out"
            self.refusals.note(self.clock(), Refusal(Code.FOREIGN_JOINT, sentence, source=Source.JOINTS))
        index = np.array([key.index(name) for name in self.robot.joint_names])
        self._order = key, index
        return index

    def _rotation(self, source: Source, quaternion: Array) -> Array:
        """The quaternion with a length of 1."""
        length, margin = float(np.linalg.norm(quaternion)), self.plausible.quaternion
        if abs(length - 1) > margin:
            sentence = f"the {source}'s quaternion has length {length:.3f}, 1 within {margin}"
            raise _refused(Code.NO_ROTATION, sentence, length, margin, source)
        return quaternion / length

    def _timely(self, source: Source, now: int, stamp: int, reading: Array | None) -> None:
        """A message must be new: its stamp moves on, it is not late by its own stamp, its numbers still change."""
        sender = self._senders.setdefault(source, _Sender(source))
        problem, note = sender.look(now, stamp, reading if self.moving else None, self.plausible)
        if note is not None:
            self.refusals.note(now, note)
        if problem is not None:
            raise _Refused(problem)


def _refused(
    code: Code, sentence: str, value: float = np.nan, limit: float = np.nan, source: Source = Source.LOOP
) -> _Refused:
    return _Refused(Refusal(code, sentence, value, limit, source))


def _numbers(source: Source, values: object, count: int) -> Array:
    """`values` as `[count]` numbers."""
    array = _plain(values)
    if array.shape != (count,):
        sentence = f"{source}: {array.size} numbers came, {count} are needed"
        raise _refused(Code.MALFORMED, sentence, array.size, count, source)
    return array


def _finite(source: Source, array: Array) -> Array:
    finite = np.isfinite(array)
    if not finite.all():
        odd = float(array[~finite][0])
        raise _refused(Code.NOT_FINITE, f"{source}: a number is not finite ({odd})", odd, source=source)
    return array


def _torques(effort: Sequence[float] | Array | None, count: int) -> Array:
    """Joint torques `[count]`, NaN where they are not reported."""
    if effort is None or len(effort) == 0:
        return np.full(count, np.nan)
    array = _plain(effort)
    if array.shape != (count,):
        sentence = f"joints: {array.size} torques came for {count} joints"
        raise _refused(Code.MALFORMED, sentence, array.size, count, Source.JOINTS)
    return array


def _plain(values: object) -> Array:
    """A copy of some numbers as float64; empty where they are none, such as texts that only look like numbers."""
    try:
        array: Array = np.array(values)
    except (TypeError, ValueError):
        return np.empty(0)
    return array.astype(float) if array.dtype.kind in "fiu" else np.empty(0)


class _Path:
    """Where joints must be by now, by the speeds that came since the last reading that was believed."""

    def __init__(self, joints: int) -> None:
        self.position: Array = np.zeros(joints)
        """Expected joint angles, rad `[joints]`."""
        self._velocity: Array = np.zeros(joints)
        self.squares = 0.0
        """Sum of squared times between readings: what a speed may do in between grows with it, s^2."""
        self._time = NEVER

    def begin(self, now: int, position: Array, velocity: Array) -> None:
        """A reading was believed."""
        self._time, self.position, self._velocity, self.squares = now, position, velocity, 0.0

    def goes_on(self, now: int, velocity: Array) -> None:
        """Joints have turned on until `now`, when `velocity` (rad/s `[joints]`) came in."""
        seconds = (now - self._time) / NS
        self.position = self.position + seconds * (velocity + self._velocity) / 2
        self._time, self._velocity, self.squares = now, velocity, self.squares + seconds**2


class _Sender:
    """What is known of a sender's clock and of whether its readings still move.

    A message's delay is the time at which it came in less its stamp: only changes of it mean something. A delay that
    changes at once while messages come in at their usual pace is a clock that was set; one that rises with a gap before
    it is a message that was held up; one that changes little by little is a clock with another rate.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.stamp = 0
        """Of the last message that was believed, or refused for its delay alone, ns."""
        self.heard = NEVER
        """When the last message came in, ns."""
        self.usual = 0.0
        """Time between two messages, smoothed, s."""
        self.delay = 0.0
        """Of the last message, s."""
        self.offset = 0.0
        """Least delay of late, s; it creeps up, so that clocks may drift."""
        self.late_since = NEVER
        """Since when messages are late, ns; the delay of the first of them, s; whether it rose little by little."""
        self.late_first = 0.0
        self.slow = self.noted = False
        self.jumped = 0
        """How many stamps in a row have jumped, and the delay of the last of them, s."""
        self.elsewhere = 0.0
        self.least: deque[tuple[int, float]] = deque(maxlen=BUCKETS)
        """Beginning (ns) and least delay (s) of the last stretches of `BUCKET`."""
        self.too_fast: Refusal | None = None
        self.reading: Array | None = None
        self.changed = NEVER

    def look(
        self, now: int, stamp: int, reading: Array | None, limits: Plausible
    ) -> tuple[Refusal | None, Refusal | None]:
        """What is wrong with a message, if anything, and what is worth a note."""
        problem, note = self._look_at_stamp(now, stamp, limits) if stamp else (None, None)
        self.heard = now
        return problem or self._look_at_reading(now, reading, limits), note

    def _say(self, code: Code, sentence: str, value: float = np.nan, limit: float = np.nan) -> Refusal:
        return Refusal(code, f"{self.source}: {sentence}", value, limit, self.source)

    def _look_at_stamp(self, now: int, stamp: int, limits: Plausible) -> tuple[Refusal | None, Refusal | None]:
        if not isinstance(stamp, (int, np.integer)):  # pyright: ignore[reportUnnecessaryIsInstance]
            return self._say(Code.MALFORMED, "its stamp is no whole number"), None
        delay, silent = (now - stamp) / NS, (now - self.heard) / NS
        if self.stamp and stamp == self.stamp:
            return self._say(Code.STAMP_FROZEN, "its stamp stands still"), None
        if silent > limits.silence or not self.stamp:
            self._begin(stamp, delay)
            return None, None
        change, off = abs(delay - self.delay), delay - self.offset
        at_once, held_up = change > limits.delay / 2, silent > self.usual + change / 2
        self.usual, self.delay = 0.9 * (self.usual or silent) + 0.1 * silent, delay
        late = off > limits.delay
        set_back = late and self.late_since == NEVER and (self.jumped > 0 or (at_once and not held_up))
        if stamp < self.stamp or off < -limits.delay or set_back:
            return self._jumped(stamp, delay, limits)
        self.jumped, self.stamp = 0, stamp
        if late:
            return self._late(now, delay, at_once, limits)
        self.late_since = NEVER
        self.offset = min(self.offset + limits.rate * silent, delay)
        return self._look_at_rate(now, delay, limits)

    def _begin(self, stamp: int, delay: float) -> None:
        """What comes from here on is measured by this message."""
        self.stamp, self.offset, self.delay, self.jumped, self.late_since = stamp, delay, delay, 0, NEVER
        self.least.clear()
        self.too_fast, self.noted = None, False

    def _jumped(self, stamp: int, delay: float, limits: Plausible) -> tuple[Refusal | None, Refusal | None]:
        """A stamp that lies elsewhere: an odd one, or a clock that was set if several agree."""
        ahead = self.offset - delay
        self.jumped = self.jumped + 1 if self.jumped and abs(delay - self.elsewhere) <= limits.delay / 2 else 1
        self.elsewhere = delay
        if self.jumped < limits.agree:
            code = Code.STAMP_BACKWARDS if stamp < self.stamp else Code.STAMP_JUMP
            return self._say(code, f"its stamp jumped by {ahead:+.3f} s", ahead, limits.delay), None
        self._begin(stamp, delay)
        return None, self._say(Code.CLOCK_SET, f"its clock was set by {ahead:+.3f} s", ahead, limits.delay)

    def _late(self, now: int, delay: float, at_once: bool, limits: Plausible) -> tuple[Refusal | None, Refusal | None]:
        """A message that was held up on its way, or comes from a clock that is too slow."""
        late = delay - self.offset
        if self.late_since == NEVER:
            self.late_since, self.late_first, self.slow = now, delay, not at_once
        if now - self.late_since > limits.lasting * NS:
            if abs(delay - self.late_first) <= limits.delay / 2:
                sentence = f"its messages take {late:.3f} s longer than they did"
                self._begin(self.stamp, delay)
                return None, self._say(Code.DELAY_RISEN, sentence, late, limits.delay)
            self.late_since, self.late_first, self.slow = now, delay, True
        if self.slow:
            sentence = f"its stamps fall behind little by little, {late:.3f} s by now, limit {limits.delay}"
            return self._say(Code.CLOCK_RATE, sentence, late, limits.delay), None
        return self._say(Code.LATE, f"it is {late:.3f} s late, limit {limits.delay}", late, limits.delay), None

    def _look_at_rate(self, now: int, delay: float, limits: Plausible) -> tuple[Refusal | None, Refusal | None]:
        """A clock that is too fast takes every delay for a short one; what it is off by is noted once."""
        note = None
        if not self.least or now - self.least[-1][0] >= BUCKET * NS:
            note = self._judge_rate(limits) if len(self.least) == BUCKETS else None
            self.least.append((now, delay))
        elif delay < self.least[-1][1]:
            self.least[-1] = self.least[-1][0], delay
        return self.too_fast, note

    def _judge_rate(self, limits: Plausible) -> Refusal | None:
        """Whether the clock is too fast, by whole stretches; returns what is worth a note."""
        falls = [earlier[1] - later[1] for earlier, later in pairwise(self.least)]
        rate = sum(falls) / (self.least[-1][0] - self.least[0][0]) * NS
        steady = min(falls) if rate > 0 else -max(falls)  # of all stretches the least change in that direction
        said = self._say(
            Code.CLOCK_RATE, f"its clock runs {1 + rate:.2f} times as fast as this computer's", rate, limits.hurry
        )
        self.too_fast = said if rate > limits.hurry and steady > 0.5 * limits.hurry * BUCKET else None
        if self.too_fast or self.noted or abs(rate) < limits.rate or steady < 0.5 * limits.rate * BUCKET:
            return None
        self.noted = True
        return said

    def _look_at_reading(self, now: int, reading: Array | None, limits: Plausible) -> Refusal | None:
        if reading is None or self.reading is None or not np.array_equal(reading, self.reading):
            self.reading, self.changed = reading, now
        elif now - self.changed > limits.frozen * NS:
            same = (now - self.changed) / NS
            sentence = f"its numbers have not changed for {same:.3f} s, limit {limits.frozen}"
            return self._say(Code.FROZEN, sentence, same, limits.frozen)
        return None
