"""The policy's input: what a frame holds at known poses, the order of history and layout, and numpy against jax."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import gait as clocks
from sim import observation as obs
from sim.errors import InputError
from sim.observation import HISTORY, Grid, Layout, Sensors
from sim.robots.description import default_robot
from sim.robots.gaits import Gait

ROBOT = default_robot()
GAIT = Gait()
TWO_GRIDS = (Grid("around", (-0.1, 0.0, 0.2), (-0.1, 0.1)), Grid("ahead", (0.5, 0.6, 0.7, 0.8), (0.0,)))


def quaternion(yaw: float = 0.0, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """World from base: roll about x, then pitch about y (nose down), then yaw about z."""
    out = np.array([1.0, 0, 0, 0])
    for axis, angle in ((0, roll), (1, pitch), (2, yaw)):
        turn = np.zeros(4)
        mujoco.mju_axisAngle2Quat(turn, np.eye(3)[axis], angle)
        mujoco.mju_mulQuat(out, turn, out.copy())
    return out


def into_base(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """A world vector seen from the base, by MuJoCo."""
    out, inverse = np.zeros(3), np.zeros(4)
    mujoco.mju_negQuat(inverse, quat)
    mujoco.mju_rotVecQuat(out, vector, inverse)
    return out


# --- the frame --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "angles, gravity",
    [
        ({}, (0, 0, -1)),
        ({"yaw": 2.0}, (0, 0, -1)),
        ({"pitch": np.pi / 2}, (1, 0, 0)),  # nose down: gravity pulls ahead
        ({"roll": np.pi / 2}, (0, -1, 0)),  # right side down: gravity pulls to the right
        ({"roll": np.pi}, (0, 0, 1)),
        ({"yaw": 1.0, "pitch": np.pi / 6}, (0.5, 0, -np.sqrt(0.75))),
    ],
)
def test_gravity_at_known_poses(angles, gravity):
    np.testing.assert_allclose(obs.projected_gravity(np, quaternion(**angles)), gravity, atol=1e-12)


ANGLE = st.floats(-3.1, 3.1)


@settings(max_examples=50, deadline=None)
@given(yaw=ANGLE, pitch=st.floats(-1.5, 1.5), roll=ANGLE)
def test_gravity_and_heading_of_any_pose(yaw, pitch, roll):
    quat = quaternion(yaw, pitch, roll)
    down = into_base(quat, np.array([0, 0, -1.0]))
    np.testing.assert_allclose(obs.projected_gravity(np, quat), down, atol=1e-9)
    assert abs(np.angle(np.exp(1j * (obs.yaw_of(np, quat) - yaw)))) < 1e-6
    assert abs(np.angle(np.exp(1j * (obs.yaw_of(np, -quat) - yaw)))) < 1e-6  # -q is the same rotation


def test_the_frame_holds_each_field_at_its_place_in_its_scale():
    assert obs.frame_size(12) == 42
    rng = np.random.default_rng(0)
    gyro, joints, speeds, action = rng.normal(size=3), rng.normal(size=12), rng.normal(size=12), rng.normal(size=12)
    sensors = Sensors(quaternion(pitch=np.pi / 2), gyro, joints, speeds)
    frame = obs.frame(np, ROBOT, sensors, action)
    assert frame.shape == (42,) and frame.dtype == np.float32
    np.testing.assert_allclose(frame[0:3], (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(frame[3:6], gyro / 4, rtol=1e-6)
    np.testing.assert_allclose(frame[6:18], joints - [0, 0.5, 1] * 4, atol=1e-6)
    np.testing.assert_allclose(frame[18:30], speeds / 20, rtol=1e-6)
    np.testing.assert_allclose(frame[30:42], action, rtol=1e-6)


def test_a_robot_standing_still_has_an_empty_frame_but_for_gravity():
    sensors = Sensors(quaternion(yaw=0.7), np.zeros(3), ROBOT.default_pose, np.zeros(12))
    frame = obs.frame(np, ROBOT, sensors, np.zeros(12))
    np.testing.assert_allclose(frame, [0, 0, -1, *np.zeros(39)], atol=1e-7)


# --- history and layout -----------------------------------------------------------------------------------------------


def test_history_holds_the_last_15_frames_newest_first():
    history = obs.fill(np, np.full((2, 42), 100.0))
    assert history.shape == (2, HISTORY, 42) and (history == 100).all()
    for step in range(1, 21):
        tag = np.array([[step], [-step]]) * np.ones(42)
        history = obs.push(np, history, tag)
        newest_first = [step - age if step > age else None for age in range(15)]
        for age, value in enumerate(newest_first):
            expected = (100, 100) if value is None else (value, -value)
            assert (history[0, age] == expected[0]).all() and (history[1, age] == expected[1]).all()


def test_every_part_of_the_input_stands_in_its_slice():
    layout = Layout(12, frames=(0, 3, 14), grids=TWO_GRIDS)
    parts = layout.slices()
    assert list(parts) == ["frame_0", "frame_3", "frame_14", "command", "clock", "heights_around", "heights_ahead"]
    assert layout.size == 3 * 42 + 3 + 2 + 6 + 4 and layout.height_size == 10
    covered = np.concatenate([np.arange(p.start, p.stop) for p in parts.values()])
    np.testing.assert_array_equal(covered, np.arange(layout.size))  # each number once, in order
    ages = np.arange(15)[:, None] * np.ones(42)
    command, clock, heights = np.array([101.0, 102, 103]), np.array([201.0, 202]), np.arange(300.0, 310)
    seen = obs.observe(np, layout, ages, command, clock, heights)
    assert seen.shape == (layout.size,) and seen.dtype == np.float32
    for age in (0, 3, 14):
        assert (seen[parts[f"frame_{age}"]] == age).all()
    assert seen[parts["command"]].tolist() == [101, 102, 103]
    assert seen[parts["clock"]].tolist() == [201, 202]
    assert seen[parts["heights_around"]].tolist() == [300, 301, 302, 303, 304, 305]
    assert seen[parts["heights_ahead"]].tolist() == [306, 307, 308, 309]


def test_without_clock_and_grids_neither_is_in_the_input():
    layout = Layout(12, frames=(0,), clock=False)
    seen = obs.observe(np, layout, np.ones((4, 15, 42)), np.zeros((4, 3)), np.full((4, 2), 9.0), np.zeros((4, 0)))
    assert seen.shape == (4, layout.size) == (4, 45) and 9.0 not in seen


@pytest.mark.parametrize("frames", [(), (-1,), (60,), (0, 1, 99)])
def test_frames_outside_the_history_are_refused(frames):
    with pytest.raises(InputError, match="from 0 to 59"):
        Layout(12, frames=frames)


def test_layouts_survive_json_exactly():
    ahead = Grid("ahead", (0.0, 0.1, 0.2, 0.3), (0.0,))  # from outside, a grid must hold the base
    layout = Layout(12, frames=(0, 2, 5), grids=(obs.around(), ahead), clock=False)
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout


@pytest.mark.parametrize(
    "key, value",
    [
        ("size", 7),
        ("history", 14),
        ("command_scale", [2.0, 2.0, 0.25]),
        ("height", {"scale": 5.0, "clip_m": 1.0, "is": "ground z - base z + standing height"}),
        ("frame_fields", [["last_action", 12]]),
        ("extra", 1),
    ],
)
def test_a_layout_of_another_code_is_refused_by_the_key_that_differs(key, value):
    fields = {**Layout(12).to_dict(), key: value}
    with pytest.raises(InputError, match=f"differs in '{key}'"):
        Layout.from_dict(json.loads(json.dumps(fields)))


@pytest.mark.parametrize("key", ["frames", "grids", "clock", "frame_fields"])
def test_an_incomplete_layout_is_refused(key):
    fields = {k: v for k, v in Layout(12).to_dict().items() if k != key}
    with pytest.raises(InputError, match="incomplete"):
        Layout.from_dict(fields)


# --- terrain ----------------------------------------------------------------------------------------------------------


def test_grid_points_move_and_turn_with_the_base():
    grid = Grid("g", (1.0, 2.0), (0.0, 0.5))
    base = np.array([10.0, 20.0])
    ahead = obs.grid_points(np, grid, base, np.array(0.0))
    np.testing.assert_allclose(ahead, [(11, 20), (11, 20.5), (12, 20), (12, 20.5)], atol=1e-6)  # x-major
    left = obs.grid_points(np, grid, base, np.array(np.pi / 2))
    np.testing.assert_allclose(left, [(10, 21), (9.5, 21), (10, 22), (9.5, 22)], atol=1e-6)


def test_the_walkers_grid_reaches_as_stated():
    grid = obs.around(ahead=0.5, behind=0.4, side=0.2, step=0.1)
    np.testing.assert_allclose(grid.x, np.linspace(-0.4, 0.5, 10), atol=1e-9)
    np.testing.assert_allclose(grid.y, np.linspace(-0.2, 0.2, 5), atol=1e-9)
    assert grid.size == 50


def test_heights_are_zero_on_the_flat_and_grow_with_the_ground():
    base_z = np.array([0.2, 1.2])
    ground = np.array([[0.0, 0.1, -0.1, 2.0, -2.0], [1.0, 1.1, 0.9, 3.0, -1.0]])
    seen = obs.relative_heights(np, ROBOT, ground, base_z)
    np.testing.assert_allclose(seen, np.tile([0, 0.5, -0.5, 2.0, -2.0], (2, 1)), atol=1e-6)  # 0.4 m is the end


def seen_over(ground, yaw: float = 0.0, base_z: float = 0.2, layout: Layout | None = None) -> np.ndarray:
    """The relief, m, that a robot at the origin sees over `ground(x, y)`."""
    layout = layout or Layout(12, grids=(obs.around(),))
    points = np.concatenate([obs.grid_points(np, grid, np.zeros(2), np.array(yaw)) for grid in layout.grids])
    heights = obs.relative_heights(np, ROBOT, ground(points[:, 0], points[:, 1]), np.array(base_z))
    return obs.relief(np, layout, heights)


@pytest.mark.parametrize("yaw", [0.0, np.pi / 2, np.pi])
@pytest.mark.parametrize("step", [0.05, -0.1])
def test_relief_is_the_height_of_an_edge_whatever_its_direction_and_whatever_all_heights_share(step, yaw):
    for base_z in (0.2, 0.25):
        for ahead in (lambda x, y: x, lambda x, y: y):
            relief = seen_over(lambda x, y, of=ahead: step * (of(x, y) > 0.05), yaw, base_z)
            assert relief == pytest.approx(abs(step), abs=1e-6)


def test_relief_is_nothing_on_a_plane_however_steep_and_the_highest_of_several_edges():
    assert seen_over(lambda x, y: 0.3 * x - 0.2 * y + 0.05) == pytest.approx(0, abs=1e-6)
    assert seen_over(lambda x, y: 0.03 * (x > -0.25) + 0.08 * (x > 0.25)) == pytest.approx(0.08, abs=1e-6)


def test_relief_looks_at_every_grid_alone():
    grids = (obs.around(), Grid("ahead", (1.0, 1.1, 1.2, 1.3), (0.0,)))
    layout = Layout(12, grids=grids)
    assert seen_over(lambda x, y: 0.06 * (x > 1.15), layout=layout) == pytest.approx(0.06, abs=1e-6)
    assert seen_over(lambda x, y: 0.07 * (x > 0.15) * (x < 0.8), layout=layout) == pytest.approx(0.07, abs=1e-6)
    assert seen_over(lambda x, y: 0.09 * (x > 0.8), layout=layout) == pytest.approx(0, abs=1e-6)  # between the grids
    assert obs.relief(np, Layout(12), np.zeros((5, 0))).tolist() == [0] * 5


# --- joint targets ----------------------------------------------------------------------------------------------------


def test_joint_targets_are_the_scaled_action_about_the_default_pose_inside_the_joint_ranges():
    rest = np.zeros(3)
    rng = np.random.default_rng(1)
    action = rng.uniform(-1, 1, 12)
    even = np.array(0.0)
    target = obs.joint_targets(np, ROBOT, GAIT, action, np.array(0.25), rest, even)
    np.testing.assert_allclose(target, np.array([0, 0.5, 1.0] * 4) + 0.3 * action, atol=1e-6)
    for sign, limit in ((4, ROBOT.joint_upper), (-4, ROBOT.joint_lower)):
        extreme = obs.joint_targets(np, ROBOT, GAIT, np.full(12, float(sign)), np.array(0.0), rest, even)
        free = np.array([0, 0.5, 1.0] * 4) + 0.3 * sign
        np.testing.assert_allclose(extreme, np.minimum(free, limit) if sign > 0 else np.maximum(free, limit), atol=1e-6)
    walking = obs.joint_targets(np, ROBOT, GAIT, action, np.array(0.25), np.array([1.0, 0, 0]), np.array(0.02))
    stance, swing = [0, 0.32, 0.64], [0, -0.05, -0.1]  # 2.5 rad/m over steps of 2 cm
    np.testing.assert_allclose((walking - target).reshape(4, 3), [stance, swing, swing, stance], atol=1e-6)


# --- numpy and jax ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", [Layout(12, grids=TWO_GRIDS), Layout(12, frames=(0, 14), clock=False)])
def test_numpy_and_jax_build_the_same_input(layout, compiled):
    rng = np.random.default_rng(2)
    worlds = 6
    quats = np.array([quaternion(*rng.uniform(-1.5, 1.5, 3)) for _ in range(worlds)])

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=(worlds, *shape)).astype(np.float32)

    given = (quats.astype(np.float32), normal(3), normal(12), normal(12), normal(12), normal(15, 42), normal(3))
    xy, z, phase = normal(2), normal(), rng.random(worlds).astype(np.float32)

    def pipeline(xp, quat, gyro, joints, speeds, action, history, command, xy, z, phase):
        newest = obs.frame(xp, ROBOT, Sensors(quat, gyro, joints, speeds), action)
        history = obs.push(xp, history, newest)
        clock = clocks.clock(xp, GAIT, phase, command)
        yaw = obs.yaw_of(xp, quat)
        heights = [xp.sin(3 * obs.grid_points(xp, grid, xy, yaw).sum(-1)) for grid in layout.grids]
        ground = xp.concatenate(heights, -1) if heights else xp.zeros((*z.shape, 0))
        heights = obs.relative_heights(xp, ROBOT, ground, z)
        seen = obs.observe(xp, layout, history, command, clock, heights)
        steps = obs.relief(xp, layout, heights)
        return seen, obs.fill(xp, newest), steps, obs.joint_targets(xp, ROBOT, GAIT, action, phase, command, steps)

    def in_jax(*args):
        return pipeline(jnp, *args)

    here = pipeline(np, *given, xy, z, phase)
    there = (jax.jit(in_jax) if compiled else in_jax)(*map(jnp.asarray, (*given, xy, z, phase)))
    assert here[0].shape == (worlds, layout.size)
    for a, b in zip(here, there, strict=True):
        assert a.dtype == b.dtype == np.float32 and a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_leading_dimensions_do_not_mix_worlds():
    rng = np.random.default_rng(3)
    layout = Layout(12, grids=TWO_GRIDS)
    arrays = [rng.normal(size=(2, 3, *shape)).astype(np.float32) for shape in ((15, 42), (3,), (2,), (10,))]
    together = obs.observe(np, layout, *arrays)
    assert together.shape == (2, 3, layout.size)
    for i in range(2):
        for j in range(3):
            np.testing.assert_array_equal(together[i, j], obs.observe(np, layout, *(a[i, j] for a in arrays)))


def test_another_robot_brings_its_own_figures():
    taller = replace(ROBOT, standing_height=0.5, action_scale=0.1, default_pose=np.zeros(12, np.float32))
    assert obs.relative_heights(np, taller, np.array([0.0]), np.array(0.5)).tolist() == [0.0]
    target = obs.joint_targets(np, taller, GAIT, np.ones(12), np.array(0.0), np.zeros(3), np.array(0.0))
    np.testing.assert_allclose(target, 0.1, atol=1e-6)


# --- what comes next --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["velocity", "pose"])
def test_a_layout_with_a_preview_is_read_back_and_has_a_place_for_it(of):
    layout = Layout(ROBOT.joints, grids=(obs.around(), obs.ahead()), preview=obs.Preview((0.2, 0.4, 0.6), of))
    assert Layout.from_dict(json.loads(json.dumps(layout.to_dict()))) == layout
    plain = replace(layout, preview=obs.Preview())
    assert layout.size == plain.size + 9 and "preview" not in plain.to_dict()
    history, heights = np.zeros((2, layout.history, layout.frame_size)), np.zeros((2, layout.height_size))
    command, clock = np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 9.0]]), np.zeros((2, 2))
    seen = np.arange(18.0).reshape(2, 3, 3) / 10
    told = obs.observe(np, layout, history, command, clock, heights, seen)
    np.testing.assert_allclose(told[:, layout.slices()["preview"]], seen.reshape(2, -1), atol=1e-6)
    untold = obs.observe(np, layout, history, command, clock, heights)[:, layout.slices()["preview"]].reshape(2, 3, 3)
    np.testing.assert_allclose(untold[0], [[1.0, 0.5, 0.0]] * 3, atol=1e-6)  # the command lasts
    assert np.abs(untold).max() <= obs.PREVIEW_CLIP


def test_a_turning_robots_mean_velocity_turns_with_it():
    seen = obs.Preview((0.4, 0.8), "pose").foreseen(np, lambda later: np.array([1.0, 0.0, 0.5]))
    for (forward, left, turn), later in zip(seen, (0.4, 0.8), strict=True):
        x, y = np.sin(0.5 * later) / 0.5, (1 - np.cos(0.5 * later)) / 0.5  # on a circle of 2 m
        np.testing.assert_allclose([forward * later, left * later, turn], [x, y, 0.5], atol=0.01)


@pytest.mark.parametrize(
    "preview",
    [
        {"seconds": [0.4, 0.2], "of": "velocity"},
        {"seconds": [0.0], "of": "velocity"},
        {"seconds": [0.2], "of": "heights"},
        {"seconds": [9.0], "of": "pose"},
        {"seconds": [0.1 * k for k in range(1, 15)], "of": "pose"},
        {"seconds": ["soon"], "of": "pose"},
        {"of": "pose"},
        [0.2],
        0.2,
    ],
)
def test_no_other_preview_is_read(preview):
    fields = Layout(ROBOT.joints, preview=obs.Preview((0.2,))).to_dict()
    with pytest.raises(InputError):
        Layout.from_dict({**fields, "preview": preview})
