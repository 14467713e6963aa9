"""Randomised physics: draws that stay in range and depend on their own seed alone, and the model fields they touch."""

import json
from dataclasses import fields, replace

import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.course.description import official
from sim.course.scene import build, course_model, deck_geoms, foot_geoms
from sim.course.terrain import Block, Terrain
from sim.errors import InputError
from sim.robots.description import default_robot
from sim.robots.gaits import CORNERS
from sim.tasks import randomization as randomize
from sim.tasks.randomization import Ranges, draw, model_fields, nominal

ROBOT = default_robot()
NAMES = [field.name for field in fields(Ranges)]


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build(ROBOT, Terrain((Block("crate", (3, 0), (1, 1), top=0.1),)))


def assert_same(a: randomize.Draw, i: int, b: randomize.Draw, j: int) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a, name)[i], getattr(b, name)[j], err_msg=name)


# --- draws ------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**40), others=st.lists(st.integers(0, 2**40), max_size=4), place=st.integers(0, 4))
def test_a_world_is_drawn_the_same_whatever_stands_beside_it(seed, others, place):
    place = min(place, len(others))
    crowd = draw(Ranges(), ROBOT, np.array([*others[:place], seed, *others[place:]]))
    assert_same(draw(Ranges(), ROBOT, np.array([seed])), 0, crowd, place)


def test_different_seeds_draw_different_worlds():
    drawn = draw(Ranges(), ROBOT, np.arange(50))
    for name in NAMES:
        rows = getattr(drawn, name).reshape(50, -1)
        assert len(np.unique(rows, axis=0)) == 50, name


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    low=st.floats(-5, 5),
    width=st.floats(0, 5),
    seeds=st.lists(st.integers(0, 10**9), min_size=1),
)
def test_draws_stay_inside_any_range_and_other_fields_do_not_move(name, low, width, seeds):
    high = low + width
    seeds = np.array(seeds[:5])
    drawn, usual = draw(replace(Ranges(), **{name: (low, high)}), ROBOT, seeds), draw(Ranges(), ROBOT, seeds)
    values = getattr(drawn, name)
    assert values.dtype == np.float32
    tiny = 1e-6 * max(1, abs(low), abs(high))
    assert (values >= low - tiny).all() and (values <= high + tiny).all()
    for other in NAMES:
        if other != name:
            np.testing.assert_array_equal(getattr(drawn, other), getattr(usual, other), err_msg=other)


def test_draws_fill_their_ranges_evenly_and_independently():
    ranges = Ranges().of(ROBOT)
    drawn = draw(ranges, ROBOT, np.arange(2000))
    columns = []
    for name in NAMES:
        low, high = getattr(ranges, name)
        share = (getattr(drawn, name).reshape(2000, -1) - low) / (high - low)
        assert share.min() < 0.01 and share.max() > 0.99, name
        np.testing.assert_allclose(np.histogram(share, 5, (0, 1))[0] / share.size, 0.2, atol=0.05, err_msg=name)
        columns.append(share)
    correlation = np.corrcoef(np.concatenate(columns, 1).T) - np.eye(sum(c.shape[1] for c in columns))
    assert np.abs(correlation).max() < 0.15


def test_per_joint_and_per_axis_draws_differ_within_a_world():
    drawn = draw(Ranges(), ROBOT, np.array([4]))
    shapes = {"trunk_com": 3, "gain": 12, "joint_bias": 12, "joint_friction": 12, "start_xy": 2}
    for name in NAMES:
        row = getattr(drawn, name)[0]
        assert row.shape == ((shapes[name],) if name in shapes else ()), name
        assert len(np.unique(row)) == shapes.get(name, 1)


def test_latency_becomes_whole_substeps_within_a_control_step():
    drawn = draw(Ranges(), ROBOT, np.arange(300))
    for timestep in (0.002, 0.004):
        delay = drawn.delay(timestep)
        assert delay.dtype == np.int64
        assert np.abs(delay * timestep - drawn.latency).max() <= timestep / 2 + 1e-6
        assert (delay.min(), delay.max()) == (round(0.008 / timestep), round(ROBOT.control_period / timestep))
    assert (draw(nominal(ROBOT), ROBOT, np.arange(3)).delay(0.002) == 10).all()


@pytest.mark.parametrize("interval", [(1.0, 0.5), (np.nan, 1.0), (0.0, np.inf)])
def test_impossible_ranges_are_refused_by_name(interval):
    with pytest.raises(InputError, match="range 'friction'"):
        Ranges(friction=interval)


def test_a_summary_is_json_of_that_world():
    drawn = draw(Ranges(), ROBOT, np.arange(3))
    summary = json.loads(json.dumps(drawn.summary(1)))
    assert sorted(summary) == sorted(NAMES)
    assert summary["friction"] == pytest.approx(float(drawn.friction[1]), abs=1e-4)
    np.testing.assert_allclose(summary["gain"], drawn.gain[1], atol=1e-4)


# --- model fields -----------------------------------------------------------------------------------------------------


def test_nominal_physics_is_the_model_as_it_stands(model):
    for name, values in model_fields(model, ROBOT, draw(nominal(ROBOT), ROBOT, np.arange(2))).items():
        for world in values:
            np.testing.assert_allclose(world, getattr(model, name), rtol=1e-6, atol=1e-9, err_msg=name)


FIXED = {name: (value, value) for name, value in {
    "friction": 0.6, "trunk_mass": 0.7, "trunk_inertia": 1.1, "trunk_com": 0.01, "leg_mass": 1.04, "gain": 0.95,
    "strength": 0.92, "joint_friction": 0.2, "joint_damping": 0.05,
}.items()}  # fmt: skip


