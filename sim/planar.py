"""Angles and rotations in the plane, for numpy and jax alike; yaw counter-clockwise in rad."""

import math

import numpy as np

from sim.arrays import Array, Namespace


def wrap(angle: Array) -> Array:
    """An angle in [-pi, pi) that differs by whole turns, rad, any shape."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def to_body(x: Array, y: Array, yaw: Array, xp: Namespace = np) -> tuple[Array, Array]:
    """Vectors of the world as forward and leftward parts for something with that heading; any common shape."""
    c, s = xp.cos(yaw), xp.sin(yaw)
    return c * x + s * y, c * y - s * x


def place(x: Array, y: Array, yaw: Array, forward: Array, left: Array, xp: Namespace = np) -> tuple[Array, Array]:
    """World points so far ahead of and to the left of something that stands at `x`, `y` with that heading, m."""
    c, s = xp.cos(yaw), xp.sin(yaw)
    return x + c * forward - s * left, y + s * forward + c * left


def to_world(forward: Array, left: Array, yaw: Array, xp: Namespace = np) -> tuple[Array, Array]:
    """The inverse of `to_body`: x and y parts in the world."""
    c, s = xp.cos(yaw), xp.sin(yaw)
    return c * forward - s * left, s * forward + c * left


def from_segment(a: tuple[float, float], b: tuple[float, float], p: tuple[float, float]) -> float:
    """Distance of a point from the straight line between two others, all (x, y)."""
    dx, dy, px, py = b[0] - a[0], b[1] - a[1], p[0] - a[0], p[1] - a[1]
    length = dx * dx + dy * dy
    share = min(max((px * dx + py * dy) / length, 0.0), 1.0) if length > 0.0 else 0.0
    return math.hypot(px - share * dx, py - share * dy)
