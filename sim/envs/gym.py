"""Gymnasium's door to the tasks: `BarkourWalk-v0`, alone or many at once, and `BarkourCourse-v0`.

    import gymnasium
    import sim.envs.gym  # registers both; `gymnasium.make("sim.envs.gym:BarkourWalk-v0")` does it in one line

    env = gymnasium.make("BarkourWalk-v0", randomize=True)
    env = gymnasium.make("BarkourCourse-v0", course="official")
    envs = gymnasium.make_vec("BarkourWalk-v0", num_envs=64)  # one batched engine, not 64 environments

Needs gymnasium 1.1 or newer; nothing else in the base install imports this module. `render_mode="rgb_array"` works
where off-screen GL does: set MUJOCO_GL=egl or MUJOCO_GL=osmesa.

Both environments take one action per joint in +-`Robot.action_limit` at 50 Hz: the joint target is the default pose
plus `Robot.action_scale` times the action (the walk task adds its gait clock). Bad actions, options and courses raise
`sim.errors.InputError`; a step without a reset raises `gymnasium.error.ResetNeeded`.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv

from sim import observation as obs
from sim.course.description import Course
from sim.course.files import by_name
from sim.course.scene import course_model
from sim.course.score import DWELL, MAX_TIME, PENALTY, PER_SECOND, Scorer
from sim.envs.batched import BatchedEnv
from sim.envs.worlds import SimulatedRobots
from sim.errors import InputError
from sim.robots.description import DEFAULT, Robot, find_robot
from sim.robots.gaits import Gait
from sim.tasks import patches
from sim.tasks.randomization import Ranges, nominal
from sim.tasks.state import Outcome
from sim.tasks.task import Task

WALK_ID, COURSE_ID = "BarkourWalk-v0", "BarkourCourse-v0"
SEEDS = 2**32
"""Seeds lie below this."""
FRAME_SHAPE = (360, 640)
"""Height and width of a rendered frame, pixels."""


def register() -> None:
    """Makes both environments known to gymnasium; a second call changes nothing."""
    if WALK_ID not in gymnasium.registry:
        gymnasium.register(WALK_ID, "sim.envs.gym:BarkourWalk", vector_entry_point="sim.envs.gym:BarkourWalkVector")
    if COURSE_ID not in gymnasium.registry:
        gymnasium.register(COURSE_ID, "sim.envs.gym:BarkourCourse")


# --- walking ---------------------------------------------------------------------------------------------------------


class BarkourWalk(gymnasium.Env[np.ndarray, np.ndarray]):
    """One world of the walk task: a `BatchedEnv` of one world that stops where an episode ends.

    Observation: the actor's input, float32 `[layout.size]`, parts as in `Task.layout.slices()`. Reward: the task's.
    A fall terminates; the end of the episode truncates.

    Info: `privileged` (the critic's input), `kind` and `level` of the ground; after a step also `terms` (weighted
    reward terms), `velocity_error` (m/s), `yaw_error` (rad/s) and `settled` (1.0 from a second after a command change).

    Every reset draws physics, ground and command anew. A seed alone decides all of it, and begins at
    `Task.start_level`; without one the curriculum goes on. Reset options: `kind` (one of `Task.ground.kinds`) and
    `level` (0 to 5) fix the ground of the episode.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        task: Task | None = None,
        *,
        randomize: bool = True,
        curriculum: bool = True,
        render_mode: str | None = None,
    ) -> None:
        """`randomize` draws each episode's physics from `Ranges`, else it is `nominal`."""
        self.task = task or Task()
        self.randomize, self.curriculum, self.render_mode = randomize, curriculum, render_mode
        self.observation_space = _unbounded(self.task.layout.size)
        self.action_space = _actions(self.task.robot)
        self.batch: BatchedEnv | None = None
        self._over = True
        self._camera = _Camera(render_mode)

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        task = _on_ground(self.task, options)
        if seed is None and self.batch is not None and "level" not in (options or {}):
            task = replace(task, start_level=float(self.batch.state.level[0]))
        ranges = Ranges() if self.randomize else nominal(self.task.robot)
        self.batch = BatchedEnv(task, 1, _seed(self, seed), ranges=ranges, curriculum=self.curriculum, threads=1)
        self.batch.state = self.batch.state._replace(steps=np.zeros(1, np.float32))  # a whole episode
        self._over = False
        observation, privileged = self.batch.observe()
        return observation[0], _row(_place(self.batch.state.kind, self.batch.state.level, privileged))

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        if self.batch is None or self._over:
            raise ResetNeeded("the episode is over: call reset() before step()")
        self.batch.step(_checked(action, self.task.robot)[None])
        out = self.batch.outcome
        assert out is not None
        fallen, truncated = bool(out.fallen[0]), bool(out.truncated[0])
        self._over = fallen or truncated
        info = _row(_place(out.state.kind, out.state.level, out.privileged) | _measured(out))
        return out.observation[0], float(out.reward[0]), fallen, truncated, info

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The present state as an image `[360, 640, 3]`, uint8; None without a render mode."""
        if self.batch is None:
            raise ResetNeeded("call reset() before render()")
        return self._camera.image(self.batch.physics.model, self.batch.physics.qpos[0])

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self._camera.close()


class BarkourWalkVector(VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many worlds of the walk task on one `BatchedEnv`: the same numbers, seed for seed.

    Worlds that end begin again in the same step (`AutoresetMode.SAME_STEP`): their observation is the new episode's,
    and `info["final_obs"]` and `info["final_info"]` hold the end of the old one, as in gymnasium's own vector
    environments. As in training, worlds start at random ages, and keep their physics and kind of ground until the next
    `reset`. Info as `BarkourWalk`, one row a world. Reset options as there.
    """

    metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}

    def __init__(
        self,
        num_envs: int = 1,
        task: Task | None = None,
        *,
        randomize: bool = True,
        curriculum: bool = True,
        threads: int = 0,
        render_mode: str | None = None,
    ) -> None:
        """`threads` 0 takes every core; `render_mode` must be None."""
        if num_envs < 1:
            raise InputError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode is not None:
            raise InputError(f"the vectorised walk environment draws no pictures, got render_mode '{render_mode}'")
        self.num_envs, self.task = num_envs, task or Task()
        self.randomize, self.curriculum, self.threads = randomize, curriculum, threads
        self.single_observation_space = _unbounded(self.task.layout.size)
        self.single_action_space = _actions(self.task.robot)
        self.observation_space = gymnasium.vector.utils.batch_space(self.single_observation_space, num_envs)
        self.action_space = gymnasium.vector.utils.batch_space(self.single_action_space, num_envs)
        self.batch: BatchedEnv | None = None

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `VectorEnv.reset`."""
        super().reset(seed=seed)
        task, here = _on_ground(self.task, options), _seed(self, seed)
        ranges = Ranges() if self.randomize else nominal(self.task.robot)
        self.batch = BatchedEnv(
            task, self.num_envs, here, ranges=ranges, curriculum=self.curriculum, threads=self.threads
        )
        observation, privileged = self.batch.observe()
        place = _place(self.batch.state.kind, self.batch.state.level, privileged)
        return observation, _masked(place, np.ones(self.num_envs, bool))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `VectorEnv.step`."""
        if self.batch is None:
            raise ResetNeeded("call reset() before step()")
        step = self.batch.step(_checked(actions, self.task.robot, self.num_envs))
        out, state = self.batch.outcome, self.batch.state
        assert out is not None
        fallen, truncated = step.fallen > 0, step.truncated > 0
        done = fallen | truncated
        info = _masked(_place(state.kind, state.level, step.privileged), np.ones(self.num_envs, bool))
        info |= _masked(_measured(out), ~done)
        if done.any():
            rows = np.empty(self.num_envs, object)
            for i in np.flatnonzero(done).tolist():
                rows[i] = np.array(out.observation[i])
            last = _place(out.state.kind, out.state.level, out.privileged) | _measured(out)
            info |= {"final_obs": rows, "_final_obs": done, "final_info": _masked(last, done), "_final_info": done}
        return step.observation, step.reward.astype(np.float64), fallen, truncated, info

    def close_extras(self, **kwargs: Any) -> None:
        """See `VectorEnv.close_extras`."""
        self.batch = None


