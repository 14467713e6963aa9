"""How near recorded runs come to the limits of the safety chain: what a limit's number is chosen by.

barkour onboard --randomize --seed 7 --record run.mcap
python -m robot.bench.limits run.mcap ...
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from robot.loop import safety
from robot.loop.recording import Recording, read, snapshot_of
from robot.loop.safety import Limits
from robot.loop.transport import NS, Array, Mode, State
from sim.course import files as course_file
from sim.errors import InputError
from sim.robots.description import Robot, find_robot

LEAST = ("clearance",)
"""Limits that values must not fall below; the others must not be exceeded."""


def seen(recording: Recording, robot: Robot) -> dict[str, Array]:
    """Limit -> what it is held against, in every step in which the policy ran, `[N]`."""
    steps = recording.steps[recording.steps["state"] == State.RUNNING]
    if len(steps) < 2:
        raise InputError(f"{recording.path}: the policy never ran in it")
    snapshots = [snapshot_of(row, None) for row in steps]
    course = recording.header.get("course")
    pose, targets = steps["pose"], steps["targets"]
    ground = course_file.loads(course, str(recording.path)).height(pose[:, 0], pose[:, 1]) if course else 0.0
    follows = (np.diff(steps["now"]) < 1.5 * robot.control_period * NS) & (steps["mode"][1:] == Mode.POSITION)
    ages = {name: (steps["now"] - steps[f"{name}_time"]) / NS for name in ("joints", "imu", "command", "pose")}
    effort = np.abs(steps["effort"]) / robot.torque_limit
    return {
        "sensor_timeout": np.maximum(ages["joints"], ages["imu"]),
        "command_timeout": ages["command"],
        "pose_timeout": ages["pose"],
        "tilt": np.array([safety.lean(snapshot) for snapshot in snapshots]),
        "clearance": pose[:, 2] - ground,
        "joint_speed": np.abs(steps["velocity"]).max(axis=1),
        "torque_share": effort[np.isfinite(effort).all(axis=1)].max(axis=1),
        "target_step": np.abs(np.diff(targets, axis=0)).max(axis=1)[follows],
        "target_start": np.abs(targets - steps["position"]).max(axis=1),
    }


def distribution(paths: Sequence[Path]) -> dict[str, dict[str, float]]:
    """Limit -> `limit`, and of what it is held against `median`, `p99` (towards the limit), `worst`; over recordings.

    Raises:
      InputError: no recording, or one in which the policy never ran.
    """
    parts: dict[str, list[Array]] = {}
    robot: Robot | None = None
    for path in paths:
        recording = read(path)
        robot = find_robot(str(recording.header.get("robot")))
        for name, values in seen(recording, robot).items():
            parts.setdefault(name, []).append(values)
    if robot is None:
        raise InputError("no recording was named")
    limits, found = Limits().of(robot), dict[str, dict[str, float]]()
    for name, several in parts.items():
        values, least = np.concatenate(several), name in LEAST
        limit = float(limits.start_of(robot).max()) if name == "target_start" else float(getattr(limits, name))
        found[name] = spread(values, limit, least)
    return found


def spread(values: Array, limit: float, least: bool) -> dict[str, float]:
    """`limit`, and of the values `median`, `p99` (towards the limit) and `worst`; `least` where they must stay above
    it."""
    return {
        "limit": limit,
        "median": float(np.median(values)),
        "p99": float(np.quantile(values, 0.01 if least else 0.99)),
        "worst": float(values.min() if least else values.max()),
    }


def table(what: str, found: Mapping[str, Mapping[str, float]], title: str | None = None) -> Table:
    """A row of `spread` for each name."""
    drawn = Table(what, "limit", "median", "99 %", "worst", title=title)
    for name, row in found.items():
        drawn.add_row(name, *(f"{row[key]:.3f}" for key in ("limit", "median", "p99", "worst")))
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        found = distribution(options.recordings)
    except InputError as error:
        print(f"limits: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found))
        return 0
    Console().print(table("parameter", found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
