"""The Barkour score, streaming and in batch: the numbers of brax's official scorer on any log.

Rules (brax.experimental.barkour.score_barkour; arXiv 2305.14654 section III-A): for every unfinished obstacle its
next gate is tested on every sample; a step of 0.04 m or more must cross the gate, a shorter one must end within 0.02 m
of it; the clock restarts at the start-table gate; 5 s on the end table end the run; each obstacle not completed costs
0.1 and each second over the allotted time 0.01. The scorer's seconds are continuous; the paper's rule counts whole
seconds (`whole_seconds=True`). Other courses keep the rules and bring their own gates, nominal sizes and end table.
"""

import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sim.course.description import Course, Gate
from sim.course.files import by_name
from sim.course.options import ScoreOptions
from sim.course.report import ScoreReport
from sim.errors import InputError
from sim.folders import replacing
from sim.reading import read_text

GATE_DISTANCE = 0.02
MAX_TIME = 50.0
PENALTY = 0.1
PER_SECOND = 0.01
DWELL = 5.0
LEAVING = 1.1
"""The end table counts as left beyond this times its half width."""

CONTACT_SHIFT = 1e-6
"""The official scorer dates the first contact with the end table this much (s) before its sample."""

DOWN_SECONDS = 0.3
"""A robot that is down this long has fallen (`sim.robots.description.Fall`)."""
LARGEST_LOG, LONGEST_LOG, FARTHEST = 1 << 26, 3600.0, 1e5
"""No log has more bytes (an hour at 500 Hz has 60 MB), lasts longer (s) or goes farther from the origin (m)."""
SHORTEST_STEP, SLOWEST, FASTEST, FAR_OUTSIDE = 1e-4, 0.02, 50.0, 20.0
"""Of a log in other units than s and m: rows are nearer in time (s) on average, it never goes faster or mostly goes
faster than this (m/s), or most of it lies farther outside the course (m)."""
BREAKS = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
"""What other programs take for the end of a line."""
OUTSIDE = 2.0
"""Metres outside the course area at which a run is given up."""

Point = tuple[float, float]


@dataclass(frozen=True)
class ObstacleResult:
    """One obstacle of a run."""

    completed: bool
    gates_passed: int
    gates: int


