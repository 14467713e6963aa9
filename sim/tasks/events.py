"""What happens to a robot besides its policy: kicks, and episodes that begin as another skill hands a robot over."""

from dataclasses import dataclass

import numpy as np

from sim.arrays import Array, Namespace
from sim.planar import to_world
from sim.robots.description import Robot
from sim.tasks.draws import Drawn

THROWN_BASE = [(-0.5, 2.0), (-0.5, 0.5), (-0.8, 0.8), (0.0, 0.12), (-0.25, 0.25), (-0.5, 0.4)]
THROWN_BASE += [(-1.5, 1.5), (-3.0, 3.0), (-1.0, 1.0)]
"""Ranges of what `thrown` draws for the base: velocity ahead, aside, up (m/s), height (m), roll and pitch (rad), their
rates and the yaw rate (rad/s)."""
THROWN_LEG, THROWN_SPEED = (0.2, 0.6, 0.6), 4.0
"""Half-widths for each leg's abduction, hip and knee from the default pose (rad) and for the speed of its joints
(rad/s)."""


PUSH_EVERY = 4.0
"""Mean time between two pushes, s."""


@dataclass(frozen=True)
class Pushes:
    """Velocity kicks from anywhere."""

    every: float = PUSH_EVERY
    """Mean time between two, s."""
    speed: float = 0.3
    """Largest, m/s."""

    def draw(self, xp: Namespace, drawn: Drawn, period: float) -> Array:
        """This control step's kick, m/s `[..., 2]`; mostly none."""
        return kick(xp, drawn.push < period / self.every, drawn.push_angle, self.speed * drawn.push_size)


def kick(xp: Namespace, kicked: Array, turn: Array, speed: Array) -> Array:
    """Change of planar velocity, m/s `[..., 2]`: of size `speed` (m/s) towards `turn` (share of a full turn, [0, 1)),
    zero where not `kicked`; all `[...]`."""
    angle, size = 2 * np.pi * turn, speed * kicked.astype(xp.float32)
    return size[..., None] * xp.stack([xp.cos(angle), xp.sin(angle)], -1)


def thrown(
    xp: Namespace, robot: Robot, drawn: Drawn, qpos: Array, qvel: Array, yaw: Array, chosen: Array
) -> tuple[Array, Array, Array, Array]:
    """qpos, qvel, clock phase and a factor on the command where `chosen`, as a bound leaves the robot on a table.

    Base up to 2 m/s ahead, pitched by 0.5 rad, up to 0.12 m higher; joints 0.6 rad off; half of the commands small.
    """
    base = len(THROWN_BASE)
    spread = np.array(THROWN_LEG)[np.argsort(robot.leg_joints.ravel()) % len(THROWN_LEG)]
    speed = [(-THROWN_SPEED, THROWN_SPEED)] * len(robot.legs)
    ranges = np.array([*THROWN_BASE, *((-half, half) for half in spread), *speed], np.float32)
    wide = ranges[:, 0] + drawn.thrown_state * (ranges[:, 1] - ranges[:, 0])
    ahead, aside, up, higher, roll, pitch = (wide[..., i] for i in range(6))
    half = 0.5 * xp.stack([roll, pitch, yaw], -1)
    (cr, cp, cy), (sr, sp, sy) = (tuple(f(half[..., i]) for i in range(3)) for f in (xp.cos, xp.sin))
    turned = [
        cr * cp * cy + sr * sp * sy, sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]  # fmt: skip
    place = xp.concatenate([qpos[..., :2], (qpos[..., 2] + higher)[..., None], xp.stack(turned, -1)], -1)
    legs = xp.asarray(robot.default_pose) + wide[..., base : base + robot.joints]
    low, high = (xp.asarray(limit, dtype=xp.float32) for limit in (robot.joint_lower, robot.joint_upper))
    moved = xp.concatenate([place, xp.clip(legs, low, high)], -1)
    linear = xp.stack([*to_world(ahead, aside, yaw, xp), up], -1)
    speeds = xp.concatenate([linear, wide[..., 6:9], wide[..., base + robot.joints :][..., robot.leg_of_joint]], -1)
    yes = chosen[..., None]
    slower = xp.where(chosen & (drawn.thrown_slow < 0.5), drawn.thrown_slower, 1.0)
    phase = xp.where(chosen, drawn.thrown_phase, 0.0)
    return (
        xp.where(yes, moved, qpos).astype(xp.float32), xp.where(yes, speeds, qvel).astype(xp.float32), phase, slower
    )  # fmt: skip
