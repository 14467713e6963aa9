"""The safety chain: small checks, each with its own limit, before and after the policy.

A check looks at one thing and says nothing, or a `Verdict`: what has to happen, and a sentence with the value and the
limit. Form and numbers of messages are checked where they come in (`robot.loop.message_filter`); here are freshness,
attitude, height, joint speed and torque, the loop's own punctuality, and what the policy puts out.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple, cast

import numpy as np

from robot.loop.parameters import number, whole
from robot.loop.refusals import Code, Refusal
from robot.loop.transport import NEVER, NS, Array, Snapshot
from sim import observation as obs
from sim.robots.description import Robot


@dataclass(frozen=True)
class Limits:
    """Limits of the safety chain, each with its unit in its description and its reason below it.

    What the bundle says of joints, torque and commands comes on top. All are chosen by hand, between what robots do and
    what no robot survives. "At worst" is what five randomised courses came to (generalist and specialists, official and
    reversed; `python -m robot.bench.limits RECORDING ...` prints it).
    """

    sensor_timeout: float = number(0.06, 0.01, 1.0, "Joint and IMU readings older than this damp the robot, in s.")
    """Room for fifteen readings at 250 Hz that are lost in a row; ages are 4 ms in simulated time."""
    command_timeout: float = number(0.08, 0.02, 5.0, "A velocity command older than this brakes the robot, in s.")
    """Room for three commands at 50 Hz that are lost in a row."""
    pose_timeout: float = number(0.08, 0.02, 5.0, "A pose older than this brakes the robot, in s.")
    """As `command_timeout`: the navigator answers poses. At 2 m/s the robot is 16 cm further."""
    tilt: float = number(1.2, 0.3, 3.2, "Largest lean of the base from upright, in rad.")
    """0.76 rad at worst, on a course with a ramp of 0.52 rad."""
    clearance: float = number(
        0.0, 0.0, 0.5, "Least height of the base above the ground, in m; 0 means that of the robot's description."
    )
    """0.135 m at worst (Barkour v0); from where a robot counts as fallen is its own: `Fall`."""
    fallen_seconds: float = number(
        0.06, 0.0, 2.0, "A base past `tilt` or below `clearance` for this long damps the robot, in s."
    )
    """Three control steps: one reading alone, or the shock of a landing, is no fall."""
    joint_speed: float = number(
        0.0, 0.0, 100.0, "Largest speed of a joint, in rad/s; 0 means 1.4 times the motors' no-load speed."
    )
    """25 rad/s at worst (Barkour v0); see `OVERSPEED`."""
    joint_speed_seconds: float = number(
        0.03, 0.0, 2.0, "A joint past `joint_speed` for this long damps the robot, in s."
    )
    """More than one control step: a reading alone is no runaway joint."""
    torque_share: float = number(
        1.2, 0.1, 5.0, "Largest reported joint torque, as a multiple of the bundle's limit (no unit)."
    )
    """1.0 at worst: motors give no more. A fifth is left for drives that estimate it from their current."""
    torque_seconds: float = number(0.06, 0.0, 2.0, "A torque past `torque_share` for this long stops the robot, in s.")
    """Three control steps, as `fallen_seconds`."""
    encoder_moved: float = number(0.15, 0.02, 3.0, "A joint moved this far by target or speed must read anew, in rad.")
    """Fifteen times the noise of a joint's angle in evaluation physics (0.01 rad)."""
    encoder_seconds: float = number(
        0.06, 0.0, 2.0, "A joint that still reads the same after this long damps the robot, in s."
    )
    """As long as `sensor_timeout`: a frozen encoder is a reading that is too old."""
    target_step: float = number(1.7, 0.05, 5.0, "Largest change of a joint target in one control step, in rad.")
    """1.06 rad at worst."""
    target_start: float = number(
        0.0,
        0.0,
        5.0,
        "Largest distance of a target from its joint once the drives had to wait, in rad; 0 means that of peak torque.",
    )
    """Beyond the distance of peak torque a drive pulls as hard as it can, however far the target is."""
    answer_moved: float = number(
        0.15, 0.02, 3.0, "Joints that have moved by this in four control steps make the policy's targets move, in rad."
    )
    """As `encoder_moved`: so far that a policy that reads its inputs answers."""
    answer_still: float = number(
        0.002, 0.0, 1.0, "A policy whose targets all stay within this while joints moved is not used any more, in rad."
    )
    """Numbers that a network gives for inputs that differ so much differ by 0.049 rad at least."""
    drive_differs: float = number(
        0.25,
        0.02,
        5.0,
        "A drive's torque may differ from what its target asks for by this share of its peak (no unit).",
    )
    """1.6 times the worst of 24 randomised courses (`python -m robot.bench.monitors` for this and those below)."""
    pose_differs: float = number(
        0.7, 0.05, 100.0, "The pose may move by this other than legs and commands within 0.8 s, in m."
    )
    """1.7 times the worst with true poses, 1.4 times the worst with poses that are wrong and late."""
    pose_hops: int = whole(2, 0, 10, "So many steps of the pose of more than 0.2 m among ten are no fault yet.")
    """Two come of a pose that is believed elsewhere, or of one after a gap."""
    heading_differs: float = number(
        0.7, 0.05, 3.2, "The pose may turn by this other than the attitude within half a second, in rad."
    )
    """Ten times the worst with true poses, twice the worst with a heading that is noisy and late."""
    feet_height: float = number(0.25, 0.02, 10.0, "Feet that stand may be this far from the mapped ground, in m.")
    """Twice the worst, with poses that are wrong and late; ten times that with true ones."""
    feet_lean: float = number(0.3, 0.05, 10.0, "Feet that stand may lean by this against the mapped ground, in rad.")
    """1.5 times the worst with poses that are wrong and late, five times the worst with true ones."""
    grid_differs: float = number(
        0.2, 0.02, 10.0, "A measured height grid is not used where it is this far from feet that stand on it, in m."
    )
    """By hand: twice a table's height, so that a pose that is late at its edge is no fault."""
    readings_rare: int = whole(2, 0, 5, "So many control steps of five may be without a new joint or IMU reading.")
    """Readings every 20 ms miss a step now and then; half of the steps without one are 25 a second."""
    command_moved: float = number(
        0.0, 0.0, 100.0, "A command that stays the same while the pose moves this far is stuck, in m; 0 means never."
    )
    """The shipped navigator stayed the same over 0.10 m; `barkour onboard` in simulation takes 0.3 m."""
    command_jumps: int = whole(3, 0, 10, "So many steps of the command of more than 0.5 among ten are no fault yet.")
    """None in the courses tried; by hand, for a person moves a stick to and fro less often in 0.2 s."""
    overruns: int = whole(
        3, 1, 50, "So many overrunning control steps in a row stop the robot; a long one counts as 2 steps."
    )
    """60 ms, as `sensor_timeout`: the drives hold what they were sent last."""
    missed: int = whole(8, 1, 50, "So many missed deadlines among the last 50 stop the robot.")
    """A sixth of a second's deadlines: an overload that lasts, not one stall, which `away` and `overruns` see."""
    away: float = number(
        0.0,
        0.0,
        5.0,
        "A held robot that was sent nothing for longer than this is damped, in s; 0 means as long as its drives wait.",
    )
    """The drives' own watchdog: after it they have damped, and what the loop knows of the robot is over."""

    def of(self, robot: Robot) -> "Limits":
        """These limits with the robot's own where they leave it to the robot."""
        own = {
            "clearance": robot.fall.clearance,
            "joint_speed": OVERSPEED * float(robot.no_load_speed.max()),
            "away": min(robot.drives.watchdog, FOR_EVER),
        }
        return replace(self, **{name: value for name, value in own.items() if not getattr(self, name)})

    def start_of(self, robot: Robot) -> Array:
        """`target_start`, or the distance at which each joint's drive gives its peak torque, rad `[J]`."""
        return np.full(robot.joints, self.target_start) if self.target_start else robot.torque_limit / robot.kp


