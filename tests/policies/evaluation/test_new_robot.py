"""From somebody's file to a robot of one's own: what is taken over, what is worked out, what is refused."""

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import mujoco
import numpy as np
import pytest

from policies.bundle.shipped import folder as shipped
from policies.evaluation import model_trial, new_robot
from policies.evaluation.new_robot import RobotAdded, add
from policies.evaluation.options import RobotAddOptions
from policies.learning import checkpoint
from policies.learning.translation import translate
from sim.course.scene import robot_spec
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.robots.description import Robot, default_robot, find_robot, robot_by_name
from sim.tasks.skills import TASKS

LEGS = {"rr": (-1, -1), "lf": (1, 1), "rl": (-1, 1), "fr": (1, -1)}
"""A URDF's legs: ahead or behind, left or right; knees of all bend to the rear."""
EFFORT, VELOCITY, THIGH, SHANK, FOOT = 30.0, 21.0, 0.18, 0.2, 0.02
LINK = (
    '<inertial><origin xyz="0 0 {z}"/><mass value="{m}"/>'
    '<inertia ixx="{i}" ixy="0" ixz="0" iyy="{i}" iyz="0" izz="{i}"/></inertial>'
)
JOINT = (
    '<joint name="{name}" type="revolute"><parent link="{up}"/><child link="{down}"/><origin xyz="{at}"/>'
    '<axis xyz="{axis}"/><limit lower="{low}" upper="{high}" effort="{effort}" velocity="{velocity}"/>'
    '<dynamics damping="0.1" friction="0.15"/></joint>'
)


def urdf() -> str:
    """A quadruped whose looks are meshes that are not there, and whose feet are links of their own."""
    parts = []
    for leg, (ahead, left) in LEGS.items():
        parts += [f'<link name="{leg}_a">{LINK.format(z=0, m=0.5, i=0.0006)}</link>']
        parts += [
            f'<link name="{leg}_b">{LINK.format(z=-0.05, m=0.9, i=0.003)}<visual><geometry><mesh filename="no.stl"/>'
            f'</geometry></visual><collision><origin xyz="0 0 {-THIGH / 2}"/><geometry><box size="0.03 0.03 {THIGH}"/>'
            "</geometry></collision></link>"
        ]
        parts += [
            f'<link name="{leg}_c">{LINK.format(z=-0.08, m=0.2, i=0.0008)}<collision><origin xyz="0 0 -0.1"/><geometry>'
            f'<cylinder radius="0.01" length="0.15"/></geometry></collision></link>'
        ]
        parts += [
            f'<link name="{leg}_d">{LINK.format(z=0, m=0.05, i=0.00001)}<collision><geometry>'
            f'<sphere radius="{FOOT}"/></geometry></collision></link>'
        ]
        numbers = {"effort": EFFORT, "velocity": VELOCITY}
        sign = -1 if leg in ("rr", "fr") else 1  # on the right, joints count the other way
        for name, up, down, at, axis, low, high in (
            ("spread", "torso", f"{leg}_a", f"{0.2 * ahead} {0.07 * left} 0", f"{sign} 0 0", -0.7, 0.7),
            ("swing", f"{leg}_a", f"{leg}_b", f"0 {0.05 * left} 0", f"0 {sign} 0", -2.0, 2.0),
            ("bend", f"{leg}_b", f"{leg}_c", f"0 0 {-THIGH}", f"0 {sign} 0", -2.6 if sign > 0 else 0.3,
             -0.3 if sign > 0 else 2.6),
        ):  # fmt: skip
            parts += [
                JOINT.format(name=f"{leg}_{name}", up=up, down=down, at=at, axis=axis, low=low, high=high, **numbers)
            ]
        parts += [
            f'<joint name="{leg}_e" type="fixed"><parent link="{leg}_c"/><child link="{leg}_d"/>'
            f'<origin xyz="0 0 {-SHANK}"/>'
            "</joint>"
        ]
    box = '<collision><geometry><box size="0.4 0.16 0.1"/></geometry></collision>'
    torso = f'<link name="torso">{LINK.format(z=0, m=7, i=0.08)}{box}</link>'
    return f'<robot name="dog">{torso}{"".join(parts)}</robot>'


