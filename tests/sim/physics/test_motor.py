"""The motor model: full torque at low speed, none at the no-load speed, braking unlimited; the same in both engines."""

import jax.numpy as jnp
import numpy as np
import pytest

from sim.course.scene import TRAINING, build
from sim.course.terrain import Terrain
from sim.physics.cpu import CpuPhysics
from sim.physics.mjx import MjxPhysics
from sim.physics.motor import torque_range
from sim.robots.description import default_robot


@pytest.mark.parametrize(
    "speed, low, high",
    [(0, -18, 18), (12.5, -18, 18), (18.75, -18, 9), (25, -18, 0), (40, -18, 0), (-18.75, -9, 18), (-30, 0, 18)],
)
def test_torque_falls_with_speed_in_the_direction_of_motion_only(speed, low, high):
    for xp in (np, jnp):
        assert torque_range(xp, 18.0, 25.0, xp.asarray(float(speed))) == pytest.approx((low, high))


@pytest.mark.parametrize("engine", [CpuPhysics, MjxPhysics])
def test_engines_give_no_more_torque_than_the_motor_has(engine):
    """A knee that already turns at 20 rad/s is asked for more: from a motor it gains less speed than from a servo."""
    robot = default_robot()
    model = build(robot, Terrain(), collision="feet", options=TRAINING)
    gained = []
    for no_load in (25.0, 1e6):
        physics = engine(model, 2)
        physics.motors(np.full((2, 12), 18.0), np.full((2, 12), no_load))
        qpos = np.tile(np.array([0, 0, 1.0, 1, 0, 0, 0, *robot.default_pose]), (2, 1))
        qvel = np.zeros((2, 18))
        qvel[1, 6 + 2] = 20.0
        physics.reset(np.ones(2, bool), qpos, qvel)
        far = qpos[:, 7:] + np.eye(12)[2] * 1.4
        physics.step(far, 1, far, np.zeros(2, int))
        gained.append(physics.read().qvel[:, 8] - qvel[:, 8])
    limited, unlimited = gained
    assert limited[0] == pytest.approx(unlimited[0], rel=1e-4)  # at rest both give 18 N m
    assert unlimited[1] - limited[1] > 2.0


def test_torque_limits_are_per_world():
    robot = default_robot()
    physics = CpuPhysics(build(robot, Terrain(), options=TRAINING), 3)
    physics.motors(np.repeat([[6.0], [12.0], [18.0]], 12, 1), np.full((3, 12), 25.0))
    force = physics.batch.bind("actuator_force")
    qpos = np.tile(np.array([0, 0, 1.0, 1, 0, 0, 0, *robot.default_pose]), (3, 1))
    physics.reset(np.ones(3, bool), qpos, np.zeros((3, 18)))
    far = qpos[:, 7:] + 1.0
    physics.step(far, 1, far, np.zeros(3, int))
    np.testing.assert_allclose(np.abs(force).max(1), [6.0, 12.0, 18.0], rtol=1e-6)
