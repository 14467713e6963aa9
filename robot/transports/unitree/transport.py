"""The control loop on a Unitree robot: states in, low-level commands out at 500 Hz, and what must hold for that.

The robot's description gives the order of its joints, which must be the motors' in Unitree's messages. Joint targets of
the loop (50 Hz) are held, not interpolated, between two control steps: policies are trained with drives that hold them.
Commands are sent at 500 Hz all the same, as unitree_sdk2's own examples do, and new targets at once: it is not
published what the robot does when no command comes, and published simulators keep the last one for ever. So this
sender never lets a target grow old: when the loop has said nothing for as long as the robot's description lets its
drives wait, damping is sent; and once anything was sent, damping is what is sent to the end and at the end.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from robot.loop.clock import Clock, Durations, SteadyClock
from robot.loop.message_filter import MessageFilter
from robot.loop.recording import SECOND_DAMPS
from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NEVER, NS, Mode, Output
from robot.transports.senders import Heard, Senders
from robot.transports.unitree.bus import NO_ANSWER, Ends, Received
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_COMMAND,
    LOW_STATE,
    LOW_STATE_MESSAGE,
    MOTORS,
    NO_POSITION,
    OK,
    SERVO,
    SPORT_STATE,
    SPORT_STATE_MESSAGE,
    Button,
    Remote,
    Sport,
    Switcher,
    low_command,
)
from sim.errors import InputError
from sim.robots.description import Robot

COMMAND_PERIOD = 2_000_000
"""ns between two low-level commands: unitree_sdk2's examples send every 2 ms."""
READING_PERIOD = 1_500_000
"""ns within which a second state is not looked at: the robot sends one in 2 ms, and whoever sends more is not to take
the loop's time. Of every second one sensor to command took 2 ms more at p99."""
TICK = 1_000_000
"""ns that a state's tick counts, as published simulators have it. Where it goes otherwise, stamps are gone by."""
LAST_COMMANDS = 25
"""Commands of damping that a sender ends with: 50 ms, through which any of them may be lost."""
WATCH_EVERY = 0.1
"""s between two looks at who else sends commands."""
CHECK_EVERY = 1.0
"""s between two questions of whether the robot's own walking is active."""
HOT = 85
"""degrees Celsius of a motor at which the robot is let down. By hand: no limit is published."""
RELEASES, RELEASE_PAUSE = 5, 1.0
"""So often the robot's own walking is asked to let go, with a pause of s after each (unitree_sdk2_python: 1 s)."""
STATE_WITHIN = 5.0
"""A robot that is there sends its state within this, s."""
STOP_BUTTONS = Button.SELECT
DAMP_BUTTONS = Button.L2 | Button.B
"""Unitree's own combination for damping."""
ARM_BUTTONS = Button.L1 | Button.START