WINDOW = 50
"""So many deadlines are remembered: one second of them, over which `missed` counts."""
FOR_EVER = 0.5
"""Drives may wait for longer, or for ever; a loop that was away for this has lost its robot all the same, s."""
WAITED = 0.5
"""Drives that got nothing for this share of `away` had to wait: the loop has missed more than one deadline."""
OVERSPEED = 1.4
"""A joint may be turned so many times faster than its motor turns without load, as a landing does."""
OF_LATE = 0.1
"""Speeds of joints that read the same are added up over this, s."""


class Action(IntEnum):
    """What a verdict asks for, from mild to strict."""

    BRAKE = 1
    """Zero command; running goes on if the cause goes away while it brakes."""
    STOP = 2
    """Brake, stand, damp, disarm."""
    STAND = 3
    """The policy is not to be used any more: stand, damp, disarm."""
    DAMP = 4
    """Damping at once."""


class Verdict(NamedTuple):
    """What a check says."""

    action: Action
    code: Code
    sentence: str
    value: float = math.nan
    """What was measured, in the unit of the limit; infinite for the age of what never came, NaN where there is none."""
    limit: float = math.nan
    """What it is measured against; NaN where there is none."""

    @property
    def refusal(self) -> Refusal:
        """What is counted and logged of it."""
        return Refusal(self.code, self.sentence, self.value, self.limit)


