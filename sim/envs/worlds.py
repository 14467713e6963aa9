"""Robots in evaluation physics: full-body collision, 2 ms steps, latency, sensor noise, pushes.

What happens in a world depends on its own seed alone, so a world run by itself equals the same world among others, bit
for bit. Time advances one physics step at a time: a touch of the board that lasts 2 ms is seen.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from sim import observation as obs
from sim.course.description import Course
from sim.course.judge import Falls, ending
from sim.course.scene import board_sensors
from sim.course.score import Scorer
from sim.envs.variation import Variation
from sim.errors import InputError
from sim.localization import Localization, PoseErrors
from sim.observation import Layout, Sensors
from sim.planar import place, to_body
from sim.robots.description import Robot, substeps_of
from sim.tasks.events import PUSH_EVERY, kick
from sim.tasks.randomization import (
    Draw,
    Ranges,
    SensorNoise,
    draw,
    model_fields,
    noise_numbers,
    noisy,
    nominal,
)

Ground = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Height of the ground, m, at arrays of x and y, m."""


def flat(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The plain floor, a `Ground`."""
    return np.zeros(np.shape(x))


START_JOINTS = 0.05
"""Half-width of the noise on the joint angles at the start, rad, when randomised."""
BLOCK = 256


class Chance(NamedTuple):
    """One control step's random numbers in [0, 1), one row a world."""

    sensors: np.ndarray
    """For the noise on readings, `[worlds, noise_numbers]`."""
    height: np.ndarray
    """For the common error of the terrain heights, `[worlds]`."""
    push: np.ndarray
    """For whether a push comes and from where, `[worlds, 2]`."""
    spare: np.ndarray
    """Drawn and not used, `[worlds]`."""

    @classmethod
    def width(cls, robot: Robot) -> int:
        """Numbers in a row."""
        return noise_numbers(robot) + 1 + 2 + 1

    @classmethod
    def split(cls, robot: Robot, row: np.ndarray) -> "Chance":
        """From rows of numbers `[worlds, width]`."""
        n = noise_numbers(robot)
        return cls(row[:, :n], row[:, n], row[:, n + 1 : n + 3], row[:, n + 3])


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
        pose_errors: PoseErrors = PoseErrors(),
        variation: Variation = Variation(),
    ) -> None:
        """`randomize` draws masses, friction, latency and the rest from `randomization.Ranges`; else `nominal`.

        `torque_limit` (N m) replaces the description's; what is drawn of motor strength still applies. `pose_errors`
        part what the robots know of their place from the truth; `variation` says which engine moves them and what is
        other in it. The scene `model` must be built with its `solver`.
        """
        if torque_limit is not None and not (np.isfinite(torque_limit) and torque_limit > 0):
            raise InputError(f"a torque limit must be a positive number of N m, got {torque_limit}")
        self.robot, self.model, self.noise, self.randomize = robot, model, noise, randomize
        self.seeds = np.asarray(seeds, np.int64)
        self.worlds = len(self.seeds)
        self.substeps = substeps_of(robot, float(model.opt.timestep))
        self.physics = variation.physics(model, self.worlds, threads)
        self.drawn: Draw = variation.drawn(draw(Ranges() if randomize else nominal(robot), robot, self.seeds))
        self.physics.randomize(model_fields(model, robot, self.drawn))
        self.torque_limit = variation.torque * (torque_limit or robot.peak_torque)
        """Peak torque of the strongest joint before randomisation, N m; others in proportion."""
        weaker = self.torque_limit / robot.peak_torque
        self.physics.motors(weaker * self.drawn.peak_torque(robot), self.drawn.no_load_speeds(robot))
        self.delay = self.drawn.delay(float(model.opt.timestep)) + round(variation.latency / float(model.opt.timestep))
        """From a command to its torques, physics steps `[worlds]`."""
        self.force = self.physics.force
        """Torque of each motor in the last physics step, N m `[worlds, J]`."""
        self.streams = [np.random.default_rng([0xE7A1, seed]) for seed in self.seeds.tolist()]
        self.numbers = np.zeros((self.worlds, BLOCK, Chance.width(robot)), np.float32)
        self.used = BLOCK
        self.targets = np.tile(robot.default_pose, (self.worlds, 1))
        self.earlier: list[np.ndarray] = []
        """Targets before these, the newest first, where a latency of more than a control period asks for them."""
        self.torque_peak = np.zeros((self.worlds, robot.joints))
        """Largest torque of each joint so far, N m."""
        self.target_jump = np.zeros(self.worlds)
        """Largest change of a joint target between two control steps, rad."""
        self.places: list[tuple[float, np.ndarray]] = []
        """Where the bases were in the last control period: s before its end, x and y (m) `[worlds, 2]`. Twice a period,
        every 10 ms, as the official scorer's own logs: a robot at 2 m/s makes 0.04 m in a control period and can slip
        between that scorer's two rules for a gate (nearer than 0.02 m, or a step of 0.04 m across)."""
        self.broken = np.zeros(self.worlds, bool)
        """Physics went wrong there; the world stands still since."""
        names = {model.sensor(i).name: int(model.sensor(i).adr[0]) for i in range(model.nsensor)}
        self.boards = [names[name] for name in board_sensors(len(names)) if name in names]
        self.touched_boards = np.zeros((self.worlds, len(self.boards)), bool)
        """Boards, in running order, that any part of the robot has touched, `[worlds, boards]`."""
        self.parts = [names[part] for part in robot.trunk_geoms if part in names]
        self.falls = Falls(robot.fall, self.worlds)
        self.steps = 0
        """Control steps since the robots were placed."""
        self.ground: Ground = flat
        """Height of the ground, m, and depth of the boards on it as `sim.observation.terrain_heights` has it."""
        self.pits: Ground | None = None
        self.pose_errors = pose_errors
        self.localization: Localization | None = None
        """What the robots are told of their place, where that is not the truth."""
        self.estimated: np.ndarray | None = None
        """Where the robots take themselves to be now, x, y, z (m) and heading (rad) `[worlds, 4]`, if they make more of
        what they are told than `known_pose`: terrain heights are seen from there."""
        self.chance = self._no_chance()
        """This control step's random numbers: those of `look_around`."""
        self.listener: Callable[[], object] | None = None
        """Called after every physics step: for what hears its sensors more often than once a control step."""

    def place(self, x: np.ndarray, y: np.ndarray, yaw: np.ndarray, ground: Ground, pits: Ground | None = None) -> None:
        """Stands the robots at `x`, `y` (m) with heading `yaw` (rad), all `[worlds]`, plus drawn start offsets, on a
        `ground` where boards look as `pits` says."""
        robot, drawn = self.robot, self.drawn
        self.ground, self.pits = ground, pits
        x, y, yaw = x + drawn.start_xy[:, 0], y + drawn.start_xy[:, 1], yaw + drawn.start_yaw
        joints = np.tile(robot.default_pose, (self.worlds, 1)).astype(np.float64)
        if self.randomize:
            u = np.stack([rng.random(robot.joints, np.float32) for rng in self.streams])
            joints += START_JOINTS * (2 * u - 1)
        corners = [(0.0, 0.0), *robot.footprint.corners]
        below = np.stack([ground(*place(x, y, yaw, *corner)) for corner in corners]).max(0)
        zero = np.zeros(self.worlds)
        base = np.stack([x, y, below + robot.standing_height + 0.01, np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], 1)
        still = np.zeros((self.worlds, self.model.nv))
        self.physics.reset(np.ones(self.worlds, bool), np.concatenate([base, joints], 1), still)
        self.targets = joints.astype(np.float32)
        self.earlier = []
        self.steps = 0
        self.falls.begin(0.0)
        self.localization = Localization(self.pose_errors, self.seeds, self._place()) if self.pose_errors else None
        self.estimated = None

    def _no_chance(self) -> Chance:
        return Chance.split(self.robot, np.full((self.worlds, Chance.width(self.robot)), 0.5, np.float32))

    def uniform(self) -> Chance:
        """This control step's random numbers; drawn in blocks."""
        if self.used == BLOCK:
            for i, rng in enumerate(self.streams):
                self.numbers[i] = rng.random(self.numbers.shape[1:], np.float32)
            self.used = 0
        self.used += 1
        return Chance.split(self.robot, self.numbers[:, self.used - 1])

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

    def _place(self) -> np.ndarray:
        """True x, y, z (m) and heading (rad), `[worlds, 4]`."""
        pose = self.pose
        return np.stack([pose[:, 0], pose[:, 1], self.height, pose[:, 2]], 1)

    def localize(self, time: float) -> None:
        """Tells the robots what they are to know of their place at `time`, s; called as time passes."""
        if self.localization is not None:
            self.localization.look(time, self._place())

    @property
    def known_pose(self) -> np.ndarray:
        """x, y (m) and heading (rad) as the robots know them, `[worlds, 3]`."""
        return self.pose if self.localization is None else self.localization.pose[:, [0, 1, 3]]

    @property
    def known_height(self) -> np.ndarray:
        """z of the base as the robots know it, m, `[worlds]`."""
        return self.height if self.localization is None else self.localization.pose[:, 2]

    @property
    def upright(self) -> np.ndarray:
        """Cosine of the angle between the robot's up and the world's, `[worlds]`."""
        return -obs.projected_gravity(np, np.array(self.physics.qpos[:, 3:7]))[:, 2]

    @property
    def velocity(self) -> np.ndarray:
        """True planar velocity in the heading frame (m/s) and yaw rate in the base frame (rad/s), `[worlds, 3]`."""
        v, yaw = self.physics.qvel, self.pose[:, 2]
        return np.stack([*to_body(v[:, 0], v[:, 1], yaw), v[:, 5]], 1)

    @property
    def trunk_contact(self) -> np.ndarray:
        """Whether the trunk touches anything, `[worlds]`."""
        return np.asarray((self.physics.sensordata[:, self.parts] > 0).any(1))

    def sense(self, u: np.ndarray) -> Sensors:
        """Noisy readings, from the random numbers `Chance.sensors`."""
        qpos, qvel = np.array(self.physics.qpos, np.float32), np.array(self.physics.qvel, np.float32)
        true = Sensors(qpos[:, 3:7], qvel[:, 3:6], qpos[:, 7:] + self.drawn.joint_bias, qvel[:, 6:])
        return noisy(np, self.noise, true, u)

    def ground_seen(self, layout: Layout) -> np.ndarray:
        """Policy's terrain heights `[worlds, n]` at the known pose, with this control step's common error."""
        pose, height, error = self.known_pose, self.known_height, (self.noise.height * (2 * self.chance.height - 1))
        if self.estimated is not None:
            pose, height = self.estimated[:, [0, 1, 3]], self.estimated[:, 2]
        heights = obs.terrain_heights(
            np, self.robot, layout, self.ground, pose[:, :2], pose[:, 2], height, error[:, None], self.pits
        )
        return heights.astype(np.float32)

    def fallen(self) -> np.ndarray:
        """Call once a control step: which robots have fallen, `[worlds]`; see `Falls`."""
        pose = self.pose
        clearance = self.height - self.ground(pose[:, 0], pose[:, 1])
        return self.falls.look(self.time, clearance, self.upright, self.trunk_contact)

    def ending(self, i: int, fallen: bool, scorer: Scorer, course: Course, limit: float) -> str:
        """Why the course run of robot `i` ends, as `CourseRun.end` says it; "" while it goes on.

        `fallen` is what the method of this name says of it, `limit` the time at which a run ends, s.
        """
        if self.broken[i]:
            return "diverged"
        x, y = self.physics.qpos[i, :2].tolist()
        return ending(scorer, course, x, y, fallen=fallen, overtime=self.time >= limit - 1e-9)

    # --- motion -------------------------------------------------------------------------------------------------------

    @property
    def time(self) -> float:
        """Simulated seconds since the robots were placed."""
        return self.steps * self.robot.control_period

    def step(self, drive: Callable[[Sensors, Callable[[Layout], np.ndarray]], np.ndarray]) -> None:
        """One control step.

        Args:
          drive: from readings and `heights` to joint targets, rad `[worlds, J]`; `heights(layout)` are the terrain
            heights that a policy of this layout sees, `[worlds, n]`.
        """
        self.apply(drive(self.look_around(), self.ground_seen))

    def look_around(self) -> Sensors:
        """Begins a control step: draws its random numbers and returns noisy readings."""
        self.chance = self.uniform()
        return self.sense(self.chance.sensors)

    def apply(self, targets: np.ndarray) -> None:
        """Ends a control step: one period towards joint `targets` `[worlds, J]` (rad), then a push if one is due."""
        if self.steps:
            jump = np.abs(targets - self.targets).max(1)
            self.target_jump = np.maximum(self.target_jump, np.where(self.broken, 0.0, jump))
        self.steps += 1
        physics, half = self.physics, self.substeps // 2
        self.places = []
        for k in range(self.substeps):
            self._drive(targets, k)
            self.look()
            left = self.substeps - 1 - k
            if left in (0, half):
                self.places.append((left / self.substeps * self.robot.control_period, np.array(physics.qpos[:, :2])))
        self.targets = targets
        stuck = self.diverging()
        self.broken |= stuck
        if stuck.any():
            rest = np.tile(self.model.qpos0, (self.worlds, 1))
            physics.reset(stuck, rest, np.zeros((self.worlds, self.model.nv)))
        self.kick(self.chance.push)
        self.localize(self.time)

    def _drive(self, targets: np.ndarray, k: int) -> None:
        """Physics step `k` of a control period in which `targets` were asked for: each world under what reached it."""
        if (self.delay <= self.substeps).all():
            self.physics.step(targets, 1, self.targets, np.maximum(self.delay - k, 0))
            return
        asked = np.stack([targets, self.targets, *self.earlier])
        ages = np.minimum(-(np.minimum(k - self.delay, 0) // self.substeps), len(asked) - 1)
        now = asked[ages, np.arange(self.worlds)]
        self.physics.step(now, 1, now, np.zeros(self.worlds, np.int64))
        if k == self.substeps - 1:
            whole = int(self.delay.max()) // self.substeps
            self.earlier = [self.targets, *self.earlier][:whole]

    def look(self) -> None:
        """Keeps what a physics step has shown: peak torques, and touches of the board; then calls `listener`."""
        np.maximum(self.torque_peak, np.abs(self.force), out=self.torque_peak)
        if self.boards:
            self.touched_boards |= self.physics.sensordata[:, self.boards] > 0
        if self.listener:
            self.listener()

    @property
    def touched(self) -> np.ndarray:
        """Robots of which any part has touched a board, bool `[worlds]`."""
        return np.asarray(self.touched_boards.any(1))

    def diverging(self) -> np.ndarray:
        """Robots whose state is not finite, `[worlds]`."""
        return np.asarray(~np.isfinite(np.concatenate([self.physics.qpos, self.physics.qvel], 1)).all(1))

    def kick(self, u: np.ndarray) -> None:
        """Pushes the robots for which `u` `[worlds, 2]` says so; called once a control period."""
        kicked = u[:, 0] < self.robot.control_period / PUSH_EVERY
        if kicked.any():
            self.physics.push(kick(np, kicked, u[:, 1], self.drawn.push))
