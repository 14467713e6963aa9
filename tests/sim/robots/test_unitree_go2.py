"""Our Unitree Go2 against published figures of the robot, and against its description.

The figures are numbers from two BSD-3 sources of Unitree's: the robot's MJCF in google-deepmind/mujoco_menagerie
(unitree_go2/go2.xml, commit d4da3fd3), whose inertias are principal moments with a quaternion, and, for the calf, the
URDF in unitreerobotics/unitree_ros (go2_description, commit d6f13aad), whose calf and foot are two links. Our model
holds full tensors and one calf, so neither was written down twice.
"""

import mujoco
import numpy as np
import pytest

from policies.evaluation.walking import Walker
from policies.skills.library import load_skills
from sim.course.scene import TRAINING, build, foot_forces, robot_spec
from sim.course.terrain import Terrain
from sim.envs.worlds import SimulatedRobots, flat, world_seeds
from sim.robots.description import robot_by_name

ROBOT = robot_by_name("unitree_go2")
SIDES = {"FR": (1, -1), "FL": (1, 1), "RR": (-1, -1), "RL": (-1, 1)}
"""Leg -> (1 front or -1 rear, 1 left or -1 right), in the order of the motors in Unitree's messages."""
HIP_AT, THIGH_AT, LINK, FOOT_X, FOOT_RADIUS = (0.1934, 0.0465), 0.0955, 0.213, -0.002, 0.022
BASE = (6.921, (0.021112, 0, -0.005366), (0.107027, 0.0980771, 0.0244531),
        (-0.000543471, 0.713435, -0.00173769, 0.700719))  # fmt: skip
"""Mass, centre of mass, principal moments, their quaternion (w, x, y, z)."""
HIP = (0.678, (-0.0054, 0.00194, -0.000105), (0.00088403, 0.000596003, 0.000479967),
       {"FL": (0.497014, 0.499245, 0.505462, 0.498237), "FR": (0.498237, 0.505462, 0.499245, 0.497014),
        "RL": (0.505462, 0.498237, 0.497014, 0.499245), "RR": (0.499245, 0.497014, 0.498237, 0.505462)})  # fmt: skip
"""Of a hip; the centre of mass is the front left one's."""
THIGH = (1.152, (-0.00374, -0.0223, -0.0327), (0.00594973, 0.00584149, 0.000878787),
         {1: (0.829533, 0.0847635, -0.0200632, 0.551623), -1: (0.551623, -0.0200632, 0.0847635, 0.829533)})  # fmt: skip
"""Of a thigh by side; the centre of mass is a left one's."""
CALF = (0.154, (0.00548, -0.000975, -0.115), (0.00108, 3.4e-07, 1.72e-05, 0.0011, 8.28e-06, 3.29e-05))
"""URDF: mass, centre of mass and inertia (xx, xy, xz, yy, yz, zz) of a left calf without its foot."""
FOOT = (0.04, (0, 0, -0.213), 9.6e-06)
RANGES = {"hip": {1: (-1.0472, 1.0472), -1: (-1.0472, 1.0472)}, "thigh": {1: (-1.5708, 3.4907), -1: (-0.5236, 4.5379)},
          "calf": {1: (-2.7227, -0.83776), -1: (-2.7227, -0.83776)}}  # fmt: skip


def turned(quat, moments) -> np.ndarray:
    """Principal moments in the body's axes, `[3, 3]`."""
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.array(quat) / np.linalg.norm(quat))
    rotation = matrix.reshape(3, 3)
    return rotation @ np.diag(moments) @ rotation.T


def moved(mass: float, by: np.ndarray) -> np.ndarray:
    """What a mass adds to the inertia about a point `by` away."""
    return mass * (by @ by * np.eye(3) - np.outer(by, by))


def published(leg: str, part: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Mass, centre of mass and inertia about it in the body's axes."""
    end, side = SIDES[leg]
    mirror = np.array([1, side, 1])
    if part == "hip":
        mass, com, moments, quats = HIP
        return mass, np.array(com) * (end, side, 1), turned(quats[leg], moments)
    if part == "thigh":
        mass, com, moments, quats = THIGH
        return mass, np.array(com) * mirror, turned(quats[side], moments)
    (mass, com, (xx, xy, xz, yy, yz, zz)), (foot, foot_at, foot_moment) = CALF, FOOT
    com, foot_at, total = np.array(com), np.array(foot_at), mass + foot
    middle = (mass * com + foot * foot_at) / total
    inertia = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]) + moved(mass, com - middle)
    inertia += foot_moment * np.eye(3) + moved(foot, foot_at - middle)
    return total, middle * mirror, inertia * np.outer(mirror, mirror)


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return robot_spec(ROBOT).compile()


def inertia_of(model: mujoco.MjModel, body: str) -> np.ndarray:
    return turned(model.body(body).iquat, model.body(body).inertia)


def test_masses_and_inertias_are_the_published_ones(model):
    for body, (mass, com, inertia) in {
        "base": (BASE[0], np.array(BASE[1]), turned(BASE[3], BASE[2])),
        **{f"{leg}_{part}": published(leg, part) for leg in SIDES for part in ("hip", "thigh", "calf")},
    }.items():
        here = model.body(body)
        assert here.mass[0] == pytest.approx(mass, rel=1e-9), body
        np.testing.assert_allclose(here.ipos, com, atol=2e-7, err_msg=body)
        np.testing.assert_allclose(inertia_of(model, body), inertia, atol=3e-6 * np.trace(inertia), err_msg=body)
    assert model.nbody == 14 and model.body_subtreemass[0] == pytest.approx(15.017, abs=1e-6)


