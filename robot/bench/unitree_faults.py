"""Faults on the way between a control loop and a robot that speaks Unitree's messages.

    python -m robot.bench.unitree_faults

The simulated Go2, its messages with their checksums, the transport, the loop with its safety chain and a walker, in
simulated time: only DDS itself is left out. A fault is safe when the loop is in the state that it must reach, when it
says why, and when from then on no command holds an angle.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.skills.library import Skills, load_skills
from robot.bench.rig import COMMAND, PLACE, TIMES
from robot.bench.unitree_wire import every
from robot.loop.clock import SimulatedClock
from robot.loop.controller import Controller, Loop
from robot.loop.message_filter import MessageFilter
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.refusals import Code, Refusals
from robot.loop.safety import Limits
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import NS
from robot.transports.hardware import STEP_NS
from robot.transports.unitree.bus import Json
from robot.transports.unitree.layout import Packed
from robot.transports.unitree.line import Line
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_COMMAND,
    LOW_STATE,
    LOW_STATE_MESSAGE,
    Button,
    Switcher,
    low_command,
)
from robot.transports.unitree.simulated import SLICE, ServoedHardware, UnitreeRobot
from robot.transports.unitree.transport import COMMAND_PERIOD, HOT, WATCH_EVERY, UnitreeTransport
from sim.course.description import official
from sim.errors import InputError

ROBOT = "unitree_go2"
KNEE = 5
"""A front knee, which a trot moves most."""
WATCHED = 1.5
"""A fault is watched for this long, s: the robot's own mode is asked for once a second."""
GRACE = 0.04
"""s after the loop has let go in which a command may still be on its way: two control steps."""
EMERGENCY, RUNNING, STOPPED = "emergency", "running", "soft stop or disarmed"


class UnitreeRig:
    """A simulated Go2 on flat ground, and the control loop at the other end of a line."""

    def __init__(self, skills: Skills, mode: str = "") -> None:
        """`mode` is the robot's own that is active; without one it stands, held by its motors."""
        course, robot = official(), skills.robot
        self.robot, self.clock = robot, SimulatedClock()
        self.line = Line(self.clock.now)
        hardware = ServoedHardware(robot, course)
        hardware.worlds.place(np.array([PLACE[0]]), np.array([PLACE[1]]), np.zeros(1), course.height)
        hardware.hold(np.array(hardware.physics.qpos[0, 7:]))
        self.there = UnitreeRobot(self.line.end("robot"), hardware, self.clock, Refusals())
        self.there.mode_name = mode
        self.hardware = hardware
        self.messages = MessageFilter(robot, self.clock.now)
        self.transport = UnitreeTransport(
            self.line.end("loop"), robot, self.messages, dry_run=False, pose=True, clock=self.clock
        )
        policy = OnboardPolicy(skills, TerrainHeights(robot, course))
        self.controller = Controller(policy, self.messages, self.transport, Limits(), TIMES)
        self.loop = Loop(self.controller, self.clock)
        self.stiff: list[int] = []
        """When commands that hold an angle came to the robot, ns."""
        self.let_go: int | None = None
        """When the loop was first in emergency, ns."""
        watch = self.line.end("watch").inbox(LOW_COMMAND, LOW_CMD_MESSAGE, self._see)
        for inbox in (watch, *self.transport.inboxes):
            inbox.start()
        self.stands_until = self._missed = 0
        """Until when the robot's world stands still, ns, and how many slices it has to catch up with."""
        self.every(SLICE * STEP_NS, self._slice)

    def _slice(self) -> None:
        self._missed += 1
        if self.clock.now() < self.stands_until:
            return
        while self._missed:  # at once, as a simulation that is late does
            self._missed -= 1
            self.there.slice()

    def stand_still(self, seconds: float, catches_up: bool = True) -> None:
        """The robot's world does, from now on; what it missed comes at once after it, or not at all."""
        self.stands_until = self.clock.now() + round(seconds * NS)
        if not catches_up:
            self.clock.at(self.stands_until - 1, self._forget)

    def _forget(self) -> None:
        self._missed = 0

    def every(self, period: int, work: Callable[[], Any]) -> None:
        """Does something again and again, every `period` ns."""
        every(self.clock, period, work)

    def _see(self, received: Any) -> None:
        if received.sender == b"loop" and received.message["motor_cmd.kp"].any():
            self.stiff.append(self.clock.now())

    def begin(self) -> None:
        """Releases the robot's own mode, as the program does, and joins loop and robot.

        Raises:
          InputError: its own mode does not let go.
        """
        self.clock.pass_by(0.05)
        self.transport.release()
        self.every(COMMAND_PERIOD, self.transport.send_once)
        self.every(round(WATCH_EVERY * NS), self.transport.watch_once)
        self.every(round(self.robot.control_period * NS), self._command)

    def _command(self) -> None:
        self.messages.velocity_command(COMMAND if self.state == "running" else (0.0, 0.0, 0.0), self.clock.now())

    @property
    def state(self) -> str:
        """Of the controller."""
        return self.controller.state.name.lower().replace("_", " ")

    def run(self, seconds: float) -> None:
        """Lets robot and loop go on."""
        end = self.clock.now() + round(seconds * NS)

        def over() -> bool:
            if self.state == EMERGENCY and self.let_go is None:
                self.let_go = self.clock.now()
            return self.clock.now() >= end

        self.loop.run(over)

    def start(self) -> None:
        """Arms the robot and lets it walk."""
        self.begin()
        self.run(0.1)
        self.messages.ask("arm")
        self.run(1.2)
        if self.state != "running":
            raise RuntimeError(f"the rig is {self.state}, not running: {self.controller.reason}")

    def alter(self, change: Callable[[Packed], Any]) -> None:
        """Changes what the robot says, before its checksum."""
        self.there.alter = change


