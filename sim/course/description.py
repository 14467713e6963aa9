"""The Barkour course as data: obstacles, gates, poles, tables, ramps, board, default route.

World frame: x right, y up, z out of the floor, metres; yaw counter-clockwise from +x, rad. From a `Course` come the
physics scene, the ground heights that policies see, the gates that the score counts and the route. Files are read and
written by `sim.course.files`.

Sources of the official figures:
  [scorer] brax.experimental.barkour.score_barkour: gates, nominal sizes, end table, times.
  [scene]  mujoco_menagerie scene_barkour.xml: tables, pole positions, board, start pose.
  [paper]  arXiv 2305.14654: 5 m x 5 m area, A-frame slope 30 degrees, target velocity.
  derived: arithmetic on those; assumed: not published, our choice.
"""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from sim.course.terrain import Block, Piece, Ramp, Terrain, footprint, own_axes, pit
from sim.errors import InputError

SKILLS = ("walk", "climb", "jump")
OBSTACLES = ("start table", "weave poles", "a frame", "jump", "end table")
"""The official scorer's names, in running order."""


BERTH = 0.055
"""A board is shown to policies as a pit that is longer by this at both ends, m: feet come down within centimetres."""


@dataclass(frozen=True)
class Gate:
    """A segment that the base must cross: (x, y) of its left and right pole, m."""

    left: tuple[float, float]
    right: tuple[float, float]

    @property
    def center(self) -> np.ndarray:
        """Middle of the gate, `[2]`, m."""
        return (np.array(self.left) + np.array(self.right)) / 2


@dataclass(frozen=True)
class Obstacle:
    """A scored obstacle: complete when its gates are passed in order."""

    name: str
    nominal_size: float
    """Length of a typical trajectory over it, m; allotted time = this / target velocity."""
    gates: tuple[Gate, ...]


@dataclass(frozen=True)
class Table:
    """A square-cornered platform."""

    center: tuple[float, float]
    size: tuple[float, float] = (1.0, 1.0)
    height: float = 0.1


@dataclass(frozen=True)
class Pole:
    """An upright weave pole."""

    x: float
    y: float
    radius: float = 0.03
    height: float = 1.0


@dataclass(frozen=True)
class AFrame:
    """Two ramps that meet in a ridge; `yaw` is the direction of travel."""

    center: tuple[float, float]
    yaw: float
    ramp_length: float = 2.0
    """Length of each deck along its slope, m."""
    width: float = 1.0
    slope: float = float(np.deg2rad(30.0))

    @property
    def half_length(self) -> float:
        """Plan distance from ridge to foot, m."""
        return self.ramp_length * float(np.cos(self.slope))

    @property
    def apex(self) -> float:
        """Height of the ridge, m."""
        return self.ramp_length * float(np.sin(self.slope))


@dataclass(frozen=True)
class Board:
    """The broad jump: a thin board that must not be touched."""

    center: tuple[float, float]
    yaw: float = 0.0
    """Direction of the jump, rad."""
    length: float = 0.5
    width: float = 1.0
    thickness: float = 0.001


@dataclass(frozen=True)
class Waypoint:
    """A place on the route."""

    x: float
    y: float
    speed: float = 1.0
    """Planar speed wanted on the way to it, m/s."""
    skill: str = "walk"
    yaw: float | None = None
    """Heading to have there, rad; None faces along the route."""
    tolerance: float = 0.15
    """Distance at which it counts as reached, m."""


