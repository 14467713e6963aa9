"""A simulated robot as hardware: joints with their own PD and watchdog, sensors, and nothing that knows of policies.

Evaluation physics of `sim.envs.worlds` with the same draws per seed, in steps of 1 ms. A joint command takes effect
after the drawn latency, counted from the stamp of the reading that it answers (or on arrival, if that is later).
Without commands the drives do of themselves what the robot's `Drives` says, whoever died. MuJoCo is imported where a
robot is made.
"""

from collections import deque
from typing import Any, cast

import numpy as np

from policies.estimation.accelerometer import Accelerometer
from policies.estimation.kinematics import facing
from policies.estimation.odometry import Motion, Odometry, odometry_of
from policies.navigation.map_match import MapMatch, OwnPlace
from robot.loop.clock import Clock
from robot.loop.plausibility import GAP
from robot.loop.transport import NEVER, NS, Array, Mode
from sim.course.description import Course
from sim.envs.variation import Variation
from sim.localization import PoseErrors, check_kinds
from sim.robots.description import Robot

STEP_NS = 1_000_000
"""One physics step, and the period of the joints' PD."""
SLICE = 4
"""Milliseconds between two readings of joints and IMU: 250 Hz."""
POSE_EVERY = 2
"""Slices between two poses: 125 Hz."""
POSE_RATE = NS / (SLICE * STEP_NS * POSE_EVERY)
"""Hz."""


STALL = round(GAP * NS)
"""A computer that is this late (ns) stops the world for as long, instead of hurrying it afterwards: so long that who
holds readings against each other begins anew, for stamps go on meanwhile and the robot does not."""


class Pace:
    """Moves simulated hardware with the computer's clock: its time 0 is `epoch` on the steady clock."""

    def __init__(self, clock: Clock, hardware: "SimulatedHardware") -> None:
        self.clock, self.hardware = clock, hardware
        self.epoch = clock.now()
        self.paused = 0.0
        """Seconds for which the computer was too late and the world stood still."""

    def wait(self, steps: int) -> None:
        """Until so many physics steps may be made."""
        due = self.epoch + self.hardware.time + steps * STEP_NS
        behind = self.clock.now() - due
        if behind > STALL:
            self.epoch += behind
            self.paused += behind / NS
        self.clock.sleep_until(due)


