"""The batched MJX environment: the same task as `sim.envs.batched`, the whole control step one compiled function.

Importing this module needs jax and mujoco-mjx (`pip install 'barkour[train]'`).
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sim.course.scene import TRAINING, SolverOptions, foot_forces, leg_geoms
from sim.envs.batched import DivergedError, EnvStep
from sim.errors import InputError
from sim.physics.base import PhysicsReading
from sim.physics.mjx import FootGround, MjxPhysics, WorldState
from sim.robots.description import substeps_of
from sim.tasks import patches
from sim.tasks import randomization as randomize
from sim.tasks.state import Outcome, TaskState
from sim.tasks.task import Task


def on_device(task: Task) -> Task:
    """The same task with its ground heights held by jax, so that traced positions can look them up."""
    return replace(task, ground=task.ground.held_by(jnp.asarray))


class World(NamedTuple):
    """Physics and task of one world, or of many with `worlds` first."""

    physics: WorldState
    task: TaskState
    feet: Any
    """World x and y of the feet, m, `[..., legs, 2]`: they choose the terrain boxes of the next step."""


class Dynamics:
    """One world's control step as pure functions; the batched and the Brax environment are made of them."""

    def __init__(self, task: Task, options: SolverOptions, *, shanks: bool = False) -> None:
        self.task = on_device(task)
        self.ground = FootGround(task.robot, task.ground.land.terrain, options, shanks=shanks)
        self.points = leg_geoms(self.ground.model, task.robot, task.ground.parts)
        self.forces = foot_forces(self.ground.model, task.robot)
        self.substeps = substeps_of(task.robot, options.timestep)

    def begin(self, engine: Any, u: Any, kind: Any, level: Any) -> World:
        """A fresh episode from uniform numbers `[uniforms]` on the given ground."""
        state, qpos, qvel = self.task.begin(jnp, u, kind, level)
        return World(engine.start(qpos, qvel), state, self.ground.start_feet(jnp, qpos))

    def step(
        self, engine: Any, model: Any, world: World, action: Any, u: Any, bias: Any, delay: Any, motor: Any = None
    ) -> tuple:
        """One control step.

        Args:
          model: MJX model of this world.
          action, bias: `[J]`; bias in rad.
          u: uniform numbers, `[uniforms]`.
          delay: substeps before the new targets drive the joints.
          motor: see `Engine.advance`.

        Returns:
          The world after it, moved and kicked as the task asks, and the task's `Outcome`.
        """
        task, state = self.task, world.task
        targets = task.targets(jnp, state, action)
        model = self.ground.place(model, world.feet)
        physics = engine.advance(model, world.physics, targets, self.substeps, state.last_targets, delay, motor)
        reading = PhysicsReading(physics.qpos, physics.qvel, physics.sensors, physics.sensors[self.forces])
        feet = physics.geom_xpos[self.points]
        out: Outcome = task.after(jnp, state, action, targets, reading, feet, bias, u)
        physics = physics._replace(
            qpos=physics.qpos.at[:2].add(out.shift),
            qvel=physics.qvel.at[:2].add(out.push),
        )
        return World(physics, out.state, feet[: len(self.task.robot.legs), :2] + out.shift), out

    def observe(self, world: World) -> tuple[Any, Any]:
        """Observation and privileged observation at the start of an episode: no contacts, no height noise."""
        physics = world.physics
        reading = PhysicsReading(physics.qpos, physics.qvel, physics.sensors)
        zero = jnp.zeros(2)
        return self.task.observe(jnp, world.task, reading, zero, jnp.zeros(len(self.task.robot.legs)), jnp.full(1, 0.5))


