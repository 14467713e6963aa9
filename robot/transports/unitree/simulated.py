"""`barkour unitree sim`: a simulated robot that speaks Unitree's low-level messages, in real time.

As on the robot: `rt/lowstate` at 500 Hz with its checksum, `rt/lowcmd` obeyed motor by motor (mode, position, speed,
torque and gains of each command), services `motion_switcher` and `sport`, and its own mode active until it is released.
Of what the robot does, this is not known and chosen here: commands with a wrong checksum are dropped; while its own
mode is active low-level commands are dropped; without a command the motors do what the robot's `Drives` say; the tick
counts milliseconds. Temperatures, battery and fans are not simulated, foot forces are in N.
`rt/sportmodestate` gives the true pose in the course frame, which a robot does not know.
"""

import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from robot.loop.clock import Clock, SteadyClock
from robot.loop.referee import Referee
from robot.loop.refusals import Code, Refusal, Refusals
from robot.loop.transport import NEVER, NS, Array, Mode
from robot.nodes.ending import Ending, check_report, write_report
from robot.options import UnitreeSimOptions
from robot.results import UnitreeSimReport
from robot.transports.hardware import STEP_NS, Pace, SimulatedHardware
from robot.transports.senders import Claim
from robot.transports.unitree.bus import Bus, Ends, Received
from robot.transports.unitree.layout import Packed
from robot.transports.unitree.messages import (
    LOW_CMD_MESSAGE,
    LOW_COMMAND,
    LOW_STATE,
    LOW_STATE_MESSAGE,
    MOTORS,
    OK,
    POWER_OFF,
    SERVO,
    SPORT_STATE,
    SPORT_STATE_MESSAGE,
    Sport,
    Switcher,
)
from sim.course.description import Course
from sim.course.files import by_name
from sim.robots.description import Robot, find_robot

SLICE = 2
"""Physics steps (ms) between two states: 500 Hz (unitree_ros2's README)."""
POSE_EVERY = 4
"""Slices between two poses: 125 Hz, as the other simulated robots'."""
LIES_DOWN = 1.0
"""s that the robot's own mode takes to stand up or lie down. By hand."""
ANSWERED_AFTER = 6_000_000
"""ns from a state to the command that answers it: such a message does not say which that was. Of the control loop here:
2 ms until it looks, 3 ms for a step, 1 ms until the next command goes out."""
LINGERS = 20.0
"""s after a scored run for which the robot waits to be let go of."""
STANDS_WITHIN = 40.0
"""s in which a robot that is scored has to stand, before its run is over: a loop takes seconds to load. By hand."""
STANDS = 0.85
"""Share of its standing height from which on a robot stands."""
ROOM = 25
"""degrees Celsius that every simulated motor has."""


class Law(NamedTuple):
    """What a command asks of the motors: torque = tau + kp (q - position) + kd (dq - speed), all `[J]`."""

    q: Array
    dq: Array
    tau: Array
    kp: Array
    kd: Array