@dataclass(frozen=True)
class UnitreeFault:
    """One fault and what must come of it."""

    name: str
    inject: Callable[[UnitreeRig], Any]
    expected: str
    says: tuple[str, ...] = ()
    """Codes or keys of refusals of which one must be said; () where nothing need be."""
    why: str = ""


def _permuted(state: Packed) -> None:
    """Motors in the order of the description's other side: legs of left and right changed over."""
    order = np.array([3, 4, 5, 0, 1, 2, 9, 10, 11, 6, 7, 8, *range(12, 20)])
    for name in ("q", "dq", "tau_est"):
        state[f"motor_state.{name}"] = state[f"motor_state.{name}"][order]


def _spoilt(message: Packed) -> Packed:
    message["crc"] = int(message["crc"][0]) ^ 1
    return message


def _lost(share: float) -> Callable[[Packed], Packed | None]:
    rng = np.random.default_rng(7)
    return lambda message: None if rng.random() < share else message


def _briefly(change: Callable[[Packed], Packed | None]) -> Callable[[Packed], Packed | None]:
    """Three messages of 2 ms in a row: one alone may be one of those that nobody looks at."""
    left = [1, 1, 1]

    def tamper(message: Packed) -> Packed | None:
        return change(message) if left and left.pop() else message

    return tamper


def _on(topic: str, change: Callable[[Packed], Packed | None]) -> Callable[[UnitreeRig], None]:
    def inject(rig: UnitreeRig) -> None:
        rig.line.tampers[topic] = change

    return inject


def _frozen(rig: UnitreeRig) -> None:
    kept: list[Any] = []

    def freeze(message: Packed) -> Packed:
        kept.append(message["tick"])
        message["tick"] = kept[0]
        return message.seal()

    rig.line.tampers[LOW_STATE] = freeze


def _pauses(seconds: float, catches_up: bool = True) -> Callable[[UnitreeRig], None]:
    """The world stands still for so long, again and again; what it has missed then comes at once, or not at all."""

    def inject(rig: UnitreeRig) -> None:
        def stand() -> None:
            rig.stand_still(seconds, catches_up)

        rig.every(170_000_000, stand)

    return inject


def _joint_speed(joint: int, factor: float, pause: float = 0.0) -> Callable[[UnitreeRig], None]:
    """A motor's speed reads so many times what it is; in a world that stands still for `pause` s now and then."""

    def change(state: Packed) -> None:
        speeds = state["motor_state.dq"]
        speeds[joint] *= factor
        state["motor_state.dq"] = speeds

    def inject(rig: UnitreeRig) -> None:
        rig.alter(change)
        if pause:
            _pauses(pause)(rig)

    return inject


