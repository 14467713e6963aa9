"""A robot of one's own: a quadruped that differs from the shipped one in everything goes through the whole stack from a
folder of its own, which nothing in the project knows of."""

import json
import shutil
import textwrap

import mujoco
import numpy as np
import pytest

from policies.bundle.reader import Bundle
from policies.evaluation.course_run import run
from policies.evaluation.options import CourseRunOptions
from policies.learning.options import TrainOptions
from policies.learning.train import train
from policies.skills.library import load_skills
from robot.loop.replay import replay
from robot.options import OnboardOptions, ReplayOptions
from robot.transports.simulation import onboard_in_simulation
from sim import gait as clocks
from sim.course.scene import build, foot_forces, robot_spec
from sim.course.terrain import Terrain
from sim.errors import InputError
from sim.robots.description import VARIABLE, Robot, default_robot, find_robot, robot_by_name
from sim.robots.gaits import CORNERS
from sim.tasks.skills import TASKS

NAME = "made_up"
THIGH, SHANK = 0.16, 0.18
LEGS = {"fr": (1, -1), "fl": (1, 1), "hr": (-1, -1), "hl": (-1, 1)}
"""Leg -> where it stands: ahead or behind, left or right."""
DESCRIPTION = """
from pathlib import Path

import numpy as np

from sim.robots.description import Drives, Fall, Leg, Robot, Spread, derived_gains
from sim.robots.footprint import Footprint

CORNER = {"fr": "front_right", "fl": "front_left", "hr": "hind_right", "hl": "hind_left"}
STRONG, WEAK = derived_gains(0.01, 20.0), derived_gains(0.02, 30.0, frequency=8.0)


def robot():
    legs, pose, folded, lower, upper = [], [], [], [], []
    for leg in CORNER:
        sign = 1.0 if leg[0] == "f" else -1.0  # front knees point back, hind knees forward
        joints = (f"{leg}_roll", f"{leg}_swing", f"{leg}_bend")
        legs.append(Leg(CORNER[leg], *joints, f"{leg}_toe", f"{leg}_shin", (-sign, 1.8 * sign), -1.0))
        pose += [0.0, 0.8 * sign, -1.5 * sign]
        folded += [0.0, 1.2 * sign, -2.3 * sign]
        low, high = sorted((-0.5 * sign, -2.5 * sign))
        lower += [-0.8, -2.0, low]
        upper += [0.8, 2.0, high]
    gains = [STRONG, STRONG, WEAK] * len(legs)
    return Robot(
        name="made_up",
        mjcf=Path(__file__).with_name("robot.xml"),
        joint_names=tuple(name for leg in legs for name in (leg.abduction, leg.hip, leg.knee)),
        legs=tuple(legs),
        default_pose=np.array(pose),
        folded_pose=np.array(folded),
        joint_lower=np.array(lower),
        joint_upper=np.array(upper),
        kp=np.array([g.kp for g in gains]),
        kd=np.array([g.kd for g in gains]),
        action_scale=np.array([2 * g.action_scale for g in gains]),
        torque_limit=np.array([20.0, 20.0, 30.0] * 4),
        no_load_speed=np.array([30.0, 30.0, 20.0] * 4),
        armature=np.array([0.01, 0.01, 0.02] * 4),
        joint_friction=np.array([0.1, 0.1, 0.2] * 4),
        joint_damping=np.array(0.02),
        action_limit=4.0,
        control_period=0.02,
        standing_height=0.27,
        foot_radius=0.02,
        knee_radius=0.025,
        footprint=Footprint(0.3, 0.3, 0.15, stepping=(0.03, 0.03, 0.01), stance=(0.2, 0.15)),
        fall=Fall(clearance=0.11, learning_clearance=0.1, low=0.23),
        spread=Spread((-0.3, 0.5), joint_friction=(0.1, 0.3), joint_damping=(0.01, 0.03), no_load_speed=(27, 33)),
        drives=Drives(watchdog=0.05, then="hold"),
        base_body="hull",
        trunk_geoms=("hull",),
        imu_site="imu_link",
    )
"""


