"""Robots in evaluation physics: full-body collision, 2 ms steps, latency, sensor noise, pushes.

What happens in a world depends on its own seed alone, so a world run by itself equals the same world among others, bit
for bit. Time advances one physics step at a time: a touch of the board that lasts 2 ms is seen.
"""

from collections.abc import Callable, Sequence

import mujoco
import numpy as np

from sim import observation as obs
from sim.course.description import Course
from sim.course.score import DOWN_CLEARANCE, DOWN_SECONDS, DOWN_UPRIGHT, Scorer, outside
from sim.errors import InputError
from sim.observation import Layout, Sensors
from sim.physics.cpu import CpuPhysics
from sim.robots.description import Robot, substeps_of
from sim.tasks.randomization import NOMINAL, Draw, Ranges, SensorNoise, draw, model_fields, noisy

Ground = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Height of the ground, m, at arrays of x and y, m."""
PUSH_EVERY = 4.0
"""Mean time between two pushes, s."""
START_JOINTS = 0.05
"""Half-width of the noise on the joint angles at the start, rad, when randomised."""
BLOCK = 256
WIDTH = 34


def world_seeds(seed: int, count: int) -> np.ndarray:
    """The seeds of `count` worlds, int64 `[count]`; the i-th depends on `seed` and i only."""
    if count < 1:
        raise InputError(f"at least 1 run is needed, got {count}")
    check_seed(seed)
    streams = [np.random.default_rng([0x5EED, seed, i]) for i in range(count)]
    return np.array([rng.integers(0, 2**31) for rng in streams], np.int64)


def check_seed(seed: int) -> None:
    """Raises `InputError` unless `seed` can seed a random stream."""
    if not 0 <= seed < 2**63:
        raise InputError(f"a seed must be a whole number from 0 to {2**63 - 1}, got {seed}")


class SimulatedRobots:
    """`len(seeds)` robots, each alone in its own copy of a scene."""

    def __init__(
        self,
        robot: Robot,
        model: mujoco.MjModel,
        seeds: Sequence[int] | np.ndarray,
        *,
        randomize: bool = False,
        noise: SensorNoise = SensorNoise(),
        torque_limit: float | None = None,
        threads: int = 0,
    ) -> None:
        """`randomize` draws masses, friction, latency and the rest from `randomization.Ranges`, else `NOMINAL`.

        `torque_limit` (N m) replaces the description's; what is drawn of motor strength still applies.
        """
        if torque_limit is not None and not (np.isfinite(torque_limit) and torque_limit > 0):
            raise InputError(f"a torque limit must be a positive number of N m, got {torque_limit}")
        self.robot, self.model, self.noise, self.randomize = robot, model, noise, randomize
        self.seeds = np.asarray(seeds, np.int64)
        self.worlds = len(self.seeds)
        self.substeps = substeps_of(robot, float(model.opt.timestep))
        self.physics = CpuPhysics(model, self.worlds, threads)
        self.drawn: Draw = draw(Ranges() if randomize else NOMINAL, self.seeds)
        self.physics.randomize(model_fields(model, robot, self.drawn))
        self.torque_limit = torque_limit or robot.torque_limit
        """Peak joint torque before randomisation, N m."""
        weaker = self.torque_limit / robot.torque_limit
        self.physics.motors(weaker * self.drawn.peak_torque(robot), self.drawn.no_load_speed)
        self.delay = self.drawn.delay(float(model.opt.timestep))
        self.force = self.physics.batch.bind("actuator_force")
        self.streams = [np.random.default_rng([0xE7A1, seed]) for seed in self.seeds.tolist()]
        self.numbers = np.zeros((self.worlds, BLOCK, WIDTH), np.float32)
        self.used = BLOCK
        self.targets = np.tile(robot.default_pose, (self.worlds, 1))
        self.torque_peak = np.zeros((self.worlds, 12))
        """Largest torque of each joint so far, N m."""
        self.target_jump = np.zeros(self.worlds)
        """Largest change of a joint target between two control steps, rad."""
        self.touched = np.zeros(self.worlds, bool)
        """The board was touched by any part of the robot."""
        self.places: list[tuple[float, np.ndarray]] = []
        """Where the bases were in the last control period: s before its end, x and y (m) `[worlds, 2]`. Twice a period,
        every 10 ms, as the official scorer's own logs: a robot at 2 m/s makes 0.04 m in a control period and can slip
        between that scorer's two rules for a gate (nearer than 0.02 m, or a step of 0.04 m across)."""
        self.broken = np.zeros(self.worlds, bool)
        """Physics went wrong there; the world stands still since."""
        names = {model.sensor(i).name: int(model.sensor(i).adr[0]) for i in range(model.nsensor)}
        self.board = names.get("board")
        self.parts = [names[part] for part in ("trunk", "head") if part in names]
        self.down = np.zeros(self.worlds, np.int64)
        """For how many control steps each robot has been down; see `watch`."""
        self._begun = False

    def place(self, x: np.ndarray, y: np.ndarray, yaw: np.ndarray, ground: Ground) -> None:
        """Stands the robots at `x`, `y` (m) with heading `yaw` (rad), all `[worlds]`, plus drawn start offsets."""
        robot, drawn = self.robot, self.drawn
        x, y, yaw = x + drawn.start_xy[:, 0], y + drawn.start_xy[:, 1], yaw + drawn.start_yaw
        joints = np.tile(robot.default_pose, (self.worlds, 1)).astype(np.float64)
        if self.randomize:
            u = np.stack([rng.random(12, np.float32) for rng in self.streams])
            joints += START_JOINTS * (2 * u - 1)
        corners = [(0.0, 0.0), (0.2, 0.15), (0.2, -0.15), (-0.2, 0.15), (-0.2, -0.15)]
        c, s = np.cos(yaw), np.sin(yaw)
        below = np.stack([ground(x + c * dx - s * dy, y + s * dx + c * dy) for dx, dy in corners]).max(0)
        zero = np.zeros(self.worlds)
        base = np.stack([x, y, below + robot.standing_height + 0.01, np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], 1)
        self.physics.reset(np.ones(self.worlds, bool), np.concatenate([base, joints], 1), np.zeros((self.worlds, 18)))
        self.targets = joints.astype(np.float32)
        self.down[:] = 0
        self._begun = False

    def uniform(self) -> np.ndarray:
        """This control step's random numbers in [0, 1), `[worlds, WIDTH]`; drawn in blocks."""
        if self.used == BLOCK:
            for i, rng in enumerate(self.streams):
                self.numbers[i] = rng.random((BLOCK, WIDTH), np.float32)
            self.used = 0
        self.used += 1
        return self.numbers[:, self.used - 1]

    # --- what can be measured ----------------------------------------------------------------------------------------

    @property
    def pose(self) -> np.ndarray:
        """True x, y (m) and heading (rad), `[worlds, 3]`."""
        qpos = self.physics.qpos
        return np.stack([qpos[:, 0], qpos[:, 1], obs.yaw_of(np, np.array(qpos[:, 3:7]))], 1)

    @property
    def height(self) -> np.ndarray:
        """True z of the base, m, `[worlds]`."""
        return np.array(self.physics.qpos[:, 2])

    @property
    def upright(self) -> np.ndarray:
        """Cosine of the angle between the robot's up and the world's, `[worlds]`."""
        return -obs.projected_gravity(np, np.array(self.physics.qpos[:, 3:7]))[:, 2]

    @property
    def velocity(self) -> np.ndarray:
        """True planar velocity in the heading frame (m/s) and yaw rate in the base frame (rad/s), `[worlds, 3]`."""
        v, yaw = self.physics.qvel, self.pose[:, 2]
        c, s = np.cos(yaw), np.sin(yaw)
        return np.stack([c * v[:, 0] + s * v[:, 1], c * v[:, 1] - s * v[:, 0], v[:, 5]], 1)

    @property
    def trunk_contact(self) -> np.ndarray:
        """Whether trunk or head touches anything, `[worlds]`."""
        return np.asarray((self.physics.sensordata[:, self.parts] > 0).any(1))

    def sense(self, u: np.ndarray) -> Sensors:
        """Noisy readings, from 30 random numbers a world `[worlds, 30]`."""
        qpos, qvel = np.array(self.physics.qpos, np.float32), np.array(self.physics.qvel, np.float32)
        true = Sensors(qpos[:, 3:7], qvel[:, 3:6], qpos[:, 7:] + self.drawn.joint_bias, qvel[:, 6:])
        return noisy(np, self.noise, true, u)

    def ground_seen(self, layout: Layout, ground: Ground, u: np.ndarray, pits: Ground | None = None) -> np.ndarray:
        """Policy's terrain heights `[worlds, n]` at the true pose, with a common error from `u` `[worlds]`.

        `pits` as in `sim.observation.terrain_heights`.
        """
        pose, error = self.pose, (self.noise.height * (2 * u - 1))[:, None]
        heights = obs.terrain_heights(np, self.robot, layout, ground, pose[:, :2], pose[:, 2], self.height, error, pits)
        return heights.astype(np.float32)

    def watch(self, ground: Ground) -> np.ndarray:
        """Call once a control step: which robots have been down for longer than `DOWN_SECONDS`, `[worlds]`."""
        pose = self.pose
        clearance = self.height - ground(pose[:, 0], pose[:, 1])
        down = (self.upright < DOWN_UPRIGHT) | (clearance < DOWN_CLEARANCE)
        down |= self.trunk_contact & (clearance < 1.5 * DOWN_CLEARANCE)
        self.down = np.where(down, self.down + 1, 0)
        return self.down * self.robot.control_period > DOWN_SECONDS + 1e-9

    def ending(self, i: int, fallen: bool, scorer: Scorer, course: Course, time: float, limit: float) -> str:
        """Why the course run of robot `i` ends at `time` (s), as `CourseRun.end` says it; "" while it goes on.

        `fallen` is what `watch` says of it, `limit` the time at which a run ends, s.
        """
        x, y = self.physics.qpos[i, :2].tolist()
        if self.broken[i]:
            return "diverged"
        if scorer.over:
            return "held the end table" if scorer.result().finished else "left the end table"
        if fallen:
            return "fell"
        if outside(course, x, y):
            return "left the course"
        return "time limit" if time >= limit - 1e-9 else ""

    # --- motion -------------------------------------------------------------------------------------------------------

    def apply(self, targets: np.ndarray, u: np.ndarray) -> None:
        """One control period towards joint `targets` `[worlds, 12]` (rad), then a push if `u` `[worlds, 2]` says so."""
        if self._begun:
            jump = np.abs(targets - self.targets).max(1)
            self.target_jump = np.maximum(self.target_jump, np.where(self.broken, 0.0, jump))
        self._begun = True
        physics, half = self.physics, self.substeps // 2
        self.places = []
        for k in range(self.substeps):
            physics.step(targets, 1, self.targets, np.maximum(self.delay - k, 0))
            self.look()
            left = self.substeps - 1 - k
            if left in (0, half):
                self.places.append((left / self.substeps * self.robot.control_period, np.array(physics.qpos[:, :2])))
        self.targets = targets
        stuck = self.diverging()
        self.broken |= stuck
        if stuck.any():
            rest = np.tile(self.model.qpos0, (self.worlds, 1))
            physics.reset(stuck, rest, np.zeros((self.worlds, 18)))
        self.kick(u)

    def look(self) -> None:
        """Keeps what a physics step has shown: peak torques, and touches of the board."""
        np.maximum(self.torque_peak, np.abs(self.force), out=self.torque_peak)
        if self.board is not None:
            self.touched |= self.physics.sensordata[:, self.board] > 0

    def diverging(self) -> np.ndarray:
        """Robots whose state is not finite, `[worlds]`."""
        return np.asarray(~np.isfinite(np.concatenate([self.physics.qpos, self.physics.qvel], 1)).all(1))

    def kick(self, u: np.ndarray) -> None:
        """Pushes the robots for which `u` `[worlds, 2]` says so; called once a control period."""
        kicked = u[:, 0] < self.robot.control_period / PUSH_EVERY
        if kicked.any():
            angle, size = 2 * np.pi * u[:, 1], self.drawn.push * kicked
            self.physics.push(size[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1))
