"""Whether the robot moves as its pose, its commands, its drives and the ground say: monitors at the loop's own rate.

As those of `robot.loop.plausibility`, each holds a `residual` against its limit and keeps the `peak` of it. They see
one control step after the other and only what is recorded, so that a replay finds what they found.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from robot.loop.refusals import Code, Refusal, Source
from robot.loop.safety import Action, Limits, Verdict, lean
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import NEVER, NS, Array, Snapshot
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.planar import from_segment
from sim.robots.description import Robot
from sim.robots.kinematics import Feet

Point = tuple[float, float]
GAP = 0.06
"""After a gap as long between two control steps monitors begin anew, s."""


class Monitor(Protocol):
    """What all of them, and those of `robot.loop.plausibility`, have."""

    peak: float

    @property
    def CODE(self) -> Code:
        """What it is about."""
        ...

    @property
    def limit(self) -> float:
        """Of the residual."""
        ...


class DrivesObey:
    """Sees a drive that is dead, reversed, slips, or obeys another joint's target, where it reports its torque.

    The torque that a drive reports lies between what its PD law gives for the targets of the last two control steps and
    `LEAST` of it. What is beyond, on average over three steps, is the residual. Within 0.1 s of twice the limit.
    """

    CODE, SOURCE, UNIT = Code.DRIVE, Source.JOINTS, "of the peak torque"
    LEAST = 0.55
    """A motor may give so little of what is asked: 12 N m in place of 18, and a tenth less."""
    STEPS = 3

    def __init__(self, limit: float, robot: Robot) -> None:
        """`limit` is a share of the peak torque."""
        self.limit, self._robot = limit, robot
        self.residual = self.peak = 0.0
        self._asked: deque[Array] = deque(maxlen=2)
        """The targets' part of the torques, N m `[J]`."""
        self._beyond: deque[Array] = deque(maxlen=self.STEPS)
        self._time = NEVER
        self._kp, self._kd, self._slow = robot.kp, robot.kd, 0.5 * robot.no_load_speed
        self._seen = np.zeros(robot.joints)
        """Angles of the reading before, rad `[J]`."""
        self._fast, self._strong = robot.no_load_speed, 1.1 * robot.torque_limit
        self._least, self._most = -robot.torque_limit, robot.torque_limit
        self._reports = False
        """Whether any torque but 0 was reported yet: there are drivers that fill in what they do not know with 0."""
        self._share = 1.0 / (self.STEPS * robot.torque_limit)

    def reset(self) -> None:
        """Forgets what was asked."""
        self._asked.clear()
        self._beyond.clear()
        self.residual = 0.0

    def see(self, targets: Array | None, seen: Snapshot) -> Refusal | None:
        """Takes the targets that the drives hold, rad `[J]` (None where they hold none), and a reading."""
        if targets is None:
            self.reset()
            return None
        self._asked.append(self._kp * targets)
        new, self._time = seen.joints_time != self._time, seen.joints_time
        if len(self._asked) < 2 or not new:  # an old reading answers older targets
            return None
        robot, velocity = self._robot, seen.velocity
        before, now = self._asked
        rest = self._kp * seen.position + self._kd * velocity
        least, most = np.minimum(before, now) - rest, np.maximum(before, now) - rest
        low, high = self._least, self._most
        if (np.abs(velocity) > self._slow).any():
            # of the torque that drives a joint on less is left the faster it turns (`sim.physics.motor`)
            left = 2.0 - velocity / self._slow
            low, high = low * (4.0 - left).clip(0.0, 1.0), high * left.clip(0.0, 1.0)
        least, most = least.clip(low, high), most.clip(low, high)
        least, most = np.minimum(least, self.LEAST * least), np.maximum(most, self.LEAST * most)
        effort = seen.effort.astype(np.float32)  # as a recording keeps it; NaN where no torque is reported
        if not self._reports:
            self._reports = bool(np.fmax(np.abs(effort), 0.0).any())
            return None
        # angles that stay, speeds no motor reaches, torques no motor gives: those are for `robot.loop.safety`
        judged = (seen.position != self._seen) & (np.abs(velocity) < self._fast) & (np.abs(effort) < self._strong)
        self._seen = seen.position
        self._beyond.append(np.fmax(np.maximum(least - effort, effort - most), 0.0) * judged)
        if len(self._beyond) < self.STEPS:
            return None
        first, second, third = self._beyond
        mean = (first + second + third) * self._share
        worst = int(mean.argmax())
        self.residual = residual = float(mean[worst])
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        sentence = f"the torque of {robot.joint_names[worst]} is not what its target asks for, by {residual:.2f} of its"
        return Refusal(self.CODE, f"{sentence} peak, limit {self.limit}", residual, self.limit, self.SOURCE)


