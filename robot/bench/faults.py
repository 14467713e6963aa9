"""Faults of sensors, commands, clocks, policy, operators, disks and bundles, each tried on the real control loop.

    python -m robot.bench.faults
    python -m robot.bench.faults --unitree

A fault is safe when the robot is in the state that it must reach within `BUDGET` of becoming visible, when nothing was
sent that must not be sent (`Rig.violations`), and when the controller says why. Visible: when the first message that is
wrong came in, or the first that is missing was due; for a step that takes too long, when the first one ended. Where an
error is small at first it is visible from when it passes what stands beside the kind of fault, in `fault_kinds` and
`motion_faults`: a speed or rate that reads wrong and has added up to 0.08 rad, a stuck encoder whose target has moved
by the limit, a robot that leans or sinks past it, a torque, a way, a lean. `UNSEEN` are what no monitor can see.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.skills.library import load_skills
from robot.bench import motion_faults
from robot.bench.fault_kinds import (
    ABDUCTION,
    AGES,
    ALL,
    ASIDE,
    ASKED,
    BLIND,
    BRAKES,
    DISAGREE,
    DISARMED,
    DOWN,
    EMERGENCY,
    FIELDS,
    FRONT_HIP,
    FRONT_KNEE,
    GOES_ON,
    HIP,
    KNEE,
    LET_GO,
    LOST,
    NONSENSE,
    NOT_ARMED,
    ONE_JOINT,
    SHOWS,
    SINGLE,
    SLOW,
    SOFT,
    TURN,
    UNUSED,
    Change,
    Fault,
    altered,
    armed_later,
    armed_where_it_lies,
    asked,
    at,
    believed,
    clocks,
    deaf,
    delayed,
    disagreeing,
    disarms,
    drifting_attitude,
    fails,
    fallen,
    frozen_policy,
    full_disk,
    lies_or_stands,
    of,
    once,
    other_rate,
    overrunning,
    overturned,
    paused,
    policy,
    policy_once,
    replaced,
    restarted,
    right_joints,
    rolling,
    said_of_the_disk,
    silence,
    slow,
    stalled,
    stands_still,
    still_joint,
    stuck,
    stuck_attitude,
    stuck_joint,
    swap,
    turns_too_fast,
)
from robot.bench.fault_kinds import Full as Full
from robot.bench.rig import DAMPED, Rig, skills_of
from robot.bench.unitree_wire import Unsayable
from robot.loop.controller import Times
from robot.loop.refusals import Code, Source
from robot.loop.transport import Array
from robot.results import by_sensor
from sim.errors import InputError

BUDGET = 100.0
"""Within this the state must be reached, ms."""
REFUSED = "refused at start"


# --- the table --------------------------------------------------------------------------------------------------------


def reverse(values: Any) -> list[Any]:
    """The last first."""
    return list(values)[::-1]


def without_first(values: Any) -> list[Any]:
    """All but the first."""
    return list(values)[1:]


def with_first_again(values: Any) -> list[Any]:
    """The first once more at the end."""
    return [*values, values[0]]


def with_another(value: Any) -> Change:
    """A value of another machine's joint at the end."""
    return lambda values: [*values, value]


def degrees(values: Any) -> Array:
    """Angles in the unit that they should not have."""
    return np.rad2deg(values)


JOINT_SPEEDS = of(Source.JOINTS, Code.JOINT_DISAGREES)
STUCK = (str(Code.JOINT_STUCK), *JOINT_SPEEDS)


def _everything(values: Any) -> Any:
    return [None, "nonsense", {"a": [1]}]


def _random_spikes(values: Any) -> Array:
    return np.asarray(values) + np.random.default_rng(0).choice([-1.0, 1.0], len(values))


