"""How near the monitors of `robot.loop.plausibility` come to their limits in randomised course runs, and false alarms.

    python -m robot.bench.monitors --hours 10

Runs go through the whole onboard loop, all of them randomised with pushes: generalist and specialists of Barkour v0 and
of Unitree Go2, the three courses, Barkour's peak torques from 12 N m to its own, two runs of five with poses
that are wrong or late, another seed each. One line a run is appended to the file, with the peak of each monitor, so
that what was interrupted goes on and a limit can be judged without running anything again.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from robot.bench.limits import spread, table
from robot.loop import motion, plausibility
from robot.loop.refusals import Code
from robot.options import OnboardOptions
from robot.transports.simulation import onboard_in_simulation
from sim.errors import InputError

CODES = (*plausibility.CODES, *motion.CODES)
ROBOTS = (("generalist", None), ("specialists", None), ("specialists", "unitree_go2"), ("generalist", "unitree_go2"))
"""Policy, and robot where it is another."""
COURSES, TORQUES = ("official", "reversed", "rearranged"), (None, 14.0, 12.0)
POSES: tuple[dict[str, Any], ...] = (
    {}, {"pose_noise": 0.01, "pose_yaw_noise": 0.02, "pose_rate": 50.0}, {},
    {"pose_noise": 0.02, "pose_yaw_noise": 0.035, "pose_delay": 0.06, "pose_rate": 50.0, "pose_drift": 0.01}, {},
)  # fmt: skip
"""Errors of the pose."""
LEAST = (Code.POLICY_FROZEN,)
"""Peaks of these are the least that was seen, and must stay above the limit."""
PERIOD = 0.02


def options_of(index: int, seed: int) -> OnboardOptions:
    """The run with this index; equal ones are equal runs."""
    policy, robot = ROBOTS[index % len(ROBOTS)]
    torque, course = divmod(index // len(ROBOTS), len(COURSES))
    return OnboardOptions(
        policy, robot=robot, course=COURSES[course], seed=seed + index, randomize=True,
        torque_limit=None if robot else TORQUES[torque % len(TORQUES)], **POSES[index % len(POSES)],
    )  # fmt: skip


def one(index: int, seed: int) -> dict[str, Any]:
    """One run: `index`, `seed`, `seconds` of control, `score`, `alarms` (codes of monitors that spoke), `monitors`."""
    asked = options_of(index, seed)
    found = onboard_in_simulation(asked, lambda text: None).to_dict()
    controller = found["controller"]
    said = {code for code in CODES if any(code in key for key in (*controller["refusals"], controller["code"]))}
    return {
        "index": index, "seed": asked.seed, "robot": asked.robot, "policy": asked.bundle, "course": asked.course,
        "pose_errors": POSES[index % 5], "state": controller["state"], "code": str(controller["code"]),
        "seconds": PERIOD * found["loop"]["ticks"], "score": found["score"], "alarms": sorted(said),
        "monitors": controller["monitors"],
    }  # fmt: skip


def campaign(
    hours: float, out: Path, seed: int, run: Callable[[int, int], dict[str, Any]] = one
) -> list[dict[str, Any]]:
    """Runs until the file holds so many hours of control; returns all that it holds.

    Raises:
      InputError: the file holds something else, or runs of another seed.
    """
    found, console = _read(out, seed), Console(stderr=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    done = sum(row["seconds"] for row in found)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("control", total=3600 * hours, completed=done)
        while done < 3600 * hours:
            found.append(run(len(found), seed))
            with out.open("a") as file:
                file.write(json.dumps({"first_seed": seed, **found[-1]}) + "\n")
            done += found[-1]["seconds"]
            progress.update(task, completed=done)
    return found


def _read(out: Path, seed: int) -> list[dict[str, Any]]:
    """The whole lines of a file; what an interruption left of the last one is cut off."""
    if not out.exists():
        return []
    try:
        text = out.read_text()
        whole = text[: text.rfind("\n") + 1]
        rows = [json.loads(line) for line in whole.splitlines()]
        if any(row["first_seed"] != seed or row["index"] != k or row["seconds"] <= 0 for k, row in enumerate(rows)):
            raise InputError(f"{out} holds other runs than those of --seed {seed}")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{out} is no file of this command") from error
    if whole != text:
        out.write_text(whole)
    return rows


def distribution(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Code -> `limit`, and over runs the `median`, `p99` and `worst` of what each run's worst was."""
    found: dict[str, dict[str, float]] = {}
    for code in CODES:
        seen = [row["monitors"][code] for row in rows if code in row["monitors"]]
        if not seen:
            continue
        found[code] = spread(np.array([one["peak"] for one in seen]), seen[-1]["limit"], code in LEAST)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a monitor spoke, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=10.0, help="of control, over all runs in the file")
    parser.add_argument("--out", type=Path, default=Path("runs/monitors.jsonl"))
    parser.add_argument("--seed", type=int, default=1000, help="of the first run")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if not 0.0 < options.hours <= 1000.0 or not 0 <= options.seed < 2**31:
            raise InputError("--hours must be more than 0 and at most 1000, --seed from 0 to 2147483647")
        rows = campaign(options.hours, options.out, options.seed)
    except (InputError, OSError) as error:
        print(f"monitors: {error}", file=sys.stderr)
        return 2
    hours = sum(row["seconds"] for row in rows) / 3600
    alarms = [f"run {row['index']}: {', '.join(row['alarms'])}" for row in rows if row["alarms"]]
    found = distribution(rows)
    if options.json:
        print(json.dumps({"hours": hours, "runs": len(rows), "false_alarms": alarms, "monitors": found}))
        return 1 if alarms else 0
    console = Console()
    console.print(table("monitor", found, f"{hours:.2f} h in {len(rows)} runs"))
    console.print("\n".join(alarms) or "no false alarm")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