def model() -> str:
    """The made-up robot's MJCF: legs straight down at zero, every axis of a joint along +x or +y."""
    legs = "".join(
        f"""
        <body name="{leg}_housing" pos="{0.19 * ahead} {0.06 * left} 0">
          <inertial pos="0 0 0" mass="0.5" diaginertia="0.0005 0.0005 0.0005"/>
          <joint name="{leg}_roll" axis="1 0 0" range="-0.8 0.8" armature="0.01" damping="0.02" frictionloss="0.1"/>
          <body name="{leg}_thigh" pos="0 {0.06 * left} 0">
            <inertial pos="0 0 -0.05" mass="0.8" diaginertia="0.003 0.003 0.0006"/>
            <joint name="{leg}_swing" axis="0 1 0" range="-2 2" armature="0.01" damping="0.02" frictionloss="0.1"/>
            <geom name="{leg}_thigh" type="capsule" size="0.02" fromto="0 0 0 0 0 -{THIGH}"/>
            <body name="{leg}_shin" pos="0 0 -{THIGH}">
              <inertial pos="0 0 -0.08" mass="0.2" diaginertia="0.0006 0.0006 0.00003"/>
              <joint name="{leg}_bend" axis="0 1 0" range="{"-2.5 -0.5" if ahead > 0 else "0.5 2.5"}" armature="0.02"
                damping="0.02" frictionloss="0.2"/>
              <geom name="{leg}_shin" type="capsule" size="0.012" fromto="0 0 0 0 0 -{SHANK}"/>
              <geom name="{leg}_toe" type="sphere" size="0.02" pos="0 0 -{SHANK}"/>
              <site name="{leg}_toe" type="sphere" size="0.024" pos="0 0 -{SHANK}"/>
            </body>
          </body>
        </body>"""
        for leg, (ahead, left) in LEGS.items()
    )
    return f"""<mujoco model="{NAME}"><compiler angle="radian" autolimits="true"/>
    <default><geom density="0" contype="1" conaffinity="0" condim="3" friction="0.8 0.02 0.01"/></default>
    <worldbody><body name="hull" pos="0 0 0.3"><freejoint name="base"/><site name="imu_link"/>
      <inertial pos="0 0 0" mass="6" diaginertia="0.03 0.08 0.09"/>
      <geom name="hull" type="box" size="0.22 0.08 0.05"/>{legs}
    </body></worldbody></mujoco>"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The folder of the made-up robot, known to nobody."""
    folder = tmp_path_factory.mktemp("robots") / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(textwrap.dedent(DESCRIPTION))
    (folder / "robot.xml").write_text(model())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        with pytest.raises(InputError, match=NAME):
            robot_by_name(NAME)
        yield folder


@pytest.fixture(scope="module")
def described(own) -> Robot:
    return find_robot(str(own))


@pytest.fixture(scope="module")
def bundle(own, tmp_path_factory):
    """Ten iterations of walking, exported."""
    out = tmp_path_factory.mktemp("run")
    summary = train(TrainOptions("walk", robot=str(own), steps=10 * 24 * 24, worlds=24, threads=1, out=out))
    assert "--robot" in summary["command"] and not summary["interrupted"]
    return out / "walk.onnx"


def test_it_is_known_by_its_name_once_its_folder_was_given(described):
    again = robot_by_name(NAME)
    assert again.joint_names == described.joint_names != default_robot().joint_names
    assert [leg.corner for leg in described.legs] != list(CORNERS)


def test_it_stands_in_its_pose_on_its_own_gains(described):
    world = build(described, Terrain())
    data = mujoco.MjData(world)
    data.qpos[2], data.qpos[7:] = described.standing_height + 0.01, described.default_pose
    data.ctrl[:] = described.default_pose
    for _ in range(750):
        mujoco.mj_step(world, data)
    assert data.qpos[2] == pytest.approx(described.standing_height, abs=0.03) and abs(data.qpos[3]) > 0.99
    assert (data.sensordata[foot_forces(world, described)] > 5.0).all()
    stiffness = -world.actuator_biasprm[:, 1]
    np.testing.assert_allclose(stiffness, described.kp)
    assert len(set(stiffness.tolist())) == 2


