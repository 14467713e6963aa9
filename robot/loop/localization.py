"""The localizer as a program: readings of joints and IMU in, and poses that are late and noisy where something sees the
robot; where the base is now out.

Readings are taken with their own stamps and all of them, however late this program is. Motion between poses, and with
`own_odometry` all of it, is what the contact filter makes of gyro, accelerometer, joints and the feet that stand;
without accelerometer, torques or legs that can be read it is what the walker's model makes of the commands. What cannot
be told is not: nothing is sent then, and `refusals` say why.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from policies.estimation.kinematics import GRAVITY, facing, matrix_of
from policies.estimation.odometry import Odometry, odometry_of
from policies.navigation.map_match import Ground, MapMatch, OwnPlace
from policies.navigation.pose_estimate import EstimateTuning, PoseEstimate
from policies.skills.library import Skills, response_of
from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.parameters import number, switch, text
from robot.loop.plausibility import GAP
from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NEVER, NS, Array
from sim import observation as obs
from sim.course.description import Course
from sim.errors import InputError
from sim.planar import place as ahead_of
from sim.planar import to_body, wrap

RECKON_EVERY = 0.007
"""s between two readings that are taken at least: two of 250 Hz are taken as their mean; each takes half a
millisecond."""
BEHIND = 0.04
"""s by which readings that came in are ahead of the one that is taken when this program is behind; it then reckons less
often, and tells no more places than anybody can hear."""
COARSE = 0.015
"""s between two readings that are taken then."""
SEND_EVERY = 0.008
"""s between two poses at least: 125 Hz, as often as the simulated robot's driver tells the truth."""
WAIT = 0.1
"""s of IMU readings for which joints of the same time are waited for: a program that was held up takes all readings of
one kind before those of the other, and more come meanwhile."""
APART = 0.03
"""s that joints may be older than the IMU reading that they are taken with."""
KEPT = 256
"""Readings that are kept at most, of either kind: a second at 250 Hz."""
SETTLES = 25
"""Readings over which a robot is seen to be at rest, and its accelerometer to feel gravity."""
OFF = 1.5
"""m/s^2 by which that gravity may be off: axes that are turned, another unit, or gravity taken away are off by more."""
REST = (0.5, 0.1, 0.3)
"""What a robot at rest may have on average: m/s^2 beside gravity, rad/s, and rad/s of a joint."""
HARDEST = 500.0
"""m/s^2: no reading of a legged robot's IMU."""
TURNED = 0.1
"""rad by which a joint of a robot that goes turns in `GAP`; one that stood still with its clock going on has not."""
SLOW = 1.0
"""rad/s that no joint exceeds in a robot that stands before and after a gap: it is not lost, however long that was."""
HELD = 0.1
"""s without a foot that bears anything after which a robot at rest is held in its place; feet settle in less."""
FLIES = 1.0
"""s without such a foot, longer than any jump, after which a robot that is not at rest is lost."""
OLDEST = EstimateTuning().longest
"""s: older poses are of no use, since no motion is remembered for longer."""
AHEAD = 0.05
"""s by which a pose's stamp may be ahead of the readings': clocks are never quite equal."""
BELIEVED = Plausible(delay=1.0)
"""What messages may contain: old readings are of use here, of which the sum counts, and so many are kept for it."""
BLIND = 0.1
"""s without a new pose for which it is still told where the robot must be; then nothing is, and the loop stops."""
OBEYED = 0.25
"""s for which a velocity command holds."""
FARTHEST = 1e5
"""m from the origin; as `Plausible.pose_range`."""


@dataclass(frozen=True)
class Locating:
    """How a robot is located."""

    own_odometry: bool = switch(
        False, "Whether nothing sees the robot: odom is what it reckons by IMU, joints, feet and map from its start."
    )
    start: str = text(
        "", "Where the robot stands or lies at rest when it begins by own odometry: 'X Y HEADING' in m and rad; "
        "empty means the course's start, or the origin without a course."
    )  # fmt: skip
    blind: float = number(BLIND, 0.02, 5.0, "Without a pose on localization for longer nothing is sent, in s.")
    gap: float = number(
        0.1, 0.03, 2.0, "Without readings for longer the place that own odometry knew is lost for good, in s."
    )


class Believed(NamedTuple):
    """Where the base is, in the course frame."""

    position: Array
    """m `[3]`."""
    orientation: Array
    """w, x, y, z `[4]`."""
    velocity: Array
    """m/s `[3]`, in the base's axes."""
    turning: Array
    """rad/s `[3]`, in the base's axes."""
    stamp: int
    """Of the reading up to which it holds, ns on its sender's clock."""


