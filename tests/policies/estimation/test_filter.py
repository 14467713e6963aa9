"""The filter over IMU, joints and feet: kinematics against MuJoCo, made-up motion, the simulator's truth."""

from dataclasses import replace
from pathlib import Path

import mujoco
import numpy as np
import pytest

from policies.estimation.filter import ContactFilter
from policies.estimation.kinematics import GRAVITY, kinematics_of, matrix_of, quaternion_of, rotation
from robot.estimation.drift import drift
from robot.options import RobotDriftOptions
from sim.course.scene import build
from sim.course.terrain import Terrain
from sim.errors import InputError
from sim.robots.description import Robot, robot_by_name

ROBOTS = ("barkour_v0", "unitree_go2")


@pytest.fixture(scope="module", params=ROBOTS)
def robot(request) -> Robot:
    return robot_by_name(request.param)


def test_feet_are_where_mujoco_has_them_and_move_as_it_says(robot):
    legs, model = kinematics_of(robot), build(robot, Terrain())
    data, rng = mujoco.MjData(model), np.random.default_rng(1)
    assert legs.mass == pytest.approx(float(model.body_subtreemass[1]))
    for _ in range(10):
        joints, speeds = rng.uniform(robot.joint_lower, robot.joint_upper), rng.normal(size=robot.joints)
        data.qpos[:] = [0, 0, 0, 1, 0, 0, 0, *joints]
        data.qvel[:] = [*np.zeros(6), *speeds]
        mujoco.mj_forward(model, data)
        feet = legs.feet(joints)
        for i, leg in enumerate(robot.legs):
            own = speeds[legs.joints[i]]
            geom = model.geom(leg.foot).id
            np.testing.assert_allclose(feet.place[i], data.geom_xpos[geom], atol=1e-9)
            moved = np.zeros(6)
            mujoco.mj_objectVelocity(model, data, mujoco.mjtObj.mjOBJ_GEOM, geom, moved, 0)
            np.testing.assert_allclose(feet.axes[i] @ own, moved[:3], atol=1e-9)
            np.testing.assert_allclose(feet.jacobian[i] @ own, moved[3:], atol=1e-9)


def test_quaternions_and_matrices_are_inverse():
    rng = np.random.default_rng(2)
    turns = [rotation(rng.normal(size=3) * 2) for _ in range(20)] + [np.diag([1.0, -1.0, -1.0]), np.eye(3)]
    for turn in turns:
        np.testing.assert_allclose(matrix_of(quaternion_of(turn)), turn, atol=1e-12)


def standing(robot: Robot) -> tuple[ContactFilter, np.ndarray, np.ndarray]:
    """A filter at the start, the standing joints, and the torques with which legs bear a robot."""
    filter_ = ContactFilter(robot)
    filter_.begin(np.array([1.0, 2.0, robot.standing_height]), np.array([1.0, 0.0, 0.0, 0.0]))
    joints, torque = np.asarray(robot.default_pose, float), np.zeros(robot.joints)
    up = np.array([0.0, 0.0, filter_.legs.mass * GRAVITY / 4])
    for leg in range(4):
        torque[filter_.legs.joints[leg]] = -filter_.legs.feet(joints).jacobian[leg].T @ up
    return filter_, joints, torque


def test_a_robot_that_stands_stays_where_it_is_and_finds_its_imus_biases(robot):
    filter_, joints, torque = standing(robot)
    start, still = filter_.position, np.zeros(robot.joints)
    gyro, force = np.array([0.02, -0.015, 0.0]), np.array([0.0, 0.0, GRAVITY + 0.1])
    for _ in range(1200):
        filter_.step(0.004, gyro, force, joints, still, torque)
    assert filter_.standing.all()
    np.testing.assert_allclose(filter_.position, start, atol=0.01)
    np.testing.assert_allclose(filter_.base_velocity, 0.0, atol=0.03)
    np.testing.assert_allclose(filter_.gyro_bias[:2], gyro[:2], atol=6e-3)
    assert np.linalg.eigvalsh(filter_.covariance).min() > -1e-9


