"""How a robot has moved by its own senses: what it sums up to, and what a run on poses with errors gains by it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from policies.estimation.kinematics import quaternion_of, rotation
from policies.estimation.odometry import Odometry, odometry_of
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.options import CourseRunOptions, EvaluateOptions
from policies.evaluation.own_senses import own_senses
from policies.skills.library import load_skills
from sim.course.description import official
from sim.errors import InputError
from sim.localization import PoseErrors
from sim.planar import place
from sim.robots.description import default_robot


def test_motions_add_up_to_the_way():
    odometry, rng = Odometry(default_robot()), np.random.default_rng(3)
    start = np.array([1.0, 2.0, 0.3])
    odometry.begin(start, quaternion_of(rotation(np.array([0.0, 0.0, 3.1]))))  # turns across the half turn
    (x, y, z), yaw = start, 3.1
    for _ in range(20):
        turned = rng.uniform(-0.2, 0.2)
        yaw += turned
        odometry.filter.turn = rotation(np.array([0.0, 0.0, yaw]))
        odometry.filter.place = odometry.filter.place + rng.uniform(-0.05, 0.05, 3)
        moved = odometry.moved(0.02)
        assert moved.around == pytest.approx(turned / 0.02)
        x, y = place(x, y, yaw - turned / 2, 0.02 * moved.forward, 0.02 * moved.left)
        z += 0.02 * moved.up
    np.testing.assert_allclose([x, y, z], odometry.filter.position, atol=1e-9)


def test_robots_on_a_course_reckon_how_they_move_and_where_they_are():
    errors = PoseErrors(noise=0.02, yaw_noise=0.035, delay=0.06, rate=50)
    worlds = CourseWorlds(official(), load_skills(), [11, 12], randomize=True, pose_errors=errors)
    way, off = np.array(worlds.robots.pose), []
    for _ in range(150):
        worlds.step()
        known, true = worlds.robots.estimated, worlds.robots.pose
        assert known is not None
        off.append(known[:, :2] - true[:, :2])
    assert worlds.senses is not None
    walked = np.linalg.norm(worlds.robots.pose[:, :2] - way[:, :2], axis=1)
    assert (walked > 1.0).all()
    for i, one in enumerate(worlds.senses.odometry):
        assert np.linalg.norm(one.filter.position[:2] - worlds.robots.pose[i, :2]) < 0.1 * walked[i]
    # an estimate is as of the beginning of a step, in which robots go on by up to 4 cm; noise is 2 cm in each axis
    assert np.std(np.diff(np.array(off[25:]), axis=0)) < 0.012


def test_a_robot_whose_legs_cannot_be_read_goes_by_its_model(tmp_path: Path):
    robot = default_robot()
    text = robot.mjcf.read_text().replace('<geom name="foot_front_left"', '<geom name="paw"')
    (tmp_path / "robot.xml").write_text(text)
    assert odometry_of(replace(robot, mjcf=tmp_path / "robot.xml")) is None
    assert odometry_of(robot) is not None


def test_poses_without_errors_need_no_odometry():
    worlds = CourseWorlds(official(), load_skills(), [11])
    assert worlds.senses is None and worlds.robots.listener is None
    assert own_senses(worlds.robots) is not None and worlds.robots.listener is not None


def test_a_robot_that_nobody_tells_where_it_is_knows_it_by_itself_and_the_map():
    worlds = CourseWorlds(official(), load_skills(), [11, 12], randomize=True, own_odometry=True)
    began = np.array(worlds.robots.pose)
    for _ in range(200):
        worlds.step()
    known, true = worlds.robots.estimated, worlds.robots.pose
    walked = np.linalg.norm(true[:, :2] - began[:, :2], axis=1)
    assert known is not None and (walked > 1.5).all()
    off = np.linalg.norm(known[:, :2] - true[:, :2], axis=1)
    assert ((off > 0) & (off < 0.2)).all(), "by its own senses: near the truth, and not the truth"
    assert (np.abs(known[:, 2] - worlds.robots.height) < 0.04).all(), "the map says how high it stands"


@pytest.mark.parametrize("options", [{"pose_noise": 0.1}, {"pose_delay": 0.1}])
def test_own_odometry_is_not_made_worse_by_errors_of_poses(options):
    for kind in (CourseRunOptions, EvaluateOptions):
        with pytest.raises(InputError, match="own-odometry"):
            kind(own_odometry=True, **options)
    with pytest.raises(InputError, match="sim2sim"):
        EvaluateOptions(own_odometry=True, sim2sim=True)
