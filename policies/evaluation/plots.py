"""Pictures of runs: paths over the course from above, score histogram, speed profile."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sim.course.description import Course, Waypoint
from sim.course.terrain import Ramp, footprint
from sim.errors import InputError
from sim.folders import replacing
from sim.results import printable

if TYPE_CHECKING:
    from policies.evaluation.outcome import CourseRun

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
    for board in course.board_pieces():
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
    _entitle(axis, title)
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
    _entitle(axis, title)
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
                place, top = float(np.median(at)), axis.get_ylim()[1]
                axis.text(place, top, f" {printable(name)}", rotation=90, va="top", fontsize=7, parse_math=False)
    axis.set_xlabel("time since the start gate, s")
    axis.set_ylabel("speed, m/s")
    _entitle(axis, title)
    _save(plt, figure, path)


def _entitle(axis: Any, title: str) -> None:
    """With a title that may hold a file's name: no formula, whatever dollars are in it."""
    axis.set_title(printable(title), fontsize=10, parse_math=False)


def _save(plt: Any, figure: Any, path: Path) -> None:
    try:
        with replacing(path) as partial:
            figure.savefig(partial, dpi=110, format="png")
    except OSError as error:
        raise InputError(f"cannot write the picture {path}: {error.strerror}") from error
    finally:
        plt.close(figure)
