"""Off the start table and onto the end table."""

import numpy as np

from policies.navigation.obstacles.base import RouteRequest, Way, inside, leads, place, xy
from sim.course.description import EndTable, StartTable, Waypoint

PAST_CENTER = 0.08
"""m past the end table's centre at which the robot stops: its hind legs reach further than its front legs."""
STOPPED = 0.1
"""m from there at which it has arrived. By hand."""


@leads(StartTable)
class OffTable(Way):
    """Through its gates at the pace that its edge allows."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        here = place(ask, points)
        gates = ask.course.obstacles[k].gates
        return points + [Waypoint(*inside(gate, here), ask.paces.table) for gate in gates]


@leads(EndTable)
class OntoTable(Way):
    """Straight to its middle."""

    def extended(self, ask: RouteRequest, k: int, points: list[Waypoint]) -> list[Waypoint]:
        here, end = place(ask, points), ask.course.end_table.center
        heading = float(np.arctan2(end[1] - here[1], end[0] - here[0]))
        stop = np.array(end) + PAST_CENTER * np.array([np.cos(heading), np.sin(heading)])
        return [*points, Waypoint(*xy(stop), ask.paces.arrival, yaw=heading, tolerance=STOPPED)]