@dataclass
class Stance:
    """The robot in one control step, in the course frame."""

    pose: Array
    """x, y, z (m) and heading (rad) `[4]`."""
    attitude_yaw: float
    """Heading by the IMU, rad."""
    feet: Array
    """From the base to the feet, m `[legs, 3]`."""
    told: Array
    """The command that came last: forward, leftward velocity (m/s), yaw rate (rad/s) `[3]`."""
    command: Array
    """What the policy was asked for `[3]`."""
    seconds: float
    """Since the step before."""
    tilt: float = 0.0
    """Of the base's up axis to the vertical by the IMU, rad."""
    told_at: int = 0
    """When the command came, ns."""


class _Way(NamedTuple):
    """Since the beginning, in m of the course frame: by the feet that stand, as commanded, by the pose, maybe slid."""

    feet_x: float = 0.0
    feet_y: float = 0.0
    asked_x: float = 0.0
    asked_y: float = 0.0
    pose_x: float = 0.0
    pose_y: float = 0.0
    slid: float = 0.0


class PoseAgainstMotion:
    """Sees a pose that freezes, runs off, or is turned in the course frame, while the robot moves.

    Over `WINDOW` the way by the pose must lie between the way of the lowest foot, which stands, and the way that was
    commanded: feet slip on ramps and fly in jumps, and commands are not reached, but not both at once. How far it lies
    off, in m, is the residual: in the step in which the error passes the limit, or up to a tenth of a second later.

    A robot that is too weak for a ramp slides back while its legs walk up, so both ways are ahead of it: what it may
    have slid while it was tilted by more than `STEEP` is no error.
    """

    CODE, SOURCE, UNIT = Code.POSE_DISAGREES, Source.POSE, "m"
    WINDOW = 40
    """Control steps: 0.8 s."""
    LAG = 0.2
    """Robots follow their commands so much later, s."""
    STEEP, SLIDE = 0.35, 0.5
    """rad, below a ramp's 30 degrees; m/s. One that slid in `robot.bench.monitors` was 0.83 m off in 0.8 s."""

    def __init__(self, limit: float) -> None:
        """`limit` in m."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._ways: deque[_Way] = deque(maxlen=self.WINDOW + 1)
        self.reset()

    def reset(self) -> None:
        """Begins anew: what is known of the way so far is forgotten."""
        self._ways.clear()
        self._before: list[list[float]] | None = None
        self._ahead = self._left = 0.0
        self._way = _Way()
        self.residual = 0.0

    def see(self, now: Stance) -> Refusal | None:
        """Takes a control step."""
        feet, (x, y, _, yaw) = now.feet.tolist(), now.pose.tolist()
        before, self._before = self._before, feet
        if before is not None:
            _, lowest = min((max(one[2], other[2]), k) for k, (one, other) in enumerate(zip(feet, before, strict=True)))
            share = now.seconds / (now.seconds + self.LAG)
            self._ahead += share * (float(now.command[0]) - self._ahead)
            self._left += share * (float(now.command[1]) - self._left)
            c, s = now.seconds * math.cos(yaw), now.seconds * math.sin(yaw)
            way = self._way
            self._way = _Way(
                feet_x=way.feet_x + before[lowest][0] - feet[lowest][0],
                feet_y=way.feet_y + before[lowest][1] - feet[lowest][1],
                asked_x=way.asked_x + c * self._ahead - s * self._left,
                asked_y=way.asked_y + s * self._ahead + c * self._left,
                slid=way.slid + self.SLIDE * now.seconds * (now.tilt > self.STEEP),
            )
        self._ways.append(self._way._replace(pose_x=x, pose_y=y))
        way = _Way(*(later - earlier for later, earlier in zip(self._ways[-1], self._ways[0], strict=True)))
        off = from_segment((way.feet_x, way.feet_y), (way.asked_x, way.asked_y), (way.pose_x, way.pose_y))
        self.residual = residual = max(off - way.slid, 0.0)
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        sentence = f"the pose has moved {residual:.2f} m other than legs and commands, limit {self.limit}"
        return Refusal(self.CODE, sentence, residual, self.limit, self.SOURCE)


class PoseHops:
    """Sees a pose that hops to and fro by less than what the message filter takes for a jump.

    Steps of more than `STEP` between two control steps, among the last ten, are counted: in the step of the last one.
    """

    CODE, SOURCE, UNIT = Code.POSE_HOPS, Source.POSE, "hops"
    STEP = 0.2
    """10 m/s."""
    WINDOW = 10

    def __init__(self, limit: int) -> None:
        """More hops than `limit` stop the robot."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._hops: deque[bool] = deque(maxlen=self.WINDOW)
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self._hops.clear()
        self._before: Array | None = None
        self.residual = 0.0

    def see(self, now: Stance) -> Refusal | None:
        """Takes a control step."""
        before, self._before = self._before, now.pose
        if before is None:
            return None
        self._hops.append(math.dist(before[:3].tolist(), now.pose[:3].tolist()) > self.STEP)
        self.residual = hops = float(sum(self._hops))
        self.peak = max(self.peak, hops)
        if hops <= self.limit:
            return None
        sentence = f"the pose hopped by more than {self.STEP} m {hops:.0f} times in {self.WINDOW} steps"
        return Refusal(self.CODE, f"{sentence}, limit {self.limit}", hops, self.limit, self.SOURCE)


