"""rsl_rl on the tasks: the numbers of the batched environment, ten iterations of its PPO, a bundle of what it made."""

import numpy as np
import pytest
import torch
from rsl_rl.models import MLPModel
from rsl_rl.runners import OnPolicyRunner

from policies.bundle.reader import Bundle
from policies.learning.rsl_rl_export import write_actor
from sim.envs.batched import BatchedEnv, DivergedError
from sim.envs.rsl_rl_env import RslRlEnv, walk_config
from sim.errors import InputError
from sim.tasks.ground import Ground
from sim.tasks.skills import walk
from sim.tasks.task import Task

WORLDS = 6


def test_steps_are_those_of_the_batched_environment():
    task = Task(ground=Ground(("flat", "stairs"), (0.5, 0.5)))
    env, batch = RslRlEnv(task, WORLDS, seed=4, threads=1), BatchedEnv(task, WORLDS, 4, threads=1)
    rng = np.random.default_rng(0)
    env.episode_length_buf = torch.full((WORLDS,), env.max_episode_length - 3)
    batch.state = batch.state._replace(steps=np.full(WORLDS, env.max_episode_length - 3, np.float32))
    cut = 0
    for _ in range(6):
        action = rng.uniform(-5, 5, (WORLDS, env.num_actions)).astype(np.float32)
        seen, reward, done, extras = env.step(torch.from_numpy(action))
        out = batch.step(action)
        np.testing.assert_array_equal(seen["policy"].numpy(), out.observation)
        np.testing.assert_array_equal(seen["critic"].numpy(), out.privileged)
        np.testing.assert_array_equal(reward.numpy(), out.reward)
        np.testing.assert_array_equal(done.numpy(), (out.fallen + out.truncated) > 0)
        np.testing.assert_array_equal(extras["time_outs"].numpy(), (out.truncated > 0) & (out.fallen == 0))
        np.testing.assert_array_equal(env.episode_length_buf.numpy(), batch.state.steps)
        assert env.get_observations() is seen and seen.batch_size == (WORLDS,)
        assert extras["log"].keys() >= {f"/reward/{name}" for name in out.terms}
        cut += int(extras["time_outs"].sum())
    assert cut, "episodes that reach their length are cut off, which is no end for the critic"


def test_what_is_not_finite_is_no_action():
    env = RslRlEnv(num_envs=2, threads=1)
    with pytest.raises(DivergedError):
        env.step(torch.full((2, env.num_actions), torch.nan))
    with pytest.raises(InputError):
        RslRlEnv(num_envs=0)


@pytest.fixture(scope="module")
def trained():
    """Ten iterations; the environment, the actor, and its weights before."""
    torch.manual_seed(0)
    env = RslRlEnv(walk(), WORLDS, seed=1, threads=1)
    runner = OnPolicyRunner(env, walk_config(num_mini_batches=2, num_learning_epochs=2))
    before = {name: value.clone() for name, value in runner.alg.get_policy().state_dict().items()}
    losses = []
    update = runner.alg.update
    runner.alg.update = lambda: (losses.append(update()), losses[-1])[1]  # type: ignore[method-assign]
    runner.learn(10, init_at_random_ep_len=True)
    return env, runner.alg.get_policy(), before, losses


def test_its_ppo_trains_a_walker_through_it(trained):
    env, actor, before, losses = trained
    assert len(losses) == 10 and all(np.isfinite(list(loss.values())).all() for loss in losses)
    after = actor.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not torch.equal(after["mlp.0.weight"], before["mlp.0.weight"])
    assert float(after["obs_normalizer.count"]) >= 10 * 24 * WORLDS
    assert np.mean([loss["surrogate"] for loss in losses]) < 0, "what went better than expected becomes likelier"


def test_what_it_trained_becomes_a_bundle(trained, tmp_path):
    env, actor, *_ = trained
    written = write_actor(actor, env.task, tmp_path / "walk.onnx", seed=1)
    assert written["parity"] < 1e-4
    bundle = Bundle.load(tmp_path / "walk.onnx")
    seen = env.get_observations()
    with torch.inference_mode():
        np.testing.assert_allclose(bundle(seen["policy"].numpy()), actor(seen).numpy(), atol=1e-4)
    assert bundle.describe()["skill"] == "walk" and bundle.describe()["robot"] == env.task.robot.name
    with pytest.raises(InputError, match="exists"):
        write_actor(actor, env.task, tmp_path / "walk.onnx")


def test_networks_that_no_bundle_has_are_refused(trained, tmp_path):
    env, *_ = trained
    seen = env.get_observations()
    for groups, activation in ((["policy"], "gelu"), (["critic"], "elu")):
        odd = MLPModel(seen, {"actor": groups}, "actor", env.num_actions, activation=activation)
        with pytest.raises(InputError):
            write_actor(odd, env.task, tmp_path / "odd.onnx")
    assert not (tmp_path / "odd.onnx").exists()
