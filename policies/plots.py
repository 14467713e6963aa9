"""Pictures of runs: paths over the course from above, score histogram, failure table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.course import Course, Waypoint
from sim.errors import InputError
from sim.terrain import Ramp, footprint

if TYPE_CHECKING:
    from policies.outcome import CourseRun

SPEED_LIMIT = 2.0
"""Speed at the top of the colour scale, m/s."""


def _pyplot() -> Any:
    """matplotlib without a screen, whatever the machine has."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    return pyplot


def draw_course(axis: Any, course: Course) -> None:
    """The course from above: area, tables, ramps, board, poles, gates."""
    from matplotlib.patches import Circle, Polygon, Rectangle

    x0, y0, x1, y1 = course.area
    axis.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, fc="#f4f2ee", ec="#999999", lw=0.8, zorder=0))
    for piece in course.terrain().pieces:
        color = "#d9c8a9" if isinstance(piece, Ramp) else "#c5cdd6"
        axis.add_patch(Polygon(footprint(piece), closed=True, fc=color, ec="#777777", lw=0.8, zorder=1))
    board = course.board_piece()
    if board is not None:
        axis.add_patch(Polygon(footprint(board), closed=True, fc="#e2806b", ec="#aa4433", lw=0.8, zorder=1))
    for pole in course.poles:
        axis.add_patch(Circle((pole.x, pole.y), pole.radius, fc="#e58a1f", ec="#7a4a10", lw=0.6, zorder=3))
    for obstacle in course.obstacles:
        for gate in obstacle.gates:
            axis.plot(*np.array([gate.left, gate.right]).T, ":", color="#447744", lw=0.9, zorder=2)
    axis.set_xlim(x0 - 0.6, x1 + 0.6)
    axis.set_ylim(y0 - 0.6, y1 + 0.6)
    axis.set_aspect("equal")
    axis.set_xlabel("x, m")
    axis.set_ylabel("y, m")


def path_over_course(
    course: Course, runs: Sequence["CourseRun"], path: Path, route: Sequence[Waypoint] = (), title: str = ""
) -> None:
    """Draws the paths of `runs` over the course, coloured by planar speed; crosses mark falls, dots other ends."""
    plt = _pyplot()
    from matplotlib.collections import LineCollection

    figure, axis = plt.subplots(figsize=(7.4, 6.6), constrained_layout=True)
    draw_course(axis, course)
    alone = len(runs) == 1
    lines = None
    for run in runs:
        xy = np.array(run.trace.pose)[:, :2]
        if len(xy) < 2:
            continue
        speed = np.linalg.norm(np.array(run.trace.velocity)[1:, :2], axis=1)
        lines = LineCollection(
            list(np.stack([xy[:-1], xy[1:]], 1)), cmap="viridis", norm=plt.Normalize(0, SPEED_LIMIT),
            lw=2.2 if alone else 0.8, alpha=1.0 if alone else 0.6, zorder=4,
        )  # fmt: skip
        lines.set_array(speed)
        axis.add_collection(lines)
        axis.plot(*xy[-1], "rx" if run.fell else "k.", ms=7 if run.fell else 4, zorder=6)
    if route:
        axis.plot([w.x for w in route], [w.y for w in route], "+", color="#555555", ms=5, zorder=3)
    if lines is not None:
        figure.colorbar(lines, ax=axis, label="speed, m/s", shrink=0.75)
    if not title and alone:
        r = runs[0].result
        title = f"score {r.score:.3f}, {r.time_s:.1f} s, {runs[0].end}"
    axis.set_title(title, fontsize=10)
    _save(plt, figure, path)


