"""rsl_rl's PPO on the walk task: its runner, its networks, and a policy bundle that everything here runs.

    pip install 'barkour[train,rsl_rl]'
    python examples/rsl_rl_walk.py
    python examples/rsl_rl_walk.py --iterations 1500 --worlds 540 --onnx walk.onnx --log runs/rsl_rl

Without rsl_rl it says so in one line and exits with status 2.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

from policies.bundle.reader import Bundle
from sim.envs.batched import BatchedEnv
from sim.tasks.skills import walk


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
    """Trains, exports, and prints what the exported policy is worth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=60, help="of 24 steps in each world and one update")
    parser.add_argument("--worlds", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--onnx", type=Path, help="where the policy is kept; nowhere without it")
    parser.add_argument("--log", type=Path, help="folder for rsl_rl's TensorBoard files and checkpoints")
    options = parser.parse_args()
    try:
        from rsl_rl.runners import OnPolicyRunner
    except ModuleNotFoundError as error:
        print(f"examples/rsl_rl_walk.py needs {error.name}: pip install 'barkour[rsl]'", file=sys.stderr)
        return 2
    import torch

    from policies.learning.rsl_rl_export import write_actor
    from sim.envs.rsl_rl_env import RslRlEnv, walk_config

    torch.manual_seed(options.seed)
    task = walk()
    env = RslRlEnv(task, options.worlds, seed=options.seed)
    runner = OnPolicyRunner(env, walk_config(), log_dir=None if options.log is None else str(options.log))
    runner.learn(options.iterations)
    with tempfile.TemporaryDirectory() as folder:
        file = options.onnx or Path(folder) / "walk.onnx"
        parity = write_actor(runner.alg.get_policy(), task, file, force=True, seed=options.seed)["parity"]
        alone = reward_of(Bundle.load(file), seconds=2.0)
    print(f"{file.name}: reward per second {alone:.3f}; differs from rsl_rl's network by at most {parity:.1e}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
