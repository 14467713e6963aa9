"""Off the start table and onto the end table."""

import numpy as np

from policies.navigation.obstacles.base import RouteRequest, Way, inside, leads, place, turned_to, xy
from sim.course.description import EndTable, StartTable, Waypoint
from sim.planar import from_segment

PAST_CENTER = 0.08
"""m past the end table's centre at which the robot stops: its hind legs reach further than its front legs."""
STOPPED = 0.1
"""m from there at which it has arrived. By hand."""


BEFORE_GATE = 0.5
"""m before the end table's gate at which the robot is to stand squarely before it: `sim.course.generator` leaves that
way free, while one straight to the table may brush what came before."""
NEAR = 0.3
"""m from what comes before at which there is nothing to plan. By hand."""
CLEAR = 0.1
"""m that a pole keeps from the robot's sides on the straight way to the table, at least: of 40 generated courses robots
were stuck at the last pole on three, at 0.00 to 0.02 m, for good, and now and then on one at 0.03."""


@leads(StartTable)
class OffTable(Way):
    """Through its gates at the pace that its edge allows."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        here = place(ask, points)
        gates = ask.course.obstacles[k].gates
        return points + [Waypoint(*inside(gate, here), ask.paces.table) for gate in gates]


@leads(EndTable)
class OntoTable(Way):
    """Straight to its middle; where that would brush a pole, squarely over the edge that its gate lies behind."""

    def entry(self, ask: RouteRequest, k: int, here: np.ndarray) -> Waypoint | None:
        course, gate = ask.course, ask.course.obstacles[k].gates[-1]
        if not _brushes(ask, here):
            return None
        way = np.array(course.end_table.center) - gate.center
        inward = float(np.linalg.norm(way))
        if inward < 1e-6:
            return None
        along = way / inward
        at = gate.center - BEFORE_GATE * along
        x0, y0, x1, y1 = course.area
        free = x0 <= at[0] <= x1 and y0 <= at[1] <= y1 and course.terrain().height(*at) == 0
        if not free or np.dot(here - at, along) > -NEAR:
            return None
        return Waypoint(*xy(at), ask.paces.settled, yaw=float(np.arctan2(along[1], along[0])))

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        here, end = place(ask, points), ask.course.end_table.center
        entry = self.entry(ask, k, here)
        points = points if entry is None else turned_to(ask, points, [entry])
        here = place(ask, points)
        heading = float(np.arctan2(end[1] - here[1], end[0] - here[0]))
        stop = np.array(end) + PAST_CENTER * np.array([np.cos(heading), np.sin(heading)])
        return [*points, Waypoint(*xy(stop), ask.paces.arrival, yaw=heading, tolerance=STOPPED)]


def _brushes(ask: RouteRequest, here: np.ndarray) -> bool:
    """Whether a robot on its straight way from `here` to the end table comes too near to a pole."""
    half_width = ask.footprint.reach[2]
    return any(
        from_segment(xy(here), ask.course.end_table.center, (pole.x, pole.y)) < half_width + pole.radius + CLEAR
        for pole in ask.course.poles
    )