class UnitreeTransport:
    """A `Transport` to a robot that speaks Unitree's low-level messages."""

    def __init__(
        self,
        bus: Ends,
        robot: Robot,
        messages: MessageFilter,
        *,
        dry_run: bool,
        pose: bool = False,
        clock: Clock | None = None,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`pose` takes the robot's place from `rt/sportmodestate`, which a simulated robot sends.

        Raises:
          InputError: a robot with more joints than the messages have motors.
        """
        if robot.joints > MOTORS:
            raise InputError(f"{robot.name} has {robot.joints} joints, Unitree's messages {MOTORS} motors")
        self.bus, self.robot, self.messages, self.dry_run, self.log = bus, robot, messages, dry_run, log
        self.clock = clock or SteadyClock()
        self.states = 0
        """States that were believed."""
        self.sent = 0
        """Commands that were sent."""
        self.remote: Remote | None = None
        self.mode_name = ""
        """The robot's own mode that is active; empty where the motors obey low-level commands."""
        self.latencies = Durations()
        """s from the sending of a state to that of the first command that answers it; of a robot with this computer's
        clock, a simulated one."""
        self._asked: tuple[Mode, Any, int, int] = (Mode.NOTHING, None, NEVER, 0)
        self._stale = False
        self._shown = NEVER
        """When what the present command says was asked for, ns."""
        self._ticks: int = -1
        self._read = NEVER
        self._servo = np.zeros(robot.joints, bool)
        self._hot = False
        self._buttons = Button(0)
        self._state_senders = Senders()
        self._foreign = NEVER
        self._checked = NEVER
        self._check_mode = True
        self._ending = threading.Event()
        self._outbox = None if dry_run else bus.outbox(LOW_COMMAND, LOW_CMD_MESSAGE)
        self._switcher = bus.client("motion_switcher")
        self.inboxes = [
            bus.inbox(LOW_STATE, LOW_STATE_MESSAGE, self._take_state, newest=True),
            bus.inbox(LOW_COMMAND, LOW_CMD_MESSAGE, self._take_foreign, newest=True, others_only=True),
        ]
        if pose:
            self.inboxes.append(bus.inbox(SPORT_STATE, SPORT_STATE_MESSAGE, self._take_pose, newest=True))
        self._damping = low_command()
        """A command without target, braked by each joint's own gain."""
        self._set(self._damping, NO_POSITION, np.zeros(robot.joints))
        self._command = low_command()
        self._fresh = threading.Event()
        """Set where the loop has asked for something that has not been sent."""
        self._threads = [threading.Thread(target=self._watch, name="watch", daemon=True)]
        if self._outbox is not None:
            self._threads.append(threading.Thread(target=self._send, name="low-level commands", daemon=True))

    # --- beginning ------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Begins to take states.

        Raises:
          InputError: none comes.
        """
        for inbox in self.inboxes:
            inbox.start()
        until = self.clock.now() + int(STATE_WITHIN * NS)
        while self._read == NEVER:
            if self.clock.now() > until:
                raise InputError(
                    f"no state on {LOW_STATE} in DDS domain {self.bus.domain} on {self.bus.interface} within "
                    f"{STATE_WITHIN:g} s: is the robot on, and the interface the one that it is on?"
                )
            self.clock.sleep_until(self.clock.now() + NS // 100)

    def release(self) -> None:
        """Has the robot's own walking let go of the motors: lies down, releases, and waits until nothing is active.

        Raises:
          InputError: it does not let go, or nobody says whether it has.
        """
        sport = self.bus.client("sport")
        for _ in range(RELEASES):
            code, data = self._switcher.call(Switcher.CHECK_MODE)
            if code == NO_ANSWER:
                raise InputError(
                    "nobody answers as motion_switcher: it cannot be known whether the robot's own walking is active, "
                    "so nothing is sent (a simulator without the service: --no-switcher)"
                )
            if code != OK:
                raise InputError(f"motion_switcher does not say which mode is active: code {code}; nothing is sent")
            self.mode_name = str(data.get("name", ""))
            if not self.mode_name:
                return
            self.log(f"the robot's own mode '{self.mode_name}' is active: it is asked to lie down and let go")
            sport.call(Sport.STAND_DOWN)
            self.clock.sleep_until(self.clock.now() + int(RELEASE_PAUSE * NS))
            self._switcher.call(Switcher.RELEASE_MODE)
            self.clock.sleep_until(self.clock.now() + int(RELEASE_PAUSE * NS))
        raise InputError(f"the robot's own mode '{self.mode_name}' does not let go of the motors; nothing is sent")

    def start(self, switcher: bool = True) -> None:
        """Begins to send what the loop asks for, and to watch; `switcher`: whether to ask which mode is active."""
        self._check_mode = switcher
        for thread in self._threads:
            thread.start()

    # --- Transport ------------------------------------------------------------------------------------------------

    def write(self, output: Output) -> None:
        """See `Transport`."""
        self._asked = (output.mode, np.array(output.targets, np.float32), self.clock.now(), output.stamp)
        self._fresh.set()

    def report(self, status: dict[str, Any]) -> None:
        """See `Transport`; states are logged by the loop itself."""

    def close(self) -> None:
        """Ends with damping, if anything was sent."""
        self._ending.set()
        self._fresh.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(2.0)
        for inbox in self.inboxes:
            inbox.close()

    # --- what is sent ---------------------------------------------------------------------------------------------

    def _set(self, command: Any, position: Any, kp: Any) -> None:
        joints = self.robot.joints
        for name, value in (("q", position), ("dq", 0.0), ("tau", 0.0), ("kp", kp), ("kd", self.robot.kd)):
            whole = command[f"motor_cmd.{name}"]
            whole[:joints] = value
            if name in ("kp", "kd"):
                whole[joints:] = 0.0
            command[f"motor_cmd.{name}"] = whole
        command.seal()

    def _send(self) -> None:
        """500 Hz, until the end; what the loop has just asked for goes at once, and the next is due from then on."""
        due = self.clock.now()
        while not self._ending.is_set():
            self.send_once()
            due = max(due + COMMAND_PERIOD, self.clock.now() - COMMAND_PERIOD)
            if self._fresh.wait(max(due - self.clock.now(), 0) / NS):
                self._fresh.clear()
                due = self.clock.now()
        if self.sent:
            for _ in range(LAST_COMMANDS):
                self._put(self._damping)
                self.clock.sleep_until(self.clock.now() + COMMAND_PERIOD)

    def send_once(self) -> None:
        """The command that is due now, every `COMMAND_PERIOD`."""
        mode, targets, when, stamp = self._asked
        now = self.clock.now()
        old = now - when > self.robot.drives.watchdog * NS
        if mode == Mode.POSITION and old and not self._stale:
            self._stale = True
            said = f"the loop has said nothing for {(now - when) / NS:.3f} s: damping is sent"
            self.messages.refuse(Refusal(Code.AWAY, said, (now - when) / NS, self.robot.drives.watchdog))
        self._stale = self._stale and old
        if mode == Mode.POSITION and not old:
            new = when != self._shown
            if new:
                self._set(self._command, targets, self.robot.kp)
                self._shown = when
            self._put(self._command)
            if new and stamp:
                self.latencies.add((time.time_ns() - stamp) / NS)
        elif mode != Mode.NOTHING or self.sent:
            self._put(self._damping)

    def _put(self, command: Any) -> None:
        assert self._outbox is not None
        self._outbox.send(command)
        self.sent += 1

    # --- what comes in --------------------------------------------------------------------------------------------

    def _take_state(self, received: Received) -> None:
        now = self.clock.now()
        if now - self._read < READING_PERIOD:
            return
        state = received.message
        if not state.whole:
            self.messages.refuse(Refusal(Code.CHECKSUM, "a state with a wrong checksum", source=Source.JOINTS))
            return
        heard = self._state_senders.hear(received.sender or None, now, lambda: 1)
        if heard is Heard.SECOND:
            self.messages.ask(SECOND_DAMPS, f"two programs send {LOW_STATE}")
            return
        tick = int(state["tick"][0])
        if tick == self._ticks:
            self.messages.refuse(Refusal(Code.STAMP_FROZEN, f"a state again with tick {tick}", source=Source.JOINTS))
            return
        self._read, self._ticks = now, tick
        if not self._motors_fit(state):
            return
        joints = self.robot.joints
        orientation, gyro = state["imu_state.quaternion"], state["imu_state.gyroscope"]
        counted = tick * TICK
        self.messages.imu(orientation.astype(float), gyro.astype(float), received.sent, counted)
        position, velocity, effort = (
            state[f"motor_state.{name}"][:joints].astype(float) for name in ("q", "dq", "tau_est")
        )
        if self.messages.joints(self.robot.joint_names, position, velocity, effort, received.sent, counted):
            self.states += 1
        self._look_at_remote(Remote.of(state["wireless_remote"]))

    def _motors_fit(self, state: Any) -> bool:
        """Whether the motors obey; readings of a robot whose motors are off are not believed, so that the loop lets
        go of it."""
        joints = self.robot.joints
        servo = state["motor_state.mode"][:joints] == SERVO
        lost = self._servo & ~servo
        self._servo |= servo
        if lost.any() and self.sent:
            names = ", ".join(np.array(self.robot.joint_names)[lost])
            self.messages.refuse(Refusal(Code.MOTOR, f"the motors of {names} are off", source=Source.JOINTS))
            return False
        hottest = int(state["motor_state.temperature"][:joints].max())
        if hottest > HOT and not self._hot:
            said = f"a motor has {hottest} degrees Celsius, limit {HOT}"
            self.messages.refuse(Refusal(Code.MOTOR, said, hottest, HOT, Source.JOINTS))
            self.messages.ask("stop")
        self._hot = hottest > HOT - 5
        return True

    def _look_at_remote(self, remote: Remote | None) -> None:
        if remote is None:
            return
        self.remote = remote
        for buttons, act in (
            (STOP_BUTTONS, lambda: self.messages.ask("stop")),
            (DAMP_BUTTONS, lambda: self.messages.ask("disarm")),
            (ARM_BUTTONS, lambda: self.messages.ask("arm")),
        ):
            if remote.buttons & buttons == buttons and self._buttons & buttons != buttons:
                act()
        self._buttons = remote.buttons

    def _take_pose(self, received: Received) -> None:
        state = received.message
        self.messages.odometry(
            state["position"].astype(float), state["imu_state.quaternion"].astype(float), received.sent
        )

    def _take_foreign(self, received: Received) -> None:
        self._foreign = self.clock.now()

    # --- what must go on holding ----------------------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._ending.wait(WATCH_EVERY):
            self.watch_once()

    def watch_once(self) -> None:
        """A look at who else drives the motors, every `WATCH_EVERY` s."""
        now = self.clock.now()
        if now - self._foreign < 2 * WATCH_EVERY * NS:
            self.messages.ask(SECOND_DAMPS, f"another program sends {LOW_COMMAND}")
        if not self._check_mode or now - self._checked < CHECK_EVERY * NS:
            return
        self._checked = now
        code, data = self._switcher.call(Switcher.CHECK_MODE, within=CHECK_EVERY)
        if code == OK:
            self.mode_name = str(data.get("name", ""))
            if self.mode_name and not self.dry_run:
                self.messages.ask(SECOND_DAMPS, f"the robot's own mode '{self.mode_name}' drives the motors as well")