@pytest.fixture(scope="module", autouse=True)
def alone():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BARKOUR_ROBOTS", "")
        yield


@pytest.fixture(scope="module")
def added(tmp_path_factory) -> tuple[RobotAdded, Robot]:
    place = tmp_path_factory.mktemp("add")
    (place / "dog.urdf").write_text(urdf())
    found = add(RobotAddOptions("dog", place / "dog.urdf", place / "robots"))
    return found, find_robot(str(place / "robots" / "dog"))


def feet(robot: Robot, angles: np.ndarray) -> np.ndarray:
    """Feet from their hips' axes, `[legs, 3]`, m."""
    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:] = (0, 0, 1, 1, 0, 0, 0), angles
    mujoco.mj_kinematics(model, data)
    return np.array([data.geom(leg.foot).xpos - data.joint(leg.hip).xanchor for leg in robot.legs])


def test_it_stands_and_rises(added):
    found, robot = added
    assert found.status == 0 and found.stands and found.rises and found.upright > 0.99
    assert found.mass_kg == pytest.approx(7 + 4 * (0.5 + 0.9 + 0.2 + 0.05))
    assert robot.standing_height == pytest.approx(found.height_m, abs=2e-3)


def test_what_the_file_says_is_taken_over(added):
    found, robot = added
    assert found.guessed == ["armature"]
    np.testing.assert_allclose(robot.torque_limit, EFFORT)
    np.testing.assert_allclose(robot.no_load_speed, VELOCITY)
    np.testing.assert_allclose(robot.joint_friction, 0.15)
    assert robot.foot_radius == FOOT and robot.base_body == "torso"
    at = [robot.joint_names.index(f"rr_{name}") for name in ("spread", "swing", "bend")]
    np.testing.assert_allclose(robot.joint_lower[at], (-0.7, -2.0, 0.3), atol=1e-6)


def test_every_leg_stands_where_it_stands_and_moves_as_is_said(added):
    robot = added[1]
    names = {"front_left": "lf", "front_right": "fr", "hind_left": "rl", "hind_right": "rr"}
    assert [names[leg.corner] for leg in robot.legs] == list(LEGS)
    standing, folded = feet(robot, robot.default_pose), feet(robot, robot.folded_pose)
    np.testing.assert_allclose(standing[:, 0], 0.0, atol=0.01)
    np.testing.assert_allclose(standing[:, 2], -0.75 * (THIGH + SHANK), atol=0.01)
    assert (folded[:, 2] > standing[:, 2] + 0.05).all() and np.abs(folded[:, 0]).max() < 0.02
    for leg, joints in zip(robot.legs, robot.leg_joints, strict=True):
        longer, ahead = np.array(robot.default_pose), np.array(robot.default_pose)
        longer[joints[1:]] += 0.1 * np.array(leg.extension)
        ahead[joints[1]] += 0.1 * leg.forward
        k = robot.legs.index(leg)
        assert feet(robot, longer)[k, 2] < standing[k, 2] - 0.01
        assert abs(feet(robot, longer)[k, 0] - standing[k, 0]) < 0.01
        assert feet(robot, ahead)[k, 0] > standing[k, 0] + 0.01
    knees = [robot.leg_joints[i][2] for i, leg in enumerate(robot.legs)]
    assert len(set(np.sign(robot.default_pose[knees]))) == 2  # right and left count opposite ways


def test_it_can_be_trained_from_the_shipped_walker(added):
    task = TASKS["walk"](added[1])
    env = BatchedEnv(task, 4, 0, threads=1)
    env.step(np.zeros((4, 12), np.float32))
    arrays = checkpoint.load(shipped() / "walk")[0]
    translated = translate(arrays, TASKS["walk"](default_robot()), task)
    assert all(np.isfinite(values).all() for values in translated.values())


