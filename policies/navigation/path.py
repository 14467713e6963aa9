"""A route as a smooth reference: where to be, which way to face, and how fast.

A path runs through (x, y, RADIUS * yaw), so that turning on the spot is length as well and a walker that moves sideways
or turns where it stands needs no special case. numpy only; it runs onboard.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.course.description import Waypoint
from sim.errors import InputError
from sim.planar import to_body

SPACING = 0.01
"""m between two samples of a path: what a robot at 0.5 m/s covers in a step of 20 ms."""
SAMPLES = 40
"""Of the curve between two waypoints, before it is sampled evenly: dense beside `SPACING` where they are near."""
RADIUS = 0.25
"""m of path for a radian of turning: about the distance from the base to a foot."""
START_SPEED = 0.2
"""m/s from which speeds may grow: behind a place where a path nearly stops it must not creep. By hand."""


@dataclass(frozen=True)
class MotionLimits:
    """What may be commanded, and how fast it may change.

    The ranges lie within the walker's training ranges (`sim.tasks.skills`); `policies.skills.library.trained_limits`
    narrows them to a bundle's. "By hand" is said in `policies.navigation.navigator.Tuning`.
    """

    forward: tuple[float, float] = (-1.3, 2.2)
    """m/s in the base's heading frame."""
    sideways: tuple[float, float] = (-1.2, 1.2)
    """m/s, left is positive."""
    yaw: tuple[float, float] = (-2.4, 2.4)
    """rad/s."""
    acceleration: float = 6.0
    """m/s^2, of the commanded planar velocity: more than the walker makes, since it follows late. By hand."""
    yaw_acceleration: float = 16.0
    """rad/s^2, of the commanded yaw rate. By hand."""
    lateral_acceleration: float = 3.5
    """m/s^2: speed squared times the path's curvature. By hand."""
    braking: float = 3.0
    """m/s^2: change of speed along the path. By hand."""
    planned_yaw: float = 0.9
    """Share of `yaw` that a path's speed uses; the rest is for corrections of the heading. By hand."""
    planned_yaw_acceleration: float = 0.6
    """Share of `yaw_acceleration`, likewise."""


@dataclass(frozen=True, eq=False)
class Path:
    """A route in samples `SPACING` apart; frames and units of the course."""

    s: np.ndarray
    """Length along it, m, `[n]`; turning counts `RADIUS` per radian."""
    xy: np.ndarray
    tangent: np.ndarray
    """Change of `xy` per metre of path, `[n, 2]`: a unit vector where nothing turns."""
    yaw: np.ndarray
    """Heading wanted, rad, unwrapped."""
    yaw_slope: np.ndarray
    """Change of heading per metre of path."""
    speed: np.ndarray
    """Metres of path per second."""
    marks: np.ndarray
    """Length at each waypoint, m; the start has none."""

    @cached_property
    def time(self) -> np.ndarray:
        """Seconds to each sample when driven as planned, `[n]`."""
        mean = np.maximum((self.speed[1:] + self.speed[:-1]) / 2, 1e-2)
        return np.concatenate([[0.0], np.cumsum(SPACING / mean)])


def lay_path(start: tuple[float, float, float], route: Sequence[Waypoint], limits: MotionLimits) -> Path:
    """A centripetal Catmull-Rom curve from the start pose through all waypoints, with headings and speeds.

    Headings that waypoints leave open point along the way. Raises `InputError` if the route leads nowhere.
    """
    points = np.array([start[:2], *[(w.x, w.y) for w in route]], float)
    yaws = _headings(points, [start[2], *[w.yaw for w in route]])
    knots = np.concatenate([points, RADIUS * yaws[:, None]], 1)
    keep = np.concatenate([[True], np.linalg.norm(np.diff(knots, axis=0), axis=1) > 1e-3])
    if keep.sum() < 2:
        raise InputError("a route needs at least one waypoint away from the start")
    curve, knot_at = _catmull_rom(knots[keep])
    length = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    s = np.arange(0.0, length[-1] + SPACING / 2, SPACING)
    pose = np.stack([np.interp(s, length, curve[:, k]) for k in range(3)], 1) / [1, 1, RADIUS]
    slope = np.gradient(pose, SPACING, axis=0)
    marks = length[knot_at][np.cumsum(keep)[1:] - 1]
    speed = _speed_profile(route, s, pose, slope, marks, limits)
    return Path(s, pose[:, :2], slope[:, :2], pose[:, 2], slope[:, 2], speed, marks)


