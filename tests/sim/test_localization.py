"""What robots are told of their place: how wrong, late and rare it is, and that it depends on their own seed alone."""

import numpy as np
import pytest

from sim.errors import InputError
from sim.localization import Localization, PoseErrors

DT = 0.02


def told(errors: PoseErrors, seconds: float = 10.0, seeds=(1,), speed: float = 1.0) -> dict[str, np.ndarray]:
    """What robots that go ahead at a constant speed are told at every control step: `pose` `[T, worlds, 4]`, `stamp`,
    `arrived`, and the `true` poses."""
    n, steps = len(seeds), round(seconds / DT)
    true = np.zeros((steps + 1, n, 4))
    true[:, :, 0] = (speed * DT * np.arange(steps + 1))[:, None]
    true[:, :, 2] = 0.3
    localization = Localization(errors, np.array(seeds), true[0])
    rows = []
    for k in range(1, steps + 1):
        localization.look(k * DT, true[k])
        rows.append((localization.pose, localization.stamp, localization.arrived))
    pose, stamp, arrived = (np.array(column) for column in zip(*rows, strict=True))
    return {"pose": pose, "stamp": stamp, "arrived": arrived, "true": true[1:]}


def test_without_errors_nothing_changes():
    assert not PoseErrors() and PoseErrors(drift=0.01)
    out = told(PoseErrors())
    np.testing.assert_array_equal(out["pose"], out["true"])
    assert out["arrived"].all()


def test_noise_has_its_spread_in_place_and_heading():
    out = told(PoseErrors(noise=0.02, yaw_noise=0.035), seconds=40.0)
    error = (out["pose"] - out["true"])[:, 0]
    np.testing.assert_allclose(error.std(0), [0.02, 0.02, 0.02, 0.035], rtol=0.1)
    assert np.abs(error.mean(0)).max() < 0.004
    assert abs(np.corrcoef(error[1:, 0], error[:-1, 0])[0, 1]) < 0.1


@pytest.mark.parametrize("delay, steps", [(0.06, 3), (0.05, 3), (0.02, 1), (0.001, 1)])
def test_poses_come_late_by_whole_control_steps(delay, steps):
    out = told(PoseErrors(delay=delay), seconds=1.0)
    np.testing.assert_allclose(out["pose"][steps:, 0, 0], out["true"][:-steps, 0, 0])
    np.testing.assert_allclose(out["stamp"][steps:, 0], DT * np.arange(1, len(out["stamp"]) - steps + 1))


@pytest.mark.parametrize("rate", [5.0, 30.0, 50.0, 1000.0])
def test_poses_come_so_often_and_are_kept_meanwhile(rate):
    out = told(PoseErrors(rate=rate), seconds=10.0)
    assert out["arrived"].sum() == pytest.approx(10.0 * min(rate, 1 / DT), abs=1)
    np.testing.assert_allclose(out["pose"][:, 0, 0], out["stamp"][:, 0])  # at 1 m/s
    assert np.diff(out["stamp"][:, 0]).max() <= 1 / rate + DT + 1e-9


def test_drift_grows_with_the_way_in_one_direction_of_the_map():
    out = told(PoseErrors(drift=0.01), seeds=(1, 2), speed=2.0)
    off = (out["pose"] - out["true"])[:, :, :2]
    np.testing.assert_allclose(np.linalg.norm(off, axis=-1), 0.01 * out["true"][:, :, 0], atol=1e-9)
    directions = off[-1] / np.linalg.norm(off[-1], axis=-1, keepdims=True)
    np.testing.assert_allclose(off[200] / np.linalg.norm(off[200], axis=-1, keepdims=True), directions, atol=1e-6)
    assert np.linalg.norm(directions[0] - directions[1]) > 0.01


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_dropouts_take_their_share_and_last(share):
    out = told(PoseErrors(dropouts=share), seconds=200.0, seeds=(1, 2, 3))
    lost = ~out["arrived"]
    assert lost.mean() == pytest.approx(share, rel=0.25)
    begins = (lost[1:] & ~lost[:-1]).sum()
    assert lost.sum() * DT / begins == pytest.approx(0.1, rel=0.25)
    kept = np.flatnonzero(lost[1:, 0]) + 1
    np.testing.assert_array_equal(out["pose"][kept, 0], out["pose"][kept - 1, 0])


def test_what_a_robot_is_told_depends_on_its_own_seed_alone():
    errors = PoseErrors(0.02, 0.03, 0.06, 40.0, 0.01, 0.2)
    alone, beside = told(errors, 2.0, seeds=(7,)), told(errors, 2.0, seeds=(3, 7))
    np.testing.assert_array_equal(alone["pose"][:, 0], beside["pose"][:, 1])
    assert not np.array_equal(beside["pose"][:, 0], beside["pose"][:, 1])


@pytest.mark.parametrize("wrong", [{"noise": -0.1}, {"rate": np.nan}, {"dropouts": 1.0}, {"delay": 3.0}])
def test_errors_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=f"--pose-{next(iter(wrong))}"):
        PoseErrors(**wrong)