def _on_ground(task: Task, options: Mapping[str, Any] | None) -> Task:
    """The task on the ground that reset options ask for."""
    wanted = dict(options or {})
    attributes: dict[str, Any] = {}
    if "kind" in wanted:
        kind = wanted.pop("kind")
        if kind not in task.ground.kinds:
            raise InputError(f"unknown kind of ground '{kind}': known are {', '.join(task.ground.kinds)}")
        attributes["ground"] = task.ground.only(kind)
    if "level" in wanted:
        level = wanted.pop("level")
        if level not in range(patches.LEVELS):
            raise InputError(f"the level must be a whole number from 0 to {patches.LEVELS - 1}, got {level}")
        attributes["start_level"] = float(level)
    _no_more(wanted, "kind, level")
    return replace(task, **attributes)


def _place(kind: np.ndarray, level: np.ndarray, privileged: np.ndarray) -> dict[str, Any]:
    """What is known of every world at any time; copies, `[worlds, ...]`."""
    return {"privileged": np.array(privileged), "kind": np.array(kind), "level": np.array(level)}


def _measured(out: Outcome) -> dict[str, Any]:
    """What is known of a step, `[worlds]` each."""
    return {"terms": dict(out.terms), **out.metrics}


def _row(info: dict[str, Any]) -> dict[str, Any]:
    """The only world's row of an info; numbers become Python's."""
    return {
        name: _row(value) if isinstance(value, dict) else (value[0].item() if np.ndim(value) == 1 else value[0])
        for name, value in info.items()
    }


