"""The planner past the weave poles beside an independent optimiser: times of its plans, and its own.

    python -m benchmarks.planner

A plan's time is what the planner minimises: seconds from the start pose (or the obstacle before) to the obstacle behind
the poles, where those before the clock starts count a fifth (`policies.navigation.weaving.RUN_IN`). Planning is
processor time, as a ratio to a fixed workload of the same linear algebra.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median
from unittest.mock import patch

import numpy as np
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from policies.navigation import weaving
from policies.navigation.paces import Paces
from policies.navigation.planner import Trajectory, fastest
from policies.navigation.problem import Envelope, Problem
from policies.navigation.route import plan
from sim.course.description import SKILLS
from sim.course.files import by_name
from sim.errors import InputError
from sim.robots.description import default_robot

ENVELOPE = Envelope(forward=(-1.5, 2.2), sideways=1.4, yaw=2.8, acceleration=4.5, yaw_acceleration=8.0)
"""Of all problems here: faster than the shipped walkers, so that accelerations and gaps count beside speeds."""
BEST: dict[str, float] = {
    "official": 4.213,
    "reversed": 4.455,
    "generated:1000": 4.329,
    "generated:1002": 5.879,
    "generated:1004": 3.401,
    "generated:1005": 5.191,
    "generated:1008": 4.200,
}
"""s: the best of twelve starts (reversed: four) of IPOPT (CasADi 3.8.2): the same limits over poses and velocities at
eight knots a section, the body's outline as a superellipse of power six, which is a little less than the rectangle at
its corners."""


@dataclass(frozen=True, eq=False)
class Planned:
    """A course's poles: problem, plan, its seconds, and the processor time that it took (s)."""

    problem: Problem
    found: Trajectory
    seconds: float
    took: float


def poles_of(name: str, envelope: Envelope = ENVELOPE) -> Planned:
    """The plan past the first weave poles of the course `name`.

    Raises:
      InputError: there is no such course, or no poles on it.
    """
    seen: list[Planned] = []

    def recorded(problem: Problem, guesses: Sequence[np.ndarray]) -> Trajectory:
        began = time.process_time()
        found = fastest(problem, guesses)
        took = time.process_time() - began
        weights = np.ones(len(problem.gates) + 1)
        weights[: len(problem.section_weights)] = problem.section_weights
        seconds = float(weights @ np.diff(found.time[:: problem.knots]))
        if problem.gates:
            seen.append(Planned(problem, found, seconds, took))
        return found

    with patch.object(weaving, "fastest", recorded):
        plan(by_name(name), default_robot().footprint, SKILLS, replace(Paces(), walker=envelope, late=envelope))
    if not seen:
        raise InputError(f"course '{name}' has no weave poles")
    return seen[0]


@threadpool_limits.wrap(limits=1, user_api="blas")
def workload() -> float:
    """Processor time of a hundred linear systems of 300 unknowns, s."""
    matrix = np.random.default_rng(0).standard_normal((300, 300)) + 20 * np.eye(300)
    began = time.process_time()
    for _ in range(100):
        np.linalg.solve(matrix, matrix[0])
    return time.process_time() - began


def run(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """Course -> seconds, ratio to IPOPT's, violation (m, m/s or rad/s), strain, and planning in workloads and s."""
    rows = {}
    for name in names:
        unit, planned = workload(), poles_of(name)
        rows[name] = {
            "seconds": planned.seconds,
            "ratio": planned.seconds / BEST[name] if name in BEST else float("nan"),
            "violation": planned.found.violation,
            "strain": planned.found.strain,
            "workloads": planned.took / unit,
            "took": planned.took,
        }
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("courses", nargs="*", default=list(BEST))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        rows = run(options.courses)
    except InputError as error:
        print(f"planner: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(rows))
        return 0
    shown = Table("course", "plan, s", "of IPOPT's", "violation", "strain", "planning, workloads", "s")
    for name, r in rows.items():
        shown.add_row(
            name, f"{r['seconds']:.2f}", f"{r['ratio']:.3f}", f"{r['violation']:.4f}", f"{r['strain']:.2f}",
            f"{r['workloads']:.1f}", f"{r['took']:.2f}",
        )  # fmt: skip
    Console().print(shown)
    print(f"mean ratio {fmean(r['ratio'] for r in rows.values()):.3f}, ", end="")
    print(f"planning: median {median(r['took'] for r in rows.values()):.2f} s of processor time")
    return 0


if __name__ == "__main__":
    sys.exit(main())