def test_joints_are_in_the_order_of_unitrees_messages_with_the_published_ranges(model):
    wanted = [f"{leg}_{part}_joint" for leg in SIDES for part in ("hip", "thigh", "calf")]
    assert list(ROBOT.joint_names) == wanted == [model.joint(j).name for j in range(1, model.njnt)]
    assert [model.actuator(a).name for a in range(model.nu)] == wanted
    ranges = [RANGES[part][end] for end, _ in SIDES.values() for part in ("hip", "thigh", "calf")]
    np.testing.assert_array_equal(model.jnt_range[1:], ranges)
    np.testing.assert_allclose(np.stack([ROBOT.joint_lower, ROBOT.joint_upper], 1), ranges, rtol=1e-6)
    assert model.jnt_limited[1:].all()


def test_feet_are_where_the_published_lengths_put_them_at_100_poses(model):
    rng, data = np.random.default_rng(0), mujoco.MjData(model)
    for _ in range(100):
        quat, place = rng.standard_normal(4), rng.uniform(-2, 2, 3)
        angles = rng.uniform(ROBOT.joint_lower, ROBOT.joint_upper)
        data.qpos[:] = [*place, *(quat / np.linalg.norm(quat)), *angles]
        mujoco.mj_kinematics(model, data)
        base = data.body("base").xmat.reshape(3, 3)
        for (leg, (end, side)), (q1, q2, q3) in zip(SIDES.items(), angles.reshape(4, 3), strict=True):
            x = -LINK * (np.sin(q2) + np.sin(q2 + q3)) + FOOT_X * np.cos(q2 + q3)
            z = -LINK * (np.cos(q2) + np.cos(q2 + q3)) - FOOT_X * np.sin(q2 + q3)
            y = THIGH_AT * side
            local = (x, y * np.cos(q1) - z * np.sin(q1), y * np.sin(q1) + z * np.cos(q1))
            foot = base @ (np.array([HIP_AT[0] * end, HIP_AT[1] * side, 0]) + local) + place
            np.testing.assert_allclose(data.geom(f"{leg}_foot").xpos, foot, atol=1e-6)
            np.testing.assert_allclose(data.site(f"{leg}_foot").xpos, foot, atol=1e-6)


def test_sizes_and_sensors_are_the_published_ones(model):
    assert {model.geom(leg.foot).size[0] for leg in ROBOT.legs} == {FOOT_RADIUS} == {ROBOT.foot_radius}
    np.testing.assert_array_equal(model.site(ROBOT.imu_site).pos, (-0.02557, 0, 0.04232))
    assert model.body(model.site(ROBOT.imu_site).bodyid[0]).name == ROBOT.base_body


def test_a_calf_trades_speed_for_torque():
    legs = ROBOT.leg_joints
    np.testing.assert_allclose(ROBOT.torque_limit[legs], [[23.7, 23.7, 45.43]] * 4)
    np.testing.assert_allclose(ROBOT.no_load_speed[legs], [[30.1, 30.1, 15.70]] * 4, rtol=1e-3)
    assert (ROBOT.kp[legs[:, 2]] > ROBOT.kp[legs[:, 1]]).all()


def test_it_stands_on_its_own_gains_and_rises_from_the_ground():
    world = build(ROBOT, Terrain(), options=TRAINING)
    data = mujoco.MjData(world)
    data.qpos[2], data.qpos[7:], data.ctrl[:] = 0.15, ROBOT.folded_pose, ROBOT.folded_pose
    mujoco.mj_step(world, data, 250)
    assert data.qpos[2] < ROBOT.fall.clearance  # it lies, and counts as down
    for share in np.linspace(0, 1, 375):
        data.ctrl[:] = ROBOT.folded_pose + share * (ROBOT.default_pose - ROBOT.folded_pose)
        mujoco.mj_step(world, data)
    mujoco.mj_step(world, data, 250)
    assert data.qpos[2] == pytest.approx(ROBOT.standing_height, abs=0.01) and abs(data.qpos[3]) > 0.999
    assert (data.sensordata[foot_forces(world, ROBOT)] > 10.0).all()


def test_its_shipped_walker_walks():
    """Robots of physics of their own that are asked for 0.8 m/s."""
    skills = load_skills("specialists", ROBOT.name)
    bundle = skills.bundles[skills.uses["walk"]]
    assert "walk" in skills.able and bundle.metadata.joint_names == list(ROBOT.joint_names)
    robots = SimulatedRobots(ROBOT, build(ROBOT, Terrain()), world_seeds(0, 6), randomize=True)
    robots.place(np.zeros(6), np.zeros(6), np.zeros(6), flat)
    walker, speeds = Walker(bundle, robots), []
    for _ in range(150):
        walker.step(np.tile(np.array([0.8, 0.0, 0.0], np.float32), (6, 1)))
        speeds.append(robots.velocity[:, 0])
    assert walker.fallen.sum() <= 1
    assert np.median(speeds[75:]) == pytest.approx(0.8, abs=0.25)
