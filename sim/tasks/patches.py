"""The walker's training ground: periodic terrain patches of rising difficulty, side by side in one world.

Each patch repeats itself every `PERIOD` metres in x and y, and carries copies of its edges around it. A robot that
walks off one side is put back by whole periods and cannot tell, so every patch is endless and small.
"""

from dataclasses import dataclass

import numpy as np

from sim.arrays import Array, Namespace
from sim.course.terrain import Block, HeightMap, Piece, Ramp, Terrain

PERIOD = 6.0
MARGIN = 1.2
PITCH = 2 * MARGIN + PERIOD + 0.6
LEVELS = 6
KINDS = ("flat", "slope", "stairs", "blocks", "tables")
CLIMB_KINDS = ("flat", "ridges", "frames")
CELL = 0.75
MAX_SLOPE = np.deg2rad(16.0)
RIDGE_SLOPES = np.deg2rad(5.0), np.deg2rad(33.0)
LINES = 1.5
"""Tables and A-frames stand this far to both sides of a patch's middle line, m."""
DECK, FRAME_WIDTH = 2.0, 1.0
"""Length along its slope and width of an A-frame's deck, m (the official course's)."""
MAX_STEP = 0.11


def _clipped(piece: Piece, shift: tuple[float, float], name: str) -> Piece | None:
    """A copy of an axis-aligned piece moved by `shift`, cut to the patch and its margin; None if nothing is left."""
    reach = PERIOD / 2 + MARGIN
    center, half = np.array(piece.center) + shift, np.array(piece.size) / 2
    lower, upper = np.maximum(center - half, -reach), np.minimum(center + half, reach)
    if (upper - lower < 1e-6).any():
        return None
    middle, size = (lower + upper) / 2, upper - lower
    place = ((float(middle[0]), float(middle[1])), (float(size[0]), float(size[1])))
    if isinstance(piece, Block):
        return Block(name, *place, top=piece.top)
    ends = piece.surface(np.array([lower[0], upper[0]]) - center[0])
    return Ramp(name, *place, z_start=float(ends[0]), z_end=float(ends[1]), deck=piece.deck)


def periodic(pieces: list[Piece], name: str, origin: tuple[float, float]) -> list[Piece]:
    """The pieces of one period with the copies that reach into the margin, moved to `origin`."""
    shifts = [(i * PERIOD, j * PERIOD) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    copies = [_clipped(piece, shift, "") for piece in pieces for shift in shifts]
    placed: list[Piece] = []
    for copy in copies:
        if copy is not None:
            center = (copy.center[0] + origin[0], copy.center[1] + origin[1])
            fields = {**copy.__dict__, "name": f"{name} {len(placed)}", "center": center}
            placed.append(type(copy)(**fields))
    return placed


def pieces_of(kind: str, difficulty: float, seed: int = 0) -> list[Piece]:
    """One period of a kind of ground, `difficulty` 0 to 1.

    Slopes to 16 degrees, steps to 0.11 m; `ridges` without ends and `frames` of the official A-frame's size, both from
    5 to 33 degrees.
    """
    wide, step = PERIOD, 0.02 + difficulty * (MAX_STEP - 0.02)
    if kind == "flat":
        return []
    if kind == "slope":
        return _roof(2.25, wide, np.deg2rad(3.0) + difficulty * (MAX_SLOPE - np.deg2rad(3.0)))
    if kind in ("ridges", "frames"):
        angle = RIDGE_SLOPES[0] + difficulty * (RIDGE_SLOPES[1] - RIDGE_SLOPES[0])
        if kind == "ridges":
            return _roof(1.6, wide, angle, deck=True)
        return [ramp for y in (-LINES, LINES) for ramp in _roof(DECK * np.cos(angle), FRAME_WIDTH, angle, y, deck=True)]
    if kind == "stairs":
        return [Block("", (0.0, 0.0), (2 * (1.5 - 0.36 * k), wide), top=(k + 1) * step) for k in range(3)]
    if kind == "tables":
        return [Block("", (x, y), (1.0, 1.0), top=step) for x in (-LINES, LINES) for y in (-LINES, LINES)]
    rng = np.random.default_rng(seed)
    cells = np.arange(-PERIOD / 2 + CELL / 2, PERIOD / 2, CELL)
    heights = rng.uniform(0, step, (len(cells), len(cells)))
    return [
        Block("", (float(x), float(y)), (CELL, CELL), top=float(heights[i, j]))
        for i, x in enumerate(cells)
        for j, y in enumerate(cells)
        if heights[i, j] > 0.004
    ]


def _roof(length: float, width: float, angle: float, y: float = 0.0, deck: bool = False) -> list[Piece]:
    """Two ramps that meet in a ridge across x at 0, each `length` long on the map (m), `angle` in rad."""
    rise = float(length * np.tan(angle))
    up = Ramp("", (-float(length) / 2, y), (float(length), width), 0.0, rise, deck=deck)
    return [up, Ramp("", (float(length) / 2, y), (float(length), width), rise, 0.0, deck=deck)]


def eased(xp: Namespace, level: Array, chance: Array, choice: Array) -> Array:
    """The levels of new episodes: once the hardest is mastered, easier ground still comes up.

    `chance` and `choice` are uniform numbers in [0, 1), one of each for every world.
    """
    again = (level >= LEVELS - 1) & (chance < 0.3)
    return xp.where(again, xp.floor(choice * LEVELS), level)


@dataclass(frozen=True, eq=False)
class Patches:
    """All patches of the training ground."""

    terrain: Terrain
    heights: HeightMap
    origins: np.ndarray
    """Centre of each patch, `[kinds, LEVELS, 2]`, m."""


def make_patches(kinds: tuple[str, ...] = KINDS, resolution: float = 0.025) -> Patches:
    """Lays the patches out on a grid, kinds along x and levels along y."""
    pieces: list[Piece] = []
    origins = np.zeros((len(kinds), LEVELS, 2), np.float32)
    for i, kind in enumerate(kinds):
        for level in range(LEVELS):
            origin = (i * PITCH, level * PITCH)
            origins[i, level] = origin
            here = pieces_of(kind, level / (LEVELS - 1), seed=level)
            pieces += periodic(here, f"{kind} {level}", origin)
    terrain = Terrain(tuple(pieces))
    edge = PITCH / 2
    upper = ((len(kinds) - 1) * PITCH + edge, (LEVELS - 1) * PITCH + edge)
    return Patches(terrain, HeightMap.from_terrain(terrain, (-edge, -edge), upper, resolution), origins)
