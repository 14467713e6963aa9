"""`barkour robot drift`: how far a robot that knows its place by its own senses is off, by the metre gone.

A walker under random commands on the flat, in evaluation physics; the filter hears noisy readings at 250 Hz and nothing
else, and is held against the simulator's truth.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from policies.bundle.reader import Bundle, FixedBatch, Policy
from policies.bundle.shipped import bundle_file
from policies.estimation.kinematics import matrix_of
from robot.loop.transport import Array
from robot.options import RobotDriftOptions
from robot.results import DriftReport
from sim import observation as obs
from sim.errors import InputError
from sim.robots.description import find_robot

COMMANDS = (1.0, 0.4, 0.8)
"""Largest forward and sideward velocity (m/s) and yaw rate (rad/s) that are asked for."""
HOLD = 3.0
"""s between two commands."""


def drift(options: RobotDriftOptions) -> DriftReport:
    """Walks `runs` robots for `seconds` each and says how far their filters were off at the end.

    Raises:
      InputError: an unknown robot, one without a walker, or one whose legs cannot be read.
    """
    robot = find_robot(options.robot)
    file = options.policy or bundle_file("walk", robot.name)
    if not file.is_file():
        raise InputError(f"{robot.name} has no walker: {file} is missing; give --policy FILE.onnx")
    bundle = Bundle.load(file)
    if bundle.robot.name != robot.name:
        raise InputError(f"{file} is for the robot {bundle.robot.name}, not {robot.name}")
    rows = [_walk(bundle, seed, options) for seed in _seeds(options)]
    off = np.array([row["error_m"] for row in rows])
    way = np.array([row["way_m"] for row in rows])
    return DriftReport(
        robot=robot.name,
        policy=str(file),
        runs=options.runs,
        seconds=options.seconds,
        seed=options.seed,
        randomized=options.randomize,
        way_m=float(way.sum()),
        drift_per_metre=float((off / np.maximum(way, 1e-9)).mean()),
        heading_deg_per_minute=float(np.mean([abs(row["heading_deg"]) for row in rows]) * 60 / options.seconds),
        height_error_m=float(np.mean([abs(row["height_m"]) for row in rows])),
        velocity_error=float(np.mean([row["velocity_error"] for row in rows])),
        tilt_error_deg=float(np.mean([row["tilt_deg"] for row in rows])),
        fell=sum(bool(row["fell"]) for row in rows),
        each=rows,
    )


def _seeds(options: RobotDriftOptions) -> list[int]:
    from sim.envs.worlds import world_seeds

    return cast(list[int], world_seeds(options.seed, options.runs).tolist())


def _walk(bundle: Bundle, seed: int, options: RobotDriftOptions) -> dict[str, Any]:
    """One robot's walk, JSON-ready: way (m), errors at its end, mean errors of velocity (m/s) and tilt (degrees)."""
    from policies.evaluation.own_senses import OwnSenses
    from sim.course import scene
    from sim.course.terrain import Terrain
    from sim.envs.worlds import SimulatedRobots, flat

    robot = bundle.robot
    model = cast(Any, scene).build(robot, Terrain())
    walks = SimulatedRobots(robot, model, [seed], randomize=options.randomize, threads=1)
    walks.place(np.zeros(1), np.zeros(1), np.zeros(1), flat)
    physics = walks.physics
    rng = np.random.default_rng([0xD21F, seed])
    senses = OwnSenses(walks, [rng])
    filter_ = senses.odometry[0].filter
    state = {"way": 0.0, "speed": 0.0, "tilt": 0.0, "count": 0}
    last = np.array(physics.qpos[0, :2])

    def hear() -> None:
        """After every physics step: the filter has a reading whenever one is due, and is held against the truth."""
        nonlocal last
        if not senses.hear():
            return
        qpos, qvel = np.array(physics.qpos[0]), np.array(physics.qvel[0])
        state["way"] += float(np.linalg.norm(qpos[:2] - last))
        last = qpos[:2]
        turn = matrix_of(qpos[3:7])
        state["speed"] += float(np.linalg.norm(filter_.base_velocity - turn.T @ qvel[:3]))
        state["tilt"] += math.acos(min(1.0, float(turn[2] @ filter_.turn[2])))
        state["count"] += 1

    walks.listener = hear
    policy = Policy(cast(Any, FixedBatch(bundle)), 1)
    command, fell = np.zeros((1, 3), np.float32), False
    hold = round(HOLD / robot.control_period)
    for k in range(round(options.seconds / robot.control_period)):
        if k % hold == 0:
            command = (rng.uniform(-1, 1, 3) * COMMANDS).astype(np.float32)[None]
        walks.step(_driver(policy, command))
        fell = fell or bool(walks.fallen()[0])
        if fell:
            break
    qpos = np.array(physics.qpos[0])
    off = filter_.position - qpos[:3]
    heading = float(obs.yaw_of(np, filter_.orientation) - obs.yaw_of(np, qpos[3:7]))
    count = max(int(state["count"]), 1)
    return {
        "seed": seed,
        "way_m": state["way"],
        "error_m": float(np.linalg.norm(off[:2])),
        "height_m": float(off[2]),
        "heading_deg": math.degrees((heading + math.pi) % (2 * math.pi) - math.pi),
        "velocity_error": state["speed"] / count,
        "tilt_deg": math.degrees(state["tilt"] / count),
        "fell": fell,
    }


def _driver(policy: Policy, command: Array) -> Callable[..., Array]:
    def drive(sensors: Any, heights: Callable[..., Array]) -> Array:
        return policy.step(sensors, command, heights(policy.bundle.layout))

    return drive
