"""What every physics engine offers: many worlds of one scene, reset, step, read, per-world model fields."""

from typing import NamedTuple, Protocol

import numpy as np

from sim.arrays import Array


class PhysicsReading(NamedTuple):
    """State of all worlds after a step. Arrays of numpy or jax, `worlds` first (or no leading dimension in MJX)."""

    qpos: Array
    """Base position (m), base quaternion (w, x, y, z), joint angles (rad), `[..., 7 + J]`."""
    qvel: Array
    """Base velocity in the world (m/s), angular velocity in the base frame (rad/s), joint speeds, `[..., 6 + J]`."""
    sensors: Array
    """MuJoCo's `sensordata`, `[..., nsensordata]`, one substep old."""
    contact: Array = None
    """Of these the touch forces of the feet, N, `[..., legs]` (`sim.course.scene.foot_forces`), where asked for."""
    poles: Array = None
    """Whether the robot touches one of the poles that go with it, 0 or 1 `[...]`, where there are any."""


class Physics(Protocol):
    """Many independent worlds of one compiled scene."""

    worlds: int
    timestep: float

    def reset(self, mask: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Puts the worlds where `mask` `[worlds]` is true into the given state (rows of all worlds are given)."""
        ...

    def step(self, targets: np.ndarray, substeps: int, previous: np.ndarray, delay: np.ndarray) -> None:
        """Advances every world by `substeps` physics steps.

        Args:
          targets: joint targets, rad, `[worlds, J]`.
          previous: the targets of the control step before.
          delay: substeps `[worlds]` (int) for which `previous` still drives the joints.
        """
        ...

    def read(self) -> PhysicsReading:
        """The present state of all worlds, as float32 copies."""
        ...

    def randomize(self, fields: dict[str, np.ndarray]) -> None:
        """Gives model fields per-world values, `[worlds, ...]` each, in the model's own shapes."""
        ...

    def motors(self, peak: np.ndarray, no_load_speed: np.ndarray) -> None:
        """Limits torques as motors do (`motor`): `peak` N m and `no_load_speed` rad/s, both `[worlds, J]`."""
        ...


class WholePhysics(Physics, Protocol):
    """An engine in which whole runs are judged: its state is read, and the robots pushed, as time passes."""

    @property
    def qpos(self) -> np.ndarray:
        """As `PhysicsReading.qpos`, `[worlds, 7 + J]`."""
        ...

    @property
    def qvel(self) -> np.ndarray:
        """As `PhysicsReading.qvel`, `[worlds, 6 + J]`."""
        ...

    @property
    def sensordata(self) -> np.ndarray:
        """As `PhysicsReading.sensors`."""
        ...

    @property
    def force(self) -> np.ndarray:
        """Torque of every motor in the last physics step, N m `[worlds, J]`."""
        ...

    def rest(self, worlds: np.ndarray) -> None:
        """Worlds `[worlds]` (bool) at which nobody looks any more: an engine may let them stand still."""
        ...

    def push(self, velocity: np.ndarray) -> None:
        """Adds `velocity` `[worlds, 2]` (m/s, world frame) to the base: a kick."""
        ...