def score_histogram(scores: Sequence[float], path: Path, title: str = "") -> None:
    """Histogram of scores with their mean."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(6, 3.4), constrained_layout=True)
    low = min(0.0, float(np.min(scores)))
    axis.hist(scores, bins=list(np.arange(np.floor(low * 20) / 20, 1.0 + 0.051, 0.05)), color="#4a7fb5", ec="white")
    mean = float(np.mean(scores))
    axis.axvline(mean, color="#c0392b", lw=1.5, label=f"mean {mean:.3f}")
    axis.set_xlabel("score")
    axis.set_ylabel("runs")
    axis.set_title(title, fontsize=10)
    axis.legend()
    _save(plt, figure, path)


def speed_profile(runs: Sequence["CourseRun"], path: Path, title: str = "") -> None:
    """Planar speed over the time since the start gate: median and middle four fifths of the runs, with the medians of
    the times at which obstacles were completed."""
    plt = _pyplot()
    figure, axis = plt.subplots(figsize=(8, 3.6), constrained_layout=True)
    started = [run for run in runs if run.gate_times.get("start table") and len(run.trace.velocity) > 2]
    grid = np.arange(0.0, 25.0, 0.1)
    rows = []
    for run in started:
        time = np.array(run.trace.time) - run.gate_times["start table"][-1]
        speed = np.linalg.norm(np.array(run.trace.velocity)[:, :2], axis=1)
        end = run.result.time_s if run.result.finished else time[-1]
        rows.append(np.interp(grid, time, speed, right=np.nan))
        rows[-1][grid > end] = np.nan
    if rows:
        table = np.array(rows)
        shown = (~np.isnan(table)).sum(0) >= max(1, len(rows) // 2)
        low, middle, high = np.nanpercentile(table[:, shown], [10, 50, 90], axis=0)
        axis.fill_between(grid[shown], low, high, color="#4a7fb5", alpha=0.25, lw=0)
        axis.plot(grid[shown], middle, color="#1f4e79", lw=1.5)
        for name in started[0].result.obstacles:
            start = [run.gate_times["start table"][-1] for run in started]
            at = [
                run.gate_times[name][-1] - t for run, t in zip(started, start, strict=True) if run.gate_times.get(name)
            ]
            if at and name != "start table":
                axis.axvline(float(np.median(at)), color="#888888", ls=":", lw=1)
                axis.text(float(np.median(at)), axis.get_ylim()[1], f" {name}", rotation=90, va="top", fontsize=7)
    axis.set_xlabel("time since the start gate, s")
    axis.set_ylabel("speed, m/s")
    axis.set_title(title, fontsize=10)
    _save(plt, figure, path)


TIMES = {"weave poles": ("9.27", "under 4"), "whole course": ("about 22", "about 9"), "best": ("20.4", "")}
RATES = {
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
    lines += [row(name, seconds(t), TIMES) for name, t in result["obstacle_s_median"].items() if t is not None]
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


def failure_table(runs: Sequence["CourseRun"], result: dict[str, Any] | None = None) -> str:
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
    lines += ["", "| seed | score | time s | end | failed obstacles |", "|---|---|---|---|---|"]
    for run in sorted(runs, key=lambda run: run.result.score):
        failed_names = [name for name, o in run.result.obstacles.items() if not o.completed]
        if failed_names:
            r, failed_text = run.result, ", ".join(failed_names)
            failed_text += " (board touched)" if r.touched_jump else ""
            lines.append(f"| {run.seed} | {r.score:.3f} | {r.time_s:.2f} | {run.end} | {failed_text} |")
    if result is not None:
        words = ["barkour run --policy", result["policy"], "--course", result["course"], "--seed SEED"]
        words += ["--randomize"] if result["conditions"]["randomized"] else []
        words += [f"--torque-limit {result['conditions']['torque_limit_nm']:g}"]
        lines += ["", "One of these again, exactly:", "", f"    {' '.join(words)} --record DIR"]
    return "\n".join(lines) + "\n"


def _save(plt: Any, figure: Any, path: Path) -> None:
    try:
        figure.savefig(path, dpi=110)
    except OSError as error:
        raise InputError(f"cannot write the picture {path}: {error.strerror}") from error
    finally:
        plt.close(figure)
