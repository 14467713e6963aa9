"""The route: from a course to the waypoints that a navigator follows, planned from gates, poles and obstacle axes.

The weave poles and the turn between A-frame and jump are trajectories optimised for time
(`policies.navigation.weaving`). Where that finds no way past the poles, they are passed sideways, as the paper's robot
does: the heading stays square to the line of poles, so that the narrow side of the body faces the gaps, and an
omnidirectional walker needs no turning.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from policies.navigation import weaving
from policies.navigation.planner import Body, Envelope
from sim.course.description import Course, Gate, Obstacle, Waypoint
from sim.errors import InputError
from sim.robots.footprint import Footprint

POLE_MARGIN = 0.05
LATE_MARGIN = 0.08
"""Free space between the body and poles that are entered in motion, m."""
STRAIGHT = 0.25
"""A gap between poles is crossed squarely over twice this distance, m."""
RUN_UP = 0.85
"""The run at the board begins this far before the jump's first gate, m."""
LANDED, AFTER = 0.45, 0.03
"""The hind feet are down again when the base is this far past the board, m; the last gate is passed by this much."""
ON_TABLE = 0.45
"""Where the end table stands right behind the last gate, the jumper drives until the base is this far on it, m."""
TABLE_NEAR = 0.8
"""Distance from the last gate to such a table, at most, m."""
BRAKED, SETTLED = 0.6, 0.9
"""Where no table stands there, the jumper slows down until this far past the last gate, and the walker goes straight
on until this far, before the next turn, m: one that takes over a bound and turns at once rolls over."""
TURN_DISTANCE = 2.0
"""Obstacles nearer than this are joined by a planned turn, m."""
PAST_CENTER = 0.08
"""The robot stops this far past the end table's centre, m: its hind legs reach further than its front legs."""
DECK_IN, DECK_OUT = 0.45, 0.35
"""The climber drives from this far before the first A-frame gate to this far past the last, m."""


@dataclass(frozen=True)
class Paces:
    """How fast a route may be: what the skills were measured to do on the course (m/s, m/s^2, rad/s)."""

    walker: Envelope = Envelope(forward=(-1.2, 1.8), sideways=1.1, yaw=2.2, acceleration=3.0)
    """In turns and among the poles."""
    late: Envelope = Envelope(forward=(-1.2, 1.8), sideways=0.9, yaw=1.7, acceleration=2.4)
    """Among poles that are entered in motion, from another obstacle: robots got stuck there on faster ways."""
    walk: float = 1.5
    """On straights."""
    weave: float = 1.3
    """Among poles that are passed squarely, where no fast way is found."""
    table: float = 1.2
    """Off the start table."""
    enter: float = 1.9
    """Where the climber takes over."""
    climb: float = 2.2
    """Up the A-frame, on the map."""
    descend: float = 1.9
    """Down from its ridge: a turn follows."""
    run_in: float = 1.3
    """Where the run-up to the board begins."""
    jump: float = 2.0
    landing: float = 1.0
    """Behind the board."""
    braked: float = 0.5
    settled: float = 0.8
    """At a bound and at a walk, behind a board with no table."""
    mount: float = 0.8
    """Onto the end table at a bound."""
    arrival: float = 0.6
    """Onto the end table at a walk: a foot that catches on the edge costs the run there, and 0.4 s are worth 0.004."""


_WEAK_WALKER = Envelope(forward=(-1.0, 1.4), sideways=0.9, yaw=1.8, acceleration=2.3)
WEAK = Paces(walker=_WEAK_WALKER, late=replace(_WEAK_WALKER, yaw=1.5, acceleration=2.0), climb=1.2)
"""What holds with peak torques of 12 N m, as the paper's robot has."""
WEAK_SHARE = 15 / 18
"""Share of the robot's own peak torque under which `WEAK` is taken: half way from 18 N m to the paper's 12."""


