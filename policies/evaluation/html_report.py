"""An evaluation as one HTML page that needs nothing else: paths, times, scores, failures, a second policy, conditions.

Everything that is drawn is inline SVG made here from the runs; the page's own script adds what moves
(`page/script.js`). It loads nothing, and its content security policy forbids it to. Colours are told apart by
colour-blind readers, follow the reader's light or dark mode, and print.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from policies.evaluation.outcome import CourseRun
from policies.evaluation.published import RATES, SOURCE, TIMES, Published
from policies.evaluation.report import evaluation_command, failed_obstacles, run_command
from sim.course.description import Course
from sim.course.terrain import Ramp, footprint

SPEED_BIN, SPEED_BINS = 0.25, 10
"""Width of a colour of the paths, m/s, and how many there are; the last one takes all that is faster."""
SAMPLE = 5
"""Control steps between two points of a drawn path."""
SCALE = 100.0
"""Pixels a metre of the maps."""
MARGIN = 0.35
"""Around a course's area, m."""
MOST_PATHS, MOST_MAPS, MOST_FAILURES = 200, 12, 500
"""No more paths a policy, courses and rows of failures are shown; the JSON beside the page has every run."""
SCORE_BIN, LOWEST_SCORE = 0.025, 0.7
"""Width of a bar of the distribution, and where it begins unless a run has less."""
DASH = "-"
FOLDERS = r"\S*[/\\]"
"""The folders in a path: a page that is shown around tells files, not whose machine they lie on."""


@dataclass(frozen=True)
class Evaluated:
    """One policy's evaluation: its figures and the runs they are of, in the same order as `result["worlds"]`."""

    result: Mapping[str, Any]
    runs: Sequence[CourseRun]

    @property
    def name(self) -> str:
        """The policy, as it was asked for."""
        return str(self.result["policy"])


def html_report(
    courses: Mapping[str, Course],
    first: Evaluated,
    second: Evaluated | None = None,
    comparison: Mapping[str, Any] | None = None,
) -> str:
    """The page.

    Args:
      courses: the runs' courses by their own names, those to be drawn first.
      first: what was evaluated.
      second, comparison: another policy over the same worlds, and `comparison.compare` of the two.
    """
    both = [first, *([second] if second else [])]
    parts = [
        _head(both),
        _tiles(both),
        _compared(first, second, comparison) if second and comparison else "",
        _paths(courses, both),
        _times(courses, both),
        _scores(both),
        _failures(both),
        _conditions(both),
    ]
    page = files("policies.evaluation") / "page"
    style = (page / "style.css").read_text(encoding="utf-8") + _speed_colors()
    script = (page / "script.js").read_text(encoding="utf-8")
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(' and '.join(each.name for each in both))}: {escape(str(first.result['course']))}</title>\n"
        f"<style>\n{style}</style>\n</head>\n<body>\n" + "\n".join(parts) + f"\n<script>\n{script}</script>\n"
        "</body>\n</html>\n"
    )


