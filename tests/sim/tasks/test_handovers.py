"""Episodes that begin as another skill hands the robot over: where, with what memory, and how the change goes on."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from policies.skills.handover import Handover
from sim import observation as obs
from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.handover import FADE, SET
from sim.robots.description import default_robot
from sim.tasks.handovers import SHARE, Handovers
from sim.tasks.skills import TASKS

ROBOT = default_robot()
N, J = 5, ROBOT.joints
STILL = 1e-5


def recorded(count: int = N) -> Handovers:
    """Hand-overs that can be told from each other and from every drawn start."""
    rng = np.random.default_rng(0)
    yaw = np.linspace(-0.2, 0.2, count)
    upright = np.stack([np.cos(yaw / 2), 0 * yaw, 0 * yaw, np.sin(yaw / 2)], 1)
    place = np.stack([-1.6 + 0.02 * np.arange(count), np.linspace(-0.1, 0.1, count), np.full(count, 0.21)], 1)
    made = Handovers(
        place=place,
        orientation=upright,
        joints=ROBOT.default_pose + 0.1 * rng.standard_normal((count, J)),
        velocity=rng.standard_normal((count, 6 + J)),
        history=rng.standard_normal((count, obs.HISTORY, obs.frame_size(J))),
        targets=ROBOT.default_pose + 0.3 * rng.standard_normal((count, J)),
        phase=np.linspace(0.05, 0.9, count),
        speed=np.linspace(1.2, 1.9, count),
    )
    return Handovers(*(values.astype(np.float32) for values in made))


POOL = recorded()
TASK = replace(TASKS["jump"](), handovers=POOL)


@pytest.fixture(scope="module")
def begun():
    """400 fresh episodes of both kinds: their chance, state, qpos and qvel, and which begin handed over."""
    u = np.random.default_rng(1).random((400, TASK.uniforms), np.float32)
    kind = np.arange(400) % len(TASK.ground.kinds)
    state, qpos, qvel = TASK.begin(np, u, kind, np.full(400, 3.0, np.float32))
    return u, kind, state, qpos, qvel, state.handed_age == 0


def test_a_share_begins_in_recorded_states_before_its_board(begun):
    _, kind, state, qpos, qvel, handed = begun
    assert handed.mean() == pytest.approx(SHARE, abs=0.1)
    which = np.abs(qpos[handed][:, None, 7:] - POOL.joints).max(-1).argmin(1)
    assert set(which) == set(range(N)), "every recorded state is used"
    np.testing.assert_array_equal(
        qpos[handed][:, 2:], np.concatenate([POOL.place[:, 2:], POOL.orientation, POOL.joints], 1)[which]
    )
    near, lane = state.board[handed, 0], TASK.ground.origin(np, kind, state.level)[handed, 1]
    np.testing.assert_allclose(qpos[handed, 0] - near, POOL.place[which, 0], atol=STILL)
    np.testing.assert_allclose(qpos[handed, 1] - lane, POOL.place[which, 1], atol=STILL)
    np.testing.assert_array_equal(qvel[handed], POOL.velocity[which])
    np.testing.assert_array_equal(state.history[handed], POOL.history[which])
    np.testing.assert_array_equal(state.phase[handed], POOL.phase[which])
    np.testing.assert_allclose(state.board[handed, 4], POOL.speed[which])
    actions = obs.frame_slices(J)["last_action"]
    np.testing.assert_array_equal(state.last_action[handed], POOL.history[which, 0][:, actions])


def test_the_others_begin_as_without_recorded_states(begun):
    u, kind, state, qpos, qvel, handed = begun
    plain, pose, speed = replace(TASK, handovers=None).begin(np, u, kind, state.level)
    np.testing.assert_array_equal(qpos[~handed], pose[~handed])
    np.testing.assert_array_equal(qvel[~handed], speed[~handed])
    for name, mine, other in zip(state._fields, state, plain, strict=True):
        np.testing.assert_array_equal(mine[~handed], other[~handed], err_msg=name)


def test_both_libraries_begin_alike(begun):
    u, kind, state, qpos, qvel, _ = begun
    some = slice(0, 40)
    level = jnp.full(40, 3.0)
    held = replace(TASK, ground=TASK.ground.held_by(jnp.asarray))
    other, pose, speed = jax.jit(lambda u, k: held.begin(jnp, u, k, level))(u[some], kind[some])
    np.testing.assert_allclose(qpos[some], pose, atol=2e-6)
    np.testing.assert_allclose(qvel[some], speed, atol=2e-6)
    for name in ("history", "phase", "command", "handed_age", "handed_slip", "last_targets"):
        np.testing.assert_allclose(getattr(state, name)[some], getattr(other, name), atol=2e-5, err_msg=name)


def test_targets_fade_as_where_skills_change_in_a_run():
    env = BatchedEnv(TASK, 64, 2)
    handed = env.state.handed_age == 0
    assert handed.any() and not handed.all()
    handover = Handover(ROBOT, 64)
    handover.targets = np.array(env.state.last_targets)
    rng = np.random.default_rng(3)
    alive = np.array(handed)
    for step in range(FADE + 2):
        action = (0.5 * rng.standard_normal((64, J))).astype(np.float32)
        asked = replace(TASK, handovers=None).targets(np, env.state, action)
        wanted = handover.blend(asked, handed & (step == 0))
        found = TASK.targets(np, env.state, action)
        np.testing.assert_allclose(found[alive], wanted[alive], atol=STILL)
        np.testing.assert_array_equal(found[~handed & alive], asked[~handed & alive])
        out = env.step(action)
        alive &= (out.fallen + out.truncated) == 0
    assert alive.any()


def test_the_clock_is_set_for_the_board_within_a_few_steps(begun):
    _, _, state, _, _, handed = begun
    lag = state.handed_slip * SET
    assert (np.abs(lag) <= 0.5 + STILL).all() and np.abs(lag[handed]).max() > 0.1 and (lag[~handed] == 0).all()
    env = BatchedEnv(TASK, 64, 2)
    mine = (env.state.handed_age == 0) & (np.abs(env.state.handed_slip) > 0.02)
    plain = replace(TASK, handovers=None)
    for step in range(SET + 2):
        before, action = env.state, np.zeros((64, J), np.float32)
        out = env.step(action)
        going = mine & ((out.fallen + out.truncated) == 0)
        assert env.outcome is not None
        turned = (env.outcome.state.phase - before.phase) % 1.0
        frequency = turned / ROBOT.control_period
        low, high = plain.gait.frequency_range
        own = plain.gait.lock_range
        slip = before.handed_slip / ROBOT.control_period if step < SET else 0.0
        rest = ((turned - slip * ROBOT.control_period + 0.5) % 1.0 - 0.5) / ROBOT.control_period
        fits = (rest > low * (1 - own) - 0.1) & (rest < high * (1 + own) + 0.1)
        assert fits[going].all(), (step, frequency[going], rest[going])


def test_saved_and_read_again(tmp_path):
    POOL.save(tmp_path / "some.npz")
    for mine, other in zip(POOL, Handovers.load(tmp_path / "some.npz", ROBOT), strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("damage", ["nothing", "text", "other robot", "not finite", "missing", "empty"])
def test_what_is_no_recording_is_refused(damage, tmp_path):
    file = tmp_path / "some.npz"
    if damage == "text":
        file.write_text("no arrays")
    elif damage == "other robot":
        POOL._replace(joints=POOL.joints[:, :-1]).save(file)
    elif damage == "not finite":
        POOL._replace(phase=POOL.phase * np.nan).save(file)
    elif damage == "missing":
        np.savez(file, **{k: v for k, v in POOL._asdict().items() if k != "speed"})
    elif damage == "empty":
        Handovers(*(values[:0] for values in POOL)).save(file)
    with pytest.raises(InputError) as said:
        Handovers.load(file, ROBOT)
    assert "\n" not in str(said.value)


def test_ground_without_boards_takes_none():
    walk = replace(TASKS["walk"](), handovers=POOL)
    with pytest.raises(InputError):
        walk.begin(np, np.zeros((2, walk.uniforms), np.float32), np.zeros(2, int), np.zeros(2, np.float32))
