"""An invariant extended Kalman filter: attitude, velocity and place of the base, from IMU, joints and feet.

The right-invariant filter of Hartley, Ghaffari, Eustice and Grizzle, "Contact-aided invariant extended Kalman filtering
for robot state estimation" (IJRR 2020): base and feet are one element of a group, in which the error moves without
regard to where the robot is, so that a poor start does not make the filter sure of wrong things. Differences: feet that
stand are balls that roll, which is put into their motion; and a foot counts as standing where the joints' torques
say so, since not every robot feels its feet.

What cannot be known from inside is not: heading and place in the plane drift.
"""

import math
from dataclasses import dataclass
from typing import cast

import numpy as np

from policies.estimation.kinematics import (
    GRAVITY,
    Array,
    Feet,
    Kinematics,
    cross,
    kinematics_of,
    matrix_of,
    quaternion_of,
    rotation,
    skew,
    skews,
)
from sim.robots.description import Robot

R, V, P = slice(0, 3), slice(3, 6), slice(6, 9)
"""Of the error: attitude (rad), velocity (m/s), place (m), in the world's axes."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations, of continuous noise per root of a second; measured against the simulator's sensors."""

    gyro: float = 0.006
    """rad/s per root Hz: readings of +-0.15 rad/s at 250 Hz."""
    accelerometer: float = 0.04
    """m/s^2 per root Hz."""
    gyro_bias: float = 1e-4
    """rad/s^2 per root Hz."""
    accelerometer_bias: float = 1e-3
    """m/s^3 per root Hz."""
    slip: float = 0.06
    """Of a standing foot, m/s per root Hz."""
    foot: float = 0.004
    """Of a foot's place by the joints, m: readings of +-0.01 rad."""
    attitude: float = 0.02
    """Of the attitude that it begins with, rad."""


STANDS, LIFTS = 0.6, 0.3
"""Share of a quarter of the weight from which a foot counts as standing, and below which as lifted."""
SETTLES = 0.024
"""s after touching down before a foot is believed to stand: sooner it still sinks, and the height drifts."""
STILL = 0.6
"""A foot that moves faster than this stands on nothing, m/s: torques that swing a leg look like a load."""
LOST = 0.5
"""s without a standing foot, longer than a jump, after which the speed that the filter believes is wrong, and is taken
from the feet that bear something."""
REGAINED = 0.3
"""Standard deviation of that speed, m/s."""
FLAT = 1e-9
"""m^3 of a leg's jacobian from which its torques say something."""
SLIPPED = 16.0
"""Squared distance in standard deviations (three of them: 99.9 %) from which a standing foot has slipped instead."""

_FALLS = skew(np.array([0.0, 0.0, -GRAVITY]))