class HeadingAgainstTurn:
    """Sees a heading of the pose that turns without the robot, or stays while it turns: within half a second the pose
    turns as the attitude does, which is held against the gyro. In the step in which the difference passes the limit."""

    CODE, SOURCE, UNIT = Code.HEADING_DISAGREES, Source.POSE, "rad"
    WINDOW = 25

    def __init__(self, limit: float) -> None:
        """`limit` in rad."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._off: deque[float] = deque(maxlen=self.WINDOW + 1)
        self.reset()

    def reset(self) -> None:
        """Begins anew."""
        self._off.clear()
        self.residual = 0.0

    def see(self, now: Stance) -> Refusal | None:
        """Takes a control step."""
        self._off.append(float(now.pose[3]) - now.attitude_yaw)
        self.residual = residual = abs(math.remainder(self._off[-1] - self._off[0], 2 * math.pi))
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        sentence = f"the pose has turned {residual:.2f} rad other than the attitude, limit {self.limit}"
        return Refusal(self.CODE, sentence, residual, self.limit, self.SOURCE)


class FeetOnGround:
    """Sees a pose that is too high or too low over the mapped ground, and an attitude that leans, by feet that stand.

    Within `WINDOW` each foot of a robot that walks has stood: its least height over the ground was 0. The height of the
    lowest is the residual of the height; what sides and ends differ by, over the distance between them, that of the
    lean. Half of what the ground around differs by is taken off: on slopes and near edges a pose that is late or wrong
    by little looks so. What sinks into the ground is seen at once, what rises from it within 0.4 s.

    A robot that rears or rolls over, at a pole or off a ramp's edge, does not stand on its feet: where it is tilted by
    more than `REARS` it must lean for `LASTS`, by when it has fallen or stands again; but not one that has leaned by
    most of the limit for `WINDOW` before it was tilted so: an attitude that drifts makes robots stagger in the end.
    Of `LASTS` count those control steps alone in which the feet of a tilted robot lie in one plane, as all that stand
    do: one foot may hang on a pole.
    """

    WINDOW = 10
    """Every second control step: 0.4 s."""
    REARS = 0.6
    """rad: more than any ramp's 30 degrees. Robots that reared were tilted by 0.67 to 1.24 (`robot.bench.monitors`)."""
    MOST = 0.7
    """Of the limit."""
    LASTS = 20
    """Every second control step: 0.8 s."""

    def __init__(self, height: float, lean: float, robot: Robot) -> None:
        """`height` in m, `lean` in rad."""
        self.height = Level(Code.FEET_HEIGHT, Source.POSE, "m", height)
        self.lean = Level(Code.FEET_LEAN, Source.IMU, "rad", lean)
        self._radius, self._steps = robot.foot_radius, 0
        self._heights = np.full((self.WINDOW, len(robot.legs)), np.inf)
        self._uneven, self._tilts = np.zeros(self.WINDOW), np.zeros(self.WINDOW)
        self._leaning = self._before = 0
        left = np.array([leg.corner.endswith("left") for leg in robot.legs])
        front = np.array([leg.front for leg in robot.legs])
        self._sides = np.where(left, 0.5, -0.5), np.where(front, 0.5, -0.5)

    def reset(self) -> None:
        """Begins anew."""
        self._steps = self._leaning = self._before = 0
        self.height.residual = self.lean.residual = 0.0

    def see(self, now: Stance, ground: Array, around: Array, standing: Array) -> list[Refusal]:
        """Takes a control step; `ground` is the height under each foot, m `[legs]`, `around` that of the ground there
        and about, m `[n]`, `standing` the feet of the standing robot in its base frame, m `[legs, 3]`."""
        k = self._steps % self.WINDOW
        self._uneven[k], self._tilts[k] = np.ptp(around), now.tilt
        self._heights[k] = now.pose[2] + now.feet[:, 2] - ground - self._radius
        self._steps += 1
        if self._steps < self.WINDOW:
            return []
        least, slack = self._heights.min(0), 0.5 * float(self._uneven.max())
        lowest = float(least.min())
        sides, ends = self._sides
        across, along = abs(float(sides @ least)), abs(float(ends @ least))
        broad, long = abs(float(sides @ standing[:, 1])), abs(float(ends @ standing[:, 0]))
        leaning = max((across - slack) / broad, (along - slack) / long, 0.0)
        tilted = float(self._tilts.max()) > self.REARS
        uneven = slack + (abs(float(2 * sides * ends @ least)) if tilted else 0.0)  # how far they are from a plane
        planar = max((across - uneven) / broad, (along - uneven) / long)
        self._leaning = self._leaning + 1 if planar > self.lean.limit else 0
        if not tilted:
            self._before = self._before + 1 if leaning > self.MOST * self.lean.limit else 0
        elif self._leaning < self.LASTS and self._before < self.WINDOW:
            leaning = 0.0
        sentence = f"the lowest foot is {lowest:.2f} m above the mapped ground over the last steps"
        found = [
            self.height.see(max(abs(lowest) - slack, 0.0), sentence),
            self.lean.see(leaning, f"feet that stand lean by {leaning:.2f} rad to the ground, as the attitude has it"),
        ]
        return [refusal for refusal in found if refusal is not None]


