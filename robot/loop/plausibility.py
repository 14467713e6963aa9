"""Whether what sensors and policy say agrees: monitors beside the safety chain that see only what the loop sees.

Each monitor holds a `residual`, what two sources differ by, against its limit, and keeps the `peak` of it, so that a
limit can be chosen by what sound robots show (`python -m robot.bench.limits`). Time is that of the messages' stamps
where they have some, so that messages that come in late and together do not look like a fault; or the sender's own
count of it, so that a world that pauses and catches up does not either.
"""

import math
from collections import deque

import numpy as np

from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NEVER, NS, Array
from sim.robots.description import Robot

GAP = 0.03
"""After a gap as long a monitor begins anew, s: what happened in it is not known. Missing messages are for others."""
ODD = 3.0
"""A single reading counts as at most so many times the limit: one that is odd is no fault yet."""


class _Elapsed:
    """The time between two messages of a kind: by the sender's own count of it where that keeps time, which stands
    still while the sender's world does; else by their stamps; else by when they came in.

    A count keeps time where it goes as fast as the stamps, within `RATE`, over `COUNTED` messages: in most steps from
    one to the next (a world that pauses now and then), or on the whole (messages that were held up and come together).
    One in another unit, one that hops, or one of a world that is slower than real time is not gone by.
    """

    COUNTED = 50
    """Messages: 0.2 s at 250 Hz."""
    RATE = 0.1
    AHEAD = 0.25
    """What is caught up with by a count that keeps time is at most this share of the time: one that hops
    by as much again and again would have monitors begin anew for ever."""
    STANDS = 0.1
    """A count that stands still for longer than this must keep time anew, s."""

    def __init__(self) -> None:
        self._stamp, self._heard = 0, NEVER
        self._count: int | None = None
        self._steps: deque[tuple[float, float]] = deque(maxlen=self.COUNTED)
        """By the count and by the stamps, s."""

    def since(self, now: int, stamp: int, count: int | None) -> float | None:
        """Seconds since the message before, 0 where the count stands still; None where it is not known or longer than
        `GAP`. `count` is the sender's own, ns from any beginning."""
        heard, before, counted = self._heard, self._stamp, self._count
        if heard == NEVER:
            self._stamp, self._heard, self._count = stamp, now, count
            return None
        seconds = (stamp - before if stamp and before else now - heard) / NS
        if count is not None and counted is not None:
            own, keeps_time = (count - counted) / NS, self._keeps_time()
            if keeps_time and own == 0.0 and 0.0 < seconds <= self.STANDS:
                return 0.0
            if own == 0.0:
                self._steps.clear()
            elif 0.0 < seconds <= self.STANDS:
                self._steps.append((own, seconds))
            if keeps_time and own > 0.0:
                seconds = own
        self._stamp, self._heard, self._count = stamp, now, count
        return seconds if 0.0 < seconds <= GAP else None

    def _keeps_time(self) -> bool:
        if len(self._steps) < self.COUNTED:
            return False
        low, high = 1.0 - self.RATE, 1.0 + self.RATE
        whole = sum(own for own, _ in self._steps) / sum(seconds for _, seconds in self._steps)
        most = 2 * sum(low * seconds <= own <= high * seconds for own, seconds in self._steps) > self.COUNTED
        return low <= whole <= high or (most and whole <= 1.0 + self.AHEAD)


