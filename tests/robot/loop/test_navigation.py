"""The navigator as a program."""

import numpy as np

from policies.skills.library import load_skills
from robot.loop.navigation import NavigationProgram
from robot.options import OnboardOptions
from robot.transports import simulation
from sim.course.files import by_name


def seconds(program: NavigationProgram) -> float:
    """How long the planned way takes."""
    path = program.navigator.path
    return float((np.diff(path.s) / np.maximum(path.speed[1:], 0.1)).sum())


def test_the_way_of_weak_motors_is_slower():
    course, skills = by_name("official"), load_skills()
    own = seconds(NavigationProgram(course, skills))
    assert seconds(NavigationProgram(course, skills, skills.robot.peak_torque)) == own
    assert seconds(NavigationProgram(course, skills, 2 / 3 * skills.robot.peak_torque)) > 1.1 * own


def test_a_simulated_robot_is_taken_over_the_course_by_the_plan_for_its_motors(monkeypatch):
    asked = []

    class Planned(Exception):
        pass

    def plan(course, skills, torque_limit=None):
        asked.append(torque_limit)
        raise Planned

    monkeypatch.setattr(simulation, "NavigationProgram", plan)
    for limit in (None, 12.0):
        try:
            simulation.onboard_in_simulation(OnboardOptions(torque_limit=limit))
        except Planned:
            continue
    assert asked == [None, 12.0]