class ServoedHardware(SimulatedHardware):
    """Simulated hardware whose motors obey a law of their own in every command."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        batch = cast(Any, self.physics).batch
        self._gain, self._bias = (batch.expand(f"actuator_{name}prm") for name in ("gain", "bias"))
        self.share = np.array(self._gain[0, :, 0]) / self.robot.kp
        """Of its gains that a motor really has."""
        self._laws: deque[tuple[int, Law]] = deque()
        zero, pose = np.zeros(self.robot.joints), np.array(self.physics.qpos[0, 7:])
        self.law = Law(pose, zero, zero, self.robot.kp, self.robot.kd)
        """The one in force."""
        if self.mode == Mode.DAMP:  # it lies
            self.damp()

    def ask(self, law: Law) -> None:
        """A command, in force after the drawn latency from the state that it answers (`ANSWERED_AFTER`)."""
        self.commanded = self.time
        due = max(self.time, self.time - ANSWERED_AFTER + int(self.worlds.delay[0]) * STEP_NS)
        self._laws.append((max(due, self._laws[-1][0]) if self._laws else due, law))

    def damp(self) -> None:
        """All motors brake."""
        self._laws.clear()
        zero = np.zeros(self.robot.joints)
        self._obey(Law(zero, zero, zero, zero, self.robot.kd))

    def hold(self, q: Array) -> None:
        """See `SimulatedHardware`; the robot's own controller asks so."""
        zero = np.zeros(self.robot.joints)
        self._obey(Law(np.array(q), zero, zero, self.robot.kp, self.robot.kd))

    @property
    def damping(self) -> bool:
        """Whether no motor pulls towards an angle."""
        return not self.law.kp.any()

    def _drive(self) -> None:
        while self._laws and self._laws[0][0] <= self.time:
            self._obey(self._laws.popleft()[1])
        drives = self.robot.drives
        if self.commanded is not None and self.time - self.commanded > drives.watchdog * NS and drives.then == "damp":
            self.commanded = None
            self.damp()
        if not self.law.kp.all():  # where nothing pulls, the target is where the joint is
            self.targets = np.where(self.law.kp > 0, self.law.q, np.array(self.physics.qpos[0, 7:]))

    def _obey(self, law: Law) -> None:
        kp, kd = self.share * law.kp, self.share * law.kd
        self._gain[0, :, 0] = kp
        self._bias[0, :, 0] = law.tau + kd * law.dq
        self._bias[0, :, 1], self._bias[0, :, 2] = -kp, -kd
        self.law, self.mode = law, Mode.POSITION
        self.targets = np.where(law.kp > 0, law.q, np.array(self.physics.qpos[0, 7:]))


