"""The batched CPU environment: many worlds of a task on the C engine, with automatic resets and a curriculum."""

from typing import Any, Literal, NamedTuple

import numpy as np

from sim.course.scene import TRAINING, SolverOptions, build, foot_forces, leg_geoms, moving_pole
from sim.physics.base import PhysicsReading
from sim.physics.cpu import CpuPhysics
from sim.robots.description import substeps_of
from sim.tasks import patches
from sim.tasks import randomization as randomize
from sim.tasks.state import Outcome, TaskState
from sim.tasks.task import Task
from sim.tasks.ways import POLES


class EnvStep(NamedTuple):
    """One control step of all worlds; float32, `worlds` first."""

    observation: np.ndarray
    privileged: np.ndarray
    reward: np.ndarray
    fallen: np.ndarray
    truncated: np.ndarray
    terms: dict[str, np.ndarray]
    metrics: dict[str, np.ndarray]


class DivergedError(RuntimeError):
    """Physics produced a number that is not finite. `worlds` lists where, `term` names what."""

    def __init__(self, term: str, worlds: np.ndarray) -> None:
        super().__init__(f"'{term}' is not finite in {len(worlds)} worlds (first: {int(worlds[0])})")
        self.term, self.worlds = term, worlds


class BatchedEnv:
    """`worlds` copies of a task, each with its own draw of the randomised physics."""

    def __init__(
        self,
        task: Task,
        worlds: int,
        seed: int = 0,
        *,
        ranges: randomize.Ranges | None = None,
        options: SolverOptions = TRAINING,
        collision: Literal["feet", "full"] | None = None,
        curriculum: bool = True,
        threads: int = 0,
    ) -> None:
        self.task, self.worlds, self.curriculum = task, worlds, curriculum
        self.substeps = substeps_of(task.robot, options.timestep)
        poles = POLES if task.poles else 0
        model = build(
            task.robot, task.ground.land.terrain, collision=collision or task.collision, options=options,
            moving_poles=poles,
        )  # fmt: skip
        self.touches = np.array([model.sensor(moving_pole(k)).adr[0] for k in range(poles)], int)
        """Where the contacts of moving poles stand among the sensors."""
        self.physics = CpuPhysics(model, worlds, threads)
        self.feet, self.forces = leg_geoms(model, task.robot, task.ground.parts), foot_forces(model, task.robot)
        self.rng = np.random.default_rng([seed, 1])
        self.drawn = randomize.draw(ranges or task.ranges, task.robot, seed * 1_000_003 + np.arange(worlds))
        self.physics.randomize(randomize.model_fields(model, task.robot, self.drawn))
        self.physics.motors(self.drawn.peak_torque(task.robot), self.drawn.no_load_speeds(task.robot))
        self.delay = self.drawn.delay(options.timestep)
        self.geom_xpos = self.physics.batch.bind("geom_xpos")
        self.kind = self.rng.choice(len(task.ground.kinds), worlds, p=task.ground.shares)
        level = np.full(worlds, task.start_level, np.float32)
        self.state, qpos, qvel = task.begin(np, self._uniform(), self.kind, level)
        self.outcome: Outcome | None = None
        """The last step's, from before any world began again."""
        everyone = np.ones(worlds, bool)
        self.physics.reset(everyone, qpos, qvel)
        self._place_poles()
        staggered = np.floor(self.rng.uniform(0, task.episode_steps * 0.9, worlds)).astype(np.float32)
        self.state = self.state._replace(steps=staggered)

    def _uniform(self) -> np.ndarray:
        return self.rng.random((self.worlds, self.task.uniforms), np.float32)

    def _read(self) -> PhysicsReading:
        reading = self.physics.read()
        touched = (reading.sensors[:, self.touches] > 0).any(1).astype(np.float32) if self.task.poles else None
        return reading._replace(contact=reading.sensors[:, self.forces], poles=touched)

    def _place_poles(self) -> None:
        """The weave poles of each world to where they stand beside its robot's way."""
        if self.task.poles and self.task.ways:
            place = np.array(self.physics.qpos[:, :2], np.float32)
            self.physics.poles[:, :, :2] = self.task.ways.standing(np, self.state.way, place)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        """The present observation and privileged observation, `[worlds, ...]`."""
        zero = np.zeros((self.worlds, 2), np.float32)
        contact = np.zeros((self.worlds, len(self.task.robot.legs)), np.float32)
        half = np.full((self.worlds, 1), 0.5, np.float32)
        return self.task.observe(np, self.state, self.physics.read(), zero, contact, half)

    def step(self, action: np.ndarray) -> EnvStep:
        """Applies actions `[worlds, J]` for one control period.

        Raises:
          DivergedError: the action or the physics is not finite.
        """
        self._guard("action", action)
        task, physics = self.task, self.physics
        targets = task.targets(np, self.state, action)
        physics.step(targets, self.substeps, self.state.last_targets, self.delay)
        reading = self._read()
        self._guard("qpos", reading.qpos)
        self._guard("qvel", reading.qvel)
        feet = self.geom_xpos[:, self.feet].astype(np.float32)
        out = task.after(np, self.state, action, targets, reading, feet, self.drawn.joint_bias, self._uniform())
        for name, term in out.terms.items():
            self._guard(f"reward term {name}", term)
        physics.shift(out.shift)
        physics.push(out.push)
        self.state, self.outcome = out.state, out
        observation, privileged = out.observation, out.privileged
        done = (out.fallen + out.truncated) > 0
        if done.any():
            self._restart(done, out.fallen)
            fresh, fresh_privileged = self.observe()
            observation = np.where(done[:, None], fresh, observation)
            privileged = np.where(done[:, None], fresh_privileged, privileged)
        self._place_poles()
        return EnvStep(observation, privileged, out.reward, out.fallen, out.truncated, out.terms, out.metrics)

    def _restart(self, done: np.ndarray, fallen: np.ndarray) -> None:
        level = self.task.promote(np, self.state, fallen) if self.curriculum else self.state.level
        level = patches.eased(np, level, self.rng.random(self.worlds), self.rng.random(self.worlds))
        begun, qpos, qvel = self.task.begin(np, self._uniform(), self.kind, level.astype(np.float32))
        self.physics.reset(done, qpos, qvel)
        self.state = TaskState(
            *(
                np.where(done.reshape(-1, *[1] * (np.ndim(old) - 1)), new, old)
                for new, old in zip(begun, self.state, strict=True)
            )
        )

    def _guard(self, term: str, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values).reshape(self.worlds, -1).all(-1)
            raise DivergedError(term, np.flatnonzero(bad))

    def save(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and JSON-ready values that continue this environment exactly; see `restore`."""
        arrays = {f"task.{k}": np.asarray(v) for k, v in self.state._asdict().items()}
        arrays |= {f"physics.{k}": v for k, v in self.physics.save().items()} | {"kind": self.kind}
        return arrays, {"rng": self.rng.bit_generator.state}

    def restore(self, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> None:
        """Continues exactly where `save` was called, given the same task, seed and number of worlds."""
        self.physics.restore({k[8:]: v for k, v in arrays.items() if k.startswith("physics.")})
        found = {k[5:]: v for k, v in arrays.items() if k.startswith("task.")}
        self.state = self.state._replace(**found)  # what an older version did not remember is as at the start
        self._place_poles()
        self.kind = arrays["kind"]
        self.rng.bit_generator.state = values["rng"]
