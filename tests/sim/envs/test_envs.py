"""The walk task and its batched environment: commands, rewards, falls, curriculum, noise, saving, broken numbers."""

import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sim import observation as obs
from sim.course.scene import SolverOptions
from sim.envs.batched import BatchedEnv, DivergedError
from sim.errors import InputError
from sim.observation import Grid
from sim.physics.base import PhysicsReading
from sim.tasks import patches, rewards
from sim.tasks import randomization as randomize
from sim.tasks.commands import AT_ONCE, Commands
from sim.tasks.events import Pushes
from sim.tasks.randomization import SensorNoise
from sim.tasks.state import Motion, Outcome, TaskState
from sim.tasks.task import Task

WORLDS = 8
DT = 0.02
SILENT = SensorNoise(0, 0, 0, 0, 0)
TASK = Task()


def variant(**changes) -> Task:
    """The task with some fields changed, on the same training ground (built once)."""
    return replace(TASK, **changes)


CALM = variant(pushes=Pushes(speed=0.0), noise=SILENT)
ROBOT = TASK.robot
KINDS = list(TASK.ground.kinds)
UNIFORMS = TASK.uniforms


def make(task: Task = TASK, seed: int = 0, **options) -> BatchedEnv:
    return BatchedEnv(task, WORLDS, seed, **{"threads": 1, **options})


def random_actions(steps: int, seed: int, size: float = 1.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, (steps, WORLDS, 12)).astype(np.float32)


ZERO = np.zeros((WORLDS, 12), np.float32)


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def many() -> TaskState:
    """40,000 fresh episodes, half on the flat and half on stairs."""
    u = np.random.default_rng(0).random((40_000, UNIFORMS), np.float32)
    kind = np.repeat([KINDS.index("flat"), KINDS.index("stairs")], 20_000)
    return TASK.begin(np, u, kind, np.ones(40_000, np.float32))[0]


def test_commands_fill_their_ranges_and_stay_inside(many):
    c = TASK.commands
    flat, rough = many.command[:20_000], many.command[20_000:]
    for commands, scale in ((flat, 1.0), (rough, c.rough_scale)):
        for column, (low, high) in enumerate((c.forward, c.sideways, c.yaw)):
            factor = scale if column < 2 else 1.0  # turning is not slower on rough ground
            values = commands[:, column] / factor
            assert low - 1e-5 <= values.min() < low + 0.02 and high - 0.02 < values.max() <= high + 1e-5
    walking = flat[(flat != 0).all(-1)]
    for column, (low, high) in enumerate((c.forward, c.sideways, c.yaw)):
        share = np.histogram(walking[:, column], 5, (low, high))[0] / len(walking)
        np.testing.assert_allclose(share, 0.2, atol=0.02)  # uniform


def test_the_stated_shares_of_commands_stand_still_or_go_straight(many):
    standing = (many.command == 0).all(-1)
    straight = ~standing & (many.command[:, 1:] == 0).all(-1)
    assert standing.mean() == pytest.approx(0.08, abs=0.01)
    assert straight.mean() == pytest.approx(0.2 * 0.92, abs=0.01)


def test_commands_live_for_the_stated_seconds(many):
    low, high = np.array(TASK.commands.seconds) / DT
    assert low <= many.command_life.min() < low + 2 and high - 2 < many.command_life.max() <= high
    assert (many.command_life == np.round(many.command_life)).all()


def test_a_command_is_reached_at_once_or_at_its_acceleration():
    commands = Commands(slewed=0.6, slew=(3.0, 8.0), slew_radius=0.4)
    u = np.random.default_rng(0).random((20_000, TASK.uniforms)).astype(np.float32)
    slew = commands.drawn_slew(np, TASK.drawn[1].of(u))
    jumps = slew == AT_ONCE
    assert jumps.mean() == pytest.approx(0.4, abs=0.02)
    assert 3.0 <= slew[~jumps].min() < 3.05 and 7.95 < slew[~jumps].max() <= 8.0
    start, goal = np.array([[1.5, -0.5, 2.0]] * 2), np.array([[-0.9, 0.5, -1.0]] * 2)
    one = commands.towards(np, start, goal, np.array([5.0, AT_ONCE]), DT)
    np.testing.assert_allclose(one[1], goal[1], atol=1e-6)
    moved = one[0] - start[0]
    assert np.linalg.norm(moved[:2]) == pytest.approx(5.0 * DT, rel=1e-5)
    np.testing.assert_allclose(moved[:2] / np.linalg.norm(moved[:2]), [-2.4 / 2.6, 1.0 / 2.6], atol=1e-5)
    assert moved[2] == pytest.approx(-5.0 / 0.4 * DT, rel=1e-5)
    command, steps = start, 0
    while np.abs(command - goal).max() > 1e-6:
        command, steps = commands.towards(np, command, goal, np.array([5.0, 5.0]), DT), steps + 1
    assert steps == math.ceil(2.6 / 5.0 / DT)