@dataclass
class Readings:
    """What is known of joints that read the same to the last digit, reading after reading; arrays `[J]`."""

    position: Array
    lowest: Array
    """Least target since the reading is the same, rad; NaN where there was none."""
    highest: Array
    turned: Array
    """By how much joints have turned of late by their speeds, rad."""
    moves_since: Array
    """Since when they are to have moved by more than the limit all the same, ns."""
    time: int = NEVER
    """When the last reading came in, ns."""

    @classmethod
    def none(cls, joints: int) -> "Readings":
        """Before the first reading."""
        unknown = np.full(joints, np.nan)
        return cls(unknown, unknown, unknown, np.zeros(joints), np.full(joints, NEVER))


@dataclass
class Context:
    """What checks look at in one control step, and what they remember."""

    robot: Robot
    limits: Limits
    now: int = 0
    snapshot: Snapshot = field(default_factory=Snapshot)
    targets: Array | None = None
    """Joint targets that the drives hold, rad `[J]`; None where they hold none."""
    ground: float | None = None
    """Height of the ground under the base, m; None where it is not known."""
    needs_pose: bool = True
    stood: bool = False
    """Whether the robot has stood since it was armed: one that gets up may be low."""
    overran: int = 0
    """Control steps in a row that took longer than a period, those longer than two periods counted twice."""
    deadlines: deque[bool] = field(default_factory=lambda: deque(maxlen=WINDOW))
    """Of the last deadlines, which were missed."""
    silent: float = 0.0
    """Seconds since the drives of a robot that is held were last sent something; 0 where it is not held."""
    doubts: list[Verdict] = field(default_factory=list["Verdict"])
    """What the monitors of `robot.loop.motion` say in this control step."""
    tilted_since: int = NEVER
    low_since: int = NEVER
    fast_since: int = NEVER
    strained_since: int = NEVER
    readings: Readings = field(init=False)

    def __post_init__(self) -> None:
        self.limits = self.limits.of(self.robot)
        self.readings = Readings.none(self.robot.joints)

    def age(self, time: int) -> float:
        """Seconds since `time` (ns); infinite before the first message."""
        return np.inf if time == NEVER else (self.now - time) / NS


def lean(snapshot: Snapshot) -> float:
    """Angle between the base's up axis and the world's, rad."""
    return float(np.arccos(np.clip(-obs.projected_gravity(np, snapshot.orientation)[2], -1.0, 1.0)))


