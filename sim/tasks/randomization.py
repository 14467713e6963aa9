"""Domain randomisation: the ranges, and one reproducible draw per world.

Evaluation with `--randomize` and training draw from the same ranges; a world's draw depends only on its own seed, so
any run can be repeated alone.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import mujoco
import numpy as np

from sim.arrays import Array, Namespace
from sim.course.scene import deck_geoms, foot_geoms
from sim.errors import InputError
from sim.observation import Sensors
from sim.robots.description import Robot

Interval = tuple[float, float]


@dataclass(frozen=True)
class Ranges:
    """Uniform ranges; (a, a) keeps a value fixed. The defaults are what `--randomize` means; None stands for what the
    robot's own `Spread` says (`of`)."""

    friction: Interval = (0.5, 1.2)
    """Sliding friction of the feet."""
    trunk_mass: Interval | None = None
    """Added to the trunk, kg."""
    trunk_inertia: Interval = (0.8, 1.2)
    """Factor on the trunk's inertia."""
    trunk_com: Interval = (-0.02, 0.02)
    """Shift of the trunk's centre of mass along x, y and z each, m."""
    leg_mass: Interval = (0.95, 1.05)
    """Factor on mass and inertia of every leg link."""
    gain: Interval = (0.9, 1.1)
    """Factor on both servo gains, per joint."""
    strength: Interval = (0.9, 1.0)
    """Factor on the torque limit, one per robot."""
    joint_friction: Interval | None = None
    """Dry friction of the joint that has most, N m; others in proportion to the description's."""
    joint_damping: Interval | None = None
    """Viscous damping of the joint that has most, N m s/rad; others in proportion."""
    joint_bias: Interval = (-0.015, 0.015)
    """Encoder offset per joint, rad."""
    latency: Interval = (0.008, 0.02)
    """From sensing to torque, s; at most one control period."""
    push: Interval = (0.0, 0.3)
    """Size of the velocity kicks, m/s, about every 4 s."""
    start_xy: Interval = (-0.1, 0.1)
    """Offset of the start position, m."""
    start_yaw: Interval = (-0.3, 0.3)
    """Offset of the start heading, rad."""
    deck_friction: Interval = (0.75, 1.125)
    """Sliding friction of feet on an A-frame's deck. Assumed: at 30 degrees less than 0.58 slides whatever the robot
    does, and competition decks are covered for grip; the range is what legged_gym's 0.5 to 1.25 gives on its ground of
    friction 1, the mean of both."""
    no_load_speed: Interval | None = None
    """Speed of the fastest joint at which no driving torque is left, rad/s, one per robot (`sim.physics.motor`); others
    in proportion."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) is None:
                continue
            low, high = getattr(self, field.name)
            if not (np.isfinite([low, high]).all() and low <= high):
                raise InputError(f"randomisation range '{field.name}' must be (low, high), got {(low, high)}")

    def of(self, robot: Robot) -> "Ranges":
        """These ranges with the robot's own where they leave it to the robot."""
        own = {f.name: getattr(robot.spread, f.name) for f in fields(robot.spread) if getattr(self, f.name) is None}
        return replace(self, **own)


def nominal(robot: Robot) -> Ranges:
    """The robot as described, with a full control step of latency: evaluation without `--randomize`."""

    def fixed(value: float) -> Interval:
        return value, value

    return Ranges(
        friction=fixed(0.8),
        trunk_mass=fixed(0.0),
        trunk_inertia=fixed(1.0),
        trunk_com=fixed(0.0),
        leg_mass=fixed(1.0),
        gain=fixed(1.0),
        strength=fixed(1.0),
        no_load_speed=fixed(float(robot.no_load_speed.max())),
        joint_friction=fixed(float(robot.joint_friction.max())),
        joint_damping=fixed(float(robot.joint_damping.max())),
        joint_bias=fixed(0.0),
        latency=fixed(robot.control_period),
        push=fixed(0.0),
        start_xy=fixed(0.0),
        start_yaw=fixed(0.0),
        deck_friction=fixed(0.9),
    )


@dataclass(frozen=True)
class SensorNoise:
    """Half-widths of uniform noise on each reading."""

    orientation: float = 0.03
    """rad about each base axis."""
    angular_velocity: float = 0.15
    """rad/s."""
    joint_position: float = 0.01
    """rad."""
    joint_velocity: float = 0.6
    """rad/s."""
    height: float = 0.01
    """m, terrain heights."""


def noisy(xp: Namespace, noise: SensorNoise, true: Sensors, u: Array) -> Sensors:
    """Readings with noise from uniform numbers `u` `[..., noise_numbers]` in [0, 1)."""
    e = 2 * u - 1
    dx, dy, dz = (0.5 * noise.orientation * e[..., i] for i in range(3))
    w, x, y, z = (true.orientation[..., i] for i in range(4))
    turned = xp.stack(
        [w - x * dx - y * dy - z * dz, x + w * dx + y * dz - z * dy, y + w * dy + z * dx - x * dz,
         z + w * dz + x * dy - y * dx], -1,
    )  # fmt: skip
    joints = true.joint_position.shape[-1]
    return Sensors(
        turned / xp.sqrt((turned**2).sum(-1, keepdims=True)),
        true.angular_velocity + noise.angular_velocity * e[..., 3:6],
        true.joint_position + noise.joint_position * e[..., 6 : 6 + joints],
        true.joint_velocity + noise.joint_velocity * e[..., 6 + joints :],
    )


