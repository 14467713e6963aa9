"""What each part of a run is worth: the same worlds again with that part taken away.

    python -m benchmarks.parts --policy generalist --runs 100 --seed 4242 --out runs/parts

Every arm runs every world (same physics, same start, same noise), so a difference has far less noise than either score.
Arms that are done are kept in `summary.json`; called again, it goes on.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from rich.console import Console
from rich.table import Table

from distill.core.checkpoints import write_json
from distill.core.errors import DistillError
from distill.core.reading import read_json
from policies.evaluation.comparison import confidence95
from policies.evaluation.course_run import CourseWorlds
from policies.navigation import weaving
from policies.navigation.navigator import Navigator, course_navigator
from policies.navigation.paces import Paces
from policies.navigation.rehearsal import rehearse
from policies.navigation.route import plan
from policies.navigation.route_cache import planned
from policies.skills.library import Skills, load_skills, paces_of, response_of, trained_limits
from sim.course.description import Course, official
from sim.envs.worlds import world_seeds
from sim.errors import InputError

SHIPPED = "all parts"
TOGETHER = 50
"""Worlds that run side by side."""
KEPT = ("score", "time_s", "finished", "all_obstacles", "end")


@dataclass(frozen=True)
class Arm:
    """A run without one of its parts."""

    without: str
    paces: Callable[[Paces], Paces] = lambda paces: paces
    route: Callable[[Course, Skills, Paces], Course] = lambda course, skills, paces: course
    """The course, with a route of its own where ways are to be others than the planned ones."""
    tuning: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of the navigator, what is other."""
    rehearsed: bool = True


def _squarely(course: Course, skills: Skills, paces: Paces) -> Course:
    with mock.patch.object(weaving, "weave", _nothing), mock.patch.object(weaving, "turn", _nothing):
        return replace(course, route=plan(course, skills.robot.footprint, skills.able, paces))


def _nothing(*asked: Any) -> list[Any]:
    """What these two find where they find nothing."""
    return []


ARMS = {
    SHIPPED: Arm("nothing"),
    "planner": Arm("the planner: poles are passed squarely, corners are not rounded", route=_squarely),
    "paces": Arm("paces of the policy's own: those of the first walker", paces=lambda paces: Paces()),
    "rehearsal": Arm("the rehearsal in a modelled robot: no error is made up for beforehand", rehearsed=False),
    "made up": Arm("asking beforehand for the speed that is lacking", paces=lambda paces: replace(paces, made_up=0.0)),
    "read ahead": Arm("reading the path ahead", tuning={"reaction": 0.0, "turn_reaction": 0.0}),
    "feedback": Arm("feedback on place and heading", tuning={"cross_track": 0.0, "heading": 0.0}),
    "freeing": Arm("freeing a robot that is held", tuning={"held_seconds": np.inf, "stuck_seconds": np.inf}),
}


def runs_of(arm: Arm, skills: Skills, seeds: Sequence[int], randomize: bool, threads: int) -> list[dict[str, Any]]:
    """What is kept of an arm's runs, world by world."""
    paces = arm.paces(paces_of(skills))
    course = arm.route(official(), skills, paces)
    navigator = _navigator(arm, course, skills, paces)
    rows = list[dict[str, Any]]()
    for first in range(0, len(seeds), TOGETHER):
        worlds = CourseWorlds(
            course, skills, seeds[first : first + TOGETHER], randomize=randomize, paces=paces, threads=threads
        )
        worlds.navigators = [navigator.copy() for _ in worlds.navigators]
        for run in worlds.run():
            whole = {**run.to_dict(), "all_obstacles": run.all_obstacles}
            rows.append({name: whole[name] for name in KEPT})
    return rows


def _navigator(arm: Arm, course: Course, skills: Skills, paces: Paces) -> Navigator:
    route = planned(course, skills.robot.footprint, skills.able, paces)
    found = course_navigator(course, route, trained_limits(skills, paces.limits))
    found.tuning = replace(found.tuning, **arm.tuning)
    if arm.rehearsed:
        rehearse(found, response_of(skills), made_up=paces.made_up)
    return found