def test_every_field_follows_its_draw(model):
    fields_ = model_fields(model, ROBOT, draw(Ranges(**FIXED), ROBOT, np.array([1])))
    here = {name: values[0] for name, values in fields_.items()}
    trunk = model.body("chassis").id
    legs = [model.body(f"{part}_{leg}").id for leg in CORNERS for part in ("housing", "thigh", "shank")]
    feet = [model.geom(f"foot_{leg}").id for leg in CORNERS]

    np.testing.assert_allclose(here["geom_friction"][feet, 0], 0.6, rtol=1e-6)
    np.testing.assert_allclose(here["body_mass"][trunk], 4.48878 + 0.7, rtol=1e-6)
    # a heavier trunk of the same shape has more inertia in proportion, then comes the factor
    heavier = (4.48878 + 0.7) / 4.48878 * 1.1
    np.testing.assert_allclose(here["body_inertia"][trunk], model.body_inertia[trunk] * heavier, rtol=1e-6)
    np.testing.assert_allclose(here["body_ipos"][trunk], np.array([0.0296226, 0.00984867, 0.0711588]), atol=1e-6)
    np.testing.assert_allclose(here["body_mass"][legs], model.body_mass[legs] * 1.04, rtol=1e-6)
    np.testing.assert_allclose(here["body_inertia"][legs], model.body_inertia[legs] * 1.04, rtol=1e-6)
    np.testing.assert_allclose(here["dof_frictionloss"][6:], 0.2, rtol=1e-6)
    np.testing.assert_allclose(here["dof_damping"][6:], 0.05, rtol=1e-6)
    np.testing.assert_allclose(here["actuator_gainprm"][:, 0], 35 * 0.95, rtol=1e-6)
    np.testing.assert_allclose(here["actuator_biasprm"][:, :3], np.tile([0, -35 * 0.95, -0.95], (12, 1)), rtol=1e-6)
    np.testing.assert_allclose(here["actuator_forcerange"], np.tile([-18 * 0.92, 18 * 0.92], (12, 1)), rtol=1e-6)

    touched = {name: np.zeros(getattr(model, name).shape, bool) for name in here}
    touched["geom_friction"][feet, 0] = True
    touched["body_mass"][[trunk, *legs]] = True
    touched["body_inertia"][[trunk, *legs]] = True
    touched["body_ipos"][trunk] = True
    touched["dof_frictionloss"][6:] = touched["dof_damping"][6:] = True
    touched["actuator_gainprm"][:, 0] = touched["actuator_biasprm"][:, 1:3] = touched["actuator_forcerange"][:] = True
    for name, mask in touched.items():
        np.testing.assert_array_equal(here[name][~mask], getattr(model, name)[~mask], err_msg=name)


def test_each_world_gets_its_own_draw(model):
    drawn = draw(Ranges(), ROBOT, np.arange(6))
    values = model_fields(model, ROBOT, drawn)
    foot = model.geom("foot_hind_right").id
    knee = ROBOT.joint_names.index("knee_hind_left")
    for world in range(6):
        assert values["geom_friction"][world, foot, 0] == pytest.approx(float(drawn.friction[world]))
        assert values["actuator_gainprm"][world, knee, 0] == pytest.approx(
            35 * float(drawn.gain[world, knee]), rel=1e-6
        )
        assert values["dof_frictionloss"][world, 6 + knee] == pytest.approx(float(drawn.joint_friction[world, knee]))
        alone = model_fields(model, ROBOT, draw(Ranges(), ROBOT, np.array([world])))
        for name in values:
            np.testing.assert_array_equal(values[name][world], alone[name][0], err_msg=name)


def test_randomised_robots_remain_physical(model):
    values = model_fields(model, ROBOT, draw(Ranges(), ROBOT, np.arange(200)))
    inertia = values["body_inertia"][:, 1:]
    assert (values["body_mass"][:, 1:] > 0).all() and (inertia > 0).all()
    assert (2 * inertia.max(-1) < inertia.sum(-1) * (1 + 1e-6)).all()  # principal inertias obey the triangle inequality
    assert (values["dof_frictionloss"] >= 0).all() and (values["dof_damping"] >= 0).all()
    assert (values["geom_friction"] > 0).all()


def test_decks_have_a_friction_of_their_own_and_it_beats_the_feets():
    model = course_model(official(), ROBOT)
    decks = deck_geoms(model)
    assert [model.geom(int(i)).name for i in decks] == ["a frame up", "a frame down"]
    drawn = draw(Ranges(friction=(0.1, 0.1), deck_friction=(0.75, 1.125)), ROBOT, np.arange(3))
    values = model_fields(model, ROBOT, drawn)["geom_friction"]
    np.testing.assert_allclose(values[:, decks, 0], np.repeat(drawn.deck_friction[:, None], 2, 1))
    model.geom_friction[:] = values[1]
    data = mujoco.MjData(model)
    frame = official().a_frame
    assert frame is not None
    x, y = np.array(frame.center) - 0.8 * np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    data.qpos[:3] = x, y, official().height(x, y) + 0.26
    data.qpos[3:7] = np.cos(frame.yaw / 2), 0, 0, np.sin(frame.yaw / 2)
    data.qpos[7:] = ROBOT.default_pose
    mujoco.mj_forward(model, data)
    feet = set(foot_geoms(model, ROBOT).tolist())
    contacts = [c for c in data.contact if set(c.geom.tolist()) & feet and set(c.geom.tolist()) & set(decks.tolist())]
    assert contacts
    for contact in contacts:
        assert contact.friction[0] == pytest.approx(float(drawn.deck_friction[1]))