def sensors_fresh(c: Context) -> Verdict | None:
    """Blind robots damp: without joints and attitude no posture can be held sensibly."""
    limit = c.limits.sensor_timeout
    for code, what, time in (
        (Code.JOINTS_STALE, "joint readings", c.snapshot.joints_time),
        (Code.IMU_STALE, "IMU readings", c.snapshot.imu_time),
    ):
        age = c.age(time)
        if age > limit:
            return Verdict(Action.DAMP, code, _old(what, age, limit), age, limit)
    return None


def upright(c: Context) -> Verdict | None:
    """The base must not lean too far for too long."""
    leaning = lean(c.snapshot)
    c.tilted_since = _since(c.tilted_since, c.now, not leaning <= c.limits.tilt)
    if _lasted(c.tilted_since, c.now, c.limits.fallen_seconds):
        sentence = f"the base leans by {leaning:.2f} rad, limit {c.limits.tilt}"
        return Verdict(Action.DAMP, Code.TILT, sentence, leaning, c.limits.tilt)
    return None


def clear_of_the_ground(c: Context) -> Verdict | None:
    """The base of a robot that has stood must stay above the ground, where both are known."""
    if not c.stood or c.ground is None or c.age(c.snapshot.pose_time) > c.limits.pose_timeout:
        c.low_since = NEVER
        return None
    clearance = float(c.snapshot.pose[2]) - c.ground
    c.low_since = _since(c.low_since, c.now, not clearance >= c.limits.clearance)
    if _lasted(c.low_since, c.now, c.limits.fallen_seconds):
        sentence = f"the base is {clearance:.3f} m above the ground, limit {c.limits.clearance}"
        return Verdict(Action.DAMP, Code.HEIGHT, sentence, clearance, c.limits.clearance)
    return None


def joint_speed(c: Context) -> Verdict | None:
    """No joint may turn faster than its motor can hold back."""
    worst = int(np.abs(c.snapshot.velocity).argmax())
    speed = float(abs(c.snapshot.velocity[worst]))
    c.fast_since = _since(c.fast_since, c.now, not speed <= c.limits.joint_speed)
    if _lasted(c.fast_since, c.now, c.limits.joint_speed_seconds):
        name = c.robot.joint_names[worst]
        sentence = f"{name} turns at {speed:.1f} rad/s, limit {c.limits.joint_speed}"
        return Verdict(Action.DAMP, Code.JOINT_SPEED, sentence, speed, c.limits.joint_speed)
    return None


def encoders_alive(c: Context) -> Verdict | None:
    """No joint may read the same to the last digit while its target or its own speed moves it: its encoder is stuck.

    A joint that stands may read the same for ever. Time counts from when the target has moved by the limit, so that
    drives and joint can follow; speeds are added up over `OF_LATE` alone, so that noise and offsets do not.
    """
    seen, same, limit = c.snapshot, c.readings, c.limits.encoder_moved
    time, seconds = seen.joints_time, (seen.joints_time - same.time) / NS
    if time == same.time:
        return None
    stays = (seen.position == same.position) & (seconds <= c.limits.sensor_timeout)
    targets = np.full(c.robot.joints, np.nan) if c.targets is None else c.targets
    follows = stays & (c.targets is not None)
    same.lowest = np.where(follows, np.fmin(same.lowest, targets), targets)
    same.highest = np.where(follows, np.fmax(same.highest, targets), targets)
    same.turned = np.where(stays, (same.turned + seconds * seen.velocity) * max(1 - seconds / OF_LATE, 0.0), 0.0)
    moves = np.fmax(same.highest - same.lowest, np.abs(same.turned)) > limit
    since = np.where((same.moves_since == NEVER) & moves, time, same.moves_since)
    same.moves_since = np.where(stays, since, NEVER)
    same.time, same.position = time, seen.position
    lasting = np.where(same.moves_since == NEVER, -1.0, (time - same.moves_since) / NS)
    worst = int(lasting.argmax())
    if lasting[worst] < c.limits.encoder_seconds - 1e-9:
        return None
    name, value = c.robot.joint_names[worst], seen.position[worst]
    stuck, allowed = float(lasting[worst]), c.limits.encoder_seconds
    sentence = f"{name} reads {value:.3f} rad {stuck:.3f} s after it was to move by more than {limit} rad"
    return Verdict(Action.DAMP, Code.JOINT_STUCK, f"{sentence}, limit {allowed}", stuck, allowed)


