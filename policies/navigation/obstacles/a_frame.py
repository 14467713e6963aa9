"""Over the A-frame, or around it."""

from dataclasses import replace

import numpy as np

from policies.navigation.obstacles.base import RouteRequest, Way, axis, leads, place, turned_to, way_over, xy
from policies.navigation.paces import Paces
from sim.course.description import AFrame, AFrameObstacle, Obstacle, Waypoint
from sim.planar import wrap

DECK_IN, DECK_OUT = 0.45, 0.35
"""m before the first gate from which, and past the last to which, the climber drives. By hand."""
SHARP = 0.7
"""rad that a robot turns by before a ramp from which the turn is sharp. By hand."""
AROUND_ENDS, AROUND_SIDES = 0.35, 0.5
"""m that the way around keeps from the feet of the ramps and from their sides. By hand."""
AROUND_BORDER = 0.25
"""m that it keeps from the border of the course's area. By hand."""


@leads(AFrameObstacle)
class OverFrame(Way):
    """Straight over the ridge along its axis; a robot that cannot climb goes around it: failing it costs 0.1, falling
    on it costs the end table as well."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        obstacle, following, paces = ask.course.obstacles[k], ask.following(k), ask.paces
        assert isinstance(obstacle, AFrameObstacle)
        if not ask.able(obstacle):
            return points + _around(ask, obstacle.frame, place(ask, points), following, paces.walk)
        over = straight_over(obstacle, paces)
        if following is not None:
            over[-1] = replace(over[-1], speed=min(over[-1].speed, way_over(following).entered_at(paces)))
        if _turns(ask, points, over[0]):
            over[0] = replace(over[0], speed=min(over[0].speed, paces.enter_turning))
        return turned_to(ask, points, over)

    def entry(self, ask: RouteRequest, k: int, here: np.ndarray) -> Waypoint | None:
        obstacle = ask.course.obstacles[k]
        return straight_over(obstacle, ask.paces)[0] if ask.able(obstacle) else None


def _turns(ask: RouteRequest, points: list[Waypoint], entry: Waypoint) -> bool:
    """Whether a robot that comes along these waypoints has a sharp turn to make where it enters."""
    heading = points[-1].yaw if points else ask.course.start[2]
    if heading is None:
        way = place(ask, points) - place(ask, points[:-1])
        heading = float(np.arctan2(way[1], way[0]))
    return entry.yaw is not None and abs(float(wrap(entry.yaw - heading))) > SHARP


def straight_over(obstacle: Obstacle, paces: Paces) -> list[Waypoint]:
    """From before the first gate over the ridge to behind the last."""
    first, last, yaw = axis(obstacle)
    along = np.array([np.cos(yaw), np.sin(yaw)])
    before = Waypoint(*xy(first - DECK_IN * along), min(paces.enter, paces.climb), yaw=yaw)
    up = Waypoint(*xy((first + last) / 2), paces.climb, obstacle.SKILL, yaw)
    down = (last, last + DECK_OUT * along)
    return [before, up, *(Waypoint(*xy(p), min(paces.descend, paces.climb), obstacle.SKILL, yaw) for p in down)]


def _around(
    ask: RouteRequest, frame: AFrame, here: np.ndarray, following: Obstacle | None, speed: float
) -> list[Waypoint]:
    """Past the A-frame on the shorter side that stays inside the course."""
    if following is None:
        return []
    along = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    across = np.array([-along[1], along[0]])
    reach, aside = frame.half_length + AROUND_ENDS, frame.width / 2 + AROUND_SIDES
    goal, area = following.gates[0].center, np.array(ask.course.area)
    best: tuple[float, list[np.ndarray]] | None = None
    for sign in (1, -1):
        corners = [np.array(frame.center) + s * reach * along + sign * aside * across for s in (-1, 1)]
        corners = corners if np.dot(goal - here, along) > 0 else corners[::-1]
        corners = [np.clip(corner, area[:2] + AROUND_BORDER, area[2:] - AROUND_BORDER) for corner in corners]
        way = [here, *corners, goal]
        length = float(sum(np.linalg.norm(b - a) for a, b in zip(way[:-1], way[1:], strict=True)))
        if best is None or length < best[0]:
            best = (length, corners)
    assert best is not None
    return [Waypoint(*xy(corner), speed) for corner in best[1]]
