"""Another robot's policy in the terms of one's own: every number goes where it means the same."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from policies.bundle.shipped import folder
from policies.learning import checkpoint
from policies.learning.translation import correspondence, inputs, translate, widened
from sim import observation as obs
from sim.course.scene import robot_spec
from sim.errors import InputError
from sim.robots.description import Robot, robot_by_name
from sim.tasks.skills import TASKS

SOURCE, TARGET = robot_by_name("barkour_v0"), robot_by_name("unitree_go2")
WALKS = TASKS["walk"](SOURCE), TASKS["walk"](TARGET)


@pytest.fixture(scope="module")
def walker() -> dict[str, np.ndarray]:
    return checkpoint.load(folder() / "walk")[0]


def feet(robot: Robot, angles: np.ndarray) -> np.ndarray:
    """Of each leg in the order of the robot's, `[legs, 3]`, m in the base frame."""
    world = robot_spec(robot).compile()
    data = mujoco.MjData(world)
    data.qpos[:7], data.qpos[7:] = (0, 0, 0, 1, 0, 0, 0), angles
    mujoco.mj_kinematics(world, data)
    return np.array([data.geom(leg.foot).xpos for leg in robot.legs])


@pytest.mark.parametrize("part", range(3))
def test_the_same_offset_moves_the_same_foot_the_same_way(part):
    """Spreading goes out on both, swinging goes ahead on both, opening a knee lengthens both."""
    same = correspondence(SOURCE, TARGET)
    for leg, joints in enumerate(TARGET.leg_joints):
        there = np.zeros(TARGET.joints)
        there[joints[part]] = 0.1
        here = np.zeros(SOURCE.joints)
        here[same.joints] = same.signs * there
        moved = []
        for robot, offset in ((SOURCE, here), (TARGET, there)):
            moved.append(feet(robot, robot.default_pose + offset) - feet(robot, robot.default_pose))
        way, legs = moved[1][leg], np.flatnonzero(np.abs(moved[0]).sum(1) > 1e-9)
        assert legs.tolist() == [same.legs[leg]]
        assert SOURCE.legs[legs[0]].corner == TARGET.legs[leg].corner
        axis = (1, 0, 2)[part]
        assert way[axis] * moved[0][legs[0]][axis] > 0


def test_a_robot_answers_what_its_relative_answers_to_the_same_situation(walker):
    """Actor and critic, written out: hidden layers and statistics are those of the checkpoint."""
    rng, translated = np.random.default_rng(0), translate(walker, *WALKS)
    same, (state, privileged) = correspondence(SOURCE, TARGET), inputs(*WALKS)

    def first(arrays, name, network, values):
        names = [k for k in arrays if k.startswith(f"params.{network}[") and "hidden_0" in k and "kernel" in k]
        normal = (values - arrays[f"normalizer.mean['{name}']"]) / arrays[f"normalizer.std['{name}']"]
        return normal @ arrays[names[0]]

    for name, network, rewriting in (("state", "policy", state), ("privileged_state", "value", privileged)):
        theirs = rng.standard_normal(len(rewriting.index))
        ours = rewriting.factor * theirs[rewriting.index] + rewriting.shift
        np.testing.assert_allclose(
            first(translated, name, network, ours), first(walker, name, network, theirs), rtol=1e-4, atol=1e-4
        )
    hidden = rng.standard_normal(128)
    head = "params.policy['params']['Dense_0']"
    here, there = (hidden @ a[f"{head}['kernel']"] + a[f"{head}['bias']"] for a in (translated, walker))
    np.testing.assert_allclose(here, same.signs * there[same.joints], rtol=1e-5, atol=1e-6)
    part = obs.frame_slices(12)["joint_offset"]
    assert sorted(state.index[part]) == list(range(part.start, part.stop))


def test_actions_mean_the_same_angle_whatever_their_scale(walker):
    finer = replace(TARGET, action_scale=TARGET.action_scale / 2)
    plain, scaled = (translate(walker, WALKS[0], TASKS["walk"](robot)) for robot in (TARGET, finer))
    key = "params.policy['params']['Dense_0']['kernel']"
    np.testing.assert_allclose(scaled[key], 2 * plain[key], rtol=1e-6)
    mean = "normalizer.mean['state']"
    last = obs.frame_slices(12)["last_action"]
    np.testing.assert_allclose(scaled[mean][last], 2 * plain[mean][last], rtol=1e-6)


def test_there_and_back_is_the_same_policy(walker):
    again = translate(translate(walker, *WALKS), *WALKS[::-1])
    for name, values in walker.items():
        np.testing.assert_allclose(again[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def test_what_does_not_fit_is_refused(walker):
    with pytest.raises(InputError, match="see different things"):
        translate(walker, TASKS["climb"](SOURCE), replace(WALKS[1], grids=()))
    with pytest.raises(InputError, match="not a specialist's"):
        translate({}, *WALKS)


def test_a_policy_that_sees_more_does_at_first_what_it_did(walker):
    """Whatever the preview holds; statistics of what was seen before are kept."""
    before = WALKS[0].layout
    after = replace(before, preview=obs.Preview((0.2, 0.4), "velocity"))
    wider, slices = widened(walker, before, after), after.slices()
    rng = np.random.default_rng(0)
    kept = np.ones(after.size, bool)
    kept[slices["preview"]] = False
    for name, network, more in (("state", "policy", 0), ("privileged_state", "value", WALKS[0].privileged_size)):
        size = more or before.size
        seen = rng.normal(size=size)
        places = np.concatenate([kept, np.ones(size - before.size, bool)])
        told = rng.normal(size=len(places)) * 3
        told[places] = seen
        found = []
        for arrays, values in ((walker, seen), (wider, told)):
            mean, std = (arrays[f"normalizer.{part}['{name}']"] for part in ("mean", "std"))
            kernel = next(v for k, v in arrays.items() if k.startswith(f"params.{network}[") and "hidden_0']['k" in k)
            found.append(((values - mean) / std) @ kernel)
        np.testing.assert_allclose(*found, atol=1e-4)
        assert (wider[f"normalizer.std['{name}']"][~places] == 1).all()
    assert wider["normalizer.summed_variance['state']"][~kept].min() > 1e6  # as many as were counted


def test_a_policy_that_sees_less_is_not_made_of_one_that_saw_more(walker):
    before = WALKS[0].layout
    with pytest.raises(InputError):
        widened(walker, before, replace(before, grids=()))