class GyroAgainstAttitude:
    """Sees a gyro that is dead, turned, swapped or scaled, and an attitude that drifts without the gyro.

    The gyro's rate carries an expected attitude on, and that follows the one that is read within `MEMORY`: what is left
    between the two, over `MEMORY`, is the rate by which they differ. Within 0.1 s of a difference of twice the limit.
    """

    CODE, SOURCE, UNIT = Code.GYRO, Source.IMU, "rad/s"
    MEMORY = 0.1
    SMOOTH = 0.04
    """A difference must last about as long, s: noise of a single reading does not."""

    def __init__(self, limit: float) -> None:
        """`limit` in rad/s."""
        self.limit, self._odd = limit, ODD * limit
        self.residual = self.peak = 0.0
        self._elapsed = _Elapsed()
        self._expected: tuple[float, float, float, float] | None = None
        self._rate = self._mean = (0.0, 0.0, 0.0)

    def see(
        self, now: int, stamp: int, orientation: Array, angular_velocity: Array, count: int | None = None
    ) -> Refusal | None:
        """Takes a reading: quaternion (w, x, y, z) `[4]` and rate in the base frame, rad/s `[3]`, at `now` (ns);
        `count` is when it was taken by the sender's own count, ns, if it has one."""
        seconds = self._elapsed.since(now, stamp, count)
        if seconds == 0.0:
            return None
        qw, qx, qy, qz = orientation.tolist()
        rate, before = angular_velocity.tolist(), self._rate
        self._rate = rate
        if seconds is None or self._expected is None:
            self._expected, self._mean, self.residual = (qw, qx, qy, qz), (0.0, 0.0, 0.0), 0.0
            return None
        # plain floats: three times as fast as arrays of three and four
        half = 0.25 * seconds
        dx, dy, dz = half * (rate[0] + before[0]), half * (rate[1] + before[1]), half * (rate[2] + before[2])
        w, x, y, z = _turned(self._expected, dx, dy, dz)
        ex = w * qx - x * qw - y * qz + z * qy
        ey = w * qy + x * qz - y * qw - z * qx
        ez = w * qz - x * qy + y * qx - z * qw
        if w * qw + x * qx + y * qy + z * qz < 0.0:
            ex, ey, ez = -ex, -ey, -ez
        gain = seconds / (seconds + self.MEMORY)
        self._expected = _turned((w, x, y, z), gain * ex, gain * ey, gain * ez)
        share, scale, odd = seconds / (seconds + self.SMOOTH), 2.0 / self.MEMORY, self._odd
        mx, my, mz = self._mean
        mx += share * (max(min(scale * ex, odd), -odd) - mx)
        my += share * (max(min(scale * ey, odd), -odd) - my)
        mz += share * (max(min(scale * ez, odd), -odd) - mz)
        self._mean = mx, my, mz
        self.residual = residual = math.sqrt(mx * mx + my * my + mz * mz)
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        sentence = f"the gyro differs from the change of the attitude by {residual:.2f} rad/s, limit {self.limit}"
        return Refusal(self.CODE, sentence, residual, self.limit, self.SOURCE)


def _turned(q: tuple[float, float, float, float], x: float, y: float, z: float) -> tuple[float, float, float, float]:
    """The quaternion (w, x, y, z) turned in its own frame by the small half angles `x`, `y`, `z`, rad."""
    a, b, c, d = q
    w, i = a - b * x - c * y - d * z, b + a * x + c * z - d * y
    j, k = c + a * y + d * x - b * z, d + a * z + b * y - c * x
    length = math.sqrt(w * w + i * i + j * j + k * k)
    return w / length, i / length, j / length, k / length


