"""Past the weave poles.

A trajectory optimised for time (`policies.navigation.weaving`). Where that finds no way past the poles, they are passed
sideways, as the paper's robot does: the heading stays square to the line of poles, so that the narrow side of the body
faces the gaps, and an omnidirectional walker needs no turning.
"""

import numpy as np

from policies.navigation import weaving
from policies.navigation.obstacles.base import RouteRequest, Way, leads, place, way_over, xy
from policies.navigation.paces import Paces
from sim.course.description import Gate, Waypoint, WeavePoles

LATE_MARGIN = 0.08
"""m of free space between the body and poles that are entered in motion: on the reversed course robots got stuck at the
last pole with `weaving.MARGIN`."""
AIM = 0.6
"""m past the last gate to which the motion is planned, where the next obstacle does not say where it is entered. By
hand."""

# Where no fast way is found. By hand.
POLE_MARGIN, POLE_RADIUS = 0.05, 0.03
"""m of free space between the body and poles, and what these take themselves."""
STRAIGHT = 0.25
"""m: a gap between poles is crossed squarely over twice this distance."""
LENGTHWISE = 0.7
"""Cosine above which the body lies along a direction and its length counts, not its width: 45 degrees."""
TURN_LEAST = 0.15
"""m from a crossing at which a turning point is worth a waypoint."""


