"""Planned motions as commands: where a robot on one is asked to go, and what pays."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from sim import observation
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.observation import Preview
from sim.planar import to_body, to_world, wrap
from sim.tasks import ways
from sim.tasks.draws import Draws
from sim.tasks.skills import walk
from sim.tasks.ways import Ways

DT = 0.02
TIME = np.arange(0.0, 6.0, DT)
CIRCLE = np.stack([np.sin(TIME), 1 - np.cos(TIME), TIME], 1)
"""1 m/s ahead and 1 rad/s around, on a circle of 1 m."""
ASIDE = np.stack([0 * TIME, 0.5 * TIME, 0 * TIME], 1)
PLANNED = Ways.of([CIRCLE, ASIDE], DT)


def begun(u, place=(3.0, -2.0), yaw=2.5):
    """The ways of robots that all begin at one place, from uniform numbers `[..., 4]`."""
    chance = Draws(*ways.DRAWS).of(np.asarray(u, np.float32))
    shape = np.shape(u)[:-1]
    place, yaw = np.broadcast_to(np.asarray(place, np.float32), (*shape, 2)), np.full(shape, yaw, np.float32)
    return PLANNED.drawn(np, chance, place, yaw, np.ones(shape, bool), DT), place, yaw


def test_ways_come_with_their_mirror_images():
    assert PLANNED.pose.shape[0] == 4 and PLANNED.steps.tolist() == [300.0] * 4
    np.testing.assert_allclose(PLANNED.pose[2], PLANNED.pose[0] * [1, -1, -1], atol=1e-6)
    np.testing.assert_allclose(PLANNED.velocity[1, 10], [0, 0.5, 0], atol=1e-5)


def test_a_way_begins_where_the_robot_is():
    u = np.random.default_rng(0).random((500, 4))
    way, place, yaw = begun(u)
    on = way[:, 0] > 0
    assert on.mean() == pytest.approx(ways.SHARE, abs=0.06) and not way[~on].any()
    off = PLANNED.velocity_of(np, way, place, yaw, DT) - PLANNED.velocity_of(np, way, place, yaw, DT, 0.0, 0.0)
    np.testing.assert_allclose(off, 0, atol=1e-6)
    asked = PLANNED.velocity_of(np, way[on], place[on], yaw[on], DT)
    rate, circle = way[on, 3], way[on, 1] % 2 == 0
    assert ways.RATES[0] <= rate.min() and rate.max() <= ways.RATES[1]
    np.testing.assert_allclose(asked[circle, 0], rate[circle], atol=0.02)  # ahead, whatever way the robot faced
    np.testing.assert_allclose(np.abs(asked[circle, 2]), rate[circle], atol=0.02)
    np.testing.assert_allclose(np.abs(asked[~circle, 1]), 0.5 * rate[~circle], atol=0.02)
    assert len(np.unique(way[on, 1])) == 4


def test_a_robot_that_is_off_is_asked_back():
    way, place, yaw = begun([0.0, 0.3, 0.2, 0.5], yaw=0.0)  # the second way, 0.5 m/s to the left
    beside = place + np.array([0.1, 0.0], np.float32)
    there, back = (PLANNED.velocity_of(np, way, at, yaw + turned, DT) for at, turned in ((place, 0.0), (beside, 0.2)))
    assert there == pytest.approx([0.0, 0.5, 0.0], abs=1e-3)
    c, s = np.cos(0.2), np.sin(0.2)
    world = np.array([-0.1 * ways.GAIN, 0.5])
    assert back[:2] == pytest.approx([c * world[0] + s * world[1], c * world[1] - s * world[0]], abs=1e-3)
    assert back[2] == pytest.approx(-0.2 * ways.TURN_GAIN, abs=1e-3)


def test_a_robot_that_does_what_is_asked_stays_on_its_way_and_a_far_one_is_waited_for():
    way, place, yaw = begun([0.0, 0.0, 0.0, 0.9])
    first, at, heading = way, np.array(place, float), float(yaw)
    for _ in range(200):
        forward, left, around = PLANNED.velocity_of(np, way, at, np.float32(heading), DT).tolist()
        x, y = to_world(forward, left, heading + around * DT / 2)
        at, heading = at + DT * np.array([x, y]), heading + DT * around
        way = PLANNED.onward(np, way, at, DT)
        reference = PLANNED._reference(np, way, DT)
        assert np.linalg.norm(reference[:2] - at) < 0.03 and abs(wrap(reference[2] - heading)) < 0.03
    assert way[2] - first[2] == pytest.approx(200 * DT * way[3], rel=1e-4)
    assert (PLANNED.onward(np, way, at + 1.0, DT) == way).all()


def test_numpy_and_jax_agree():
    way, place, yaw = begun(np.random.default_rng(1).random((50, 4)))
    place = place + np.random.default_rng(2).normal(0, 0.2, place.shape).astype(np.float32)
    for name, args in (("onward", (DT,)), ("velocity_of", (yaw, DT, 0.2, 0.1))):
        one, other = (
            getattr(PLANNED, name)(
                xp, *(xp.asarray(a) if isinstance(a, np.ndarray) else a for a in (way, place, *args))
            )
            for xp in (np, jnp)
        )
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_on_flat_ground_a_walker_is_asked_along_ways_and_elsewhere_not():
    env = BatchedEnv(walk(ways=PLANNED), 120, 0, threads=1)
    for _ in range(30):
        before = env.state
        env.step(np.zeros((120, 12), np.float32))
        kept = (before.way[:, 0] > 0) & (env.state.way[:, 0] > 0) & (env.state.way[:, 1] == before.way[:, 1])
        assert (env.state.way[kept, 2] >= before.way[kept, 2] - 1e-6).mean() > 0.9
    on = env.state.way[:, 0] > 0
    assert on.any() and (env.state.kind[on] == 0).all() and not on[env.state.kind != 0].any()
    assert on[env.state.kind == 0].mean() > 0.5
    commands = env.task.commands
    assert (env.state.command[on, 0] <= commands.forward[1] + 1e-5).all()
    assert (np.abs(env.state.command[on, 1]) <= commands.sideways[1] + 1e-5).all()


def test_what_pays_on_a_way_is_its_velocity_now_and_elsewhere_the_command():
    task = walk(ways=PLANNED)
    env = BatchedEnv(task, 60, 1, threads=1)
    state, on = env.state, env.state.way[:, 0] > 0
    out = env.step(np.zeros((60, 12), np.float32))
    error = out.metrics["velocity_error"]
    speed = np.linalg.norm(state.command[:, :2], axis=1)
    still = ~on & (speed == 0)
    assert (error[still] < 1.0).all()  # a robot that is asked to stand, and stands
    assert np.abs(error[on] - speed[on]).max() > 0.05  # what pays is not the command there


def test_ways_are_kept_and_what_holds_none_is_refused(tmp_path):
    PLANNED.save(tmp_path / "ways.npz")
    kept = Ways.load(tmp_path / "ways.npz")
    for one, other in zip(kept, PLANNED, strict=True):
        np.testing.assert_array_equal(one, other)
    for bad in (PLANNED._replace(velocity=PLANNED.velocity[:, :5]), PLANNED._replace(pose=PLANNED.pose * np.nan)):
        bad.save(tmp_path / "bad.npz")
        with pytest.raises(InputError):
            Ways.load(tmp_path / "bad.npz")
    (tmp_path / "text.npz").write_text("no arrays")
    with pytest.raises(InputError):
        Ways.load(tmp_path / "text.npz")


def test_without_ways_the_draws_of_a_task_are_as_they_were():
    plain, planned = walk(), walk(ways=PLANNED)
    assert plain.uniforms <= planned.uniforms
    assert "way" not in plain.drawn[0].columns and "way" in planned.drawn[1].columns
    assert replace(plain, ways=None).drawn[1].columns == plain.drawn[1].columns


# --- what comes next --------------------------------------------------------------------------------------------------

MOMENTS = (0.2, 0.6)


def test_a_preview_of_velocity_is_the_ways_in_the_present_heading_frame():
    way, place, _ = begun([0.0, 0.0, 0.2, 0.5])  # the circle, 1 m/s ahead and 1 rad/s around
    heading = float(PLANNED._reference(np, way, DT)[2])
    seen = PLANNED.preview(np, Preview(MOMENTS), way, place, np.float32(heading), DT)
    rate = way[3]
    wanted = [[rate * np.cos(t * rate), rate * np.sin(t * rate), rate] for t in MOMENTS]
    np.testing.assert_allclose(seen, wanted, atol=0.02)


@pytest.mark.parametrize("of", ["velocity", "pose"])
def test_a_robot_that_moves_as_its_preview_says_arrives_where_its_way_is(of):
    way, place, _ = begun([0.0, 0.3, 0.2, 0.5])  # 0.5 m/s to the left, no turning
    heading = float(PLANNED._reference(np, way, DT)[2])
    off = place + np.array([0.05, -0.1], np.float32)
    start = off if of == "pose" else place
    seen = PLANNED.preview(np, Preview(MOMENTS, of), way, start, np.float32(heading), DT)
    for (forward, left, turn), later in zip(seen, MOMENTS, strict=True):
        x, y = to_world(forward, left, heading)
        there = PLANNED._reference(np, way, DT, later)
        np.testing.assert_allclose(start + later * np.array([x, y]), there[:2], atol=1e-3)
        assert turn == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("of", ["velocity", "pose"])
def test_a_walker_sees_its_way_where_it_has_one_and_elsewhere_what_its_command_becomes(of):
    task = replace(walk(ways=PLANNED), preview=Preview(MOMENTS, of))
    env = BatchedEnv(task, 120, 0, threads=1)
    for _ in range(30):
        step = env.step(np.zeros((120, 12), np.float32))
    state, parts = env.state, task.layout.slices()
    seen = step.observation[:, parts["preview"]].reshape(-1, len(MOMENTS), 3)
    pose = np.array(env.physics.read().qpos)
    yaw = observation.yaw_of(np, pose[:, 3:7])
    planned = PLANNED.preview(np, task.preview, state.way, pose[:, :2], yaw, DT)
    on = state.way[:, 0] > 0
    assert on.any() and not on.all()
    clip = observation.PREVIEW_CLIP
    np.testing.assert_allclose(seen[on], np.clip(planned[on], -clip, clip), atol=1e-3)
    steady = ~on & (np.abs(state.command_goal - state.command).max(1) < 1e-6)
    if of == "velocity":
        np.testing.assert_allclose(seen[steady], np.repeat(state.command[steady, None], 2, 1), atol=1e-5)
        gap = np.linalg.norm((state.command_goal - state.command)[~on], axis=1)
        left = np.linalg.norm(state.command_goal[~on] - seen[~on, -1], axis=1)
        assert (left <= gap + 1e-5).all()


@pytest.mark.parametrize("of", ["velocity", "pose"])
def test_previews_agree_in_numpy_and_jax(of):
    way, place, yaw = begun(np.random.default_rng(3).random((50, 4)))
    one, other = (
        PLANNED.preview(xp, Preview(MOMENTS, of), xp.asarray(way), xp.asarray(place), xp.asarray(yaw), DT)
        for xp in (np, jnp)
    )
    np.testing.assert_allclose(one, other, atol=2e-4)


# --- poles ------------------------------------------------------------------------------------------------------------

BESIDE = np.array([[1.0, 0.6], [2.0, 0.6], [3.0, 0.6], [4.0, 0.6], [5.0, 0.6], [0.4, 0.0]])
STRAIGHT = np.stack([TIME, 0 * TIME, 0 * TIME], 1)
POLES = Ways.of([STRAIGHT], DT, [BESIDE])


def test_the_nearest_poles_of_a_way_stand_where_they_stand_by_it():
    """Also by its mirror image, and none where no way is followed."""
    chance = Draws(*ways.DRAWS).of(
        np.array([[0.0, 0.1, 0.0, 0.5], [0.0, 0.9, 0.0, 0.5], [0.99, 0.1, 0, 0]], np.float32)
    )
    place, yaw = np.tile(np.float32([3.0, -2.0]), (3, 1)), np.full(3, 2.5, np.float32)
    way = POLES.drawn(np, chance, place, yaw, np.ones(3, bool), DT)
    standing = POLES.standing(np, way, place)
    nearest = BESIDE[np.linalg.norm(BESIDE, axis=1).argsort()[: ways.POLES]]
    for k, side in ((0, 1), (1, -1)):
        x, y = to_body(standing[k, :, 0] - place[k, 0], standing[k, :, 1] - place[k, 1], 2.5)
        np.testing.assert_allclose(np.stack([x, y * side], 1), nearest, atol=1e-4)
    assert (standing[2] == [ways.NOWHERE, 0.0]).all()
    other = POLES.standing(jnp, jnp.asarray(way), jnp.asarray(place))
    np.testing.assert_allclose(standing, other, atol=1e-4)


@pytest.mark.parametrize("poles", [False, True])
def test_a_robot_is_stopped_by_a_pole_and_pays_for_it(poles):
    """Robots that are pushed straight into the pole ahead of them; its parts touch nothing else than before."""
    task = replace(walk(ways=POLES, poles=poles), thrown=0.0)
    env = BatchedEnv(task, 40, 0, threads=1)
    on = env.state.way[:, 0] > 0
    touched = np.zeros(40, bool)
    for _ in range(25):
        here = env.state.way[:, 0] > 0
        heading = observation.yaw_of(np, np.array(env.physics.qpos[:, 3:7]))
        env.physics.qvel[:, :2] = np.stack([np.cos(heading), np.sin(heading)], 1)
        step = env.step(np.zeros((40, 12), np.float32))
        paid = step.terms["pole_touch"] < 0 if poles else np.zeros(40, bool)
        assert not (paid & ~here).any()
        touched |= paid
    assert touched[on].any() if poles else not touched.any()


def test_ways_of_before_there_were_poles_are_still_read(tmp_path):
    file = tmp_path / "ways.npz"
    with file.open("wb") as stream:
        np.savez(stream, **{name: getattr(PLANNED, name) for name in ("pose", "velocity", "steps")})
    found = Ways.load(file)
    assert (found.poles[..., 0] >= ways.NOWHERE).all() and (found.pose == PLANNED.pose).all()