def test_a_mjcf_gives_what_is_described_by_hand(tmp_path):
    by_hand = robot_by_name("unitree_go2")
    found = add(RobotAddOptions("another", by_hand.mjcf, tmp_path))
    robot = find_robot(str(tmp_path / "another"))
    assert found.status == 0 and robot.joint_names == by_hand.joint_names
    assert [leg.corner for leg in robot.legs] == [leg.corner for leg in by_hand.legs]
    np.testing.assert_allclose(robot.joint_lower, by_hand.joint_lower, atol=1e-6)
    np.testing.assert_allclose(robot.armature, by_hand.armature)
    for ours, theirs in zip(robot.legs, by_hand.legs, strict=True):
        np.testing.assert_allclose(ours.extension, theirs.extension, atol=0.1)
        assert ours.forward == theirs.forward
    with pytest.raises(InputError, match="--force"):
        add(RobotAddOptions("another", by_hand.mjcf, tmp_path, force=False))


def test_pictures_and_a_ground_of_heights_are_left_out(tmp_path):
    root = ElementTree.parse(robot_by_name("unitree_go2").mjcf).getroot()
    added = ElementTree.fromstring(
        '<mujoco><asset><texture name="look" type="2d" file="look.png"/><material name="paint" texture="look"/>'
        '<hfield name="hills" file="hills.png" size="9 9 1 1"/></asset>'
        '<default><default class="painted"><geom material="paint"/></default></default>'
        '<worldbody><geom type="hfield" hfield="hills"/></worldbody></mujoco>'
    )
    root.extend(added)
    next(geom for geom in root.iter("geom") if geom.get("type") == "box").set("class", "painted")
    file = tmp_path / "painted.xml"
    file.write_bytes(ElementTree.tostring(root))
    assert add(RobotAddOptions("painted", file, tmp_path / "robots")).status == 0
    assert ".png" not in (tmp_path / "robots" / "painted" / "robot.xml").read_text()


def test_a_file_whose_parts_have_our_names_keeps_them_under_others(tmp_path):
    by_hand = robot_by_name("barkour_v0")  # has sites of its own at the feet, and sensors that read them
    assert add(RobotAddOptions("own_names", by_hand.mjcf, tmp_path)).status == 0
    assert add(RobotAddOptions("named_twice", tmp_path / "own_names" / "robot.xml", tmp_path)).status == 0
    again = find_robot(str(tmp_path / "named_twice"))
    assert [leg.corner for leg in again.legs] == [leg.corner for leg in by_hand.legs]