def _masked(info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
    """An info with gymnasium's `_name` beside every name: which worlds it is known of."""
    out: dict[str, Any] = {}
    for name, value in info.items():
        out[name] = _masked(value, mask) if isinstance(value, dict) else value
        out[f"_{name}"] = mask.copy()
    return out


# --- the course ------------------------------------------------------------------------------------------------------


class BarkourCourse(gymnasium.Env[np.ndarray, np.ndarray]):
    """One robot on a whole course in the physics that runs are judged in, driven joint by joint.

    2 ms steps, collision of the whole body, a control step of latency, sensor noise; with `randomize` also everything
    in `sim.tasks.randomization.Ranges`. Seed for seed the worlds of `barkour run --seed`.

    Observation, float32, parts in `slices`: `frame_0` to `frame_2` (proprioception, newest first, fields and scales as
    `sim.observation.FRAME_FIELDS`), `heights` (`sim.observation.around()`), `pose` (x, y in m, sin and cos of the
    heading; exact), `gate` (left and right end of the next gate, x ahead and y left of the base in its heading, m).
    The next gate is the first in running order that has not been passed; after the last, both ends are the end table's
    centre.

    Reward: the increase of

        0.1 sum over obstacles of the share that is done  -  0.01 clock  -  0.1 [board touched]

    where the share is gates passed / gates, for the end table half for its gates and half for the 5 s on it (all of it
    once they are held), and the clock is the scorer's: seconds since the start table's gate, resting on the end table.
    A run that terminates without having held the end table is charged the rest of 50 s, as the scorer does, so that
    falling early gains nothing. A finished run's rewards add up to score - 1 + 0.1 obstacles - 0.01 allotted time,
    where it took at least that time and left no obstacle half done.

    Terminates when the robot falls, leaves the course, or the scorer sees the end table held or left; truncates at
    50 s. Info: `score` (the official scorer's, as if the run ended now), `time_s`, `progress` (share of gates),
    `finished`, `fell`, `touched_jump`, `gates` (obstacle -> gates passed), `end` (why it ended, else "").
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 50}

    def __init__(
        self,
        course: str | Path | Course = "official",
        *,
        robot: str | Robot = DEFAULT,
        randomize: bool = False,
        render_mode: str | None = None,
    ) -> None:
        """`course` is `official`, the name of a shipped course, a YAML file or a `Course`; `robot` a robot's name or
        folder, or a `Robot`."""
        self.course = course if isinstance(course, Course) else by_name(str(course))
        self.robot = robot if isinstance(robot, Robot) else find_robot(robot)
        self.randomize, self.render_mode = randomize, render_mode
        self.layout = obs.Layout(self.robot.joints, grids=(obs.around(),), clock=False)
        widths = [(f"frame_{age}", obs.frame_size(self.robot.joints)) for age in self.layout.frames]
        widths += [("heights", self.layout.height_size), ("pose", 4), ("gate", 4)]
        ends = np.cumsum([width for _, width in widths]).tolist()
        self.slices = {name: slice(end - width, end) for (name, width), end in zip(widths, ends, strict=True)}
        self.observation_space = _unbounded(ends[-1])
        self.action_space = _actions(self.robot)
        self.model = course_model(self.course, self.robot)
        self.world: SimulatedRobots | None = None
        self._camera = _Camera(render_mode)
        self._over = True

    def reset(
        self, *, seed: int | None = None, options: Mapping[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """See `gymnasium.Env.reset`. There are no options."""
        super().reset(seed=seed)
        _no_more(dict(options or {}), "none")
        x, y, yaw = (np.array([value]) for value in self.course.start)
        self.world = SimulatedRobots(self.robot, self.model, [_seed(self, seed)], randomize=self.randomize, threads=1)
        self.world.place(x, y, yaw, self.course.height)  # boards look like plain ground
        self.scorer = Scorer(self.course)
        self.scorer.update(0.0, *self.world.pose[0, :2].tolist())
        self._over, self._end = False, ""
        self._worth = self._potential()
        self._history = obs.fill(np, self._frame(np.zeros(self.robot.joints, np.float32)))
        return self._observation(), self._info()

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """See `gymnasium.Env.step`."""
        if self.world is None or self._over:
            raise ResetNeeded("the run is over: call reset() before step()")
        limit = self.robot.action_limit
        action = np.clip(_checked(action, self.robot), -limit, limit)
        world, rest = self.world, np.zeros(3, np.float32)  # a resting gait clock: the action alone moves the joints
        targets = obs.joint_targets(np, self.robot, Gait(), action, rest[0], rest, rest[0])
        world.apply(np.asarray(targets, np.float32)[None])
        for board in np.flatnonzero(world.touched_boards[0]).tolist():
            self.scorer.touch_jump(board)
        if not world.broken[0]:
            for before_now, places in world.places:
                self.scorer.update(world.time - before_now, *places[0].tolist())
        self._end = self._ending()
        terminated = self._end not in ("", "time limit")
        self._over = bool(self._end)
        before, self._worth = self._worth, self._potential()
        reward = self._worth - before - (self._unfinished() if terminated else 0.0)
        self._history = obs.push(np, self._history, self._frame(action))
        return self._observation(), reward, terminated, self._end == "time limit", self._info()

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """The present state as an image `[360, 640, 3]`, uint8; None without a render mode."""
        if self.world is None:
            raise ResetNeeded("call reset() before render()")
        return self._camera.image(self.model, self.world.physics.qpos[0])

    def close(self) -> None:
        """See `gymnasium.Env.close`."""
        self._camera.close()

    def next_gate(self) -> np.ndarray:
        """Left and right end of the next gate in the world, m, `[2, 2]`."""
        for obstacle, passed in zip(self.course.obstacles, self.scorer.passed, strict=True):
            if passed < len(obstacle.gates):
                return np.array([obstacle.gates[passed].left, obstacle.gates[passed].right])
        return np.array([self.course.end_table.center, self.course.end_table.center])

    def _frame(self, action: np.ndarray) -> np.ndarray:
        assert self.world is not None
        readings = self.world.look_around()
        return obs.frame(np, self.robot, obs.Sensors(*(reading[0] for reading in readings)), action)

    def _observation(self) -> np.ndarray:
        assert self.world is not None
        x, y, yaw = self.world.pose[0]
        c, s = np.cos(yaw), np.sin(yaw)
        gate = (self.next_gate() - (x, y)) @ np.array([[c, -s], [s, c]])
        parts = [self._history[age] for age in self.layout.frames]
        parts += [
            self.world.ground_seen(self.layout)[0],
            np.array([x, y, s, c]),
            gate.ravel(),
        ]
        return np.concatenate(parts).astype(np.float32)

    def _info(self) -> dict[str, Any]:
        result = self.scorer.result()
        return {
            "score": result.score,
            "time_s": result.time_s,
            "progress": result.progress,
            "finished": result.finished,
            "fell": self._end in ("fell", "diverged"),
            "touched_jump": result.touched_jump,
            "gates": {name: obstacle.gates_passed for name, obstacle in result.obstacles.items()},
            "end": self._end,
        }

    def _potential(self) -> float:
        """What the reward is the increase of."""
        result = self.scorer.result()
        shares = {name: o.gates_passed / o.gates for name, o in result.obstacles.items()}
        held = 1.0 if result.finished else result.end_table_s / DWELL
        shares["end table"] = 1.0 if result.finished else 0.5 * (shares["end table"] + held)
        return PENALTY * (sum(shares.values()) - len(self.scorer.touched)) - PER_SECOND * result.time_s

    def _unfinished(self) -> float:
        """What a run that ends now is charged for not having held the end table."""
        result = self.scorer.result()
        return 0.0 if result.finished else PER_SECOND * max(MAX_TIME - result.time_s, 0.0)

    def _ending(self) -> str:
        """Why the run ends with this step, or ""."""
        assert self.world is not None
        return self.world.ending(0, bool(self.world.fallen()[0]), self.scorer, self.course, MAX_TIME)


# --- both ------------------------------------------------------------------------------------------------------------


def _unbounded(size: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, (size,), np.float32)


def _actions(robot: Robot) -> spaces.Box:
    return spaces.Box(-robot.action_limit, robot.action_limit, (len(robot.joint_names),), np.float32)


def _checked(action: Any, robot: Robot, worlds: int | None = None) -> np.ndarray:
    """An action `[J]`, or `[worlds, J]`, as float32; `InputError` where it is not that or not finite."""
    shape = (robot.joints,) if worlds is None else (worlds, robot.joints)
    try:
        values = np.asarray(action, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"an action must be numbers of shape {shape}: {error}") from error
    if values.shape != shape:
        raise InputError(f"an action must have shape {shape}, got {values.shape}")
    if not np.isfinite(values).all():
        where = np.argwhere(~np.isfinite(values))[0]
        world = "" if worlds is None else f" in world {where[0]}"
        raise InputError(f"the action of joint '{robot.joint_names[where[-1]]}'{world} is not finite")
    return values


def _no_more(options: dict[str, Any], known: str) -> None:
    if options:
        raise InputError(f"unknown reset option '{next(iter(options))}': known are {known}")


def _seed(env: gymnasium.Env | VectorEnv, seed: int | None) -> int:
    """The seed of a reset: the one asked for, or one from the environment's own stream."""
    if seed is None:
        return int(env.np_random.integers(SEEDS))
    if seed >= SEEDS:
        raise InputError(f"a seed must be below {SEEDS}, got {seed}")
    return int(seed)


class _Camera:
    """Pictures of one world, made off screen; follows the robot."""

    def __init__(self, render_mode: str | None) -> None:
        if render_mode not in (None, "rgb_array"):
            raise InputError(f"unknown render_mode '{render_mode}': known are rgb_array")
        if render_mode and os.environ.get("MUJOCO_GL", "") not in ("egl", "osmesa"):
            raise InputError("render_mode 'rgb_array' needs off-screen GL: set MUJOCO_GL=egl or MUJOCO_GL=osmesa")
        self.wanted = render_mode is not None
        self.renderer: Any = None

    def image(self, model: mujoco.MjModel, qpos: np.ndarray) -> np.ndarray | None:
        """A robot in `qpos` `[7 + J]`, uint8 `[360, 640, 3]`."""
        if not self.wanted:
            return None
        try:
            if self.renderer is None:
                self.renderer = mujoco.Renderer(model, *FRAME_SHAPE)
                self.data = mujoco.MjData(model)
                self.view = mujoco.MjvCamera()
                self.view.distance, self.view.azimuth, self.view.elevation = 2.6, 70.0, -32.0
            self.data.qpos[:] = qpos
            mujoco.mj_forward(model, self.data)
            self.view.lookat[:] = self.data.qpos[:3]
            self.renderer.update_scene(self.data, self.view)
            return np.array(self.renderer.render())
        except Exception as error:  # GL libraries raise whatever they like
            name = type(error).__name__
            raise InputError(f"off-screen GL (MUJOCO_GL={os.environ.get('MUJOCO_GL')}) fails here: {name}") from error

    def close(self) -> None:
        """Gives the GL context back."""
        if self.renderer is not None:
            self.renderer.close()
            self.renderer = None


register()
