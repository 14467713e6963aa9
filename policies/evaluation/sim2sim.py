"""Does a policy work because of its simulator? The same runs in other engines and other physics, in one table.

A policy is judged in an engine that shares no code with the one it learned in, and in both with other solvers, ground,
latency and motors. No row is trained for. Rows are kept as they are measured, so an interrupted table goes on.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.evaluate import MOST_WORLDS, summarize
from policies.evaluation.options import EvaluateOptions
from policies.evaluation.outcome import CourseRun
from policies.evaluation.walking import WalkEval, tracking
from policies.skills.library import Skills, load_skills
from sim.course.description import Course
from sim.course.files import by_name, dumps, several
from sim.envs.variation import Variation
from sim.envs.worlds import world_seeds
from sim.errors import InputError
from sim.folders import alone, replacing
from sim.localization import PoseErrors
from sim.reading import LARGEST_OWN, number, read_json, read_text
from sim.results import Result, cell, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

FORMAT = "barkour-sim2sim/1"
FILE = "sim2sim.json"
WALK_SECONDS = 20.0
"""Length of a walking episode."""
ENGINE = {"cpu": "mujoco", "drake": "drake", "mjx": "mjx"}
"""What an engine is called in the table."""


@dataclass(frozen=True, kw_only=True)
class Sim2Sim(Result):
    """One policy in several engines and physics."""

    policy: str
    robot: str
    course: str
    runs: int
    seed: int
    randomized: bool
    course_sha256: str
    """Of all that is in the course: a file may be changed under its name."""
    bundles: list[str | None]
    """Checksums of the policy's files."""
    rows: list[dict[str, Any]]
    """One a variation, MuJoCo as runs are judged in first; see `measure`."""
    pose_errors: dict[str, float]
    torque_limit_nm: float | None = None
    format: str = FORMAT

    def show(self, console: Console) -> None:
        """The rows as a table."""
        from rich.table import Table

        title = (
            f"{self.policy}, {self.robot}: {self.runs} runs of {self.course}, {self.runs} walks of {WALK_SECONDS:g} s"
        )
        table = Table(title=cell(title))
        for name in ("engine", "change", "score", "all", "falls", "time s", "walk: error m/s", "falls"):
            table.add_column(name)
        for row in self.rows:
            table.add_row(
                row["engine"], cell(row["change"]), f"{row['score_mean']:.3f}", str(row["all_obstacles"]),
                str(row["fell"]), _number(row["time_s_median"], 1), _number(row["velocity_error"], 3),
                str(row["walk_falls"]),
            )  # fmt: skip
        console.print(table)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def variations(engines: "Sequence[str]") -> Iterator[tuple[str, Variation]]:
    """What is measured: a change in words, and the physics with it."""
    for engine in engines:
        yield "none", Variation(engine)  # type: ignore[arg-type]
    for engine in engines:
        if engine != "drake":  # whose friction has no cone of its own
            yield "pyramidal cone", Variation(engine, cone="pyramidal")  # type: ignore[arg-type]
        changes: list[tuple[str, dict[str, float]]] = [
            ("1 ms steps", {"timestep": 0.001}),
            *((f"contacts {k:g} times as stiff", {"stiffness": k}) for k in (0.5, 2.0)),
            *((f"friction {mu:g}", {"friction": mu}) for mu in (0.4, 0.6, 0.8, 1.0, 1.2)),
            *((f"{1000 * s:g} ms more latency", {"latency": s}) for s in (0.01, 0.02, 0.04)),
            ("0.8 of the torque", {"torque": 0.8}),
        ]
        for words, change in changes:
            yield words, Variation(engine, **change)  # type: ignore[arg-type]