def torque(c: Context) -> Verdict | None:
    """Reported torques above the motors' own are a fault of drive or gear."""
    effort = np.fmax(np.abs(c.snapshot.effort), 0.0)  # 0 where none is reported
    limits = c.limits.torque_share * c.robot.torque_limit
    worst = int((effort - limits).argmax())
    limit = float(limits[worst])
    c.strained_since = _since(c.strained_since, c.now, bool(effort[worst] > limit))
    if _lasted(c.strained_since, c.now, c.limits.torque_seconds):
        name = c.robot.joint_names[worst]
        sentence = f"{name} reports {effort[worst]:.1f} N m, limit {limit:.1f}"
        return Verdict(Action.STOP, Code.TORQUE, sentence, float(effort[worst]), limit)
    return None


def punctual(c: Context) -> Verdict | None:
    """A loop that cannot keep its period does not control."""
    if c.overran >= c.limits.overruns:
        sentence = f"control steps took too long, {c.overran} in a row, limit {c.limits.overruns}"
        return Verdict(Action.STOP, Code.OVERRUN, sentence, c.overran, c.limits.overruns)
    return None


def keeping_up(c: Context) -> Verdict | None:
    """A loop that misses deadlines again and again, with whole ones between them, does not control either."""
    missed = sum(c.deadlines)
    if missed >= c.limits.missed:
        sentence = f"{missed} of the last {len(c.deadlines)} deadlines were missed, limit {c.limits.missed}"
        return Verdict(Action.STOP, Code.MISSED, sentence, missed, c.limits.missed)
    return None


def present(c: Context) -> Verdict | None:
    """Drives that waited too long have let go of the posture: whatever this loop knew of it is not true any more."""
    limit = c.limits.away
    if c.silent > limit:
        sentence = f"the loop sent nothing for {c.silent:.3f} s, limit {limit}"
        return Verdict(Action.DAMP, Code.AWAY, sentence, c.silent, limit)
    return None


def moves_as_told(c: Context) -> Verdict | None:
    """The robot moves as its pose, its commands, its drives and the ground say."""
    return max(c.doubts, key=lambda v: v.action, default=None)


def command_fresh(c: Context) -> Verdict | None:
    """Without a newer command the robot brakes."""
    age, limit = c.age(c.snapshot.command_time), c.limits.command_timeout
    if age > limit:
        return Verdict(Action.BRAKE, Code.COMMAND_STALE, _old("the velocity command", age, limit), age, limit)
    return None


def pose_fresh(c: Context) -> Verdict | None:
    """Without a pose the terrain is unknown."""
    age, limit = c.age(c.snapshot.pose_time), c.limits.pose_timeout
    if c.needs_pose and age > limit:
        return Verdict(Action.BRAKE, Code.POSE_STALE, _old("the pose", age, limit), age, limit)
    return None


ALWAYS: tuple[Callable[[Context], Verdict | None], ...] = (
    sensors_fresh, upright, clear_of_the_ground, joint_speed, encoders_alive, torque, punctual, keeping_up,
    present, moves_as_told,
)  # fmt: skip
"""Whenever the joints are held."""
RUNNING: tuple[Callable[[Context], Verdict | None], ...] = (command_fresh, pose_fresh)
"""While the policy follows commands."""


def strictest(checks: tuple[Callable[[Context], Verdict | None], ...], context: Context) -> Verdict | None:
    """The first of the strictest verdicts; every check is made, so that each remembers what it saw."""
    verdicts = [verdict for check in checks if (verdict := check(context)) is not None]
    return max(verdicts, key=lambda v: v.action, default=None)


