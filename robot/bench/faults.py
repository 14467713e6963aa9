"""Faults of sensors, commands, clocks, policy, operators, disks and bundles, each tried on the real control loop.

    python -m robot.bench.faults

A fault is safe when the robot is in the state that it must reach within `BUDGET` of becoming detectable, when nothing
was sent that must not be sent (`Rig.violations`), and when the controller says why. Detectable: when the first message
that is wrong came in, or the first that is missing was due; for a step that takes too long, when the first one ended;
for a robot that leans or sinks, when it passes the limit.
"""

import argparse
import errno
import io
import json
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.skills.library import load_skills
from robot.bench.rig import DAMPED, Rig, skills_of
from robot.loop.controller import BRAKING, Times
from robot.loop.recording import Recorder
from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NS, Array, Snapshot
from robot.transports.hardware import SLICE
from robot.transports.inprocess import Message
from sim.errors import InputError

BUDGET = 100.0
"""Within this the state must be reached, ms."""
WATCHED = 0.3
"""A fault is watched for this long, s."""
ALL = ("joints", "imu", "pose", "command")
REFUSED = "refused at start"
Inject = Callable[[Rig], Any]
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class Fault:
    """One fault, when it comes, and what must come of it."""

    name: str
    when: str
    """State in which it comes: disarmed, standing up, running, soft stop, emergency."""
    inject: Inject
    expected: str
    """State that must be reached, or kept."""
    why: str
    """Why that one."""
    says: tuple[str, ...] | Code
    """What the controller's reason, a request's answer or a refusal must be about: a code, or keys of which one will do
    (see `robot.loop.refusals.Refusal.key`); () where nothing need be said."""
    then: Callable[[Rig], str] | None = None
    """What is tried afterwards; returns what is wrong with it, if anything."""
    watched: float = WATCHED
    """s."""
    value: float | None = None
    """What the refusal must have seen, in the unit of its limit."""
    rig: dict[str, Any] = field(default_factory=dict[str, Any])
    """Arguments of the `Rig`."""

    @property
    def keys(self) -> tuple[str, ...]:
        """`says` as keys."""
        return (str(self.says),) if isinstance(self.says, Code) else self.says


# --- kinds of faults --------------------------------------------------------------------------------------------------


SHOWS = 0.08
"""A reading that is wrong by little is known from when the error has added up to this, rad: above what noise of sound
sensors adds up to, three times as much as `SensorNoise` has for an attitude."""


def silence(*kinds: str) -> Inject:
    """Messages of these kinds stop."""
    return lambda rig: [rig.tamper(kind, lambda message: None) for kind in kinds]


def altered(kind: str, **changes: Callable[[Any], Any]) -> Inject:
    """Every message of a kind is altered: field -> new value from the old one."""
    return lambda rig: rig.tamper(kind, lambda m: {**m, **{name: new(m[name]) for name, new in changes.items()}})


def once(kind: str, **changes: Callable[[Any], Any]) -> Inject:
    """The next message of a kind is altered."""

    def inject(rig: Rig) -> None:
        def change(m: Message) -> Message:
            del rig.transport.tampers[kind]
            return {**m, **{name: new(m[name]) for name, new in changes.items()}}

        rig.tamper(kind, change)

    return inject


def stuck(kind: str, *fields: str) -> Inject:
    """These fields keep the values that they have next."""

    def inject(rig: Rig) -> None:
        kept: Message = {}

        def change(m: Message) -> Message:
            if not kept:
                kept.update({name: m[name] for name in fields})
                return m
            return {**m, **kept}

        rig.tamper(kind, change)

    return inject


def stuck_joint(index: int, *fields: str, after: float = 0.0) -> Inject:
    """One joint keeps the readings that it has in `after` s. That can be known from when its target has moved by the
    limit."""

    def inject(rig: Rig) -> None:
        rig.run(after)
        kept: Message = {}
        targets: list[float] = []

        def change(m: Message) -> Message:
            kept.update({name: m[name][index] for name in fields if name not in kept})
            targets.append(float(rig.controller.output.targets[index]))
            if max(targets) - min(targets) > rig.limits.encoder_moved:
                rig.wrong()
            return {**m, **{name: at(index, value)(m[name]) for name, value in kept.items()}}

        rig.transport.tampers["joints"] = change

    return inject