class Level:
    """One residual of several that a monitor has."""

    def __init__(self, code: Code, source: Source, unit: str, limit: float) -> None:
        self.CODE, self.SOURCE, self.UNIT, self.limit = code, source, unit, limit
        self.residual = self.peak = 0.0

    def see(self, residual: float, sentence: str) -> Refusal | None:
        """Takes the residual of a control step."""
        self.residual = residual
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        return Refusal(self.CODE, f"{sentence}, limit {self.limit}", residual, self.limit, self.SOURCE)


class ReadingsInTime:
    """Sees joint or IMU messages that come too rarely for the loop: 13 of 14 lost, or 20 a second.

    Control steps without a new reading among the last five are counted: in the step of the last one, within 0.1 s.
    """

    CODE, UNIT = Code.READINGS_RARE, "steps"
    WINDOW = 5

    def __init__(self, limit: int) -> None:
        """More steps than `limit` stop the robot."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._times = (NEVER, NEVER)
        self._old = tuple(deque[bool](maxlen=self.WINDOW) for _ in self._times)

    def reset(self) -> None:
        """Begins anew."""
        for old in self._old:
            old.clear()

    def see(self, seen: Snapshot) -> Refusal | None:
        """Takes a control step."""
        times, before = (seen.joints_time, seen.imu_time), self._times
        self._times = times
        for old, time, last in zip(self._old, times, before, strict=True):
            old.append(time == last)
        counts = [sum(old) for old in self._old]
        worst = max(counts)
        self.residual, self.peak = float(worst), max(self.peak, float(worst))
        if worst <= self.limit:
            return None
        source = (Source.JOINTS, Source.IMU)[counts.index(worst)]
        sentence = f"{source}: {worst} of {self.WINDOW} control steps had no new reading, limit {self.limit}"
        return Refusal(self.CODE, sentence, worst, self.limit, source)


class CommandsAnswer:
    """Sees a navigator that has got stuck: commands that stay the same to the last digit while the pose moves.

    In the step in which one comes and the pose has moved by the limit since the first of them; where none comes at all
    the command's age says so. A person's command may stay, so 0 means no limit.
    """

    CODE, SOURCE, UNIT = Code.COMMAND_STUCK, Source.COMMAND, "m"

    def __init__(self, limit: float) -> None:
        """`limit` in m; 0: none."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._since: tuple[list[float], Array] | None = None
        self._told_at = NEVER

    def reset(self) -> None:
        """Begins anew."""
        self._since = None
        self.residual = 0.0

    def see(self, now: Stance) -> Refusal | None:
        """Takes a control step."""
        command = now.told.tolist()
        if self._since is None or command != self._since[0]:
            self._since = command, now.pose
        elif now.told_at == self._told_at:
            return None
        self._told_at = now.told_at
        here, began = now.pose.tolist(), self._since[1].tolist()
        self.residual = residual = math.dist(here[:2], began[:2])
        self.peak = max(self.peak, residual)
        if not 0.0 < self.limit < residual:
            return None
        sentence = f"the command has stayed the same to the last digit over {residual:.2f} m of the way"
        return Refusal(self.CODE, f"{sentence}, limit {self.limit}", residual, self.limit, self.SOURCE)


