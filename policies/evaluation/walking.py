"""How well a walk policy walks: command tracking and falls on the flat, and 0.10 m steps, in evaluation physics.

    python -m policies.evaluation.walking models/walk.onnx --json

Deterministic policy, 2 ms steps, full-body collision, latency, sensor noise and pushes; physics drawn per world as with
`--randomize`. The first second after each new command is left out of the errors.
"""

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from tyro.conf import Positional

from policies.bundle.reader import Bundle, FixedBatch, Policy
from sim.course.scene import build
from sim.course.terrain import Block, Terrain
from sim.envs.variation import Variation
from sim.envs.worlds import SimulatedRobots, flat, world_seeds
from sim.errors import InputError
from sim.physics.engines import Engine

SETTLING = 1.0
"""Seconds after a new command that are left out."""
STEP_SECONDS = 6.0
STEP_SPEED = 0.8
TABLE_AT, TABLE_LENGTH = 0.8, 1.2
"""Where the table that is crossed begins, m ahead of the start, and how long it is."""


@dataclass(frozen=True)
class WalkEval:
    """Measure a walk policy: tracking error, falls, 0.10 m steps."""

    file: Positional[Path]
    episodes: int = 200
    """episodes of each measurement"""
    seconds: float = 20.0
    """length of a tracking episode"""
    forward: float = 1.5
    """largest commanded forward and backward speed, m/s"""
    sideways: float = 0.8
    yaw: float = 1.5
    hold: float = 5.0
    """seconds between two commands"""
    step_height: float = 0.10
    nominal: bool = False
    """the published robot instead of randomised physics"""
    engine: Engine = "cpu"
    """physics: cpu (MuJoCo's C engine), drake (needs the sim2sim extra) or mjx (needs the train extra; slow)"""
    seed: int = 0
    json: bool = False


def walk_figures(options: WalkEval) -> dict[str, Any]:
    """All figures as one JSON-ready object.

    Raises:
      InputError: not a bundle, fewer than one episode, or episodes too short to measure anything.
    """
    if not options.seconds > SETTLING or not options.hold > SETTLING:
        got = f"{options.seconds} and {options.hold}"
        raise InputError(f"episodes and commands must last longer than {SETTLING} s, got {got}")
    bundle = Bundle.load(options.file)
    ranges = np.array([options.forward, options.sideways, options.yaw])
    if not (np.isfinite(ranges).all() and (ranges >= 0).all()):
        raise InputError(f"command ranges must be finite and not negative, got {ranges.tolist()}")
    variation = Variation(options.engine)
    return {
        "policy": str(options.file),
        "options": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items() if k != "json"},
        "tracking": _say("tracking", tracking(bundle, options, ranges, variation=variation)),
        "forward_2": _say("2 m/s", tracking(bundle, options, np.zeros(3), (2.0, 0.0, 0.0), variation)),
        "steps": _say("steps", steps(bundle, options, variation)),
    }


def _say(name: str, result: dict[str, Any]) -> dict[str, Any]:
    print(f"{name}: {result}", file=sys.stderr)
    return result


def tracking(
    bundle: Bundle,
    options: WalkEval,
    ranges: np.ndarray,
    fixed: tuple[float, float, float] | None = None,
    variation: Variation = Variation(),
) -> dict[str, Any]:
    """Errors of velocity (m/s) and yaw rate (rad/s) on the flat, and falls.

    Commands are uniform in +-`ranges` `[3]` and change every `options.hold` seconds, or are `fixed` throughout. An
    error is the length of the difference between commanded and true velocity at every control step; `..._smoothed`
    takes the velocity's mean over the last half second (a gait cycle and more) first, so that the sway of each step
    does not count.
    """
    robots = _robots(bundle, options, Terrain(), variation)
    n, dt = robots.worlds, bundle.robot.control_period
    robots.place(np.zeros(n), np.zeros(n), np.zeros(n), flat)
    rngs = [np.random.default_rng([0xC0DE, int(seed)]) for seed in robots.seeds]
    hold, count = round(options.hold / dt), round(options.seconds / dt)
    command = np.zeros((n, 3), np.float32)
    seen, asked = np.zeros((count, n, 3), np.float32), np.zeros((count, n, 3), np.float32)
    alive = np.ones((count, n), bool)
    walk = Walker(bundle, robots)
    for k in range(count):
        if k % hold == 0:
            drawn = np.stack([rng.uniform(-1, 1, 3) for rng in rngs]) * ranges
            command = np.tile(np.array(fixed, np.float32), (n, 1)) if fixed else drawn.astype(np.float32)
        walk.step(command)
        seen[k], asked[k], alive[k] = robots.velocity, command, ~walk.fallen
    age = np.arange(count) % hold if not fixed else np.arange(count)
    settled = (age * dt >= SETTLING)[:, None] & alive
    smooth = _moving_mean(seen, round(0.5 / dt), age)
    out = {"episodes": n, "seconds": options.seconds, "falls": int(walk.fallen.sum())}
    for name, values in (("", seen), ("_smoothed", smooth)):
        error = values - asked
        planar, turn = np.linalg.norm(error[..., :2], axis=-1), np.abs(error[..., 2])
        out[f"velocity_error{name}"] = float(planar[settled].mean()) if settled.any() else None
        out[f"yaw_error{name}"] = float(turn[settled].mean()) if settled.any() else None
    out["speed_mean"] = float(seen[..., 0][settled].mean()) if settled.any() else None
    out["torque_peak_nm"] = float(robots.torque_peak.max())
    out["target_jump_rad"] = float(robots.target_jump.max())
    return out