def drawn_path(run: CourseRun) -> tuple[np.ndarray, np.ndarray]:
    """What is drawn of a run: points `[N, 2]` (m, course frame) `SAMPLE` control steps apart, and the number of the
    colour of each way between two, int `[N - 1]`, from the mean planar speed along it."""
    points = np.array(run.trace.pose, float).reshape(-1, 3)[::SAMPLE, :2]
    speed = np.linalg.norm(np.array(run.trace.velocity, float).reshape(-1, 3)[:, :2], axis=1)
    ways = max(len(points) - 1, 0)
    mean = speed[1 : 1 + ways * SAMPLE].reshape(ways, SAMPLE).mean(1)
    return points, np.clip(mean // SPEED_BIN, 0, SPEED_BINS - 1).astype(int)


# --- sections ---------------------------------------------------------------------------------------------------------


def _head(both: Sequence[Evaluated]) -> str:
    result = both[0].result
    names = " and ".join(
        f'<span class="{kind}">{escape(each.name)}</span>' if len(both) > 1 else escape(each.name)
        for each, kind in zip(both, ("first", "second"), strict=False)
    )
    worlds = "randomised physics" if result["conditions"]["randomized"] else "nominal physics"
    return (
        f"<header>\n<h1>{names}</h1>\n"
        f'<p class="soft">{result["runs"]} runs of the course {escape(str(result["course"]))}, {worlds}, '
        f"{result['conditions']['torque_limit_nm']:g} N m</p>\n"
        f"{_command(evaluation_command(result, both[1].name if len(both) > 1 else None))}\n</header>"
    )


def _tiles(both: Sequence[Evaluated]) -> str:
    obstacles = len(both[0].runs[0].result.obstacles)
    every = {5: "all five obstacles"}.get(obstacles, f"all {obstacles} obstacles")
    official = both[0].result["course"] == "official"
    shown = [
        ("mean score", "score_mean", _score, RATES["mean score"]),
        (every, "all_obstacles_rate", _percent, RATES["all five obstacles"]),
        ("median time", "time_s_median", _seconds, TIMES["whole course"]),
        ("best time", "time_s_best", _seconds, TIMES["best"]),
        ("falls", "fell_rate", _percent, RATES["falls"]),
        ("finished", "finished_rate", _percent, Published()),
    ]
    tiles = []
    for name, key, form, known in shown:
        notes = [f"{who} {said}".replace(" ", "\u00a0") for who, said in known.words() if official]
        note = ", ".join(notes)
        if key == "score_mean":
            low, high = both[0].result["score_ci95"]
            note = f"95 % [{low:.3f}, {high:.3f}]" + (f"; {note}" if note else "")
        other = f'<div class="other second">{form(both[1].result[key])}</div>' if len(both) > 1 else ""
        kind = " first" if len(both) > 1 else ""
        tiles.append(
            f'<div class="tile"><div class="name">{name}</div>'
            f'<div class="value{kind}" data-figure="{key}">{form(both[0].result[key])}</div>{other}'
            f'<div class="note">{note}</div></div>'
        )
    return '<div class="tiles">\n' + "\n".join(tiles) + "\n</div>"


def _compared(first: Evaluated, second: Evaluated, found: Mapping[str, Any]) -> str:
    low, high = found["ci95"]
    difference = found["score_difference"]
    worlds = found["better"] + found["equal"] + found["worse"]
    ratio = f" Where both finish, its time is {found['time_ratio']:.3f} of the other's." if found["time_ratio"] else ""
    text = (
        f'<p><b class="first">{escape(first.name)}</b> against <b class="second">{escape(second.name)}</b> in the same '
        f"{worlds} worlds: {difference:+.4f} in score, 95 % interval [{low:+.4f}, {high:+.4f}]; higher in "
        f"{found['better']}, equal in {found['equal']}, lower in {found['worse']}.{ratio}</p>"
    )
    rows = []
    figures = [
        ("mean score", "score_mean", _score, 1), ("all obstacles", "all_obstacles_rate", _percent, 1),
        ("finished", "finished_rate", _percent, 1), ("falls", "fell_rate", _percent, -1),
        ("board touched", "touched_rate", _percent, -1), ("median time", "time_s_median", _seconds, -1),
        ("best time", "time_s_best", _seconds, -1),
    ]  # fmt: skip
    pairs = [(name, first.result[key], second.result[key], form, sign) for name, key, form, sign in figures]
    for name, rate in first.result["per_obstacle_success"].items():
        pairs.append((name, rate, second.result["per_obstacle_success"].get(name), _percent, 1))
    for name, a, b, form, sign in pairs:
        gain, kind = DASH, ""
        if a is not None and b is not None:
            gain = f"{'+' if a - b >= 0 else '-'}{form(abs(a - b))}" if a != b else "0"
            kind = "" if a == b else " better" if (a - b) * sign > 0 else " worse"
        rows.append(
            f'<tr><td>{escape(name)}</td><td class="number">{form(a)}</td><td class="number">{form(b)}</td>'
            f'<td class="number{kind}">{gain}</td></tr>'
        )
    head = (
        f'<tr><th></th><th class="number">{escape(first.name)}</th><th class="number">{escape(second.name)}</th>'
        '<th class="number">difference</th></tr>'
    )
    return (
        f'<section id="comparison">\n<h2>Against {escape(second.name)}</h2>\n{text}\n'
        f'<div class="maps"><div class="wide"><table>{head}{"".join(rows)}</table></div>\n'
        f"<figure>{_scatter(first, second)}<figcaption>Score world by world: above the line "
        f"{escape(second.name)} is ahead, below it {escape(first.name)}.</figcaption></figure></div>\n</section>"
    )


def _scatter(first: Evaluated, second: Evaluated) -> str:
    pairs = [(a.result.score, b.result.score) for a, b in zip(first.runs, second.runs, strict=True)]
    low = min(LOWEST_SCORE, math.floor(min(score for pair in pairs for score in pair) * 10) / 10)
    size, left, bottom = 320.0, 46.0, 40.0

    def at(x: float, y: float) -> tuple[float, float]:
        k = (size - 20) / (1.0 - low)
        return left + (x - low) * k, size - (y - low) * k

    parts = []
    for tick in _ticks(low, 1.0, 5):
        x, y = at(tick, tick)
        parts.append(f'<path class="grid" d="M{left:.1f} {y:.1f}H{size + left - 20:.1f}M{x:.1f} {size:.1f}V20"/>')
        parts.append(f'<text class="soft" x="{x:.1f}" y="{size + 18:.1f}" text-anchor="middle">{tick:g}</text>')
        parts.append(f'<text class="soft" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    (x0, y0), (x1, y1) = at(low, low), at(1.0, 1.0)
    parts.append(f'<line class="diagonal" x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"/>')
    for i, (a, b) in enumerate(pairs):
        x, y = at(a, b)
        seed = first.runs[i].seed
        parts.append(
            f'<circle class="dot first" cx="{x:.1f}" cy="{y:.1f}" r="4" data-world="{i}">'
            f"<title>world {seed}: {a:.3f} and {b:.3f}</title></circle>"
        )
    parts.append(
        f'<text x="{left + (size - 20) / 2:.1f}" y="{size + bottom - 4:.1f}" text-anchor="middle">'
        f"{escape(first.name)}</text>"
    )
    parts.append(f'<text x="{left:.1f}" y="12">{escape(second.name)}</text>')
    label = f"Scores of {first.name} and {second.name} in the same worlds"
    return _svg(size + left, size + bottom, parts, label, "scatter")


def _paths(courses: Mapping[str, Course], both: Sequence[Evaluated]) -> str:
    shown = list(courses)[:MOST_MAPS]
    maps, notes = [], []
    for number, each in enumerate(both):
        picked = _picked(each.runs, shown)
        left_out = len(each.runs) - len(picked)
        if left_out:
            notes.append(f"{escape(each.name)}: {len(picked)} of {len(each.runs)} runs are drawn, failed ones first.")
        for name in shown:
            here = [i for i in picked if each.runs[i].course in (name, "")]
            if not here:
                continue
            several = len(both) > 1 or len(shown) > 1
            words = [each.name] * (len(both) > 1) + [name] * (len(shown) > 1)
            title = f"<h3>{escape(', '.join(words))}</h3>" if several else ""
            drawing = _map(courses[name], each, here, number)
            maps.append(f"<figure>{title}{drawing}</figure>")
    if len(courses) > len(shown):
        notes.append(f"{len(shown)} of {len(courses)} courses are drawn.")
    period = max((_period(run) for each in both for run in each.runs), default=0.0)
    note = f'<p class="soft small">{" ".join(notes)}</p>' if notes else ""
    player = (
        f'<div class="player" data-period="{period:.6g}" hidden="hidden"><button type="button">play</button>'
        '<input type="range" min="0" max="1" step="0.02" value="0" aria-label="time"/><output>0.0 s</output></div>'
    )
    return (
        '<section id="paths">\n<h2>Paths</h2>\n<p class="soft">From above, coloured by speed. A cross is a fall, a '
        "ring another end before the end table was held. Point at a path, or at a row of the failures, to single it "
        "out.</p>\n"
        f'<div class="maps{" one" if len(maps) == 1 else ""}">\n' + "\n".join(maps) + f"\n</div>\n{player}\n"
        f"<figure>{_speed_scale()}</figure>\n{note}\n</section>"
    )


def _map(course: Course, each: Evaluated, runs: Sequence[int], number: int) -> str:
    x0, y0, x1, y1 = course.area
    span = [np.array(each.runs[i].trace.pose).reshape(-1, 3)[:, :2] for i in runs if each.runs[i].trace.pose]
    low = np.min([p.min(0) for p in span], 0) if span else np.array([x0, y0])
    high = np.max([p.max(0) for p in span], 0) if span else np.array([x1, y1])
    left, top = min(x0, float(low[0])) - MARGIN, max(y1, float(high[1])) + MARGIN
    right, bottom = max(x1, float(high[0])) + MARGIN, min(y0, float(low[1])) - MARGIN

    def at(x: float, y: float) -> str:
        return f"{(x - left) * SCALE:.1f},{(top - y) * SCALE:.1f}"

    def shape(corners: Iterable[Any], kind: str) -> str:
        return f'<polygon class="{kind}" points="{" ".join(at(*map(float, corner)) for corner in corners)}"/>'

    hatch = f"hatch{number}"
    parts = [
        f'<defs><pattern id="{hatch}" width="7" height="7" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path class="hatch" d="M0 0V7"/></pattern></defs>',
        shape([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], "floor"),
    ]
    for piece in course.terrain().pieces:
        corners = footprint(piece)
        parts.append(shape(corners, "ramp" if isinstance(piece, Ramp) else "block"))
        if isinstance(piece, Ramp):
            up = piece.z_end > piece.z_start
            a, b = (corners[1], corners[2]) if up else (corners[0], corners[3])
            parts.append(f'<polyline class="ridge" points="{at(*map(float, a))} {at(*map(float, b))}"/>')
    for board in course.board_pieces():
        parts.append(shape(footprint(board), "board").replace("/>", f' style="fill:url(#{hatch})"/>'))
    for obstacle in course.obstacles:
        for gate in obstacle.gates:
            (ax, ay), (bx, by) = (at(*end).split(",") for end in (gate.left, gate.right))
            parts.append(f'<line class="gate" x1="{ax}" y1="{ay}" x2="{bx}" y2="{by}"/>')
    for pole in course.poles:
        px, py = at(pole.x, pole.y).split(",")
        parts.append(f'<circle class="pole" cx="{px}" cy="{py}" r="{max(pole.radius * SCALE, 4):.1f}"/>')
    for i in runs:
        parts.append(_run(each.runs[i], f"{number}-{i}", at))
    for obstacle in course.obstacles:
        solids = obstacle.footprints()
        middle = np.mean([corners.mean(0) for _, corners in solids] or [gate.center for gate in obstacle.gates], 0)
        if obstacle.standing_poles:  # above the poles, where no path is in the way
            middle = np.array([middle[0], max(p for g in obstacle.gates for p in (g.left[1], g.right[1])) + 0.12])
        px, py = at(float(middle[0]), float(middle[1])).split(",")
        parts.append(f'<text class="place" x="{px}" y="{py}" text-anchor="middle">{escape(obstacle.name)}</text>')
    kind = "map alone" if len(runs) == 1 else "map"
    label = f"Paths of {each.name} over the course {course.name}"
    return _svg((right - left) * SCALE, (top - bottom) * SCALE, parts, label, kind)


def _run(run: CourseRun, key: str, at: Any) -> str:
    points, colors = drawn_path(run)
    lines, begun = [], 0
    for k in range(1, len(colors) + 1):
        if k == len(colors) or colors[k] != colors[begun]:
            way = " ".join(at(*point) for point in points[begun : k + 1].tolist())
            lines.append(f'<polyline class="s{colors[begun]}" points="{way}"/>')
            begun = k
    end = ""
    if run.trace.pose and not run.result.finished:
        x, y = map(float, at(*run.trace.pose[-1][:2]).split(","))
        end = (
            f'<path class="end fall" d="M{x - 6:.1f} {y - 6:.1f}l12 12m0 -12l-12 12"/>'
            if run.fell
            else f'<circle class="end" cx="{x:.1f}" cy="{y:.1f}" r="5"/>'
        )
    said = f"seed {run.seed}: {run.result.score:.3f}, {run.result.time_s:.2f} s, {run.end}"
    failed = ' data-failed="yes"' if failed_obstacles(run) else ""
    return f'<g class="run" data-run="{key}"{failed}><title>{escape(said)}</title>{"".join(lines)}{end}</g>'


def _picked(runs: Sequence[CourseRun], courses: Sequence[str]) -> list[int]:
    """Numbers of the runs that are drawn: failed ones first, the others evenly."""
    there = [i for i, run in enumerate(runs) if run.course in (*courses, "")]
    if len(there) <= MOST_PATHS:
        return there
    failed = [i for i in there if failed_obstacles(runs[i])][: MOST_PATHS // 2]
    fine = [i for i in there if i not in set(failed)]
    chosen = np.linspace(0, len(fine) - 1, MOST_PATHS - len(failed)).round().astype(int).tolist()
    return sorted({*failed, *(fine[k] for k in chosen)})


def _period(run: CourseRun) -> float:
    """Seconds between two points of a drawn path."""
    time = run.trace.time
    return SAMPLE * (time[1] - time[0]) if len(time) > 1 else 0.0


def _speed_colors() -> str:
    """Styles of the path's colours: viridis without the end that is faint on the ground of light or dark mode."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    def styles(low: float, high: float) -> str:
        shades = [to_hex(colormaps["viridis"](share)) for share in np.linspace(low, high, SPEED_BINS)]
        return " ".join(f".s{k} {{ stroke: {shade}; --shade: {shade}; }}" for k, shade in enumerate(shades))

    dark = f"@media (prefers-color-scheme: dark) {{ {styles(0.25, 1.0)} }}\n"
    return f"{styles(0.0, 0.88)}\n{dark}@media print {{ {styles(0.0, 0.88)} }}\n"


def _speed_scale() -> str:
    width, parts = 36.0, []
    for k in range(SPEED_BINS):
        parts.append(f'<rect class="s{k}" style="fill:var(--shade);stroke:none" x="{k * width + 6:.1f}" y="0" '
                     f'width="{width:.1f}" height="10"/>')  # fmt: skip
        if k % 2 == 0:
            parts.append(
                f'<text class="soft" x="{k * width + 6:.1f}" y="26" text-anchor="middle">{k * SPEED_BIN:g}</text>'
            )
    parts.append(f'<text class="soft" x="{SPEED_BINS * width + 14:.1f}" y="10">m/s</text>')
    return _svg(SPEED_BINS * width + 44, 30, parts, "Colours of speed", "scale")


def _times(courses: Mapping[str, Course], both: Sequence[Evaluated]) -> str:
    course = next(iter(courses.values()))
    alone, official = len(courses) == 1, len(courses) == 1 and course.name == "official"
    names = [n for n in both[0].result["obstacle_s_median"] if any(n in r.obstacle_s for e in both for r in e.runs)]
    rows = [(name, [[r.obstacle_s.get(name) for r in each.runs] for each in both]) for name in names]
    whole = [[r.result.time_s if r.result.finished else None for r in each.runs] for each in both]
    rows.append(("whole course", whole))
    allotted = {o.name: o.nominal_size / course.target_velocity for o in course.obstacles} if alone else {}
    allotted["whole course"] = sum(allotted.values())
    known = {name: TIMES.get(name, Published()) if official else Published() for name, _ in rows}
    seen = [t for _, values in rows for arm in values for t in arm if t is not None]
    if not seen:
        return '<section id="times">\n<h2>Time per obstacle</h2>\n<p class="soft">No run completed any.</p>\n</section>'
    best = TIMES["best"].paper_value if official else None
    marks = [v for p in known.values() for v in (p.paper_value, p.dogs_value) if v is not None]
    limit = math.ceil(max([1.1 * float(np.percentile(seen, 97)), best or 0.0, *marks, *allotted.values()]) + 0.5)
    left, width, height = 112.0, 760.0, 30.0 + 22.0 * len(both)
    right = left + width
    parts = []
    for tick in _ticks(0.0, limit, 10):
        x = left + tick / limit * width
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height * len(rows):.1f}"/>')
        parts.append(
            f'<text class="soft" x="{x:.1f}" y="{height * len(rows) + 16:.1f}" text-anchor="middle">{tick:g}</text>'
        )
    parts.append(f'<text class="soft" x="{right + 30:.1f}" y="{height * len(rows) + 16:.1f}">s</text>')
    for k, (name, arms) in enumerate(rows):
        top, middle = height * k, height * (k + 0.5)
        parts.append(f'<text x="{left - 14:.1f}" y="{middle + 5:.1f}" text-anchor="end">{escape(name)}</text>')
        if k:
            parts.append(f'<line class="grid" x1="{left:.1f}" y1="{top:.1f}" x2="{right:.1f}" y2="{top:.1f}"/>')
        for a, values in enumerate(arms):
            y = middle + 22.0 * (a - (len(arms) - 1) / 2)
            parts += [
                f'<circle class="dot {("first", "second")[a]}" cx="{left + min(t, limit) / limit * width:.1f}" '
                f'cy="{y + 12 * (_spread(i) - 0.5):.1f}" r="3" data-obstacle="{escape(name)}" data-seconds="{t:.6g}">'
                f"<title>{escape(both[a].name)}, seed {both[a].runs[i].seed}: {t:.2f} s</title></circle>"
                for i, t in enumerate(values)
                if t is not None
            ]
            done = [t for t in values if t is not None]
            if done:
                value = float(np.median(done))
                x = left + min(value, limit) / limit * width
                parts.append(f'<line class="median" x1="{x:.1f}" y1="{y - 9:.1f}" x2="{x:.1f}" y2="{y + 9:.1f}">'
                             f"<title>median {value:.2f} s</title></line>")  # fmt: skip
                kind = f' class="{("first", "second")[a]}"' if len(arms) > 1 else ""
                far = left + min(max(done), limit) / limit * width
                parts.append(f'<text{kind} x="{far + 12:.1f}" y="{y + 4:.1f}">{value:.2f}</text>')
        low = top + height - 8
        if name in allotted and allotted[name]:
            x = left + allotted[name] / limit * width
            parts.append(f'<path class="allotted" d="M{x - 5:.1f} {low:.1f}l5 -5l5 5l-5 5z">'
                         f"<title>allotted {allotted[name]:.2f} s</title></path>")  # fmt: skip
        parts += _references(known[name], best if name == "whole course" else None, left, width / limit, low)
    legend = '<span class="soft">bar: median; diamond: allotted by the rules</span>' if alone else "bar: median"
    if official:
        legend += (
            "; square: the paper's robot (weave poles: mean, whole course: its best run); triangle: dogs (weave poles: "
            f"under 4 s). {SOURCE}."
        )
    keys = (
        "".join(
            f'<span class="{kind}"><span class="key {kind}"></span> {escape(each.name)}</span> &#160; '
            for each, kind in zip(both, ("first", "second"), strict=False)
        )
        if len(both) > 1
        else ""
    )
    return (
        '<section id="times">\n<h2>Time per obstacle</h2>\n<p class="soft">Every dot is a run that completed it, from '
        "the obstacle before it to its own last gate; the whole course from the start table's gate to the end table."
        "</p>\n"
        f"<figure>{_svg(right + 44, height * len(rows) + 24, parts, 'Time per obstacle', 'times')}"
        f"<figcaption>{keys}{legend}</figcaption></figure>\n</section>"
    )


def _references(known: Published, best: float | None, left: float, scale: float, y: float) -> list[str]:
    """The paper's and the dogs' marks of one row."""
    parts = []
    paper = best if best is not None else known.paper_value
    if paper is not None:
        x = left + paper * scale
        parts.append(f'<rect class="paper" x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8">'
                     f"<title>paper {paper:g} s</title></rect>")  # fmt: skip
        parts.append(f'<text class="soft" x="{x + 9:.1f}" y="{y + 4:.1f}">{paper:g}</text>')
    if known.dogs_value is not None:
        x = left + known.dogs_value * scale
        if known.dogs.startswith("under"):
            parts.append(f'<path class="bound" d="M{x:.1f} {y - 6:.1f}v12"/>')
            x -= 4
        parts.append(f'<path class="dogs" d="M{x - 5:.1f} {y:.1f}l8 -5v10z">'
                     f"<title>dogs {escape(known.dogs)} s</title></path>")  # fmt: skip
    return parts


def _scores(both: Sequence[Evaluated]) -> str:
    worst = min(run.result.score for each in both for run in each.runs)
    low = min(LOWEST_SCORE, math.floor(worst * 10) / 10)
    count = round((1.0 - low) / SCORE_BIN)
    heights = [np.bincount([score_bin(r.result.score, low, count) for r in e.runs], minlength=count) for e in both]
    most = max(int(h.max()) for h in heights)
    left, width, height, head = 44.0, 860.0, 200.0, 34.0

    def at(score: float) -> float:
        return left + (score - low) / (1.0 - low) * width

    parts = []
    for tick in _ticks(0.0, most, 4):
        if tick != round(tick):
            continue
        y = head + height * (1 - tick / most)
        parts.append(f'<line class="grid" x1="{left:.1f}" y1="{y:.1f}" x2="{left + width:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="soft" x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    slot = width / count
    for a, bars in enumerate(heights):
        own = (slot - 3) / len(both)
        for k, n in enumerate(bars.tolist()):
            if n:
                tall = height * n / most
                span = f"{low + k * SCORE_BIN:.3f} to {low + (k + 1) * SCORE_BIN:.3f}"
                parts.append(
                    f'<rect class="bar {("first", "second")[a]}" x="{left + k * slot + 1.5 + a * own:.1f}" '
                    f'y="{head + height - tall:.1f}" width="{own:.1f}" height="{tall:.1f}" data-runs="{n}">'
                    f"<title>{escape(both[a].name)}: {n} runs from {span}</title></rect>"
                )
    parts.append(f'<path class="axis" d="M{left:.1f} {head + height:.1f}h{width:.1f}"/>')
    for tick in _ticks(low, 1.0, 10):
        parts.append(
            f'<text class="soft" x="{at(tick):.1f}" y="{head + height + 17:.1f}" text-anchor="middle">{tick:g}</text>'
        )
    marks = [(f"mean {each.result['score_mean']:.3f}", each.result["score_mean"], "mark") for each in both]
    if both[0].result["course"] == "official" and RATES["mean score"].paper_value is not None:
        paper = RATES["mean score"].paper_value
        marks.append((f"paper's mean {paper:g}", paper, "mark dashed"))
    for k, (words, score, kind) in enumerate(marks):
        x, top = at(score), 12.0 + 0.0 * k
        color = f' class="{("first", "second")[k]}"' if len(both) > 1 and k < len(both) else ""
        line_from = top + (14.0 if k == 1 and len(both) > 1 else 0.0)
        parts.append(f'<line class="{kind}" x1="{x:.1f}" y1="{line_from - 8:.1f}" x2="{x:.1f}" '
                     f'y2="{head + height:.1f}"/>')  # fmt: skip
        parts.append(f'<text{color} x="{x - 7:.1f}" y="{line_from + 2:.1f}" text-anchor="end">{escape(words)}</text>')
    ends = []
    for each in both:
        said = ", ".join(f"{n} {escape(end)}" for end, n in each.result["ends"].items())
        ends.append(f"{escape(each.name)}: {said}" if len(both) > 1 else said)
    return (
        '<section id="scores">\n<h2>Scores</h2>\n<p class="soft">Runs by score; 1 is every obstacle within the '
        f"allotted time. How they ended: {'; '.join(ends)}.</p>\n"
        f"<figure>{_svg(left + width + 20, head + height + 26, parts, 'Distribution of scores', 'scores')}</figure>\n"
        "</section>"
    )


def score_bin(score: float, low: float, count: int) -> int:
    """The number of the bar of a score: bars are `SCORE_BIN` wide from `low` on, `count` of them, the last with 1."""
    return min(max(int(math.floor((score - low) / SCORE_BIN + 1e-9)), 0), count - 1)


def _failures(both: Sequence[Evaluated]) -> str:
    mixed = len({run.course for each in both for run in each.runs}) > 1
    rows, left_out = [], 0
    for number, each in enumerate(both):
        failed = [i for i, run in enumerate(each.runs) if failed_obstacles(run)]
        failed.sort(key=lambda i: each.runs[i].result.score)
        left_out += max(0, len(failed) - MOST_FAILURES)
        for i in failed[:MOST_FAILURES]:
            run = each.runs[i]
            missed = [(name, run.result.obstacles[name]) for name in failed_obstacles(run)]
            what = ", ".join(f"{escape(name)} ({o.gates_passed} of {o.gates} gates)" for name, o in missed)
            what += "; board touched" if run.result.touched_jump else ""
            kind = ("first", "second")[number]
            own = f'<td><span class="key {kind}"></span> {escape(each.name)}</td>' if len(both) > 1 else ""
            own += f"<td>{escape(run.course)}</td>" if mixed else ""
            rows.append(
                f'<tr data-run="{number}-{i}">{own}<td class="number">{run.seed}</td>'
                f'<td class="number">{run.result.score:.3f}</td><td>{escape(run.end)}</td><td>{what}</td>'
                f"<td>{_command(run_command(each.result, run))}</td></tr>"
            )
    title = '<section id="failures">\n<h2>Failures</h2>\n'
    if not rows:
        return f"{title}<p>None: every run completed every obstacle.</p>\n</section>"
    head = ("<th>policy</th>" if len(both) > 1 else "") + ("<th>course</th>" if mixed else "")
    head += '<th class="number">seed</th><th class="number">score</th><th>end</th><th>not completed</th>'
    note = f'<p class="soft small">{left_out} more stand in report.json.</p>' if left_out else ""
    return (
        f'{title}<p class="soft">Each with the command that runs exactly it again; add <code>--record DIR</code> for '
        f'its log, pictures and film, <code>--watch</code> to see it.</p>\n<div class="wide"><table><tr>{head}'
        f"<th>again</th></tr>\n" + "\n".join(rows) + f"\n</table></div>{note}\n</section>"
    )


def _conditions(both: Sequence[Evaluated]) -> str:
    result = both[0].result

    def words(value: Any) -> str:
        if isinstance(value, Mapping):
            return "<br/>".join(f"{escape(_plain(k))}: {words(v)}" for k, v in value.items())
        if isinstance(value, (list, tuple)):
            return escape(" to ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value))
        if isinstance(value, bool):
            return "yes" if value else "no"
        return escape(f"{value:g}" if isinstance(value, float) else str(value))

    rows = "".join(
        f'<tr data-condition="{escape(key)}"><td>{escape(_plain(key))}</td><td>{words(value)}</td></tr>'
        for key, value in result["conditions"].items()
    )
    skills = "".join(
        f"<tr><td>{escape(each.name)}: {escape(skill)}</td><td>{escape(re.sub(FOLDERS, '', str(bundle)))}</td></tr>"
        for each in both
        for skill, bundle in each.result["skills"].items()
    )
    return (
        '<section id="conditions">\n<h2>Conditions</h2>\n<p class="soft">What the runs were measured under: every '
        f'world has its own draw of the ranges.</p>\n<div class="wide"><table>{rows}{skills}</table></div>\n'
        "</section>\n<footer>Score: 1 less 0.1 for each obstacle that is not completed and 0.01 for each second over "
        f"the allotted time (arXiv 2305.14654). References: {SOURCE}. The figures stand in report.json beside this "
        "page.</footer>"
    )


# --- pieces -----------------------------------------------------------------------------------------------------------


def _svg(width: float, height: float, parts: Iterable[str], label: str, kind: str) -> str:
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:.1f} {height:.1f}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _command(words: str) -> str:
    return f'<div class="command"><code>{escape(words)}</code><button type="button" class="copy">copy</button></div>'


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from `low` to `high`, about `most` of them."""
    rough = (high - low) / most if high > low else 1.0
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * k for k in (1, 2, 5, 10) if unit * k >= rough - 1e-12)
    return [round(k * step, 10) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _spread(i: int) -> float:
    """A place across a row for the i-th dot, 0..1, evenly spread and the same every time."""
    return (i * 0.6180339887498949) % 1.0


def _plain(name: Any) -> str:
    return str(name).replace("_", " ")


def _score(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.3g} %"


def _seconds(value: float | None) -> str:
    return DASH if value is None else f"{value:.2f} s"