SILENCE: tuple[Fault, ...] = (
    Fault("joint readings silent", "running", silence("joints"), EMERGENCY, BLIND, Code.JOINTS_STALE),
    Fault("IMU silent", "running", silence("imu"), EMERGENCY, BLIND, Code.IMU_STALE),
    Fault("joints and IMU silent", "running", silence("joints", "imu"), EMERGENCY, BLIND, Code.JOINTS_STALE),
    Fault("sensors silent while standing up", "standing up", silence("joints", "imu"), EMERGENCY, BLIND,
          Code.JOINTS_STALE),
    Fault("sensors silent in a soft stop", "soft stop", silence("joints", "imu"), EMERGENCY, BLIND, Code.JOINTS_STALE),
    Fault(
        "sensors silent in a dry run", "running", silence("joints"), EMERGENCY, BLIND, Code.JOINTS_STALE,
        rig={"dry_run": True},
    ),
    Fault("transport killed and restarted", "running", silence(*ALL), EMERGENCY, BLIND, Code.JOINTS_STALE, restarted),
)  # fmt: skip
CLOCKS: tuple[Fault, ...] = (
    Fault("joint stamps frozen", "running", stuck("joints", "stamp"), EMERGENCY, NONSENSE,
          of(Source.JOINTS, Code.STAMP_FROZEN)),
    Fault("IMU stamps frozen", "running", stuck("imu", "stamp"), EMERGENCY, NONSENSE,
          of(Source.IMU, Code.STAMP_FROZEN)),
    *(
        Fault(f"sender's clock {abs(step):g} s {'back' if step < 0 else 'ahead'}", "running", clocks(step), GOES_ON,
              AGES, of(Source.JOINTS, Code.CLOCK_SET))
        for step in (-0.07, -0.15, -0.3, -0.99, -2.0, 0.07, 0.3, 2.0)
    ),
    *(
        Fault(f"sender's clock runs {rate:g} times as fast", "running", other_rate(rate), EMERGENCY,
              "a robot whose time runs otherwise is not controlled at the policy's period",
              (*of(Source.JOINTS, Code.CLOCK_RATE), *JOINT_SPEEDS), watched=1.4)
        for rate in (0.5, 0.8, 1.5)
    ),
    Fault("joint readings late", "running", delayed("joints", 0.15), EMERGENCY, BLIND, Code.JOINTS_STALE),
    Fault("sender's clock 5 s ahead", "running", clocks(5.0), GOES_ON, AGES, of(Source.JOINTS, Code.CLOCK_SET)),
    Fault("sender's clock 5 s back", "running", clocks(-5.0), GOES_ON, AGES, of(Source.JOINTS, Code.CLOCK_SET)),
)  # fmt: skip
JOINTS: tuple[Fault, ...] = (
    Fault("NaN in joint angles", "running", altered("joints", position=at(KNEE, np.nan)), EMERGENCY, NONSENSE,
          of(Source.JOINTS, Code.NOT_FINITE)),
    Fault("infinite joint speed", "running", altered("joints", velocity=at(0, np.inf)), EMERGENCY, NONSENSE,
          of(Source.JOINTS, Code.NOT_FINITE)),
    Fault(
        "swapped joint order", "running", altered("joints", **dict.fromkeys(FIELDS, reverse)), GOES_ON,
        "joints are matched by name", (), right_joints,
    ),
    Fault(
        "missing joint", "running", altered("joints", **dict.fromkeys(FIELDS, without_first)), EMERGENCY, NONSENSE,
        of(Source.JOINTS, Code.MISSING_JOINT),
    ),
    Fault(
        "extra joint", "running",
        altered("joints", **{"names": with_another("tail"), **dict.fromkeys(FIELDS[1:], with_another(0.0))}),
        GOES_ON, "what is not the robot's is left out", of(Source.JOINTS, Code.FOREIGN_JOINT), right_joints,
    ),
    Fault(
        "duplicated joint", "running", altered("joints", **dict.fromkeys(FIELDS, with_first_again)), EMERGENCY,
        "which of the two is right cannot be known", of(Source.JOINTS, Code.DUPLICATE_JOINT),
    ),
    Fault("joint angles in degrees", "running", altered("joints", position=degrees), EMERGENCY, NONSENSE,
          of(Source.JOINTS, Code.OUT_OF_RANGE)),
    Fault(
        "joint beyond its range", "running", altered("joints", position=at(KNEE, 2.8)), EMERGENCY, NONSENSE,
        of(Source.JOINTS, Code.OUT_OF_RANGE), value=2.8,
    ),
    Fault(
        "joint readings stuck", "running", stuck("joints", "position", "velocity", "effort"), EMERGENCY,
        "a moving robot's readings change", of(Source.JOINTS, Code.FROZEN),
    ),
    *(
        Fault(f"{name} encoder stuck{part}", "running", stuck_joint(index, *fields, after=after), EMERGENCY, LOST,
              STUCK, watched=0.8)
        for name, index, after in (("abduction", ABDUCTION, 0.16), ("hip", HIP, 0.06), ("knee", KNEE, 0.0))
        for part, fields in (("", ONE_JOINT), (", not its speed", ONE_JOINT[:1]))
    ),
    *(
        Fault(f"{name} encoder stuck, its speed reads 0", "running", still_joint(index), EMERGENCY, LOST,
              Code.JOINT_STUCK, watched=0.8)
        for name, index in (("abduction", ABDUCTION), ("hip", HIP), ("knee", KNEE))
    ),
    Fault("knee encoder stuck while braking", "soft stop", stuck_joint(FRONT_KNEE, *ONE_JOINT), EMERGENCY, LOST,
          STUCK),
    Fault("knee encoder stuck while standing up", "standing up", stuck_joint(KNEE, *ONE_JOINT), EMERGENCY, LOST,
          STUCK, watched=1.0, rig={"lying": True, "times": Times()}),
    Fault(
        "single joint spike", "running", once("joints", position=at(KNEE, -0.6, 1.0)), GOES_ON, SINGLE,
        of(Source.JOINTS, Code.JUMP)
    ),
    Fault(
        "single joint speed spike", "running", once("joints", velocity=at(KNEE, 45.0)), GOES_ON,
        "a single reading is not yet a joint that turns so fast", (),
    ),
    Fault("joint spikes in every message", "running", altered("joints", position=_random_spikes), EMERGENCY, NONSENSE,
          of(Source.JOINTS, Code.JUMP, Code.OUT_OF_RANGE)),
    Fault("joint offset", "running", altered("joints", position=at(KNEE, -0.8, 1.0)), EMERGENCY,
          "an encoder that has slipped shows another posture", of(Source.JOINTS, Code.JUMP, Code.OUT_OF_RANGE)),
    Fault("joint overspeed", "running", turns_too_fast(FRONT_HIP, 37.0), EMERGENCY,
          "no motor holds a joint back at that speed", Code.JOINT_SPEED, value=37.0),
    Fault("joint speed reads 40 rad/s", "running", altered("joints", velocity=at(KNEE, 40.0)), EMERGENCY, DISAGREE,
          JOINT_SPEEDS),
    *(
        Fault(f"{name} speed {what}", "running", disagreeing("joints", SHOWS, velocity=change), EMERGENCY, DISAGREE,
              JOINT_SPEEDS, watched=0.8, rig={"command": ASIDE} if index == ABDUCTION else {})
        for name, index in (("abduction", ABDUCTION), ("hip", HIP), ("knee", KNEE))
        for what, change in (("dead", at(index, 0.0)), ("reversed", at(index, 0.0, -1.0)),
                             ("doubled", at(index, 0.0, 2.0)))
    ),
    Fault("speeds of two joints swapped", "running", disagreeing("joints", SHOWS, velocity=swap(HIP, KNEE)), EMERGENCY,
          DISAGREE, JOINT_SPEEDS),
    Fault("joint speeds in degrees per second", "running", altered("joints", velocity=degrees), EMERGENCY, NONSENSE,
          (*of(Source.JOINTS, Code.TOO_FAST), *JOINT_SPEEDS)),
    Fault("joint torque too high", "running", altered("joints", effort=at(KNEE, 25.0)), SOFT, BRAKES,
          Code.TORQUE, disarms, value=25.0),
    Fault("joint messages of nonsense", "running", altered("joints", position=_everything, effort=_everything),
          EMERGENCY, NONSENSE, of(Source.JOINTS, Code.MALFORMED)),
)  # fmt: skip
IMU: tuple[Fault, ...] = (
    Fault("NaN in the gyro", "running", altered("imu", angular_velocity=at(1, np.nan)), EMERGENCY, NONSENSE,
          of(Source.IMU, Code.NOT_FINITE)),
    Fault("gyro in degrees per second", "running", altered("imu", angular_velocity=degrees),
          EMERGENCY, "seen on a turn: a gyro at twenty times what it can be is as good as none",
          of(Source.IMU, Code.TOO_FAST),
          rig={"command": TURN}),
    *(
        Fault(f"gyro {what}", "running", disagreeing("imu", SHOWS, angular_velocity=change), EMERGENCY, DISAGREE,
              of(Source.IMU, Code.GYRO), watched=0.8, rig={"command": TURN})
        for what, change in (
            ("dead", at(slice(None), 0.0)), ("reversed", at(slice(None), 0.0, -1.0)),
            ("doubled", at(slice(None), 0.0, 2.0)), ("with x and y swapped", swap(0, 1)),
            ("with x and z swapped", swap(0, 2)), ("dead about z", at(2, 0.0)), ("reversed about y", at(1, 0.0, -1.0)),
            ("off by 1 rad/s about z", at(2, 1.0, 1.0)),
        )
    ),
    Fault("attitude stuck, not the gyro", "running", stuck_attitude, EMERGENCY, DISAGREE, of(Source.IMU, Code.GYRO),
          watched=0.8, rig={"command": TURN}),
    Fault("attitude drifts by 1 rad/s, not the gyro", "running", drifting_attitude(1.0), EMERGENCY, DISAGREE,
          of(Source.IMU, Code.GYRO)),
    Fault("IMU stuck", "running", stuck("imu", "orientation", "angular_velocity"), EMERGENCY,
          "a moving robot's readings change", of(Source.IMU, Code.FROZEN)),
    Fault("single attitude spike", "running", once("imu", orientation=lambda q: [0.0, 1.0, 0.0, 0.0]), GOES_ON, SINGLE,
          of(Source.IMU, Code.JUMP)),
    Fault("quaternion not normalised", "running", altered("imu", orientation=lambda q: 1.2 * np.array(q)), EMERGENCY,
          NONSENSE, of(Source.IMU, Code.NO_ROTATION), value=1.2),
    Fault("quaternion as x, y, z, w", "running", altered("imu", orientation=lambda q: np.roll(q, -1)), EMERGENCY,
          "seen as an attitude that jumps, wherever the heading is not 0", of(Source.IMU, Code.JUMP), rig={"yaw": 2.0}),
    Fault("armed with quaternions as x, y, z, w", "disarmed",
          lambda rig: (altered("imu", orientation=lambda q: np.roll(q, -1))(rig), rig.run(1.0), asked("arm")(rig)),
          DISARMED, "seen as a tilt, wherever the heading is not 0", Code.TILT, rig={"yaw": 2.0}),
    Fault("tilt over the limit", "running", rolling(8.0), EMERGENCY, DOWN, Code.TILT),
    Fault("rolled upside down", "running", rolling(20.0), EMERGENCY, DOWN, Code.TILT),
    Fault("overturned at once", "running", overturned, EMERGENCY, DOWN, of(Source.IMU, Code.JUMP)),
)  # fmt: skip
POSE: tuple[Fault, ...] = (
    Fault("pose lost", "running", silence("pose"), SOFT, BRAKES, Code.POSE_STALE, disarms),
    Fault("NaN in the pose", "running", altered("pose", position=at(0, np.nan)), SOFT, BRAKES,
          of(Source.POSE, Code.NOT_FINITE)),
    Fault("pose jump", "running", altered("pose", position=at(0, 3.0, 1.0)), SOFT, BRAKES,
          of(Source.POSE, Code.JUMP),
          believed, watched=0.16),
    Fault("single pose jump", "running", once("pose", position=at(1, 3.0, 1.0)), GOES_ON, SINGLE,
          of(Source.POSE, Code.JUMP)),
    Fault("pose stuck", "running", stuck("pose", "position", "orientation"), SOFT, BRAKES,
          of(Source.POSE, Code.FROZEN)),
    Fault("height lost", "running", altered("pose", position=at(2, 0.05)), EMERGENCY, DOWN,
          Code.HEIGHT, value=0.05),
)  # fmt: skip
COMMANDS: tuple[Fault, ...] = (
    Fault("command silence", "running", silence("command"), SOFT, BRAKES, Code.COMMAND_STALE,
          disarms),
    Fault("command back while braking", "running", paused, GOES_ON, "the cause is over", Code.RECOVERED),
    Fault("command out of range", "running", altered("command", command=lambda c: [9.0, 0.0, 0.0]), GOES_ON,
          "it is held inside what the policy was trained on", Code.COMMAND_RANGE, value=9.0),
    Fault("NaN in the command", "running", altered("command", command=lambda c: [np.nan, 0.0, 0.0]), SOFT, BRAKES,
          of(Source.COMMAND, Code.NOT_FINITE)),
    Fault("unknown skill", "running", lambda rig: (rig.wrong(), rig.messages.skill(7)), GOES_ON,
          "the skill before it goes on", of(Source.SKILL, Code.UNKNOWN_NAME)),
)  # fmt: skip
POLICY: tuple[Fault, ...] = (
    Fault("policy puts out NaN", "running", policy(lambda t: np.where(t == t[3], np.nan, t)), SOFT, UNUSED,
          Code.POLICY_NOT_FINITE, lies_or_stands),
    Fault("policy puts out NaN while braking", "soft stop", policy(lambda t: t * np.nan), SOFT, UNUSED,
          Code.POLICY_NOT_FINITE),
    Fault("policy puts out a wrong shape", "running", policy(lambda t: t[:8]), SOFT, UNUSED, Code.POLICY_SHAPE),
    Fault("policy raises", "running", policy(fails(RuntimeError("no memory"))), SOFT, UNUSED,
          Code.POLICY),
    Fault("policy asks beyond a joint's range", "running", policy_once(at(KNEE, 4.0)), GOES_ON,
          "the target is held inside the range", Code.TARGET_RANGE, value=4.0),
    Fault("policy asks for too large a step", "running", policy_once(at(1, 3.2)), GOES_ON,
          "the target is held within the step", Code.TARGET_STEP),
    *(
        Fault(f"policy freezes{what}", when, frozen_policy(noise), SOFT, UNUSED, Code.POLICY_FROZEN, lies_or_stands)
        for what, when, noise in (
            ("", "running", 0.0), (", with noise of 1 mrad", "running", 0.0005),
        )
    ),
)  # fmt: skip
SOFTWARE: tuple[Fault, ...] = (
    Fault("one step overruns", "running", slow(0.03, 1), GOES_ON, "the next step makes up for it", ()),
    Fault("steps overrun", "running", slow(0.03, 99), SOFT, BRAKES, Code.OVERRUN, value=3),
    Fault("steps overrun by far", "running", slow(0.06, 99), SOFT, BRAKES, Code.OVERRUN, value=4),
    Fault("loop stands still for 0.08 s", "running", stands_still(0.08), GOES_ON, "the drives still hold", ()),
    Fault("loop stands still for 0.12 s", "running", stands_still(0.12), EMERGENCY, LET_GO, Code.AWAY),
    Fault("loop stands still for 2 s", "running", stands_still(2.0), EMERGENCY, LET_GO, Code.AWAY, value=2.0),
    Fault("loop stands still while standing up", "standing up", stands_still(0.3), EMERGENCY, LET_GO, Code.AWAY),
    Fault("loop stands still in a soft stop", "soft stop", stands_still(0.3), EMERGENCY, LET_GO, Code.AWAY),
    Fault("policy blocks for 2 s", "running", slow(2.0, 1), EMERGENCY, LET_GO, Code.AWAY, armed_later),
    Fault("every second step overruns", "running", overrunning(0.03, 2), SOFT,
          "a loop that misses a third of its deadlines does not control", Code.MISSED, watched=0.8),
    Fault("every eighth step takes 0.07 s", "running", overrunning(0.07, 8), SOFT,
          "a loop that misses a quarter of its deadlines does not control", Code.MISSED, watched=1.2),
    Fault("control step raises", "running",
          replaced(lambda rig: rig.policy.terrain, "below", fails(ValueError("no such place"))), EMERGENCY,
          "what the loop knows cannot be relied on", Code.CONTROL_STEP),
    Fault("joints cannot be reached", "running", replaced(lambda rig: rig.transport, "write", fails(OSError("gone"))),
          EMERGENCY, "the drives' watchdog damps, and the loop must not go on", Code.UNREACHABLE),
    Fault("log cannot be written", "running",
          lambda rig: (setattr(rig.messages.refusals, "log", fails(OSError())),
                       once("joints", position=at(KNEE, -0.6, 1.0))(rig)),
          GOES_ON, "control does not hang on a log", ()),
    Fault("loop dies", "running", lambda rig: setattr(rig.loop.punctuality, "add", fails(MemoryError())), DAMPED,
          "nobody writes, so the drives' watchdog damps", ()),
    Fault("disk full while recording", "running", lambda rig: rig.wrong(), GOES_ON, "control does not hang on a disk",
          Code.RECORDING, said_of_the_disk, rig=full_disk(short=False)),
    Fault("disk full in the middle of a write", "running", lambda rig: rig.wrong(), GOES_ON,
          "control does not hang on a disk", Code.RECORDING, said_of_the_disk, rig=full_disk(short=True)),
)  # fmt: skip
OPERATORS: tuple[Fault, ...] = (
    Fault("stop while disarmed", "disarmed", asked("stop"), DISARMED, ASKED, ()),
    Fault("stop while standing up", "standing up", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop while running", "running", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop in a soft stop", "soft stop", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop in an emergency", "emergency", asked("stop"), EMERGENCY, "it has stopped already", Code.OPERATOR),
    Fault("disarm while standing up", "standing up", asked("disarm"), EMERGENCY, ASKED, Code.OPERATOR),
    Fault("disarm while running", "running", asked("disarm"), EMERGENCY, ASKED, Code.OPERATOR,
          armed_where_it_lies, rig={"command": SLOW}),
    Fault("disarm in a soft stop", "soft stop", asked("disarm"), SOFT, "damping at once, then disarmed",
          Code.OPERATOR, lambda rig: "" if rig.controller.phase == "damp" else "it does not damp"),
    Fault("double arm", "running", asked("arm", "arm"), GOES_ON, "it is armed already", Code.ALREADY_ARMED),
    Fault("arm and stop at once", "disarmed", asked("arm", "stop"), SOFT, ASKED, Code.OPERATOR),
    Fault("arm while fallen", "disarmed", fallen, DISARMED, NOT_ARMED, Code.TILT),
    Fault("arm without sensors", "disarmed", deaf("joints"), DISARMED, NOT_ARMED, Code.JOINTS_STALE),
    Fault("arm without a pose", "disarmed", deaf("pose"), DISARMED, NOT_ARMED, Code.POSE_STALE),
    Fault("arm long ago", "disarmed", stalled, DISARMED, "who asked has gone", Code.REQUEST_OLD),
)  # fmt: skip
BY_SENSOR: dict[str, tuple[Fault, ...]] = {
    "joint and IMU messages": (*SILENCE, *motion_faults.RATES),
    "clocks": CLOCKS,
    "joint readings": JOINTS,
    "drives": motion_faults.DRIVES,
    "attitude and gyro": (*IMU, *motion_faults.ATTITUDE),
    "pose": (*POSE, *motion_faults.POSES),
    "commands": (*COMMANDS, *motion_faults.NAVIGATORS),
    "height grid": motion_faults.GRIDS,
    "policy": POLICY,
    "loop, recording, disk": SOFTWARE,
    "operators": OPERATORS,
}
"""What is wrong -> its faults."""
FAULTS: tuple[Fault, ...] = tuple(fault for faults in BY_SENSOR.values() for fault in faults)


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _flipped(data: bytes) -> bytes:
    changed = bytearray(data)
    for place in range(len(data) // 3, len(data) // 2, 997):
        changed[place] ^= 0x40
    return bytes(changed)


CORRUPTED: dict[str, Callable[[bytes], bytes]] = {
    "bundle cut off": _cut,
    "bundle with flipped bits": _flipped,
    "bundle of zeros": lambda data: bytes(len(data)),
}
"""What happened to a bundle's file before the start."""


UNSEEN: tuple[tuple[str, str], ...] = (
    (
        "a dead, reversed or slipping drive where no torques are reported, or all as 0",
        "a joint that gives way looks like one that lands",
    ),
    ("a joint whose gear slips while encoder and torque are the motor's", "nothing measures the joint itself"),
    ("an encoder that was off by less than 0.2 rad when the loop began", "nothing else says where the joint is"),
    ("a pose that drifts by less than 0.7 m in 0.8 s", "feet that slip on ramps and fly in jumps hide as much"),
    ("a map and poses that are moved or turned together", "nothing on board knows the course otherwise"),
    ("a pose that is off by the same since before arming, on flat ground", "the robot moves as it says"),
    ("a heading that drifts by less than 0.7 rad in half a second", "poses may be late and noisy"),
    ("attitude and gyro that drift together by less than 0.3 rad, or while it jumps", "feet stand on uneven ground"),
    ("commands of a navigator with another course or frame, that change smoothly", "the loop does not know the way"),
    ("a height grid that is wrong where no foot has stood", "the ground ahead is measured by the grid alone"),
)
"""What cannot be seen from what the loop is told, and why."""


def names() -> list[str]:
    """Every fault that `run_all` tries."""
    return [fault.name for fault in FAULTS] + list(CORRUPTED)


# --- trying them ------------------------------------------------------------------------------------------------------


def try_fault(fault: Fault, **rig_arguments: Any) -> dict[str, Any]:
    """Tries one fault. See `run_all` for what is returned; `rig_arguments` come on top of the fault's own.

    Raises:
      Unsayable: Unitree's messages, by which the `Rig` is joined, have no place for it.
    """
    rig = Rig(**{**fault.rig, **rig_arguments})
    rig.bring_to(fault.when)
    before = rig.controller.refusals.counts.copy()
    fault.inject(rig)
    began = len(rig.steps)
    rig.run(fault.watched, watched=True)
    if isinstance(rig.failure, Unsayable):
        raise rig.failure
    reached, milliseconds = _reached(rig, fault, began)
    code, reason = rig.controller.code, rig.controller.reason
    problems = [fault.then(rig)] if fault.then else []
    problems += rig.violations()
    problems += _unsaid(rig, fault, {code, *(rig.controller.refusals.counts - before)})
    if reached != fault.expected:
        problems.append(f"the state is {reached}, it must be {fault.expected}")
    if not milliseconds <= BUDGET:
        problems.append(f"it took {milliseconds:.0f} ms, limit {BUDGET:.0f}")
    return _result(fault.name, fault.when, fault.expected, reached, milliseconds, code, reason, fault.why, problems)


def _unsaid(rig: Rig, fault: Fault, said: set[str]) -> list[str]:
    """What nobody said of a fault although it must be said; `said` are the keys that came since."""
    said |= {rig.controller.code, *(request.code for request in rig.requests)}
    named = [key for key in fault.keys if key in said]
    if fault.keys and not named:
        return [f"nothing says {' or '.join(fault.keys)}: {', '.join(sorted(said))}"]
    last = rig.controller.refusals.last
    if fault.value is not None and not any(np.isclose(last[key].value, fault.value, rtol=0.01) for key in named):
        return [f"{named[0]}: {last[named[0]].value} was seen, not {fault.value}"]
    return []


def _reached(rig: Rig, fault: Fault, began: int) -> tuple[str, float]:
    """The state in the end, and after how many milliseconds it was reached for good. What the chain saw before it had
    to is 0 ms."""
    if rig.since is None:
        if rig.steps[-1].state == fault.when:
            raise RuntimeError(f"'{fault.name}' never came")
        rig.since = rig.steps[-1].time
    watched, reached = rig.steps[began:], rig.steps[-1].state
    first = len(watched)
    while first > 0 and watched[first - 1].state == reached:
        first -= 1
    if first == 0 and (began == 0 or rig.steps[began - 1].state == reached):
        return reached, 0.0
    return reached, max((watched[first].time - rig.since) / 1e6, 0.0)


def try_bundle(name: str) -> dict[str, Any]:
    """Tries to start with a bundle that was corrupted. See `run_all` for what is returned."""
    good = skills_of().bundles[0].path.read_bytes()
    problems: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "bundle.onnx")
        file.write_bytes(CORRUPTED[name](good))
        try:
            load_skills(str(file))
            reached, code, reason = "started", "", ""
        except InputError as error:
            reached, code, reason = REFUSED, "bundle", str(error).replace(folder, "...")
    if reached != REFUSED:
        problems.append("a corrupted bundle was taken")
    why = "nothing is armed without a whole policy"
    return _result(name, "start", REFUSED, reached, 0.0, code, reason, why, problems)


def sensor_of(name: str) -> str:
    """What is wrong in a fault, as `BY_SENSOR` has it."""
    groups = (group for group, faults in BY_SENSOR.items() if name in [fault.name for fault in faults])
    return next(groups, "bundle" if name in CORRUPTED else "")


def summary(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each sensor, from what `run_all` returned: `sensor`, `tried`, `safe`, `slowest_ms` and `states` (how
    often each was reached)."""
    rows: list[dict[str, Any]] = []
    for sensor in dict.fromkeys(result["sensor"] for result in found if "sensor" in result):
        those = [result for result in found if result.get("sensor") == sensor]
        states = Counter(result["reached"] for result in those)
        rows.append({
            "sensor": sensor, "tried": len(those), "safe": sum(result["safe"] for result in those),
            "slowest_ms": max(result["milliseconds"] for result in those), "states": dict(states),
        })  # fmt: skip
    return rows


def _result(
    name: str,
    when: str,
    expected: str,
    reached: str,
    milliseconds: float,
    code: str,
    reason: str,
    why: str,
    problems: list[str],
) -> dict[str, Any]:
    violations = [problem for problem in problems if problem]
    return {
        "name": name, "sensor": sensor_of(name), "when": when, "expected": expected, "reached": reached,
        "milliseconds": milliseconds,
        "code": code, "reason": reason, "why": why, "safe": not violations, "violations": violations,
    }  # fmt: skip


def run_all(unitree: bool = False) -> list[dict[str, Any]]:
    """Tries every fault, each on a robot of its own; `unitree` leaves out what cannot be said in Unitree's messages.

    Returns:
      A dict each, JSON-ready: `name`, `sensor` (see `BY_SENSOR`), `when` (the state in which it came), `expected` and
      `reached` (states), `milliseconds` (until it was reached for good; 0 where the state is kept), `code` and `reason`
      (of the controller), `why` (that state), `safe`, `violations` (sentences).
    """
    found: list[dict[str, Any]] = []
    for fault in FAULTS:
        with contextlib.suppress(Unsayable):
            found.append(try_fault(fault, unitree=unitree))
    return found + [try_bundle(name) for name in CORRUPTED]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a fault is not safe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--unitree", action="store_true", help="robot and loop are joined by Unitree's messages")
    options = parser.parse_args(arguments)
    found = run_all(options.unitree)
    safe = all(result["safe"] for result in found)
    if options.json:
        print(json.dumps(found))
        return 0 if safe else 1
    shown = Table("fault", "of", "comes when", "state", "ms", "safe", "reason")
    for result in found:
        told = result["reason"] if result["safe"] else "; ".join(result["violations"])
        shown.add_row(
            result["name"], result["sensor"], result["when"], result["reached"], f"{result['milliseconds']:.0f}",
            "yes" if result["safe"] else "NO", told,
        )  # fmt: skip
    Console().print(shown)
    Console().print(by_sensor(summary(found)))
    if left_out := [fault.name for fault in FAULTS if fault.name not in {result["name"] for result in found}]:
        Console().print(f"no place for them in Unitree's messages: {', '.join(left_out)}", highlight=False)
    return 0 if safe else 1


if __name__ == "__main__":
    sys.exit(main())
