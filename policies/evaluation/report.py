"""An evaluation in words: figures beside the paper's and the dogs', what failed, and the commands that run it again."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policies.evaluation.outcome import CourseRun
from policies.evaluation.published import RATES, TIMES, Published
from sim.localization import OWN_ODOMETRY, PoseErrors
from sim.options import flag
from sim.robots.description import DEFAULT


def report_table(result: dict[str, Any]) -> str:
    """Markdown: an evaluation's figures beside the paper's and the dogs'."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def row(name: str, value: str, known: dict[str, Published]) -> str:
        beside = known.get(name, Published())
        return "| " + " | ".join([name, value, beside.paper, beside.dogs]) + " |"

    lines = ["# Report", "", f"{result['runs']} runs of {result['policy']} on {result['course']}, conditions:", ""]
    lines += [f"- {key}: {value}" for key, value in result["conditions"].items()]
    lines += ["", "| median time, s | here | paper | dogs |", "|---|---|---|---|"]
    medians = result["obstacle_s_median"].items()
    lines += [row(name, seconds(t), TIMES) for name, t in medians if t is not None]
    lines += [row("whole course", seconds(result["time_s_median"]), TIMES)]
    lines += [row("best", seconds(result["time_s_best"]), TIMES)]
    lines += ["", "| rate | here | paper | dogs |", "|---|---|---|---|"]
    rates = {**result["per_obstacle_success"], "all five obstacles": result["all_obstacles_rate"]}
    rates["falls"] = result["fell_rate"]
    lines += [row(name, f"{100 * rate:.0f} %", RATES) for name, rate in rates.items()]
    low, high = result["score_ci95"]
    score = f"{result['score_mean']:.3f} [{low:.3f}, {high:.3f}], best {result['score_best']:.3f}"
    lines += [row("mean score", score, RATES)]
    lines += ["", "| change of skill | times | joint-target jump, rad (median, peak) | without fading over |"]
    lines += ["|---|---|---|---|"]
    for name, s in result["switches"].items():
        jump, bare = (f"{s[f'{k}_rad_median']:.2f}, {s[f'{k}_rad_peak']:.2f}" for k in ("jump", "unblended"))
        lines.append(f"| {name} | {s['count']} | {jump} | {bare} |")
    return "\n".join(lines) + "\n"


def failure_table(runs: Sequence[CourseRun], result: dict[str, Any] | None = None) -> str:
    """Markdown: how runs ended, success per obstacle, and every run that failed something, with its seed."""
    count = len(runs)
    lines = ["# Failures", "", "| end | runs |", "|---|---|"]
    ends = sorted({run.end for run in runs})
    lines += [f"| {end} | {sum(run.end == end for run in runs)} |" for end in ends]
    lines += ["", "| obstacle | completed | most often stopped at |", "|---|---|---|"]
    for name, first in runs[0].result.obstacles.items():
        failed = [run.result.obstacles[name].gates_passed for run in runs if not run.result.obstacles[name].completed]
        stop = ""
        if failed:
            gates, times = np.unique(failed, return_counts=True)
            stop = f"{gates[times.argmax()]} of {first.gates} gates ({times.max()} runs)"
        lines.append(f"| {name} | {count - len(failed)} of {count} | {stop} |")
    mixed = len({run.course for run in runs}) > 1
    lines += ["", f"| seed |{' course |' if mixed else ''} score | time s | end | failed obstacles |"]
    lines += ["|---|---|---|---|---|" + ("---|" if mixed else "")]
    for run in sorted(runs, key=lambda run: run.result.score):
        failed_names = failed_obstacles(run)
        if failed_names:
            r, failed_text = run.result, ", ".join(failed_names)
            failed_text += " (board touched)" if r.touched_jump else ""
            which = f"{run.seed} | {run.course}" if mixed else run.seed
            lines.append(f"| {which} | {r.score:.3f} | {r.time_s:.2f} | {run.end} | {failed_text} |")
    if result is not None:
        words = _words(result, "run", "COURSE" if mixed else result["course"], "SEED")
        lines += ["", "One of these again, exactly:", "", f"    {words} --record DIR"]
    return "\n".join(lines) + "\n"


def failed_obstacles(run: CourseRun) -> list[str]:
    """Names of the obstacles that a run did not complete."""
    return [name for name, obstacle in run.result.obstacles.items() if not obstacle.completed]


def run_command(result: Mapping[str, Any], run: CourseRun) -> str:
    """The command that runs one of an evaluation's runs again, exactly."""
    several = len({world["course"] for world in result["worlds"]}) > 1
    return _words(result, "run", run.course if several else result["course"], str(run.seed))


def evaluation_command(result: Mapping[str, Any], against: str | None = None) -> str:
    """The command of an evaluation, without its report."""
    words = _words(result, "evaluate", result["course"], str(result["seed"]))
    words += f" --runs {result['runs']}"
    return words + (f" --against {shlex.quote(against)}" if against else "")


def _words(result: Mapping[str, Any], command: str, course: str, seed: str) -> str:
    conditions = result["conditions"]
    words = ["barkour", command, "--policy", result["policy"], "--course", course, "--seed", seed]
    words += ["--robot", result["robot"]] if result["robot"] != DEFAULT else []
    words += ["--randomize"] if conditions["randomized"] else []
    words += ["--torque-limit", _number(conditions["torque_limit_nm"])]
    for name, value in PoseErrors(**conditions["pose_errors"]).options().items():
        words += [flag(name), _number(value)]
    words += ["--own-odometry"] if conditions["navigator_pose"] == OWN_ODOMETRY else []
    return shlex.join(words)


def _number(value: float) -> str:
    """A number as short as it can be said without changing it."""
    return next(text for text in (f"{value:g}", repr(float(value))) if float(text) == value)