def test_its_legs_lengthen_and_swing_forward_whichever_way_their_knees_point(described):
    """The clock's stance legs reach down, its swing legs fold, at every leg and under its hip."""
    world = robot_spec(described).compile()

    def feet(joints: np.ndarray) -> np.ndarray:
        data = mujoco.MjData(world)
        data.qpos[:7], data.qpos[7:] = (0, 0, 1, 1, 0, 0, 0), joints
        mujoco.mj_kinematics(world, data)
        return np.array([data.geom(leg.foot).xpos for leg in described.legs])

    phase, command = np.float32(0.25), np.array([1.0, 0, 0], np.float32)
    offset = clocks.joint_offset(np, described, described.trot, phase, command, np.float32(0.1))
    moved = feet(described.default_pose + offset) - feet(described.default_pose)
    swing = clocks.swing(np, described, described.trot, phase)
    assert ((moved[:, 2] < -0.02) == (swing == 0)).all() and ((moved[:, 2] > 0.02) == (swing > 0)).all()
    assert np.abs(moved[:, 0]).max() < 0.03
    ahead = np.array(described.default_pose)
    ahead[described.leg_joints[:, 1]] += [0.2 * leg.forward for leg in described.legs]
    assert (feet(ahead)[:, 0] > feet(described.default_pose)[:, 0] + 0.02).all()


def test_every_skill_has_its_task_and_a_jump_needs_a_bound(described):
    assert TASKS["climb"](described).layout.joints == described.joints
    with pytest.raises(InputError, match="bound"):
        TASKS["jump"](described)


def test_its_policy_carries_its_numbers(bundle, described):
    loaded = Bundle.load(bundle)
    assert loaded.robot.name == NAME and loaded.metadata.kp == described.kp.tolist()
    assert loaded.metadata.joint_names == list(described.joint_names)


def test_its_bundles_are_found_in_its_own_folder(bundle, own):
    (own / "models").mkdir()
    shutil.copy(bundle, own / "models" / "walk.onnx")
    skills = load_skills("specialists", str(own))
    assert skills.robot.name == NAME and skills.able == ("walk",) and set(skills.uses.values()) == {0}
    with pytest.raises(InputError, match=f"{NAME} has no generalist"):
        load_skills("generalist", NAME)
    with pytest.raises(InputError, match=f"is for the robot {NAME}, not"):
        load_skills(str(bundle), default_robot().name)
    assert load_skills(str(bundle)).robot.name == NAME


def test_it_runs_a_course(bundle):
    report = run(CourseRunOptions(str(bundle), seed=1, randomize=True))
    assert report["end"] not in ("", "diverged", "running")
    assert 1.0 < report["torque_peak_nm"] <= 30.0


def test_the_loop_steps_it_and_its_recording_replays(bundle, tmp_path):
    record = tmp_path / "own.mcap"
    report = onboard_in_simulation(OnboardOptions(str(bundle), NAME, record=record), log=lambda text: None)
    states = json.dumps(report["controller"])
    assert "running" in states, states
    found = replay(ReplayOptions(record))
    assert found["steps"] > 50 and found["equal"], found["first_difference"]


@pytest.mark.parametrize(
    "wrong, says",
    [
        (("fl_bend", "fl_other"), "joints"), (('name="hull" type', 'name="shell" type'), "geom 'hull'"),
        (("imu_link", "imu"), "site 'imu_link'"), (("</mujoco>", ""), "cannot read"),
        (('range="-0.8 0.8" armature="0.01"', 'range="-0.8 0.8" armature="0.011"'), "armature"),
        (('range="-2 2"', 'range="-2 1.9"'), "upper limit"), (('damping="0.02"', 'damping="0.03"'), "damping"),
        (('frictionloss="0.1"', 'frictionloss="0.0"'), "dry friction"),
    ],
)  # fmt: skip
def test_a_model_that_is_not_as_described_is_refused(described, tmp_path, wrong, says):
    from dataclasses import replace

    file = tmp_path / "robot.xml"
    file.write_text(model().replace(*wrong))
    with pytest.raises(InputError, match=says):
        robot_spec(replace(described, mjcf=file))


@pytest.mark.parametrize(
    "wrong, says",
    [
        (("np.array(0.02)", "np.zeros(3)"), "joint_damping"), (("[20.0, 20.0, 30.0]", "[20.0, -1.0, 30.0]"), "above 0"),
        (('"hl": "hind_left"', '"hl": "tail"'), "hind_left"), (("0.8 * sign", "4.0 * sign"), "default_pose"),
        (("def robot()", "def other()"), "robot"), (('name="made_up"', 'name="barkour_v1"'), "must have"),
        (("import numpy", "import nonumpy"), "cannot be read"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_is_refused_in_one_line(tmp_path, monkeypatch, wrong, says):
    monkeypatch.setenv(VARIABLE, "")
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / "__init__.py").write_text(DESCRIPTION.replace(*wrong))
    (folder / "robot.xml").write_text(model())
    with pytest.raises(InputError, match=says) as raised:
        find_robot(str(folder))
    assert "\n" not in str(raised.value)
