"""Reward terms: small named functions over arrays, and the tables of weights that make a task of them.

Every term takes the array namespace and a `Motion` and returns one value per world, `[...]`. Weights carry the sign.
The sum is clipped at zero and multiplied by the control period, as in the public Barkour joystick task (google/brax).
"""

from collections.abc import Callable, Mapping

import numpy as np

from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.tasks.state import Motion

Term = Callable[[Namespace, Motion], Array]


def two_scales(xp: Namespace, squared_error: Array) -> Array:
    """Half exp(-e2/0.25) + half exp(-e2): sharp near the goal, and still a gradient far from it."""
    return 0.5 * xp.exp(-squared_error / 0.25) + 0.5 * xp.exp(-squared_error)


def linear_tracking(xp: Namespace, m: Motion) -> Array:
    """1 when the planar velocity equals the command."""
    return two_scales(xp, ((m.velocity[..., :2] - m.wanted[..., :2]) ** 2).sum(-1))


def linear_precision(xp: Namespace, m: Motion) -> Array:
    """A narrow peak that pays for the last centimetres per second."""
    return xp.exp(-((m.velocity[..., :2] - m.wanted[..., :2]) ** 2).sum(-1) / 0.02)


def yaw_tracking(xp: Namespace, m: Motion) -> Array:
    """1 when the yaw rate equals the command."""
    return two_scales(xp, (m.angular_velocity[..., 2] - m.wanted[..., 2]) ** 2)


def yaw_precision(xp: Namespace, m: Motion) -> Array:
    """A narrow peak that pays for the last tenth of a radian per second."""
    return xp.exp(-((m.angular_velocity[..., 2] - m.wanted[..., 2]) ** 2) / 0.04)


def vertical_velocity(xp: Namespace, m: Motion) -> Array:
    """Squared vertical speed."""
    return m.velocity[..., 2] ** 2


def tilt_rate(xp: Namespace, m: Motion) -> Array:
    """Squared roll and pitch rates."""
    return (m.angular_velocity[..., :2] ** 2).sum(-1)


def tilt(xp: Namespace, m: Motion) -> Array:
    """Squared horizontal part of projected gravity: 0 when level."""
    return (m.gravity[..., :2] ** 2).sum(-1)


def torque(xp: Namespace, m: Motion) -> Array:
    """Sum of squared joint torques."""
    return (m.torque**2).sum(-1)


def joint_acceleration(xp: Namespace, m: Motion) -> Array:
    """Sum of squared joint accelerations."""
    return (m.joint_acceleration**2).sum(-1)


def action_rate(xp: Namespace, m: Motion) -> Array:
    """Squared change of the action."""
    return ((m.action - m.last_action) ** 2).sum(-1)


def action_jerk(xp: Namespace, m: Motion) -> Array:
    """Squared second difference of the action."""
    return ((m.action - 2 * m.last_action + m.older_action) ** 2).sum(-1)


def abduction_pose(xp: Namespace, m: Motion) -> Array:
    """Squared abduction angles: keeps the legs under the body."""
    return (m.abduction**2).sum(-1)


def stand_still(xp: Namespace, m: Motion) -> Array:
    """Distance from the default pose when no motion is asked for."""
    return xp.abs(m.joint_offset).sum(-1) * (1 - m.moving)


def foot_slip(xp: Namespace, m: Motion) -> Array:
    """Squared horizontal speed of feet that carry load."""
    return (m.contact * m.foot_speed**2).sum(-1)


def out_of_step(xp: Namespace, m: Motion) -> Array:
    """Feet on the ground in the middle of their scheduled swing."""
    return (m.contact * (m.swing > 0.5)).sum(-1)


def low_base(xp: Namespace, m: Motion) -> Array:
    """How far the base is below the robot's `Fall.low`, squared."""
    return xp.maximum(m.low - m.clearance, 0.0) ** 2


def fall(xp: Namespace, m: Motion) -> Array:
    """1 in the step in which the robot falls."""
    return m.fallen


def progress(xp: Namespace, m: Motion) -> Array:
    """Share of the commanded planar velocity that is made along it, at most 1: a pull that is as strong from afar."""
    asked = m.wanted[..., :2]
    size = xp.maximum((asked**2).sum(-1), 0.09)
    return xp.clip((m.velocity[..., :2] * asked).sum(-1) / size, -0.5, 1.0)


def velocity_gap(xp: Namespace, m: Motion) -> Array:
    """Distance of the planar velocity from the command, m/s: pays for every step that a change takes, however far."""
    return xp.sqrt(((m.velocity[..., :2] - m.wanted[..., :2]) ** 2).sum(-1))


def yaw_gap(xp: Namespace, m: Motion) -> Array:
    """Distance of the yaw rate from the command, rad/s."""
    return xp.abs(m.angular_velocity[..., 2] - m.wanted[..., 2])


def board_touch(xp: Namespace, m: Motion) -> Array:
    """Feet on the board, counted by how deep inside its edges they stand."""
    return m.touch + xp.zeros_like(m.fallen)


def pole_touch(xp: Namespace, m: Motion) -> Array:
    """Whether any part touches a weave pole."""
    return m.poles + xp.zeros_like(m.fallen)


def board_cleared(xp: Namespace, m: Motion) -> Array:
    """1 in the step in which a board has been cleared."""
    return m.cleared + xp.zeros_like(m.fallen)


UNCLIPPED = ("fall", "board_touch", "board_cleared", "velocity_gap", "yaw_gap", "pole_touch")
"""Terms that always count, whatever the others add up to."""

TERMS: dict[str, Term] = {
    term.__name__: term
    for term in (
        linear_tracking, linear_precision, yaw_tracking, yaw_precision, vertical_velocity, tilt_rate, tilt, torque,
        joint_acceleration, action_rate, action_jerk, abduction_pose, stand_still, foot_slip, out_of_step, low_base,
        fall, progress, velocity_gap, yaw_gap, board_touch, board_cleared, pole_touch,
    )
}  # fmt: skip

WALK: dict[str, float] = {
    "progress": 1.0,
    "linear_tracking": 1.5,
    "linear_precision": 0.5,
    "yaw_tracking": 0.8,
    "yaw_precision": 0.3,
    "velocity_gap": -1.5,
    "yaw_gap": -0.3,
    "vertical_velocity": -0.8,
    "tilt_rate": -0.03,
    "tilt": -0.8,
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
"""Weights of the walker. The fall weight is applied after clipping, so that it always counts; so are the distances to
the commanded velocity, or a robot that is asked to turn back at 2 m/s would gain nothing on its way there: tracking and
progress are both at their least until it is within 2 m/s."""


CLIMB: dict[str, float] = {name: weight for name, weight in WALK.items() if name != "yaw_gap"} | {
    "progress": 2.0,
    "velocity_gap": -1.0,
    "tilt_rate": -0.05,
    "tilt": -0.3,
    "vertical_velocity": -0.05,
    "torque": -1e-4,
}
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


def total(xp: Namespace, weights: Mapping[str, float], motion: Motion, dt: float) -> tuple[Array, dict[str, Array]]:
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
