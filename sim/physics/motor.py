"""The motor model: how much torque a joint can give at its present speed. Pure, numpy or jax.numpy (`xp`)."""

import numpy as np

from sim.arrays import Array, Namespace

KNEE = 0.5
"""Share of the no-load speed up to which the peak torque is there (assumed; the robot's curve is not published)."""


def torque_range(xp: Namespace, peak: Array, no_load_speed: Array, speed: Array) -> tuple[Array, Array]:
    """Least and greatest torque of joints that turn at `speed`, N m.

    Up to `KNEE` of the no-load speed the current limit holds: +-`peak`. From there the torque that drives the joint on
    falls to zero at the no-load speed, as the supply's voltage runs out; braking is not limited by it.

    Args:
      peak: N m, `no_load_speed` and `speed`: rad/s; shapes broadcast.
    """
    room = (1.0 - KNEE) * no_load_speed
    high = peak * xp.minimum(xp.maximum((no_load_speed - speed) / room, 0.0), 1.0)
    low = -peak * xp.minimum(xp.maximum((no_load_speed + speed) / room, 0.0), 1.0)
    return low, high


def servo_torque(
    gain: Array,
    bias: Array,
    limit: Array,
    targets: Array,
    position: Array,
    speed: Array,
    motors: tuple[Array, Array] | None = None,
) -> np.ndarray:
    """What position servos give, N m `[worlds, J]`, as MuJoCo's actuators do: for engines that are told torques.

    Args:
      gain, bias, limit: the model's `actuator_gainprm`, `actuator_biasprm` and `actuator_forcerange`,
        `[worlds or 1, J, ...]`.
      targets, position: rad, `speed`: rad/s, `[worlds, J]`.
      motors: peak torque and no-load speed, `[worlds, J]` both, in place of `limit`.
    """
    torque = gain[:, :, 0] * targets + bias[:, :, 0] + bias[:, :, 1] * position + bias[:, :, 2] * speed
    low, high = limit[:, :, 0], limit[:, :, 1]
    if motors is not None:
        low, high = torque_range(np, motors[0], motors[1], speed)
    return np.clip(torque, low, high)