def test_a_base_that_sways_over_its_feet_is_followed(robot):
    """The joints say where the base is over feet that stand; the filter goes there although the IMU is silent."""
    filter_, joints, torque = standing(robot)
    filter_ = ContactFilter(robot, replace(filter_.noise, accelerometer=5.0))
    start = np.array([0.0, 0.0, robot.standing_height])
    filter_.begin(start, np.array([1.0, 0.0, 0.0, 0.0]))
    lean = np.zeros(robot.joints)
    still, force = np.zeros(robot.joints), np.array([0.0, 0.0, GRAVITY])
    for _ in range(100):
        filter_.step(0.004, np.zeros(3), force, joints, still, torque)
    lean[robot.leg_joints[:, 1]] = 0.05 * robot.leg_signs[2]  # all legs swing forward by as much, the base goes back
    before, steps = filter_.position, 250
    for k in range(steps):
        filter_.step(0.004, np.zeros(3), force, joints + lean * (k + 1) / steps, lean / (0.004 * steps), torque)
    feet = filter_.legs.feet(joints).place - filter_.legs.feet(joints + lean).place
    moved, expected = filter_.position - before, np.mean(feet, 0)
    rolled = robot.foot_radius * 0.05
    assert expected[0] < -0.005
    np.testing.assert_allclose(moved[:2], expected[:2], atol=rolled + 2e-3)


def test_a_leg_that_swings_bears_nothing_and_a_lost_filter_believes_loads_again(robot):
    filter_, joints, torque = standing(robot)
    fast = np.zeros(robot.joints)
    fast[filter_.legs.joints[0]] = 8.0
    force = np.array([0.0, 0.0, GRAVITY])
    for _ in range(20):
        filter_.step(0.004, np.zeros(3), force, joints, fast, torque)
    assert not filter_.standing[0] and filter_.standing[1:].all()
    filter_.velocity = np.array([3.0, 0.0, 0.0])
    filter_.standing[:] = False
    filter_._touching[:] = 0.0
    for _ in range(500):
        filter_.step(0.004, np.zeros(3), force, joints, np.zeros(robot.joints), torque)
    assert filter_.standing.all() and np.linalg.norm(filter_.base_velocity) < 0.1


@pytest.mark.parametrize("name", ROBOTS)
def test_a_walk_is_reckoned_to_a_few_parts_in_a_hundred(name):
    out = drift(RobotDriftOptions(name, runs=1, seconds=4.0, seed=2))
    assert out.fell == 0 and out.way_m > 0.5
    assert out.drift_per_metre < 0.1 and out.velocity_error < 0.2 and out.tilt_error_deg < 3.0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('<freejoint name="base"/>', '<freejoint name="base"/><body name="b" euler="0 0 1"/>'), None),
        (('<body name="thigh_front_left"', '<body euler="1 0 0" name="thigh_front_left"'), "euler"),
        (("<mujoco", "<!-- <mujoco"), "cannot read"),
        (('<geom name="foot_front_left"', '<geom name="paw"'), "foot_front_left"),
        (('<site name="imu"/>', '<site name="imu" quat="0 1 0 0"/>'), "IMU"),
        (('<joint name="hip_front_left"', '<site name="hip_front_left"'), "different numbers of joints"),
    ],
)
def test_a_model_that_cannot_be_read_here_is_refused_in_one_line(tmp_path: Path, change, said):
    robot = robot_by_name("barkour_v0")
    text = robot.mjcf.read_text()
    assert change[0] in text
    other = tmp_path / "robot.xml"
    other.write_text(text.replace(*change, 1))
    if said is None:
        kinematics_of(replace(robot, mjcf=other))
        return
    with pytest.raises(InputError, match=said) as error:
        kinematics_of(replace(robot, mjcf=other))
    assert "\n" not in str(error.value)


def test_a_robot_without_a_walker_is_refused(tmp_path):
    with pytest.raises(InputError):
        drift(RobotDriftOptions("barkour_v0", policy=tmp_path / "none.onnx"))
