"""The navigator: from the robot's pose to velocity commands along a route. numpy only; it runs onboard.

A smooth path is laid through the waypoints once, with a speed profile that respects lateral and longitudinal acceleration
and the turning that headings ask for. Each step projects the pose on the path, steers along it with cross-track feedback,
limits the command to the policy's ranges and the command's acceleration, and advances a small state machine:
`following` -> `holding` at the last waypoint; `lost` (zero command) while the pose cannot be trusted.
The published formula (arXiv 2305.14654, appendix I) is not available; this is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.course import Course, Gate, Waypoint
from sim.errors import InputError
from sim.score import passes

SPACING = 0.02


@dataclass(frozen=True)
class Limits:
    """What may be commanded, and how fast it may change."""

    forward: tuple[float, float] = (-1.3, 1.8)
    """m/s in the base's heading frame."""
    sideways: tuple[float, float] = (-0.85, 0.85)
    yaw: tuple[float, float] = (-1.6, 1.6)
    acceleration: float = 4.0
    """Of the commanded planar velocity, m/s^2."""
    yaw_acceleration: float = 10.0
    lateral_acceleration: float = 2.2
    """v^2 times curvature of the path, m/s^2."""
    braking: float = 1.8
    """Change of speed along the path, m/s^2."""


@dataclass(frozen=True)
class Command:
    """What the policy is asked to do next."""

    velocity: np.ndarray
    """Forward and leftward velocity (m/s) and yaw rate (rad/s) in the heading frame, float32 `[3]`."""
    skill: str
    waypoint: int
    """Index of the waypoint that is being approached."""
    state: str
    """`following`, `holding` or `lost`."""
    reason: str = ""


def wrap(angle: np.ndarray | float) -> np.ndarray:
    """An angle in (-pi, pi]."""
    return -((-np.asarray(angle) + np.pi) % (2 * np.pi) - np.pi)


@dataclass(frozen=True, eq=False)
class Path:
    """A route sampled every 2 cm."""

    s: np.ndarray
    """Distance along it, m, `[n]`."""
    xy: np.ndarray
    tangent: np.ndarray
    yaw: np.ndarray
    """Heading wanted, rad, unwrapped."""
    yaw_slope: np.ndarray
    """Change of heading per metre."""
    speed: np.ndarray
    marks: np.ndarray
    """Distance of each waypoint along it, m; the start has none."""


def lay_path(start: tuple[float, float, float], route: Sequence[Waypoint], limits: Limits) -> Path:
    """A centripetal Catmull-Rom curve from the start pose through all waypoints, with headings and speeds."""
    knots = np.array([start[:2], *[(w.x, w.y) for w in route]])
    keep = np.concatenate([[True], np.linalg.norm(np.diff(knots, axis=0), axis=1) > 1e-3])
    points = knots[keep]
    if len(points) < 2:
        raise InputError("a route needs at least one waypoint away from the start")
    curve, knot_at = _catmull_rom(points)
    steps = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(curve, axis=0), axis=1))])
    s = np.arange(0.0, steps[-1], SPACING)
    xy = np.stack([np.interp(s, steps, curve[:, k]) for k in (0, 1)], 1)
    tangent = np.gradient(xy, SPACING, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    marks = steps[knot_at][np.cumsum(keep)[1:] - 1]
    headings = _headings(start, route, s, tangent, marks)
    speed = _speed_profile(route, s, tangent, headings, marks, limits)
    return Path(s, xy, tangent, headings, np.gradient(headings, SPACING), speed, marks)


def _catmull_rom(points: np.ndarray, samples: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """The curve `[m, 2]` through `points` and the index in it of each point."""
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


def _headings(
    start: tuple[float, float, float], route: Sequence[Waypoint], s: np.ndarray, tangent: np.ndarray, marks: np.ndarray
) -> np.ndarray:
    """Headings along the path: fixed at waypoints that name one, along the path at those that do not."""
    travel = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    at, wanted = [0.0], [start[2]]
    for waypoint, mark in zip(route, marks, strict=True):
        here = float(np.interp(mark, s, travel))
        yaw = here if waypoint.yaw is None else waypoint.yaw
        at.append(float(mark))
        wanted.append(wanted[-1] + float(wrap(yaw - wanted[-1])))
    heading = np.interp(s, at, wanted)
    width = max(1, int(0.3 / SPACING))
    padded = np.concatenate([np.full(width, heading[0]), heading, np.full(width, heading[-1])])
    return np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), "valid")