def plan(
    course: Course, footprint: Footprint, skills: Sequence[str] = ("walk",), paces: Paces = Paces()
) -> tuple[Waypoint, ...]:
    """Waypoints through all obstacles in order; the course's own route where it has one.

    An obstacle whose skill is not among `skills` is left out where it can be walked around: failing it costs 0.1,
    falling on it costs the end table as well.
    """
    if course.route:
        for waypoint in course.route:
            if waypoint.skill not in skills:
                raise InputError(
                    f"the route of course '{course.name}' asks for the skill '{waypoint.skill}', which has no bundle"
                )
        return course.route
    points: list[Waypoint] = []
    here = np.array(course.start[:2])
    for k, obstacle in enumerate(course.obstacles):
        following = course.obstacles[k + 1] if k + 1 < len(course.obstacles) else None
        if obstacle.name == "weave poles":
            fast = _fast_weave(course, k, points, skills, paces, footprint)
            points = (
                fast
                if fast and k == 1
                else points + (fast or _weave(course, obstacle, here, following, paces.weave, footprint))
            )
        elif obstacle.name == "a frame":
            over = _a_frame(obstacle, paces) if "climb" in skills else []
            if over and following and following.name == "weave poles":  # the first gap is tight
                over[-1] = replace(over[-1], speed=min(over[-1].speed, paces.weave))
            points += (
                _turn(points, over, paces, footprint) + over if over else _around(course, here, following, paces.walk)
            )
        elif obstacle.name == "jump":
            run = _jump(course, obstacle, here, "jump" if "jump" in skills else "walk", paces, footprint)
            points += _turn(points, run, paces, footprint) + run
        elif obstacle.name != "end table":
            points += [Waypoint(*_inside(gate, here), paces.table) for gate in obstacle.gates]
        if points:
            here = np.array([points[-1].x, points[-1].y])
    end = course.end_table.center
    heading = float(np.arctan2(end[1] - here[1], end[0] - here[0]))
    stop = np.array(end) + PAST_CENTER * np.array([np.cos(heading), np.sin(heading)])
    return (*points, Waypoint(*_xy(stop), paces.arrival, yaw=heading, tolerance=0.1))


def _fast_weave(
    course: Course, k: int, before: list[Waypoint], skills: Sequence[str], paces: Paces, footprint: Footprint
) -> list[Waypoint]:
    """The fastest way past the poles, from the start if only the start table comes before; empty if none is found."""
    gates, following = course.obstacles[k].gates, course.obstacles[k + 1 : k + 2]
    start, velocity = course.start, np.zeros(2)
    if k == 1:
        gates = course.obstacles[0].gates + gates
    else:
        here = before[-1]
        bearing = float(np.arctan2(*(gates[0].center - (here.x, here.y))[::-1]))
        start = (here.x, here.y, bearing if here.yaw is None else here.yaw)
        velocity = here.speed * np.array([np.cos(start[2]), np.sin(start[2])])
    if following and following[0].name == "a frame" and "climb" in skills:
        end, end_velocity = _entered(_a_frame(following[0], paces)[0])
    elif following and following[0].name == "jump":
        run = _jump(course, following[0], gates[-1].center, "jump" if "jump" in skills else "walk", paces, footprint)
        end, end_velocity = _entered(run[0])
    else:
        target = following[0].gates[0].center if following else np.array(course.end_table.center)
        way = target - gates[-1].center
        distance = float(np.linalg.norm(way))
        place = gates[-1].center + way * min(1.0, 0.6 / distance)
        end, end_velocity = (*_xy(place), float(np.arctan2(way[1], way[0]))), None
    envelope, margin = (paces.walker, weaving.MARGIN) if k == 1 else (paces.late, LATE_MARGIN)
    body = Body.of(footprint)
    return weaving.weave(start, gates, course.poles, end, end_velocity, int(k == 1), body, envelope, velocity, margin)


def _entered(first: Waypoint) -> tuple[tuple[float, float, float], np.ndarray]:
    """Pose (m, m, rad) and velocity (m/s) at the first waypoint of an obstacle."""
    yaw = float(first.yaw or 0.0)
    return (first.x, first.y, yaw), first.speed * np.array([np.cos(yaw), np.sin(yaw)])


def _turn(before: list[Waypoint], after: list[Waypoint], paces: Paces, footprint: Footprint) -> list[Waypoint]:
    """The fastest turn from the end of one obstacle to the start of the next where both headings are given."""
    if not before:
        return []
    a, b = before[-1], after[0]
    if a.yaw is None or b.yaw is None:
        return []
    if not 0.2 < np.hypot(b.x - a.x, b.y - a.y) < TURN_DISTANCE:
        return []
    leaving, entering = (w.speed * np.array([np.cos(yaw), np.sin(yaw)]) for w, yaw in ((a, a.yaw), (b, b.yaw)))
    body = Body.of(footprint)
    return weaving.turn((a.x, a.y, a.yaw), leaving, (b.x, b.y, b.yaw), entering, body, paces.walker)[:-1]


