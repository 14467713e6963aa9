"""The gymnasium environments: gymnasium's own checks, seeds, ends, and the same numbers as the engines behind them."""

import os
import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.error import ResetNeeded  # noqa: E402
from gymnasium.utils.env_checker import check_env  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics  # noqa: E402

import sim.envs.gym as door  # noqa: E402
from sim import observation as obs  # noqa: E402
from sim.course.description import official  # noqa: E402
from sim.course.files import save  # noqa: E402
from sim.course.scene import course_model  # noqa: E402
from sim.course.score import score_log  # noqa: E402
from sim.envs.batched import BatchedEnv  # noqa: E402
from sim.envs.worlds import SimulatedRobots  # noqa: E402
from sim.errors import InputError  # noqa: E402
from sim.tasks.ground import Ground  # noqa: E402
from sim.tasks.task import Task  # noqa: E402

ROOT = Path(__file__).parents[3]
IDS = ("BarkourWalk-v0", "BarkourCourse-v0")
KNOWN_WARNINGS = re.compile(
    r"recommend using a symmetric and normalized space|space (minimum|maximum) value is -?infinity"
)
"""Actions are +-`Robot.action_limit`, as the tasks and bundles take them; speeds have no bound."""


@pytest.fixture(scope="module")
def task() -> Task:
    """A walk task on a small ground, built once."""
    task = Task(ground=Ground(("flat", "stairs"), (0.5, 0.5)))
    assert task.ground is not None
    return task


@pytest.fixture(scope="module")
def brief(task) -> Task:
    """The same with episodes of 8 steps."""
    return replace(task, episode_seconds=0.16)


def unwrapped(env_id, **arguments):
    return gymnasium.make(env_id, **arguments).unwrapped


def actions(count: int, *shape: int, size: float = 1.0) -> np.ndarray:
    return np.random.default_rng(5).uniform(-size, size, (count, *shape, 12)).astype(np.float32)


def flat(info: dict, prefix: str = "") -> dict[str, np.ndarray]:
    """An info as one level of arrays."""
    out = {}
    for name, value in info.items():
        nested = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: np.asarray(value)}
        out.update(nested)
    return out


def trajectory(env, seed, steps=15):
    """Everything that comes out of a few steps, as arrays."""
    observation, info = env.reset(seed=seed)
    rows = [(observation, flat(info))]
    for action in actions(steps, size=0.5):
        observation, reward, terminated, truncated, info = env.step(action)
        rows.append((observation, {**flat(info), "reward": np.array(reward), "ends": [terminated, truncated]}))
        if terminated or truncated:
            break
    return rows


def assert_same(one, other):
    assert len(one) == len(other)
    for (a, infos), (b, other_infos) in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert infos.keys() == other_infos.keys()
        for name in infos:
            np.testing.assert_array_equal(infos[name], other_infos[name], err_msg=name)


# --- both environments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_gymnasium_finds_nothing_wrong(env_id):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        check_env(unwrapped(env_id), skip_render_check=True)
    assert [str(w.message) for w in seen if not KNOWN_WARNINGS.search(str(w.message))] == []


