"""rsl_rl's door to the tasks: a `VecEnv` on the batched C engine, for `rsl_rl.runners.OnPolicyRunner` (rsl-rl-lib 5).

    from rsl_rl.runners import OnPolicyRunner
    from sim.envs.rsl_rl_env import RslRlEnv, walk_config

    runner = OnPolicyRunner(RslRlEnv(num_envs=512), walk_config(), log_dir="runs/rsl_rl")
    runner.learn(1500)

Observation groups: `policy`, the actor's input (parts as in `Task.layout.slices()`), and `critic`, the same with what
only the simulator knows. Needs the `rsl_rl` extra; nothing else imports this module.
`policies.learning.rsl_rl_export` writes what was trained as a policy bundle.
"""

from typing import Any

import numpy as np
import torch
from rsl_rl.env import VecEnv
from tensordict import TensorDict

from sim.envs.batched import BatchedEnv
from sim.errors import InputError
from sim.tasks.randomization import Ranges, nominal
from sim.tasks.task import Task


class RslRlEnv(VecEnv):
    """`num_envs` worlds of a task on one `BatchedEnv`: the same numbers, seed for seed.

    Worlds that end begin again in the same step: the observation is the new episode's. Actions beyond
    `Robot.action_limit` are clipped by the task, as in `barkour train`. Extras: `time_outs`, 1.0 where an episode was
    cut off by its length, from where the critic goes on; `log`, the mean of each reward term and metric of the step.
    """

    def __init__(
        self,
        task: Task | None = None,
        num_envs: int = 512,
        *,
        seed: int = 0,
        randomize: bool = True,
        curriculum: bool = True,
        threads: int = 0,
        device: str = "cpu",
    ) -> None:
        """`randomize` draws each world's physics from `Ranges`, else it is `nominal`; `threads` 0 takes every core;
        `device` is where observations and rewards go: physics runs on the processor.

        Raises:
          InputError: fewer than one world.
        """
        if num_envs < 1:
            raise InputError(f"num_envs must be at least 1, got {num_envs}")
        self.task = task or Task()
        ranges = Ranges() if randomize else nominal(self.task.robot)
        self.batch = BatchedEnv(self.task, num_envs, seed, ranges=ranges, curriculum=curriculum, threads=threads)
        self.num_envs, self.num_actions = num_envs, self.task.robot.joints
        self.max_episode_length = round(self.task.episode_steps)
        self.device = device
        self.cfg = {
            "task": type(self.task).__name__, "robot": self.task.robot.name, "seed": seed, "randomize": randomize,
            "curriculum": curriculum,
        }  # fmt: skip
        self._seen = self._observations(*self.batch.observe())

    @property
    def episode_length_buf(self) -> torch.Tensor:  # type: ignore[override]
        """Control steps since each world's episode began, int64 `[num_envs]`."""
        return torch.from_numpy(np.array(self.batch.state.steps)).to(self.device, torch.int64)

    @episode_length_buf.setter
    def episode_length_buf(self, steps: torch.Tensor) -> None:
        self.batch.state = self.batch.state._replace(steps=steps.cpu().numpy().astype(np.float32))

    def get_observations(self) -> TensorDict:
        """The present observations: `policy` `[num_envs, layout.size]` and `critic` `[num_envs, privileged_size]`."""
        return self._seen

    def step(self, actions: torch.Tensor) -> tuple[TensorDict, torch.Tensor, torch.Tensor, dict[str, Any]]:
        """One control period under `actions` `[num_envs, J]`; see `VecEnv.step`.

        Raises:
          DivergedError: the actions or the physics are not finite.
        """
        out = self.batch.step(actions.detach().cpu().numpy().astype(np.float32))
        self._seen = self._observations(out.observation, out.privileged)
        done = (out.fallen + out.truncated) > 0
        cut = (out.truncated > 0) & ~(out.fallen > 0)
        log = {f"/reward/{name}": float(value.mean()) for name, value in out.terms.items()}
        log |= {f"/metric/{name}": float(value.mean()) for name, value in out.metrics.items()}
        extras = {"time_outs": self._tensor(cut), "log": log}
        return self._seen, self._tensor(out.reward), self._tensor(done).to(torch.int64), extras

    def _observations(self, observation: np.ndarray, privileged: np.ndarray) -> TensorDict:
        groups = {"policy": self._tensor(observation), "critic": self._tensor(privileged)}
        return TensorDict(groups, batch_size=[self.num_envs], device=self.device)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self.device)


def walk_config(**algorithm: Any) -> dict[str, Any]:
    """A configuration of `OnPolicyRunner` for the walk task; `algorithm` replaces options of its PPO.

    Discount and horizon are those of `barkour train`; learning rate and networks are rsl_rl's own habits.
    """
    network = {"class_name": "MLPModel", "hidden_dims": [256, 256, 128], "activation": "elu", "obs_normalization": True}
    noise = {"class_name": "GaussianDistribution", "init_std": 0.5}
    return {
        "num_steps_per_env": 24,
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["critic"]},
        "actor": {**network, "distribution_cfg": noise},
        "critic": dict(network),
        "algorithm": {"class_name": "PPO", "gamma": 0.97, "entropy_coef": 0.005, **algorithm},
    }