def noise_numbers(robot: Robot) -> int:
    """How many uniform numbers `noisy` takes: attitude, angular velocity, joint angles and speeds."""
    return 3 + 3 + 2 * robot.joints


@dataclass(frozen=True, eq=False)
class Draw:
    """Randomised parameters of `N` worlds; float32 arrays with `N` first."""

    friction: np.ndarray
    trunk_mass: np.ndarray
    trunk_inertia: np.ndarray
    trunk_com: np.ndarray
    leg_mass: np.ndarray
    gain: np.ndarray
    strength: np.ndarray
    no_load_speed: np.ndarray
    joint_friction: np.ndarray
    joint_damping: np.ndarray
    joint_bias: np.ndarray
    latency: np.ndarray
    push: np.ndarray
    start_xy: np.ndarray
    start_yaw: np.ndarray
    deck_friction: np.ndarray

    def delay(self, timestep: float) -> np.ndarray:
        """Latency in physics substeps, int `[N]`."""
        return np.round(self.latency / timestep).astype(np.int64)

    def peak_torque(self, robot: Robot) -> np.ndarray:
        """Peak torque of each world's joints at low speed, N m `[N, J]`."""
        return robot.torque_limit.astype(np.float32) * self.strength[:, None]

    def no_load_speeds(self, robot: Robot) -> np.ndarray:
        """Speed of each world's joints at which no driving torque is left, rad/s `[N, J]`."""
        return _share(robot.no_load_speed).astype(np.float32) * self.no_load_speed[:, None]

    def summary(self, world: int) -> dict[str, Any]:
        """One world's values, JSON-ready, for reports."""
        return {f.name: np.round(getattr(self, f.name)[world], 4).tolist() for f in fields(self)}


def _share(values: np.ndarray) -> np.ndarray:
    """What each joint has of what the joint with most has, `[J]`."""
    return values / values.max() if values.max() > 0 else np.ones_like(values)


def draw(ranges: Ranges, robot: Robot, seeds: np.ndarray) -> Draw:
    """One draw per seed; equal seeds give equal worlds whatever else is drawn beside them."""
    ranges, joints = ranges.of(robot), robot.joints
    widths = {"trunk_com": 3, "gain": joints, "joint_bias": joints, "joint_friction": joints, "start_xy": 2}
    columns: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(ranges)}
    for seed in np.asarray(seeds, np.uint64).tolist():
        rng = np.random.default_rng([0xBA4C, seed])
        for name, values in columns.items():
            low, high = getattr(ranges, name)
            values.append(np.asarray(rng.uniform(low, high, widths.get(name)), np.float32))
    return Draw(**{name: np.stack(values) for name, values in columns.items()})


def model_fields(model: mujoco.MjModel, robot: Robot, drawn: Draw) -> dict[str, np.ndarray]:
    """Per-world values of the model fields that a draw touches, for `Physics.randomize`."""
    n = len(drawn.friction)
    column = (slice(None), None)

    def copies(name: str) -> np.ndarray:
        return np.repeat(np.array(getattr(model, name))[None], n, 0)

    trunk = model.body(robot.base_body).id
    legs = np.setdiff1d(np.flatnonzero(model.body_rootid == trunk), [trunk])
    joints = np.array([model.joint(name).dofadr[0] for name in robot.joint_names])
    out = {name: copies(name) for name in ("geom_friction", "body_mass", "body_inertia", "body_ipos")}
    out |= {name: copies(name) for name in ("dof_frictionloss", "dof_damping")}
    out |= {name: copies(name) for name in ("actuator_gainprm", "actuator_biasprm", "actuator_forcerange")}
    out["geom_friction"][:, foot_geoms(model, robot), 0] = drawn.friction[column]
    out["geom_friction"][:, deck_geoms(model), 0] = drawn.deck_friction[column]
    out["body_mass"][:, trunk] += drawn.trunk_mass
    scale = (out["body_mass"][:, trunk] / model.body_mass[trunk] * drawn.trunk_inertia)[column]
    out["body_inertia"][:, trunk] *= scale
    out["body_ipos"][:, trunk] += drawn.trunk_com
    out["body_mass"][:, legs] *= drawn.leg_mass[column]
    out["body_inertia"][:, legs] *= drawn.leg_mass[:, None, None]
    out["dof_frictionloss"][:, joints] = drawn.joint_friction * _share(robot.joint_friction)
    out["dof_damping"][:, joints] = drawn.joint_damping[column] * _share(robot.joint_damping)
    kp, kd = robot.kp.astype(np.float32), robot.kd.astype(np.float32)
    out["actuator_gainprm"][:, :, 0] = kp * drawn.gain
    out["actuator_biasprm"][:, :, 1] = -kp * drawn.gain
    out["actuator_biasprm"][:, :, 2] = -kd * drawn.gain
    limit = drawn.peak_torque(robot)
    out["actuator_forcerange"][:, :, 0], out["actuator_forcerange"][:, :, 1] = -limit, limit
    return out
