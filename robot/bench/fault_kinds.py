"""Kinds of faults for `robot.bench.faults`: what is tampered with between robot and loop, and what is tried after."""

import errno
import io
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot.bench.rig import Rig
from robot.loop import safety
from robot.loop.controller import BRAKING, Times
from robot.loop.recording import Recorder
from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NS, Array, Snapshot
from robot.transports.inprocess import Message

WATCHED = 0.3
"""A fault is watched for this long, s."""
ALL = ("joints", "imu", "pose", "command")
Inject = Callable[[Rig], Any]
Change = Callable[[Any], Any]

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
DISAGREE = "which of two readings that contradict each other is wrong cannot be known"

FIELDS = ("names", "position", "velocity", "effort")
"""Of a joint message."""
ABDUCTION, HIP, KNEE = 3, 4, 5
"""Indices of the joints of a leg."""
FRONT_HIP, FRONT_KNEE = 1, 2
"""One that is asked to move while the robot brakes."""
TURN = 0.8, 0.0, 1.6
"""A command for a turn, m/s, m/s, rad/s."""
ASIDE = 0.6, 0.8, 0.0
"""The same for a walk aside, in which abductions turn as well."""
SLOW = 0.6, 0.0, 0.0
"""The same for a slow walk: all feet stand in turn, and a robot whose drives damp does not roll over."""
ONE_JOINT = ("position", "velocity", "effort")


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
            return waiting.popleft() if len(waiting) > 1000 * seconds / rig.transport.slice else None

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
    """The base rolls at `rate`, rad/s, from the attitude that it has, as IMU and gyro see it."""

    def inject(rig: Rig) -> None:
        began: list[tuple[int, Any]] = []

        def change(m: Message) -> Message:
            began.append((rig.clock.now(), m["orientation"])) if not began else None
            angle = rate * (rig.clock.now() - began[0][0]) / NS
            if angle > rig.limits.tilt:
                rig.wrong()
            return {**m, "orientation": rolled_by(began[0][1], angle), "angular_velocity": [rate, 0.0, 0.0]}

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


def armed_where_it_lies(rig: Rig) -> str:
    """After `arm` the robot runs; one that fell on its side as it went limp stops again and says that it leans."""
    said, controller = armed_again(rig), rig.controller
    stopped = controller.code == Code.STANDING_UP and rig.steps[-1].state in ("emergency", "soft stop", "disarmed")
    leans = safety.lean(controller.context.snapshot) > controller.times.level
    return "" if stopped and leans else said


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


def of(source: Source, *codes: Code) -> tuple[str, ...]:
    """Keys of refusals of a source's messages."""
    return tuple(Refusal(code, "", source=source).key for code in codes)
