"""Faults of drives, poses, headings, rates, navigators and height grids: what `robot.loop.motion` must see.

Each becomes visible with the first wrong message, except where something stands here that it must add up to first: a
drive until its torque is wrong by `TORQUE`, a pose until it is wrong by `WAY`, an attitude until it leans by `LEAN`.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from robot.bench.fault_kinds import (
    ABDUCTION,
    BRAKES,
    DISAGREE,
    DOWN,
    EMERGENCY,
    FRONT_KNEE,
    GOES_ON,
    HIP,
    KNEE,
    SLOW,
    SOFT,
    TURN,
    Fault,
    Inject,
    disarms,
    of,
)
from robot.bench.rig import Rig
from robot.loop.message_filter import Plausible
from robot.loop.motion import DrivesObey, turn_of
from robot.loop.refusals import Code, Source
from robot.loop.terrain import FRESH
from robot.loop.transport import NS, Array, Mode
from robot.transports.hardware import SLICE
from robot.transports.inprocess import Message
from robot.transports.unitree.simulated import ServoedHardware
from sim.observation import yaw_of
from sim.physics.motor import torque_range

TORQUE = 0.3
"""Share of its peak by which a drive's torque must be less than a weak motor's, or more than asked for."""
ASKED = 3
"""Targets that a drive may answer to: those of this control step and, as messages take their time, of the last two."""
WAY = 0.85
"""m by which a pose must be wrong on the way since: the limit of `PoseAgainstMotion`, and what feet that slip hide."""
LEAN = 0.45
"""rad by which an attitude must lean though the gyro agrees; the limit of `FeetOnGround` is 0.3."""
HIGH = 0.4
"""A pose that rose is known when every foot has stood since, s: a robot whose feet are in the air may fly."""
STUCK = 0.3
"""A navigator's command is stuck after the pose moved so far on it, m (`command_moved`)."""
HIND_KNEE, OTHER_KNEE = 5, 11
"""Knees of both hind legs."""


# --- drives -----------------------------------------------------------------------------------------------------------


def _seen_by_torque(rig: Rig) -> None:
    """The fault becomes visible when some drive's torque is not what its target asks for and a sound motor can give."""
    physics, robot = rig.hardware.physics, rig.robot
    gains = np.asarray(robot.kp), np.asarray(robot.kd)

    def look(message: Message) -> Message:
        q, v = np.array(physics.qpos[0, 7:]), np.array(physics.qvel[0, 6:])
        asked = [np.array(output.targets, float) for _, output in rig.transport.written[-ASKED:]]
        due = [gains[0] * (targets - q) - gains[1] * v for targets in asked]
        able = torque_range(np, robot.torque_limit, robot.no_load_speed, v)
        low, high = (bound(due, 0).clip(*able) for bound in (np.min, np.max))
        given = np.array(rig.hardware.worlds.force[0], float)
        low, high = np.minimum(low, DrivesObey.LEAST * low), np.maximum(high, DrivesObey.LEAST * high)
        wrong = np.maximum(low - given, given - high) / robot.torque_limit
        if float(wrong.max()) > TORQUE and rig.controller.output.mode == Mode.POSITION:
            rig.wrong()
        return message

    rig.transport.tampers["joints"] = look


def weak(*joints: int, share: float = 0.0) -> Inject:
    """The drives of these joints give a share of their torque: none, some of it, or in the wrong direction."""

    def inject(rig: Rig) -> None:
        _seen_by_torque(rig)
        if isinstance(rig.hardware, ServoedHardware):  # whose motors have new gains in every command
            rig.hardware.share[list(joints)] *= share
            return
        physics: Any = rig.hardware.physics  # of `sim.physics.cpu`
        for name in ("actuator_gainprm", "actuator_biasprm"):
            physics.batch.expand(name)[:, list(joints)] *= share

    return inject


def rewired(change: Callable[[Array], Array]) -> Inject:
    """Drives obey other targets than those that are sent, rad `[J]`."""

    def inject(rig: Rig) -> None:
        _seen_by_torque(rig)
        hardware = rig.hardware
        if isinstance(hardware, ServoedHardware):
            ask = hardware.ask
            hardware.ask = lambda law: ask(law._replace(q=change(np.array(law.q, float))))
            return
        command = hardware.command

        def obeyed(mode: Mode, targets: Array, answers: int | None = None) -> bool:
            return command(mode, change(np.array(targets, float)), answers)

        hardware.command = obeyed

    return inject


def exchanged(first: int, second: int) -> Callable[[Array], Array]:
    """Two joints have each other's targets."""

    def change(targets: Array) -> Array:
        targets[[first, second]] = targets[[second, first]]
        return targets

    return change