def _foreign_commands(rig: UnitreeRig) -> None:
    outbox = rig.line.end("foreign").outbox(LOW_COMMAND, LOW_CMD_MESSAGE)
    command = low_command().seal()
    rig.every(10_000_000, lambda: outbox.send(command))


def _foreign_states(rig: UnitreeRig) -> None:
    outbox = rig.line.end("foreign").outbox(LOW_STATE, LOW_STATE_MESSAGE)
    kept: list[Packed] = []
    rig.alter(lambda state: kept.append(Packed(LOW_STATE_MESSAGE, bytes(state.buffer))))

    def say() -> None:
        if kept:
            kept[-1]["tick"] = int(kept[-1]["tick"][0]) + 2
            outbox.send(kept[-1].seal())

    rig.every(5_000_000, say)


def _motor_off(state: Packed) -> None:
    modes = state["motor_state.mode"]
    modes[4] = 0
    state["motor_state.mode"] = modes


def _hot(state: Packed) -> None:
    temperatures = state["motor_state.temperature"]
    temperatures[7] = HOT + 1
    state["motor_state.temperature"] = temperatures


def _pressed(buttons: Button) -> Callable[[UnitreeRig], None]:
    def inject(rig: UnitreeRig) -> None:
        raw = np.zeros(40, np.uint8)
        raw[0], raw[2:4] = 0x55, np.frombuffer(int(buttons).to_bytes(2, "little"), np.uint8)
        rig.there.remote = raw

    return inject


FAULTS = (
    UnitreeFault("three states with a wrong checksum", _on(LOW_STATE, _briefly(_spoilt)), RUNNING,
                 (f"joints {Code.CHECKSUM}",), "the next comes in 2 ms"),
    UnitreeFault("every state with a wrong checksum", _on(LOW_STATE, _spoilt), EMERGENCY,
                 (f"joints {Code.CHECKSUM}",), "nothing is known of the robot"),
    UnitreeFault("every command with a wrong checksum", _on(LOW_COMMAND, _spoilt), EMERGENCY,
                 (), "the robot drops them and brakes; its joints do not go where they are asked to"),
    UnitreeFault("motors of left and right legs changed over", lambda rig: rig.alter(_permuted), EMERGENCY,
                 (), "angles of legs that are not theirs"),
    UnitreeFault("a motor with mode 0", lambda rig: rig.alter(_motor_off), EMERGENCY,
                 (f"joints {Code.MOTOR}",), "a leg does not obey"),
    UnitreeFault("the robot's own mode is started again", lambda rig: rig.there.select("ai"), EMERGENCY,
                 (), "two programs drive the motors"),
    UnitreeFault("a motor above its temperature", lambda rig: rig.alter(_hot), STOPPED,
                 (f"joints {Code.MOTOR}",), "it lies down in good time"),
    UnitreeFault("a third of the states lost", _on(LOW_STATE, _lost(0.33)), RUNNING, (), "the loop needs one in 20 ms"),
    UnitreeFault("all states lost", _on(LOW_STATE, _lost(1.0)), EMERGENCY, (), "nothing is known of the robot"),
    UnitreeFault("a third of the commands lost", _on(LOW_COMMAND, _lost(0.33)), RUNNING, (), "the next comes in 2 ms"),
    UnitreeFault("all commands lost", _on(LOW_COMMAND, _lost(1.0)), EMERGENCY, (), "joints do not follow"),
    UnitreeFault("states again and again with one tick", _frozen, EMERGENCY,
                 (f"joints {Code.STAMP_FROZEN}",), "an old state is no state"),
    *(
        UnitreeFault(f"the world stands still for {1e3 * seconds:g} ms{after}", _pauses(seconds, not after), RUNNING,
                     (), "by its own count no time has passed")
        for seconds in (0.005, 0.015, 0.025) for after in ("", ", and is late then")
    ),
    *(
        UnitreeFault(f"knee speed {what}{where}", _joint_speed(KNEE, factor, pause), EMERGENCY,
                     (f"joints {Code.JOINT_DISAGREES}",), "which of angle and speed is wrong cannot be known")
        for what, factor in (("dead", 0.0), ("reversed", -1.0), ("doubled", 2.0))
        for where, pause in (("", 0.0), (" in a world that stands still for 25 ms now and then", 0.025))
    ),
    UnitreeFault("another program sends commands", _foreign_commands, EMERGENCY, (), "two programs drive the motors"),
    UnitreeFault("another program sends states", _foreign_states, EMERGENCY, (), "whose are they?"),
    UnitreeFault("the remote asks to stop", _pressed(Button.SELECT), STOPPED, (), "the operator"),
    UnitreeFault("the remote asks to damp", _pressed(Button.L2 | Button.B), EMERGENCY, (), "the operator"),
)  # fmt: skip


