"""Parameters of the programs in `robot.nodes.programs`, with description and range; readable without ROS."""

from dataclasses import dataclass
from typing import Any

from robot.loop.controller import Times
from robot.loop.localization import Locating
from robot.loop.parameters import declared, number, switch, text, whole
from robot.loop.safety import Limits
from robot.loop.terrain import GridPlace
from robot.options import LAST_DOMAIN
from sim.course.score import MAX_TIME
from sim.errors import InputError
from sim.robots.description import DEFAULT

COURSE = "The course: official, another shipped one, generated:SEED, or FILE.yaml."
DRIVES = ("remote", "course")
ROBOT = "The robot: its name, or the folder that describes it."
MOTORS = "What the motors give at most, in N m: for weak ones the way is planned slower; 0 means the robot's own."
WHOSE = "The robot whose policy is meant, by name or folder; empty means barkour_v0, or the robot of FILE.onnx."


@dataclass(frozen=True)
class SimParameters:
    """Parameters of the node `sim`."""

    robot: str = text(DEFAULT, ROBOT)
    course: str = text("official", COURSE)
    seed: int = whole(0, 0, 2**31 - 1, "Seed of everything that is drawn.")
    randomize: bool = switch(False, "Draws physics, latency, noise and start pose from the ranges of evaluation.")
    torque_limit: float = number(0.0, 0.0, 1000.0, "Peak joint torque, in N m; 0 means the robot's own.")
    pose_noise: float = number(0.0, 0.0, 1.0, "Standard deviation of the position on localization, in m.")
    pose_yaw_noise: float = number(0.0, 0.0, 1.0, "Standard deviation of the heading on localization, in rad.")
    pose_delay: float = number(0.0, 0.0, 2.0, "Age of a pose when it is sent, in s.")
    pose_rate: float = number(0.0, 0.0, 1000.0, "Poses a second, in Hz; 0 means as many as the driver sends.")
    pose_drift: float = number(0.0, 0.0, 1.0, "Error of the position as a share of the way gone (no unit).")
    pose_dropouts: float = number(0.0, 0.0, 0.9, "Share of the time without poses, 0.1 s each on average (no unit).")
    own_odometry: bool = switch(
        False, "Whether nothing tells the robot's place: the localizer has what it reckons by IMU, joints and feet."
    )
    report: str = text("", "JSON file for latency and final state; empty writes none.")


@dataclass(frozen=True)
class OnboardParameters(Limits, Times, GridPlace):
    """Parameters of the node `onboard`: the limits of the safety chain, the controller's times, the place of a measured
    height grid, and its own."""

    policy: str = text("generalist", "The policy: specialists, generalist or a bundle FILE.onnx.")
    robot: str = text("", WHOSE)
    course: str = text("official", "Map of the ground, as a course's name or FILE.yaml; empty means flat ground.")
    needs_pose: bool = switch(
        True, "Whether the robot must know where it is; without a pose the ground is taken as flat."
    )
    dry_run: bool = switch(True, "Computes everything and sends nothing to the joints.")
    auto_arm: bool = switch(False, "Arms as soon as sensors, pose and command are fresh; for simulation only.")
    record: str = text("", "File for a recording of the loop; empty writes none.")
    report: str = text("", "JSON file for the final state and the loop's punctuality; empty writes none.")

    def parts(self) -> tuple[Limits, Times, GridPlace]:
        """What the safety chain, the controller and the terrain take of it."""
        given = vars(self)
        limits, times, grid = ({name: given[name] for name in vars(kind())} for kind in (Limits, Times, GridPlace))
        return Limits(**limits), Times(**times), GridPlace(**grid)


@dataclass(frozen=True)
class LocalizerParameters(Locating):
    """Parameters of the node `localizer`."""

    policy: str = text(
        "generalist", "The policy whose walker answers the commands: specialists, generalist or a bundle FILE.onnx."
    )
    robot: str = text("", WHOSE)
    course: str = text("official", "Map of the ground, as a course's name or FILE.yaml; empty means flat ground.")


@dataclass(frozen=True)
class NavigatorParameters:
    """Parameters of the node `navigator`."""

    policy: str = text(
        "generalist", "The policy whose skills the plan may ask for: specialists, generalist or a bundle FILE.onnx."
    )
    robot: str = text("", WHOSE)
    course: str = text("official", COURSE)
    pose_timeout: float = number(0.1, 0.02, 5.0, "With a pose older than this nothing is sent, in s.")
    torque_limit: float = number(0.0, 0.0, 1000.0, MOTORS)


@dataclass(frozen=True)
class RefereeParameters:
    """Parameters of the node `referee`."""

    robot: str = text(DEFAULT, ROBOT)
    course: str = text("official", COURSE)
    out: str = text("", "Folder for RESULT.json and pose.csv; empty writes none.")
    true_pose: bool = switch(
        False, "Scores by true_odom, which a simulated robot sends where its poses are not the truth."
    )
    time_limit: float = number(MAX_TIME, 1.0, 3600.0, "A run ends this long after the start table's gate, in s.")
    patience: float = number(10.0, 0.5, 3600.0, "A run ends when no pose comes for this long, in s.")
    start_patience: float = number(
        60.0, 1.0, 36000.0, "A run ends when the robot has not started after this long, in s."
    )


@dataclass(frozen=True)
class UnitreeParameters:
    """Parameters of a robot that speaks Unitree's messages: the section `unitree` of a parameter file."""

    domain: int = whole(0, 0, LAST_DOMAIN, "The DDS domain; the robot's own is 0.")
    interface: str = text("eth0", "The network interface that the robot is on; lo for a simulated one.")
    switcher: bool = switch(
        True,
        "Whether the robot's own walking is asked to let go of the motors before anything is sent; "
        "false only for a simulator without that service.",
    )
    pose: bool = switch(
        False, "Whether rt/sportmodestate gives the pose in the course frame; a simulated robot's does."
    )
    drive: str = text("remote", "Who says where to go: the remote's sticks, or the course's navigator.")
    torque_limit: float = number(0.0, 0.0, 1000.0, MOTORS)

    def __post_init__(self) -> None:
        """Raises `InputError` for a `drive` that is none."""
        if self.drive not in DRIVES:
            raise InputError(f"the parameter 'drive' must be one of {', '.join(DRIVES)}, got {self.drive[:40]!r}")


PARAMETERS: dict[str, type[Any]] = {
    "sim": SimParameters,
    "onboard": OnboardParameters,
    "localizer": LocalizerParameters,
    "navigator": NavigatorParameters,
    "referee": RefereeParameters,
}
"""Node -> dataclass of its parameters."""


def names() -> frozenset[str]:
    """Every parameter of any of the nodes."""
    return frozenset(
        parameter.name for kind in (*PARAMETERS.values(), UnitreeParameters) for parameter in declared(kind)
    )