def _speed_profile(
    route: Sequence[Waypoint], s: np.ndarray, tangent: np.ndarray, heading: np.ndarray, marks: np.ndarray, limits: Limits
) -> np.ndarray:
    """Fastest speeds within waypoint speeds, command ranges, turning and acceleration; ends at rest."""
    index = np.minimum(np.searchsorted(marks, s), len(route) - 1)
    speed = np.array([w.speed for w in route])[index]
    curvature = np.linalg.norm(np.gradient(tangent, SPACING, axis=0), axis=1)
    speed = np.minimum(speed, np.sqrt(limits.lateral_acceleration / np.maximum(curvature, 1e-6)))
    turning = np.abs(np.gradient(heading, SPACING))
    speed = np.minimum(speed, 0.85 * limits.yaw[1] / np.maximum(turning, 1e-6))
    c, sn = np.cos(heading), np.sin(heading)
    forward = c * tangent[:, 0] + sn * tangent[:, 1]
    sideways = c * tangent[:, 1] - sn * tangent[:, 0]
    ahead = np.where(forward > 0, limits.forward[1], -limits.forward[0])
    across = np.where(sideways > 0, limits.sideways[1], -limits.sideways[0])
    speed = np.minimum(speed, ahead / np.maximum(np.abs(forward), 1e-6))
    speed = np.minimum(speed, across / np.maximum(np.abs(sideways), 1e-6))
    speed[-1] = 0.0
    for order in (range(len(s) - 2, -1, -1), range(1, len(s))):
        for i in order:
            neighbour = speed[i + 1] if order.step < 0 else speed[i - 1]
            first = order.step > 0 and i == 0
            if not first:
                speed[i] = min(speed[i], float(np.sqrt(neighbour**2 + 2 * limits.braking * SPACING)))
    return speed