class SimulatedHardware:
    """One robot at the start of a course, held in its pose by its drives until the first command comes."""

    def __init__(
        self,
        robot: Robot,
        course: Course,
        seed: int = 0,
        *,
        randomize: bool = False,
        torque_limit: float | None = None,
        lying: bool = False,
        pose_errors: PoseErrors = PoseErrors(),
        own_odometry: bool = False,
        reckons: bool = True,
        variation: Variation = Variation(),
    ) -> None:
        """`lying` lets the drives damp from the start instead of holding the pose; `pose_errors` part what is told of
        the robot's place (`told_pose`) from the truth; with `own_odometry` that is what the robot reckons by its own
        senses and the map from where it is at the first reading. Without `reckons` that is left to another program: the
        robot `felt` nothing, and with `own_odometry` nothing at all tells its place. `variation` is what is other in
        MuJoCo's physics than in evaluation; its time step is 1 ms always.

        Raises:
          InputError: a torque limit or a seed that cannot be, or two kinds of poses.
        """
        check_kinds(pose_errors, own_odometry)
        from sim.course import scene
        from sim.envs.worlds import SimulatedRobots, check_seed
        from sim.tasks.randomization import noise_numbers

        check_seed(seed)
        model = cast(Any, scene).course_model(course, robot, variation.solver)  # MuJoCo has no types
        model.opt.timestep = STEP_NS / NS
        self.robot, self.course = robot, course
        self.worlds = SimulatedRobots(robot, model, [seed], randomize=randomize, torque_limit=torque_limit, threads=1,
                                      pose_errors=pose_errors.at_most(POSE_RATE), variation=variation)  # fmt: skip
        self.physics = self.worlds.physics
        x, y, yaw = (np.array([value]) for value in course.start)
        self.worlds.place(x, y, yaw, course.height)
        self.time = 0
        """Simulated, ns."""
        self.mode = Mode.DAMP if lying else Mode.POSITION
        self.targets = np.array(self.physics.qpos[0, 7:])
        self.commanded: int | None = None
        """When the last command came in, ns; None before the first."""
        self.wrong = ""
        """Why the last command was refused."""
        self._waiting: deque[tuple[int, Mode, Array]] = deque()
        self._odometry: Odometry | None = None
        if reckons:
            self._odometry = Odometry(robot) if own_odometry else odometry_of(robot) if pose_errors else None
        self.unseen = own_odometry
        """Whether nothing outside the robot tells its place."""
        self._own: OwnPlace | None = None
        if own_odometry and self._odometry:
            self._own = OwnPlace(self._odometry, MapMatch(course.height, robot.foot_radius))
        self._matched = NEVER
        """When what the robot reckons was last held against the map, ns."""
        imu = np.array(model.site(robot.imu_site).pos, float)
        self._accelerometer = Accelerometer(imu, seed)
        self._felt = np.zeros(3)
        """What it read last, m/s^2."""
        self._read_at = NEVER
        self._noise, self._numbers = np.random.default_rng([0x5E2, seed]), noise_numbers(robot)
        self._per_period = round(robot.control_period * NS) // STEP_NS
        self._steps = self._told = 0
        self._zero = np.zeros(1, np.int64)

    # --- what drives do -------------------------------------------------------------------------------------------

    def command(self, mode: Mode, targets: Array, answers: int | None = None) -> bool:
        """A command of the controller: joint targets (rad `[J]`) or damping; `answers` is the time (ns, of `time`) of
        the reading that it answers. Returns whether the drives took it."""
        targets = np.asarray(targets, float)
        if mode == Mode.POSITION and (targets.shape != (self.robot.joints,) or not np.isfinite(targets).all()):
            self.wrong = f"a command with targets {targets.tolist()[:3]}... of shape {targets.shape}"
            return False
        self.commanded = self.time
        if mode == Mode.NOTHING:
            return True
        latency = int(self.worlds.delay[0]) * STEP_NS
        answered = self.time if answers is None else min(answers, self.time)  # none answers what is still to come
        due = max(answered + latency, self.time)
        if self._waiting and due < self._waiting[-1][0]:
            due = self._waiting[-1][0]  # commands take effect in the order in which they came
        self._waiting.append((due, mode, targets))
        return True

    def hold(self, q: Array) -> None:
        """Before the first command: the drives hold these joint angles, rad `[J]`."""
        self.targets = np.array(q)

    def advance(self, steps: int) -> None:
        """Lets `steps` milliseconds pass."""
        for _ in range(steps):
            self._drive()
            target = self.targets if self.mode == Mode.POSITION else self.physics.qpos[0, 7:]
            row = np.array(target)[None]
            if not self.worlds.broken[0]:
                self.physics.step(row, 1, row, self._zero)
                self.worlds.look()
                self.worlds.broken |= self.worlds.diverging()
            self.time += STEP_NS
            self._steps += 1
            if self._steps % self._per_period == 0:
                self.worlds.kick(self.worlds.uniform().push)

    def _drive(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.time:
            _, self.mode, targets = self._waiting.popleft()
            if self.mode == Mode.POSITION:
                self.targets = targets
        drives = self.robot.drives
        if self.commanded is not None and self.time - self.commanded > drives.watchdog * NS:
            self.mode = Mode.DAMP if drives.then == "damp" else self.mode
            self._waiting.clear()

    # --- what sensors say -----------------------------------------------------------------------------------------

    @property
    def damping(self) -> bool:
        """Whether the drives only brake."""
        return self.mode == Mode.DAMP

    @property
    def touched_board(self) -> bool:
        """Whether any part of the robot has touched the board."""
        return bool(self.worlds.touched[0])

    @property
    def diverged(self) -> bool:
        """Whether physics went wrong; the robot stands still since."""
        return bool(self.worlds.broken[0])

    def sense(self) -> dict[str, Any]:
        """A noisy reading: `names`, `position`, `velocity`, `effort` `[J]`, `orientation` `[4]`,
        `angular_velocity` `[3]`, `linear_acceleration` (m/s^2 `[3]`, with gravity, the mean since the last reading)."""
        seen = self.worlds.sense(self._noise.random((1, self._numbers), np.float32))
        first, seconds = self._read_at == NEVER, (self.time - self._read_at) / NS
        new = self.time != self._read_at
        if new:
            qpos, qvel = np.array(self.physics.qpos[0], float), np.array(self.physics.qvel[0], float)
            self._felt, self._read_at = self._accelerometer.read(1.0 if first else seconds, qpos, qvel), self.time
        reading = {
            "names": self.robot.joint_names,
            "position": np.asarray(seen.joint_position[0], float),
            "velocity": np.asarray(seen.joint_velocity[0], float),
            "effort": np.array(self.worlds.force[0], float),
            "orientation": np.asarray(seen.orientation[0], float),
            "angular_velocity": np.asarray(seen.angular_velocity[0], float),
            "linear_acceleration": self._felt,
        }
        if new and self._odometry is not None:
            self._reckon(self._odometry, reading, None if first else seconds)
        return reading

    def _reckon(self, odometry: Odometry, reading: dict[str, Any], seconds: float | None) -> None:
        """Takes a reading, so long after the last, into what the robot believes of its place and motion."""
        if seconds is None:
            odometry.begin(*self.pose())
            return
        odometry.filter.step(
            seconds, reading["angular_velocity"], reading["linear_acceleration"], reading["position"],
            reading["velocity"], reading["effort"],
        )  # fmt: skip

    def pose(self) -> tuple[Array, Array]:
        """True position (m) `[3]` and orientation (w, x, y, z) `[4]` in the course frame."""
        qpos = np.array(self.physics.qpos[0], float)
        return qpos[:3], qpos[3:7]

    @property
    def localized(self) -> bool:
        """Whether what is told of the robot's place comes from a localisation that has errors."""
        return self.worlds.localization is not None

    @property
    def tells_truth(self) -> bool:
        """Whether what is told of the robot's place is the truth: then `pose` says it, and nothing else does."""
        return not self.localized and not self.unseen

    def felt(self, seconds: float) -> tuple[Motion | None, Array | None]:
        """How the robot has moved since the last call, `seconds` ago, by its own senses, and the feet that stand, m
        `[n, 3]`, as `Odometry` has them; None where it does not know."""
        if self._odometry is None or self._read_at == NEVER:
            return None, None
        return self._odometry.moved(seconds), self._odometry.feet

    def told_pose(self) -> tuple[Array, Array, int] | None:
        """The pose that is told now, with its errors: position (m) `[3]`, orientation `[4]` and when it was true (ns);
        None while there is nothing new. To be called every slice. Roll and pitch are the IMU's, which are not late."""
        localization = self.worlds.localization
        if self._own is not None and self._read_at != NEVER:
            due = self._steps % (SLICE * POSE_EVERY) == 0
            return (*self._own_pose(self._own), self.time) if due else None
        if self.unseen:
            return None
        if localization is None:
            return (*self.pose(), self.time)
        if self.time > self._told:
            self.worlds.localize(self.time / NS)
            self._told = self.time
        if not localization.arrived[0]:
            return None
        x, y, z, yaw = localization.pose[0].tolist()
        return np.array([x, y, z]), facing(self.pose()[1], yaw), round(float(localization.stamp[0]) * NS)

    def _own_pose(self, own: OwnPlace) -> tuple[Array, Array]:
        """Position (m) and orientation by the robot's own senses, held against the map once a control period."""
        if self._matched == NEVER or self.time - self._matched >= self.robot.control_period * NS:
            self._matched = self.time
            own.see()
        return own.place[:3], own.odometry.filter.orientation

    def velocity(self) -> tuple[Array, Array]:
        """True velocity (m/s) and angular velocity (rad/s) in the base frame, `[3]` each."""
        qvel = np.array(self.physics.qvel[0], float)
        w, x, y, z = self.pose()[1]
        turn = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return turn.T @ qvel[:3], qvel[3:6]

    def told_velocity(self) -> tuple[Array, Array]:
        """As `velocity`, as the robot believes it where it goes by its own senses."""
        speed, turning = self.velocity()
        return (speed, turning) if self._own is None else (self._own.odometry.filter.base_velocity, turning)

    def overturn(self) -> None:
        """Lays the robot on its back, for tests of what follows."""
        qpos = np.array(self.physics.qpos)
        qpos[0, 2] += 0.15
        qpos[0, 3:7] = [0.0, 1.0, 0.0, 0.0]
        self.physics.reset(np.ones(1, bool), qpos, np.zeros((1, 6 + self.robot.joints)))