class _Joints(NamedTuple):
    stamp: int
    position: Array
    velocity: Array
    effort: Array


class _Inertial(NamedTuple):
    stamp: int
    orientation: Array
    rates: Array
    force: Array | None
    """Specific force, m/s^2 `[3]`; None where the message holds none."""


class _Reading(NamedTuple):
    """Both of one time, complete."""

    joints: _Joints
    imu: _Inertial
    force: Array


class LocalizationProgram:
    """Of one robot. `joints`, `inertial` and `seen` are called after the message filter has believed such a message,
    all from one thread; `send` is called with every pose."""

    def __init__(
        self,
        skills: Skills,
        course: Course | None,
        options: Locating,
        messages: MessageFilter,
        send: Callable[[Believed], object],
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        """Without a `course` the ground is flat. `say` logs.

        Raises:
          InputError: a start that is none, or legs that cannot be read where nothing sees the robot.
        """
        robot = skills.robot
        self.options, self.messages, self.send, self.say = options, messages, send, say
        self.period = robot.control_period
        self.ground: Ground = course.height if course else lambda x, y: np.zeros(np.shape(x))
        self._radius = robot.foot_radius
        self.start = _start(options.start, course)
        self.odometry = Odometry(robot) if options.own_odometry else odometry_of(robot)
        match = MapMatch(self.ground, robot.foot_radius)
        self.own: OwnPlace | None = None
        if options.own_odometry and self.odometry:
            self.own = OwnPlace(self.odometry, match)
        self.estimate = PoseEstimate(response_of(skills), match)
        self.sent = 0
        """Poses."""
        self.lost: Refusal | None = None
        """Why the place of own odometry is not known any more."""
        self._joints: deque[_Joints] = deque(maxlen=KEPT)
        self._waiting: deque[_Inertial] = deque()
        self._window: deque[_Reading] = deque(maxlen=SETTLES)
        self._early: list[_Inertial] = []
        """The readings before this one that came too early to be taken by themselves."""
        self._now = self._arrived = NEVER
        """Stamp of the newest IMU reading that was taken, ns, and when it came in on the steady clock."""
        self._reckoned = NEVER
        """Stamp of the last reading that went into the filter, ns."""
        self._last: _Reading | None = None
        """That reading."""
        self._anchor = np.zeros(3), 0.0
        """Position (m `[3]`) and heading (rad) by the filter when a foot last stood."""
        self._pose: Array | None = None
        """The newest pose that was told, x, y, z (m) and heading (rad)."""
        self._pose_at = self._pose_came = NEVER
        """When it was true by its own stamp, and when it came in on the steady clock, ns."""
        self._estimated = self._told = self._told_at = NEVER
        """Stamps of the last estimate and of the last pose that was sent, and when that was on the steady clock, ns."""
        self._place: Array | None = None
        """The last estimate, `[4]`, and where the filter was then."""
        self._then = np.zeros(4)
        self._speed = np.zeros(3)
        """Between the last two estimates, m/s, in the heading frame."""
        if self.odometry is None:
            say("the legs of this robot cannot be read: between poses it moves as the walker's model answers cmd_vel")

    # --- what comes in --------------------------------------------------------------------------------------------

    def joints(self) -> None:
        """A joint reading has come in."""
        seen = self.messages.snapshot()
        self._joints.append(_Joints(seen.joints_stamp or seen.joints_time, seen.position, seen.velocity, seen.effort))
        self._work()

    def inertial(self, stamp: int, force: Array | None) -> None:
        """An IMU reading has come in: its `stamp` (ns; 0 where it has none) and the specific `force` that it feels
        (m/s^2 `[3]`, base axes, gravity included), None where the message says that there is none."""
        seen = self.messages.snapshot()
        self._waiting.append(_Inertial(stamp or seen.imu_time, seen.orientation, seen.angular_velocity, force))
        self._work()

    def seen(self, stamp: int) -> bool:
        """A pose has come in that was true at `stamp` (ns, on the clock of the readings). Returns whether its age can
        be."""
        now = self.messages.clock()
        if self._now == NEVER:
            return False
        age = (self._now + now - self._arrived - stamp) / NS if stamp else math.nan
        if not -AHEAD <= age <= OLDEST:
            sentence = f"pose: it is {age:.3f} s old by its stamp and the readings', {-AHEAD} to {OLDEST} are allowed"
            if not stamp:
                sentence = "pose: it has no stamp, so nobody knows how old it is"
            return self.messages.refuse(Refusal(Code.LATE, sentence, age, OLDEST, Source.POSE))
        self._pose, self._pose_at, self._pose_came = self.messages.snapshot().pose, stamp, now
        return True

    # --- readings, in the order of their stamps -------------------------------------------------------------------

    def _work(self) -> None:
        """Takes every IMU reading for which joints of its time are there, or need not be waited for any longer."""
        while self._waiting:
            imu = self._waiting[0]
            there = bool(self._joints) and self._joints[-1].stamp >= imu.stamp
            waited = abs(self._waiting[-1].stamp - imu.stamp)
            if not there and waited < WAIT * NS and len(self._waiting) < KEPT:
                return
            self._waiting.popleft()
            known = max(self._waiting[-1].stamp if self._waiting else 0, self._joints[-1].stamp if self._joints else 0)
            with np.errstate(all="ignore"):
                self._take(imu, known - imu.stamp > BEHIND * NS)

    def _take(self, imu: _Inertial, behind: bool) -> None:
        self._now, self._arrived = imu.stamp, self.messages.clock()
        early = 0 <= imu.stamp - self._reckoned < (COARSE if behind else RECKON_EVERY) * NS
        self._early.append(imu)
        if self.odometry is not None and not early:
            reading = self._complete(_mean(self._early))
            if reading is not None:
                self._reckon(self.odometry, reading)
        if not early:
            self._early.clear()
        elapsed = (imu.stamp - self._estimated) / NS
        due = not 0 <= elapsed < self.period - 0.001
        if due:
            self._look(imu.stamp, elapsed)
        fresh = self._goes_on(imu.stamp)
        since = (imu.stamp - self._told) / NS
        often = behind and self._arrived - self._told_at < SEND_EVERY * NS
        if not often and (fresh and not 0 <= since < SEND_EVERY - 0.001 or due and not fresh):
            self._tell(imu, fresh)

    def _complete(self, imu: _Inertial) -> _Reading | None:
        """The reading with the joints of its time; None, with a refusal, where something is missing."""
        joints = next((one for one in reversed(self._joints) if one.stamp <= imu.stamp), None)
        force = imu.force
        if joints is None or imu.stamp - joints.stamp > APART * NS:
            apart = (imu.stamp - self._joints[-1].stamp) / NS if self._joints else math.nan
            said = f"joints: none were read in the {APART} s before the IMU (the newest {apart:+.3f} s before)"
            refused = Refusal(Code.JOINTS_STALE, said, apart, APART, Source.JOINTS)
        elif not np.isfinite(joints.effort).all():
            said = "joints: there are no torques, so nobody knows which feet stand"
            refused = Refusal(Code.MALFORMED, said, source=Source.JOINTS)
        elif force is None or not force.any():
            said = "imu: there is no acceleration (covariance -1, or zeros), so nobody knows how the robot moves"
            refused = Refusal(Code.MALFORMED, said, source=Source.IMU)
        elif not np.isfinite(force).all():
            refused = Refusal(Code.NOT_FINITE, "imu: an acceleration is not finite", source=Source.IMU)
        elif (most := float(np.abs(force).max())) > HARDEST:
            said = f"imu: an acceleration of {most:.3g} m/s^2, limit {HARDEST:g}"
            refused = Refusal(Code.OUT_OF_RANGE, said, most, HARDEST, Source.IMU)
        else:
            return _Reading(joints, imu, force)
        self.messages.refuse(refused)
        return None

    # --- reckoning ------------------------------------------------------------------------------------------------

    def _reckon(self, odometry: Odometry, reading: _Reading) -> None:
        """Takes a reading into the filter."""
        self._window.append(reading)
        stamp, before = reading.imu.stamp, self._last
        if self._reckoned == NEVER or before is None:
            self._begin(odometry, reading)
            return
        seconds = (stamp - self._reckoned) / NS
        if 0 < seconds <= GAP:
            joints = reading.joints
            odometry.filter.step(
                seconds, reading.imu.rates, reading.force, joints.position, joints.velocity, joints.effort
            )
        else:
            self._after_gap(odometry, before, reading, seconds)
        self._reckoned, self._last = stamp, reading
        self._hold(odometry, reading)
        if not np.isfinite(odometry.filter.place).all():
            self._lose(Refusal(Code.NOT_FINITE, "the place that the readings lead to is not finite", source=Source.IMU))
            self._reckoned = NEVER
            self._window.clear()

    def _begin(self, odometry: Odometry, reading: _Reading) -> None:
        """Begins once the accelerometer feels gravity where the attitude says that it is; by own odometry at rest."""
        if len(self._window) < SETTLES:
            return
        force, rates, speeds = self._means()
        off = float(np.linalg.norm(force - [0.0, 0.0, GRAVITY]))
        moves = self.own is not None and not _rests(off, rates, speeds)
        if off > OFF or moves:
            felt = ", ".join(f"{value:.1f}" for value in force)
            sentence = f"imu: with its attitude it feels {felt} m/s^2 in the world's axes, 0, 0, {GRAVITY} are needed"
            if off <= OFF:
                sentence = f"imu: the robot moves ({rates:.2f} rad/s, joints {speeds:.2f} rad/s), it begins at rest"
            code = Code.NOT_AT_REST if off <= OFF else Code.NO_GRAVITY
            self.messages.refuse(Refusal(code, sentence, off, OFF, Source.IMU))
            self._window.clear()
            return
        x, y, heading = self.start if self.own else (0.0, 0.0, float(obs.yaw_of(np, reading.imu.orientation)))
        turned = facing(reading.imu.orientation, heading)
        odometry.begin(np.array([x, y, self._standing(odometry, reading, x, y, turned)]), turned)
        self._anchor = odometry.filter.position, heading
        self._reckoned, self._last = reading.imu.stamp, reading
        if self.own:
            self.say(f"the robot begins at {x:.2f}, {y:.2f} m, heading {heading:.2f} rad")

    def _standing(self, odometry: Odometry, reading: _Reading, x: float, y: float, turned: Array) -> float:
        """Height of the base (m) whose feet are on the ground."""
        turn, legs = matrix_of(turned), odometry.filter.legs
        feet = legs.feet(reading.joints.position).place @ turn.T
        ground = self.ground(x + feet[:, 0], y + feet[:, 1])
        return float(np.mean(ground + self._radius - feet[:, 2]))

    def _means(self) -> tuple[Array, float, float]:
        """Of the last readings: force in the axes of the world, m/s^2 `[3]`; turning; largest of the joints, rad/s."""
        force = np.mean([matrix_of(one.imu.orientation) @ one.force for one in self._window], 0)
        rates = float(np.linalg.norm(np.mean([one.imu.rates for one in self._window], 0)))
        return force, rates, float(np.abs(np.mean([one.joints.velocity for one in self._window], 0)).max())

    def _after_gap(self, odometry: Odometry, before: _Reading, reading: _Reading, seconds: float) -> None:
        """Goes on after readings have failed to come: with the velocity of before, turned as the attitude has turned.

        Where no joint has turned the robot stood still meanwhile, as a simulated one does whose computer is late.
        """
        went = float(np.abs(reading.joints.position - before.joints.position).max()) > TURNED
        fastest = max(float(np.abs(one.joints.velocity).max()) for one in (before, reading))
        if (went or fastest > SLOW) and not 0 < seconds <= self.options.gap:
            sentence = f"imu: no complete readings came for {seconds:.3f} s, limit {self.options.gap}"
            self._lose(Refusal(Code.IMU_STALE, sentence, seconds, self.options.gap, Source.IMU))
        yaws = [float(obs.yaw_of(np, one.imu.orientation)) for one in (before, reading)]
        turned = facing(reading.imu.orientation, float(odometry.place[3]) + yaws[1] - yaws[0])
        filter_ = odometry.filter
        own = filter_.turn.T @ filter_.velocity
        velocity = matrix_of(turned) @ own
        way = velocity * min(max(seconds, 0.0), self.options.gap) if went else np.zeros(3)
        filter_.begin(filter_.position + way, turned, velocity)

    def _hold(self, odometry: Odometry, reading: _Reading) -> None:
        """A robot that lies at rest, so that no foot bears anything, stays where it is; one that flies for long, or
        whose torques say nothing, is lost."""
        filter_ = odometry.filter
        if filter_.aloft == 0.0:
            self._anchor = filter_.position, filter_.heading
            return
        if filter_.aloft <= HELD:
            return
        force, rates, speeds = self._means()
        if len(self._window) == SETTLES and _rests(float(np.linalg.norm(force - [0, 0, GRAVITY])), rates, speeds):
            position, heading = self._anchor
            filter_.begin(position, facing(reading.imu.orientation, heading))
        elif filter_.aloft > FLIES:
            sentence = f"joints: no foot has borne anything for {filter_.aloft:.1f} s: fallen, lifted, or no torques"
            self._lose(Refusal(Code.ALOFT, sentence, filter_.aloft, FLIES, Source.JOINTS))

    def _lose(self, why: Refusal) -> None:
        """The way on is not known; by own odometry that is for good."""
        self.messages.refuse(why)
        if self.own and self.lost is None:
            self.lost = why
            self.say("the place is lost: start the localizer anew where the robot is known to be (parameter start)")

    def _goes_on(self, stamp: int) -> bool:
        """Whether the filter knows how the robot has moved up to `stamp`, ns."""
        filter_ = None if self.odometry is None else self.odometry.filter
        known = self._reckoned != NEVER and 0 <= stamp - self._reckoned <= GAP * NS
        return filter_ is not None and known and filter_.aloft <= FLIES

    # --- what comes out -------------------------------------------------------------------------------------------

    def _look(self, stamp: int, elapsed: float) -> None:
        """Once a control period: holds the newest pose, or what was reckoned, against motion and map."""
        self._estimated, odometry = stamp, self.odometry
        goes_on = self._goes_on(stamp)
        if self.own is not None:
            if goes_on:
                self.own.see()
            return
        periods = round(elapsed / self.period) if 0 < elapsed <= OLDEST else 0
        moved = odometry.moved(max(periods, 1) * self.period) if odometry and self._reckoned != NEVER else None
        if periods == 0:
            self.estimate.reset()  # what it remembers is of another time
            self._place = None
        if self._pose is None:
            return
        before, age = self._place, (stamp - self._pose_at) / NS
        feet = odometry.feet if odometry and goes_on else None
        seen = self.messages.snapshot()
        obeyed = self.messages.clock() - seen.command_time <= OBEYED * NS
        for back in range(max(periods, 1) - 1, -1, -1):
            told = self._pose, age - back * self.period
            self._place = self.estimate.told(*told, moved if goes_on else None, feet)
            self.estimate.asked(seen.command if obeyed else np.zeros(3))
        assert self._place is not None
        if odometry:
            self._then = odometry.place
        if before is not None and elapsed > 0:
            x, y, z = ((self._place - before)[:3] / elapsed).tolist()
            forward, left = to_body(x, y, float(self._place[3]))
            self._speed = np.array([float(forward), float(left), z])

    def _tell(self, imu: _Inertial, fresh: bool) -> None:
        """Sends the place of now, if it is known."""
        if self.own is not None:
            if self.lost is not None:
                self.messages.refuse(self.lost)
            if self.lost is not None or not fresh:
                return
            place = self.own.place
        else:
            silent = self.messages.clock() - self._pose_came > self.options.blind * NS
            if self._place is None or silent:
                return
            place = self._carried(self._place) if fresh and self.odometry else self._place
        if not np.isfinite(place).all() or float(np.abs(place[:3]).max()) > FARTHEST:
            return
        filter_ = self.odometry.filter if fresh and self.odometry else None
        orientation = facing(filter_.orientation if filter_ else imu.orientation, float(place[3]))
        velocity = filter_.base_velocity if filter_ else self._speed
        self._told, self._told_at = imu.stamp, self._arrived
        self.sent += 1
        self.send(Believed(np.array(place[:3]), orientation, velocity, imu.rates, imu.stamp))

    def _carried(self, place: Array) -> Array:
        """An estimate carried on by what the filter has seen since, `[4]`."""
        assert self.odometry is not None
        now, then = self.odometry.place, self._then
        ahead, left = to_body(now[0] - then[0], now[1] - then[1], then[3])
        x, y = ahead_of(place[0], place[1], place[3], ahead, left)
        return np.array([x, y, place[2] + now[2] - then[2], wrap(place[3] + now[3] - then[3])])


def _rests(off: float, rates: float, speeds: float) -> bool:
    """Whether so much force beside gravity (m/s^2), turning and turning of a joint (rad/s) are those of rest."""
    return all(value <= most for value, most in zip((off, rates, speeds), REST, strict=True))


def _start(asked: str, course: Course | None) -> tuple[float, float, float]:
    """x, y (m) and heading (rad). Raises `InputError` where `asked` is not three such numbers, or empty."""
    if not asked.strip():
        return course.start if course else (0.0, 0.0, 0.0)
    try:
        x, y, heading = (float(word) for word in asked.replace(",", " ").split())
    except ValueError:
        x = y = heading = math.nan
    if not (abs(x) <= FARTHEST and abs(y) <= FARTHEST and abs(heading) <= 2 * math.pi):
        raise InputError(f"the parameter 'start' must be 'X Y HEADING' in m and rad, got {asked[:60]!r}")
    return x, y, heading


def _mean(readings: list[_Inertial]) -> _Inertial:
    """The last of some readings, with the mean force and turning of all."""
    last = readings[-1]
    forces = [one.force for one in readings if one.force is not None]
    if len(readings) == 1 or len(forces) < len(readings):
        return last
    return last._replace(force=sum(forces) / len(forces), rates=sum(one.rates for one in readings) / len(readings))