class SpeedAgainstPosition:
    """Sees a joint whose speed reads dead, reversed, scaled or another joint's, and an angle that drifts by itself.

    As `GyroAgainstAttitude`, joint by joint. Within 0.05 s of a difference of three times the limit.
    """

    CODE, SOURCE, UNIT = Code.JOINT_DISAGREES, Source.JOINTS, "rad/s"
    MEMORY = 0.05
    SMOOTH = 0.02
    FAST = 0.01
    """Speeds that come this far apart, s, say half as much of the way between them: the limit is twice as wide."""

    def __init__(self, limit: float, acceleration: float, robot: Robot) -> None:
        """`limit` in rad/s, for readings that follow each other closely. A speed that changes faster than
        `acceleration` (rad/s^2) is a foot's strike where the angle goes with it (22 rad/s to rest within 4 ms was
        seen), and else an odd reading: it is taken for one that changes as fast."""
        self.limit, self._acceleration, self._robot = limit, acceleration, robot
        self.residual = self.peak = 0.0
        self._elapsed = _Elapsed()
        self._expected: Array | None = None
        self._speed = self._mean = np.zeros(robot.joints)
        self._apart = 0.0
        """Seconds between two readings, smoothed."""

    def see(self, now: int, stamp: int, position: Array, velocity: Array, count: int | None = None) -> Refusal | None:
        """Takes a reading: angles, rad `[J]`, and speeds, rad/s `[J]`, at `now` (ns); `count` as for the gyro."""
        seconds = self._elapsed.since(now, stamp, count)
        if seconds == 0.0:
            return None
        if seconds is None or self._expected is None:
            self._expected, self._speed, self.residual = position, velocity, 0.0
            self._mean = np.zeros(self._robot.joints)
            return None
        before, most = self._speed, self._acceleration * seconds + NOISE
        speed = before + (velocity - before).clip(-most, most)
        expected = self._expected + 0.5 * seconds * (before + speed)
        off = position - expected
        if (np.abs(velocity - before) > most).any():
            struck = self._expected + 0.5 * seconds * (before + velocity)
            follows = np.abs(position - struck) < np.abs(off)
            speed, expected = np.where(follows, velocity, speed), np.where(follows, struck, expected)
            off = position - expected
        self._speed = speed
        self._expected = expected + seconds / (seconds + self.MEMORY) * off
        share, odd = seconds / (seconds + self.SMOOTH), ODD * self.limit
        self._mean = self._mean + share * ((off / self.MEMORY).clip(-odd, odd) - self._mean)
        self._apart += share * (seconds - self._apart)
        size = np.abs(self._mean)
        worst = int(size.argmax())
        residual = float(size[worst]) / (1.0 + (self._apart / self.FAST) ** 2)
        self.residual = residual
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        name = self._robot.joint_names[worst]
        sentence = f"the speed of {name} differs from the change of its angle by {residual:.1f} rad/s"
        return Refusal(self.CODE, f"{sentence}, limit {self.limit}", residual, self.limit, self.SOURCE)


NOISE = 2.0
"""Speeds of joints may differ by this from one reading to the next whatever the joint does, rad/s."""
FROZEN_STEPS = 4
"""Targets of as many control steps are compared: 60 ms, and known in the step in which the fourth one comes."""


class PolicyAnswers:
    """Sees a policy whose targets stay although the joints it sees move. Within four control steps.

    A robot that stands moves no joint, so nothing is asked of its policy.
    """

    CODE, UNIT = Code.POLICY_FROZEN, "rad"

    def __init__(self, moved: float, limit: float) -> None:
        """Joints that have moved by `moved` (rad) make some target move by more than `limit` (rad)."""
        self.moved, self.limit = moved, limit
        self.residual = self.peak = math.inf
        """How far the target that changed most has changed while joints moved; the peak is the least of it."""
        self._targets: deque[Array] = deque(maxlen=FROZEN_STEPS)
        self._positions: deque[Array] = deque(maxlen=FROZEN_STEPS)

    def reset(self) -> None:
        """Forgets what the policy put out."""
        self._targets.clear()
        self._positions.clear()

    def see(self, targets: Array, position: Array) -> Refusal | None:
        """Takes what the policy put out, rad `[J]`, for a reading of the joints, rad `[J]`."""
        self._targets.append(targets)
        self._positions.append(position)
        if len(self._targets) < FROZEN_STEPS or float(np.ptp(np.array(self._positions), axis=0).max()) <= self.moved:
            self.residual = math.inf
            return None
        self.residual = still = float(np.ptp(np.array(self._targets), axis=0).max())
        self.peak = min(self.peak, still)
        if still > self.limit:
            return None
        sentence = f"the policy's targets have changed by {still:.4f} rad in {FROZEN_STEPS} steps while joints moved"
        return Refusal(self.CODE, f"{sentence}, least {self.limit}", still, self.limit)


CODES = (Code.GYRO, Code.JOINT_DISAGREES, Code.POLICY_FROZEN)
"""Of every monitor."""
