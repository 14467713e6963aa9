"""Feet by a robot's MJCF alone, against MuJoCo's."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from sim.errors import InputError
from sim.robots.description import robot_by_name
from sim.robots.kinematics import Feet


@pytest.mark.parametrize("name", ["barkour_v0", "unitree_go2"])
def test_feet_are_where_mujoco_has_them(name):
    robot = robot_by_name(name)
    model = mujoco.MjModel.from_xml_path(str(robot.mjcf))
    data, feet, rng = mujoco.MjData(model), Feet.of(robot), np.random.default_rng(0)
    for _ in range(5):
        data.qpos[:7] = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
        data.qpos[7:] = rng.uniform(robot.joint_lower, robot.joint_upper)
        mujoco.mj_kinematics(model, data)
        known = np.array([data.geom(leg.foot).xpos for leg in robot.legs])
        assert feet.places(np.array(data.qpos[7:])) == pytest.approx(known, abs=1e-9)


MADE_UP = """<mujoco>
<default><default class="a"><joint axis="0 1 0"/><default class="b"><geom pos="0 0 -0.2"/></default></default></default>
<worldbody><body name="trunk"><freejoint/><geom size="0.1"/>{}</body></worldbody></mujoco>"""
LEG = """<body name="l{k}" pos="0.1 {y} 0.02" quat="0.9 0.1 0 0.2" childclass="a">
<joint name="abduction{k}" axis="1 0 0"/><geom size="0.01"/>
<body pos="0 0 -0.03" quat="1 0 0.3 0"><body pos="0 0.01 -0.1"><joint name="hip{k}"/><geom size="0.01"/>
<body pos="0.02 0 -0.2"><joint name="knee{k}" axis="0 2 0.1"/><body pos="0 0 0.01" quat="1 0.2 0 0">
<geom name="foot{k}" class="b" type="sphere" size="0.02"/></body></body></body></body></body>"""


def made_up(folder, legs: str):
    robot = robot_by_name("barkour_v0")
    file = folder / "robot.xml"
    file.write_text(MADE_UP.format(legs))
    names = tuple(f"{joint}{k}" for k in range(4) for joint in ("abduction", "hip", "knee"))
    own = tuple(
        replace(leg, abduction=f"abduction{k}", hip=f"hip{k}", knee=f"knee{k}", foot=f"foot{k}")
        for k, leg in enumerate(robot.legs)
    )
    return replace(robot, mjcf=file, joint_names=names, legs=own, base_body="trunk")


def test_classes_turned_links_and_bodies_without_a_joint_are_read(tmp_path):
    robot = made_up(tmp_path, "".join(LEG.format(k=k, y=0.1 * k) for k in range(4)))
    model = mujoco.MjModel.from_xml_path(str(robot.mjcf))
    data, feet = mujoco.MjData(model), Feet.of(robot)
    data.qpos[:7] = [0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]
    data.qpos[7:] = np.random.default_rng(1).uniform(-1, 1, 12)
    mujoco.mj_kinematics(model, data)
    known = np.array([data.geom(f"foot{k}").xpos for k in range(4)])
    assert feet.places(np.array(data.qpos[7:])) == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(
    ("old", "new"),
    [('quat="0.9 0.1 0 0.2"', 'euler="0 0 1"'), ('name="foot2"', 'name="paw"'), ('pos="0 0.01 -0.1"', 'pos="0 x 1"'),
     ('name="hip1"', 'name="tail"'), ("</mujoco>", "")],
)  # fmt: skip
def test_models_that_are_not_read_are_refused(tmp_path, old, new):
    robot = made_up(tmp_path, "".join(LEG.format(k=k, y=0.1 * k) for k in range(4)))
    robot.mjcf.write_text(robot.mjcf.read_text().replace(old, new))
    with pytest.raises(InputError):
        Feet.of(robot)
