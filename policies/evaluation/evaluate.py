"""Many runs of a course in parallel worlds: the distribution of scores, and what failed."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from policies.evaluation.comparison import compare, confidence95
from policies.evaluation.course_run import CourseWorlds, write_text
from policies.evaluation.options import EvaluateOptions
from policies.evaluation.outcome import CourseRun
from policies.evaluation.results import FORMAT, Evaluation
from policies.skills.library import Skills, load_skills
from sim.course.description import Course
from sim.course.files import by_name, several
from sim.course.score import MAX_TIME
from sim.envs.variation import Variation
from sim.envs.worlds import world_seeds
from sim.errors import InputError
from sim.folders import alone, writable
from sim.localization import OWN_ODOMETRY, PoseErrors
from sim.results import Result, plain
from sim.robots.description import Robot
from sim.tasks.events import PUSH_EVERY
from sim.tasks.randomization import Ranges, SensorNoise, nominal

MOST_WORLDS = 128
"""Worlds simulated at once; more runs go in turns."""
REPORT = ("report.json", "report.md", "failures.md", "report.html", "scores.png", "speed.png", "paths.png")
"""What `--report` writes into its folder."""


def answer(options: EvaluateOptions) -> Result:
    """What `barkour evaluate` prints: a distribution, or the table of `sim2sim`."""
    if options.sim2sim:
        from policies.evaluation.sim2sim import sim2sim

        return sim2sim(options)
    return evaluate(options)


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Runs a course `runs` times and returns what `barkour evaluate` prints.

    World i has its own seed, derived from `seed` and i alone and listed in `worlds` with its course:
    `barkour run --seed THAT [--randomize]` repeats it exactly. `course` may be a range, `generated:A-B`: world i then
    runs course A + i mod (B - A + 1), and rates and means are over all of them. `against` runs a second policy over
    the same worlds: its evaluation stands in `against`, what the first has over it in `comparison`. With `report` the
    folder gets `report.html` (one page that needs nothing else), `report.json` (`evaluation.schema.json` describes it),
    `report.md` (times and rates beside the paper's and the dogs'), `failures.md`, `scores.png`, `paths.png` (of the
    first course's runs) and `speed.png`. `torque_limit` (N m) replaces the robot's own.

    Raises:
      InputError: unknown policy or course, fewer runs than courses, or a folder that cannot be written.
    """
    with alone(options.report, "measures"):
        return _evaluate(options)


