"""Ground made of blocks and ramps on a flat floor at z = 0: one description for physics, heightfields and pictures.

World frame: x right, y up, z out of the floor, metres; yaw counter-clockwise in rad.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.planar import to_body


@dataclass(frozen=True)
class Block:
    """An upright box with a level top."""

    name: str
    center: tuple[float, float]
    size: tuple[float, float]
    """Edge lengths along its own x and y, m."""
    top: float
    bottom: float = 0.0
    yaw: float = 0.0

    def surface(self, along: np.ndarray) -> np.ndarray:
        """Height of the top at distance `along` (m) from the centre, measured along its own x axis."""
        return np.full_like(along, self.top)


@dataclass(frozen=True)
class Ramp:
    """A sloped deck: its surface rises linearly along its own +x from `z_start` to `z_end`."""

    name: str
    center: tuple[float, float]
    size: tuple[float, float]
    """Length in plan along its own x, and width, m."""
    z_start: float
    z_end: float
    yaw: float = 0.0
    deck: bool = False
    """Covered for grip, as an A-frame is: its own friction counts, not the feet's."""

    @property
    def pitch(self) -> float:
        """Slope angle, rad, positive when it rises along its own +x."""
        return float(np.arctan2(self.z_end - self.z_start, self.size[0]))

    def surface(self, along: np.ndarray) -> np.ndarray:
        """Height of the deck at distance `along` (m) from the centre, measured along its own x axis."""
        return self.z_start + (along / self.size[0] + 0.5) * (self.z_end - self.z_start)


Piece = Block | Ramp

PIT_DEPTH, PIT_CELL = 0.4, 0.1
"""How forbidden ground looks to a policy: as a pit this deep, m, in cells of this size, m."""


def pit(xp: Namespace, along: Array, across: Array, half_length: Array, half_width: Array) -> Array:
    """Depth at which a board is seen at points `along`, `across` (m) from its middle, in its own axes, `[...]`.

    A cell around the point shows the mean over its area, so depth rises linearly over a cell at each edge and tells
    where in the cell the edge is. (Policies that jump are shown the broad jump's board as a gap in the ground, as the
    paper's heightfields show it: arXiv 2305.14654, section IV.)
    """
    shares = [
        xp.clip((half - xp.abs(at)) / PIT_CELL + 0.5, 0.0, xp.minimum(1.0, 2 * half / PIT_CELL))
        for at, half in ((along, half_length), (across, half_width))
    ]
    return PIT_DEPTH * shares[0] * shares[1]


def footprint(piece: Piece) -> np.ndarray:
    """The four corners of a piece seen from above, `[4, 2]`, counter-clockwise, m."""
    half = 0.5 * np.array(piece.size)
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    c, s = np.cos(piece.yaw), np.sin(piece.yaw)
    return corners @ np.array([[c, s], [-s, c]]) + np.array(piece.center)


def own_axes(center: tuple[float, float], yaw: float, x: Array, y: Array) -> tuple[Array, Array]:
    """World points `x`, `y` (m) along and across something that stands at `center` (m) and points along `yaw` (rad)."""
    return to_body(x - center[0], y - center[1], yaw)


@dataclass(frozen=True)
class Terrain:
    """Pieces on an endless flat floor; where they overlap the highest surface is the ground."""

    pieces: tuple[Piece, ...] = ()

    def __post_init__(self) -> None:
        for piece in self.pieces:
            values = [*piece.center, *piece.size, piece.yaw]
            if not np.isfinite(values).all() or min(piece.size) <= 0:
                raise InputError(f"terrain piece '{piece.name}' needs finite numbers and positive sizes, got {piece}")

    @cached_property
    def _reaches(self) -> list[tuple[Piece, float, float, float]]:
        """Each piece with its middle and how far it reaches from there at most, m."""
        return [(piece, *piece.center, 0.51 * math.hypot(*piece.size)) for piece in self.pieces]

    def _near(self, x: np.ndarray, y: np.ndarray) -> list[Piece]:
        """Pieces that may lie under one of these points; all where a point is not a number."""
        left, right, below, above = float(x.min()), float(x.max()), float(y.min()), float(y.max())
        return [
            piece
            for piece, at_x, at_y, reach in self._reaches
            if not (at_x + reach < left or at_x - reach > right or at_y + reach < below or at_y - reach > above)
        ]

    def height(self, x: Array, y: Array) -> np.ndarray:
        """Ground height at world points.

        Args:
          x, y: m, any common shape.

        Returns:
          z of the ground, m, float64, same shape.
        """
        x, y = np.broadcast_arrays(np.asarray(x, np.float64), np.asarray(y, np.float64))
        ground = np.zeros(x.shape)
        for piece in self._near(x, y) if x.size else ():
            along, across = own_axes(piece.center, piece.yaw, x, y)
            inside = (np.abs(along) <= piece.size[0] / 2) & (np.abs(across) <= piece.size[1] / 2)
            ground = np.where(inside, np.maximum(ground, piece.surface(along)), ground)
        return ground


@dataclass(frozen=True, eq=False)
class HeightMap:
    """A terrain sampled on a regular grid: nearest-cell lookup in constant time, for numpy and jax alike."""

    lower: tuple[float, float]
    """World x and y of the first cell's centre, m."""
    resolution: float
    cells: Array
    """Heights, float32 `[nx, ny]`, m."""

    @classmethod
    def from_terrain(
        cls, terrain: Terrain, lower: tuple[float, float], upper: tuple[float, float], resolution: float = 0.02
    ) -> "HeightMap":
        """Samples `terrain` at cell centres from `lower` to `upper` (m); outside, lookups see the border cells."""
        x = np.arange(lower[0], upper[0] + resolution / 2, resolution)
        y = np.arange(lower[1], upper[1] + resolution / 2, resolution)
        cells = np.zeros((len(x), len(y)), np.float32)
        for piece in terrain.pieces:  # only the cells under a piece, so that many small pieces stay cheap
            corners = footprint(piece)
            i0, j0 = np.maximum(np.floor((corners.min(0) - lower) / resolution).astype(int), 0)
            i1, j1 = np.maximum(np.ceil((corners.max(0) - lower) / resolution).astype(int) + 1, 0)
            window = np.ix_(range(i0, min(i1, len(x))), range(j0, min(j1, len(y))))
            if window[0].size and window[1].size:
                here = Terrain((piece,)).height(x[window[0]], y[window[1]])
                cells[window] = np.maximum(cells[window], here)
        return cls((float(lower[0]), float(lower[1])), float(resolution), cells)

    def height(self, x: Array, y: Array, xp: Namespace = np) -> Array:
        """Height of the cell nearest to each point; `x`, `y` in m, any common shape; `xp` is numpy or jax.numpy."""
        i = xp.clip(xp.round((x - self.lower[0]) / self.resolution).astype(xp.int32), 0, self.cells.shape[0] - 1)
        j = xp.clip(xp.round((y - self.lower[1]) / self.resolution).astype(xp.int32), 0, self.cells.shape[1] - 1)
        return self.cells[i, j]