def sim2sim(options: EvaluateOptions) -> Sim2Sim:
    """Measures every row of `variations` and returns what `barkour evaluate --sim2sim` prints.

    MuJoCo and Drake are always there, MJX where it is the `engine`. With `report` the rows stand in `sim2sim.json` of
    that folder as they come; called again with the same options, those that are there are not measured anew, and those
    of an engine that is not asked for now stay.

    Raises:
      InputError: unknown policy or course, a folder that cannot be written, or rows in it of other options.
    """
    skills = load_skills(options.policy, options.robot)
    course = by_name(several(options.course)[0])
    if len(several(options.course)) > 1:
        raise InputError("--sim2sim takes one course")
    engines = ["cpu", "drake", *(["mjx"] if options.engine == "mjx" else [])]
    asked = {
        "format": FORMAT,
        "policy": options.policy,
        "robot": skills.robot.name,
        "course": options.course,
        "course_sha256": hashlib.sha256(dumps(course).encode()).hexdigest(),
        "runs": options.runs,
        "seed": options.seed,
        "randomized": options.randomize,
        "torque_limit_nm": options.torque_limit,
        "pose_errors": asdict(PoseErrors.of(options)),
        "bundles": [bundle.checksum for bundle in skills.bundles],
    }
    console = Console(stderr=True)
    with alone(options.report, "measures") if options.report is not None else nullcontext():
        file = options.report / FILE if options.report is not None else None
        kept = _kept(file, asked) if file is not None and os.path.lexists(file) else []
        done = {(row["engine"], row["change"]): row for row in kept}
        every = {(ENGINE[variation.engine], change): variation for change, variation in variations(engines)}
        for number, (key, variation) in enumerate(every.items()):
            if key not in done:
                console.print(f"{number + 1} of {len(every)}: {key[0]}, {key[1]}", highlight=False)
                found = measure(skills, course, variation, options)
                done[key] = {"engine": key[0], "change": key[1], **found}
                if file is not None:  # with every row that is there, also those that come after it
                    order = [*(each for each in every if each in done), *(each for each in done if each not in every)]
                    _keep(file, plain({**asked, "rows": [done[each] for each in order]}))
    return Sim2Sim.of({**asked, "rows": [done[key] for key in every]})


def measure(skills: Skills, course: Course, variation: Variation, options: EvaluateOptions) -> dict[str, Any]:
    """One row: course runs and walks on the flat, JSON-ready.

    `velocity_error` is the mean length of the difference between commanded and true planar velocity, m/s, as
    `policies.evaluation.walking.tracking` takes it of random commands, with the walker's own command ranges.
    """
    seeds = world_seeds(options.seed, options.runs)
    runs: list[CourseRun] = []
    for first in range(0, len(seeds), MOST_WORLDS):
        worlds = CourseWorlds(
            course, skills, seeds[first : first + MOST_WORLDS], randomize=options.randomize,
            torque_limit=options.torque_limit, pose_errors=PoseErrors.of(options), variation=variation,
        )  # fmt: skip
        runs += worlds.run()
    found = summarize(runs)
    walk = _walk(skills, variation, options)
    return plain(
        {
            "variation": {field.name: getattr(variation, field.name) for field in fields(variation)},
            "score_mean": found["score_mean"],
            "score_ci95": found["score_ci95"],
            "all_obstacles": sum(run.all_obstacles for run in runs),
            "finished": sum(run.result.finished for run in runs),
            "fell": sum(run.fell for run in runs),
            "time_s_median": found["time_s_median"],
            "per_obstacle_success": found["per_obstacle_success"],
            "worlds": [{"seed": run.seed, "score": run.result.score, "end": run.end} for run in runs],
            "velocity_error": walk["velocity_error"],
            "velocity_error_smoothed": walk["velocity_error_smoothed"],
            "yaw_error": walk["yaw_error"],
            "walk_falls": walk["falls"],
        }
    )


def _walk(skills: Skills, variation: Variation, options: EvaluateOptions) -> dict[str, Any]:
    """The walker's tracking of random commands on the flat."""
    bundle = skills.bundles[skills.uses["walk"]]
    walks = WalkEval(
        bundle.path, episodes=options.runs, seconds=WALK_SECONDS, nominal=not options.randomize, seed=options.seed
    )
    return tracking(bundle, walks, np.array([walks.forward, walks.sideways, walks.yaw]), variation=variation)


def _kept(file: Path, asked: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows that an earlier call left there."""
    try:
        found = read_json(read_text(file, LARGEST_OWN))
        rows = found["rows"]
        different = [name for name, value in plain(asked).items() if json.dumps(found.get(name)) != json.dumps(value)]
        for row in rows:
            _check(row)
        if len({(row["engine"], row["change"]) for row in rows}) < len(rows):
            raise ValueError("a row stands twice")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} is no table of this command: {type(error).__name__}") from error
    if different:
        raise InputError(f"{file} was measured with other {', '.join(different)}: choose another folder")
    return rows


def _check(row: dict[str, Any]) -> None:
    """Raises `TypeError` or `KeyError` where a row has not what is shown of it."""
    for name in ("score_mean", "all_obstacles", "fell", "walk_falls"):
        number(row[name])
    for name in ("time_s_median", "velocity_error"):
        if row[name] is not None:
            number(row[name])
    for name in ("engine", "change"):
        if not isinstance(row[name], str):
            raise TypeError(f"{name} is no text")


def _keep(file: Path, table: dict[str, Any]) -> None:
    """Writes the table; whoever reads finds the old one or the new one."""
    try:
        with replacing(file) as part:
            part.write_text(json.dumps(table, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {file}: {error.strerror}") from error