def _headings(points: np.ndarray, given: Sequence[float | None]) -> np.ndarray:
    """Heading at each point, unwrapped; open ones along the mean of the directions before and after."""
    steps = np.diff(points, axis=0)
    length = np.linalg.norm(steps, axis=1, keepdims=True)
    unit = np.where(length > 1e-6, steps / np.maximum(length, 1e-6), 0.0)
    around = np.concatenate([unit[:1], unit]) + np.concatenate([unit, unit[-1:]])
    yaws: list[float] = []
    for k, yaw in enumerate(given):
        if yaw is None:
            still = float(np.linalg.norm(around[k])) < 1e-6
            yaw = yaws[-1] if still and yaws else float(np.arctan2(around[k, 1], around[k, 0]))
        yaws.append(yaw)
    return np.unwrap(np.array(yaws))


def _catmull_rom(points: np.ndarray, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """The curve `[m, 3]` through `points` and the index in it of each point."""
    padded = np.concatenate([[2 * points[0] - points[1]], points, [2 * points[-1] - points[-2]]])
    pieces = []
    for p0, p1, p2, p3 in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        t = np.concatenate([[0], np.cumsum([np.linalg.norm(b - a) ** 0.5 for a, b in ((p0, p1), (p1, p2), (p2, p3))])])
        u = np.linspace(t[1], t[2], samples, endpoint=False)[:, None]
        a1 = (t[1] - u) / (t[1] - t[0]) * p0 + (u - t[0]) / (t[1] - t[0]) * p1
        a2 = (t[2] - u) / (t[2] - t[1]) * p1 + (u - t[1]) / (t[2] - t[1]) * p2
        a3 = (t[3] - u) / (t[3] - t[2]) * p2 + (u - t[2]) / (t[3] - t[2]) * p3
        b1 = (t[2] - u) / (t[2] - t[0]) * a1 + (u - t[0]) / (t[2] - t[0]) * a2
        b2 = (t[3] - u) / (t[3] - t[1]) * a2 + (u - t[1]) / (t[3] - t[1]) * a3
        pieces.append((t[2] - u) / (t[2] - t[1]) * b1 + (u - t[1]) / (t[2] - t[1]) * b2)
    return np.concatenate([*pieces, points[-1:]]), np.arange(len(points)) * samples


def _speed_profile(
    route: Sequence[Waypoint],
    s: np.ndarray,
    pose: np.ndarray,
    slope: np.ndarray,
    marks: np.ndarray,
    limits: MotionLimits,
) -> np.ndarray:
    """Fastest speeds within waypoint speeds, command ranges, turning and acceleration; ends at rest.

    Where the jumper drives, its waypoints' speed alone counts up to its last leg: a run at a board is neither braked
    nor eased, the command's own acceleration limit does the rest.
    """
    index = np.minimum(np.searchsorted(marks, s - SPACING / 2), len(route) - 1)
    planar = np.maximum(np.linalg.norm(slope[:, :2], axis=1), 1e-3)
    speed = np.array([w.speed for w in route])[index] / planar
    command = np.concatenate([to_heading_frame(slope[:, :2], pose[:, 2]), slope[:, 2:]], 1)
    ranges = np.array([limits.forward, limits.sideways, limits.yaw])
    bound = np.where(command > 0, ranges[:, 1], -ranges[:, 0]) * [1.0, 1.0, limits.planned_yaw]
    speed = np.minimum(speed, (bound / np.maximum(np.abs(command), 1e-6)).min(1))
    bend = np.linalg.norm(np.gradient(slope[:, :2], SPACING, axis=0), axis=1)
    spin = np.abs(np.gradient(slope[:, 2], SPACING))
    speed = np.minimum(speed, np.sqrt(limits.lateral_acceleration / np.maximum(bend, 1e-6)))
    turning = limits.planned_yaw_acceleration * limits.yaw_acceleration
    speed = np.minimum(speed, np.sqrt(turning / np.maximum(spin, 1e-6)))
    braking = np.minimum(limits.braking / planar, turning / np.maximum(np.abs(slope[:, 2]), 1e-6))
    jumps = [w.skill == "jump" for w in route]
    running = np.array([a and b for a, b in zip(jumps, [*jumps[1:], False], strict=True)])[index]
    speed[-1] = 0.0
    for i in range(len(s) - 2, -1, -1):
        if not running[i]:
            speed[i] = min(speed[i], float(np.sqrt(speed[i + 1] ** 2 + 2 * braking[i] * SPACING)))
    for i in range(1, len(s)):
        if not running[i]:
            speed[i] = min(speed[i], float(np.sqrt(max(speed[i - 1], START_SPEED) ** 2 + 2 * braking[i] * SPACING)))
    return speed


def to_heading_frame(vector: np.ndarray, yaw: np.ndarray | float) -> np.ndarray:
    """World vectors `[..., 2]` as forward and left of a base with that heading."""
    return np.stack(to_body(vector[..., 0], vector[..., 1], yaw), -1)
