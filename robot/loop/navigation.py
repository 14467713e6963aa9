"""The navigator as a program: poses in, velocity command and skill out, once a control period."""

from collections.abc import Sequence

import numpy as np

from policies.estimation.odometry import Motion
from policies.navigation.map_match import MapMatch
from policies.navigation.navigator import Command
from policies.navigation.pose_estimate import PoseEstimate
from policies.navigation.rehearsal import rehearsed
from policies.navigation.route_cache import planned
from policies.skills.library import Skills, paces_of, response_of, trained_limits
from sim.course.description import Course


class NavigationProgram:
    """Takes one robot over a course; the plan is the one that `barkour run` drives."""

    def __init__(self, course: Course, skills: Skills, torque_limit: float | None = None) -> None:
        """`torque_limit`: what the motors give at most, N m; the robot's own without it (see `paces_of`)."""
        paces, response = paces_of(skills, torque_limit), response_of(skills)
        route = planned(course, skills.robot.footprint, skills.able, paces)
        self.navigator = rehearsed(course, route, trained_limits(skills, paces.limits), response, paces.made_up)
        self.period = skills.robot.control_period
        self.estimate = PoseEstimate(response, MapMatch(course.height, skills.robot.foot_radius))
        self.place: np.ndarray | None = None
        """x, y, z (m) and heading (rad) of the base at the last `step_told`, as estimated, `[4]`."""

    def step(self, x: float, y: float, yaw: float) -> Command:
        """The next command for the base at `x`, `y` (m), `yaw` (rad) in the course frame."""
        return self.navigator.step(np.array([x, y, yaw]), self.period)

    def step_told(
        self,
        place: Sequence[float] | np.ndarray,
        age: float,
        moved: Motion | None = None,
        feet: np.ndarray | None = None,
    ) -> Command:
        """The next command where all that is known is where the base was `age` s ago: `place`, x, y, z (m) and heading
        (rad), and perhaps how it has `moved` in the last control period and which `feet` stand, by its own senses."""
        self.place = self.estimate.told(place, age, moved, feet)
        x, y, _, yaw = self.place.tolist()
        command = self.step(x, y, yaw)
        self.estimate.asked(command.velocity)
        return command