def test_a_slewed_command_goes_on_to_where_it_was_drawn():
    env = make(variant(commands=replace(TASK.commands, slewed=1.0, standing=0.0)))
    life = np.full(WORLDS, 1, np.float32)
    env.state = env.state._replace(steps=np.zeros(WORLDS, np.float32), command_life=life)
    before = env.state.command.copy()
    for k in range(1, 4):
        env.step(ZERO)
        way = np.linalg.norm((env.state.command - before)[:, :2], axis=1)
        gap = np.linalg.norm((env.state.command_goal - before)[:, :2], axis=1)
        np.testing.assert_allclose(way, np.minimum(gap, env.state.command_slew * DT * k), rtol=1e-3)


def test_a_command_changes_when_its_life_is_over_and_not_before():
    env = make(variant(commands=replace(TASK.commands, slewed=0.0)))
    before = env.state.command.copy()
    life = np.full(WORLDS, 3, np.float32)
    life[5] = 50
    env.state = env.state._replace(steps=np.zeros(WORLDS, np.float32), command_life=life)
    commands, ages = [], []
    for _ in range(3):
        env.step(ZERO)
        commands.append(env.state.command.copy())
        ages.append(env.state.command_age.tolist())
    np.testing.assert_array_equal(commands[0], before)
    np.testing.assert_array_equal(commands[1], before)
    changed = (commands[2] != before).any(-1)
    assert changed.tolist() == [True] * 5 + [False] + [True] * 2
    assert ages == [[1.0] * WORLDS, [2.0] * WORLDS, [0.0] * 5 + [3.0] + [0.0] * 2]


# --- episodes ---------------------------------------------------------------------------------------------------------


def test_episodes_begin_upright_over_their_own_patch_near_the_default_pose():
    u = np.random.default_rng(1).random((2000, UNIFORMS), np.float32)
    rng = np.random.default_rng(2)
    kind, level = rng.integers(0, 5, 2000), rng.integers(0, 6, 2000).astype(np.float32)
    state, qpos, qvel = TASK.begin(np, u, kind, level)
    patch = np.stack([kind, level], -1) * patches.PITCH
    offset = qpos[:, :2] - patch
    assert np.abs(offset).max() <= patches.PERIOD / 2 + 1e-4 and np.abs(offset).max() > 2.9
    np.testing.assert_allclose(np.abs(qpos[:, 7:] - ROBOT.default_pose).max(), 0.1, atol=1e-3)
    np.testing.assert_allclose((qpos[:, 3:7] ** 2).sum(-1), 1, atol=1e-6)
    assert (qpos[:, 4:6] == 0).all()  # turned about z alone
    below = TASK.ground.land.terrain.height(qpos[:, 0], qpos[:, 1])
    assert (qpos[:, 2] - below >= ROBOT.standing_height - 0.01).all()  # a cell of the height map may hide an edge
    assert np.abs(qvel[:, :3]).max() <= 0.2 + 1e-6 and (qvel[:, 3:] == 0).all()
    assert (state.steps == 0).all() and (state.phase == 0).all() and (state.last_action == 0).all()
    np.testing.assert_array_equal(state.history[:, 0], state.history[:, 14])


def test_the_stated_share_of_episodes_begins_as_another_skill_leaves_a_robot():
    """Moving, pitched, legs anywhere within their limits; the others begin as without."""
    count = 4000
    u = np.random.default_rng(0).random((count, UNIFORMS)).astype(np.float32)
    kind, level = np.zeros(count, int), np.zeros(count, np.float32)
    plain, thrown = Task(), Task(thrown=0.3)
    (_, qpos, qvel), (state, q, v) = (task.begin(np, u, kind, level) for task in (plain, thrown))
    other = (q != qpos).any(-1)
    assert 0.27 < other.mean() < 0.33 and (q[~other] == qpos[~other]).all() and (v[~other] == qvel[~other]).all()
    q, v, robot = q[other], v[other], plain.robot
    np.testing.assert_allclose(np.linalg.norm(q[:, 3:7], axis=-1), 1.0, atol=1e-6)
    down = obs.projected_gravity(np, q[:, 3:7])
    assert (down[:, 2] < -0.8).all() and np.arcsin(down[:, 0]).max() > 0.35 and np.arcsin(down[:, 0]).min() < -0.45
    yaw = obs.yaw_of(np, q[:, 3:7])
    np.testing.assert_allclose(yaw, obs.yaw_of(np, qpos[other, 3:7]), atol=1e-5)  # the heading stays
    ahead = np.cos(yaw) * v[:, 0] + np.sin(yaw) * v[:, 1]
    assert ahead.min() >= -0.5 and 1.9 < ahead.max() <= 2.0
    assert (q[:, 7:] >= robot.joint_lower - 1e-6).all() and (q[:, 7:] <= robot.joint_upper + 1e-6).all()
    assert (state.phase[other] > 0).all() and (state.phase[~other] == 0).all()


def test_first_episodes_are_staggered_so_that_worlds_do_not_end_together():
    steps = BatchedEnv(TASK, 200, 0, threads=1).state.steps
    assert steps.min() < 20 and 400 < steps.max() <= TASK.episode_steps and len(np.unique(steps)) > 100


