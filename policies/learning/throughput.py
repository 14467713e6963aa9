"""Environment steps per second of the whole environment loop: the C engine against MJX on the CPU, in one run.

The engines take turns (A B A B ...), so that whatever else the machine does meets both; medians of the rounds are
given.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from policies.learning.options import PhysicsBenchOptions
from policies.learning.results import PhysicsBench
from sim.machine import check_xla, processor
from sim.tasks.ground import Ground

CORES = 2
WORLDS = 540
ROUNDS = 5
SECONDS = 2.0
"""About how long one engine runs in one round."""
ACTION_STD = 0.4
"""Spread of the random actions, as at the start of training."""
SCENES = {
    "training_ground": {},
    "flat": {"ground": Ground(("flat",), (1.0,))},
}
"""Changes to the walking task. On the flat both engines collide feet and shanks with the floor; on the training ground
each does what it does in training: MJX collides the feet with the boxes near them, C feet and shanks with all."""


@contextmanager
def _on_cores(count: int) -> Iterator[list[int]]:
    """Holds this process to `count` cores, before any engine starts its threads."""
    before = os.sched_getaffinity(0)
    chosen = sorted(before)[:count]
    os.sched_setaffinity(0, chosen)
    try:
        yield chosen
    finally:
        os.sched_setaffinity(0, before)


def run(options: PhysicsBenchOptions) -> PhysicsBench:  # noqa: ARG001
    """What `barkour bench physics` prints; see `measure`."""
    check_xla()
    return PhysicsBench.of(measure())


def measure(
    worlds: int = WORLDS, rounds: int = ROUNDS, seconds: float = SECONDS, scenes: tuple[str, ...] = tuple(SCENES)
) -> dict[str, Any]:
    """Measures on two cores; about three minutes, most of it compiling. Progress goes to standard error.

    Returns:
      JSON-ready: `cpu_steps_per_second`, `mjx_steps_per_second` and `ratio` (C engine over MJX) on the training ground,
      the same for each scene under `scenes` with every round, the loop with the learner, and the conditions.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with _on_cores(CORES) as cores, Progress(*columns, console=console) as progress:
        bar = progress.add_task("preparing", total=len(scenes) * (1 + rounds) + 1)

        def say(text: str) -> None:
            progress.update(bar, description=text, advance=1)

        progress.update(bar, description=f"compiling MJX for {scenes[0]}")
        measured = {name: _scene(name, worlds, rounds, seconds, say) for name in scenes}
        learner = _with_learner(worlds, rounds)
        say("done")
        conditions = _conditions(worlds, rounds, seconds, cores)
    first = measured[scenes[0]]
    keys = ("cpu_steps_per_second", "mjx_steps_per_second", "ratio")
    return {
        **{key: first[key] for key in keys},
        "scenes": measured,
        "cpu_with_learner_steps_per_second": learner,
        "conditions": conditions,
    }


def _scene(name: str, worlds: int, rounds: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    """Both engines on one scene."""
    from sim.envs.batched import BatchedEnv
    from sim.envs.mjx_batched import MjxBatchedEnv
    from sim.tasks.task import Task

    task = Task(**SCENES[name])
    envs = {
        "cpu": BatchedEnv(task, worlds, threads=CORES),
        "mjx": MjxBatchedEnv(task, worlds, shanks=name == "flat"),
    }
    actions = np.random.default_rng(0).normal(0, ACTION_STD, (16, worlds, task.robot.joints)).astype(np.float32)
    started, steps = {}, {}
    for engine, env in envs.items():
        began = time.perf_counter()
        _steps(env, actions, 1)
        started[engine] = time.perf_counter() - began
        steps[engine] = max(2, round(seconds / _steps(env, actions, 3)))
    say(f"{name}: measuring")
    rates: dict[str, list[float]] = {engine: [] for engine in envs}
    for i in range(rounds):
        for engine, env in envs.items():
            rates[engine].append(worlds / _steps(env, actions, steps[engine]))
        last = " ".join(f"{engine} {values[-1]:.0f}/s" for engine, values in rates.items())
        say(f"{name}: round {i + 1} of {rounds}: {last}")
    ratios = np.array(rates["cpu"]) / np.array(rates["mjx"])
    return {
        **{f"{engine}_steps_per_second": float(round(np.median(values), 1)) for engine, values in rates.items()},
        "ratio": float(round(np.median(ratios), 3)),
        "ratio_range": [float(round(ratios.min(), 3)), float(round(ratios.max(), 3))],
        **{f"{engine}_rounds": [round(value, 1) for value in values] for engine, values in rates.items()},
        "mjx_first_step_seconds": round(started["mjx"], 1),
    }


def _steps(env: Any, actions: np.ndarray, count: int) -> float:
    """Seconds per control step of all worlds, mean over `count`."""
    began = time.perf_counter()
    for i in range(count):
        env.step(actions[i % len(actions)])
    return (time.perf_counter() - began) / count


def _with_learner(worlds: int, rounds: int) -> float:
    """Median steps/s of collecting with the policy and updating it, C engine, default network and PPO settings."""
    import jax

    from policies.learning.ppo import Learner, PPOConfig, collect
    from sim.envs.batched import BatchedEnv
    from sim.tasks.task import Task

    task, config = Task(), PPOConfig(worlds=worlds)
    env: Any = BatchedEnv(task, config.worlds, threads=CORES)
    env.present = env.observe()
    learner = Learner(config, task.layout.size, task.privileged_size, task.robot.joints)
    state, rates = learner.initial(0), []
    for key in jax.random.split(jax.random.PRNGKey(1), 1 + min(rounds, 3)):
        began = time.perf_counter()
        state, losses = learner.update(state, collect(learner, state, env, key, {}))
        jax.block_until_ready(losses)
        rates.append(config.worlds * config.unroll / (time.perf_counter() - began))
    return float(round(np.median(rates[1:]), 1))  # the first one compiles


def _conditions(worlds: int, rounds: int, seconds: float, cores: list[int]) -> dict[str, Any]:
    """What was measured on."""
    import jax
    import mujoco

    return {
        "processor": processor(),
        "cores": len(cores),
        "load_average": round(os.getloadavg()[0], 2),
        "worlds": worlds,
        "rounds": rounds,
        "seconds_per_round": seconds,
        "statistic": "medians of alternating rounds; the ratio is taken round by round",
        "actions": f"random, standard deviation {ACTION_STD}",
        "control_step": "20 ms, 5 physics steps",
        "mujoco": mujoco.__version__,
        "jax": jax.__version__,
        "jax_device": str(jax.devices()[0].platform),
    }