def bounded_command(command: Array, ranges: dict[str, list[float]]) -> tuple[Array, Refusal | None]:
    """The command `[3]` within the ranges that the policy was trained on, and what was wrong with it, if anything."""
    low, high = np.array([ranges[name] for name in obs.COMMANDS]).T
    bounded = np.clip(command, low, high)
    outside = np.abs(command - bounded)
    worst = int(outside.argmax())
    if outside[worst] <= 1e-6:
        return bounded, None
    name = ("forward velocity", "sideways velocity", "yaw rate")[worst]
    sentence = f"the commanded {name} is {command[worst]:.2f}, the policy's range {low[worst]:.2f} to {high[worst]:.2f}"
    return bounded, Refusal(Code.COMMAND_RANGE, sentence, float(command[worst]), float(bounded[worst]))


def bounded_targets(targets: Array, before: Array, robot: Robot, step: float) -> tuple[Array, Refusal | None]:
    """Joint targets `[J]` (rad) inside the joints' ranges and within `step` of the targets `before`, and what was
    wrong with them, if anything."""
    inside = np.clip(targets, robot.joint_lower, robot.joint_upper)
    problem: Refusal | None = None
    beyond = np.abs(targets - inside)
    worst = int(beyond.argmax())
    if beyond[worst] > 1e-5:
        low, high, name = robot.joint_lower[worst], robot.joint_upper[worst], robot.joint_names[worst]
        sentence = f"the target of {name} is {targets[worst]:.2f} rad, its range {low:.2f} to {high:.2f}"
        problem = Refusal(Code.TARGET_RANGE, sentence, float(targets[worst]), float(inside[worst]))
    change = inside - before
    worst = int(np.abs(change).argmax())
    if abs(change[worst]) > step + 1e-6:
        sentence = f"the target of {robot.joint_names[worst]} changed by {abs(change[worst]):.2f} rad, limit {step}"
        problem = problem or Refusal(Code.TARGET_STEP, sentence, float(abs(change[worst])), step)
        inside = before + np.clip(change, -step, step)
    return inside.astype(np.float32), problem


def near_the_joints(targets: Array, position: Array, allowed: Array, robot: Robot) -> tuple[Array, Refusal | None]:
    """Joint targets `[J]` (rad) not further than `allowed` `[J]` from the joints, and what was wrong, if anything."""
    change = targets - position
    beyond = np.abs(change) - allowed
    worst = int(beyond.argmax())
    if beyond[worst] <= 1e-6:
        return targets, None
    far, limit = float(abs(change[worst])), float(allowed[worst])
    sentence = f"the target of {robot.joint_names[worst]} begins {far:.2f} rad from the joint, limit {limit:.2f}"
    near = np.clip(position + np.clip(change, -allowed, allowed), robot.joint_lower, robot.joint_upper)
    return near.astype(np.float32), Refusal(Code.TARGET_START, sentence, far, limit)


def unusable(targets: object, joints: int) -> Refusal | None:
    """Why what a policy put out is no set of targets for so many joints; None if it is."""
    array = cast(Array, targets) if isinstance(targets, np.ndarray) else None
    if array is None or array.shape != (joints,):
        shape = None if array is None else array.shape
        return Refusal(Code.POLICY_SHAPE, f"the policy put out the shape {shape}, ({joints},) is needed")
    if not np.isfinite(array).all():
        odd = float(array[~np.isfinite(array)][0])
        return Refusal(Code.POLICY_NOT_FINITE, f"the policy put out {odd} for a joint", odd)
    return None


def _old(what: str, age: float, limit: float) -> str:
    if not np.isfinite(age):
        return f"{what} never came"
    return f"{what} {'are' if what.endswith('s') else 'is'} {age:.3f} s old, limit {limit}"


def _since(since: int, now: int, true: bool) -> int:
    if not true:
        return NEVER
    return now if since == NEVER else since


def _lasted(since: int, now: int, seconds: float) -> bool:
    return since != NEVER and (now - since) / NS >= seconds - 1e-9
