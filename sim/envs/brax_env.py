"""The walking task as a Brax environment: `brax.envs.get_environment("barkour_walk")` once this module is imported.

Works with Brax's own wrappers and trainers. Terrain levels are drawn at each reset; there is no curriculum, because
Brax's automatic reset goes back to each world's first state. Needs `pip install 'barkour[train]'`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from brax import envs
from brax.envs.base import Env, State

from sim.course.scene import TRAINING, SolverOptions
from sim.envs.mjx_batched import Dynamics, World
from sim.physics.mjx import Engine
from sim.tasks import patches
from sim.tasks import randomization as randomize
from sim.tasks.task import Task

NAME = "barkour_walk"


class BraxWalk(Env):
    """One world; `reset` and `step` are pure, so `jax.jit` and `jax.vmap` apply.

    Observations are `{"state": [n], "privileged_state": [m]}` (actor and critic). `done` is 1.0 after a fall; the
    length of episodes is `brax.envs.wrappers.training.EpisodeWrapper`'s to limit. Metrics: `velocity_error` (m/s),
    `yaw_error` (rad/s), `settled`, and `reward/<term>` per weighted term.
    """

    def __init__(
        self,
        task: Task | None = None,
        *,
        options: SolverOptions = TRAINING,
        latency: float = 0.016,
        levels: tuple[int, int] = (0, patches.LEVELS - 1),
        shanks: bool = False,
    ) -> None:
        """`latency` from sensing to torque, s; `levels` lowest and highest terrain level, both included."""
        self.task = task or Task()
        self.options = options
        self.levels = levels
        self.dynamics = Dynamics(self.task, options, shanks=shanks)
        self.engine = Engine(self.dynamics.ground.model)
        self.sys: Any = self.engine.base
        """The MJX model; Brax's domain randomisation wrapper replaces it, see `randomization`."""
        self.delay = round(latency / options.timestep)
        self.shares = np.asarray(self.task.ground.shares, np.float32)

    def reset(self, rng: jax.Array) -> State:
        """A fresh episode on ground of random kind and level."""
        rng, kind_key, level_key, begin_key = jax.random.split(rng, 4)
        kind = jax.random.choice(kind_key, len(self.shares), p=self.shares).astype(jnp.int32)
        level = jax.random.randint(level_key, (), self.levels[0], self.levels[1] + 1).astype(jnp.float32)
        world = self.dynamics.begin(self.engine, jax.random.uniform(begin_key, (self.task.uniforms,)), kind, level)
        observation, privileged = self.dynamics.observe(world)
        zero = jnp.zeros(())
        metrics = {name: zero for name in ("velocity_error", "yaw_error", "settled")}
        metrics |= {f"reward/{name}": zero for name in self.task.weights}
        return State(world, self._observation(observation, privileged), zero, zero, metrics, {"rng": rng})  # type: ignore

    def step(self, state: State, action: jax.Array) -> State:
        """One control step with action `[J]` (clipped to the robot's action limit)."""
        rng, key = jax.random.split(state.info["rng"])
        u = jax.random.uniform(key, (self.task.uniforms,))
        before: Any = state.pipeline_state
        arguments = (World(*before), action, u, jnp.zeros(self.action_size), self.delay)
        world, out = self.dynamics.step(self.engine, self.sys, *arguments)
        metrics = {**out.metrics, **{f"reward/{name}": term for name, term in out.terms.items()}}
        return state.replace(  # type: ignore
            pipeline_state=world,
            obs=self._observation(out.observation, out.privileged),
            reward=out.reward,
            done=out.fallen,
            metrics={**state.metrics, **metrics},
            info={**state.info, "rng": rng},
        )

    def randomization(self, ranges: randomize.Ranges | None = None) -> Callable[[Any, jax.Array], tuple[Any, Any]]:
        """Brax's `randomization_fn`: from the model and keys `[worlds, 2]` to batched models and their `in_axes`.

        Everything of `randomize.Ranges` that lives in the model varies; latency and encoder offsets stay nominal.
        """

        def draw(model: Any, rng: jax.Array) -> tuple[Any, Any]:
            words = np.asarray(jax.random.key_data(rng), np.uint64).reshape(len(rng), -1)
            seeds = (words[:, 0] << np.uint64(32)) + words[:, -1]
            drawn = randomize.draw(ranges or randomize.Ranges(), self.task.robot, seeds)
            fields = randomize.model_fields(self.engine.model, self.task.robot, drawn)
            batched = self.engine.expand(fields, len(words))
            axes = jax.tree.map(lambda _: None, model).replace(**{name: 0 for name in batched})
            return model.replace(**batched), axes

        return draw

    @staticmethod
    def _observation(observation: Any, privileged: Any) -> dict[str, Any]:
        return {"state": observation, "privileged_state": privileged}

    @property
    def observation_size(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the two observations."""
        return {"state": (self.task.layout.size,), "privileged_state": (self.task.privileged_size,)}

    @property
    def action_size(self) -> int:
        """Number of joints."""
        return len(self.task.robot.joint_names)

    @property
    def backend(self) -> str:
        """Name of the physics engine."""
        return "mjx"

    @property
    def dt(self) -> float:
        """Control period, s."""
        return self.task.robot.control_period


envs.register_environment(NAME, BraxWalk)