class CommandsAgree:
    """Sees commands of two navigators in turn, or of one that is torn between two ways: steps of more than `STEP` from
    one control step to the next, among the last ten, are counted. In the step of the last one."""

    CODE, SOURCE, UNIT = Code.COMMAND_JUMPS, Source.COMMAND, "jumps"
    STEP = 0.5
    """m/s, and rad/s."""
    WINDOW = 10

    def __init__(self, limit: int) -> None:
        """More jumps than `limit` stop the robot."""
        self.limit = limit
        self.residual = self.peak = 0.0
        self._before: Array | None = None
        self._jumps: deque[bool] = deque(maxlen=self.WINDOW)

    def reset(self) -> None:
        """Begins anew."""
        self._before = None
        self._jumps.clear()

    def see(self, command: Array) -> Refusal | None:
        """Takes a control step's command: m/s, m/s, rad/s `[3]`."""
        before, self._before = self._before, command
        if before is None:
            return None
        self._jumps.append(bool(np.abs(command - before).max() > self.STEP))
        self.residual = jumps = float(sum(self._jumps))
        self.peak = max(self.peak, jumps)
        if jumps <= self.limit:
            return None
        sentence = f"the command jumped by more than {self.STEP} {jumps:.0f} times in {self.WINDOW} steps"
        return Refusal(self.CODE, f"{sentence}, limit {self.limit}", jumps, self.limit, self.SOURCE)