@dataclass(frozen=True)
class CourseScore:
    """A scored run."""

    score: float
    time_s: float
    """From the start-table gate to the first contact with the end table, or to the last sample without one."""
    allotted_s: float
    finished: bool
    """The end table was reached and held."""
    touched_jump: bool
    obstacles: dict[str, ObstacleResult]
    end_table_s: float
    path_m: float
    progress: float
    """Share of all gates that was passed, 0..1."""
    gate_times: dict[str, list[float]]
    """Obstacle -> times at which its gates were passed, s, as the samples have it; nothing of one without any."""

    @property
    def obstacle_s(self) -> dict[str, float]:
        """Completed obstacle -> s from the last gate of the obstacle before it (in the order run) to its own last
        gate; the clock starts at the start table's gate, and the end table ends it where the dwell begins."""
        last = {name: times[-1] for name, times in self.gate_times.items() if self.obstacles[name].completed}
        start = last.pop("start table", None)
        if start is None:
            return {}
        if self.finished:
            last["end table"] = start + self.time_s
        order = sorted(last, key=lambda name: last[name])
        starts = [start, *(last[name] for name in order)]
        return {name: last[name] - before for name, before in zip(order, starts, strict=False)}

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields, and `obstacle_s`."""
        return {**asdict(self), "obstacle_s": self.obstacle_s}


class Scorer:
    """Streaming scorer: one `update` per pose sample, constant time and memory."""

    def __init__(self, course: Course, *, whole_seconds: bool = False) -> None:
        self.course = course
        self.whole_seconds = whole_seconds
        self.passed = [0] * len(course.obstacles)
        self.touched: set[int] = set()
        """Obstacles, by number, of which something was touched that must not be."""
        self.touched_jump = False
        self.gate_times: dict[str, list[float]] = {}
        """Obstacle -> times at which its gates were passed, s."""
        self.over = False
        """The run has ended: the end table was held, or left again."""
        self._starts = [o.STARTS_CLOCK for o in course.obstacles].index(True)
        self._start_time = self._time = math.nan
        self._last: Point = (math.nan, math.nan)
        self._reached_end = 0.0
        self._end_table_s = 0.0
        self._path = 0.0

    def update(self, time: float, x: float, y: float) -> None:
        """Takes the base's position at a time: s, m, m in the course frame.

        Samples after the end are ignored, and so are samples that are not finite (a lost pose).
        """
        if self.over or not math.isfinite(time + x + y):
            return
        if math.isnan(self._start_time):
            self._start_time, self._last = time, (x, y)
        here = (x, y)
        moved = _length(x - self._last[0], y - self._last[1])
        self._path += moved
        for i, obstacle in enumerate(self.course.obstacles):
            if self.passed[i] < len(obstacle.gates) and passes(obstacle.gates[self.passed[i]], self._last, here, moved):
                self.passed[i] += 1
                self.gate_times.setdefault(obstacle.name, []).append(time)
                if i == self._starts:
                    self._start_time = time
        self._time = time
        self._watch_end_table(time, here)
        self._last = here

    def _watch_end_table(self, time: float, here: Point) -> None:
        table = self.course.end_table
        distance = [abs(here[k] - table.center[k]) / (table.size[k] / 2) for k in (0, 1)]
        if max(distance) < 1.0:
            if self._reached_end == 0:
                self._reached_end = time - CONTACT_SHIFT
            self._end_table_s = time - self._reached_end
            self.over = self._end_table_s >= DWELL
        elif self._end_table_s > 0 and max(distance) > LEAVING:
            self.over = True

    def touch_jump(self, board: int | None = None) -> None:
        """Any part of the robot touched a board: that jump is failed.

        `board` counts the course's boards in running order. Where it is not known which one (None), the first touch
        fails the jump nearest to the robot, or all of them before its first pose; later ones say nothing new.
        """
        boards = [i for i, obstacle in enumerate(self.course.obstacles) if obstacle.forbidden()]
        if board is not None:
            self.touched.add(boards[board])
        elif not self.touched_jump and boards:
            self.touched.update(boards if math.isnan(self._last[0]) else [min(boards, key=self._distance_to)])
        self.touched_jump = True

    def _distance_to(self, obstacle: int) -> float:
        """From the robot to the middle of what an obstacle forbids, m."""
        board = self.course.obstacles[obstacle].forbidden()
        assert board is not None
        return math.dist(self._last, board.center)

    def result(self) -> CourseScore:
        """The score of what was seen so far."""
        held = self._end_table_s >= DWELL
        obstacles: dict[str, ObstacleResult] = {}
        allotted, failed = 0.0, 0
        for i, (obstacle, passed) in enumerate(zip(self.course.obstacles, self.passed, strict=True)):
            completed = obstacle.completed(passed, held, i in self.touched)
            obstacles[obstacle.name] = ObstacleResult(completed, passed, len(obstacle.gates))
            allotted += obstacle.nominal_size / self.course.target_velocity if completed else 0.0
            failed += not completed
        spent = self._time - self._start_time if not math.isnan(self._start_time) else 0.0
        course_time = spent - self._end_table_s
        over = max(course_time - allotted, 0.0) if held else MAX_TIME
        if self.whole_seconds:
            over = math.floor(over + 2 * CONTACT_SHIFT)  # a run that is 3 s over is not 2.999999 s over
        score = 1.0 - over * PER_SECOND - PENALTY * failed
        progress = sum(self.passed) / sum(len(o.gates) for o in self.course.obstacles)
        return CourseScore(
            score, course_time, allotted, held, self.touched_jump, obstacles, self._end_table_s, self._path, progress,
            {name: list(times) for name, times in self.gate_times.items()},
        )  # fmt: skip


def outside(course: Course, x: float, y: float) -> bool:
    """Whether a robot at `x`, `y` (m) has left the course."""
    x0, y0, x1, y1 = course.area
    return max(x0 - x, x - x1, y0 - y, y - y1) > OUTSIDE


def passes(gate: Gate, before: Point, here: Point, moved: float) -> bool:
    """Whether the step from `before` to `here`, `moved` metres long, passes the gate."""
    if moved >= 2 * GATE_DISTANCE:
        return _crosses(before, here, gate.left, gate.right)
    return _distance(here, gate.left, gate.right) < GATE_DISTANCE


def _length(x: float, y: float) -> float:
    """Length of a vector, rounded as the official scorer rounds it (`math.hypot` differs in the last digit)."""
    return math.sqrt(x * x + y * y)


def _side(p: Point, q: Point, r: Point) -> int:
    value = float(q[1] - p[1]) * (r[0] - q[0]) - float(q[0] - p[0]) * (r[1] - q[1])
    return (value > 0) - (value < 0)


def _crosses(p1: Point, q1: Point, p2: Point, q2: Point) -> bool:
    return _side(p1, q1, p2) != _side(p1, q1, q2) and _side(p2, q2, p1) != _side(p2, q2, q1)


def _distance(p: Point, a: Point, b: Point) -> float:
    """Distance from a point to a segment, m."""
    sx, sy = b[0] - a[0], b[1] - a[1]
    t = ((p[0] - a[0]) * sx + (p[1] - a[1]) * sy) / (sx * sx + sy * sy)
    if t < 0:
        return _length(p[0] - a[0], p[1] - a[1])
    if t > 1:
        return _length(p[0] - b[0], p[1] - b[1])
    return _length(p[0] - (a[0] + t * sx), p[1] - (a[1] + t * sy))


def score_log(
    times: Iterable[float],
    positions: Iterable[Point],
    touched_jump: bool,
    course: Course,
    *,
    whole_seconds: bool = False,
) -> CourseScore:
    """Scores a recorded run: seconds, (x, y) in m, and whether the board was touched."""
    scorer = Scorer(course, whole_seconds=whole_seconds)
    if touched_jump:
        scorer.touch_jump()
    for time, (x, y) in zip(times, positions, strict=True):
        scorer.update(float(time), float(x), float(y))
    return scorer.result()


def score_file(path: Path, course: Course, *, touched_jump: bool = False, whole_seconds: bool = False) -> CourseScore:
    """Scores a pose log on disk. Raises `InputError` as `read_log` does, and where the log lies beside the course."""
    times, positions = read_log(path)
    if (outside := _far_outside(course, positions)) > FAR_OUTSIDE:
        raise InputError(
            f"{path} lies {outside:g} m outside the course '{course.name}': positions are metres, not mm or cm, in the "
            "course's frame"
        )
    return score_log(times, positions, touched_jump, course, whole_seconds=whole_seconds)


def score(options: ScoreOptions) -> ScoreReport:
    """What `barkour score` prints. Raises `InputError` for a log or course that cannot be read."""
    course = by_name(options.course)
    if options.touched_jump and not course.board_pieces():
        raise InputError(f"--touched-jump has no effect on the course '{course.name}', which has no jump")
    result = score_file(
        options.log, course, touched_jump=options.touched_jump, whole_seconds=options.whole_seconds
    )  # fmt: skip
    return ScoreReport.of({**result.to_dict(), "log": str(options.log), "course": course.name})


def read_log(path: Path) -> tuple[list[float], list[Point]]:
    """Times (s) and positions (m) of a pose log: lines of `time,x,y`, comments after `#`.

    Raises:
      InputError: not readable or too large, not three finite numbers a line, a position that is none, times running
        backwards or in another unit, fewer than two rows.
    """
    lines = re.split(r"\r\n|\n|\r", read_text(path, LARGEST_LOG, "the log"))
    times: list[float] = []
    positions: list[Point] = []
    for number, line in enumerate(lines, 1):
        text, _, comment = line.partition("#")
        if BREAKS.search(comment):  # what is behind it may be a row
            raise InputError(f"{path} line {number}: lines must end with LF or CR LF, also in comments")
        text = text.strip()
        if not text:
            continue
        try:
            if "_" in text or not text.isascii():  # Python would read 0_5 as 5
                raise ValueError
            time, x, y = (float(part) for part in text.split(","))
        except ValueError:
            if not times and re.fullmatch(r"[\w\s\"'(),\[\]/]+", text) and not re.search(r"\d", text):
                got = "a header: begin its line with #"
            else:
                got = f"'{text[:60]}'"
            raise InputError(f"{path} line {number}: expected the numbers 'time,x,y', got {got}") from None
        if not all(map(math.isfinite, (time, x, y))):
            raise InputError(f"{path} line {number}: a number is not finite")
        if max(abs(x), abs(y)) > FARTHEST:
            raise InputError(f"{path} line {number}: {x:g}, {y:g} m lies farther away than {FARTHEST:g} m")
        if times and time < times[-1]:
            raise InputError(f"{path} line {number}: time runs backwards, from {times[-1]} to {time}")
        times.append(time)
        positions.append((x, y))
    if len(times) < 2:
        raise InputError(f"{path} has {len(times)} rows: a run needs at least two")
    if wrong := _wrong_unit(times, positions):
        raise InputError(f"{path} {wrong}")
    return times, positions


def _wrong_unit(times: list[float], positions: list[Point]) -> str:
    """What no robot does if times are s and positions m; empty where the units may be right.

    A pose that hops or jitters is none of it: speeds are taken over 0.1 s, and their median.
    """
    lasting = times[-1] - times[0]
    if lasting > LONGEST_LOG:
        return f"lasts {lasting:g} s, {LONGEST_LOG:g} s are allowed: times are seconds, not ms or ns"
    if lasting == 0:
        return "has one time on all its rows: times are seconds"
    if lasting / (len(times) - 1) < SHORTEST_STEP:
        return f"has a row every {lasting / (len(times) - 1):g} s: times are seconds, not minutes or hours"
    speeds: list[float] = []
    before, here = times[0], positions[0]
    for time, position in zip(times, positions, strict=True):
        if time - before >= 0.1:
            speeds.append(math.dist(here, position) / (time - before))
            before, here = time, position
    moving = sorted(speed for speed in speeds if speed > 0)
    gone = sum(math.dist(a, b) for a, b in itertools.pairwise(positions))
    if gone > 0.5 and not speeds:
        return f"covers {gone:.1f} m in {lasting:g} s: times are seconds, not minutes or hours"
    if gone > 0.5 and moving and moving[-1] < SLOWEST:
        return f"never goes faster than {moving[-1]:g} m/s: times are seconds, not ms or ns"
    if moving and (middle := moving[len(moving) // 2]) > FASTEST:
        return f"goes at {middle:g} m/s: times are seconds, not minutes or hours, and positions metres"
    return ""


def _far_outside(course: Course, positions: list[Point]) -> float:
    """How far outside a course's area the middle one of the positions lies, m; 0 within."""
    lower_x, lower_y, upper_x, upper_y = course.area
    outside = sorted(
        math.hypot(max(lower_x - x, 0.0, x - upper_x), max(lower_y - y, 0.0, y - upper_y)) for x, y in positions
    )
    return outside[len(outside) // 2]


def write_log(path: Path, times: Iterable[float], positions: Iterable[Point], comment: str = "") -> None:
    """Writes a pose log that `read_log` and the official scorer read; whole or not at all."""
    rows = [f"{float(t)!r},{float(x)!r},{float(y)!r}" for t, (x, y) in zip(times, positions, strict=True)]
    head = " ".join(f"# time s, x m, y m{'; ' + comment if comment else ''}".split())
    try:
        with replacing(path) as partial:
            partial.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8", errors="backslashreplace")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write the log {path}: {getattr(error, 'strerror', None) or error}") from error
