"""The Barkour course as data: obstacles with their geometry, start, area, default route.

World frame: x right, y up, z out of the floor, metres; yaw counter-clockwise from +x, rad. From a `Course` come the
physics scene, the ground heights that policies see, the gates that the score counts and the route. The kinds of
obstacles stand in `sim.course.obstacles`; files are read and written by `sim.course.files`.

Sources of the official figures:
  [scorer] brax.experimental.barkour.score_barkour: gates, nominal sizes, end table, times.
  [scene]  mujoco_menagerie scene_barkour.xml: tables, pole positions, board, start pose.
  [paper]  arXiv 2305.14654: 5 m x 5 m area, A-frame slope 30 degrees, target velocity.
  derived: arithmetic on those; assumed: not published, our choice.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from sim.course.obstacles import (
    KINDS,
    AFrame,
    AFrameObstacle,
    Board,
    BroadJump,
    EndTable,
    Gate,
    Obstacle,
    Pole,
    StartTable,
    Table,
    WeavePoles,
    kind_of,
)
from sim.course.obstacles.base import require
from sim.course.terrain import Block, Terrain, footprint

__all__ = [
    "OBSTACLES", "SKILLS", "AFrame", "AFrameObstacle", "Board", "BroadJump", "Course", "EndTable", "Gate", "Obstacle",
    "Pole", "StartTable", "Table", "Waypoint", "WeavePoles", "convex_overlap", "official",
]  # fmt: skip

SKILLS = ("walk", "climb", "jump")
MOST_SOLIDS = 200
"""No course has more poles, tables, boards and ramps: to plan a route among them takes seconds."""
FASTEST = 20.0
"""No waypoint is asked for at a higher speed, m/s: the fastest legged robots make half of it."""
OBSTACLES = ("start table", "weave poles", "a frame", "jump", "end table")
"""The official scorer's names, in running order."""


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


TARGET_VELOCITY = 1.69
"""Of the paper's robot, m/s."""