class GridUnderFeet:
    """Sees a measured height grid that is not the ground on which feet stand, or cuts through the body: one that is in
    another frame, unit or place. In the control step in which a foot stands on it.

    A grid that is doubted is not used: the map takes its place, and the robot goes on.
    """

    CODE, SOURCE, UNIT = Code.GRID_DISAGREES, Source.HEIGHT_GRID, "m"
    STANDS = 0.05
    """A foot this near to the mapped ground stands on it, m."""

    def __init__(self, limit: float) -> None:
        """`limit` in m."""
        self.limit = limit
        self.residual = self.peak = 0.0

    def see(self, above_map: Array, above_grid: Array) -> Refusal | None:
        """Takes the heights of feet, and last of the base, over the mapped ground and over the grid, m `[legs + 1]`;
        NaN where the grid has no cell."""
        stands = (np.abs(above_map) < self.STANDS) & np.isfinite(above_grid)
        stands[-1] = False
        off = float(np.abs(above_grid[stands]).max()) if stands.any() else 0.0
        inside = -float(above_grid[-1]) + self.limit if above_grid[-1] < 0.0 else 0.0
        self.residual = residual = max(off, inside)
        self.peak = max(self.peak, residual)
        if residual <= self.limit:
            return None
        sentence = f"the height grid is {residual:.2f} m off where a foot stands or the body is, limit {self.limit}"
        return Refusal(self.CODE, sentence, residual, self.limit, self.SOURCE)


POSES = (Code.POSE_DISAGREES, Code.POSE_HOPS, Code.HEADING_DISAGREES, Code.FEET_HEIGHT)
"""Doubts of the pose."""
DAMPS = (Code.DRIVE, Code.FEET_LEAN)
"""Doubts with which no posture can be held; with the others the robot still balances, and brakes."""
CODES = (Code.READINGS_RARE, Code.COMMAND_STUCK, Code.COMMAND_JUMPS, Code.GRID_DISAGREES, *POSES, *DAMPS)
"""Of every monitor."""
WARM_UP_STEPS = 130
"""As many as the longest memory of a monitor has, three times."""
AROUND = 0.5 * np.array([[0.0, *np.cos(np.arange(8) * math.pi / 4)], [0.0, *np.sin(np.arange(8) * math.pi / 4)]])
"""Where the ground is looked at beside the feet, from the base, m: below it and half a metre around."""
JUMP = SKILLS.index("jump")
"""While it is asked for, feet need not stand."""
RELOCATED = 0.5
"""A pose that moved by more between two control steps was believed to be elsewhere, m: by the message filter, after
many that agreed. The way begins anew there."""