def still_joint(index: int) -> Inject:
    """As `stuck_joint`, and the speed of the joint reads 0."""
    kept = stuck_joint(index, "position")

    def inject(rig: Rig) -> None:
        kept(rig)
        stuck_angle = rig.transport.tampers["joints"]

        def change(m: Message) -> Message | None:
            changed = stuck_angle(m)
            return None if changed is None else {**changed, "velocity": at(index, 0.0)(m["velocity"])}

        rig.transport.tampers["joints"] = change

    return inject


def turns_too_fast(index: int, speed: float, acceleration: float = 2500.0) -> Inject:
    """A joint is turned on to `speed` (rad/s), as its angle and its speed say. That can be known from when it is as
    fast as the limit."""

    def inject(rig: Rig) -> None:
        begun: list[tuple[int, float, float]] = []

        def change(m: Message) -> Message:
            if not begun:
                begun.append((rig.clock.now(), float(m["position"][index]), float(m["velocity"][index])))
            began, angle, first = begun[0]
            seconds = (rig.clock.now() - began) / NS
            rising = min(seconds, (speed - first) / acceleration)
            now = first + acceleration * rising
            angle += (first + now) / 2 * rising + now * (seconds - rising)
            if now > rig.controller.limits.joint_speed:
                rig.wrong()
            angle = min(angle, float(rig.robot.joint_upper[index]))
            return {**m, "position": at(index, angle)(m["position"]), "velocity": at(index, now)(m["velocity"])}

        rig.transport.tampers["joints"] = change

    return inject


def disagreeing(kind: str, shows: float, **changes: Callable[[Any], Any]) -> Inject:
    """Every message of a kind is altered. That can be known from when what is wrong adds up to `shows`, in the unit of
    the reading times seconds."""

    def inject(rig: Rig) -> None:
        total: list[Array] = []
        last: list[int] = []

        def change(m: Message) -> Message:
            altered_message = {**m, **{name: new(m[name]) for name, new in changes.items()}}
            seconds = (rig.clock.now() - last[0]) / NS if last else 0.0
            last[:] = [rig.clock.now()]
            for name in changes:
                error = seconds * (np.asarray(altered_message[name], float) - np.asarray(m[name], float))
                total[:] = [total[0] + error if total else error]
            if float(np.abs(total[0]).max()) > shows:
                rig.wrong()
            return altered_message

        rig.transport.tampers[kind] = change

    return inject


def delayed(kind: str, seconds: float) -> Inject:
    """Messages come later than they were sent."""

    def inject(rig: Rig) -> None:
        waiting: deque[Message] = deque()

        def change(m: Message) -> Message | None:
            waiting.append(m)
            return waiting.popleft() if len(waiting) > 1000 * seconds / SLICE else None

        rig.tamper(kind, change)

    return inject


def clocks(seconds: float) -> Inject:
    """The clock of every sender is set."""

    def inject(rig: Rig) -> None:
        for kind in ALL:
            altered(kind, stamp=lambda stamp: stamp + round(seconds * NS))(rig)

    return inject


def other_rate(rate: float) -> Inject:
    """The clock of every sender runs so many times as fast. That can be known from when a message is refused for it."""

    def inject(rig: Rig) -> None:
        began = rig.clock.now()

        def change(m: Message) -> Message:
            if any(key.endswith(Code.CLOCK_RATE) for key in rig.controller.refusals.counts):
                rig.wrong()
            return {**m, "stamp": m["stamp"] + round((rate - 1) * (rig.clock.now() - began))}

        for kind in ALL:
            rig.transport.tampers[kind] = change

    return inject


def at(index: int | slice, value: float, of: float = 0.0) -> Callable[[Any], Array]:
    """One number of an array becomes `value`, plus `of` times what it was."""

    def change(array: Any) -> Array:
        changed = np.array(array, float)
        changed[index] = value + (of * changed[index] if of else 0.0)
        return changed

    return change


def swap(first: int, second: int) -> Change:
    """Two numbers change places."""

    def change(array: Any) -> Array:
        changed = np.array(array, float)
        changed[[first, second]] = changed[[second, first]]
        return changed

    return change