def _xy(point: np.ndarray) -> tuple[float, float]:
    return float(point[0]), float(point[1])


def _inside(gate: Gate, here: np.ndarray) -> tuple[float, float]:
    """The point of a gate nearest to `here` that keeps a quarter of its width from both ends."""
    left, right = np.array(gate.left), np.array(gate.right)
    t = np.dot(here - left, right - left) / np.dot(right - left, right - left)
    return _xy(left + np.clip(t, 0.25, 0.75) * (right - left))


def _weave(
    course: Course,
    obstacle: Obstacle,
    here: np.ndarray,
    following: Obstacle | None,
    speed: float,
    footprint: Footprint,
) -> list[Waypoint]:
    """Zigzag between the poles with the heading square to their line."""
    front, rear, half_width = footprint.reach
    poles = np.array([(p.x, p.y) for p in course.poles])
    axis = poles[-1] - poles[0]
    axis = axis / np.linalg.norm(axis)
    exit_to = following.gates[0].center if following else here
    side = np.array([axis[1], -axis[0]])  # to the right of the line
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
            reach = ahead if along_body > 0.7 else half_width
            crossing = np.array(pole) + (reach + POLE_MARGIN + 0.03) * outward
            points.append(Waypoint(*_xy(crossing), speed, yaw=yaw, tolerance=0.12))
        if i + 1 < len(obstacle.gates):
            shared = _shared_pole(gate, obstacle.gates[i + 1], poles)
            if shared is not None:
                turn = _around_pole(gate, shared, before, side, footprint)
                if turn is not None and np.linalg.norm(turn - crossing) > 0.15:
                    points.append(Waypoint(*_xy(turn), speed, yaw=yaw, tolerance=0.12))
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
    return [Waypoint(*_xy(place), speed, yaw=yaw, tolerance=0.12) for place in places]


def _pole_at(poles: np.ndarray, end: tuple[float, float]) -> np.ndarray | None:
    near = np.linalg.norm(poles - np.array(end), axis=1)
    return poles[near.argmin()] if near.min() < 0.01 else None


def _shared_pole(gate: Gate, following: Gate, poles: np.ndarray) -> np.ndarray | None:
    """The pole that ends both gates, if there is one."""
    for end in (gate.left, gate.right):
        if end in (following.left, following.right):
            return _pole_at(poles, end)
    return None


def _around_pole(
    gate: Gate, pole: np.ndarray, before: np.ndarray, side: np.ndarray, footprint: Footprint
) -> np.ndarray | None:
    """The turning point beyond `pole` on the side that the path reaches after `gate`; None where it is no turn."""
    normal = np.array(gate.right) - gate.left
    normal = np.array([normal[1], -normal[0]]) / np.linalg.norm(normal)
    if np.dot(before - pole, normal) > 0:
        normal = -normal
    along = float(np.dot(normal, side))
    if abs(along) < 0.7:
        return None
    front, rear, _ = footprint.reach
    reach = rear if along > 0 else front
    return pole + np.sign(along) * side * (reach + POLE_MARGIN + 0.03)


def _axis(obstacle: Obstacle) -> tuple[np.ndarray, np.ndarray, float]:
    """First and last gate's centre and the heading between them, rad."""
    first, last = obstacle.gates[0].center, obstacle.gates[-1].center
    return first, last, float(np.arctan2(*(last - first)[::-1]))


def _a_frame(obstacle: Obstacle, paces: Paces) -> list[Waypoint]:
    """Straight over the ridge along the obstacle's axis."""
    first, last, yaw = _axis(obstacle)
    along = np.array([np.cos(yaw), np.sin(yaw)])
    before = Waypoint(*_xy(first - DECK_IN * along), min(paces.enter, paces.climb), yaw=yaw)
    up = Waypoint(*_xy((first + last) / 2), paces.climb, "climb", yaw)
    down = (last, last + DECK_OUT * along)
    return [before, up, *(Waypoint(*_xy(p), min(paces.descend, paces.climb), "climb", yaw) for p in down)]