def steps(bundle: Bundle, options: WalkEval, variation: Variation = Variation()) -> dict[str, Any]:
    """Share of robots that walk up and down a table of `options.step_height` at 0.8 m/s without falling, in 6 s."""
    near, length = TABLE_AT, TABLE_LENGTH
    table = Block("table", (near + length / 2, 0.0), (length, 40.0), top=options.step_height)
    terrain = Terrain((table,))
    robots = _robots(bundle, options, terrain, variation)
    n, dt = robots.worlds, bundle.robot.control_period
    robots.place(np.zeros(n), np.zeros(n), np.zeros(n), terrain.height)
    walk = Walker(bundle, robots)
    up, over = np.zeros(n, bool), np.zeros(n, bool)
    for _ in range(round(STEP_SECONDS / dt)):
        yaw = robots.pose[:, 2]
        heading = np.clip(-2.0 * np.arctan2(np.sin(yaw), np.cos(yaw)), -1.0, 1.0)  # as the navigator holds a heading
        command = np.stack([np.full(n, STEP_SPEED), np.zeros(n), heading], 1).astype(np.float32)
        walk.step(command)
        x = robots.pose[:, 0]
        up |= ~walk.fallen & (x > near + 0.45)  # the hind feet are up too
        over |= ~walk.fallen & (x > near + length + 0.5)
    return {
        "episodes": n, "height_m": options.step_height, "speed": STEP_SPEED, "up_rate": float(up.mean()),
        "crossed_rate": float(over.mean()), "falls": int(walk.fallen.sum()),
    }  # fmt: skip


def _robots(bundle: Bundle, options: WalkEval, terrain: Terrain, variation: Variation = Variation()) -> SimulatedRobots:
    model = build(bundle.robot, terrain, options=variation.solver)
    seeds = world_seeds(options.seed, options.episodes)
    return SimulatedRobots(bundle.robot, model, seeds, randomize=not options.nominal, variation=variation)


class Walker:
    """A policy on simulated robots; remembers who has fallen."""

    def __init__(self, bundle: Bundle, robots: SimulatedRobots) -> None:
        self.robots = robots
        self.policy = Policy(FixedBatch(bundle), robots.worlds)  # type: ignore[arg-type]
        self.fallen = np.zeros(robots.worlds, bool)

    def step(self, command: np.ndarray) -> None:
        """One control period under `command` `[worlds, 3]`; the fallen are asked to stand."""
        robots = self.robots
        command = np.where(self.fallen[:, None], 0.0, command).astype(np.float32)
        layout = self.policy.bundle.layout
        robots.step(lambda sensors, heights: self.policy.step(sensors, command, heights(layout)))
        self.fallen |= robots.fallen() | robots.broken


def _moving_mean(values: np.ndarray, width: int, age: np.ndarray) -> np.ndarray:
    """Mean over the last `width` rows of `values` `[T, ...]`, never reaching past a change of command (`age` `[T]`)."""
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(values, 0, dtype=np.float64)])
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - np.minimum(width, age + 1), 0)
    return (total[end] - total[start]) / (end - start).reshape(-1, *[1] * (values.ndim - 1))


def main() -> int:
    """Command line; exit status as `barkour`."""
    try:
        options = tyro.cli(Annotated[WalkEval, tyro.conf.arg(name="")], description=WalkEval.__doc__)
        result = walk_figures(options)
    except InputError as error:
        print(f"walk_eval: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result, indent=None if options.json else 2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