@pytest.mark.parametrize("how", ["on its side", "low"])
def test_a_fall_ends_the_episode_of_that_world_alone(how):
    env = make(CALM)
    env.state = env.state._replace(steps=np.full(WORLDS, 7, np.float32), level=np.full(WORLDS, 2, np.float32))
    qpos, qvel = np.array(env.physics.qpos), np.zeros((WORLDS, 18))
    if how == "low":
        ground = CALM.ground.land.terrain.height(qpos[3, 0], qpos[3, 1])
        qpos[3, 2] = ground + 0.05
        qpos[3, 7:] = np.tile([0, 0, 0], 4)  # legs folded beside the trunk
    else:
        qpos[3, 2] += 0.2
        qpos[3, 3:7] = (np.cos(0.7), np.sin(0.7), 0, 0)  # rolled by 80 degrees
    env.physics.reset(np.ones(WORLDS, bool), qpos, qvel)
    out = env.step(ZERO)
    only = np.eye(WORLDS)[3]
    assert out.fallen.tolist() == only.tolist() and not out.truncated.any()
    assert out.reward[3] <= -50 * DT + 5 * DT and (np.delete(out.reward, 3) > -10 * DT).all()
    assert env.state.steps.tolist() == (8 * (1 - only)).tolist()
    assert env.state.level.tolist() == (2 - only).tolist()
    assert obs.projected_gravity(np, env.physics.qpos[3, 3:7])[2] == pytest.approx(-1)
    # the world that begins anew shows its new state, with an empty past
    fresh = out.observation[3]
    np.testing.assert_allclose(fresh[0:3], (0, 0, -1), atol=1e-6)
    np.testing.assert_array_equal(fresh[0:42], fresh[42:84])


def test_an_episode_ends_after_its_seconds():
    env = make(CALM)
    steps = np.arange(WORLDS, dtype=np.float32) + TASK.episode_steps - WORLDS
    env.state = env.state._replace(steps=steps)
    assert TASK.episode_steps == 500
    ended = [env.step(ZERO) for _ in range(3)]
    for k, out in enumerate(ended):
        assert not out.fallen.any()
        assert out.truncated.tolist() == np.eye(WORLDS)[WORLDS - 1 - k].tolist()
    assert env.state.steps.tolist() == [495, 496, 497, 498, 499, 0, 1, 2]


# --- curriculum -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "level, asked, share, steps, fallen, expected",
    [
        (1, 8.0, 0.9, 500, 0, 2),  # made the distance
        (1, 8.0, 0.9, 500, 1, 0),  # a fall counts against it, however far it went
        (1, 8.0, 0.75, 500, 0, 1),  # neither far enough nor stuck
        (1, 8.0, 0.6, 500, 0, 0),  # stuck
        (1, 8.0, 0.9, 100, 0, 1),  # too short to tell
        (1, 0.5, 0.9, 500, 0, 1),  # hardly asked to go anywhere
        (1, 0.0, 0.0, 500, 0, 1),  # asked to stand: not stuck
        (0, 8.0, 0.1, 500, 0, 0),  # no level below the first
        (5, 8.0, 1.0, 500, 0, 5),  # none above the last
    ],
)
def test_promotion(level, asked, share, steps, fallen, expected):
    state = make().state._replace(
        level=np.full(WORLDS, level, np.float32),
        steps=np.full(WORLDS, steps, np.float32),
        asked=np.full(WORLDS, asked, np.float32),
        travelled=np.full(WORLDS, share * asked, np.float32),
    )
    out = TASK.promote(np, state, np.full(WORLDS, fallen, np.float32))
    assert out.tolist() == [expected] * WORLDS and out.dtype == np.float32


@pytest.mark.parametrize(
    "velocity, command, asked, travelled",
    [
        ((0.0, 1.0, 0), (1.0, 0.0, 0.5), 1.0, 1.0),  # heading along world +y, as asked
        ((0.0, 3.0, 0), (1.0, 0.0, 0), 1.0, 1.0),  # faster than asked earns no more
        ((0.0, -1.0, 0), (1.0, 0.0, 0), 1.0, 0.0),  # the wrong way earns nothing
        ((-0.8, 0.6, 0), (0.6, 0.8, 0), 1.0, 1.0),  # ahead and to the left
        ((1.0, 0.0, 0), (1.0, 0.0, 0), 1.0, 0.0),  # sideways of the command
        ((0.0, 1.0, 0), (0.0, 0.0, 1.0), 0.0, 0.0),  # nothing was asked
    ],
)
def test_distance_is_made_along_the_command(velocity, command, asked, travelled):
    out = one_step(
        TASK, quaternion(yaw=np.pi / 2), velocity=np.array(velocity), command=command, asked=2.0, travelled=1.5
    )
    assert out.state.asked[0] == pytest.approx(2.0 + asked * DT, abs=1e-6)
    assert out.state.travelled[0] == pytest.approx(1.5 + travelled * DT, abs=1e-6)