class UnitreeRobot:
    """Simulated hardware on a bus."""

    def __init__(
        self, bus: Ends, hardware: ServoedHardware, clock: Clock, refusals: Refusals, referee: Referee | None = None
    ) -> None:
        self.bus, self.hardware, self.clock, self.refusals, self.referee = bus, hardware, clock, refusals, referee
        self.pace = Pace(clock, hardware)
        self.mode_name = "normal"
        """The robot's own mode that is active; empty after its release."""
        self.commands = 0
        """Commands that were obeyed."""
        self.remote = np.zeros(40, np.uint8)
        """What the remote says."""
        self.alter: Any = None
        """Called with each state before its checksum is written (tests and faults)."""
        self._sport: tuple[int, Array, Array] | None = None
        self._dead = self._stood = False
        self._lock = threading.Lock()
        self._state_out, self._pose_out = (
            bus.outbox(LOW_STATE, LOW_STATE_MESSAGE),
            bus.outbox(SPORT_STATE, SPORT_STATE_MESSAGE),
        )
        self._inbox = bus.inbox(LOW_COMMAND, LOW_CMD_MESSAGE, self._take)
        self._servers = [
            bus.server(
                "motion_switcher",
                {
                    Switcher.CHECK_MODE: self._check,
                    Switcher.SELECT_MODE: self._select,
                    Switcher.RELEASE_MODE: self._release,
                },
            ),
            bus.server(
                "sport",
                {
                    Sport.DAMP: lambda asked: self._move(None),
                    Sport.STAND_UP: lambda asked: self._move(hardware.robot.default_pose),
                    Sport.STAND_DOWN: lambda asked: self._move(hardware.robot.folded_pose),
                    Sport.RECOVERY_STAND: lambda asked: self._move(hardware.robot.default_pose),
                },
            ),
        ]
        self._inbox.start()
        self._slices = 0
        model = cast(Any, hardware.worlds).model  # MuJoCo has no types
        self._accelerometer = int(model.sensor("accelerometer").adr[0])
        self._feet = [int(model.sensor(f"foot_{leg.corner}").adr[0]) for leg in hardware.robot.legs]

    # --- its time -------------------------------------------------------------------------------------------------

    def run(self, ending: Ending, when_over: Callable[[], object] = lambda: None) -> None:
        """Until the end is asked for; where there is a referee, until the run is over and the robot is let go of.

        `when_over` is called once when the run is over.
        """
        over = NEVER
        while not ending.asked:
            self.step()
            if self.referee is None or not self.end:
                continue
            if over == NEVER:
                over = self.clock.now()
                _say(f"the run is over: {self.end}")
                when_over()
            if self.hardware.damping or self.clock.now() - over > LINGERS * NS:
                return

    @property
    def end(self) -> str:
        """Why a scored run is over; empty while it is not."""
        if self.referee is None:
            return ""
        late = not self._stood and self.hardware.time > STANDS_WITHIN * NS
        return self.referee.end or ("did not stand up" if late else "")

    def step(self) -> None:
        """One slice of real time."""
        self.pace.wait(SLICE)
        self.slice()

    def slice(self) -> None:
        """`SLICE` milliseconds of the robot, and what it says after them."""
        with self._lock:
            self._own_mode()
            self.hardware.advance(SLICE)
        self._slices += 1
        if not self._dead:
            self._state_out.send(self._state())
        if self._slices % POSE_EVERY == 0:
            self._pose()

    def close(self) -> None:
        """Leaves the bus."""
        self._inbox.close()
        for server in self._servers:
            server.close()

    def summary(self) -> dict[str, Any]:
        """JSON-ready: what happened at the robot's side."""
        hardware = self.hardware
        return {
            "commands": self.commands,
            "seconds": hardware.time / NS,
            "paused_s": self.pace.paused,
            "mode": self.mode_name,
            "damping": hardware.damping,
            "height": float(hardware.pose()[0][2]),
            "diverged": hardware.diverged,
            "calls": [call for server in self._servers for call in server.calls],
            "refusals": dict(self.refusals.counts),
        }

    # --- the robot's own mode -------------------------------------------------------------------------------------

    def _check(self, asked: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        return OK, {"form": "0", "name": self.mode_name}

    def select(self, name: str) -> None:
        """Somebody starts a mode of the robot's own."""
        self._select({"name": name})

    def _select(self, asked: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        with self._lock:
            self.mode_name = str(asked.get("name", "normal"))[:20]
            self._sport = None
            self.hardware.hold(self.hardware.physics.qpos[0, 7:])
        return OK, {}

    def _release(self, asked: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        with self._lock:
            self.mode_name, self._sport = "", None
            self.hardware.commanded = None
            self.hardware.damp()
        return OK, {}

    def _move(self, pose: Array | None) -> tuple[int, Mapping[str, Any]]:
        with self._lock:
            if not self.mode_name:
                return 7001, {}
            if pose is None:
                self._sport = None
                self.hardware.damp()
            else:
                self._sport = self.hardware.time, np.array(self.hardware.physics.qpos[0, 7:]), np.array(pose, float)
        return OK, {}

    def _own_mode(self) -> None:
        if self._sport is None:
            return
        began, start, end = self._sport
        share = min((self.hardware.time - began) / (LIES_DOWN * NS), 1.0)
        self.hardware.hold(start + share * (end - start))
        if share >= 1.0:
            self._sport = None

    # --- messages -------------------------------------------------------------------------------------------------

    def _take(self, received: Received) -> None:
        command, joints = received.message, self.hardware.robot.joints
        now = self.clock.now()
        if not command.whole:
            self.refusals.add(now, Refusal(Code.CHECKSUM, "a command with a wrong checksum"))
            return
        if int(command["bms_cmd.off"][0]) == POWER_OFF:
            self.refusals.add(now, Refusal(Code.OPERATOR, "a command switches the battery off"))
            with self._lock:
                self._dead = True
                zero = np.zeros(joints)
                self.hardware.ask(Law(zero, zero, zero, zero, zero))
            return
        servo = command["motor_cmd.mode"][:joints] == SERVO
        asked = {name: command[f"motor_cmd.{name}"][:joints].astype(float) for name in Law._fields}
        values = [np.where(servo, value, 0.0) for value in asked.values()]
        if not np.isfinite(values).all():
            self.refusals.add(now, Refusal(Code.NOT_FINITE, "a command with numbers that are none"))
            return
        law = Law(*values)
        law = law._replace(dq=np.where(law.kd > 0, law.dq, 0.0))
        with self._lock:
            if self.mode_name:
                said = f"a low-level command while the robot's own mode '{self.mode_name}' is active"
                self.refusals.add(now, Refusal(Code.SECOND_SENDER, said))
                return
            if not self._dead:
                self.hardware.ask(law)
                self.commands += 1

    def _state(self) -> Packed:
        hardware, joints = self.hardware, self.hardware.robot.joints
        seen = hardware.sense()
        state = Packed(LOW_STATE_MESSAGE)
        state["head"], state["level_flag"] = [0xFE, 0xEF], 0xFF
        self._inertial(state, seen)
        for name, values in (("q", seen["position"]), ("dq", seen["velocity"]), ("tau_est", seen["effort"])):
            state[f"motor_state.{name}"] = np.pad(values, (0, MOTORS - joints))
        state["motor_state.mode"] = np.pad(np.full(joints, SERVO), (0, MOTORS - joints))
        state["motor_state.temperature"] = np.pad(np.full(joints, ROOM), (0, MOTORS - joints))
        forces = np.clip(np.array(hardware.physics.sensordata[0, self._feet]), 0, 32767)
        state["foot_force"] = np.resize(forces, 4)
        state["tick"] = hardware.time // STEP_NS & 0xFFFFFFFF
        state["wireless_remote"] = self.remote
        if self.alter is not None:
            self.alter(state)
        state.seal()
        return state

    def _inertial(self, state: Packed, seen: Mapping[str, Any]) -> None:
        w, x, y, z = seen["orientation"]
        state["imu_state.quaternion"] = seen["orientation"]
        state["imu_state.gyroscope"] = seen["angular_velocity"]
        at = self._accelerometer
        state["imu_state.accelerometer"] = np.array(self.hardware.physics.sensordata[0, at : at + 3])
        state["imu_state.rpy"] = [
            np.arctan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y)),
            np.arcsin(np.clip(2 * (w * y - z * x), -1, 1)),
            np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z)),
        ]

    def _pose(self) -> None:
        hardware = self.hardware
        (position, orientation), (velocity, turning) = hardware.pose(), hardware.velocity()
        state = Packed(SPORT_STATE_MESSAGE)
        state["stamp.sec"], state["stamp.nanosec"] = hardware.time // NS, hardware.time % NS
        self._inertial(state, {"orientation": orientation, "angular_velocity": turning})
        state["position"], state["velocity"], state["yaw_speed"] = position, velocity, turning[2]
        state["body_height"] = position[2]
        self._pose_out.send(state)
        if self.commands and not self._stood:
            ground = float(hardware.course.height(*(position[i : i + 1] for i in (0, 1)))[0])
            self._stood = position[2] - ground > STANDS * hardware.robot.standing_height
        if self.referee is not None and self._stood:  # a robot that lies at the start has not fallen
            if hardware.touched_board:
                self.referee.touch_board()
            self.referee.pose(hardware.time, position, orientation)


