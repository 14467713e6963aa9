"""Finds an open-loop bound: a cross-entropy search over the gait clock's parameters on the batched simulator.

    python -m sim.envs.gait_search --seed 0

A jumper that starts from a bounding robot learns in minutes; PPO from a clock that does not run learned nothing in the
same time. Each candidate runs blindly (no policy) on the flat, in worlds with slightly different starts and physics;
what counts is the distance made at the wanted speed without falling. Prints the best gait as JSON.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tyro

from sim import gait as clocks
from sim import observation as obs
from sim.course.scene import TRAINING, build, foot_forces, leg_geoms
from sim.course.terrain import Terrain
from sim.physics.cpu import CpuPhysics
from sim.robots.description import DEFAULT, Robot, find_robot, substeps_of
from sim.robots.gaits import CORNERS, Gait, LegPair

NAMES = ("push", "fold", "swing", "swing_phase", "hip", "knee")
MEAN = (0.4, 0.2, 0.4, 0.4, -0.1, 0.2), (0.4, 0.2, 0.3, 0.4, -0.1, 0.2)
SPREAD = (0.12, 0.12, 0.2, 0.25, 0.15, 0.2)
"""First distribution of the front and hind pair's parameters, rad (cycles for the phase)."""
LAG, LAG_SPREAD, LAG_RANGE = 0.54, 0.05, (0.48, 0.62)
"""Hind legs' phase against the front legs', cycles. Hips are 0.38 m apart, half a stride: with a lag near half a cycle
the hind feet land where the front feet stood, and the whole stride between two prints is free for a board. The
search without limits prefers 0.23, which leaves 0.2 m less."""
PAIR_RANGE = (0.05, 0.7), (0.1, 0.7), (-0.7, 0.7), (-1.0, 1.0), (-0.5, 0.5), (-0.5, 0.6)
"""Stance legs extend and swing legs fold: a pair that extends in its swing as well lands twice in a stride."""
BOUNDS = np.array([*PAIR_RANGE, *PAIR_RANGE, LAG_RANGE]).T


@dataclass(frozen=True)
class Search:
    """Search a bound clock that runs without a policy."""

    robot: str = DEFAULT
    """a robot's name or folder"""
    speed: float = 1.9
    """wanted speed, m/s"""
    stride: float = 0.76
    """metres of ground per cycle"""
    population: int = 192
    elite: int = 24
    iterations: int = 25
    trials: int = 2
    """starts of each candidate"""
    seconds: float = 3.0
    seed: int = 0


def gaits_of(genes: np.ndarray, search: Search) -> Gait:
    """The gait of one vector of genes (front pair, hind pair, lag), or of many at once for genes `[genes, N]`."""
    *pairs, lag = np.split(genes, [len(NAMES), 2 * len(NAMES)])
    front, hind = (LegPair(**dict(zip(NAMES, values, strict=True))) for values in pairs)
    offsets = tuple(lag[0] if corner.startswith("hind") else 0.0 * lag[0] for corner in CORNERS)
    return Gait(
        "bound", phase_offsets=offsets, push=0.0, lift_per_relief=0.0, front=front, hind=hind, stride=search.stride,
        lock_gain=4.0, lock_range=0.3,
    )  # fmt: skip


def running(
    gait: Gait, robot: Robot, speed: float, seconds: float, n: int, rng: np.random.Generator
) -> Iterator[tuple[CpuPhysics, np.ndarray]]:
    """Robots that follow the clock blindly on the flat, in worlds with slightly different starts and friction.

    Yields the physics and the phases `[n]`, cycles, after each control step. `speed`, m/s, is asked for after a run-up.
    """
    dt = robot.control_period
    model = build(robot, Terrain(), collision="full", options=TRAINING)
    physics = CpuPhysics(model, n)
    friction = physics.batch.expand("geom_friction")
    friction[:, :, 0] *= rng.uniform(0.8, 1.3, (n, 1))
    joints = robot.default_pose + rng.uniform(-0.1, 0.1, (n, robot.joints))
    rows = np.repeat([[0.0, 0.0, robot.standing_height + 0.02, 1.0, 0.0, 0.0, 0.0]], n, 0)
    physics.reset(np.ones(n, bool), np.concatenate([rows, joints], 1), np.zeros((n, model.nv)))
    phase, last = rng.random(n).astype(np.float32), joints.astype(np.float32)
    for k in range(round(seconds / dt)):
        asked = min(speed, 0.5 + 3.0 * k * dt)
        command = np.tile(np.array([asked, 0.0, 0.0], np.float32), (n, 1))
        phase = clocks.advance(np, gait, phase, command, dt)
        offset = clocks.joint_offset(np, robot, gait, phase, command, np.zeros(n, np.float32))
        targets = np.clip(robot.default_pose + offset, robot.joint_lower, robot.joint_upper).astype(np.float32)
        physics.step(targets, substeps_of(robot, TRAINING.timestep), last, np.full(n, 3))
        last = targets
        yield physics, phase