def holding(joint: int) -> Inject:
    """One drive holds the target that it has next."""

    def inject(rig: Rig) -> None:
        kept: list[float] = []

        def change(targets: Array) -> Array:
            kept.append(float(targets[joint]))
            targets[joint] = kept[0]
            return targets

        rewired(change)(rig)

    return inject


def shifted(joint: int, angle: float) -> Callable[[Array], Array]:
    """The zero of one drive is off, rad."""

    def change(targets: Array) -> Array:
        targets[joint] += angle
        return targets

    return change


# --- poses ------------------------------------------------------------------------------------------------------------


def told(change: Callable[[Rig, Array, Array, float], tuple[Array, Array]], error: float = 0.0) -> Inject:
    """Every pose is altered: `change(rig, position, orientation, seconds since)`. Visible from the first on, or from
    when it is wrong by `error`, m, since then: on the way, not in the place."""

    def inject(rig: Rig) -> None:
        began: list[tuple[int, Array]] = []

        def altered(m: Message) -> Message:
            place, turned = np.array(m["position"], float), np.array(m["orientation"], float)
            if not began:
                first, _ = change(rig, place, turned, 0.0)
                began.append((rig.clock.now(), place - first))
            changed, other = change(rig, place, turned, (rig.clock.now() - began[0][0]) / NS)
            if math.dist((place - changed)[:2], began[0][1][:2]) >= error:
                rig.wrong()
            return {**m, "position": changed, "orientation": other}

        rig.transport.tampers["pose"] = altered

    return inject


def kept_place(noise: float) -> Callable[[Rig, Array, Array, float], tuple[Array, Array]]:
    """The place stays, with noise (m); the attitude lives."""
    first: dict[int, Array] = {}
    random = np.random.default_rng(0)

    def change(rig: Rig, place: Array, turned: Array, seconds: float) -> tuple[Array, Array]:
        return first.setdefault(id(rig), place) + noise * random.uniform(-1, 1, 3), turned

    return change


def turned_by(angle: float) -> Callable[[Rig, Array, Array, float], tuple[Array, Array]]:
    """The heading is off by an angle, rad."""

    def change(rig: Rig, place: Array, turned: Array, seconds: float) -> tuple[Array, Array]:
        return place, _about_z(turned, angle)

    return change


def turned_since_armed(angle: float) -> Inject:
    """The heading has been off since before the robot was armed: visible when the way since is wrong by `WAY`."""

    def inject(rig: Rig) -> None:
        true: list[Array] = []

        def change(m: Message) -> Message:
            place = np.array(m["position"], float)[:2]
            true.append(place)
            way = place - true[max(len(true) - 100, 0)]  # 0.8 s
            if 2 * abs(math.sin(angle / 2)) * float(np.linalg.norm(way)) >= WAY:
                rig.wrong()
            return {**m, "orientation": _about_z(np.array(m["orientation"], float), angle)}

        rig.transport.tampers["pose"] = change
        rig.bring_to("running")

    return inject


def kept_heading(rig: Rig) -> None:
    """The heading stays while the robot turns: visible when it is wrong by the limit."""
    kept: list[float] = []

    def change(m: Message) -> Message:
        turned = np.array(m["orientation"], float)
        yaw = float(yaw_of(np, turned))
        kept.append(yaw) if not kept else None
        if abs(math.remainder(yaw - kept[0], 2 * math.pi)) > rig.limits.heading_differs:
            rig.wrong()
        return {**m, "orientation": _about_z(turned, kept[0] - yaw)}

    rig.transport.tampers["pose"] = change


