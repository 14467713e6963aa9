"""Random courses that are fair: the official obstacles in another order, at other places and headings. numpy only.

A course grows along the run, on a plane without borders: start table, the three obstacles in random order, end table.
Each piece is put down a step ahead of the one before; one that stands in a way, or makes the course larger than its
area, is drawn again. The finished course is moved into the area. Frame and units as in `sim.course.description`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from sim.course.description import AFrame, Board, Course, Gate, Obstacle, Pole, Table, convex_overlap
from sim.course.terrain import Block, footprint
from sim.errors import InputError
from sim.planar import wrap

AREA = (0.0, -5.0, 5.0, 0.0)
OVERHANG, WAY_OVERHANG = 0.35, 0.75
"""Obstacles, and the ways between and past them, may reach this far over the area's border, m; the run at the board
stays inside."""
LARGEST_SEED = 2**32 - 1
TRIES, PATIENCE, DRAWS, BRANCHES = 1000, 50, 24, 2
"""Courses begun before giving up, and before another order and number of poles are drawn; see `_grow`."""

POLES = 3, 6
POLE_GAP = 0.54, 0.83
"""Distance between the feet of two neighbouring poles, m (official: 0.539 to 0.825)."""
POLE_ASIDE = 0.1
"""Poles stand this far left and right of their line in turns, m (official)."""
OPEN_GATE = 0.7
"""Width of the gates between a pole and the open, and of the start table's, m (official)."""
BOARD_LENGTH = 0.3, 0.5
SLOPE = np.deg2rad(20.0), np.deg2rad(30.0)
BEFORE_BOARD, BEHIND_BOARD = 0.8, 0.7
"""From the jump's first gate to the board and from the board to the last gate, m (official)."""
RUN_UP = 0.85
"""Free way before the jump's first gate, m: with `BEFORE_BOARD` a run-up of 1.65 m (official: 1.55)."""
STOP = 0.9
"""Free way behind the jump's last gate, m, where no table follows."""
TABLE_BEHIND = 0.9, 1.2
"""From the board's far edge to a table that follows, m (official: 1.0)."""
FOOT = 0.5
"""Free way before and behind the A-frame, m."""
AFTER_START = 1.1
"""Least distance of all other gates from the start table's middle along the way off it, m (official: 1.2)."""
STEP = 0.05, 1.3
"""From the end of one piece's way to the beginning of the next one's, m."""
SHARPEST = np.deg2rad(145.0)
"""Largest change of heading from one obstacle to the next (official)."""
WAY, WEAVE_WAY = 0.38, 0.75
"""Half width of what is kept free along the way and around the line of poles, m."""
NOMINAL_SIZES = {"start table": 1.0, "weave poles": 6.0, "a frame": 6.0, "jump": 4.0, "end table": 1.0}
"""Metres (official)."""


@dataclass(frozen=True, eq=False)
class Piece:
    """An obstacle that has been put down. Points `[2]` and quadrilaterals `[4, 2]` in m, headings in rad."""

    parts: dict[str, object]
    """Fields of `Course`."""
    obstacle: Obstacle
    entry: np.ndarray
    heading: float
    """On entering."""
    exit: np.ndarray
    leaving: float
    """Heading on leaving."""
    solids: list[np.ndarray]
    """What others' ways must not cross."""
    ways: list[np.ndarray] = field(default_factory=list)
    """What others' solids must leave free; the ways of the run from this piece to the next ones are added."""
    run: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    """Points that must lie inside the area."""

    @cached_property
    def shifts(self) -> tuple[np.ndarray, np.ndarray]:
        """Least and largest shift `[2]` along x and y that brings this piece into the area, m."""
        low, high = np.full(2, -np.inf), np.full(2, np.inf)
        for shapes, over in ((self.solids, OVERHANG), (self.ways, WAY_OVERHANG), ([self.run], 0.0)):
            points = np.concatenate(shapes)
            if len(points):
                low = np.maximum(low, np.array(AREA[:2]) - over - points.min(0))
                high = np.minimum(high, np.array(AREA[2:]) + over - points.max(0))
        return low, high


