"""Unitree's messages between a control loop and a simulated robot, in simulated time, for the bench of faults.

What is tampered with stands in the messages themselves: a reading that is wrong is so before the robot writes its
checksum, what is lost is a whole state, and the clock that is wrong is the one that DDS stamps messages by, not the
robot's count of milliseconds. DDS alone is left out. Some faults cannot be said in these messages, which have no joint
names and hold joints and IMU together: `Unsayable`.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from robot.loop.clock import SimulatedClock
from robot.loop.message_filter import MessageFilter
from robot.loop.refusals import Refusals
from robot.loop.transport import NS, Array, Mode, Output
from robot.transports.hardware import STEP_NS
from robot.transports.inprocess import Message, Tamper
from robot.transports.unitree.layout import Packed
from robot.transports.unitree.line import Line
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_COMMAND,
    LOW_STATE,
    SPORT_STATE,
)
from robot.transports.unitree.simulated import SLICE, ServoedHardware, UnitreeRobot
from robot.transports.unitree.transport import COMMAND_PERIOD, WATCH_EVERY, UnitreeTransport

MOTORS = {"position": "motor_state.q", "velocity": "motor_state.dq", "effort": "motor_state.tau_est"}
INERTIAL = {"orientation": "imu_state.quaternion", "angular_velocity": "imu_state.gyroscope"}
POSE = {"position": "position", "orientation": "imu_state.quaternion"}


class Unsayable(Exception):
    """A fault of readings that these messages have no place for."""


class UnitreeWire:
    """A `Transport` to a simulated robot that is spoken to in Unitree's messages; as `InProcess` to who tampers."""

    slice = SLICE
    """Milliseconds between two states."""

    def __init__(
        self, messages: MessageFilter, hardware: ServoedHardware, clock: SimulatedClock, *, dry_run: bool = False
    ) -> None:
        self.messages, self.hardware, self.clock, self.dry_run = messages, hardware, clock, dry_run
        self.command: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
        """What is asked for, m/s, m/s, rad/s; None: silence."""
        self.tampers: dict[str, Tamper] = {}
        """Message kind (`joints`, `imu`, `pose`, `command`) -> what becomes of it; None: it is lost."""
        self.written: list[tuple[int, Output]] = []
        """The loop's outputs with their times (ns)."""
        self.violations: dict[str, str] = {}
        """What a low-level command said that the loop had not asked for: rule -> sentence."""
        self.line = Line(clock.now)
        self.line.tampers[LOW_STATE] = self._state
        self.line.tampers[SPORT_STATE] = self._pose
        self.robot = UnitreeRobot(self.line.end("robot"), hardware, clock, Refusals())
        self.robot.mode_name = ""
        self.transport = UnitreeTransport(
            self.line.end("loop"), hardware.robot, messages, dry_run=dry_run, pose=True, clock=clock
        )
        watch = self.line.end("watch").inbox(LOW_COMMAND, LOW_CMD_MESSAGE, self._look)
        for inbox in (watch, *self.transport.inboxes):
            inbox.start()

    # --- Transport ------------------------------------------------------------------------------------------------

    def write(self, output: Output) -> None:
        """See `Transport`; what is new goes out at once."""
        self.written.append((self.clock.now(), output))
        self.transport.write(output)
        if not self.dry_run:
            self.transport.send_once()

    def report(self, status: Message) -> None:
        """See `Transport`."""

    def close(self) -> None:
        """See `Transport`."""
        self.robot.close()

    def follow(self, clock: SimulatedClock) -> None:
        """Lets the simulated clock move the robot and the sender of commands."""
        self.robot.slice()
        self._command()
        every(clock, SLICE * STEP_NS, self.robot.slice)
        if not self.dry_run:
            every(clock, COMMAND_PERIOD, self.transport.send_once)
            every(clock, round(WATCH_EVERY * NS), self.transport.watch_once)
        every(clock, round(self.hardware.robot.control_period * NS), self._command)

    def _command(self) -> None:
        if self.command is not None:
            changed = self._tampered("command", {"command": self.command, "stamp": self.clock.now()})
            if changed is not None:
                self.messages.velocity_command(**changed)

    # --- what is tampered with ------------------------------------------------------------------------------------

    def _tampered(self, kind: str, message: Message) -> Message | None:
        tamper = self.tampers.get(kind)
        return tamper(message) if tamper else message

    def _state(self, state: Packed) -> Packed | None:
        joints, robot = self.hardware.robot.joints, self.hardware.robot
        stamp = self.clock.now()
        readings = {name: state[path][:joints].astype(float) for name, path in MOTORS.items()}
        senses = {name: state[path].astype(float) for name, path in INERTIAL.items()}
        told = self._tampered("joints", {"names": robot.joint_names, **readings, "stamp": stamp})
        felt = self._tampered("imu", {**senses, "stamp": stamp})
        if felt is None and told is not None:
            raise Unsayable("joints and IMU come in one state")
        if told is None or felt is None:
            return None
        if list(told["names"]) != list(robot.joint_names):
            raise Unsayable("motors have no names")
        if felt["stamp"] not in (stamp, told["stamp"]):
            raise Unsayable("joints and IMU are sent at one time")
        for name, path in MOTORS.items():
            whole = state[path]
            whole[:joints] = _numbers(told[name], joints)
            state[path] = whole
        for name, path in INERTIAL.items():
            state[path] = _numbers(felt[name], len(senses[name]))
        self.line.stamps[LOW_STATE] = int(told["stamp"])
        return state.seal()

    def _pose(self, state: Packed) -> Packed | None:
        message = {name: state[path].astype(float) for name, path in POSE.items()}
        changed = self._tampered("pose", {**message, "stamp": self.clock.now()})
        if changed is None:
            return None
        for name, path in POSE.items():
            state[path] = _numbers(changed[name], len(message[name]))
        self.line.stamps[SPORT_STATE] = int(changed["stamp"])
        return state

    # --- what must hold on the wire -------------------------------------------------------------------------------

    def _look(self, received: Any) -> None:
        """Every command holds the targets that the loop asked for last, or damps."""
        command, now, robot = received.message, self.clock.now(), self.hardware.robot
        stiff = command["motor_cmd.kp"]
        if not stiff.any():
            return
        asked = self.written[-1][1] if self.written else None
        said = f"at {now / NS:.3f} s"
        if asked is None or asked.mode != Mode.POSITION:
            self.violations.setdefault("asked", f"a command holds angles that nobody asks for ({said})")
            return
        if now - self.written[-1][0] > robot.drives.watchdog * NS:
            self.violations.setdefault("old", f"a command holds angles of long ago ({said})")
        targets = np.asarray(asked.targets, np.float32)
        if not np.array_equal(command["motor_cmd.q"][: robot.joints], targets):
            self.violations.setdefault("targets", f"a command holds other angles than were asked for ({said})")
        if stiff[robot.joints :].any():
            self.violations.setdefault("motors", f"a command holds motors that the robot does not have ({said})")


def every(clock: SimulatedClock, period: int, work: Callable[[], Any]) -> None:
    """Does something again and again, every `period` ns from now on."""

    def event() -> int:
        work()
        return clock.now() + period

    clock.at(clock.now() + period, event)


def _numbers(values: Any, count: int) -> Array:
    try:
        found = np.asarray(values, float)
    except (TypeError, ValueError) as error:
        raise Unsayable("fields are numbers") from error
    if found.shape != (count,):
        raise Unsayable("a message has one number for each field")
    return found
