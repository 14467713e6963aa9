"""The route: from a course to the waypoints that a navigator follows, planned from gates, poles and obstacle axes.

Each kind of obstacle has its own way over it (`policies.navigation.obstacles`).
"""

from collections.abc import Sequence

from policies.navigation.obstacles import RouteRequest, way_over
from policies.navigation.paces import Paces
from sim.course.description import Course, Waypoint
from sim.errors import InputError
from sim.robots.footprint import Footprint


def plan(
    course: Course, footprint: Footprint, skills: Sequence[str] = ("walk",), paces: Paces = Paces()
) -> tuple[Waypoint, ...]:
    """Waypoints through all obstacles in order; the course's own route where it has one.

    An obstacle whose skill is not among `skills` is left out where it can be walked around.

    Raises:
      InputError: the course's own route asks for a skill that is not there, or an obstacle cannot be reached.
    """
    if course.route:
        for waypoint in course.route:
            if waypoint.skill not in skills:
                raise InputError(
                    f"the route of course '{course.name}' asks for the skill '{waypoint.skill}', which has no bundle"
                )
        return course.route
    ask = RouteRequest(course, footprint, tuple(skills), paces)
    points: list[Waypoint] = []
    for k in sorted(range(len(course.obstacles)), key=lambda k: course.obstacles[k].ENDS_RUN):  # where it ends, last
        points = way_over(course.obstacles[k]).extended(ask, k, points)
    return tuple(points)
