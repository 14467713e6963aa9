"""Reward terms: small named functions over arrays, and the tables of weights that make a task of them.

Every term takes the array namespace and a `Motion` and returns one value per world, `[...]`. Weights carry the sign.
The sum is clipped at zero and multiplied by the control period, as in the public Barkour joystick task (google/brax).
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from sim.errors import InputError


class Motion(NamedTuple):
    """What one control step looked like. Velocities m/s and rad/s, heading frame: x ahead, y left, z up."""

    velocity: Any
    """Base velocity in the heading frame, `[..., 3]`."""
    angular_velocity: Any
    """Base frame, `[..., 3]`."""
    gravity: Any
    """Projected gravity, base frame, `[..., 3]`."""
    command: Any
    """`[..., 3]`."""
    moving: Any
    """1.0 where the command asks for motion, `[...]`."""
    joint_offset: Any
    """Joint angles from the default pose, rad, `[..., J]`."""
    abduction: Any
    """Those of the abduction joints, `[..., legs]`."""
    joint_velocity: Any
    joint_acceleration: Any
    torque: Any
    """PD torque estimate, N m, `[..., J]`."""
    action: Any
    last_action: Any
    older_action: Any
    contact: Any
    """1.0 per foot on the ground, `[..., legs]`."""
    swing: Any
    """Scheduled swing of each leg, 0 to 1, `[..., legs]`."""
    foot_speed: Any
    """Horizontal speed of each foot, m/s, `[..., legs]`."""
    clearance: Any
    """Base height over the ground beneath it, m, `[...]`."""
    fallen: Any
    """1.0 where the robot has fallen or is otherwise past helping, `[...]`."""
    low: Any = 0.0
    """A clearance under which the base is too low, m."""
    touch: Any = 0.0
    """How much the feet touch a board, `[...]`; see `sim.tasks.jump`."""
    cleared: Any = 0.0
    """1.0 in the step in which a board is behind the last foot and was not touched, `[...]`."""


Term = Callable[[Any, Motion], Any]


def two_scales(xp: Any, squared_error: Any) -> Any:
    """Half exp(-e2/0.25) + half exp(-e2): sharp near the goal, and still a gradient far from it."""
    return 0.5 * xp.exp(-squared_error / 0.25) + 0.5 * xp.exp(-squared_error)


def linear_tracking(xp: Any, m: Motion) -> Any:
    """1 when the planar velocity equals the command."""
    return two_scales(xp, ((m.velocity[..., :2] - m.command[..., :2]) ** 2).sum(-1))


def linear_precision(xp: Any, m: Motion) -> Any:
    """A narrow peak that pays for the last centimetres per second."""
    return xp.exp(-((m.velocity[..., :2] - m.command[..., :2]) ** 2).sum(-1) / 0.02)


def yaw_tracking(xp: Any, m: Motion) -> Any:
    """1 when the yaw rate equals the command."""
    return two_scales(xp, (m.angular_velocity[..., 2] - m.command[..., 2]) ** 2)


def yaw_precision(xp: Any, m: Motion) -> Any:
    """A narrow peak that pays for the last tenth of a radian per second."""
    return xp.exp(-((m.angular_velocity[..., 2] - m.command[..., 2]) ** 2) / 0.04)


def vertical_velocity(xp: Any, m: Motion) -> Any:
    """Squared vertical speed."""
    return m.velocity[..., 2] ** 2


def tilt_rate(xp: Any, m: Motion) -> Any:
    """Squared roll and pitch rates."""
    return (m.angular_velocity[..., :2] ** 2).sum(-1)


def tilt(xp: Any, m: Motion) -> Any:
    """Squared horizontal part of projected gravity: 0 when level."""
    return (m.gravity[..., :2] ** 2).sum(-1)


def torque(xp: Any, m: Motion) -> Any:
    """Sum of squared joint torques."""
    return (m.torque**2).sum(-1)


def joint_acceleration(xp: Any, m: Motion) -> Any:
    """Sum of squared joint accelerations."""
    return (m.joint_acceleration**2).sum(-1)


def action_rate(xp: Any, m: Motion) -> Any:
    """Squared change of the action."""
    return ((m.action - m.last_action) ** 2).sum(-1)


def action_jerk(xp: Any, m: Motion) -> Any:
    """Squared second difference of the action."""
    return ((m.action - 2 * m.last_action + m.older_action) ** 2).sum(-1)


def abduction_pose(xp: Any, m: Motion) -> Any:
    """Squared abduction angles: keeps the legs under the body."""
    return (m.abduction**2).sum(-1)


def stand_still(xp: Any, m: Motion) -> Any:
    """Distance from the default pose when no motion is asked for."""
    return xp.abs(m.joint_offset).sum(-1) * (1 - m.moving)


def foot_slip(xp: Any, m: Motion) -> Any:
    """Squared horizontal speed of feet that carry load."""
    return (m.contact * m.foot_speed**2).sum(-1)


def out_of_step(xp: Any, m: Motion) -> Any:
    """Feet on the ground in the middle of their scheduled swing."""
    return (m.contact * (m.swing > 0.5)).sum(-1)


def low_base(xp: Any, m: Motion) -> Any:
    """How far the base is below the robot's `Fall.low`, squared."""
    return xp.maximum(m.low - m.clearance, 0.0) ** 2