@leads(WeavePoles)
class PastPoles(Way):
    """The fastest way past the poles, from the start if only the start table comes before."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        fast = _fast(ask, k, points)
        if fast and k == 1:  # planned from the start pose on, through the table's gate
            return fast
        return points + (fast or _squarely(ask, k, place(ask, points)))

    def entered_at(self, paces: Paces) -> float:
        return paces.weave  # the first gap is tight


def _poles(ask: RouteRequest, k: int) -> WeavePoles:
    obstacle = ask.course.obstacles[k]
    assert isinstance(obstacle, WeavePoles)
    return obstacle


def _fast(ask: RouteRequest, k: int, before: list[Waypoint]) -> list[Waypoint]:
    """The fastest way; empty if none is found."""
    course, obstacle, following = ask.course, _poles(ask, k), ask.following(k)
    gates, start, velocity = obstacle.gates, course.start, np.zeros(2)
    if k == 1:
        gates = course.obstacles[0].gates + gates
    elif before:
        here = before[-1]
        bearing = float(np.arctan2(*(gates[0].center - (here.x, here.y))[::-1]))
        start = (here.x, here.y, bearing if here.yaw is None else here.yaw)
        velocity = here.speed * np.array([np.cos(start[2]), np.sin(start[2])])
    entry = way_over(following).entry(ask, k + 1, gates[-1].center) if following else None
    if entry is not None:
        yaw = float(entry.yaw or 0.0)
        end, end_velocity = (entry.x, entry.y, yaw), entry.speed * np.array([np.cos(yaw), np.sin(yaw)])
    else:
        target = following.gates[0].center if following else np.array(course.end_table.center)
        way = target - gates[-1].center
        at = gates[-1].center + way * min(1.0, AIM / float(np.linalg.norm(way)))
        end, end_velocity = (*xy(at), float(np.arctan2(way[1], way[0]))), None
    others = [pole for pole in course.poles if pole not in obstacle.poles]
    envelope, margin = (ask.paces.walker, weaving.MARGIN) if k == 1 else (ask.paces.late, LATE_MARGIN)
    return weaving.weave(
        start, gates, obstacle.poles, end, end_velocity, int(k == 1), ask.body, envelope, velocity, margin, others
    )  # fmt: skip


def _squarely(ask: RouteRequest, k: int, here: np.ndarray) -> list[Waypoint]:
    """Zigzag between the poles with the heading square to their line."""
    obstacle, following, speed = _poles(ask, k), ask.following(k), ask.paces.weave
    front, rear, half_width = ask.footprint.reach
    poles = np.array([(p.x, p.y) for p in obstacle.poles])
    line = poles[-1] - poles[0]
    line = line / np.linalg.norm(line)
    exit_to = following.gates[0].center if following else here
    side = np.array([line[1], -line[0]])  # to the right of the line
    if np.dot(exit_to - poles[-1], side) < 0:
        side = -side
    yaw = float(np.arctan2(side[1], side[0]))
    points: list[Waypoint] = []
    for i, gate in enumerate(obstacle.gates):
        at_left, at_right = (_pole_at(poles, end) for end in (gate.left, gate.right))
        before = here
        if at_left is not None and at_right is not None:
            points += _through(gate, before, side, speed)
            crossing = gate.center
        else:  # one pole, one open end: pass as near the pole as the body allows
            pole, open_end = (gate.right, gate.left) if at_left is None else (gate.left, gate.right)
            outward = (np.array(open_end) - pole) / np.linalg.norm(np.array(open_end) - pole)
            along_body = abs(float(np.dot(outward, side)))
            ahead = rear if np.dot(outward, side) > 0 else front
            reach = ahead if along_body > LENGTHWISE else half_width
            crossing = np.array(pole) + (reach + POLE_MARGIN + POLE_RADIUS) * outward
            points.append(Waypoint(*xy(crossing), speed, yaw=yaw, tolerance=weaving.TOLERANCE))
        if i + 1 < len(obstacle.gates):
            shared = _shared_pole(gate, obstacle.gates[i + 1], poles)
            if shared is not None:
                turn = _around_pole(ask, gate, shared, before, side)
                if turn is not None and np.linalg.norm(turn - crossing) > TURN_LEAST:
                    points.append(Waypoint(*xy(turn), speed, yaw=yaw, tolerance=weaving.TOLERANCE))
        here = np.array([points[-1].x, points[-1].y])
    return points


def _through(gate: Gate, before: np.ndarray, side: np.ndarray, speed: float) -> list[Waypoint]:
    """Two waypoints that cross a gap between poles squarely, the body's long axis along the crossing."""
    normal = np.array(gate.right) - gate.left
    normal = np.array([normal[1], -normal[0]]) / np.linalg.norm(normal)
    normal = normal if np.dot(gate.center - before, normal) > 0 else -normal
    facing = normal if np.dot(normal, side) > 0 else -normal
    yaw = float(np.arctan2(facing[1], facing[0]))
    places = (gate.center - STRAIGHT * normal, gate.center + STRAIGHT * normal)
    return [Waypoint(*xy(place), speed, yaw=yaw, tolerance=weaving.TOLERANCE) for place in places]


def _pole_at(poles: np.ndarray, end: tuple[float, float]) -> np.ndarray | None:
    near = np.linalg.norm(poles - np.array(end), axis=1)
    return poles[near.argmin()] if near.min() < weaving.AT_POLE else None


def _shared_pole(gate: Gate, following: Gate, poles: np.ndarray) -> np.ndarray | None:
    """The pole that ends both gates, if there is one."""
    for end in (gate.left, gate.right):
        if end in (following.left, following.right):
            return _pole_at(poles, end)
    return None


def _around_pole(
    ask: RouteRequest, gate: Gate, pole: np.ndarray, before: np.ndarray, side: np.ndarray
) -> np.ndarray | None:
    """The turning point beyond `pole` on the side that the path reaches after `gate`; None where it is no turn."""
    normal = np.array(gate.right) - gate.left
    normal = np.array([normal[1], -normal[0]]) / np.linalg.norm(normal)
    if np.dot(before - pole, normal) > 0:
        normal = -normal
    along = float(np.dot(normal, side))
    if abs(along) < LENGTHWISE:
        return None
    front, rear, _ = ask.footprint.reach
    return pole + np.sign(along) * side * ((rear if along > 0 else front) + POLE_MARGIN + POLE_RADIUS)