@pytest.mark.parametrize("curriculum", [True, False])
def test_levels_rise_and_sink_in_the_environment_only_under_the_curriculum(curriculum):
    env = make(CALM, curriculum=curriculum)
    good, bad = 0, 1
    asked = np.full(WORLDS, 9, np.float32)
    steps = np.where(np.arange(WORLDS) <= bad, 499.0, 100.0).astype(np.float32)
    level = np.full(WORLDS, 2, np.float32)
    env.state = env.state._replace(steps=steps, asked=asked, travelled=asked, level=level)
    qpos = np.array(env.physics.qpos)
    qpos[bad, 2] += 0.3
    qpos[bad, 3:7] = (0, 1, 0, 0)  # on its back
    env.physics.reset(np.arange(WORLDS) == bad, qpos, np.zeros((WORLDS, 18)))
    out = env.step(ZERO)
    assert out.truncated.tolist() == [1] + [0] * 7 and out.fallen.tolist() == [0, 1] + [0] * 6
    assert env.state.level.tolist() == ([3, 1] if curriculum else [2, 2]) + [2] * 6
    for world in (good, bad):  # the new episode stands on the new level's patch
        patch = np.array([env.kind[world], env.state.level[world]]) * patches.PITCH
        assert np.abs(env.physics.qpos[world, :2] - patch).max() <= patches.PERIOD / 2 + 1e-3


def test_worlds_that_mastered_everything_sometimes_return_to_easier_ground():
    env = BatchedEnv(CALM, 300, 0, threads=1)
    env.state = env.state._replace(
        level=np.full(300, patches.LEVELS - 1, np.float32),
        steps=np.full(300, 499, np.float32),
        asked=np.full(300, 9, np.float32),
        travelled=np.full(300, 9, np.float32),
    )
    env.step(np.zeros((300, 12), np.float32))
    counts = np.bincount(env.state.level.astype(int), minlength=6) / 300
    assert counts[5] == pytest.approx(0.7 + 0.3 / 6, abs=0.08)
    assert (counts[:5] > 0.01).all()


# --- one control step by hand -----------------------------------------------------------------------------------------


EVERY = {name: 1.0 for name in rewards.TERMS}
U = np.full((1, UNIFORMS), 0.5, np.float32)  # no noise, no push
FLAT = np.array([KINDS.index("flat")])


def quaternion(yaw: float = 0.0, roll: float = 0.0) -> np.ndarray:
    a, b = yaw / 2, roll / 2
    return np.array([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a) * np.sin(b), np.sin(a) * np.cos(b)])


def one_step(task: Task, quat: np.ndarray, z: float = 0.2, u: np.ndarray = U, **changes) -> Outcome:
    """The task after a step of one world on flat ground; `changes` set the state, the reading or the action."""
    state = task.begin(np, U, FLAT, np.zeros(1, np.float32))[0]
    fields = {k: np.asarray(changes.pop(k), np.float32)[None] for k in list(changes) if k in TaskState._fields}
    state = state._replace(**fields)
    qpos = np.concatenate([[0.1, 0.2, z], quat, changes.pop("joints", ROBOT.default_pose)])[None]
    qvel = np.concatenate(
        [changes.pop("velocity", np.zeros(3)), changes.pop("spin", np.zeros(3)), changes.pop("speeds", np.zeros(12))]
    )[None]
    sensors, touch = np.zeros((1, 17)), changes.pop("touch", np.zeros(4))[None]
    action = changes.pop("action", np.zeros(12))[None]
    targets = changes.pop("targets", ROBOT.default_pose)[None]
    feet, bias = changes.pop("feet", np.zeros((4, 3)))[None], changes.pop("bias", np.zeros(12))[None]
    assert not changes
    reading = PhysicsReading(*(a.astype(np.float32) for a in (qpos, qvel, sensors, touch)))
    return task.after(np, state, action, targets, reading, feet, bias, u)