def drifting_attitude(rate: float) -> Inject:
    """The attitude rolls away at `rate` (rad/s) while the gyro reads what is true. Known from 0.08 rad on."""

    def inject(rig: Rig) -> None:
        began = rig.clock.now()

        def change(m: Message) -> Message:
            angle = rate * (rig.clock.now() - began) / NS
            if angle > SHOWS:
                rig.wrong()
            return {**m, "orientation": rolled_by(m["orientation"], angle)}

        rig.transport.tampers["imu"] = change

    return inject


def rolled_by(quaternion: Any, angle: float) -> Array:
    """A quaternion (w, x, y, z) after a roll about the base's x axis, rad."""
    w, x, y, z = quaternion
    c, s = np.cos(angle / 2), np.sin(angle / 2)
    return np.array([w * c - x * s, x * c + w * s, y * c + z * s, z * c - y * s])


def stuck_attitude(rig: Rig) -> None:
    """The attitude keeps the value that it has next, with noise. Known when the true one is 0.08 rad away."""
    kept: list[Array] = []
    noise = np.random.default_rng(0)

    def change(m: Message) -> Message:
        kept.append(np.asarray(m["orientation"], float)) if not kept else None
        true = rig.hardware.pose()[1]
        if 2 * np.arccos(min(abs(float(true @ kept[0])), 1.0)) > SHOWS:
            rig.wrong()
        return {**m, "orientation": rolled_by(kept[0], 0.01 * noise.standard_normal())}

    rig.transport.tampers["imu"] = change


def frozen_policy(noise: float) -> Inject:
    """The policy puts out what it put out last, with `noise`, rad. Known when it should have answered: one step on."""

    def inject(rig: Rig) -> None:
        kept, random = np.array(rig.controller.output.targets), np.random.default_rng(0)
        rig.alter_policy(lambda t: (kept + noise * random.uniform(-1, 1, len(kept))).astype(np.float32))

    return inject


def policy(change: Callable[[Array], Any]) -> Inject:
    """What the policy puts out is altered."""
    return lambda rig: rig.alter_policy(change)


def policy_once(change: Callable[[Array], Any]) -> Inject:
    """What the policy puts out next is altered."""

    def inject(rig: Rig) -> None:
        left = [1]
        rig.alter_policy(lambda targets: change(targets) if left and left.pop() else targets)

    return inject


def slow(seconds: float, steps: int) -> Inject:
    """So many control steps take so long."""

    def inject(rig: Rig) -> None:
        targets, left = rig.policy.targets, [seconds] * steps

        def late(snapshot: Snapshot, command: Array, now: int, pose_known: bool) -> Array:
            if left:
                rig.clock.pass_by(left.pop())
                rig.wrong()
            return targets(snapshot, command, now, pose_known)

        rig.policy.targets = late

    return inject


def stands_still(seconds: float) -> Inject:
    """The loop's process is held up between two control steps."""

    def inject(rig: Rig) -> None:
        rig.clock.pass_by(seconds)
        rig.wrong()

    return inject


def overrunning(seconds: float, every: int) -> Inject:
    """One control step of so many takes so long. That can be known from when `Limits.missed` deadlines have passed."""

    def inject(rig: Rig) -> None:
        targets, count, missed = rig.policy.targets, [0], [0]
        period = rig.robot.control_period

        def late(snapshot: Snapshot, command: Array, now: int, pose_known: bool) -> Array:
            count[0] += 1
            if count[0] % every == 0:
                rig.clock.pass_by(seconds)
                missed[0] += int(seconds / period + 1e-9)
                if missed[0] >= rig.limits.missed:
                    rig.wrong()
            return targets(snapshot, command, now, pose_known)

        rig.policy.targets = late

    return inject


def asked(*kinds: str) -> Inject:
    """Operators ask for this."""

    def inject(rig: Rig) -> None:
        rig.wrong()
        for kind in kinds:
            rig.ask(kind)

    return inject


def fails(error: Exception) -> Callable[..., Any]:
    """A function that raises."""

    def failing(*_: Any, **__: Any) -> Any:
        raise error

    return failing


def replaced(part: Callable[[Rig], Any], name: str, function: Callable[..., Any]) -> Inject:
    """A method of some part of the robot's software does something else."""

    def inject(rig: Rig) -> None:
        rig.wrong()
        setattr(part(rig), name, function)

    return inject