def hopping(rig: Rig) -> None:
    """The pose hops to and fro by 0.4 m, in every third message elsewhere."""
    count = [0]

    def change(m: Message) -> Message:
        count[0] += 1
        rig.wrong()
        return {**m, "position": np.array(m["position"], float) + [0.4 * (count[0] // 3 % 2), 0.0, 0.0]}

    rig.transport.tampers["pose"] = change


def higher(by: float, after: float) -> Inject:
    """The pose is higher by so much, m; visible after a while, s."""

    def inject(rig: Rig) -> None:
        began = rig.clock.now()

        def change(m: Message) -> Message:
            if rig.clock.now() - began >= after * NS:
                rig.wrong()
            return {**m, "position": np.array(m["position"], float) + [0.0, 0.0, by]}

        rig.transport.tampers["pose"] = change

    return inject


def _about_z(quaternion: Array, angle: float) -> Array:
    return product(np.array([math.cos(angle / 2), 0.0, 0.0, math.sin(angle / 2)]), quaternion)


def product(first: Array, second: Array) -> Array:
    """Of two quaternions (w, x, y, z)."""
    w, v = first[0] * second[0] - first[1:] @ second[1:], np.cross(first[1:], second[1:])
    return np.array([w, *(first[0] * second[1:] + second[0] * first[1:] + v)])


# --- attitude, rates, commands, heights -------------------------------------------------------------------------------


def drifting(rate: float, axis: int) -> Inject:
    """The attitude leans at `rate` (rad/s) about the base's x or y axis, and the gyro says so too: a whole IMU that
    drifts. Visible from a lean of `LEAN` on."""

    def inject(rig: Rig) -> None:
        began = rig.clock.now()

        def change(m: Message) -> Message:
            angle = rate * (rig.clock.now() - began) / NS
            if angle > LEAN:
                rig.wrong()
            lean = np.array([math.cos(angle / 2), 0.0, 0.0, 0.0])
            lean[1 + axis] = math.sin(angle / 2)
            gyro = turn_of(lean).T @ np.array(m["angular_velocity"], float)
            gyro[axis] += rate
            return {**m, "orientation": product(np.array(m["orientation"], float), lean), "angular_velocity": gyro}

        rig.transport.tampers["imu"] = change

    return inject


def thinned(keep: int, *kinds: str) -> Inject:
    """One message of `keep` comes through; the first that is missing is due at once. Of a robot that says more in a
    second as many more are lost, so that as few come."""

    def inject(rig: Rig) -> None:
        one_in = keep * SLICE // rig.transport.slice
        for kind in kinds:
            count = [0]

            def change(m: Message, count: list[int] = count) -> Message | None:
                count[0] += 1
                return m if count[0] % one_in == 0 else None

            rig.tamper(kind, change)

    return inject


def stuck_navigator(rig: Rig) -> None:
    """A navigator says the same again and again, to the last digit. Visible when the robot has gone `STUCK` on it."""
    rig.controller.motion.stuck.limit = STUCK
    rig.controller.motion.stuck.reset()
    began = rig.hardware.pose()[0]

    def change(m: Message) -> Message:
        if math.dist(began[:2], rig.hardware.pose()[0][:2]) > STUCK:
            rig.wrong()
        return m

    rig.transport.tampers["command"] = change


def two_navigators(rig: Rig) -> None:
    """Every second command is another robot's."""
    count = [0]

    def change(m: Message) -> Message:
        count[0] += 1
        return m if count[0] % 2 else {**m, "command": [-0.5, 0.0, 1.5]}

    rig.tamper("command", change)


def grids(heights: Callable[[Array], Array], rows: int = 80, columns: int = 21) -> Inject:
    """A height grid comes with every pose; `heights` changes what a true one would hold, m `[rows, columns]`."""

    def inject(rig: Rig) -> None:
        def change(m: Message) -> Message:
            rig.wrong()
            rig.messages.height_grid(heights(np.zeros((rows, columns))))
            return m

        rig.transport.tampers["pose"] = change

    return inject


def by_the_map(rig: Rig) -> str:
    """The robot went on by its map."""
    rig.run(FRESH)
    return "" if rig.steps[-1].state == "running" else f"the state became {rig.steps[-1].state}"


# --- the table --------------------------------------------------------------------------------------------------------

NO_LEG = "a leg that does not do what it is told cannot be held"
NO_PLACE = "the robot can still balance, but not know where it is: it brakes on what it takes for flat ground"
RARE = "the policy was trained on readings as fresh as its steps"
NAVIGATOR = "whoever steers does not look where the robot is"
MAP = "the map takes the grid's place"

DRIVES: tuple[Fault, ...] = (
    *(
        Fault(f"{name} drive {what}", "running", weak(*joints, share=share), EMERGENCY, NO_LEG,
              Code.DRIVE, watched=0.8)
        for name, joints, what, share in (
            ("knee", (KNEE,), "dead", 0.0), ("front knee", (FRONT_KNEE,), "dead", 0.0), ("hip", (HIP,), "dead", 0.0),
            ("abduction", (ABDUCTION,), "dead", 0.0), ("knee", (KNEE,), "reversed", -1.0),
            ("hip", (HIP,), "reversed", -1.0), ("abduction", (ABDUCTION,), "reversed", -1.0),
            ("knee", (KNEE,), "slips, a tenth of its torque is left", 0.1),
            ("every", tuple(range(12)), "without power", 0.0),
        )
    ),
    *(
        Fault(f"drives: {what}", "running", inject, EMERGENCY, NO_LEG, Code.DRIVE, watched=0.8)
        for what, inject in (
            ("hind knees swapped", rewired(exchanged(HIND_KNEE, OTHER_KNEE))),
            ("hip and knee of a leg swapped", rewired(exchanged(HIP, KNEE))),
            ("the zero of a knee off by 0.6 rad", rewired(shifted(KNEE, -0.6))),
            ("a knee holds its last target", holding(KNEE)), ("a hip holds its last target", holding(HIP)),
        )
    ),
)  # fmt: skip
POSES: tuple[Fault, ...] = (
    Fault("place stuck, not the attitude", "running", told(kept_place(0.0), WAY), SOFT, NO_PLACE, Code.POSE_DISAGREES,
          disarms, watched=1.2),
    Fault("place stuck, with noise of 5 mm", "running", told(kept_place(0.005), WAY), SOFT, NO_PLACE,
          Code.POSE_DISAGREES, watched=1.2),
    Fault("pose runs off at 2 m/s", "running",
          told(lambda rig, p, q, t: (p + [0.0, 2.0 * t, 0.0], q), WAY), SOFT, NO_PLACE, Code.POSE_DISAGREES,
          watched=1.0),
    Fault("heading turned by 90 degrees", "running", told(turned_by(math.pi / 2)), SOFT, NO_PLACE,
          Code.HEADING_DISAGREES),
    Fault("heading turned round", "running", told(turned_by(math.pi)), SOFT, NO_PLACE,
          Code.HEADING_DISAGREES),
    Fault("heading turned by 90 degrees since before arming", "disarmed", turned_since_armed(math.pi / 2), SOFT,
          NO_PLACE, Code.POSE_DISAGREES, watched=1.2),
    Fault("heading stuck in a turn", "running", kept_heading, SOFT, NO_PLACE, Code.HEADING_DISAGREES,
          watched=1.2, rig={"command": TURN}),
    Fault("pose hops to and fro by 0.4 m", "running", hopping, SOFT, NO_PLACE, Code.POSE_HOPS),
    Fault("pose 0.45 m too high", "running", higher(0.45, HIGH), SOFT, NO_PLACE, Code.FEET_HEIGHT,
          watched=0.8),
    Fault("pose 0.45 m too low", "running", higher(-0.45, 0.0), EMERGENCY, DOWN, Code.HEIGHT),
)  # fmt: skip
ATTITUDE: tuple[Fault, ...] = tuple(
    Fault(f"attitude and gyro drift, {what}", "running", drifting(rate, axis), EMERGENCY, DISAGREE,
          Code.FEET_LEAN, watched=3.2, rig={"command": SLOW} if axis else {})
    for what, rate, axis in (
        ("roll by 0.3 rad/s", 0.3, 0), ("roll by -0.3 rad/s", -0.3, 0), ("pitch by 0.3 rad/s", 0.3, 1),
    )
)  # fmt: skip
RATES: tuple[Fault, ...] = tuple(
    Fault(f"{what} messages lost", "running", thinned(14, *kinds), SOFT, RARE,
          Code.READINGS_RARE)
    for what, kinds in (("13 of 14 joint", ("joints",)), ("13 of 14 IMU", ("imu",)),
                        ("13 of 14 joint and IMU", ("joints", "imu")))
)  # fmt: skip
NAVIGATORS: tuple[Fault, ...] = (
    Fault("navigator stuck", "running", stuck_navigator, SOFT, NAVIGATOR, Code.COMMAND_STUCK,
          watched=0.8),
    Fault("two navigators in turn", "running", two_navigators, SOFT, BRAKES, Code.COMMAND_JUMPS),
)  # fmt: skip
GRIDS: tuple[Fault, ...] = (
    Fault("height grid of 1e38 m", "running", grids(lambda h: h + 1e38), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.OUT_OF_RANGE), by_the_map),
    Fault("height grid in millimetres", "running", grids(lambda h: h + 1000.0 * Plausible().height), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.OUT_OF_RANGE), by_the_map),
    Fault("height grid with a pit of 0.4 m all round", "running", grids(lambda h: h - 0.4), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.GRID_DISAGREES), by_the_map),
    Fault("height grid above the base", "running", grids(lambda h: h + 0.6), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.GRID_DISAGREES), by_the_map),
    Fault("height grid from the base instead of the course", "running", grids(lambda h: h - 0.25), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.GRID_DISAGREES), by_the_map),
    Fault("height grid of nonsense", "running", grids(lambda h: h[0, 0]), GOES_ON, MAP,
          of(Source.HEIGHT_GRID, Code.MALFORMED), by_the_map),
)  # fmt: skip