def _evaluate(options: EvaluateOptions) -> Evaluation:
    names = several(options.course)
    if len(names) > options.runs:
        raise InputError(f"{options.course} is {len(names)} courses: --runs must be {len(names)} at least")
    folder = None if options.report is None else _prepared(options.report)
    seeds = world_seeds(options.seed, options.runs)
    courses = [by_name(name) for name in names]
    asked = (options.policy, *([options.against] if options.against else []))
    policies = {name: load_skills(name, options.robot) for name in asked}
    found: dict[str, tuple[list[CourseRun], dict[str, Any]]] = {}
    with Progress(
        TextColumn("evaluate"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} runs{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("", total=options.runs * len(policies))
        for name, skills in policies.items():
            before = len(found) * options.runs

            def show(done: int, seconds: float, before: int = before) -> None:
                bar.update(task, completed=before + done, description=f", {seconds:.0f} s simulated")

            runs = _all_runs(skills, courses, seeds, options, show)
            found[name] = runs, _result(name, skills, runs, options)
    runs, result = found[options.policy]
    if options.against:
        result["against"] = found[options.against][1]
        result["comparison"] = compare(result, result["against"])
    if folder is not None:
        other = found[options.against] if options.against else None
        _write(folder, courses, runs, result, other)
        result["report"] = str(folder)
    return Evaluation.of(result)


def _all_runs(
    skills: Skills,
    courses: Sequence[Course],
    seeds: np.ndarray,
    options: EvaluateOptions,
    progress: Callable[[int, float], None],
) -> list[CourseRun]:
    """The runs of one policy, in the order of `seeds`; `progress(runs that have ended, simulated seconds)`."""
    by_world: dict[int, CourseRun] = {}
    runs, count = len(seeds), len(courses)
    parts = [(k, first) for k in range(count) for first in range(k, runs, count * MOST_WORLDS)]
    for k, first in parts:
        here = range(first, runs, count)[:MOST_WORLDS]
        worlds = CourseWorlds(
            courses[k], skills, [seeds[i] for i in here], randomize=options.randomize,
            torque_limit=options.torque_limit, pose_errors=PoseErrors.of(options), own_odometry=options.own_odometry,
            variation=Variation(options.engine),
        )  # fmt: skip
        ahead = len(by_world) + len(here)
        by_world |= dict(zip(here, worlds.run(lambda s, going, ahead=ahead: progress(ahead - going, s)), strict=True))
        progress(len(by_world), worlds.time)
    return [by_world[i] for i in range(runs)]


def _result(policy: str, skills: Skills, runs: Sequence[CourseRun], options: EvaluateOptions) -> dict[str, Any]:
    return {
        "format": FORMAT,
        **summarize(runs),
        "policy": policy,
        "robot": options.robot or skills.robot.name,
        "course": options.course,
        "seed": options.seed,
        "skills": skills.describe(),
        "conditions": conditions(skills.robot, options.randomize, PoseErrors.of(options), Variation(options.engine))
        | {"torque_limit_nm": options.torque_limit or skills.robot.peak_torque}
        | ({"navigator_pose": OWN_ODOMETRY} if options.own_odometry else {}),
    }


def summarize(runs: Sequence[CourseRun]) -> dict[str, Any]:
    """Rates and means over runs, JSON-ready; times are None where no run supplies one."""
    scores = np.array([run.result.score for run in runs])
    names, times = list(runs[0].result.obstacles), [run.obstacle_s for run in runs]
    weave = [name for name in ("start table", "weave poles") if name in names]
    success = {name: float(np.mean([run.result.obstacles[name].completed for run in runs])) for name in names}
    return {
        "runs": len(runs),
        "score_mean": float(scores.mean()),
        "score_ci95": confidence95(scores),
        "score_best": float(scores.max()),
        "score_worst": float(scores.min()),
        "finished_rate": float(np.mean([run.result.finished for run in runs])),
        "fell_rate": float(np.mean([run.fell for run in runs])),
        "touched_rate": float(np.mean([run.result.touched_jump for run in runs])),
        "time_s_median": _median([run.result.time_s for run in runs if run.result.finished]),
        "obstacle_s_median": {name: _median([t[name] for t in times if name in t]) for name in names},
        "all_obstacles_rate": float(np.mean([run.all_obstacles for run in runs])),
        "time_s_best": min((run.result.time_s for run in runs if run.result.finished), default=None),
        "switches": switches(runs),
        "weave_s_median": _median([run.weave_s for run in runs if run.weave_s is not None]),
        "weave_runs": sum(run.weave_s is not None for run in runs),
        "per_obstacle_success": success,
        "start_and_weave_rate": float(np.mean([all(run.result.obstacles[n].completed for n in weave) for run in runs])),
        "ends": dict(Counter(run.end for run in runs).most_common()),
        "worlds": [
            {
                "seed": run.seed,
                "course": run.course,
                "score": run.result.score,
                "time_s": run.result.time_s,
                "finished": run.result.finished,
                "end": run.end,
                "weave_s": run.weave_s,
                "obstacle_s": run.obstacle_s,
                "touched_jump": run.result.touched_jump,
                "gates": {name: o.gates_passed for name, o in run.result.obstacles.items()},
                "torque_peak_nm": max(run.torque_peak),
                "target_jump_rad": run.target_jump,
            }
            for run in runs
        ],
    }


def switches(runs: Sequence[CourseRun]) -> dict[str, dict[str, float]]:
    """Per change of skill ("walk to climb"): how often, and the joint-target jump in that step, rad."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        for switch in run.switches:
            found.setdefault(f"{switch.before} to {switch.after}", []).append((switch.jump, switch.unblended))
    out = {}
    for name, rows in sorted(found.items()):
        jump, unblended = np.array(rows).T
        out[name] = {
            "count": len(rows), "jump_rad_median": float(np.median(jump)), "jump_rad_peak": float(jump.max()),
            "unblended_rad_median": float(np.median(unblended)), "unblended_rad_peak": float(unblended.max()),
        }  # fmt: skip
    return out


def _median(values: Sequence[float | None]) -> float | None:
    return float(np.median(np.array(values, float))) if values else None


def conditions(
    robot: Robot, randomize: bool, pose_errors: PoseErrors = PoseErrors(), variation: Variation = Variation()
) -> dict[str, Any]:
    """What the runs were measured under, JSON-ready."""
    ranges = Ranges().of(robot) if randomize else nominal(robot)
    noise = SensorNoise()
    return {
        "physics": variation.words,
        "timestep_s": variation.timestep,
        "control_hz": round(1 / robot.control_period),
        "time_limit_s": MAX_TIME,
        "randomized": randomize,
        "push_every_s": PUSH_EVERY,
        "navigator_pose": pose_errors.words(),
        "pose_errors": asdict(pose_errors),
        "ranges": {f.name: list(getattr(ranges, f.name)) for f in fields(ranges)},
        "sensor_noise": {f.name: getattr(noise, f.name) for f in fields(noise)},
    }


def _prepared(folder: Path) -> Path:
    """A folder for a report. Raises `InputError` where one of its files could not be written after all runs."""
    for name in REPORT:
        if (folder / name).is_dir():
            raise InputError(f"cannot write {folder / name}: it is a folder")
    return writable(folder)


def _write(
    folder: Path,
    courses: Sequence[Course],
    runs: Sequence[CourseRun],
    result: dict[str, Any],
    other: tuple[list[CourseRun], dict[str, Any]] | None,
) -> None:
    from policies.evaluation import html_report, plots, report

    full = plain({**result, "drawn": {str(run.seed): run.world for run in runs}})
    write_text(folder / "report.json", json.dumps(full, indent=2, allow_nan=False) + "\n")
    write_text(folder / "report.md", report.report_table(result))
    write_text(folder / "failures.md", report.failure_table(runs, result))
    first = html_report.Evaluated(result, runs)
    second = html_report.Evaluated(other[1], other[0]) if other else None
    page = html_report.html_report({c.name: c for c in courses}, first, second, result.get("comparison"))
    write_text(folder / "report.html", page)
    title = f"{result['policy']}, {len(runs)} runs{', randomised' if result['conditions']['randomized'] else ''}"
    plots.score_histogram([run.result.score for run in runs], folder / "scores.png", title)
    plots.speed_profile(runs, folder / "speed.png", title=title)
    here = [run for run in runs if run.course == courses[0].name]
    plots.path_over_course(courses[0], here, folder / "paths.png", title=title)