def rolling(rate: float) -> Inject:
    """The base rolls at `rate`, rad/s, as IMU and gyro see it."""

    def inject(rig: Rig) -> None:
        began = rig.clock.now()

        def change(m: Message) -> Message:
            angle = rate * (rig.clock.now() - began) / NS
            if angle > rig.limits.tilt:
                rig.wrong()
            half = angle / 2
            return {**m, "orientation": [np.cos(half), np.sin(half), 0.0, 0.0], "angular_velocity": [rate, 0.0, 0.0]}

        rig.transport.tampers["imu"] = change

    return inject


def overturned(rig: Rig) -> None:
    """The robot lies on its back, all at once."""
    rig.hardware.overturn()
    rig.wrong()


def paused(rig: Rig) -> None:
    """Commands stop for 0.2 s."""
    rig.tamper("command", lambda message: None)
    rig.run(0.2)
    if rig.controller.phase != BRAKING:
        raise RuntimeError(f"without commands the robot is {rig.steps[-1].state}")
    del rig.transport.tampers["command"]
    rig.since = rig.clock.now()


def fallen(rig: Rig) -> None:
    """The robot lies on its back, and somebody wants to arm it."""
    rig.hardware.overturn()
    rig.run(1.2)
    asked("arm")(rig)


def deaf(*kinds: str) -> Inject:
    """Messages are missing, and somebody wants to arm the robot."""

    def inject(rig: Rig) -> None:
        silence(*kinds)(rig)
        rig.run(0.2)
        rig.since = None
        asked("arm")(rig)

    return inject


def stalled(rig: Rig) -> None:
    """Somebody asked to arm a loop that stood still for a while."""
    asked("arm")(rig)
    rig.clock.pass_by(1.0)
    rig.since = rig.clock.now()


FULL = 145_000
"""Room on a disk that is full a little after the robot runs, bytes."""


class Full:
    """A raw file on a disk that has room for `room` bytes: the header and a few steps."""

    def __init__(self, short: bool, path: Path | None = None, room: int = 2000) -> None:
        """`short` writes a part of what does not fit; with a `path` what fits is really written."""
        self.short, self.room = short, room
        self._file = io.BytesIO() if path is None else path.open("wb", buffering=0)

    def write(self, data: bytes) -> int:
        """As a raw file's."""
        fits = min(len(data), self.room)
        if fits < len(data) and not (self.short and fits):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= fits
        self._file.write(data[:fits])
        return fits

    def close(self) -> None:
        """As a file's."""
        self._file.close()


def full_disk(short: bool) -> dict[str, Any]:
    """Arguments of a `Rig` that records to a `Full` disk."""
    return {"recorder": lambda: Recorder(Path("full.mcap"), {}, lambda path: Full(short, room=FULL))}


# --- what is tried afterwards -----------------------------------------------------------------------------------------


def restarted(rig: Rig) -> str:
    """The transport comes back: still an emergency, until the robot is armed again."""
    rig.transport.tampers.clear()
    rig.run(0.4)
    if rig.steps[-1].state != "emergency":
        return f"when the transport came back the state became {rig.steps[-1].state}"
    return armed_again(rig)


def armed_again(rig: Rig) -> str:
    """After `arm` the robot stands up and runs."""
    rig.transport.command, rig.controller.times = (0.0, 0.0, 0.0), Times()
    request = rig.ask("arm")
    rig.run(rig.controller.times.stand_up + 0.3)
    return "" if rig.steps[-1].state == "running" else f"arming again: {request.message}; {rig.controller.reason}"


def armed_later(rig: Rig) -> str:
    """The robot is armed again when the loop has met its deadlines for a while."""
    rig.run(1.0)
    return armed_again(rig)


def right_joints(rig: Rig) -> str:
    """Readings stand with the joints that they are of."""
    off = float(np.abs(rig.messages.snapshot().position - rig.hardware.physics.qpos[0, 7:]).max())
    return "" if off < 0.1 else f"a joint is taken to be {off:.2f} rad from where it is"


def believed(rig: Rig) -> str:
    """A pose that stays elsewhere is believed after a while."""
    rig.run(0.2)
    return "" if rig.steps[-1].state == "running" else f"elsewhere the state is {rig.steps[-1].state}"


def disarms(rig: Rig) -> str:
    """A soft stop ends disarmed."""
    times = rig.controller.times
    rig.run(times.brake + times.stand + times.hold + times.settle + 0.1)
    return "" if rig.steps[-1].state == "disarmed" else f"the soft stop ended {rig.steps[-1].state}"


