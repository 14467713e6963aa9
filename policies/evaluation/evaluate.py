"""Many runs of a course in parallel worlds: the distribution of scores, and what failed."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from policies.evaluation.course_run import CourseWorlds, writable, write_text
from policies.evaluation.options import EvaluateOptions
from policies.evaluation.outcome import CourseRun
from policies.evaluation.results import Evaluation
from policies.skills.library import load_skills
from sim.course.description import Course
from sim.course.files import by_name, several
from sim.course.scene import EVALUATION
from sim.course.score import MAX_TIME
from sim.envs.worlds import world_seeds
from sim.robots.description import Robot
from sim.tasks.events import PUSH_EVERY
from sim.tasks.randomization import Ranges, SensorNoise, nominal

MOST_WORLDS = 128
"""Worlds simulated at once; more runs go in turns."""
Z95 = 1.96


def evaluate(options: EvaluateOptions) -> Evaluation:
    """Runs a course `runs` times and returns what `barkour evaluate` prints.

    World i has its own seed, derived from `seed` and i alone and listed in `worlds` with its course:
    `barkour run --seed THAT [--randomize]` repeats it exactly. `course` may be a range, `generated:A-B`: world i then
    runs course A + i mod (B - A + 1), and rates and means are over all of them. With `report` the folder gets
    `report.json`, `report.md` (times and rates beside the paper's and the dogs'), `failures.md`, `scores.png`,
    `paths.png` (of the first course's runs) and `speed.png`. `torque_limit` (N m) replaces the robot's own.

    Raises:
      InputError: unknown policy or course, or a folder that cannot be written.
    """
    runs, randomize, torque_limit = options.runs, options.randomize, options.torque_limit
    seeds = world_seeds(options.seed, runs)
    folder = writable(options.report) if options.report is not None else None
    names = several(options.course)[:runs]
    courses = [by_name(name) for name in names]
    skills = load_skills(options.policy)
    by_world: dict[int, CourseRun] = {}
    with Progress(
        TextColumn("evaluate"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} runs{task.description}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    ) as bar:
        task = bar.add_task("", total=runs)
        parts = [(k, first) for k in range(len(names)) for first in range(k, runs, len(names) * MOST_WORLDS)]
        for k, first in parts:
            here = range(first, runs, len(names))[:MOST_WORLDS]
            worlds = CourseWorlds(
                courses[k], skills, [seeds[i] for i in here], randomize=randomize, torque_limit=torque_limit
            )
            ahead = len(by_world)

            def show(seconds: float, going: int, count: int = worlds.robots.worlds, ahead: int = ahead) -> None:
                bar.update(task, completed=ahead + count - going, description=f", {seconds:.0f} s simulated")

            by_world |= dict(zip(here, worlds.run(show), strict=True))
            bar.update(task, completed=len(by_world))
    done = [by_world[i] for i in range(runs)]
    result = summarize(done)
    result["policy"], result["course"], result["seed"] = options.policy, options.course, options.seed
    result["skills"] = skills.describe()
    result["conditions"] = conditions(skills.robot, randomize) | {
        "torque_limit_nm": torque_limit or skills.robot.peak_torque
    }
    if folder is not None:
        _write(folder, courses[0], done, result)
        result["report"] = str(folder)
    return Evaluation.of(result)


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
        "all_obstacles_rate": float(np.mean([all(o.completed for o in run.result.obstacles.values()) for run in runs])),
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


def confidence95(values: np.ndarray) -> list[float]:
    """Normal 95 % confidence interval of the mean, [low, high]; a single value has none wider than itself."""
    half = Z95 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return [float(values.mean()) - half, float(values.mean()) + half]


def _median(values: Sequence[float | None]) -> float | None:
    return float(np.median(np.array(values, float))) if values else None


def conditions(robot: Robot, randomize: bool) -> dict[str, Any]:
    """What the runs were measured under, JSON-ready."""
    ranges = Ranges().of(robot) if randomize else nominal(robot)
    noise = SensorNoise()
    return {
        "physics": "MuJoCo C engine, full-body collision",
        "timestep_s": EVALUATION.timestep,
        "control_hz": round(1 / robot.control_period),
        "time_limit_s": MAX_TIME,
        "randomized": randomize,
        "push_every_s": PUSH_EVERY,
        "navigator_pose": "true pose",
        "ranges": {f.name: list(getattr(ranges, f.name)) for f in fields(ranges)},
        "sensor_noise": {f.name: getattr(noise, f.name) for f in fields(noise)},
    }


def _write(folder: Path, course: Course, runs: Sequence[CourseRun], result: dict[str, Any]) -> None:
    from policies.evaluation import plots, report

    full = {**result, "drawn": {str(run.seed): run.world for run in runs}}
    write_text(folder / "report.json", json.dumps(full, indent=2) + "\n")
    write_text(folder / "report.md", report.report_table(result))
    write_text(folder / "failures.md", report.failure_table(runs, result))
    title = f"{result['policy']}, {len(runs)} runs{', randomised' if result['conditions']['randomized'] else ''}"
    plots.score_histogram([run.result.score for run in runs], folder / "scores.png", title)
    plots.speed_profile(runs, folder / "speed.png", title=title)
    here = [run for run in runs if run.course == course.name]
    plots.path_over_course(course, here, folder / "paths.png", title=title)