def returns(genes: np.ndarray, robot: Robot, search: Search, rng: np.random.Generator) -> np.ndarray:
    """What each candidate of `genes` `[N, genes]` is worth: metres made, less for turning aside and for tumbling."""
    dt, count = robot.control_period, len(genes)
    n = count * search.trials
    gait = gaits_of(np.repeat(genes.T, search.trials, 1).astype(np.float32), search)
    alive, worth = np.ones(n, bool), np.zeros(n)
    for physics, _ in running(gait, robot, search.speed, search.seconds, n, rng):
        gravity = obs.projected_gravity(np, np.array(physics.qpos[:, 3:7]))
        fall = robot.fall
        alive &= (gravity[:, 2] < -fall.learning_upright) & (physics.qpos[:, 2] > 1.1 * fall.clearance)
        ahead = np.clip(physics.qvel[:, 0], -1.0, search.speed)
        spin = 0.1 * np.abs(physics.qvel[:, 5]) + 0.3 * np.abs(physics.qvel[:, 1]) + 0.3 * gravity[:, 0] ** 2
        worth += np.where(alive, (ahead - spin) * dt, -0.5 * dt)
    return worth.reshape(count, search.trials).min(1)


def lock_phase(gait: Gait, robot: Robot, speed: float, *, seed: int = 0, n: int = 32) -> tuple[float, float]:
    """Where in its cycle a robot is furthest from every print of its feet, for `Gait.lock_phase`.

    Over a board in that phase, prints lie equally far before and behind the base. From `n` robots that follow the clock
    without a policy: prints are where feet carry force after the run-up.

    Returns:
      The phase, cycles, and the way free of prints around the base in it, m (twice the nearer side's, median).
    """
    rng, seconds, settled = np.random.default_rng(seed), 3.0, 1.5
    base, phases, feet, down = [], [], [], []
    forces: Any = None
    for physics, phase in running(gait, robot, speed, seconds, n, rng):
        if forces is None:
            forces = foot_forces(physics.model, robot)
            points, positions = leg_geoms(physics.model, robot, ("foot",)), physics.batch.bind("geom_xpos")
        base.append(physics.qpos[:, 0].copy())
        phases.append(phase.copy())
        feet.append(positions[:, points, 0].copy())
        down.append(physics.sensordata[:, forces] > 1.0)
    base, phases, feet, down = (np.array(values) for values in (base, phases, feet, down))
    begun, cells = round(settled / robot.control_period), 20
    free = [[] for _ in range(cells)]
    for world in range(n):
        prints = feet[begun:, world][down[begun:, world]]
        if not len(prints):
            continue
        for t in range(begun, len(base) - round(0.5 / robot.control_period)):  # what comes next has been trodden
            nearest = np.abs(prints - base[t, world]).min()
            free[min(int(phases[t, world] * cells), cells - 1)].append(2 * nearest)
    medians = np.array([np.median(values) if values else 0.0 for values in free])
    best = int(medians.argmax())
    return (best + 0.5) / cells, float(medians[best])


def search(options: Search) -> tuple[Gait, float]:
    """The best gait found and what it is worth, m."""
    rng, robot = np.random.default_rng(options.seed), find_robot(options.robot)
    mean, spread = np.array([*MEAN[0], *MEAN[1], LAG]), np.array([*SPREAD, *SPREAD, LAG_SPREAD])
    best, best_worth = mean, -np.inf
    for iteration in range(options.iterations):
        genes = mean + spread * rng.standard_normal((options.population, len(mean)))
        genes[0] = mean
        genes = np.clip(genes, *BOUNDS)
        worth = returns(genes, robot, options, rng)
        order = np.argsort(-worth)[: options.elite]
        mean, spread = genes[order].mean(0), 0.8 * genes[order].std(0) + 0.2 * spread
        if worth[order[0]] > best_worth:
            best, best_worth = genes[order[0]], float(worth[order[0]])
        print(f"{iteration + 1}/{options.iterations} best {best_worth:.2f} m, elite {worth[order].mean():.2f} m",
              file=sys.stderr)  # fmt: skip
    final = np.stack([mean, best])
    worth = returns(final, robot, replace(options, trials=32), rng)
    k = int(worth.argmax())
    gait = gaits_of(np.round(final[k], 3), options)
    phase, _ = lock_phase(gait, robot, options.speed, seed=options.seed)
    return replace(gait, lock_phase=phase), float(worth[k])


def main() -> None:
    """Command line."""
    options = tyro.cli(Search)
    gait, worth = search(options)

    def plain(value: Any) -> Any:
        return float(value) if isinstance(value, np.floating) else value

    said = {k: {n: plain(v) for n, v in x.items()} if isinstance(x, dict) else x for k, x in gait.to_dict().items()}
    print(json.dumps({"worth_m": worth, **said}, default=float))


if __name__ == "__main__":
    main()