def lies_or_stands(rig: Rig) -> str:
    """Nothing is sent any more, or only damping: without a policy a robot at speed may fall."""
    times = rig.controller.times
    rig.run(times.stand + times.hold + times.settle + 0.1)
    state = rig.steps[-1].state
    return "" if state in ("disarmed", "emergency") else f"the soft stop ended {state}"


def said_of_the_disk(rig: Rig) -> str:
    """The recorder has told the loop."""
    if rig.recorder is not None:
        rig.recorder.close()
    rig.run(0.04)
    return "" if rig.steps[-1].state == "running" else f"the state became {rig.steps[-1].state}"


def is_said(kind: str) -> Callable[[Rig], str]:
    """A note of this kind was made."""
    return lambda rig: "" if rig.controller.refusals.counts[kind] else f"nothing was noted of the {kind}"


# --- the table --------------------------------------------------------------------------------------------------------

EMERGENCY, SOFT, GOES_ON, DISARMED = "emergency", "soft stop", "running", "disarmed"
BLIND = "without joint angles and attitude no posture can be held"
NONSENSE = "readings that make no sense are as good as none"
BRAKES = "the robot can still balance, so it brakes instead of falling"
UNUSED = "the drives can still hold the standing pose without the policy"
SINGLE = "one odd message of many is left out, the one before it is 8 ms old"
DOWN = "a robot on its way down protects its joints by damping"
ASKED = "the operator is obeyed in every state"
NOT_ARMED = "a robot that cannot stand up is not armed"
LET_GO = "the drives have let go: what the loop knew of the posture is not true any more"
LOST = "a leg whose place is not known cannot be held"
AGES = "ages are taken on the clock of the robot's own computer"

FIELDS = ("names", "position", "velocity", "effort")
"""Of a joint message."""
ABDUCTION, HIP, KNEE = 3, 4, 5
"""Indices of the joints of a leg."""
FRONT_HIP, FRONT_KNEE = 1, 2
"""One that is asked to move while the robot brakes."""
TURN = 0.8, 0.0, 1.6
"""A command for a turn, m/s, m/s, rad/s."""
ONE_JOINT = ("position", "velocity", "effort")


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


def of(source: Source, *codes: Code) -> tuple[str, ...]:
    """Keys of refusals of a source's messages."""
    return tuple(Refusal(code, "", source=source).key for code in codes)


DISAGREE = "which of two readings that contradict each other is wrong cannot be known"
JOINT_SPEEDS = of(Source.JOINTS, Code.JOINT_DISAGREES)
STUCK = (str(Code.JOINT_STUCK), *JOINT_SPEEDS)


def _everything(values: Any) -> Any:
    return [None, "nonsense", {"a": [1]}]


def _random_spikes(values: Any) -> Array:
    return np.asarray(values) + np.random.default_rng(0).choice([-1.0, 1.0], len(values))