def unitree_sim(options: UnitreeSimOptions) -> UnitreeSimReport:
    """A simulated robot on a bus until Ctrl-C, or to the end of a scored course run.

    Raises:
      InputError: a robot, course, seed, interface, domain or folder that cannot be, or another robot in the domain.
    """
    robot, course = find_robot(options.robot), by_name(options.course)
    check_report(options.out)
    with Ending().listening() as ending:
        return _simulated(robot, course, options, ending)


def _simulated(robot: Robot, course: Course, options: UnitreeSimOptions, ending: Ending) -> UnitreeSimReport:
    claim = Claim(options.domain, f"dds:{options.interface}:{LOW_STATE}")
    bus = Bus(options.domain, options.interface)
    hardware = ServoedHardware(
        robot, course, options.seed, randomize=options.randomize, torque_limit=options.torque_limit
    )
    clock = SteadyClock()
    referee = Referee(course, fall=robot.fall)
    simulated = UnitreeRobot(bus, hardware, clock, Refusals(_say), referee if options.score else None)
    _say(f"simulated {robot.name} on the course {options.course}, DDS domain {options.domain} on {options.interface}")

    def report() -> dict[str, Any]:
        run = referee.result() | ({"end": simulated.end} if simulated.end else {})
        said = {**simulated.summary(), "robot": robot.name, "course": options.course, "seed": options.seed,
                "run": run if options.score else None}  # fmt: skip
        if options.out is not None:
            write_report(Path(options.out), said)
        return said

    try:
        simulated.run(ending, report)  # who waits for the end of the run looks for the file
    finally:
        simulated.close()
        claim.close()
    return UnitreeSimReport.of(report())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