@dataclass(frozen=True)
class Course:
    """A whole course. Construction checks that it makes sense and raises `InputError` where it does not."""

    name: str
    obstacles: tuple[Obstacle, ...]
    start: tuple[float, float, float]
    """Start pose of the base: x, y (m), yaw (rad)."""
    start_table: Table
    end_table: Table
    poles: tuple[Pole, ...] = ()
    a_frame: AFrame | None = None
    board: Board | None = None
    route: tuple[Waypoint, ...] = ()
    target_velocity: float = 1.69
    """m/s; sets the allotted times [paper]."""
    area: tuple[float, float, float, float] = field(default=(0.0, -5.0, 5.0, 0.0))
    """Floor of the course: lower x, lower y, upper x, upper y, m."""

    def __post_init__(self) -> None:
        check(self)

    def terrain(self) -> Terrain:
        """Tables and A-frame as terrain pieces (the board is separate: `board_piece`)."""
        pieces: list[Piece] = [_table_block("start table", self.start_table), _table_block("end table", self.end_table)]
        if self.a_frame is not None:
            pieces += ramps(self.a_frame)
        return Terrain(tuple(pieces))

    def board_piece(self) -> Block | None:
        """The jump board as a terrain piece."""
        b = self.board
        return b and Block("jump board", b.center, (b.length, b.width), top=b.thickness, yaw=b.yaw)

    def height(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Ground height at world points, m, board included; vectorised."""
        board = self.board_piece()
        terrain = self.terrain()
        return Terrain(terrain.pieces + ((board,) if board else ())).height(x, y)

    def pit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth at which a jumping policy sees the board at world points, m, 0 elsewhere (`sim.course.terrain.pit`)."""
        b = self.board
        if b is None:
            return np.zeros(np.shape(x))
        return pit(np, *own_axes(b.center, b.yaw, x, y), b.length / 2 + BERTH, b.width / 2)


def _table_block(name: str, table: Table) -> Block:
    return Block(name, table.center, table.size, top=table.height)


def ramps(frame: AFrame) -> list[Piece]:
    """The two decks of an A-frame."""
    direction = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    half = frame.half_length
    first, second = (np.array(frame.center) + sign * half / 2 * direction for sign in (-1, 1))
    size = (half, frame.width)
    return [
        Ramp("a frame up", (float(first[0]), float(first[1])), size, 0.0, frame.apex, frame.yaw, deck=True),
        Ramp("a frame down", (float(second[0]), float(second[1])), size, frame.apex, 0.0, frame.yaw, deck=True),
    ]


# --- checks ---------------------------------------------------------------------------------------------------------


def check(course: Course) -> None:
    """Raises `InputError` with one sentence if the course cannot be run or scored."""
    _check_finite("course", course)
    names = [obstacle.name for obstacle in course.obstacles]
    for name in names:
        _require(name in OBSTACLES, f"unknown obstacle '{name}': known are {', '.join(OBSTACLES)}")
    _require(len(set(names)) == len(names), f"an obstacle is named twice: {names}")
    _require({"start table", "end table"} <= set(names), "a course needs the obstacles 'start table' and 'end table'")
    _require("jump" not in names or course.board is not None, "the obstacle 'jump' needs a board")
    _require("a frame" not in names or course.a_frame is not None, "the obstacle 'a frame' needs an a_frame")
    _require("weave poles" not in names or len(course.poles) > 0, "the obstacle 'weave poles' needs poles")
    _require(course.target_velocity > 0, f"target_velocity must be positive, got {course.target_velocity}")
    for obstacle in course.obstacles:
        _require(
            obstacle.nominal_size > 0, f"'{obstacle.name}' needs a positive nominal_size, got {obstacle.nominal_size}"
        )
        _require(len(obstacle.gates) > 0, f"'{obstacle.name}' needs at least one gate")
        for i, gate in enumerate(obstacle.gates):
            length = float(np.hypot(*(np.array(gate.left) - gate.right)))
            _require(length > 1e-6, f"gate {i + 1} of '{obstacle.name}' has zero length: {gate.left} to {gate.right}")
    for table in (course.start_table, course.end_table):
        _require(min(*table.size, table.height) > 0, f"a table needs positive size and height, got {table}")
    for i, pole in enumerate(course.poles):
        positive = pole.radius > 0 and pole.height > 0
        _require(positive, f"pole {i + 1} needs positive radius and height, got {pole.radius} and {pole.height}")
    lower_x, lower_y, upper_x, upper_y = course.area
    _require(
        lower_x < upper_x and lower_y < upper_y,
        f"the area must be lower x, lower y, upper x, upper y with lower below upper, got {course.area}",
    )
    if course.a_frame is not None:
        frame = course.a_frame
        _require(
            frame.ramp_length > 0 and frame.width > 0,
            f"the a_frame needs positive ramp_length and width, got {frame.ramp_length} and {frame.width}",
        )
        _require(0 < frame.slope < 1.2, f"a_frame slope must be between 0 and 1.2 rad, got {frame.slope}")
    if course.board is not None:
        _require(
            min(course.board.length, course.board.width, course.board.thickness) > 0,
            f"the board needs positive length, width and thickness, got {course.board}",
        )
    _check_overlaps(course)
    _check_route(course)


def _check_finite(where: str, value: Any) -> None:
    """Refuses NaN and infinity anywhere in a course, naming the key."""
    if is_dataclass(value):
        for f in fields(value):
            _check_finite(f"{where}.{f.name}", getattr(value, f.name))
    elif isinstance(value, tuple):
        for i, item in enumerate(value):
            _check_finite(f"{where}[{i}]", item)
    elif isinstance(value, float):
        _require(bool(np.isfinite(value)), f"'{where}' must be a finite number, got {value}")


def _require(condition: bool, sentence: str) -> None:
    if not condition:
        raise InputError(sentence)


def _solids(course: Course) -> list[tuple[str, np.ndarray]]:
    """Name and footprint `[4, 2]` of everything that stands on the floor."""
    solids = [(piece.name, footprint(piece)) for piece in course.terrain().pieces if not isinstance(piece, Ramp)]
    if course.a_frame is not None:
        f = course.a_frame
        solids.append(("a frame", footprint(Block("", f.center, (2 * f.half_length, f.width), 0.0, yaw=f.yaw))))
    board = course.board_piece()
    if board is not None:
        solids.append((board.name, footprint(board)))
    for i, p in enumerate(course.poles):
        solids.append((f"pole {i + 1}", footprint(Block("", (p.x, p.y), (2 * p.radius, 2 * p.radius), 0.0))))
    return solids


def convex_overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two convex quadrilaterals `[4, 2]` share area (separating axes)."""
    for shape in (a, b):
        edges = np.roll(shape, -1, 0) - shape
        for normal in np.stack([edges[:, 1], -edges[:, 0]], 1):
            pa, pb = a @ normal, b @ normal
            if pa.max() <= pb.min() + 1e-9 or pb.max() <= pa.min() + 1e-9:
                return False
    return True


def _check_overlaps(course: Course) -> None:
    solids = _solids(course)
    for i, (name, shape) in enumerate(solids):
        for other, other_shape in solids[i + 1 :]:
            _require(not convex_overlap(shape, other_shape), f"'{name}' and '{other}' overlap")


def _check_route(course: Course) -> None:
    places = [("the start", course.start[0], course.start[1])]
    for i, w in enumerate(course.route):
        label = f"waypoint {i + 1}"
        _require(w.skill in SKILLS, f"{label} has the unknown skill '{w.skill}': known are {', '.join(SKILLS)}")
        positive = w.speed > 0 and w.tolerance > 0
        _require(positive, f"{label} needs positive speed and tolerance, got {w.speed} and {w.tolerance}")
        places.append((label, w.x, w.y))
    for label, x, y in places:
        for i, pole in enumerate(course.poles):
            inside = float(np.hypot(x - pole.x, y - pole.y)) < pole.radius
            _require(not inside, f"{label} at ({x}, {y}) is inside pole {i + 1}")


# --- the official course --------------------------------------------------------------------------------------------


def official() -> Course:
    """The official course.

    Gates and nominal sizes [scorer]; tables 1 m x 1 m x 0.10 m, pole positions, board 0.5 m x 1.0 m x 1 mm, start
    pose [scene]; A-frame slope 30 degrees, target velocity, area [paper]. Derived: the A-frame's axis through its gate
    centres (heading -145 degrees) and its centre at the middle gate; two 2.0 m x 1.0 m decks, so that the apex is
    1.0 m and the feet, 2.0 cos 30 = 1.73 m from the ridge in plan, lie at the outer gates (1.74 m); the [scene]'s own
    frame stands 0.08 m beside this axis. Assumed: pole radius 0.03 m and height 1.0 m, not published. The route is
    planned from the gates (`policies.navigation.route`).
    """
    first, middle, last = np.array([4.0, -1.55]), np.array([2.57, -2.55]), np.array([1.15, -3.55])
    along = (last - first) / np.linalg.norm(last - first)
    frame = AFrame((float(middle[0]), float(middle[1])), float(np.arctan2(along[1], along[0])))
    return Course(
        name="official",
        obstacles=(
            Obstacle("start table", 1.0, (Gate((1.4, 0.0), (1.4, -0.7)),)),
            Obstacle(
                "weave poles",
                6.0,
                (
                    Gate((1.7, 0.0), (1.7, -0.7)),
                    Gate((2.5, -0.5), (1.7, -0.7)),
                    Gate((2.5, -0.5), (3.2, -0.7)),
                    Gate((3.8, -0.5), (3.2, -0.7)),
                    Gate((3.8, -0.5), (4.3, -0.7)),
                    Gate((5.0, -0.7), (4.3, -0.7)),
                ),
            ),
            Obstacle(
                "a frame",
                6.0,
                (
                    Gate((4.35, -2.0), (3.65, -1.1)),
                    Gate((2.92, -3.0), (2.22, -2.1)),
                    Gate((1.5, -4.0), (0.8, -3.1)),
                ),
            ),
            Obstacle("jump", 4.0, (Gate((1.7, -4.0), (1.7, -5.0)), Gate((3.7, -4.0), (3.7, -5.0)))),
            Obstacle("end table", 1.0, (Gate((4.1, -4.0), (4.1, -5.0)),)),
        ),
        start=(0.5, -0.5, 0.0),
        start_table=Table((0.5, -0.5)),
        end_table=Table((4.5, -4.5)),
        poles=tuple(Pole(x, y) for x, y in ((1.7, -0.7), (2.5, -0.5), (3.2, -0.7), (3.8, -0.5), (4.3, -0.7))),
        a_frame=frame,
        board=Board((2.75, -4.5)),
    )