class MjxBatchedEnv:
    """`worlds` copies of a task on MJX, each with its own draw of the randomised physics; see `BatchedEnv`.

    The worlds are split over this process's devices, as many of them as divide their number.
    """

    def __init__(
        self,
        task: Task,
        worlds: int,
        seed: int = 0,
        *,
        ranges: randomize.Ranges | None = None,
        options: SolverOptions = TRAINING,
        shanks: bool = False,
        curriculum: bool = True,
    ) -> None:
        """`shanks` lets the shanks touch the ground as on the C engine, at half the speed."""
        self.task, self.worlds, self.curriculum = task, worlds, curriculum
        self.dynamics = Dynamics(task, options, shanks=shanks)
        devices = jax.local_devices()
        usable = max(n for n in range(1, len(devices) + 1) if worlds % n == 0)
        mesh = Mesh(np.array(devices[:usable]), ("worlds",))
        self.along, self.everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("worlds",), ()))
        self.physics = MjxPhysics(self.dynamics.ground.model, worlds)
        self.drawn = randomize.draw(ranges or task.ranges, task.robot, seed * 1_000_003 + np.arange(worlds))
        self.physics.randomize(randomize.model_fields(self.physics.model, task.robot, self.drawn))
        constants = {"delay": self.drawn.delay(options.timestep).astype(np.int32), "bias": self.drawn.joint_bias}
        constants["motor"] = (self.drawn.peak_torque(task.robot), self.drawn.no_load_speeds(task.robot))
        self.fields, self.constants = self._split((self.physics.fields, constants))
        rng = np.random.default_rng([seed, 1])
        self.kind = rng.choice(len(task.ground.kinds), worlds, p=task.ground.shares)
        self.key = jax.random.PRNGKey(seed)
        level = jnp.full(worlds, task.start_level, jnp.float32)
        self.key, key = jax.device_put(jax.random.split(self.key), self.everywhere)
        world = jax.jit(self._begin)(key, jnp.asarray(self.kind, jnp.int32), level)
        steps = np.floor(rng.uniform(0, task.episode_steps * 0.9, worlds)).astype(np.float32)
        self.world: World = self._split(world._replace(task=world.task._replace(steps=steps)))
        self._observe = jax.jit(jax.vmap(self.dynamics.observe))
        shardings = (
            self.along,
            self.everywhere,
            self.along,
            self.along,
        )  # as they go in, so that one compile is enough
        self._step = jax.jit(self._step_all, out_shardings=shardings)

    @property
    def state(self) -> TaskState:
        """The task's memory of all worlds."""
        return self.world.task

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """The present observation and privileged observation, `[worlds, ...]`."""
        return jax.device_get(self._observe(self.world))

    def step(self, action: np.ndarray) -> EnvStep:
        """Applies actions `[worlds, J]` for one control period.

        Raises:
          DivergedError: the action or the physics is not finite.
        """
        action = self._split(np.asarray(action, np.float32))
        self.world, self.key, out, finite = self._step(self.fields, self.constants, self.world, self.key, action)
        out, finite = jax.device_get((out, finite))
        for term, good in finite.items():
            if not good.all():
                raise DivergedError(term, np.flatnonzero(~good))
        return out

    def _split(self, tree: Any) -> Any:
        """Arrays with `worlds` first, placed on the devices."""
        return jax.device_put(tree, self.along)

    # --- pure -------------------------------------------------------------------------------------------------------

    def _begin(self, key: Any, kind: Any, level: Any) -> World:
        u = jax.random.uniform(key, (self.worlds, self.task.uniforms))
        return jax.vmap(partial(self.dynamics.begin, self.physics.engine))(u, kind, level)

    def _step_all(self, fields: Any, constants: Any, world: World, key: Any, action: Any) -> tuple:
        engine = self.physics.engine
        key, step_key, reset_key, level_key, easier_key = jax.random.split(key, 5)

        def one(fields: Any, constants: Any, world: World, action: Any, u: Any) -> tuple:
            model = engine.base.replace(**fields)
            own = (constants[name] for name in ("bias", "delay", "motor"))
            return self.dynamics.step(engine, model, world, action, u, *own)

        u = jax.random.uniform(step_key, (self.worlds, self.task.uniforms))
        world, out = jax.vmap(one)(fields, constants, world, action, u)
        finite = {"action": action, "qpos": world.physics.qpos, "qvel": world.physics.qvel}
        finite |= {f"reward term {name}": term for name, term in out.terms.items()}
        finite = {name: jnp.isfinite(v).reshape(self.worlds, -1).all(-1) for name, v in finite.items()}

        done = (out.fallen + out.truncated) > 0
        level = self.task.promote(jnp, world.task, out.fallen) if self.curriculum else world.task.level
        chance, choice = (jax.random.uniform(k, (self.worlds,)) for k in (level_key, easier_key))
        begun = self._begin(reset_key, world.task.kind, patches.eased(jnp, level, chance, choice))

        def choose(new: Any, old: Any) -> Any:
            return jnp.where(done.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        fresh = jax.vmap(self.dynamics.observe)(begun)
        seen, privileged = jax.tree.map(choose, fresh, (out.observation, out.privileged))
        result = EnvStep(seen, privileged, out.reward, out.fallen, out.truncated, out.terms, out.metrics)
        return jax.tree.map(choose, begun, world), key, result, finite

    # --- checkpoints ------------------------------------------------------------------------------------------------

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready values that continue this environment exactly; see `restore`."""
        arrays = {f"task.{k}": np.asarray(v) for k, v in self.world.task._asdict().items()}
        arrays |= {f"physics.{k}": np.asarray(v) for k, v in self.world.physics._asdict().items()}
        return arrays | {"feet": np.asarray(self.world.feet), "kind": self.kind, "key": np.asarray(self.key)}, {}

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Continues exactly where `save` was called, given the same task, seed and number of worlds."""
        physics = {k[8:]: v for k, v in arrays.items() if k.startswith("physics.")}
        found, own = np.shape(physics.get("qpos", ())), self.world.physics.qpos.shape
        if found != own:
            raise InputError(f"saved MJX worlds have qpos of shape {found}, this environment {own}")
        task = self.world.task._replace(**{k[5:]: v for k, v in arrays.items() if k.startswith("task.")})
        self.world = self._split(World(WorldState(**physics), task, arrays["feet"]))
        self.kind, self.key = arrays["kind"], jax.device_put(arrays["key"], self.everywhere)
