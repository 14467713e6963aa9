"""Ways that are planned for a walker's training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.learning.options import TrainOptions
from policies.learning.train import WAYS, Run
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


def test_haste_plans_quicker_ways():
    robot = default_robot()
    made, quick = (planned_ways(robot, 2, seed=4, say=lambda _: None, haste=haste) for haste in (1.0, 1.3))
    assert (quick.steps < made.steps).all()


def test_only_walkers_follow_ways():
    with pytest.raises(InputError, match="ways"):
        TrainOptions("jump", ways=8)


def test_ways_of_a_run_that_were_spoilt_are_one_line(tmp_path, spoil):
    options = TrainOptions("walk", worlds=24, out=tmp_path, ways=1)
    Run(options)
    whole = (tmp_path / WAYS).read_bytes()
    for how in ("pipe", "device", "folder", "empty", "huge", whole[:-9000], whole[:5000] + b"other" + whole[5005:]):
        file = tmp_path / WAYS
        if isinstance(how, str):
            spoil(file, how)
        else:
            file.write_bytes(how)
        with pytest.raises(InputError, match=WAYS):
            Run(replace(options, resume=True))
        file.rmdir() if file.is_dir() else file.unlink()


@pytest.mark.parametrize("change", [{"start_from": Path("gone")}, {"worlds": 2}])
def test_what_cannot_be_trained_is_refused_before_ways_are_planned(tmp_path, change):
    with pytest.raises(InputError, match="gone|PPO"):
        Run(TrainOptions("walk", **{"worlds": 24, "out": tmp_path / "run", "ways": 2000, **change}))
    assert not (tmp_path / "run").exists()
