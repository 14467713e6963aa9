"""Stable-Baselines3's PPO on the walk task, through the gymnasium environment that the package registers.

    pip install stable-baselines3
    python examples/sb3.py --steps 200000

Without Stable-Baselines3 it says so in one line and exits with status 2.
"""

import argparse
import sys
from typing import Any

import gymnasium

import sim.envs.gym  # noqa: F401  (registers the environments)


def main() -> int:
    """Trains, then prints the mean return of a few deterministic episodes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200_000, help="environment steps in all, over every world")
    parser.add_argument("--worlds", type=int, default=8, help="environments that step one after the other")
    parser.add_argument("--unroll", type=int, default=256, help="steps in each world between two updates")
    parser.add_argument("--episodes", type=int, default=5, help="episodes to measure the policy on")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        import stable_baselines3  # type: ignore[import-not-found]
        from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
    except ModuleNotFoundError as error:
        print(f"examples/sb3.py needs {error.name}: pip install stable-baselines3", file=sys.stderr)
        return 2

    # Nothing is drawn: make_vec_env asks for images otherwise, which need off-screen GL.
    worlds = make_vec_env(sim.envs.gym.WALK_ID, options.worlds, seed=options.seed, env_kwargs={"render_mode": None})
    learner = stable_baselines3.PPO(
        "MlpPolicy",
        worlds,
        n_steps=options.unroll,
        batch_size=options.worlds * options.unroll // 4,
        gamma=0.97,  # 50 steps a second: a horizon of 0.7 s
        seed=options.seed,
        device="cpu",  # small networks: a GPU only adds copies
        verbose=1,
    )
    learner.learn(options.steps)
    returns = [episode(learner, options.seed + 1000 + i) for i in range(options.episodes)]
    print(f"mean return of {options.episodes} episodes: {sum(returns) / len(returns):.2f}")
    return 0


def episode(learner: Any, seed: int) -> float:
    """The sum of rewards of one episode in which the mean actions are taken."""
    env = gymnasium.make(sim.envs.gym.WALK_ID)
    observation, _ = env.reset(seed=seed)
    total, over = 0.0, False
    while not over:
        action, _ = learner.predict(observation, deterministic=True)
        observation, reward, fallen, truncated, _ = env.step(action)
        total, over = total + float(reward), fallen or truncated
    env.close()
    return total


if __name__ == "__main__":
    sys.exit(main())