class Motion:
    """All monitors of this file around one robot."""

    def __init__(self, robot: Robot, limits: Limits, terrain: TerrainHeights) -> None:
        """Without chains of hinges in the robot's model (`Feet`) nothing is held against the legs."""
        self.robot, self.terrain = robot, terrain
        self.drives, self.readings = DrivesObey(limits.drive_differs, robot), ReadingsInTime(limits.readings_rare)
        self.stuck, self.torn = CommandsAnswer(limits.command_moved), CommandsAgree(limits.command_jumps)
        self.way, self.hops = PoseAgainstMotion(limits.pose_differs), PoseHops(limits.pose_hops)
        self.heading = HeadingAgainstTurn(limits.heading_differs)
        self.feet = FeetOnGround(limits.feet_height, limits.feet_lean, robot)
        self.grid = GridUnderFeet(limits.grid_differs)
        try:
            self._legs: Feet | None = Feet.of(robot)
            self._standing = self._legs.places(np.asarray(robot.default_pose, float))
        except InputError:
            self._legs, self._standing = None, np.zeros((len(robot.legs), 3))
        self._now: int = NEVER
        self._pose: list[float] | None = None
        self._odd = False
        """In every second control step feet are held against the ground: that takes longest."""
        self.ground: float | None = None
        """Height of the mapped ground under the base, m, where this control step has looked at it."""
        self.doubt_of_grid: Refusal | None = None
        """What is wrong with the newest height grid."""

    def every(self) -> tuple[Monitor, ...]:
        """Each of them."""
        return (
            self.drives, self.readings, self.stuck, self.torn, self.way, self.hops, self.heading, self.feet.height,
            self.feet.lean, self.grid,
        )  # fmt: skip

    def reset(self) -> None:
        """Forgets what was seen."""
        self._now = NEVER
        self.drives.reset()
        self.readings.reset()
        self._begin_walk()

    def warm_up(self, limits: Limits) -> None:
        """Holds a robot that trembles where it stands against itself for nothing: what monitors need of memory is taken
        then, and what these here have seen stays as it is."""
        other = Motion(self.robot, limits, self.terrain)
        still = Snapshot.blank(self.robot.joints)
        still.position, still.effort = np.array(self.robot.default_pose, float), np.ones(self.robot.joints)
        for k in range(WARM_UP_STEPS):
            still.joints_time = still.imu_time = k
            still.position = still.position + 1e-6
            other.see(round((1 + k * self.robot.control_period) * NS), still, still.position, np.zeros(3), True)
        other.reset()

    def _begin_walk(self) -> None:
        self.stuck.reset()
        self.torn.reset()
        self.hops.reset()
        self._begin_way()
        self._odd = False
        self.terrain.doubted, self.doubt_of_grid = False, None

    def _begin_way(self) -> None:
        self.way.reset()
        self.heading.reset()
        self.feet.reset()
        self._pose = None

    def see(
        self, now: int, seen: Snapshot, targets: Array | None, command: Array | None, pose_known: bool
    ) -> list[Verdict]:
        """Takes a control step of a robot that is held.

        Args:
          now: ns.
          targets: what the drives hold, rad `[J]`; None where they hold nothing.
          command: what a policy that runs is asked for, `[3]`; None where none runs.
          pose_known: whether the pose is fresh.
        """
        seconds = (now - self._now) / NS if self._now != NEVER else math.inf
        if seconds > GAP:
            self.reset()
        elif seconds > 1.5 * self.robot.control_period:
            self.drives.reset()
        self._now = now
        found = [self.drives.see(targets, seen), self.readings.see(seen)]
        if command is None:
            self._begin_walk()
        else:
            found.append(self.torn.see(seen.command))
            if pose_known:
                found += self._by_pose(seen, command, seconds, now)
            else:
                self._begin_way()
                self.hops.reset()
        return [
            Verdict(Action.DAMP if doubt.code in DAMPS else Action.STOP, *doubt[:4])
            for doubt in found if doubt is not None
        ]  # fmt: skip

    def _by_pose(self, seen: Snapshot, command: Array, seconds: float, now: int) -> list[Refusal | None]:
        here = seen.pose[:3].tolist()
        if self._pose is not None and math.dist(self._pose, here) > RELOCATED:
            self._begin_way()
        self._pose = here
        yaw = heading(seen.orientation)
        feet = np.zeros_like(self._standing)
        if self._legs is not None:
            feet = self._legs.places(seen.position) @ turn_of(seen.orientation, float(seen.pose[3]) - yaw).T
        seconds, told_at = min(seconds, GAP), seen.command_time
        stance = Stance(seen.pose, yaw, feet, seen.command, command, seconds, lean(seen), told_at)
        found = [self.stuck.see(stance), self.hops.see(stance), self.heading.see(stance)]
        if self._legs is None:
            return found
        found.append(self.way.see(stance))
        self._odd = not self._odd
        if self._odd:
            return found
        legs = len(feet)
        x, y = (here[k] + np.concatenate([feet[:, k], AROUND[k]]) for k in (0, 1))
        ground = self.terrain.ground(x, y)
        self.ground = float(ground[legs])
        if seen.skill == JUMP:
            self.feet.reset()
        else:
            found += self.feet.see(stance, ground[:legs], ground, self._standing)
        self.doubt_of_grid = None
        if self.terrain.is_measured(seen, now):
            heights, here_too = here[2] + np.append(feet[:, 2] - self.robot.foot_radius, 0.0), slice(0, legs + 1)
            measured = self.terrain.measured(seen, x[here_too], y[here_too])
            self.doubt_of_grid = self.grid.see(heights - ground[here_too], heights - measured)
        self.terrain.doubted = self.doubt_of_grid is not None
        return found


def heading(orientation: Array) -> float:
    """Of a quaternion (w, x, y, z), rad: `sim.observation.yaw_of` for one."""
    w, x, y, z = orientation.tolist()
    return math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def turn_of(orientation: Array, yaw: float = 0.0) -> Array:
    """Rotation matrix of a quaternion (w, x, y, z) that is turned on about the vertical by `yaw`, rad."""
    w, x, y, z = orientation.tolist()
    cw, sw = math.cos(0.5 * yaw), math.sin(0.5 * yaw)
    w, x, y, z = cw * w - sw * z, cw * x - sw * y, cw * y + sw * x, cw * z + sw * w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
