"""Random courses that are fair: the official obstacles in another order, at other places and headings. numpy only.

A course grows along the run, on a plane without borders: start table, the three obstacles in random order, end table.
Each piece is put down a step ahead of the one before; one that stands in a way, or makes the course larger than its
area, is drawn again. The finished course is moved into the area. Frame and units as in `sim.course.description`.
"""

from collections.abc import Sequence

import numpy as np

from sim.course.description import Course, convex_overlap
from sim.course.obstacles import KINDS, EndTable, StartTable
from sim.course.placement import AREA, Placed
from sim.errors import InputError

LARGEST_SEED = 2**32 - 1
TRIES, PATIENCE, DRAWS, BRANCHES = 1000, 50, 24, 2
"""Courses begun before giving up, and before another order and number of poles are drawn; see `_grow`."""
BETWEEN = ["weave poles", "a frame", "jump"]
"""What stands between the tables, in some order."""
POLES = 3, 6


def generate(seed: int) -> Course:
    """The random course of a seed from 0 to 2^32 - 1, named `generated:SEED`; equal seeds give equal courses.

    All five obstacles; weave poles, A-frame and jump in random order and at random headings; 3 to 6 poles (6 seldom
    find room) with gaps no narrower than the official ones, passed first on a random side; a board of 0.3 to 0.5 m with
    a run-up of at least 1.55 m; an A-frame of 20 to 30 degrees. Gates are made as the official ones, nominal sizes are
    the official ones. The route is left to be planned.

    Raises:
      InputError: not such a seed, or no course found within `TRIES`.
    """
    return _found(f"generated:{seed}", BETWEEN, seed)


def short(kinds: Sequence[str], seed: int) -> Course:
    """A random course of some obstacles of `BETWEEN` between the tables, named `KIND+KIND:SEED`; see `generate`."""
    return _found(f"{'+'.join(kinds)}:{seed}", kinds, seed)


def _found(name: str, between: Sequence[str], seed: int) -> Course:
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed <= LARGEST_SEED:
        raise InputError(f"a generated course needs a seed from 0 to {LARGEST_SEED}, got {seed}")
    rng = np.random.default_rng(int(seed))
    for attempt in range(TRIES):
        if attempt % PATIENCE == 0:
            order = rng.permutation(between).tolist()
            poles = int(rng.integers(POLES[0], POLES[1] + 1))
        pieces = _grow(rng, [StartTable.first(rng)], (*order, EndTable.KIND), poles)
        if pieces:
            try:
                return _course(name, pieces, rng.uniform(*_shifts(pieces)))
            except InputError:  # the course's own checks: another try
                continue
    raise InputError(f"no course was found for the seed {seed} within {TRIES} tries")


def _grow(rng: np.random.Generator, pieces: list[Placed], names: Sequence[str], poles: int) -> list[Placed]:
    """`pieces` and the named ones in running order; empty where one finds no place.

    Of `DRAWS` places for the next piece the `BRANCHES` that leave most room are followed.
    """
    if not names:
        return pieces
    last = len(names) == 2
    drawn = (KINDS[names[0]].place(rng, pieces[-1], last, poles) for _ in range(DRAWS))
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


def _fits(piece: Placed, before: Sequence[Placed]) -> bool:
    """Whether a piece and the way to it leave the others' solids and ways free."""
    return not any(
        any(convex_overlap(solid, shape) for solid in piece.solids for shape in (*other.solids, *other.ways))
        or any(convex_overlap(way, solid) for way in piece.ways for solid in other.solids)
        for other in before
    )


def _shifts(pieces: Sequence[Placed]) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest shift `[2]` along x and y that brings the pieces into the area, m."""
    return np.max([p.shifts[0] for p in pieces], 0), np.min([p.shifts[1] for p in pieces], 0)


def _slack(low: np.ndarray, high: np.ndarray, piece: Placed) -> float:
    """By how much the pieces before, movable by `low` to `high` `[2]`, could be moved with this one along the tighter
    of the area's axes, m; negative: too large."""
    return float((np.minimum(high, piece.shifts[1]) - np.maximum(low, piece.shifts[0])).min())


def _course(name: str, pieces: Sequence[Placed], shift: np.ndarray) -> Course:
    """The pieces as a course, moved by `shift`, figures in tenths of a millimetre."""

    def moved(point: Sequence[float]) -> tuple[float, float]:
        return round(float(point[0] + shift[0]), 4), round(float(point[1] + shift[1]), 4)

    start = next(piece.start for piece in pieces if piece.start is not None)
    obstacles = tuple(piece.obstacle.moved(moved) for piece in pieces)
    return Course(name, obstacles, (*moved(start[:2]), start[2]), area=AREA)