class Navigator:
    """Follows one route. Call `step` once per control period with the newest pose."""

    REACTION = 0.12
    """Time by which the walker lags its command, s; the path is read that far ahead."""
    CROSS_TRACK, HEADING = 2.2, 3.0
    JUMP = 0.5
    """A pose that moves further than this between two steps (m) is not believed."""
    LOST_STEPS = 25

    def __init__(
        self,
        start: tuple[float, float, float],
        route: Sequence[Waypoint],
        limits: Limits = Limits(),
        gates: Sequence[Gate] = (),
    ) -> None:
        """`gates` are those to pass in order; a missed one is driven at again from before it."""
        self.route, self.limits, self.gates = tuple(route), limits, tuple(gates)
        self.path = lay_path(start, route, limits)
        self.gate_at = np.array([self._nearest(gate.center) for gate in self.gates])
        self.reset()

    def reset(self) -> None:
        """Back to the start of the route."""
        self.s = 0.0
        self.state = "following"
        self.command = np.zeros(3)
        self.passed = 0
        self.retries = 0
        self._last: np.ndarray | None = None
        self._distrusted = 0

    def _nearest(self, point: np.ndarray) -> float:
        return float(self.path.s[np.linalg.norm(self.path.xy - point, axis=1).argmin()])

    def step(self, pose: Sequence[float] | np.ndarray, dt: float) -> Command:
        """The command for the base at `pose` = (x, y, yaw) in the course frame (m, m, rad), `dt` s after the last."""
        pose = np.asarray(pose, float)
        reason = self._distrust(pose)
        if reason:
            self.command = np.zeros(3)
            return Command(np.zeros(3, np.float32), self._waypoint().skill, self._index(), "lost", reason)
        xy = pose[:2]
        self._progress(xy)
        self._watch_gates(xy)
        self._last = xy
        wanted = self._wanted(xy, float(pose[2]))
        self.command = self._limited(wanted, dt)
        return Command(self.command.astype(np.float32), self._waypoint().skill, self._index(), self.state)

    def _distrust(self, pose: np.ndarray) -> str:
        if pose.shape != (3,) or not np.isfinite(pose).all():
            return "the pose is not three finite numbers"
        if self._last is not None and np.linalg.norm(pose[:2] - self._last) > self.JUMP:
            self._distrusted += 1
            if self._distrusted < self.LOST_STEPS:
                return f"the pose jumped by {np.linalg.norm(pose[:2] - self._last):.2f} m"
        self._distrusted = 0
        return ""

    def _index(self) -> int:
        return int(min(np.searchsorted(self.path.marks, self.s + 1e-9), len(self.route) - 1))

    def _waypoint(self) -> Waypoint:
        return self.route[self._index()]

    def _progress(self, xy: np.ndarray) -> None:
        """Moves `s` to the nearest point of the path in a window ahead (never back)."""
        path = self.path
        i = int(self.s / SPACING)
        window = slice(i, min(i + int(0.5 / SPACING), len(path.s)))
        if window.stop > window.start:
            self.s = float(path.s[window.start + np.linalg.norm(path.xy[window] - xy, axis=1).argmin()])
        end = self.route[-1]
        remaining = np.linalg.norm(xy - (end.x, end.y))
        if self.s >= path.s[-1] - 0.3 and remaining < end.tolerance:
            self.state = "holding"
        elif self.state == "holding" and remaining > 3 * end.tolerance:
            self.state = "following"

    def _watch_gates(self, xy: np.ndarray) -> None:
        if self._last is None or self.passed >= len(self.gates):
            return
        before, here = (self._last[0], self._last[1]), (xy[0], xy[1])
        if passes(self.gates[self.passed], before, here, float(np.linalg.norm(xy - self._last))):
            self.passed += 1
        elif self.s > self.gate_at[self.passed] + 0.25 and self.retries < 8:
            self.s = max(self.gate_at[self.passed] - 0.25, 0.0)
            self.retries += 1

    def _wanted(self, xy: np.ndarray, yaw: float) -> np.ndarray:
        """Unlimited command in the heading frame."""
        path = self.path
        i = min(int(round(self.s / SPACING)), len(path.s) - 1)
        ahead = min(int(round((self.s + path.speed[i] * self.REACTION) / SPACING)), len(path.s) - 1)
        speed = max(path.speed[ahead], 0.15 if self.state == "following" else 0.0)
        error = path.xy[i] - xy
        if self.state == "holding" or i == len(path.s) - 1:
            velocity = 1.2 * (np.array([self.route[-1].x, self.route[-1].y]) - xy)
            speed = 0.0
        else:
            velocity = speed * path.tangent[ahead] + self.CROSS_TRACK * error
        turn = path.yaw_slope[ahead] * speed + self.HEADING * float(wrap(path.yaw[ahead] - yaw))
        c, s = np.cos(yaw), np.sin(yaw)
        planar = np.array([c * velocity[0] + s * velocity[1], c * velocity[1] - s * velocity[0]])
        if self.state == "holding":
            planar = np.where(np.abs(planar) < 0.08, 0.0, planar)
            turn = 0.0 if abs(turn) < 0.3 else turn
        return np.array([*planar, turn])

    def _limited(self, wanted: np.ndarray, dt: float) -> np.ndarray:
        """`wanted` within the command ranges (direction kept) and the acceleration limits."""
        limits = self.limits
        ranges = np.array([limits.forward, limits.sideways, limits.yaw])
        bound = np.where(wanted > 0, ranges[:, 1], -ranges[:, 0])
        scale = max(1.0, *(np.abs(wanted[:2]) / bound[:2]))
        wanted = np.array([wanted[0] / scale, wanted[1] / scale, np.clip(wanted[2], *limits.yaw)])
        change = wanted - self.command
        planar = np.linalg.norm(change[:2])
        if planar > limits.acceleration * dt:
            change[:2] *= limits.acceleration * dt / planar
        change[2] = np.clip(change[2], -limits.yaw_acceleration * dt, limits.yaw_acceleration * dt)
        return self.command + change


def course_navigator(course: Course, route: Sequence[Waypoint], limits: Limits = Limits()) -> Navigator:
    """A navigator for a course that drives again at weave gates it has missed."""
    gates = [gate for o in course.obstacles if o.name in ("start table", "weave poles") for gate in o.gates]
    return Navigator(course.start, route, limits, gates)
