"""The skills' tasks: the climber's ground and the commands that keep it on the A-frame."""

import jax.numpy as jnp
import numpy as np
import pytest

from sim.course.terrain import Terrain
from sim.envs.batched import BatchedEnv
from sim.tasks import patches
from sim.tasks.skills import TASKS

CLIMB = TASKS["climb"]()
FRAMES = CLIMB.ground.kinds.index("frames")


def guide(xp, command, *where):
    return CLIMB.ground.guide(xp, command, CLIMB.commands, *where)


@pytest.mark.parametrize("kind", ["ridges", "frames"])
@pytest.mark.parametrize("difficulty, degrees", [(0.0, 5.0), (1.0, 33.0)])
def test_ridges_and_frames_have_the_slopes_they_say(kind, difficulty, degrees):
    ground = Terrain(tuple(patches.pieces_of(kind, difficulty)))
    x = np.linspace(-1.4, -0.2, 30)
    rise = np.diff(ground.height(x, np.full(30, patches.LINES))) / np.diff(x)
    np.testing.assert_allclose(np.degrees(np.arctan(rise)), degrees, atol=1e-6)


def test_a_frame_has_the_official_size_at_its_slope():
    angle = np.radians(30)
    difficulty = (angle - patches.RIDGE_SLOPES[0]) / (patches.RIDGE_SLOPES[1] - patches.RIDGE_SLOPES[0])
    ground = Terrain(tuple(patches.pieces_of("frames", difficulty)))
    assert ground.height(0.0, patches.LINES) == pytest.approx(1.0)
    on = ground.height(np.full(4, 0.5), patches.LINES + np.array([-0.51, -0.49, 0.49, 0.51])) > 0.1
    assert on.tolist() == [False, True, True, False]
    assert ground.height(2.0 * np.cos(angle) + 0.01, patches.LINES) == 0.0


@pytest.mark.parametrize("yaw", [0.0, 0.4, -1.0, np.pi, 2.5, -2.0])
@pytest.mark.parametrize("aside", [0.0, 0.3, -0.3])
def test_guided_commands_lead_along_the_frame(yaw, aside):
    """A point robot that does what it is told ends up on the nearer line, pointing along it."""
    position, heading = np.array([0.0, patches.LINES + aside]), yaw
    command = np.array([0.8, 0.5, 1.0], np.float32)
    for _ in range(300):
        forward, left, turn = CLIMB.ground.guide(
            np, command, CLIMB.commands, np.array(FRAMES), position, np.float32(heading)
        )
        c, s = np.cos(heading), np.sin(heading)
        position = position + 0.02 * np.array([c * forward - s * left, s * forward + c * left])
        heading += 0.02 * turn
    assert abs(position[1] - patches.LINES) < 0.02
    assert abs(np.sin(heading)) < 0.02 and np.sign(np.cos(heading)) == np.sign(np.cos(yaw) + 1e-9)


@pytest.mark.parametrize("yaw, x, most", [(0.0, -1.0, 2.4), (0.0, 1.0, 1.7), (np.pi, 1.0, 2.4), (np.pi, -1.0, 1.7)])
def test_no_more_than_a_navigator_asks_for_downhill_is_asked_behind_the_ridge(yaw, x, most):
    command, yaw = np.array([9.0, 0.0, 0.0], np.float32), np.float32(yaw)
    for period in (0, 1, -2):
        here = np.array([x + period * patches.PERIOD, patches.LINES])
        assert guide(np, command, np.array(FRAMES), here, yaw)[0] == pytest.approx(most)
    assert guide(np, np.zeros(3, np.float32), np.array(FRAMES), here, yaw)[0] == pytest.approx(0.6)


def test_ground_that_does_not_guide_leaves_commands_alone():
    command = np.array([[0.2, -0.3, 1.0]] * len(CLIMB.ground.kinds), np.float32)
    kinds, here = np.arange(len(CLIMB.ground.kinds)), np.zeros((len(CLIMB.ground.kinds), 2))
    guided = CLIMB.ground.guide(np, command, CLIMB.commands, kinds, here, np.zeros(len(CLIMB.ground.kinds), np.float32))
    np.testing.assert_array_equal(guided[:FRAMES], command[:FRAMES])
    assert guided[FRAMES, 0] >= 0.3
    there = CLIMB.ground.guide(
        jnp, jnp.asarray(command), CLIMB.commands, jnp.asarray(kinds), here, jnp.zeros(len(CLIMB.ground.kinds))
    )
    np.testing.assert_allclose(guided, there, atol=1e-5)
    walk = TASKS["walk"]()
    assert walk.ground.guide(np, command, walk.commands, kinds, here, np.zeros(len(kinds))) is command


def test_episodes_begin_on_the_frames_and_along_them():
    u = np.random.default_rng(0).random((400, 72), np.float32)
    kind, level = np.full(400, FRAMES), np.full(400, 3.0, np.float32)
    _, qpos, _ = CLIMB.begin(np, u, kind, level)
    aside = np.abs(qpos[:, 1] - CLIMB.ground.land.origins[FRAMES, 3, 1]) - patches.LINES
    assert np.abs(aside).max() <= 0.25 + 1e-5 and aside.std() > 0.1
    yaw = 2 * np.arctan2(qpos[:, 6], qpos[:, 3])
    assert np.abs(np.cos(yaw)).min() > np.cos(0.7) and (np.cos(yaw) < 0).mean() == pytest.approx(0.5, abs=0.1)


def test_the_climber_lives_in_its_worlds():
    env = BatchedEnv(CLIMB, 24, seed=3)
    for _ in range(50):
        out = env.step(np.zeros((24, 12), np.float32))
    assert np.isfinite(out.observation).all() and out.observation.shape == (24, CLIMB.layout.size)
    guided = env.kind == FRAMES
    assert guided.any() and (env.state.command[guided, 0] >= 0.3).all()