def generate(seed: int) -> Course:
    """The random course of a seed from 0 to 2^32 - 1, named `generated:SEED`; equal seeds give equal courses.

    All five obstacles; weave poles, A-frame and jump in random order and at random headings; 3 to 6 poles (6 seldom
    find room) with gaps no narrower than the official ones, passed first on a random side; a board of 0.3 to 0.5 m with
    a run-up of at least 1.55 m; an A-frame of 20 to 30 degrees. Gates are made as the official ones, nominal sizes are
    the official ones. The route is left to be planned.

    Raises:
      InputError: not such a seed, or no course found within `TRIES`.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"a generated course needs a seed from 0 to {LARGEST_SEED}, got {seed}")
    rng = np.random.default_rng(int(seed))
    for attempt in range(TRIES):
        if attempt % PATIENCE == 0:
            order = rng.permutation(["weave poles", "a frame", "jump"]).tolist()
            poles = int(rng.integers(POLES[0], POLES[1] + 1))
        pieces = _grow(rng, [_start_table(rng)], (*order, "end table"), poles)
        if pieces:
            try:
                return _course(f"generated:{seed}", pieces, rng.uniform(*_shifts(pieces)))
            except InputError:  # the course's own checks: another try
                continue
    raise InputError(f"no course was found for the seed {seed} within {TRIES} tries")


def _grow(rng: np.random.Generator, pieces: list[Piece], names: Sequence[str], poles: int) -> list[Piece]:
    """`pieces` and the named ones in running order; empty where one finds no place.

    Of `DRAWS` places for the next piece the `BRANCHES` that leave most room are followed.
    """
    if not names:
        return pieces
    drawn = (_next(rng, names[0], names[1:] == ("end table",), pieces[-1], poles) for _ in range(DRAWS))
    low, high = _shifts(pieces)
    roomy = [(_slack(low, high, piece), piece) for piece in drawn if piece is not None]
    roomy.sort(key=lambda pair: -pair[0])
    followed = 0
    for slack, piece in roomy:
        if slack <= 0 or followed == BRANCHES:
            break
        if _fits(piece, pieces):
            followed += 1
            grown = _grow(rng, [*pieces, piece], names[1:], poles)
            if grown:
                return grown
    return []


def _next(rng: np.random.Generator, name: str, last: bool, before: Piece, poles: int) -> Piece | None:
    """A piece a random step ahead of the one before, with the way there; None where the turn is too sharp."""
    if name == "end table" and before.obstacle.name == "jump":
        return _table_behind(rng, before)
    bearing = before.leaving + rng.uniform(-1.4, 1.4)
    entry = before.exit + rng.uniform(*STEP) * _unit(bearing)
    if name == "end table":
        return _end_table(before, entry, bearing)
    heading = bearing + rng.uniform(-1.6, 1.6)
    if name == "jump" and last:  # towards a table, squarely: it has no yaw
        heading = np.round(heading / (np.pi / 2)) * np.pi / 2 + rng.uniform(-0.06, 0.06)
    if abs(wrap(heading - before.leaving)) > SHARPEST:
        return None
    if name == "weave poles":
        piece = _weave_poles(rng, entry, heading, poles)
    elif name == "a frame":
        piece = _a_frame(rng, entry, heading)
    else:
        piece = _jump(rng, entry, heading, last)
    if before.obstacle.name == "start table":  # its gate comes before all others
        ends = np.array([end for gate in piece.obstacle.gates for end in (gate.left, gate.right)])
        if (ends @ _unit(before.leaving)).min() < AFTER_START:
            return None
    return replace(piece, ways=[*piece.ways, _lane(before.exit, entry, WAY)])


def _start_table(rng: np.random.Generator) -> Piece:
    yaw = int(rng.integers(4)) * np.pi / 2
    along = _unit(yaw)
    center, gate = np.zeros(2), _gate_across(0.9 * along, along, OPEN_GATE)
    obstacle = Obstacle("start table", NOMINAL_SIZES["start table"], (gate,))
    parts = {"start": (0.0, 0.0, float(wrap(yaw))), "start_table": Table((0.0, 0.0))}
    way = _lane(center, 1.15 * along, WAY)
    return Piece(parts, obstacle, center, yaw, 1.15 * along, yaw, [_table_corners(center)], [way])


def _weave_poles(rng: np.random.Generator, entry: np.ndarray, heading: float, count: int) -> Piece:
    """Poles in a line along `heading`; the first is passed on `side` (1: its left), the gaps from side to side."""
    along, side = _unit(heading), int(rng.choice([-1, 1]))
    across = side * _left(along)
    steps = np.sqrt(rng.uniform(*POLE_GAP, count - 1) ** 2 - (2 * POLE_ASIDE) ** 2)
    first = entry + 0.25 * along - 0.35 * across
    reach = np.concatenate([[0.0], np.cumsum(steps)])
    aside = 2 * POLE_ASIDE * (np.arange(count) % 2)
    poles = [first + r * along + a * across for r, a in zip(reach, aside, strict=True)]
    out = (1 if count % 2 == 0 else -1) * across  # the side reached by the last gate
    gates = [_gate(first + OPEN_GATE * across, first), *map(_gate, poles, poles[1:])]
    gates.append(_gate(poles[-1] + OPEN_GATE * along, poles[-1]))
    middle = first + POLE_ASIDE * across
    solid = _lane(middle - 0.1 * along, middle + (reach[-1] + 0.1) * along, 0.15)
    way = _lane(middle - 0.35 * along, middle + (reach[-1] + 0.6) * along, WEAVE_WAY)
    leave = gates[-1].center + 0.6 * out
    obstacle = Obstacle("weave poles", NOMINAL_SIZES["weave poles"], tuple(gates))
    parts: dict[str, object] = {"poles": tuple(Pole(float(x), float(y)) for x, y in poles)}
    return Piece(parts, obstacle, entry, heading, leave, float(np.arctan2(out[1], out[0])), [solid], [way])


def _a_frame(rng: np.random.Generator, entry: np.ndarray, heading: float) -> Piece:
    """An A-frame whose gates stand at its feet and its ridge, as wide as the official ones."""
    frame = AFrame((0.0, 0.0), float(wrap(heading)), slope=float(rng.uniform(*SLOPE)))
    along, half = _unit(heading), frame.half_length
    center = entry + (FOOT + half) * along
    gates = tuple(_gate_across(center + at * along, along, 1.14) for at in (-half, 0.0, half))
    leave = center + (half + FOOT) * along
    solid = _lane(center - half * along, center + half * along, frame.width / 2)
    ways = [_lane(entry, center, WAY), _lane(center, leave, WAY)]
    obstacle = Obstacle("a frame", NOMINAL_SIZES["a frame"], gates)
    parts: dict[str, object] = {"a_frame": replace(frame, center=_xy(center))}
    return Piece(parts, obstacle, entry, heading, leave, heading, [solid], ways)


def _jump(rng: np.random.Generator, entry: np.ndarray, heading: float, last: bool) -> Piece:
    """A board with its gates, its run-up and room to stop; where a table follows, the table is the room."""
    along, length = _unit(heading), float(rng.uniform(*BOARD_LENGTH))
    first = entry + RUN_UP * along
    center = first + (BEFORE_BOARD + length / 2) * along
    end = center + (length / 2 + BEHIND_BOARD) * along
    leave = end + (0.0 if last else STOP) * along
    board = Board(_xy(center), float(wrap(heading)), length)
    gates = tuple(_gate_across(at, along, 1.0) for at in (first, end))
    solid = _lane(center - length / 2 * along, center + length / 2 * along, board.width / 2)
    obstacle = Obstacle("jump", NOMINAL_SIZES["jump"], gates)
    return Piece(
        {"board": board}, obstacle, entry, heading, leave, heading, [solid], [_lane(entry, leave, WAY)],
        np.array([entry, end]),
    )  # fmt: skip


def _end_table(before: Piece, entry: np.ndarray, bearing: float) -> Piece:
    """A table that is walked onto squarely from `entry`, half a metre before its edge."""
    yaw = float(np.round(bearing / (np.pi / 2)) * np.pi / 2)
    along = _unit(yaw)
    center = entry + 1.0 * along
    return _table_piece(center, yaw, entry, [_lane(before.exit, entry, WAY), _lane(entry, center, WAY)])


def _table_behind(rng: np.random.Generator, jump: Piece) -> Piece:
    """A table straight behind the board."""
    yaw = float(np.round(jump.leaving / (np.pi / 2)) * np.pi / 2)
    center = jump.exit + (rng.uniform(*TABLE_BEHIND) - BEHIND_BOARD + 0.5) * _unit(jump.leaving)
    return _table_piece(center, yaw, jump.exit, [_lane(jump.exit, center, WAY)])


def _table_piece(center: np.ndarray, yaw: float, entry: np.ndarray, ways: list[np.ndarray]) -> Piece:
    """The end table with its gate 0.1 m behind the edge that is crossed (official)."""
    along = _unit(yaw)
    gate = _gate_across(center - 0.4 * along, along, 1.0)
    obstacle = Obstacle("end table", NOMINAL_SIZES["end table"], (gate,))
    corners = [_table_corners(center)]
    return Piece({"end_table": Table(_xy(center))}, obstacle, entry, yaw, center, yaw, corners, ways)


def _fits(piece: Piece, before: Sequence[Piece]) -> bool:
    """Whether a piece and the way to it leave the others' solids and ways free."""
    return not any(
        any(convex_overlap(solid, shape) for solid in piece.solids for shape in (*other.solids, *other.ways))
        or any(convex_overlap(way, solid) for way in piece.ways for solid in other.solids)
        for other in before
    )


