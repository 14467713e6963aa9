"""An evaluation in words: figures beside the paper's and the dogs', and what failed, as Markdown."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from policies.evaluation.outcome import CourseRun

PUBLISHED_TIMES = {"weave poles": ("9.27", "under 4"), "whole course": ("about 22", "about 9"), "best": ("20.4", "")}
PUBLISHED_RATES = {
    "a frame": ("100 %", "100 %"),
    "jump": ("38 %", "100 %"),
    "all five obstacles": ("35 %", "100 %"),
    "falls": ("8 %", "0 %"),
    "mean score": ("0.77", "1.0"),
}
"""The paper's robot (71 runs on hardware) and its two small dogs: arXiv 2305.14654, section VI."""


def report_table(result: dict[str, Any]) -> str:
    """Markdown: an evaluation's figures beside the paper's and the dogs'."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    def row(name: str, value: str, known: dict[str, tuple[str, str]]) -> str:
        return "| " + " | ".join([name, value, *known.get(name, ("", ""))]) + " |"

    lines = ["# Report", "", f"{result['runs']} runs of {result['policy']} on {result['course']}, conditions:", ""]
    lines += [f"- {key}: {value}" for key, value in result["conditions"].items()]
    lines += ["", "| median time, s | here | paper | dogs |", "|---|---|---|---|"]
    medians = result["obstacle_s_median"].items()
    lines += [row(name, seconds(t), PUBLISHED_TIMES) for name, t in medians if t is not None]
    lines += [row("whole course", seconds(result["time_s_median"]), PUBLISHED_TIMES)]
    lines += [row("best", seconds(result["time_s_best"]), PUBLISHED_TIMES)]
    lines += ["", "| rate | here | paper | dogs |", "|---|---|---|---|"]
    rates = {**result["per_obstacle_success"], "all five obstacles": result["all_obstacles_rate"]}
    rates["falls"] = result["fell_rate"]
    lines += [row(name, f"{100 * rate:.0f} %", PUBLISHED_RATES) for name, rate in rates.items()]
    low, high = result["score_ci95"]
    score = f"{result['score_mean']:.3f} [{low:.3f}, {high:.3f}], best {result['score_best']:.3f}"
    lines += [row("mean score", score, PUBLISHED_RATES)]
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
        failed_names = [name for name, o in run.result.obstacles.items() if not o.completed]
        if failed_names:
            r, failed_text = run.result, ", ".join(failed_names)
            failed_text += " (board touched)" if r.touched_jump else ""
            which = f"{run.seed} | {run.course}" if mixed else run.seed
            lines.append(f"| {which} | {r.score:.3f} | {r.time_s:.2f} | {run.end} | {failed_text} |")
    if result is not None:
        words = ["barkour run --policy", result["policy"], "--course", "COURSE" if mixed else result["course"]]
        words += ["--seed SEED"]
        words += ["--randomize"] if result["conditions"]["randomized"] else []
        words += [f"--torque-limit {result['conditions']['torque_limit_nm']:g}"]
        lines += ["", "One of these again, exactly:", "", f"    {' '.join(words)} --record DIR"]
    return "\n".join(lines) + "\n"
