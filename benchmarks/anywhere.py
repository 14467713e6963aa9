"""Where a policy falls on a course, whatever phase its gait comes in: runs that begin anywhere on the way.

    python -m benchmarks.anywhere --policy generalist --robots 400 --seed 3 --nominal

Robots that begin a course at its start come to an obstacle at nearly the same phase of their gait; without
randomisation always at the same one, which says little of any other. Here each begins, at rest, at a place on the way
drawn for it, and goes on for `SECONDS`. The JSON beside the table (`--out`) names the places where robots fell.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.evaluation.comparison import share95
from policies.evaluation.course_run import CourseWorlds, write_text
from policies.skills.library import Skills, load_skills
from sim.course.description import Course
from sim.course.files import by_name
from sim.envs.worlds import world_seeds
from sim.errors import InputError

SECONDS = 5.0
"""s that each goes on: past two obstacles."""
TOGETHER = 100
"""Robots that run side by side."""


def measure(
    skills: Skills, course: Course, robots: int, seed: int, randomize: bool, torque_limit: float | None, threads: int,
    along: float | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How many fell, and where: JSON-ready. All begin `along` m on the way where that is given.

    `fell` of `robots`, its share's 95 % interval (Wilson), `where`: obstacle -> falls, `places`: x and y (m) of each
    with where on the way it had begun (m), and `way_m`, the median of what robots made of the way.
    """
    seeds, places, made = world_seeds(seed, robots), list[dict[str, float | str]](), list[float]()
    for first in range(0, robots, TOGETHER):
        some = seeds[first : first + TOGETHER]
        worlds = CourseWorlds(
            course, skills, some, randomize=randomize, time_limit=SECONDS, torque_limit=torque_limit, threads=threads
        )
        begun = np.random.default_rng([0xA2, seed, first]).choice(worlds.navigators[0].starts(), len(some))
        begun = begun if along is None else np.full(len(some), along)
        worlds.begin_along(begun)
        while worlds.step():
            pass
        for navigator, run, start in zip(worlds.navigators, worlds.results(), begun.tolist(), strict=True):
            made.append(navigator.s - start)
            if run.end == "fell":
                x, y, _ = run.trace.pose[-1]
                places.append({"x": x, "y": y, "begun": start, "obstacle": _nearest(course, x, y)})
    where = {obstacle.name: 0 for obstacle in course.obstacles}
    for place in places:
        where[str(place["obstacle"])] += 1
    return {
        "robots": robots, "fell": len(places), "interval95": share95(len(places), robots),
        "where": where, "way_m": float(np.median(made)), "places": places,
    }  # fmt: skip


def _nearest(course: Course, x: float, y: float) -> str:
    """The obstacle with the gate that is nearest to a place."""
    far = [min(np.hypot(*(gate.center - (x, y))) for gate in obstacle.gates) for obstacle in course.obstacles]
    return course.obstacles[int(np.argmin(far))].name


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.anywhere", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("--policy", default="generalist")
    parser.add_argument("--robot", default=None)
    parser.add_argument("--course", default="official")
    parser.add_argument("--robots", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nominal", action="store_true", help="without randomisation")
    parser.add_argument("--torque-limit", type=float, default=None)
    parser.add_argument("--along", type=float, default=None, help="all begin so many m along the way")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None, help="JSON file")
    o = parser.parse_args(words)
    try:
        if o.robots < 1:
            raise InputError(f"--robots must be at least 1, got {o.robots}")
        if o.along is not None and not 0 <= o.along < np.inf:
            raise InputError(f"--along must be a distance in m, got {o.along}")
        skills, course = load_skills(o.policy, o.robot), by_name(o.course)
        found = measure(skills, course, o.robots, o.seed, not o.nominal, o.torque_limit, o.threads, o.along)
        if o.out is not None:
            asked = {"policy": o.policy, "course": o.course, "seed": o.seed, "randomized": not o.nominal}
            write_text(o.out, json.dumps({**asked, "torque_limit_nm": o.torque_limit, **found}, indent=2) + "\n")
    except InputError as error:
        print(f"anywhere: {error}", file=sys.stderr)
        return 2
    table = Table("fell at", "robots")
    for name, count in found["where"].items():
        table.add_row(name, str(count))
    share, (low, high) = found["fell"] / found["robots"], found["interval95"]
    table.add_row("in all", f"{found['fell']} of {found['robots']}: {share:.1%} [{low:.1%}, {high:.1%}]")
    Console().print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