def _shifts(pieces: Sequence[Piece]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest shift `[2]` along x and y that brings the pieces into the area, m."""
    return np.max([p.shifts[0] for p in pieces], 0), np.min([p.shifts[1] for p in pieces], 0)


def _slack(low: np.ndarray, high: np.ndarray, piece: Piece) -> float:
    """By how much the pieces before, movable by `low` to `high` `[2]`, could be moved with this one along the tighter
    of the area's axes, m; negative: too large."""
    return float((np.minimum(high, piece.shifts[1]) - np.maximum(low, piece.shifts[0])).min())


def _course(name: str, pieces: Sequence[Piece], shift: np.ndarray) -> Course:
    """The pieces as a course, moved by `shift`, figures in tenths of a millimetre."""
    parts: dict = {}
    for piece in pieces:
        parts |= piece.parts

    def moved(point: Sequence[float]) -> tuple[float, float]:
        return round(float(point[0] + shift[0]), 4), round(float(point[1] + shift[1]), 4)

    obstacles = tuple(
        replace(p.obstacle, gates=tuple(Gate(moved(g.left), moved(g.right)) for g in p.obstacle.gates)) for p in pieces
    )
    poles = tuple(Pole(*moved((p.x, p.y))) for p in parts["poles"])
    things = {k: replace(parts[k], center=moved(parts[k].center)) for k in ("start_table", "end_table", "a_frame")}
    start = (*moved(parts["start"][:2]), parts["start"][2])
    board = replace(parts["board"], center=moved(parts["board"].center))
    return Course(name=name, obstacles=obstacles, start=start, poles=poles, board=board, area=AREA, **things)


# --- small geometry ---------------------------------------------------------------------------------------------------


def _unit(angle: float) -> np.ndarray:
    return np.array([math.cos(angle), math.sin(angle)])


def _left(direction: np.ndarray) -> np.ndarray:
    return np.array([-direction[1], direction[0]])


def _xy(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _gate(left: np.ndarray, right: np.ndarray) -> Gate:
    return Gate(_xy(left), _xy(right))


def _gate_across(center: np.ndarray, along: np.ndarray, width: float) -> Gate:
    """A gate of that width across the way."""
    return _gate(center + width / 2 * _left(along), center - width / 2 * _left(along))


def _lane(start: np.ndarray, end: np.ndarray, half_width: float) -> np.ndarray:
    """A strip from one point to another, `[4, 2]`."""
    way = end - start
    aside = half_width / math.hypot(way[0], way[1]) * _left(way)
    return np.array([start - aside, end - aside, end + aside, start + aside])


def _table_corners(center: np.ndarray) -> np.ndarray:
    return footprint(Block("", _xy(center), (1.0, 1.0), 0.0))
