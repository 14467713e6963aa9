"""The run at the board, the jump, and what comes behind it."""

import numpy as np

from policies.navigation.obstacles.base import RouteRequest, Way, axis, leads, place, turned_to, xy
from sim.course.description import BroadJump, Waypoint
from sim.course.obstacles.broad_jump import FREE_RUN_UP
from sim.errors import InputError

RUN_UP = FREE_RUN_UP
"""m before the jump's first gate from which the run at the board begins: what generated courses leave free there."""
RUN_UP_STEP = 0.05
"""m by which it is shortened where there is no room. By hand."""
LANDED, AFTER = 0.45, 0.03
"""m that the base is past the board when the hind feet are down again, and that the last gate is passed by."""
ON_TABLE = 0.45
"""m that the base is on the end table when the walker takes over, where the table stands right behind the last gate.
By hand."""
TABLE_NEAR, TABLE_ASIDE = 0.8, 0.1
"""m from the last gate, and beside the jump's axis, at which an end table is such a one, at most. By hand."""
BRAKED, SETTLED = 0.6, 0.9
"""m past the last gate until which the jumper slows down where no such table stands, and until which the walker then
goes straight on before the next turn: one that takes over a bound and turns at once rolls over."""
SAMPLES = 50
"""Places along the run that must be flat."""


@leads(BroadJump)
class AtBoard(Way):
    """A straight run along the gates' axis; a robot that cannot jump walks over the board."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        return turned_to(ask, points, _run(ask, k, place(ask, points)))

    def entry(self, ask: RouteRequest, k: int, here: np.ndarray) -> Waypoint | None:
        return _run(ask, k, here)[0]


def _run(ask: RouteRequest, k: int, here: np.ndarray) -> list[Waypoint]:
    """The whole run; `InputError` where something stands in its way.

    It begins where a robot that comes from `here` has all feet on the floor.
    """
    course, paces = ask.course, ask.paces
    obstacle = course.obstacles[k]
    assert isinstance(obstacle, BroadJump)
    board, able = obstacle.board, ask.able(obstacle)
    first, last, yaw = axis(obstacle)
    along = np.array([np.cos(yaw), np.sin(yaw)])
    begin = -_run_up(ask, first, along, here) if able else -RUN_UP
    way = np.linspace(first + begin * along, last, SAMPLES)
    x0, y0, x1, y1 = course.area
    within = (way >= [x0, y0]).all() and (way <= [x1, y1]).all()
    if able and not (within and (course.terrain().height(way[:, 0], way[:, 1]) == 0).all()):
        raise InputError(
            f"course '{course.name}' has no route for the skill '{obstacle.SKILL}': its run from {-begin:.2f} m before "
            f"the first gate of '{obstacle.name}' to the last one must be flat and inside the area"
        )
    start = Waypoint(*xy(first + begin * along), paces.run_in, yaw=yaw)
    if not able:
        return [start, *(Waypoint(*xy(at), paces.walk, yaw=yaw) for at in (first, last))]
    landed = float(np.dot(board.center - first, along)) + board.length / 2 + LANDED
    landed = min(landed, float(np.dot(last - first, along)))
    table = course.end_table
    edge = float(np.dot(table.center - last, along)) - table.size[0] / 2
    aside = abs(float(np.dot(table.center - last, [-along[1], along[0]])))
    onto_table = k == len(course.obstacles) - 2 and edge < TABLE_NEAR and aside < TABLE_ASIDE
    speed = paces.jump_to_table if onto_table else paces.jump
    legs = [(first, speed), (first + landed * along, speed)]
    if onto_table:
        legs += [(last + AFTER * along, paces.landing), (last + (edge + ON_TABLE) * along, paces.mount)]
        after = []
    else:
        legs.append((last + BRAKED * along, paces.braked))
        after = [Waypoint(*xy(last + SETTLED * along), paces.settled, yaw=yaw)]
    return [start, *(Waypoint(*xy(at), speed, obstacle.SKILL, yaw) for at, speed in legs), *after]


def _run_up(ask: RouteRequest, first: np.ndarray, along: np.ndarray, here: np.ndarray) -> float:
    """How far before the first gate the run begins, m: `RUN_UP`, less where a table or `here` lies in it."""
    terrain, (_, rear, half_width) = ask.course.terrain(), ask.footprint.reach
    beside = abs(float(np.dot(here - first, [-along[1], along[0]])))
    behind = float(np.dot(first - here, along)) if beside < half_width else RUN_UP
    for run_up in np.arange(RUN_UP, 0.0, -RUN_UP_STEP):
        feet = first - np.outer([run_up, run_up + rear], along)
        if run_up <= max(behind, 0.0) and (terrain.height(feet[:, 0], feet[:, 1]) == 0).all():
            return float(run_up)
    return RUN_UP