def fall(xp: Any, m: Motion) -> Any:
    """1 in the step in which the robot falls."""
    return m.fallen


def progress(xp: Any, m: Motion) -> Any:
    """Share of the commanded planar velocity that is made along it, at most 1: a pull that is as strong from afar."""
    asked = m.command[..., :2]
    size = xp.maximum((asked**2).sum(-1), 0.09)
    return xp.clip((m.velocity[..., :2] * asked).sum(-1) / size, -0.5, 1.0)


def board_touch(xp: Any, m: Motion) -> Any:
    """Feet on the board, counted by how deep inside its edges they stand."""
    return m.touch + xp.zeros_like(m.fallen)


def board_cleared(xp: Any, m: Motion) -> Any:
    """1 in the step in which a board has been cleared."""
    return m.cleared + xp.zeros_like(m.fallen)


UNCLIPPED = ("fall", "board_touch", "board_cleared")
"""Terms that always count, whatever the others add up to."""

TERMS: dict[str, Term] = {
    term.__name__: term
    for term in (
        linear_tracking, linear_precision, yaw_tracking, yaw_precision, vertical_velocity, tilt_rate, tilt, torque,
        joint_acceleration, action_rate, action_jerk, abduction_pose, stand_still, foot_slip, out_of_step, low_base,
        fall, progress, board_touch, board_cleared,
    )
}  # fmt: skip

WALK: dict[str, float] = {
    "progress": 1.0,
    "linear_tracking": 1.5,
    "linear_precision": 0.5,
    "yaw_tracking": 0.8,
    "yaw_precision": 0.3,
    "vertical_velocity": -0.8,
    "tilt_rate": -0.05,
    "tilt": -1.5,
    "torque": -2e-4,
    "joint_acceleration": -1e-7,
    "action_rate": -0.01,
    "action_jerk": -0.004,
    "abduction_pose": -0.2,
    "stand_still": -0.5,
    "foot_slip": -0.1,
    "out_of_step": -0.1,
    "low_base": -40.0,
    "fall": -50.0,
}
"""Weights of the walker. The fall weight is applied after clipping, so that it always counts."""


CLIMB: dict[str, float] = WALK | {"progress": 2.0, "tilt": -0.3, "vertical_velocity": -0.05, "torque": -1e-4}
"""Weights of the climber: slopes tilt the robot, going up or down them is motion along z (at 1.9 m/s over 30 degrees
1.1 m/s of it), and speed uphill costs torque; `progress` pulls where speeds asked for are still far away."""


JUMP: dict[str, float] = {
    "progress": 2.0,
    "linear_tracking": 1.0,
    "yaw_tracking": 0.5,
    "vertical_velocity": -0.05,
    "tilt_rate": -0.01,
    "tilt": -0.2,
    "torque": -1e-4,
    "joint_acceleration": -5e-8,
    "action_rate": -0.01,
    "action_jerk": -0.003,
    "abduction_pose": -0.3,
    "stand_still": -0.5,
    "foot_slip": -0.05,
    "low_base": -20.0,
    "fall": -50.0,
    "board_touch": -2.0,
    "board_cleared": 75.0,
}
"""Weights of the jumper: a bound moves up and down and pitches, so those penalties are light."""


def total(xp: Any, weights: Mapping[str, float], motion: Motion, dt: float) -> tuple[Any, dict[str, Any]]:
    """Weighted sum of terms.

    Returns:
      Reward `[...]` (per control step: clipped sum times `dt`, `UNCLIPPED` terms apart), each weighted term `[...]`.

    Raises:
      InputError: a weight names no term.
    """
    unknown = sorted(set(weights) - set(TERMS))
    if unknown:
        raise InputError(f"unknown reward term '{unknown[0]}': known are {', '.join(sorted(TERMS))}")
    terms = {name: weight * TERMS[name](xp, motion) for name, weight in weights.items()}
    running = sum((value for name, value in terms.items() if name not in UNCLIPPED), np.float32(0.0))
    always = sum((value for name, value in terms.items() if name in UNCLIPPED), np.float32(0.0))
    return xp.maximum(running, 0.0) * dt + always * dt, terms
