"""Simulated robots that reckon their own motion: noisy IMU and joints, 250 times a second."""

from collections.abc import Sequence

import numpy as np

from policies.estimation.accelerometer import Accelerometer
from policies.estimation.odometry import Odometry, odometry_of
from sim.envs.worlds import SimulatedRobots
from sim.tasks.randomization import noise_numbers

RATE = 250
"""Readings a second."""


class OwnSenses:
    """The odometry of robots that stand where they begin. Hears them by itself, as their `listener`."""

    def __init__(self, robots: SimulatedRobots, streams: Sequence[np.random.Generator] | None = None) -> None:
        """`streams`, one a robot, are where the noise of its readings comes from.

        Raises:
          InputError: legs that cannot be read.
        """
        self.robots, physics = robots, robots.physics
        self.odometry = [Odometry(robots.robot) for _ in range(robots.worlds)]
        seeds = robots.seeds.tolist()
        self.felt = [Accelerometer(one.filter.legs.imu, seed) for one, seed in zip(self.odometry, seeds, strict=True)]
        self.streams = streams or [np.random.default_rng([0x5E45, seed]) for seed in seeds]
        self.awake = np.ones(robots.worlds, bool)
        """Robots that are heard, `[worlds]`: it takes a third of a millisecond a reading."""
        self._every = round(1 / RATE / physics.timestep)
        self._steps = 0
        for i, one in enumerate(self.odometry):
            one.begin(np.array(physics.qpos[i, :3]), np.array(physics.qpos[i, 3:7]))
        robots.listener = self.hear

    def hear(self) -> bool:
        """After a physics step: takes a reading where one is due. Returns whether it was."""
        self._steps += 1
        if self._steps % self._every:
            return False
        robots, physics = self.robots, self.robots.physics
        numbers = noise_numbers(robots.robot)
        seen = robots.sense(np.stack([stream.random(numbers, np.float32) for stream in self.streams]))
        for i in np.flatnonzero(self.awake & ~robots.broken).tolist():
            qpos, qvel = np.array(physics.qpos[i], float), np.array(physics.qvel[i], float)
            self.odometry[i].filter.step(
                1 / RATE, np.asarray(seen.angular_velocity[i], float), self.felt[i].read(1 / RATE, qpos, qvel),
                np.asarray(seen.joint_position[i], float), np.asarray(seen.joint_velocity[i], float),
                np.array(robots.force[i], float),
            )  # fmt: skip
        return True


def own_senses(robots: SimulatedRobots) -> OwnSenses | None:
    """Those of robots whose legs can be read; None of others, which have the walker's model alone."""
    return OwnSenses(robots) if odometry_of(robots.robot) else None
