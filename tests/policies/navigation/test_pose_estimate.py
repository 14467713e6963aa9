"""Where the robot is now, from late, noisy and rare poses: a kinematic robot that is asked for this and that."""

import numpy as np
import pytest
from kinematic import DT, Robot, drive

from policies.estimation.odometry import Motion
from policies.navigation.paces import Paces
from policies.navigation.path import MotionLimits
from policies.navigation.pose_estimate import PoseEstimate
from policies.navigation.rehearsal import rehearsed
from policies.navigation.response import Response
from policies.navigation.route_cache import planned
from sim.course.description import official
from sim.localization import Localization, PoseErrors
from sim.planar import to_body, wrap
from sim.robots.description import default_robot

SEED = np.array([7])
RESPONSE = Response.first_order(DT, (0.2, 0.2, 0.1))
"""Roughly the kinematic robot's, which has a dead time and a limit besides."""


def errors_of(
    errors: PoseErrors, seconds: float = 12.0, slope: float = 0.0, reckons: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """How far what is told and what is estimated are from the truth, `[T, 4]` each: m, m, m, rad.

    The robot's speed is `slope` short of what is asked, and it rises as it goes. With `reckons` it knows its motion,
    but for that share of it.
    """
    rng, robot = np.random.default_rng(1), Robot(np.array([1.0, -2.0, 3.0]))
    estimate, height, asked = PoseEstimate(RESPONSE), 0.25, np.zeros(3)

    def place() -> np.ndarray:
        return np.array([[*robot.pose[:2], height, wrap(robot.pose[2])]])

    localization = Localization(errors, SEED, place())
    told, estimated, before = [], [], place()[0]
    for k in range(int(seconds / DT)):
        if k % 30 == 0:
            asked = rng.uniform([-1.0, -1.0, -2.0], [2.2, 1.0, 2.0])
        true = place()[0]
        moved = None if reckons is None else motion(before, true, 1 + reckons)
        now = estimate.told(localization.pose[0], k * DT - float(localization.stamp[0]), moved)
        before = true
        told.append(localization.pose[0] - true)
        estimated.append(now - true)
        estimate.asked(asked)
        robot.step(asked * (1 - slope))
        height += 0.2 * DT * float(np.sin(0.02 * k))
        localization.look((k + 1) * DT, place())
    out = np.array(told), np.array(estimated)
    for off in out:
        off[:, 3] = wrap(off[:, 3])
    return out


def motion(before: np.ndarray, now: np.ndarray, share: float) -> Motion:
    """That between two poses x, y, z (m), heading (rad), a control period apart, times `share`."""
    turned = wrap(now[3] - before[3])
    ahead, left = to_body(now[0] - before[0], now[1] - before[1], before[3] + turned / 2)
    return Motion(*(share * np.array([ahead, left, now[2] - before[2], turned]) / DT).tolist())


def size(off: np.ndarray) -> np.ndarray:
    """Root mean square of the place's error (m) and of the heading's (rad), the first second left out."""
    off = off[int(1 / DT) :]
    return np.sqrt([(off[:, :2] ** 2).sum(1).mean(), (off[:, 3] ** 2).mean()])


@pytest.mark.parametrize("slope", [0.0, 0.3])
@pytest.mark.parametrize("delay", [0.04, 0.06, 0.15])
def test_a_late_pose_is_carried_to_now(delay, slope):
    told, estimated = errors_of(PoseErrors(delay=delay, rate=50), slope=slope)
    assert size(told)[0] > 0.02
    assert (size(estimated) < size(told) / 2.5).all()


@pytest.mark.parametrize("age", [0.0, 0.06])
def test_noise_is_filtered_without_being_told_of_it(age):
    told, estimated = errors_of(PoseErrors(noise=0.02, yaw_noise=0.035, delay=age, rate=50))
    assert (size(estimated) < size(told) / 1.5).all()
    assert np.std(estimated[50:, 2]) < 0.013, "the height is not commanded, but filtered"


@pytest.mark.parametrize("slope", [0.0, 0.3])
def test_motion_that_the_robot_reckons_itself_holds_noisy_poses_together(slope):
    errors = PoseErrors(noise=0.02, yaw_noise=0.035, delay=0.06, rate=50)
    _, modelled = errors_of(errors, slope=slope)
    _, reckoned = errors_of(errors, slope=slope, reckons=0.03)
    assert (size(reckoned) < size(modelled) / 1.8).all()
    assert np.std(reckoned[50:, 2]) < np.std(modelled[50:, 2]) / 1.5


def test_motion_that_is_no_number_is_left_to_the_model():
    estimate = PoseEstimate(RESPONSE)
    here = np.array([0.5, -0.5, 0.3, 0.1])
    for _ in range(3):
        now = estimate.told(here, 0.0, Motion(np.nan, 0.0, 0.0, 0.0))
        estimate.asked(np.zeros(3))
    np.testing.assert_allclose(now, here)


def test_the_truth_is_hardly_changed():
    _, estimated = errors_of(PoseErrors(rate=50))
    assert size(estimated)[0] < 0.004 and size(estimated)[1] < 0.02


@pytest.mark.parametrize("errors", [PoseErrors(rate=10.0, delay=0.03), PoseErrors(rate=50.0, dropouts=0.3)])
def test_between_rare_poses_the_motion_goes_on(errors):
    told, estimated = errors_of(errors)
    assert size(estimated)[0] < size(told)[0] / 2


def test_what_cannot_be_is_handed_on_and_not_learned_from():
    estimate = PoseEstimate(RESPONSE)
    here = np.array([0.5, -0.5, 0.3, 0.1])
    for _ in range(30):
        estimate.told(here, 0.02)
        estimate.asked(np.zeros(3))
    for strange in ([np.nan, 0.0, 0.3, 0.0], [9.0, 9.0, 0.3, 0.0]):
        np.testing.assert_array_equal(estimate.told(strange, 0.02), strange)
        estimate.asked(np.zeros(3))
        np.testing.assert_allclose(estimate.told(here, 0.02), here, atol=0.01)
        estimate.asked(np.zeros(3))
    for k in range(30):  # carried there: at last it is believed
        estimate.told([9.0, 9.0, 0.3, 1e-6 * k], 0.0)
        estimate.asked(np.zeros(3))
    assert np.linalg.norm(estimate.told([9.0, 9.0, 0.3, 0.0], 0.0)[:2] - 9.0) < 0.01


def test_the_course_is_driven_on_late_noisy_poses_as_on_true_ones():
    course, robot = official(), default_robot()
    route = planned(course, robot.footprint, ("walk", "climb", "jump"), Paces())
    navigator = rehearsed(course, route, MotionLimits(), RESPONSE)
    late = _Late(navigator, PoseErrors(noise=0.02, yaw_noise=0.035, delay=0.06, rate=50))
    run = drive(course, late, seconds=30.0)
    assert all(o.completed for o in run.result.obstacles.values())
    assert run.clearance > -0.06


class _Late:
    """A navigator that is told of poses with errors."""

    def __init__(self, navigator, errors):
        self.navigator, self.errors, self.estimate, self.time = navigator, errors, PoseEstimate(RESPONSE), 0.0
        self.told = None

    def step(self, pose, dt):
        true = np.array([[pose[0], pose[1], 0.3, pose[2]]])
        if self.told is None:
            self.told = Localization(self.errors, SEED, true)
        else:
            self.time += dt
            self.told.look(self.time, true)
        now = self.estimate.told(self.told.pose[0], self.time - float(self.told.stamp[0]))
        out = self.navigator.step(now[[0, 1, 3]], dt)
        self.estimate.asked(out.velocity)
        return out