FAULTS: tuple[Fault, ...] = (
    # sensors fall silent
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
    # stamps and clocks
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
    # joint readings
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
              JOINT_SPEEDS, watched=0.8)
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
    # IMU
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
    # pose
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
    # commands
    Fault("command silence", "running", silence("command"), SOFT, BRAKES, Code.COMMAND_STALE,
          disarms),
    Fault("command back while braking", "running", paused, GOES_ON, "the cause is over", Code.RECOVERED),
    Fault("command out of range", "running", altered("command", command=lambda c: [9.0, 0.0, 0.0]), GOES_ON,
          "it is held inside what the policy was trained on", Code.COMMAND_RANGE, value=9.0),
    Fault("NaN in the command", "running", altered("command", command=lambda c: [np.nan, 0.0, 0.0]), SOFT, BRAKES,
          of(Source.COMMAND, Code.NOT_FINITE)),
    Fault("unknown skill", "running", lambda rig: (rig.wrong(), rig.messages.skill(7)), GOES_ON,
          "the skill before it goes on", of(Source.SKILL, Code.UNKNOWN_NAME)),
    # the policy
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
    # time and software
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
          lambda rig: (setattr(rig.messages.refusals, "log", fails(OSError())), once("joints", names=reverse)(rig)),
          GOES_ON, "control does not hang on a log", ()),
    Fault("loop dies", "running", lambda rig: setattr(rig.loop.punctuality, "add", fails(MemoryError())), DAMPED,
          "nobody writes, so the drives' watchdog damps", ()),
    Fault("disk full while recording", "running", lambda rig: rig.wrong(), GOES_ON, "control does not hang on a disk",
          Code.RECORDING, said_of_the_disk, rig=full_disk(short=False)),
    Fault("disk full in the middle of a write", "running", lambda rig: rig.wrong(), GOES_ON,
          "control does not hang on a disk", Code.RECORDING, said_of_the_disk, rig=full_disk(short=True)),
    # operators
    Fault("stop while disarmed", "disarmed", asked("stop"), DISARMED, ASKED, ()),
    Fault("stop while standing up", "standing up", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop while running", "running", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop in a soft stop", "soft stop", asked("stop"), SOFT, ASKED, Code.OPERATOR, disarms),
    Fault("stop in an emergency", "emergency", asked("stop"), EMERGENCY, "it has stopped already", Code.OPERATOR),
    Fault("disarm while standing up", "standing up", asked("disarm"), EMERGENCY, ASKED, Code.OPERATOR),
    Fault("disarm while running", "running", asked("disarm"), EMERGENCY, ASKED, Code.OPERATOR, armed_again),
    Fault("disarm in a soft stop", "soft stop", asked("disarm"), SOFT, "damping at once, then disarmed",
          Code.OPERATOR, lambda rig: "" if rig.controller.phase == "damp" else "it does not damp"),
    Fault("double arm", "running", asked("arm", "arm"), GOES_ON, "it is armed already", Code.ALREADY_ARMED),
    Fault("arm and stop at once", "disarmed", asked("arm", "stop"), SOFT, ASKED, Code.OPERATOR),
    Fault("arm while fallen", "disarmed", fallen, DISARMED, NOT_ARMED, Code.TILT),
    Fault("arm without sensors", "disarmed", deaf("joints"), DISARMED, NOT_ARMED, Code.JOINTS_STALE),
    Fault("arm without a pose", "disarmed", deaf("pose"), DISARMED, NOT_ARMED, Code.POSE_STALE),
    Fault("arm long ago", "disarmed", stalled, DISARMED, "who asked has gone", Code.REQUEST_OLD),
)  # fmt: skip


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


def names() -> list[str]:
    """Every fault that `run_all` tries."""
    return [fault.name for fault in FAULTS] + list(CORRUPTED)


# --- trying them ------------------------------------------------------------------------------------------------------


def try_fault(fault: Fault, **rig_arguments: Any) -> dict[str, Any]:
    """Tries one fault. See `run_all` for what is returned; `rig_arguments` come on top of the fault's own."""
    rig = Rig(**{**fault.rig, **rig_arguments})
    rig.bring_to(fault.when)
    before = rig.controller.refusals.counts.copy()
    fault.inject(rig)
    began = len(rig.steps)
    rig.run(fault.watched, watched=True)
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
        "name": name, "when": when, "expected": expected, "reached": reached, "milliseconds": milliseconds,
        "code": code, "reason": reason, "why": why, "safe": not violations, "violations": violations,
    }  # fmt: skip


def run_all() -> list[dict[str, Any]]:
    """Tries every fault, each on a robot of its own.

    Returns:
      A dict each, JSON-ready: `name`, `when` (the state in which it came), `expected` and `reached` (states),
      `milliseconds` (until it was reached for good; 0 where the state is kept), `code` and `reason` (of the
      controller), `why` (that state), `safe`, `violations` (sentences).
    """
    return [try_fault(fault) for fault in FAULTS] + [try_bundle(name) for name in CORRUPTED]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a fault is not safe."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    found = run_all()
    safe = all(result["safe"] for result in found)
    if options.json:
        print(json.dumps(found))
        return 0 if safe else 1
    shown = Table("fault", "comes when", "state", "ms", "safe", "reason")
    for result in found:
        told = result["reason"] if result["safe"] else "; ".join(result["violations"])
        shown.add_row(
            result["name"], result["when"], result["reached"], f"{result['milliseconds']:.0f}",
            "yes" if result["safe"] else "NO", told,
        )  # fmt: skip
    Console().print(shown)
    return 0 if safe else 1


if __name__ == "__main__":
    sys.exit(main())