def _around(course: Course, here: np.ndarray, following: Obstacle | None, speed: float) -> list[Waypoint]:
    """Past the A-frame on the shorter side that stays inside the course."""
    if course.a_frame is None or following is None:
        return []
    frame = course.a_frame
    along = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    across = np.array([-along[1], along[0]])
    reach, aside = frame.half_length + 0.35, frame.width / 2 + 0.5
    goal = following.gates[0].center
    best: tuple[float, list[np.ndarray]] | None = None
    for sign in (1, -1):
        corners = [np.array(frame.center) + s * reach * along + sign * aside * across for s in (-1, 1)]
        corners = corners if np.dot(goal - here, along) > 0 else corners[::-1]
        low, high = np.array(course.area[:2]) + 0.25, np.array(course.area[2:]) - 0.25
        corners = [np.clip(c, low, high) for c in corners]
        way = [here, *corners, goal]
        length = float(sum(np.linalg.norm(b - a) for a, b in zip(way[:-1], way[1:], strict=True)))
        if best is None or length < best[0]:
            best = (length, corners)
    assert best is not None
    return [Waypoint(*_xy(c), speed) for c in best[1]]


def _jump(
    course: Course, obstacle: Obstacle, here: np.ndarray, skill: str, paces: Paces, footprint: Footprint
) -> list[Waypoint]:
    """A straight run at the board along the gates' axis; `InputError` where something stands in its way.

    It begins where a robot that comes from `here` has all feet on the floor.
    """
    first, last, yaw = _axis(obstacle)
    along = np.array([np.cos(yaw), np.sin(yaw)])
    begin = -_run_up(course, first, along, here, footprint) if skill == "jump" else -RUN_UP
    way = np.linspace(first + begin * along, last, 50)
    x0, y0, x1, y1 = course.area
    inside = (way >= [x0, y0]).all() and (way <= [x1, y1]).all()
    if skill == "jump" and not (inside and (course.terrain().height(way[:, 0], way[:, 1]) == 0).all()):
        raise InputError(
            f"course '{course.name}' has no route for the skill 'jump': its run from {-begin:.2f} m before the first "
            "gate to the last one must be flat and inside the area"
        )
    start = Waypoint(*_xy(first + begin * along), paces.run_in, yaw=yaw)
    if skill == "walk" or course.board is None:
        return [start, *(Waypoint(*_xy(place), paces.walk, yaw=yaw) for place in (first, last))]
    landed = float(np.dot(course.board.center - first, along)) + course.board.length / 2 + LANDED
    landed = min(landed, float(np.dot(last - first, along)))
    legs = [(first, paces.jump), (first + landed * along, paces.jump)]
    table = course.end_table
    edge = float(np.dot(table.center - last, along)) - table.size[0] / 2
    aside = abs(float(np.dot(table.center - last, [-along[1], along[0]])))
    if course.obstacles[-2] is obstacle and edge < TABLE_NEAR and aside < 0.1:
        legs += [(last + AFTER * along, paces.landing), (last + (edge + ON_TABLE) * along, paces.mount)]
        after = []
    else:
        legs.append((last + BRAKED * along, paces.braked))
        after = [Waypoint(*_xy(last + SETTLED * along), paces.settled, yaw=yaw)]
    return [start, *(Waypoint(*_xy(place), speed, "jump", yaw) for place, speed in legs), *after]


def _run_up(course: Course, first: np.ndarray, along: np.ndarray, here: np.ndarray, footprint: Footprint) -> float:
    """How far before the first gate the run begins, m: `RUN_UP`, less where a table or `here` lies in it."""
    table, (_, rear, half_width) = course.terrain(), footprint.reach
    beside = abs(float(np.dot(here - first, [-along[1], along[0]])))
    behind = float(np.dot(first - here, along)) if beside < half_width else RUN_UP
    for run_up in np.arange(RUN_UP, 0.0, -0.05):
        feet = first - np.outer([run_up, run_up + rear], along)
        if run_up <= max(behind, 0.0) and (table.height(feet[:, 0], feet[:, 1]) == 0).all():
            return float(run_up)
    return RUN_UP
