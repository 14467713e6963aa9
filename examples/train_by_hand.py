"""PPO by hand on the walk task: environment, rollout, update, export to one ONNX file, and a run of that file.

    python examples/train_by_hand.py
    python examples/train_by_hand.py --iterations 1500 --worlds 540 --onnx walk.onnx

Networks, loss and statistics are Brax's. `barkour train walk` is this loop with checkpoints, logs and several hosts.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np

from policies.bundle.reader import Bundle
from policies.learning.export import describe, write_policy
from policies.learning.ppo import Learner, LearnerState, PPOConfig, Rollout
from sim.envs.batched import BatchedEnv
from sim.tasks.skills import walk


def rollout(learner: Learner, state: LearnerState, env: BatchedEnv, seen: tuple, key: jax.Array) -> tuple:
    """`unroll` steps of every world from the observations `seen`; the `Rollout`, and what is seen after it."""
    steps = []
    for step_key in jax.random.split(key, learner.config.unroll):
        action, log_prob = learner.act(state, seen[0], step_key)
        out = env.step(np.asarray(action))
        steps.append((*seen, action, log_prob, out.reward, out.fallen, out.truncated))
        seen = out.observation, out.privileged
    columns = (np.stack([np.asarray(x) for x in column], 1) for column in zip(*steps, strict=True))
    observation, privileged, *rest = columns
    last = {"state": seen[0][:, None], "privileged_state": seen[1][:, None]}
    return Rollout({"state": observation, "privileged_state": privileged}, *rest, last=last), seen


def reward_of(bundle: Bundle, seconds: float) -> float:
    """Mean reward per second of the exported policy, which explores no longer, in 16 worlds."""
    task = walk()
    env = BatchedEnv(task, 16, seed=1000)
    observation, rewards = env.observe()[0], []
    for _ in range(round(seconds / task.robot.control_period)):
        out = env.step(bundle(observation))
        observation = out.observation
        rewards.append(out.reward.mean())
    return float(np.mean(rewards)) / task.robot.control_period


def main() -> int:
    """Status 0 where the reward of the last tenth of the iterations is above that of the first, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60, help="of 24 steps in each world and one update")
    parser.add_argument("--worlds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--onnx", type=Path, help="where the policy is kept; nowhere without it")
    options = parser.parse_args()

    task = walk()
    config = PPOConfig(worlds=options.worlds)
    learner = Learner(config, task.layout.size, task.privileged_size, task.robot.joints)
    state = learner.initial(options.seed)
    env = BatchedEnv(task, config.worlds, options.seed)
    seen = env.observe()
    rewards: list[float] = []
    for i in range(options.iterations):
        key, rollout_key = jax.random.split(state.key)
        found, seen = rollout(learner, state._replace(key=key), env, seen, rollout_key)
        state, losses = learner.update(state._replace(key=key), found)
        rewards.append(float(found.reward.mean()) / task.robot.control_period)
        falls = float(found.fallen.mean()) / task.robot.control_period * 10
        print(f"{i + 1:5} reward {rewards[-1]:7.3f} /s  falls {falls:5.2f} /10 s  kl {float(losses['kl']):.4f}")
    tenth = max(len(rewards) // 10, 1)
    first, last = float(np.mean(rewards[:tenth])), float(np.mean(rewards[-tenth:]))
    print(f"reward per second: {first:.3f} at first, {last:.3f} at last")
    with tempfile.TemporaryDirectory() as folder:
        file = options.onnx or Path(folder) / "walk.onnx"
        parity = write_policy(learner, state, describe("walk", task, learner), file, force=True)["parity"]
        alone = reward_of(Bundle.load(file), seconds=2.0)
    print(f"{file.name}: {alone:.3f} without exploration; differs from the network by at most {parity:.1e}")
    return 0 if last > first else 1


if __name__ == "__main__":
    sys.exit(main())
