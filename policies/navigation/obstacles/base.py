"""What a way over an obstacle is planned from, how it is asked for, and turns between obstacles.

"By hand" is said in `policies.navigation.navigator.Tuning`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.navigation import weaving
from policies.navigation.paces import Paces
from policies.navigation.problem import Body
from sim.course.description import Course, Gate, Obstacle, StartTable, Waypoint
from sim.robots.footprint import Footprint

TURN_DISTANCE = 2.0
"""m: obstacles nearer than this are joined by a planned turn, others by the path's own curve. By hand."""
TURN_LEAST = 0.2
"""m: nearer than this there is nothing to plan. By hand."""
GATE_SHARE = 0.25
"""Share of a gate's width that a crossing keeps from its ends. By hand."""


@dataclass(frozen=True)
class RouteRequest:
    """A route to plan: over this course, for a robot with this outline, with these skills at these paces."""

    course: Course
    footprint: Footprint
    skills: tuple[str, ...]
    paces: Paces

    @property
    def body(self) -> Body:
        """The rectangle that is kept off poles."""
        return Body.of(self.footprint)

    def able(self, obstacle: Obstacle) -> bool:
        """Whether the skill that an obstacle asks for is there."""
        return obstacle.SKILL in self.skills

    def following(self, k: int) -> Obstacle | None:
        """The obstacle after number `k`."""
        obstacles = self.course.obstacles
        return obstacles[k + 1] if k + 1 < len(obstacles) else None


class Way:
    """The way over an obstacle that asks for nothing: through its gates. Other kinds override what differs."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        """All waypoints so far, then those over obstacle number `k`. Raises `InputError` where there is no way."""
        here = place(ask, points)
        gates = ask.course.obstacles[k].gates
        return points + [Waypoint(*inside(gate, here), ask.paces.walk) for gate in gates]

    def entry(self, ask: RouteRequest, k: int, here: np.ndarray) -> Waypoint | None:
        """Where it begins for a robot that comes from `here` `[2]` (m), with heading and speed; None: at its gate."""
        return None

    def entered_at(self, paces: Paces) -> float:
        """Fastest speed at which it may be entered, m/s."""
        return np.inf


_WAYS: dict[type[Obstacle], Way] = {}


def leads(kind: type[Obstacle]) -> Any:
    """Class decorator: this `Way` leads over obstacles of that kind."""

    def register(way: type[Way]) -> type[Way]:
        _WAYS[kind] = way()
        return way

    return register


def way_over(obstacle: Obstacle) -> Way:
    """How a robot is led over it: as is registered for its kind or the kind it is derived from."""
    return next((_WAYS[kind] for kind in type(obstacle).__mro__ if kind in _WAYS), Way())


# --- what several ways need -------------------------------------------------------------------------------------------


def place(ask: RouteRequest, points: Sequence[Waypoint]) -> np.ndarray:
    """Where the robot is after these waypoints, `[2]`, m."""
    return np.array([points[-1].x, points[-1].y] if points else ask.course.start[:2])


def axis(obstacle: Obstacle) -> tuple[np.ndarray, np.ndarray, float]:
    """First and last gate's centre and the heading between them, rad."""
    first, last = obstacle.gates[0].center, obstacle.gates[-1].center
    return first, last, float(np.arctan2(*(last - first)[::-1]))


def turned_to(ask: RouteRequest, before: list[Waypoint], after: list[Waypoint]) -> list[Waypoint]:
    """Both, with the fastest turn from the end of one obstacle to the start of the next where headings are given."""
    return [*before, *_turn(ask, before, after), *after]


def _turn(ask: RouteRequest, before: list[Waypoint], after: list[Waypoint]) -> list[Waypoint]:
    if not before:
        return []
    a, b = before[-1], after[0]
    begin = _heading(ask, before)
    if begin is None or b.yaw is None:
        return []
    if not TURN_LEAST < np.hypot(b.x - a.x, b.y - a.y) < TURN_DISTANCE:
        return []
    leaving, entering = (w.speed * np.array([np.cos(yaw), np.sin(yaw)]) for w, yaw in ((a, begin), (b, b.yaw)))
    return weaving.turn((a.x, a.y, begin), leaving, (b.x, b.y, b.yaw), entering, ask.body, ask.paces.turn)[:-1]


def _heading(ask: RouteRequest, before: list[Waypoint]) -> float | None:
    """Of the last waypoint; off the start table, where none is given, the way that its edge is crossed. None elsewhere:
    a turn amid poles might brush them."""
    last, table = before[-1], ask.course.obstacles[0]
    if last.yaw is not None or not isinstance(table, StartTable) or len(before) > len(table.gates):
        return last.yaw
    came = place(ask, before[:-1])
    return float(np.arctan2(last.y - came[1], last.x - came[0]))


def xy(point: np.ndarray) -> tuple[float, float]:
    """A point as plain numbers."""
    return float(point[0]), float(point[1])


def inside(gate: Gate, here: np.ndarray) -> tuple[float, float]:
    """The point of a gate nearest to `here` that keeps `GATE_SHARE` of its width from both ends."""
    left, right = np.array(gate.left), np.array(gate.right)
    t = np.dot(here - left, right - left) / np.dot(right - left, right - left)
    return xy(left + np.clip(t, GATE_SHARE, 1 - GATE_SHARE) * (right - left))