@pytest.mark.parametrize("env_id", IDS)
def test_spaces_hold_what_happens(env_id):
    env = gymnasium.make(env_id)
    env.action_space.seed(0)
    observation, _ = env.reset(seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            assert observation in env.observation_space and np.isfinite(observation).all()
            observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            assert isinstance(reward, float) and np.isfinite(reward)
            if terminated or truncated:
                observation, _ = env.reset()
    assert observation.dtype == env.action_space.dtype == np.float32
    env.close()


@pytest.mark.parametrize("env_id", IDS)
def test_a_seed_decides_everything_whatever_came_before(env_id):
    env = unwrapped(env_id, randomize=True)
    first = trajectory(env, 7)
    other = trajectory(env, 8)
    env.reset()
    assert_same(first, trajectory(env, 7))
    assert_same(first, trajectory(unwrapped(env_id, randomize=True), 7))
    assert not np.array_equal(first[1][0], other[1][0])
    unseeded = [trajectory(env, None)[1][0] for _ in range(2)]
    assert not np.array_equal(*unseeded)


@pytest.mark.parametrize("env_id", IDS)
def test_bad_actions_are_named(env_id):
    env = unwrapped(env_id)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(12, np.float32))
    env.reset(seed=0)
    action = np.zeros(12, np.float32)
    action[4] = np.nan
    with pytest.raises(InputError, match="hip_hind_left.* not finite"):
        env.step(action)
    with pytest.raises(InputError, match=r"shape \(12,\), got \(3,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(InputError, match="numbers"):
        env.step("left")
    env.step(np.zeros(12, np.float32))  # a refused action has changed nothing


@pytest.mark.parametrize("env_id", IDS)
def test_bad_options_and_seeds_are_named(env_id):
    env = unwrapped(env_id)
    with pytest.raises(InputError, match="unknown reset option 'gravity'"):
        env.reset(options={"gravity": 0})
    with pytest.raises(InputError, match="seed"):
        env.reset(seed=2**40)
    with pytest.raises(InputError, match="render_mode"):
        type(env)(render_mode="human")


@pytest.mark.parametrize("env_id", IDS)
def test_actions_beyond_the_limit_are_the_limit(env_id):
    env = unwrapped(env_id)
    results = []
    for action in (np.full(12, 4.0), np.full(12, 1e6)):
        env.reset(seed=3)
        results.append(env.step(action)[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("env_id", IDS)
def test_pictures_come_or_the_reason_why_not(env_id, monkeypatch):
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(InputError, match="MUJOCO_GL=egl"):
        unwrapped(env_id, render_mode="rgb_array")
    env = unwrapped(env_id)
    env.reset(seed=0)
    assert env.render() is None
    program = (
        "import gymnasium, numpy as np\n"
        "from sim.errors import InputError\n"
        f"env = gymnasium.make('sim.envs.gym:{env_id}', render_mode='rgb_array')\n"
        "env.reset(seed=0)\n"
        "try:\n"
        "    image = env.render()\n"
        "    print(image.shape, image.dtype, image.std() > 5)\n"
        "except InputError as error:\n"
        "    print(error)\n"
        "env.close()\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env={**os.environ, "MUJOCO_GL": "egl"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "(360, 640, 3) uint8 True" in out.stdout or "off-screen GL" in out.stdout, out.stderr


def test_registering_again_changes_nothing():
    spec = gymnasium.registry[IDS[0]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        door.register()
    assert gymnasium.registry[IDS[0]] is spec


def test_only_this_module_needs_gymnasium():
    sources = [ROOT / "barkour.py", *(ROOT / "sim").rglob("*.py"), *(ROOT / "policies").rglob("*.py")]
    users = [
        path for path in sources if re.search(r"^\s*(import|from) (gymnasium|sim\.envs\.gym)", path.read_text(), re.M)
    ]
    assert users == [ROOT / "sim" / "envs" / "gym.py"]


# --- walking ---------------------------------------------------------------------------------------------------------


def test_walk_is_the_batched_environment(task):
    env = unwrapped("BarkourWalk-v0", task=task)
    reference = BatchedEnv(task, 1, 11, threads=1)
    reference.state = reference.state._replace(steps=np.zeros(1, np.float32))
    observation, info = env.reset(seed=11)
    np.testing.assert_array_equal(observation, reference.observe()[0][0])
    for action in actions(40, size=0.3):
        observation, reward, terminated, _, info = env.step(action)
        step = reference.step(action[None])
        assert reward == step.reward[0] and terminated == bool(step.fallen[0])
        for name, value in step.terms.items():
            assert info["terms"][name] == value[0]
        assert info["velocity_error"] == step.metrics["velocity_error"][0]
        if terminated:
            break
        np.testing.assert_array_equal(observation, step.observation[0])
        np.testing.assert_array_equal(info["privileged"], step.privileged[0])


def test_walk_episodes_end_in_time_and_show_their_last_moment(brief):
    env = unwrapped("BarkourWalk-v0", task=brief)
    parts = brief.layout.slices()
    before, _ = env.reset(seed=0)
    for k in range(1, 9):
        observation, _, terminated, truncated, _ = env.step(np.zeros(12, np.float32))
        np.testing.assert_array_equal(observation[parts["frame_1"]], before[parts["frame_0"]])  # no new episode inside
        assert not terminated and truncated == (k == 8)
        before = observation
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(12, np.float32))
    env.reset()
    env.step(np.zeros(12, np.float32))


def test_a_fallen_walker_is_terminated(task):
    env = unwrapped("BarkourWalk-v0", task=task)
    env.reset(seed=0)
    env.batch.physics.qpos[0, 3:7] = (0.0, 1.0, 0.0, 0.0)  # on its back
    _, reward, terminated, truncated, info = env.step(np.zeros(12, np.float32))
    assert terminated and not truncated
    assert info["terms"]["fall"] < 0 and reward < 0


def test_ground_can_be_chosen(task):
    env = unwrapped("BarkourWalk-v0", task=task)
    for seed in range(3):
        _, info = env.reset(seed=seed, options={"kind": "stairs", "level": 4})
        assert (info["kind"], info["level"]) == (1, 4.0)
        origin = task.ground.land.origins[1, 4]
        assert np.abs(env.batch.physics.qpos[0, :2] - origin).max() < 3.1
    with pytest.raises(InputError, match="unknown kind of ground 'ice'.*flat, stairs"):
        env.reset(options={"kind": "ice"})
    with pytest.raises(InputError, match="level must be"):
        env.reset(options={"level": 6})


def test_curriculum_goes_on_until_a_seed_is_given(brief):
    env = unwrapped("BarkourWalk-v0", task=brief)
    _, info = env.reset(seed=0)
    assert info["level"] == brief.start_level == 1.0
    env.batch.physics.qpos[0, 3:7] = (0.0, 1.0, 0.0, 0.0)
    assert env.step(np.zeros(12, np.float32))[2]
    assert env.reset()[1]["level"] == 0.0  # a fall: easier ground
    assert env.reset(seed=0)[1]["level"] == 1.0


def test_walk_without_randomisation_has_one_robot(task):
    env = unwrapped("BarkourWalk-v0", task=task, randomize=False)
    masses = []
    for seed in (1, 2):
        env.reset(seed=seed)
        masses.append(np.array(env.batch.drawn.trunk_mass))
    assert masses == [0.0, 0.0]


# --- many walkers ----------------------------------------------------------------------------------------------------


def test_make_vec_takes_the_batched_engine(task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = gymnasium.make_vec("BarkourWalk-v0", num_envs=3, task=task)
    assert type(envs) is door.BarkourWalkVector and envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    envs.action_space.seed(0)
    observations, _ = envs.reset(seed=0)
    for _ in range(100):
        assert observations in envs.observation_space
        observations, rewards, terminated, truncated, _ = envs.step(envs.action_space.sample())
        assert rewards.shape == terminated.shape == truncated.shape == (3,)
        assert terminated.dtype == truncated.dtype == bool
    envs.close()
    with pytest.raises(InputError, match="num_envs"):
        gymnasium.make_vec("BarkourWalk-v0", num_envs=0)


def test_vector_is_the_batched_environment(brief):
    envs = gymnasium.make_vec("BarkourWalk-v0", num_envs=6, task=brief)
    reference = BatchedEnv(brief, 6, 4)
    observations, info = envs.reset(seed=4)
    expected, privileged = reference.observe()
    np.testing.assert_array_equal(observations, expected)
    np.testing.assert_array_equal(info["privileged"], privileged)
    for action in actions(30, 6):
        observations, rewards, terminated, truncated, info = envs.step(action)
        step = reference.step(action)
        np.testing.assert_array_equal(observations, step.observation)
        np.testing.assert_array_equal(rewards, step.reward)
        np.testing.assert_array_equal(terminated, step.fallen > 0)
        np.testing.assert_array_equal(truncated, step.truncated > 0)
        np.testing.assert_array_equal(info["privileged"], step.privileged)
        np.testing.assert_array_equal(info["level"], reference.state.level)
        for name, value in step.terms.items():
            np.testing.assert_array_equal(info["terms"][name], value)
    assert reference.state.steps.max() < 8  # every world has begun again


def test_worlds_begin_again_in_the_same_step(brief):
    envs = gymnasium.make_vec("BarkourWalk-v0", num_envs=4, task=brief)
    parts = brief.layout.slices()
    newest, older = parts["frame_0"], parts["frame_1"]
    before, _ = envs.reset(seed=2)
    ended = 0
    for action in actions(20, 4):
        observations, _, terminated, truncated, info = envs.step(action)
        done = terminated | truncated
        assert ("final_obs" in info) == done.any()
        np.testing.assert_array_equal(info["_velocity_error"], ~done)
        for i in range(4):
            if done[i]:
                ended += 1
                assert info["_final_obs"][i] and info["_final_info"][i]
                np.testing.assert_array_equal(info["final_obs"][i][older], before[i, newest])  # the old episode's end
                np.testing.assert_array_equal(info["final_info"]["privileged"][i][: observations.shape[1]],
                                              info["final_obs"][i])  # fmt: skip
                np.testing.assert_array_equal(observations[i, older], observations[i, newest])  # a fresh history
            else:
                assert done.sum() == 0 or info["final_obs"][i] is None
                np.testing.assert_array_equal(observations[i, older], before[i, newest])
        before = observations
    assert ended >= 8


def test_info_is_laid_out_as_gymnasium_does_it(brief):
    ours = gymnasium.make_vec("BarkourWalk-v0", num_envs=2, task=brief)
    theirs = gymnasium.make_vec(
        "BarkourWalk-v0", num_envs=2, task=brief, vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
    )  # fmt: skip
    assert isinstance(theirs, SyncVectorEnv)

    def shapes(info):
        return {name: value.shape for name, value in flat(info).items() if not name.endswith("final_obs")}

    assert shapes(ours.reset(seed=0)[1]) == shapes(theirs.reset(seed=0)[1])
    ends = {}
    for envs in (ours, theirs):
        for action in actions(9, 2, size=0.2):
            *_, truncated, info = envs.step(action)
            ends.setdefault((envs is ours, bool(truncated.any()), bool(truncated.all())), shapes(info))
    assert ends[True, False, False] == ends[False, False, False]
    assert set(ends[False, True, True]) <= set(ends[True, True, False])
    assert any("final_info.terms.linear_tracking" in keys for keys in ends.values())


def test_vector_wrappers_work(brief):
    envs = DictInfoToList(RecordEpisodeStatistics(gymnasium.make_vec("BarkourWalk-v0", num_envs=2, task=brief)))
    _, infos = envs.reset(seed=0)
    assert [set(info) for info in infos] == [{"privileged", "kind", "level"}] * 2
    returns = []
    for action in actions(20, 2, size=0.2):
        *_, infos = envs.step(action)
        returns += [info["episode"]["r"] for info in infos if "episode" in info]
    assert len(returns) >= 2 and np.isfinite(returns).all()


def test_vector_refuses_what_is_wrong(task):
    envs = gymnasium.make_vec("BarkourWalk-v0", num_envs=2, task=task)
    with pytest.raises(ResetNeeded):
        envs.step(np.zeros((2, 12), np.float32))
    envs.reset(seed=0, options={"kind": "flat"})
    assert (envs.batch.kind == 0).all()
    action = np.zeros((2, 12), np.float32)
    action[1, 0] = np.inf
    with pytest.raises(InputError, match="'abduction_front_left' in world 1 is not finite"):
        envs.step(action)
    with pytest.raises(InputError, match=r"shape \(2, 12\), got \(12,\)"):
        envs.step(action[0])


# --- the course ------------------------------------------------------------------------------------------------------


def test_unknown_courses_are_named(tmp_path):
    with pytest.raises(InputError, match="unknown course 'moon'"):
        gymnasium.make("BarkourCourse-v0", course="moon")
    with pytest.raises(InputError, match="nowhere.yaml"):
        gymnasium.make("BarkourCourse-v0", course=str(tmp_path / "nowhere.yaml"))


def test_courses_come_from_files(tmp_path):
    path = tmp_path / "mine.yaml"
    save(replace(official(), name="mine", start=(0.4, -0.6, 0.5)), path)
    env = unwrapped("BarkourCourse-v0", course=path)
    observation, _ = env.reset(seed=0)
    x, y, s, c = observation[env.slices["pose"]]
    np.testing.assert_allclose([x, y, np.arctan2(s, c)], [0.4, -0.6, 0.5], atol=1e-6)


@pytest.mark.parametrize("randomize", [False, True])
def test_course_physics_are_those_of_judged_runs(randomize):
    course, seed = official(), 20  # whose robot is pushed within the first steps
    env = unwrapped("BarkourCourse-v0", randomize=randomize)
    robots = SimulatedRobots(env.robot, course_model(course, env.robot), [seed], randomize=randomize)
    x, y, yaw = (np.array([value]) for value in course.start)
    robots.place(x, y, yaw, course.height)
    observation, _ = env.reset(seed=seed)
    last = np.zeros((1, 12), np.float32)
    for action in actions(60, size=1.5):
        frame = obs.frame(np, env.robot, robots.look_around(), last)
        np.testing.assert_array_equal(observation[env.slices["frame_0"]], frame[0])
        seen = robots.ground_seen(env.layout)[0]
        np.testing.assert_allclose(observation[env.slices["heights"]], seen, atol=1e-6)
        targets = env.robot.default_pose + env.robot.action_scale.astype(np.float32) * action
        robots.apply(np.clip(targets, env.robot.joint_lower, env.robot.joint_upper)[None])
        observation, _, terminated, _, _ = env.step(action)
        np.testing.assert_array_equal(env.world.physics.qpos, robots.physics.qpos)
        last = action[None]
        if terminated:
            break
    assert env.world.touched == bool(robots.touched[0])


def carry(env, x, y, z=2.0, quat=(1.0, 0.0, 0.0, 0.0)):
    """One step with the robot put, at rest, to a place (in the air by default)."""
    physics = env.world.physics
    physics.qpos[0, :7] = (x, y, z, *quat)
    physics.qvel[0] = 0.0
    return env.step(np.zeros(12, np.float32))


def through(gate) -> list[np.ndarray]:
    """A point on either side of a gate's middle."""
    across = np.array(gate.right) - gate.left
    normal = np.array([-across[1], across[0]]) / np.linalg.norm(across)
    return [gate.center - 0.1 * normal, gate.center + 0.1 * normal]


def test_rewards_of_a_finished_run_add_up_to_its_score():
    course = replace(official(), target_velocity=100.0)  # so that even this run takes longer than it is allotted
    env = unwrapped("BarkourCourse-v0", course=course)
    _, info = env.reset(seed=0)
    assert info["score"] == 0.0 and info["end"] == ""
    poses, total, at_gates = [env.world.pose[0, :2]], 0.0, []
    for obstacle in course.obstacles:
        for gate in obstacle.gates:
            np.testing.assert_array_equal(env.next_gate(), [gate.left, gate.right])
            for point in through(gate):
                _, reward, terminated, truncated, info = carry(env, *point)
                poses.append(env.world.pose[0, :2])
                total += reward
                assert not terminated and not truncated
            at_gates.append(reward)
    assert min(at_gates) > 0 and info["progress"] == 1.0
    observation = None
    while not (terminated or truncated):
        observation, reward, terminated, truncated, info = carry(env, 4.5, -4.5)
        poses.append(env.world.pose[0, :2])
        total += reward
    np.testing.assert_allclose(observation[env.slices["gate"]], 0.0, atol=1e-6)  # the end table's centre
    official_score = score_log(0.02 * np.arange(len(poses)), map(tuple, poses), False, course)
    assert info["end"] == "held the end table" and info["finished"] and terminated
    assert info["score"] == pytest.approx(official_score.score, abs=1e-9)
    assert total == pytest.approx(info["score"] - 1 + 0.5 - 0.01 * official_score.allotted_s, abs=1e-9)


def test_the_gate_is_seen_from_the_robot():
    env = unwrapped("BarkourCourse-v0")
    env.reset(seed=0)
    half = np.sqrt(0.5)
    observation, *_ = carry(env, 0.4, -0.5, quat=(half, 0.0, 0.0, half))  # facing +y: what lies at +x is to its right
    left_x, left_y, right_x, right_y = observation[env.slices["gate"]]
    np.testing.assert_allclose([left_x, left_y, right_x, right_y], [0.5, -1.0, -0.2, -1.0], atol=0.01)


def test_touching_the_board_costs_a_tenth_once():
    env = unwrapped("BarkourCourse-v0")
    env.reset(seed=0)
    per_step = -0.01 * env.robot.control_period
    assert carry(env, 2.75, -4.5)[1] == pytest.approx(per_step)
    rewards = [carry(env, 2.75, -4.5, z=0.19)[1] for _ in range(10)]
    assert env.world.touched
    assert sum(rewards) == pytest.approx(-0.1 + 10 * per_step)


def test_falling_is_charged_as_the_scorer_does():
    env = unwrapped("BarkourCourse-v0")
    env.reset(seed=0)
    _, total, terminated, _, _ = carry(env, 0.5, -0.5, z=0.3, quat=(0.0, 1.0, 0.0, 0.0))
    steps = 1
    while not terminated:
        _, reward, terminated, truncated, info = env.step(np.zeros(12, np.float32))
        total, steps = total + reward, steps + 1
        assert steps < 30 and not truncated
    assert info["fell"] and info["end"] == "fell" and steps > 15
    assert total == pytest.approx(-0.5)
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(12, np.float32))


def test_leaving_the_course_ends_the_run():
    env = unwrapped("BarkourCourse-v0")
    env.reset(seed=0)
    *_, terminated, truncated, info = carry(env, -2.5, -2.0)
    assert terminated and not truncated and info["end"] == "left the course" and not info["fell"]


def test_time_runs_out(monkeypatch):
    monkeypatch.setattr(door, "MAX_TIME", 0.1)
    env = unwrapped("BarkourCourse-v0")
    env.reset(seed=0)
    ends = [env.step(np.zeros(12, np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]