def try_fault(fault: UnitreeFault, skills: Skills) -> dict[str, Any]:
    """One fault on a robot that walks; JSON-ready: name, expected, state, code, reason, safe, problems."""
    rig = UnitreeRig(skills)
    rig.start()
    before = rig.messages.refusals.counts.copy()
    fault.inject(rig)
    began = rig.clock.now()
    rig.run(WATCHED)
    problems: list[str] = []
    reached = rig.state
    allowed = ("soft stop", "disarmed") if fault.expected == STOPPED else (fault.expected,)
    if reached not in allowed:
        problems.append(f"the state is {reached}, it must be {fault.expected}")
    said = {rig.controller.code, *(rig.messages.refusals.counts - before)}
    if fault.says and not said & set(fault.says):
        problems.append(f"nothing says {' or '.join(fault.says)}")
    if rig.let_go is not None:
        late = [when for when in rig.stiff if when > rig.let_go + GRACE * NS]
        if late:
            problems.append(f"{len(late)} commands held an angle after the loop had let go")
    return {
        "name": fault.name,
        "expected": fault.expected,
        "state": reached,
        "ms": None if rig.let_go is None else (rig.let_go - began) / 1e6,
        "code": str(rig.controller.code),
        "reason": rig.controller.reason,
        "why": fault.why,
        "safe": not problems,
        "problems": problems,
    }


def try_beginnings(skills: Skills) -> list[dict[str, Any]]:
    """The robot's own mode at the start: let go of, kept, and nobody who says; JSON-ready rows as `try_fault`'s."""

    def beginning(name: str, change: Callable[[UnitreeRig], Any], refused: bool) -> dict[str, Any]:
        rig, reason = UnitreeRig(skills, "normal"), ""
        change(rig)
        try:
            rig.begin()
        except InputError as error:
            reason = str(error)
        sent = rig.transport.sent
        problems = ["commands were sent"] if sent else []
        if bool(reason) != refused:
            problems.append(f"it was {'refused' if reason else 'not refused'}")
        expected = "refused, nothing sent" if refused else "begins"
        state = "refused" if reason else "begins"
        return {
            "name": name, "expected": expected, "state": state, "ms": None, "code": "", "reason": reason,
            "why": "the motors must be the loop's alone", "safe": not problems, "problems": problems,
        }  # fmt: skip

    def stubborn(rig: UnitreeRig) -> None:
        def answer(asked: Json) -> tuple[int, Json]:
            return 0, {"name": "normal"}

        rig.line.end("robot").server("motion_switcher", {Switcher.CHECK_MODE: answer, Switcher.RELEASE_MODE: answer})

    return [
        beginning("its own mode is active at the start", lambda rig: None, refused=False),
        beginning("its own mode does not let go", stubborn, refused=True),
        beginning("nobody says which mode is active", lambda rig: rig.line.services.clear(), refused=True),
    ]


def run_all(names: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Every fault, or those of these names; see `try_fault`."""
    skills = load_skills("specialists", ROBOT)
    rows = [try_fault(fault, skills) for fault in FAULTS if not names or fault.name in names]
    return rows + [row for row in try_beginnings(skills) if not names or row["name"] in names]


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; exit status 1 where a fault is not safe."""
    parser = argparse.ArgumentParser(prog="unitree_faults", description="faults on the way to a robot of Unitree's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    rows = run_all()
    if asked.json:
        print(json.dumps({"faults": rows, "tried": len(rows), "safe": sum(row["safe"] for row in rows)}))
    else:
        table = Table("fault", "must be", "is", "after ms", "safe", "reason")
        for row in rows:
            after = "" if row["ms"] is None else f"{row['ms']:.0f}"
            table.add_row(row["name"], row["expected"], row["state"], after, str(row["safe"]), row["reason"])
        Console().print(table)
    return 0 if all(row["safe"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
