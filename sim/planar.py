"""Angles and rotations in the plane, for numpy and jax alike; yaw counter-clockwise in rad."""

from typing import Any

import numpy as np


def wrap(angle: Any) -> Any:
    """An angle in [-pi, pi) that differs by whole turns, rad, any shape."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def to_body(x: Any, y: Any, yaw: Any, xp: Any = np) -> tuple[Any, Any]:
    """Vectors of the world as forward and leftward parts for something with that heading; any common shape."""
    c, s = xp.cos(yaw), xp.sin(yaw)
    return c * x + s * y, c * y - s * x


def to_world(forward: Any, left: Any, yaw: Any, xp: Any = np) -> tuple[Any, Any]:
    """The inverse of `to_body`: x and y parts in the world."""
    c, s = xp.cos(yaw), xp.sin(yaw)
    return c * forward - s * left, s * forward + c * left
