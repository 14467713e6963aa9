"""A simulated accelerometer, for robots that reckon their own place."""

import numpy as np

from policies.estimation.kinematics import GRAVITY, Array, cross, matrix_of

NOISE = 0.3
"""Half-width of the uniform noise on the specific force, m/s^2."""


class Accelerometer:
    """The specific force at a robot's IMU, as the mean since the last reading: from how its velocity has changed."""

    def __init__(self, imu: Array, seed: int) -> None:
        """`imu` is its place in the base, m `[3]`."""
        self.imu = imu
        self._rng = np.random.default_rng([0xACCE, seed])
        self._before: Array | None = None

    def read(self, seconds: float, qpos: Array, qvel: Array) -> Array:
        """m/s^2 `[3]` in the base's axes, with noise, `seconds` after the last call; at rest in the first."""
        turn = matrix_of(qpos[3:7])
        velocity = qvel[:3] + turn @ cross(qvel[3:6], self.imu)
        change = (velocity - self._before) / seconds if self._before is not None else np.zeros(3)
        self._before = velocity
        noise = NOISE * (2 * self._rng.random(3) - 1)
        return turn.T @ (change + np.array([0.0, 0.0, GRAVITY])) + noise