class ContactFilter:
    """The filter of one robot. World axes: z up; x and y as the pose that it begins with has them."""

    def __init__(self, robot: Robot, noise: Noise = Noise()) -> None:
        """Raises `InputError` where the robot's legs cannot be read (`kinematics_of`)."""
        self.robot, self.noise = robot, noise
        self.legs: Kinematics = kinematics_of(robot)
        self.count = len(self.legs.chains)
        n = 9 + 3 * self.count
        self.size = n + 6
        self._bg, self._ba = slice(n, n + 3), slice(n + 3, n + 6)
        self._roll = skew(np.array([0.0, 0.0, robot.foot_radius]))
        """How a ball on the ground rolls: times its angular velocity (from the left), its centre's velocity."""
        driven = np.zeros(self.size)
        driven[V], driven[9:n] = noise.accelerometer, noise.slip
        driven[self._bg], driven[self._ba] = noise.gyro_bias, noise.accelerometer_bias
        self._driven = np.diag(driven**2)
        """What noise adds to the covariance in a second, beside the gyro's; the same along every axis."""
        self.turn, self.velocity, self.place = np.eye(3), np.zeros(3), np.zeros(3)
        """Attitude (base to world), velocity (m/s) and place (m) of the IMU."""
        self.feet = np.zeros((self.count, 3))
        """Where feet stand, m; without meaning for those that do not."""
        self.gyro_bias, self.accelerometer_bias = np.zeros(3), np.zeros(3)
        self.covariance = np.eye(self.size)
        self.standing = np.zeros(self.count, bool)
        self._touching = np.zeros(self.count)
        """Since when each foot has touched, s."""
        self._rates = np.zeros(3)
        self.aloft = 0.0
        """For how long no foot has stood, s."""

    def begin(self, position: Array, orientation: Array, velocity: Array | None = None) -> None:
        """The base is at `position` (m `[3]`) with `orientation` (w, x, y, z), at rest, or with about that `velocity`
        (m/s `[3]`, world axes)."""
        self.turn = matrix_of(orientation)
        self.place = np.asarray(position, float) + self.turn @ self.legs.imu
        self.velocity = np.zeros(3) if velocity is None else np.array(velocity, float)
        self.gyro_bias, self.accelerometer_bias = np.zeros(3), np.zeros(3)
        spread = np.full(self.size, 1.0)
        spread[R], spread[V], spread[P] = self.noise.attitude, 0.05 if velocity is None else REGAINED, 1e-3
        spread[2] = 1e-3  # the heading is what it is said to be
        spread[self._bg], spread[self._ba] = 0.01, 0.1
        self.covariance = np.diag(spread**2)
        self.standing[:], self._touching[:], self.aloft = False, 0.0, 0.0

    def step(
        self, seconds: float, angular_velocity: Array, acceleration: Array, position: Array, speed: Array, torque: Array
    ) -> None:
        """Takes in one reading, `seconds` after the one before.

        Args:
          angular_velocity: gyro, rad/s `[3]`; acceleration: specific force, m/s^2 `[3]`: both in the base's axes, the
            mean since the last reading where the IMU has it.
          position, speed, torque: of the joints, rad, rad/s, N m `[J]`.
        """
        rates = np.asarray(angular_velocity, float) - self.gyro_bias
        force = np.asarray(acceleration, float) - self.accelerometer_bias
        self._rates = rates
        feet, speeds = self.legs.feet(position), np.asarray(speed, float)[self.legs.joints][..., None]
        spins = (feet.axes @ speeds)[..., 0]
        self._propagate(seconds, rates, force, spins)
        arms = feet.place - self.legs.imu
        loads = self._loads(feet.jacobian, np.asarray(torque, float)[self.legs.joints])
        moves = self._motions(feet, spins, arms, speeds)
        bears = loads > STANDS * self.legs.mass * GRAVITY / self.count
        if self.aloft > LOST and bears.any():
            self.velocity = -self.turn @ moves[bears].mean(0)
            self.covariance[V, :], self.covariance[:, V] = 0.0, 0.0
            self.covariance[V, V] = REGAINED**2 * np.eye(3)
        here = self.turn.T @ self.velocity
        loads[np.linalg.norm(moves + here, axis=1) > STILL] = 0.0
        self._notice(seconds, loads, arms)
        self.aloft = 0.0 if self.standing.any() else self.aloft + seconds
        if self.standing.any():
            self._correct(arms)

    @property
    def position(self) -> Array:
        """Of the base's origin, m `[3]`."""
        return self.place - self.turn @ self.legs.imu

    @property
    def orientation(self) -> Array:
        """Of the base, w, x, y, z."""
        return quaternion_of(self.turn)

    @property
    def heading(self) -> float:
        """Of the base, rad."""
        return math.atan2(self.turn[1, 0], self.turn[0, 0])

    @property
    def base_velocity(self) -> Array:
        """Of the base's origin in its own axes, m/s `[3]`."""
        return self.turn.T @ self.velocity - cross(self._rates, self.legs.imu)

    # --- the parts of a step --------------------------------------------------------------------------------------

    def _propagate(self, dt: float, rates: Array, force: Array, spins: Array) -> None:
        turn, noise = self.turn, self.noise
        middle = turn @ rotation(rates * dt / 2)
        pull = middle @ force - np.array([0.0, 0.0, GRAVITY])
        moved = skews(np.stack([self.velocity, self.place, *self.feet])) @ turn
        self.place = self.place + self.velocity * dt + 0.5 * pull * dt**2
        self.velocity = self.velocity + pull * dt
        self.turn = turn @ rotation(rates * dt)
        if self.standing.any():
            rolls = (rates + spins[self.standing]) @ turn.T
            self.feet[self.standing] += rolls @ self._roll * dt
        d, flow = slice(9, 9 + 3 * self.count), np.zeros((self.size, self.size))
        flow[V, R] = _FALLS
        flow[P, V] = np.eye(3)
        flow[R, self._bg] = -turn
        flow[V, self._bg], flow[V, self._ba] = -moved[0], -turn
        flow[P, self._bg] = -moved[1]
        flow[d, self._bg] = -moved[2:].reshape(-1, 3)
        step = np.eye(self.size) + flow * dt + flow @ flow * (dt**2 / 2)
        turned = np.zeros((self.size, 3))
        turned[R], turned[V], turned[P], turned[d] = turn, moved[0], moved[1], moved[2:].reshape(-1, 3)
        turned *= noise.gyro
        driven = turned @ turned.T + self._driven
        self.covariance = step @ (self.covariance + driven * dt) @ step.T

    def _motions(self, feet: Feet, spins: Array, arms: Array, speeds: Array) -> Array:
        """How fast the soles under the feet's centres move against the IMU, m/s `[legs, 3]` in the base's axes."""
        roll = self.turn[2] * self.robot.foot_radius
        turning = arms @ skew(self._rates).T + (feet.jacobian @ speeds)[..., 0]
        return turning + (self._rates + spins) @ skew(roll).T

    def _loads(self, jacobian: Array, torque: Array) -> Array:
        """What the feet bear, N `[legs]`: what the joints' torques (N m `[legs, joints]`) hold, along the world's up.
        A stretched leg says nothing, and neither does one that has not three joints."""
        if torque.shape[1] != 3:
            return np.zeros(self.count)
        volume = np.linalg.det(jacobian)
        says = np.abs(volume) > FLAT
        held = np.where(says[:, None, None], jacobian, np.eye(3)).swapaxes(1, 2)
        forces = np.linalg.solve(held, -torque[..., None])[..., 0]
        return np.where(says, forces @ self.turn[2], 0.0)

    def _notice(self, dt: float, loads: Array, arms: Array) -> None:
        """Which feet stand; one that has come down is put into the state where the joints say that it is."""
        quarter = self.legs.mass * GRAVITY / self.count
        touching = np.where(self._touching > 0, loads > LIFTS * quarter, loads > STANDS * quarter)
        self._touching = np.where(touching, self._touching + dt, 0.0)
        stands = self._touching > SETTLES
        for leg in np.flatnonzero(stands & ~self.standing).tolist():
            self._plant(leg, arms[leg])
        for leg in np.flatnonzero(self.standing & ~stands).tolist():
            d = self._foot(leg)
            self.covariance[d, :], self.covariance[:, d] = 0.0, 0.0
            self.covariance[d, d] = np.eye(3)
        self.standing = stands

    def _correct(self, arms: Array) -> None:
        """A standing foot is where it was: the joints say where that is from here."""
        legs = [leg for leg in np.flatnonzero(self.standing).tolist() if not self._slipped(leg, arms[leg])]
        if not legs:
            return
        watch = np.zeros((3 * len(legs), self.size))
        missed = np.zeros(3 * len(legs))
        for row, leg in enumerate(legs):
            rows = slice(3 * row, 3 * row + 3)
            watch[rows, P], watch[rows, self._foot(leg)] = np.eye(3), -np.eye(3)
            missed[rows] = self.turn @ arms[leg] + self.place - self.feet[leg]
        cross_covariance = self.covariance @ watch.T
        inner = watch @ cross_covariance + self.noise.foot**2 * np.eye(len(missed))
        gain = np.linalg.solve(inner, cross_covariance.T).T
        change = -gain @ missed
        self._move(change)
        left = np.eye(self.size) - gain @ watch
        self.covariance = left @ self.covariance @ left.T + self.noise.foot**2 * gain @ gain.T

    def _slipped(self, leg: int, arm: Array) -> bool:
        """Whether a foot is where it cannot be if it stood; it then stands anew, from here on."""
        d, spread = self._foot(leg), self.noise.foot**2 * np.eye(3)
        c = self.covariance
        inner = c[P, P] - c[P, d] - c[d, P] + c[d, d] + spread
        missed = self.turn @ arm + self.place - self.feet[leg]
        weighed = cast(Array, np.linalg.solve(inner, missed))
        if float(missed @ weighed) < SLIPPED:
            return False
        self._plant(leg, arm)
        return True

    def _plant(self, leg: int, arm: Array) -> None:
        """A foot stands where the joints say that it is."""
        d = self._foot(leg)
        self.feet[leg] = self.place + self.turn @ arm
        self.covariance[d, :] = self.covariance[P, :]
        self.covariance[:, d] = self.covariance[:, P]
        self.covariance[d, d] = self.covariance[P, P] + self.noise.foot**2 * np.eye(3)

    def _move(self, change: Array) -> None:
        """Applies an error `[size]` from the left, as the group has it."""
        turned = rotation(change[R])
        jacobian = _left_jacobian(change[R])
        self.turn = turned @ self.turn
        self.velocity = turned @ self.velocity + jacobian @ change[V]
        self.place = turned @ self.place + jacobian @ change[P]
        for leg in range(self.count):
            self.feet[leg] = turned @ self.feet[leg] + jacobian @ change[self._foot(leg)]
        self.gyro_bias = self.gyro_bias + change[self._bg]
        self.accelerometer_bias = self.accelerometer_bias + change[self._ba]

    def _foot(self, leg: int) -> slice:
        return slice(9 + 3 * leg, 12 + 3 * leg)


def _left_jacobian(v: Array) -> Array:
    """Of the rotation group at a rotation vector (rad `[3]`)."""
    angle = float(np.sqrt(v @ v))
    s = skew(v)
    if angle < 1e-8:
        return np.eye(3) + s / 2
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * s + (angle - np.sin(angle)) / angle**3 * s @ s