@pytest.mark.parametrize(
    "wrong, says",
    [
        (("<robot", "<robots"), "mismatched|cannot read"), (('<robot name="dog">', "<dog>"), "cannot read"),
        (('type="fixed"', 'type="revolute"'), "three hinges"),
        (("sphere radius=\"0.02\"", 'box size="1 1 1"'), "sphere"),
        (('axis xyz="1 0 0"', 'axis xyz="0 0 1"'), "must turn about x"),
        (('xyz="-0.2 -0.07 0"', 'xyz="0.2 -0.07 0"'), "corner"),
        (("<link", "<chain"), "cannot read|free joint"),
        (('xyz="-0.2 -0.07 0"', 'xyz="-0.2 NaN 0"'), "not finite"), (('radius="0.02"', 'radius="inf"'), "not finite"),
        (('radius="0.02"', 'radius="Infinity"'), "not finite"), (('radius="0.02"', 'radius="1e400"'), "not finite"),
        (('radius="0.02"', 'radius="1e30"'), "not finite"),
        (('mass value="0.9"', 'mass value="900"'), "weighs"), (('effort="30.0"', 'effort="3e4"'), "torques"),
        (('velocity="21.0"', 'velocity="2100"'), "speeds"), (('upper="0.7"', 'upper="40"'), "joints at"),
        (('lower="-0.7" upper="0.7"', 'lower="0" upper="0.001"'), "ranges"),
        (('friction="0.15"', 'friction="500"'), "friction"),
        (('radius="0.02"', 'radius="1.2"'), "feet"), (('mass value="0.5"', 'mass value="0"'), "mass|used"),
        (("0 0 -0.18", "0 0 -18"), "stands|feet"), (("0.2 0.07 0", "0.2 7.07 0"), "feet at"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_such_robot_is_refused_in_one_line(tmp_path, wrong, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dog.urdf").write_text(urdf().replace(*wrong))
    with pytest.raises(InputError, match=says) as raised:
        add(RobotAddOptions("odd", tmp_path / "dog.urdf", tmp_path))
    assert "\n" not in str(raised.value) and [path.name for path in tmp_path.iterdir()] == ["dog.urdf"]


def test_the_name_of_a_file_is_no_python(tmp_path):
    name = '"""; raise SystemExit("run"); """ü.urdf'
    (tmp_path / name).write_text(urdf())
    assert add(RobotAddOptions("named", tmp_path / name, tmp_path)).status == 0
    assert "raise" in (tmp_path / "named" / "__init__.py").read_text(encoding="utf-8").split('"""')[1]


def test_names_that_the_locale_lacks_are_written(tmp_path):
    (tmp_path / "dog.urdf").write_text(urdf().replace('"torso"', '"rümpf"'), encoding="utf-8")
    words = ["robot", "add", "ascii", str(tmp_path / "dog.urdf"), "--robots", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "barkour", *words],
        capture_output=True, text=True, check=False,
        env=os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert find_robot(str(tmp_path / "ascii")).base_body == "rümpf"


def test_of_two_that_add_a_robot_at_once_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "dog.urdf").write_text(urdf())
    asked = RobotAddOptions("twice", tmp_path / "dog.urdf", tmp_path)

    def meanwhile(model: Path) -> None:
        monkeypatch.undo()
        add(asked)

    monkeypatch.setattr(new_robot, "try_out", meanwhile)
    with pytest.raises(InputError, match="meanwhile"):
        add(asked)


@pytest.mark.parametrize("name", ["barkour_v0", "My Dog", "../dog"])
def test_a_name_that_is_taken_or_none_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="name"):
        add(RobotAddOptions(name, Path("none.xml"), tmp_path))
    with pytest.raises(InputError, match="cannot read"):
        add(RobotAddOptions("fine", tmp_path / "none.xml", tmp_path))


@pytest.mark.parametrize(
    "model",
    [
        '<mujoco><include file="part"/></mujoco>',
        '<mujoco><compiler assetdir="."/><asset><texture name="a" type="2d" file="part"/></asset></mujoco>',
        '<mujoco><asset><hfield name="a" file="part" size="1 1 1 1"/></asset></mujoco>',
    ],
    ids=["include", "texture", "height field"],
)
@pytest.mark.parametrize("how", ["pipe", "device", "huge"])
def test_a_model_that_refers_to_what_never_ends_is_refused(tmp_path, spoil, model, how):
    (tmp_path / "model.xml").write_text('<mujoco><include file="inner.xml"/></mujoco>')
    (tmp_path / "inner.xml").write_text(model)
    spoil(tmp_path / "part", how)
    with pytest.raises(InputError, match="the model's .*part"):
        add(RobotAddOptions("cat", tmp_path / "model.xml", tmp_path / "robots"))
    assert not (tmp_path / "robots").exists()


@pytest.mark.parametrize(
    "model",
    [
        '<worldbody><replicate count="100000000" offset="0 0 1"><body><geom size="1"/></body></replicate></worldbody>',
        '<asset><hfield name="a" nrow="100000" ncol="100000" size="1 1 1 1"/></asset>',
    ],
    ids=["bodies", "height field"],
)
def test_a_model_that_asks_for_everything_is_refused(tmp_path, monkeypatch, model):
    monkeypatch.setattr(model_trial, "WALL", 2.0)
    (tmp_path / "model.xml").write_text(f"<mujoco>{model}</mujoco>")
    with pytest.raises(InputError, match="cannot read the model"):
        add(RobotAddOptions("cat", tmp_path / "model.xml", tmp_path / "robots"))