@dataclass(frozen=True)
class Course:
    """A whole course: a start table, an end table, and any number of other obstacles.

    Construction numbers obstacles of the same name (`jump`, `jump 2`), checks that the course makes sense and raises
    `InputError` where it does not.
    """

    name: str
    obstacles: tuple[Obstacle, ...]
    """In running order."""
    start: tuple[float, float, float]
    """Start pose of the base: x, y (m), yaw (rad)."""
    extra_poles: tuple[Pole, ...] = ()
    """Poles that stand on the course and belong to no obstacle."""
    route: tuple[Waypoint, ...] = ()
    target_velocity: float = TARGET_VELOCITY
    """m/s; sets the allotted times [paper]."""
    area: tuple[float, float, float, float] = field(default=(0.0, -5.0, 5.0, 0.0))
    """Floor of the course: lower x, lower y, upper x, upper y, m."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "obstacles", numbered(self.obstacles))
        check(self)

    def changed(self, name: str, /, **changes: Any) -> "Course":
        """A copy in which the obstacle of that name has other fields. Raises `InputError` if there is none."""
        require(name in [o.name for o in self.obstacles], f"the course '{self.name}' has no obstacle '{name}'")
        obstacles = tuple(replace(o, **changes) if o.name == name else o for o in self.obstacles)
        return replace(self, obstacles=obstacles)

    def of(self, kind: type[Obstacle]) -> list[Any]:
        """Its obstacles of a kind."""
        return [obstacle for obstacle in self.obstacles if isinstance(obstacle, kind)]

    @property
    def start_table(self) -> Table:
        """Where a run begins."""
        return self.of(StartTable)[0].table

    @property
    def end_table(self) -> Table:
        """Where a run ends."""
        return self.of(EndTable)[0].table

    @property
    def poles(self) -> tuple[Pole, ...]:
        """All poles, those of obstacles first."""
        return (*(pole for obstacle in self.obstacles for pole in obstacle.standing_poles), *self.extra_poles)

    @property
    def a_frame(self) -> AFrame | None:
        """The first A-frame; None without one."""
        return next((obstacle.frame for obstacle in self.of(AFrameObstacle)), None)

    @property
    def board(self) -> Board | None:
        """The first broad jump's board; None without one."""
        return next((obstacle.board for obstacle in self.of(BroadJump)), None)

    def terrain(self) -> Terrain:
        """What of the obstacles is ground, the tables first (boards are separate: `board_pieces`)."""
        return Terrain(tuple(piece for obstacle in self._tables_first() for piece in obstacle.pieces()))

    def board_pieces(self) -> tuple[Block, ...]:
        """What must not be touched, in running order."""
        return tuple(board for obstacle in self.obstacles if (board := obstacle.forbidden()))

    def height(self, x: np.ndarray | float, y: np.ndarray | float) -> np.ndarray:
        """Ground height at world points, m, boards included; vectorised."""
        return self.whole.height(x, y)

    @cached_property
    def whole(self) -> Terrain:
        """Ground and boards: made once, as every control step looks at it."""
        return Terrain((*self.terrain().pieces, *self.board_pieces()))

    def pit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Depth at which a jumping policy sees boards at world points, m, 0 elsewhere (`sim.course.terrain.pit`)."""
        pits = [pit for obstacle in self.obstacles if (pit := obstacle.pit(x, y)) is not None]
        return np.maximum.reduce(pits) if pits else np.zeros(np.shape(x))

    def _tables_first(self) -> list[Obstacle]:
        return sorted(self.obstacles, key=lambda o: 0 if o.STARTS_CLOCK else 1 if o.ENDS_RUN else 2)


def numbered(obstacles: tuple[Obstacle, ...]) -> tuple[Obstacle, ...]:
    """Obstacles with names of their own: of several that are called the same, the later ones get a number from 2 on."""
    taken, seen, named = {o.name for o in obstacles}, set(), []
    for obstacle in obstacles:
        name, number = obstacle.name, 2
        while name in seen or number > 2 and name in taken:
            name, number = f"{obstacle.name} {number}", number + 1
        seen.add(name)
        named.append(obstacle if name == obstacle.name else replace(obstacle, name=name))
    return tuple(named)


# --- checks ---------------------------------------------------------------------------------------------------------


def check(course: Course) -> None:
    """Raises `InputError` with one sentence if the course cannot be run or scored."""
    _check_finite("course", course)
    require(course.name.isprintable(), f"the course's name holds a control character: {course.name[:40]!r}")
    require(0 < len(course.name) <= 200, f"the course's name has {len(course.name)} characters, 1 to 200 are allowed")
    for obstacle in course.obstacles:
        known = f"unknown obstacle '{obstacle.name}': known are {', '.join(KINDS)}"
        require(kind_of(obstacle.name) is not None, known)
    for kind in KINDS.values():
        count = len(course.of(kind))
        require(not kind.ONCE or count == 1, f"a course needs one '{kind.KIND}', got {count}")
    require(course.target_velocity > 0, f"target_velocity must be positive, got {course.target_velocity}")
    for obstacle in course.obstacles:
        obstacle.check()
    for i, pole in enumerate(course.poles):
        positive = pole.radius > 0 and pole.height > 0
        require(positive, f"pole {i + 1} needs positive radius and height, got {pole.radius} and {pole.height}")
    lower_x, lower_y, upper_x, upper_y = course.area
    require(
        lower_x < upper_x and lower_y < upper_y,
        f"the area must be lower x, lower y, upper x, upper y with lower below upper, got {course.area}",
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
        require(bool(np.isfinite(value)), f"'{where}' must be a finite number, got {value}")


def _solids(course: Course) -> list[tuple[str, np.ndarray]]:
    """Name and footprint `[4, 2]` of everything that stands on the floor."""
    solids = [solid for obstacle in course._tables_first() for solid in obstacle.footprints()]
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
    require(len(solids) <= MOST_SOLIDS, f"a course has {MOST_SOLIDS} things on its floor at most, got {len(solids)}")
    shapes = np.stack([shape for _, shape in solids])
    centers = shapes.mean(1)
    reach = np.linalg.norm(shapes - centers[:, None], axis=2).max(1)
    for i, (name, shape) in enumerate(solids):
        apart = np.linalg.norm(centers[i + 1 :] - centers[i], axis=1)
        for j in i + 1 + np.flatnonzero(apart < reach[i + 1 :] + reach[i] + 1e-6):
            require(not convex_overlap(shape, solids[j][1]), f"'{name}' and '{solids[j][0]}' overlap")


def _check_route(course: Course) -> None:
    places = [("the start", course.start[0], course.start[1])]
    for i, w in enumerate(course.route):
        label = f"waypoint {i + 1}"
        require(w.skill in SKILLS, f"{label} has the unknown skill '{w.skill}': known are {', '.join(SKILLS)}")
        positive = w.speed > 0 and w.tolerance > 0
        require(positive, f"{label} needs positive speed and tolerance, got {w.speed} and {w.tolerance}")
        require(w.speed <= FASTEST, f"{label} needs a speed of at most {FASTEST:g} m/s, got {w.speed}")
        places.append((label, w.x, w.y))
    for label, x, y in places:
        for i, pole in enumerate(course.poles):
            inside = float(np.hypot(x - pole.x, y - pole.y)) < pole.radius
            require(not inside, f"{label} at ({x}, {y}) is inside pole {i + 1}")


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
            StartTable("start table", 1.0, (Gate((1.4, 0.0), (1.4, -0.7)),), Table((0.5, -0.5))),
            WeavePoles(
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
                tuple(Pole(x, y) for x, y in ((1.7, -0.7), (2.5, -0.5), (3.2, -0.7), (3.8, -0.5), (4.3, -0.7))),
            ),
            AFrameObstacle(
                "a frame",
                6.0,
                (
                    Gate((4.35, -2.0), (3.65, -1.1)),
                    Gate((2.92, -3.0), (2.22, -2.1)),
                    Gate((1.5, -4.0), (0.8, -3.1)),
                ),
                frame,
            ),
            BroadJump(
                "jump", 4.0, (Gate((1.7, -4.0), (1.7, -5.0)), Gate((3.7, -4.0), (3.7, -5.0))), Board((2.75, -4.5))
            ),
            EndTable("end table", 1.0, (Gate((4.1, -4.0), (4.1, -5.0)),), Table((4.5, -4.5))),
        ),
        start=(0.5, -0.5, 0.0),
    )
