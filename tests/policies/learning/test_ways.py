"""Ways that are planned for a walker's training."""

import numpy as np
import pytest

from policies.learning.options import TrainOptions
from policies.learning.ways import ACCELERATION, AHEAD, LATERAL, planned_ways
from sim.errors import InputError
from sim.robots.description import default_robot


def test_ways_are_smooth_motions_within_their_paces_and_the_same_for_a_seed():
    robot = default_robot()
    made, again = (planned_ways(robot, 3, seed=4, say=lambda _: None) for _ in range(2))
    assert len(made.steps) == 6 and (made.steps > 200).all()
    np.testing.assert_array_equal(made.pose, again.pose)
    for pose, velocity, steps in zip(made.pose, made.velocity, made.steps.astype(int), strict=True):
        speed = np.linalg.norm(velocity[:steps, :2], axis=1)
        assert 1.0 < speed.max() <= AHEAD[1] + 0.3 and np.abs(np.diff(pose[:steps, 2])).max() < 0.1
        change = np.linalg.norm(np.diff(velocity[1 : steps - 1, :2], axis=0), axis=1) / robot.control_period
        assert np.quantile(change, 0.95) < 2 * LATERAL * ACCELERATION[1]


def test_only_walkers_follow_ways():
    with pytest.raises(InputError, match="ways"):
        TrainOptions("jump", ways=8)
