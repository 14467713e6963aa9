"""The in-process transport: simulated hardware, navigator and referee beside the control loop, without ROS.

Driven by a `SimulatedClock` it runs as fast as the computer can and gives the same run every time; in real time a
thread drives it. What passes between hardware and loop can be tampered with, message by message: so faults are tried.
"""

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from policies.estimation.kinematics import facing
from robot.loop.clock import Clock, Durations, SimulatedClock
from robot.loop.localization import BLIND
from robot.loop.message_filter import MessageFilter
from robot.loop.navigation import NavigationProgram
from robot.loop.referee import Referee
from robot.loop.transport import NS, Array, Output
from robot.transports.hardware import POSE_EVERY, SLICE, STEP_NS, SimulatedHardware
from sim import observation as obs
from sim.course.description import SKILLS

COMMAND_EVERY = 5
"""Slices between two commands: 50 Hz."""
Message = dict[str, Any]
Tamper = Callable[[Message], Message | None]


class InProcess:
    """A `Transport` to simulated hardware in the same process."""

    slice = SLICE
    """Milliseconds between two readings."""

    def __init__(
        self,
        messages: MessageFilter,
        hardware: SimulatedHardware,
        clock: Clock,
        navigation: NavigationProgram | None = None,
        referee: Referee | None = None,
    ) -> None:
        """`navigation` sends commands from the start; without one, `command` is what is asked for (None: silence)."""
        self.messages, self.hardware, self.clock = messages, hardware, clock
        self.navigation, self.referee = navigation, referee
        self.command: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
        self.tampers: dict[str, Tamper] = {}
        """Message kind (`joints`, `imu`, `pose`, `command`) -> what becomes of it; None swallows it."""
        self.written: list[tuple[int, Output]] = []
        """The last outputs with their times (ns)."""
        self.keep = 4000
        self.reports: list[dict[str, Any]] = []
        self.begun = clock.now()
        """When the transport began, ns."""
        self.epoch = self.begun - hardware.time
        """The steady time at which the hardware's began, ns."""
        self.latencies = Durations()
        """From a reading's stamp to the arrival of the command that answers it."""
        self._slices = 0
        self._known = hardware.pose()
        """The pose that was told last."""
        self._known_at = hardware.time
        """When it was true, ns of the hardware's time..."""
        self._told_at = hardware.time
        """... and when it was told."""
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._send()

    # --- Transport ------------------------------------------------------------------------------------------------

    def write(self, output: Output) -> None:
        """See `Transport`."""
        with self._lock:
            self.written.append((self.clock.now(), output))
            if len(self.written) > 2 * self.keep:
                del self.written[: self.keep]
            if output.stamp:
                self.latencies.add((self.clock.now() - output.stamp) / NS)
            self.hardware.command(output.mode, output.targets, output.stamp - self.epoch if output.stamp else None)

    def report(self, status: Message) -> None:
        """See `Transport`."""
        self.reports = [*self.reports[-200:], status]

    def close(self) -> None:
        """Ends the thread, if one runs."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join(5.0)

    # --- the world's time -----------------------------------------------------------------------------------------

    def follow(self, clock: SimulatedClock) -> None:
        """Lets the simulated clock move the hardware."""
        clock.at(self.begun + SLICE * STEP_NS, self._slice)

    def start(self) -> None:
        """Moves the hardware in real time, in a thread."""
        self._thread = threading.Thread(target=self._real_time, name="hardware", daemon=True)
        self._thread.start()

    def _real_time(self) -> None:
        due = self.begun + SLICE * STEP_NS
        while not self._ending.is_set():
            self.clock.sleep_until(due)
            due = self._slice()

    def _slice(self) -> int:
        """One slice of the world's time. Returns when the next is due, ns."""
        with self._lock:
            self.hardware.advance(SLICE)
        self._slices += 1
        self._send()
        return self.begun + (self._slices + 1) * SLICE * STEP_NS

    def _send(self) -> None:
        hardware, stamp = self.hardware, self.epoch + self.hardware.time
        reading = hardware.sense()
        position, orientation = hardware.pose()
        joints = {name: reading[name] for name in ("names", "position", "velocity", "effort")}
        self._deliver("joints", self.messages.joints, {**joints, "stamp": stamp})
        inertial = {name: reading[name] for name in ("orientation", "angular_velocity")}
        self._deliver("imu", self.messages.imu, {**inertial, "stamp": stamp})
        told = hardware.told_pose() if self._slices % POSE_EVERY == 0 or not hardware.tells_truth else None
        if told is not None:
            place, turned, true_at = told
            self._known, self._known_at, self._told_at = (place, turned), true_at, hardware.time
            if not self._estimates:
                self._tell_pose(place, turned, self.epoch + true_at)
        if self._slices % POSE_EVERY == 0 and self.referee is not None:
            if hardware.touched_board:
                self.referee.touch_board()
            self.referee.pose(hardware.time, position, orientation)
        if self._slices % COMMAND_EVERY == 0:
            self._command(stamp, *((position, orientation) if hardware.tells_truth else self._known))

    def _command(self, stamp: int, position: Array, orientation: Array) -> None:
        command = self.command
        if self.navigation is not None:
            yaw = float(obs.yaw_of(np, orientation))
            if self.hardware.tells_truth:
                asked = self.navigation.step(float(position[0]), float(position[1]), yaw)
            else:
                age = (self.hardware.time - self._known_at) / NS
                felt = self.hardware.felt(COMMAND_EVERY * SLICE * STEP_NS / NS)
                asked = self.navigation.step_told([*position.tolist(), yaw], age, *felt)
                place = self.navigation.place
                known = self.hardware.time - self._told_at <= BLIND * NS
                if self._estimates and place is not None and known:
                    self._tell_pose(place[:3], facing(orientation, float(place[3])), stamp)
            command = tuple(asked.velocity.tolist())
            self.messages.skill(SKILLS.index(asked.skill))
        if command is not None:
            self._deliver("command", self.messages.velocity_command, {"command": command, "stamp": stamp})

    @property
    def _estimates(self) -> bool:
        """Whether the loop is told what the navigation program makes of poses with errors, not these themselves: its
        heights are then those that the robot will step on."""
        return self.navigation is not None and self.hardware.localized

    def _tell_pose(self, position: Array, orientation: Array, stamp: int) -> None:
        message = {"position": position, "orientation": orientation, "stamp": stamp}
        self._deliver("pose", self.messages.odometry, message)

    def _deliver(self, kind: str, accept: Callable[..., bool], message: Message) -> None:
        tamper = self.tampers.get(kind)
        changed: Message | None = tamper(message) if tamper else message
        if changed is not None:
            accept(**changed)
