"""`barkour onboard --transport ros2`, `barkour ros course` and `barkour ros sim|localizer|navigator|referee`: a program
with options of the command line on top of its parameter file. ROS is loaded when its surroundings are checked."""

from pathlib import Path
from typing import Any

from robot.nodes.surroundings import check_surroundings
from robot.options import CourseOptions, LocalizerOptions, NavigatorOptions, OnboardOptions, RefereeOptions, SimOptions
from robot.results import LocalizerReport, LoopReport, NavigatorReport, OnboardReport, RefereeReport, SimReport
from sim.folders import alone
from sim.localization import PoseErrors


def course(options: CourseOptions) -> OnboardReport:
    """A course over four processes, or five; see `robot.nodes.course.run_course`."""
    check_surroundings(domain=False)
    from robot.nodes.course import run_course

    return run_course(options)


def onboard(options: OnboardOptions) -> LoopReport:
    """The control loop on a robot; see `run`."""
    given: dict[str, Any] = {"policy": options.bundle, "robot": options.robot, "course": options.course}
    given["record"] = options.record
    return LoopReport.of(_given("onboard", options.parameters, dry_run=options.dry_run, **given))


def sim(options: SimOptions) -> SimReport:
    """A simulated robot with its driver; see `run`."""
    given: dict[str, Any] = {"seed": options.seed, "randomize": options.randomize, "torque_limit": options.torque_limit}
    given |= {"robot": options.robot, "course": options.course}
    given |= {**PoseErrors.of(options).options(), "own_odometry": options.own_odometry or None}
    return SimReport.of(_given("sim", options.parameters, options.domain, **given))


def localizer(options: LocalizerOptions) -> LocalizerReport:
    """The localizer; see `run`."""
    given: dict[str, Any] = {"course": options.course, "policy": options.policy, "robot": options.robot}
    given |= {"own_odometry": options.own_odometry, "start": options.start}
    return LocalizerReport.of(_given("localizer", options.parameters, options.domain, **given))


def navigator(options: NavigatorOptions) -> NavigatorReport:
    """The navigator; see `run`."""
    given: dict[str, Any] = {"course": options.course, "policy": options.policy, "robot": options.robot}
    given["torque_limit"] = options.torque_limit
    return NavigatorReport.of(_given("navigator", options.parameters, options.domain, **given))


def referee(options: RefereeOptions) -> RefereeReport:
    """The referee; see `run`."""
    given = {"course": options.course, "out": options.out, "robot": options.robot}
    with alone(options.out, "keeps the score"):
        return RefereeReport.of(_given("referee", options.parameters, options.domain, **given))


def _given(name: str, parameters: Path | None, domain: int | None = None, **given: Any) -> dict[str, Any]:
    """`run` with a parameter file and single values on top of it; None and False are left to the file."""
    check_surroundings(domain is None)
    from robot.nodes.programs import ros_arguments, run

    return run(name, ros_arguments(parameters, {n: None if v is False else v for n, v in given.items()}), domain)