def figures(rows: Sequence[Mapping[str, Any]], whole: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of an arm's runs, and what the part is worth: score of `whole` less the arm's, and seconds of the arm less those
    of `whole` in the worlds that both finish, with 95 % intervals over worlds (None where fewer than two finish)."""
    finished = [row["time_s"] for row in rows if row["finished"]]
    worth = np.array([a["score"] - b["score"] for a, b in zip(whole, rows, strict=True)])
    saved = np.array(
        [b["time_s"] - a["time_s"] for a, b in zip(whole, rows, strict=True) if a["finished"] and b["finished"]]
    )
    return {
        "score": float(np.mean([row["score"] for row in rows])),
        "all_obstacles_rate": float(np.mean([row["all_obstacles"] for row in rows])),
        "finished_rate": float(np.mean([row["finished"] for row in rows])),
        "time_s_median": float(np.median(finished)) if finished else None,
        "worth_score": [float(worth.mean()), *confidence95(worth)],
        "worth_seconds": [float(saved.mean()), *confidence95(saved)] if len(saved) > 1 else None,
    }


def compare(
    policy: str, runs: int, seed: int, randomize: bool, out: Path, threads: int, console: Console
) -> dict[str, Any]:
    """`figures` of every arm; those whose runs are missing in `out` are computed now, and their runs kept there.

    Raises:
      InputError: an unknown policy, or a folder that holds another comparison.
      DistillError: what is kept there cannot be read.
    """
    skills, file = load_skills(policy), out / "summary.json"
    about = {"policy": policy, "runs": runs, "seed": seed, "randomized": randomize}
    found: dict[str, Any] = {**about, "arms": {}}
    if file.is_file():
        found = read_json(file)
        if {name: found.get(name) for name in about} != about:
            raise InputError(f"{file} holds another comparison: {found}"[:200])
    seeds = [int(one) for one in world_seeds(seed, runs)]
    for name, arm in ARMS.items():
        if name in found["arms"]:
            continue
        console.print(f"{name}: without {arm.without}", highlight=False)
        found["arms"][name] = {"without": arm.without, "runs": runs_of(arm, skills, seeds, randomize, threads)}
        write_json(file, found)
    whole = found["arms"][SHIPPED]["runs"]
    return {**about, "arms": {name: figures(one["runs"], whole) for name, one in found["arms"].items()}}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="generalist")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--nominal", action="store_true", help="without randomisation")
    parser.add_argument("--out", type=Path, default=Path("runs/parts"))
    parser.add_argument("--threads", type=int, default=0, help="0 takes every core")
    asked = parser.parse_args(arguments)
    if asked.runs < 2 or asked.seed < 0 or asked.threads < 0:
        parser.error("--runs must be at least 2, --seed and --threads at least 0")
    console = Console(stderr=True)
    try:
        asked.out.mkdir(parents=True, exist_ok=True)
        found = compare(asked.policy, asked.runs, asked.seed, not asked.nominal, asked.out, asked.threads, console)
    except (InputError, DistillError, OSError) as error:
        print(f"parts: {error}", file=sys.stderr)
        return 2
    shown = Table("without", "all five", "score", "median time", "worth: score", "worth: s")
    for name, one in found["arms"].items():
        time, saved = one["time_s_median"], one["worth_seconds"]
        shown.add_row(
            name, f"{100 * one['all_obstacles_rate']:.0f} %", f"{one['score']:.3f}",
            "-" if time is None else f"{time:.2f} s",
            _interval(one["worth_score"], 3), "-" if saved is None else _interval(saved, 2),
        )  # fmt: skip
    console.print(shown)
    print(json.dumps(found))
    return 0


def _interval(values: Sequence[float], digits: int) -> str:
    mean, low, high = (f"{value:.{digits}f}" for value in values)
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    sys.exit(main())