def test_terms_follow_from_what_was_read():
    """Every quantity a reward needs, from numbers set by hand: a robot heading along world +y, walking as commanded."""
    rng = np.random.default_rng(3)
    joints, speeds = ROBOT.default_pose + rng.uniform(-0.2, 0.2, 12), rng.uniform(-3, 3, 12)
    before, targets = rng.uniform(-3, 3, 12), ROBOT.default_pose + rng.uniform(-1, 1, 12)
    action, last, older = rng.uniform(-1, 1, (3, 12))
    feet, last_feet = rng.uniform(-0.3, 0.3, (4, 3)), rng.uniform(-0.3, 0.3, (4, 2))
    out = one_step(
        variant(weights=EVERY), quaternion(yaw=np.pi / 2), z=0.15, joints=joints, speeds=speeds, targets=targets,
        velocity=np.array([-0.3, 1.1, 0.2]), spin=np.array([0.4, -0.5, 0.9]), touch=np.array([5, 0, 0.5, 20]),
        action=action, last_action=last, older_action=older, last_joint_velocity=before, feet=feet,
        last_feet=last_feet, command=(1.0, 0.3, 0.7), phase=0.75, steps=9,
    )  # fmt: skip
    terms = {name: float(value[0]) for name, value in out.terms.items()}
    slow, spin = 0.1**2, 0.2**2  # errors: velocity in the heading frame is (1.1, 0.3), the command (1.0, 0.3)
    torque = [min(max(35 * (t - q) - 1.0 * v, -18), 18) for t, q, v in zip(targets, joints, speeds, strict=True)]
    assert max(map(abs, torque)) == 18
    speed = [math.dist(feet[i][:2], last_feet[i]) / DT for i in range(4)]
    expected = {
        "linear_tracking": 0.5 * math.exp(-slow / 0.25) + 0.5 * math.exp(-slow),
        "linear_precision": math.exp(-slow / 0.02),
        "yaw_tracking": 0.5 * math.exp(-spin / 0.25) + 0.5 * math.exp(-spin),
        "yaw_precision": math.exp(-spin / 0.04),
        "vertical_velocity": 0.04,
        "tilt_rate": 0.4**2 + 0.5**2,
        "tilt": 0.0,
        "torque": sum(t * t for t in torque),
        "joint_acceleration": sum(((v - b) / DT) ** 2 for v, b in zip(speeds, before, strict=True)),
        "action_rate": sum((a - b) ** 2 for a, b in zip(action, last, strict=True)),
        "action_jerk": sum((a - 2 * b + c) ** 2 for a, b, c in zip(action, last, older, strict=True)),
        "abduction_pose": sum(joints[i] ** 2 for i in (0, 3, 6, 9)),
        "stand_still": 0.0,
        "foot_slip": speed[0] ** 2 + speed[3] ** 2,  # front left and hind right stand
        "out_of_step": 2.0,  # and both should be swinging at phase 0.75
        "low_base": (0.17 - 0.15) ** 2,
        "fall": 0.0,
        "progress": 1.0,
        "velocity_gap": 0.1,
        "yaw_gap": 0.2,
        "board_touch": 0.0,
        "pole_touch": 0.0,
        "board_cleared": 0.0,
    }
    assert set(terms) == set(expected)
    for name, value in expected.items():
        assert terms[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name
    assert out.metrics["velocity_error"][0] == pytest.approx(0.1, abs=1e-5)
    assert out.metrics["yaw_error"][0] == pytest.approx(0.2, abs=1e-5)


def test_a_robot_asked_to_stand_pays_for_its_joints_and_has_no_swing():
    joints = ROBOT.default_pose + 0.1
    out = one_step(variant(weights=EVERY), quaternion(), joints=joints, command=np.zeros(3), touch=np.full(4, 9.0))
    assert out.terms["stand_still"][0] == pytest.approx(1.2, rel=1e-4)
    assert out.terms["out_of_step"][0] == 0
    assert out.terms["foot_slip"][0] == 0  # an episode's first step knows no earlier feet


@pytest.mark.parametrize(
    "roll, z, fallen", [(59, 0.2, 0), (61, 0.2, 1), (-61, 0.2, 1), (180, 0.2, 1), (0, 0.075, 0), (0, 0.065, 1)]
)
def test_a_fall_is_a_tilt_beyond_60_degrees_or_a_base_below_7_centimetres(roll, z, fallen):
    out = one_step(TASK, quaternion(yaw=1.0, roll=np.deg2rad(roll)), z, steps=499)
    assert out.fallen[0] == out.terms["fall"][0] / -50 == fallen
    assert out.truncated[0] == 1 - fallen  # a fall in the last step is a fall


@pytest.mark.parametrize("age, settled", [(0, 0), (49, 0), (50, 1), (200, 1)])
def test_errors_count_from_a_second_after_a_command(age, settled):
    out = one_step(TASK, quaternion(), command_age=age, command_life=1000)
    assert out.metrics["settled"][0] == settled


def test_actions_are_remembered_clipped_and_move_the_joints_clipped():
    state = TASK.begin(np, U, FLAT, np.zeros(1, np.float32))[0]
    still = state._replace(command=np.zeros((1, 3), np.float32))
    pose = TASK.targets(np, still, np.full((1, 12), 100.0, np.float32))
    np.testing.assert_array_equal(pose, TASK.targets(np, still, np.full((1, 12), 4.0, np.float32)))
    out = one_step(TASK, quaternion(), action=np.full(12, -100.0), last_action=np.full(12, 0.5))
    assert (out.state.last_action == -ROBOT.action_limit).all() and (out.state.older_action == 0.5).all()


def test_a_kick_comes_as_often_and_as_hard_as_stated():
    rng = np.random.default_rng(4)
    pushes = []
    for _ in range(1500):
        u = U.copy()
        chances = [TASK.drawn[1].columns[name] for name in ("push", "push_angle", "push_size")]
        u[0, chances] = rng.random(3)
        u[0, chances[0]] *= 0.02  # a kick is due below 0.02 s / 4 s = 0.005
        pushes.append(one_step(TASK, quaternion(), u=u).push[0])
    size = np.linalg.norm(pushes, axis=-1)
    assert (size > 0).mean() == pytest.approx(0.25, abs=0.03)
    assert 0.29 < size.max() <= 0.3 + 1e-6
    direction = np.array(pushes)[size > 0.01] / size[size > 0.01, None]
    assert np.abs(direction.mean(0)).max() < 0.1


def test_noise_stays_inside_its_half_widths_and_reaches_them():
    noise = SensorNoise(orientation=0.03, angular_velocity=0.15, joint_position=0.01, joint_velocity=0.6)
    rng = np.random.default_rng(5)
    n = 2000
    u = rng.random((n, UNIFORMS), np.float32)
    quat = quaternion(yaw=0.4, roll=0.3).astype(np.float32)
    speeds, gyro = rng.uniform(-2, 2, 12).astype(np.float32), np.array([0.1, -0.2, 0.3], np.float32)
    qpos = np.tile(np.concatenate([[0, 0, 0.2], quat, ROBOT.default_pose]).astype(np.float32), (n, 1))
    qvel = np.tile(np.concatenate([[0, 0, 0], gyro, speeds]).astype(np.float32), (n, 1))
    state = TASK.begin(np, u, np.zeros(n, int), np.zeros(n, np.float32))[0]
    out = variant(noise=noise).after(
        np, state, np.zeros((n, 12)), np.zeros((n, 12)), PhysicsReading(qpos, qvel, np.zeros((n, 17)),
        np.zeros((n, 4))), np.zeros((n, 4, 3)), np.zeros((n, 12)), u,
    )  # fmt: skip
    frame = out.state.history[:, 0]
    for part, exact, scale, width in (
        (slice(3, 6), gyro, 0.25, 0.15),
        (slice(6, 18), np.zeros(12), 1.0, 0.01),
        (slice(18, 30), speeds, 0.05, 0.6),
    ):
        error = np.abs(frame[:, part] / scale - exact)
        assert 0.98 * width < error.max() <= width * 1.001
    down = np.array([0, -np.sin(0.3), -np.cos(0.3)])
    tilted = np.linalg.norm(frame[:, 0:3] - down, axis=-1)
    assert 0.03 < tilted.max() <= 0.03 * math.sqrt(3)  # three small turns of 0.03 rad each at most
    np.testing.assert_allclose(np.linalg.norm(frame[:, 0:3], axis=-1), 1, atol=1e-5)
    related = np.corrcoef(frame[:, 3:30].T) - np.eye(27)
    assert np.abs(related).max() < 0.12  # every number has its own noise
    exact = out.privileged[:, -42:]  # the critic sees the truth
    np.testing.assert_allclose(exact[:, 3:30], np.tile([*gyro / 4, *np.zeros(12), *speeds / 20], (n, 1)), atol=1e-5)


def test_encoder_offsets_reach_the_policy_and_not_the_rewards():
    bias = np.linspace(-0.01, 0.02, 12)
    task = variant(weights=EVERY, noise=SILENT)
    out = one_step(task, quaternion(), bias=bias, command=np.zeros(3))
    np.testing.assert_allclose(out.state.history[0, 0, 6:18], bias, atol=1e-6)
    assert out.terms["stand_still"][0] == pytest.approx(0, abs=1e-5)


def test_the_observation_holds_command_clock_and_ground_as_the_layout_says():
    env = make(CALM)
    env.step(random_actions(1, 0)[0])
    out = env.step(random_actions(1, 1)[0])
    parts = CALM.layout.slices()
    qpos = env.physics.qpos
    assert out.observation.shape == (WORLDS, CALM.layout.size)
    assert out.privileged.shape == (WORLDS, CALM.privileged_size)
    np.testing.assert_allclose(out.observation[:, parts["command"]], env.state.command)
    angle = 2 * np.pi * env.state.phase
    moving = np.abs(env.state.command).sum(-1) > 0.05
    clock = np.stack([np.sin(angle), np.cos(angle)], -1) * moving[:, None]
    np.testing.assert_allclose(out.observation[:, parts["clock"]], clock, atol=1e-5)
    np.testing.assert_array_equal(out.privileged[:, : CALM.layout.size], out.observation)
    grid = CALM.layout.grids[0]
    points = np.zeros((WORLDS, len(grid.x), len(grid.y), 2))
    for world in range(WORLDS):
        w, x, y, z = qpos[world, 3:7]
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
        for i, ahead in enumerate(grid.x):
            for j, left in enumerate(grid.y):
                points[world, i, j, 0] = qpos[world, 0] + ahead * math.cos(yaw) - left * math.sin(yaw)
                points[world, i, j, 1] = qpos[world, 1] + ahead * math.sin(yaw) + left * math.cos(yaw)
    ground = CALM.ground.land.terrain.height(points[..., 0], points[..., 1])
    expected = 5 * (ground - qpos[:, 2, None, None] + 0.2)
    wrong = np.abs(out.observation[:, parts["heights_around"]].reshape(expected.shape) - expected) > 5 * 0.01
    assert wrong.mean() <= 0.03  # points within a map cell (2.5 cm) of an edge may see its other side


@pytest.mark.parametrize("grids", [(), (obs.around(), Grid("ahead", (0.6, 0.8), (0.0,)))])
def test_tasks_with_no_grid_or_several_fill_their_layout(grids):
    env = make(variant(grids=grids))
    out = env.step(ZERO)
    assert out.observation.shape == (WORLDS, env.task.layout.size)
    assert np.isfinite(out.observation).all()


def test_walking_off_a_patch_leads_back_onto_it_unnoticed():
    env = make(CALM)
    qpos = np.array(env.physics.qpos)
    origin = np.stack([env.kind, env.state.level], -1) * patches.PITCH
    qpos[:, :2] = origin
    qpos[:, 2] += 0.3
    qpos[0, 0] += 3.05
    qpos[1, 1] -= 3.05
    env.physics.reset(np.ones(WORLDS, bool), qpos, np.zeros((WORLDS, 18)))
    env.state = env.state._replace(steps=np.full(WORLDS, 5, np.float32))
    env.step(ZERO)
    offset = env.physics.qpos[:, :2] - origin
    expected = np.zeros((WORLDS, 2))
    expected[0, 0], expected[1, 1] = -2.95, 2.95
    np.testing.assert_allclose(offset, expected, atol=0.02)
    moved = np.abs(env.state.last_feet - env.physics.qpos[:, None, :2]).max()
    assert moved < 0.5  # the remembered feet came along: no foot seems to have moved by 6 m


def test_swing_legs_fold_by_the_relief_that_the_policy_sees():
    env = make(CALM, seed=2)
    parts = CALM.layout.slices()
    for action in random_actions(5, 12, size=0.1):
        seen, privileged = env.observe()
        table = seen[:, parts["heights_around"]].reshape(WORLDS, 10, 5) / 5
        rows = np.abs(table[:, 2:] - 2 * table[:, 1:-1] + table[:, :-2]).reshape(WORLDS, -1).max(-1)
        columns = np.abs(table[:, :, 2:] - 2 * table[:, :, 1:-1] + table[:, :, :-2]).reshape(WORLDS, -1).max(-1)
        np.testing.assert_allclose(env.state.relief, np.maximum(rows, columns), atol=1e-5)
        env.step(action)
    assert env.state.relief.max() > 0.01 and env.state.relief.min() < 1e-5


# --- rewards ----------------------------------------------------------------------------------------------------------


def motion(**changes) -> Motion:
    """A robot that stands in its default pose and does exactly what it is told."""
    shapes = {"velocity": 3, "angular_velocity": 3, "command": 3, "place": 2}
    shapes |= dict.fromkeys(("contact", "swing", "foot_speed"), 4)
    scalars = {"moving", "clearance", "fallen", "low", "yaw", "touch", "cleared"}
    fields = {name: np.zeros(()) if name in scalars else np.zeros(shapes.get(name, 12)) for name in Motion._fields}
    fields |= {
        "gravity": np.array([0, 0, -1.0]),
        "clearance": np.array(0.2),
        "low": np.array(0.17),
        "contact": np.ones(4),
    }
    fields |= {k: np.asarray(v, float) for k, v in changes.items()}
    return Motion(**(fields | {"wanted": fields["command"]} if "wanted" not in changes else fields))


GAINS = {"progress", "linear_tracking", "linear_precision", "yaw_tracking", "yaw_precision"}


def test_turning_back_pays_from_the_first_step_on():
    """Tracking and progress are flat where the velocity is far from the command; the sum must not be."""
    command = [-1.5, 0, 0]
    rewarded = [rewards.total(np, rewards.WALK, motion(command=command, velocity=[v, 0, 0]), DT)[0] for v in (2.0, 1.8)]
    assert rewarded[1] - rewarded[0] == pytest.approx(1.5 * 0.2 * DT, rel=0.1)


def test_a_perfect_step_earns_the_tracking_weights_and_pays_nothing():
    reward, terms = rewards.total(np, rewards.WALK, motion(command=[0.8, 0.6, 0], velocity=[0.8, 0.6, 0]), DT)
    assert reward == pytest.approx((1.0 + 1.5 + 0.5 + 0.8 + 0.3) * DT)
    assert {name for name, value in terms.items() if value != 0} == GAINS


@pytest.mark.parametrize("name", sorted(set(rewards.WALK) - GAINS))
def test_every_cost_has_a_negative_weight_and_is_never_negative(name):
    rng = np.random.default_rng(6)
    wild = motion(**{field: rng.normal(size=np.shape(getattr(motion(), field))) for field in Motion._fields})
    wild = wild._replace(
        contact=np.ones(4),
        fallen=np.array(1.0),
        clearance=np.array(0.1),
        low=np.array(0.17),
        moving=np.array(0.0),
        swing=np.full(4, 0.9),
    )
    assert rewards.WALK[name] < 0
    assert rewards.TERMS[name](np, wild) > 0


def test_the_sum_is_weighted_clipped_at_zero_and_a_fall_always_counts():
    weights = {"linear_tracking": 2.0, "vertical_velocity": -3.0, "fall": -50.0}
    reward, terms = rewards.total(np, weights, motion(velocity=[0, 0, 0.5]), DT)
    assert (terms["linear_tracking"], terms["vertical_velocity"]) == (2.0, -0.75)
    assert reward == pytest.approx(1.25 * DT)
    costly = motion(velocity=[0, 0, 2.0])
    assert rewards.total(np, weights, costly, DT)[0] == 0
    fallen = costly._replace(fallen=np.array(1.0))
    assert rewards.total(np, weights, fallen, DT)[0] == pytest.approx(-50 * DT)


def test_unknown_reward_terms_are_refused_by_name():
    with pytest.raises(InputError, match="unknown reward term 'speed': known are abduction_pose"):
        rewards.total(np, {"fall": -1.0, "speed": 1.0}, motion(), DT)
    with pytest.raises(InputError, match="unknown reward term 'speed'"):
        make(variant(weights={"speed": 1.0})).step(ZERO)


# --- the environment as a whole ---------------------------------------------------------------------------------------


def rollout(env: BatchedEnv, actions: np.ndarray) -> list[np.ndarray]:
    out = [env.step(action) for action in actions]
    return [
        np.stack([getattr(step, name) for step in out]) for name in ("observation", "privileged", "reward", "fallen")
    ]


def test_equal_seeds_give_equal_worlds_whatever_the_threads_and_other_seeds_others():
    actions = random_actions(40, 7)
    first, second, other = (rollout(make(seed=s, threads=t), actions) for s, t in ((3, 1), (3, 2), (4, 1)))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[3].any()  # with falls and restarts among them
    assert (first[0] != other[0]).any(-1).all()


def test_restoring_continues_bit_for_bit():
    env = make(seed=5)
    rollout(env, random_actions(30, 8))
    arrays, values = env.save()
    arrays = {name: np.array(value) for name, value in arrays.items()}
    here = env.observe()
    straight = rollout(env, random_actions(40, 9))
    assert straight[3].any()
    resumed = make(seed=5)
    rollout(resumed, random_actions(3, 10))  # whatever it did before does not matter
    resumed.restore(arrays, values)
    for a, b in zip(here, resumed.observe(), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(straight, rollout(resumed, random_actions(40, 9)), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(env.physics.batch.state, resumed.physics.batch.state)


def test_each_world_has_its_own_physics_from_the_ranges():
    env = make(ranges=replace(randomize.nominal(ROBOT), friction=(0.5, 1.2), latency=(0.008, 0.02)))
    models = [env.physics.batch.get_model(world) for world in range(WORLDS)]
    friction = [m.geom_friction[env.feet[0], 0] for m in models]
    np.testing.assert_allclose(friction, env.drawn.friction, rtol=1e-6)
    assert len(set(friction)) == WORLDS
    assert env.delay.tolist() == np.round(env.drawn.latency / 0.004).astype(int).tolist() and len(set(env.delay)) > 1
    assert {float(m.body_mass[1]) for m in models} == {4.48878}


def test_a_control_period_that_is_no_multiple_of_the_physics_step_is_refused():
    with pytest.raises(InputError, match="no multiple of 0.003"):
        make(options=SolverOptions(timestep=0.003))


# --- broken numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_action_is_named_before_it_reaches_the_physics(value):
    env = make()
    before = np.array(env.physics.batch.state)
    action = ZERO.copy()
    action[[2, 6], 5] = value
    with pytest.raises(DivergedError, match="'action' is not finite in 2 worlds") as caught:
        env.step(action)
    assert caught.value.term == "action" and caught.value.worlds.tolist() == [2, 6]
    np.testing.assert_array_equal(env.physics.batch.state, before)


@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_broken_physics_is_named(field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it runs
    env = make()
    getattr(env.physics, field)[3, 8] = np.nan
    with pytest.raises(DivergedError) as caught:
        env.step(ZERO)
    assert caught.value.term in ("qpos", "qvel") and caught.value.worlds.tolist() == [3]


def test_a_broken_reward_term_is_named(monkeypatch):
    def broken(xp, m):
        return xp.where(xp.arange(WORLDS) == 4, np.nan, 0.0)

    monkeypatch.setitem(rewards.TERMS, "torque", broken)
    with pytest.raises(DivergedError, match="reward term torque") as caught:
        make().step(ZERO)
    assert caught.value.worlds.tolist() == [4]


# --- numpy and jax ----------------------------------------------------------------------------------------------------


def test_numpy_and_jax_run_the_same_task():
    rng = np.random.default_rng(11)
    u = rng.random((WORLDS, UNIFORMS)).astype(np.float32)
    v = rng.random((WORLDS, UNIFORMS)).astype(np.float32)
    v[:2, TASK.drawn[1].columns["push"]] = 0.001  # two kicks
    kind, level = rng.integers(0, 5, WORLDS), rng.integers(0, 6, WORLDS).astype(np.float32)
    action = rng.normal(0, 2, (WORLDS, 12)).astype(np.float32)
    bias, feet = rng.normal(0, 0.01, (WORLDS, 12)), rng.normal(0, 0.2, (WORLDS, 4, 3))
    touch, wobble = rng.uniform(0, 3, (WORLDS, 17)).astype(np.float32), rng.normal(0, 0.1, (WORLDS, 18))

    def run(task, xp):
        state, qpos, qvel = task.begin(xp, xp.asarray(u), xp.asarray(kind), xp.asarray(level))
        state = state._replace(command_life=xp.asarray(np.where(np.arange(WORLDS) < 3, 1, 200).astype(np.float32)))
        targets = task.targets(xp, state, xp.asarray(action))
        reading = PhysicsReading(
            qpos, qvel + xp.asarray(wobble.astype(np.float32)), xp.asarray(touch), xp.asarray(touch[:, 13:])
        )
        given = [xp.asarray(a.astype(np.float32)) for a in (feet, bias, v)]
        out = task.after(xp, state, xp.asarray(action), targets, reading, *given)
        promoted = task.promote(xp, out.state, out.fallen)
        return {**out.state._asdict(), **out.terms, **out.metrics, "targets": targets, "promoted": promoted} | {
            name: getattr(out, name)
            for name in ("observation", "privileged", "reward", "fallen", "truncated", "push", "shift")
        }

    in_jax = variant(ground=TASK.ground.held_by(jnp.asarray))  # compiled, as on an accelerator
    here, there = run(TASK, np), jax.jit(lambda: run(in_jax, jnp))()
    assert here.keys() == there.keys()
    for name, value in here.items():
        other = np.asarray(there[name])
        assert other.shape == np.shape(value), name
        np.testing.assert_allclose(other, value, rtol=2e-4, atol=2e-4, err_msg=name)
