"""What `barkour onboard`, `barkour ros` and `barkour bench onboard` are asked for. Light to import."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sim.localization import POSE, PoseDelay, PoseDrift, PoseDropouts, PoseNoise, PoseRate, YawNoise
from sim.options import Options, Range, Seed, Torque

POLICY = {"aliases": ("policy",)}
"""Of `bundle`: other commands call it `policy`."""
LAST_DOMAIN = 232
"""DDS has no ports for higher ROS domains."""
Domain = Annotated[int, Range(0, LAST_DOMAIN)]


@dataclass(frozen=True)
class OnboardOptions(Options):
    """Run the 50 Hz control loop with its safety chain: on a robot over ROS 2, or against simulated hardware.

    What it records is fed through it again by barkour onboard replay FILE; barkour onboard convert FILE NEW makes a
    recording of an earlier version, or one that was cut off, a whole one.
    """

    bundle: str | None = field(default=None, metadata=POLICY)
    """generalist, specialists or a bundle FILE.onnx; without it the parameter file's, else generalist"""
    robot: str | None = None
    """a robot's name or folder; without it barkour_v0, or the robot of FILE.onnx"""
    transport: Literal["sim", "ros2", "unitree"] = "sim"
    """sim: simulated hardware, navigator and referee in this process; ros2: a robot, or `barkour ros sim`; unitree: a
    robot that speaks Unitree's messages, or `barkour unitree sim`"""
    course: str | None = None
    """as for run; the map from which terrain is seen; without it the parameter file's, else official"""
    seed: Seed | None = None
    """of the simulated robot; 0 without it"""
    randomize: bool = False
    """as for run; simulated robot only"""
    torque_limit: Torque | None = None
    """as for run; simulated robot only"""
    parameters: Path | None = None
    """parameter file, as launch/onboard.yaml"""
    record: Path | None = None
    """file for a recording of the loop's inputs and outputs"""
    dry_run: bool = False
    """compute everything, send nothing; so does dry_run: true in the parameter file, and on a robot a file without
    dry_run: false"""
    real_time: bool = False
    """simulated robot on the computer's clock, as on a robot; without it as fast as can be"""
    lying: bool = False
    """the simulated robot begins flat on the ground"""
    pose_noise: PoseNoise = 0.0
    """as for run; simulated robot only"""
    pose_yaw_noise: YawNoise = 0.0
    """as for run; simulated robot only"""
    pose_delay: PoseDelay = 0.0
    """as for run; simulated robot only"""
    pose_rate: PoseRate = 0.0
    """as for run; simulated robot only"""
    pose_drift: PoseDrift = 0.0
    """as for run; simulated robot only"""
    pose_dropouts: PoseDropouts = 0.0
    """as for run; simulated robot only"""
    own_odometry: bool = False
    """the simulated robot knows its place by IMU, joints and feet alone, which drifts"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.transport != "sim":
            simulated = ("seed", "randomize", "torque_limit", "real_time", "lying", "own_odometry", *POSE)
            self.refuse(simulated, f"with --transport {self.transport}")


@dataclass(frozen=True)
class RobotDriftOptions(Options):
    """Measure how far a robot's reckoning of its place drifts: IMU, joints and feet against the simulator's truth."""

    robot: str
    """a robot's name or folder"""
    policy: Path | None = None
    """a walker FILE.onnx; without it the robot's own"""
    runs: Annotated[int, Range(1, 1000)] = 4
    """robots that walk on the flat under random commands"""
    seconds: Annotated[float, Range(0, 3600, above=True)] = 30.0
    """for which each walks"""
    randomize: bool = False
    """as for run"""
    seed: Seed = 0
    """from which the worlds' seeds are drawn"""


@dataclass(frozen=True)
class ReplayOptions(Options):
    """Feed a recording through the control loop and compare what comes out, step by step."""

    recording: Path
    """the file that `onboard --record` wrote"""
    bundle: str | None = field(default=None, metadata=POLICY)
    """a policy in place of the recorded one, to compare with it"""


@dataclass(frozen=True)
class ConvertOptions(Options):
    """Make a recording of an earlier version, or one that was cut off, a whole MCAP file."""

    recording: Path
    """the file that is read"""
    to: Path
    """the new MCAP file"""


@dataclass(frozen=True)
class CourseOptions(Options):
    """Run the course over four processes of this computer, with poses that have errors five, and print the result."""

    policy: str | None = None
    """specialists, generalist or a bundle FILE.onnx; the parameter file's without it"""
    robot: str | None = None
    """as for run; the parameter file's without it"""
    course: str | None = None
    """as for run; the parameter file's without it"""
    seed: Seed | None = None
    """of the simulated robot; the parameter file's without it"""
    randomize: bool = False
    """as for run"""
    torque_limit: Torque | None = None
    """as for run"""
    parameters: Path | None = None
    """parameter file, as launch/course.yaml"""
    out: Path | None = None
    """folder for the result, the pose log and the reports"""
    record: Path | None = None
    """file for a recording of the control loop"""
    domain: Domain | None = None
    """ROS domain; a free one without it"""
    pose_noise: PoseNoise = 0.0
    """as for run; 0: the parameter file's"""
    pose_yaw_noise: YawNoise = 0.0
    """as for run; 0: the parameter file's"""
    pose_delay: PoseDelay = 0.0
    """as for run; 0: the parameter file's"""
    pose_rate: PoseRate = 0.0
    """as for run; 0: the parameter file's"""
    pose_drift: PoseDrift = 0.0
    """as for run; 0: the parameter file's"""
    pose_dropouts: PoseDropouts = 0.0
    """as for run; 0: the parameter file's"""
    own_odometry: bool = False
    """nothing tells the robot's place: the localizer reckons it by IMU, joints, feet and the map"""


@dataclass(frozen=True)
class NodeOptions(Options):
    """What every program takes."""

    robot: str | None = None
    """as for run; the parameter file's without it"""
    course: str | None = None
    """as for run; the parameter file's without it"""
    parameters: Path | None = None
    """parameter file, as launch/course.yaml"""
    domain: Domain | None = None
    """ROS domain; without it ROS_DOMAIN_ID"""


@dataclass(frozen=True)
class SimOptions(NodeOptions):
    """Simulate a robot and its driver, until Ctrl-C."""

    seed: Seed | None = None
    """of the simulated robot; the parameter file's without it"""
    randomize: bool = False
    """as for run"""
    torque_limit: Torque | None = None
    """as for run"""
    pose_noise: PoseNoise = 0.0
    """as for run; 0: the parameter file's"""
    pose_yaw_noise: YawNoise = 0.0
    """as for run; 0: the parameter file's"""
    pose_delay: PoseDelay = 0.0
    """as for run; 0: the parameter file's"""
    pose_rate: PoseRate = 0.0
    """as for run; 0: the parameter file's"""
    pose_drift: PoseDrift = 0.0
    """as for run; 0: the parameter file's"""
    pose_dropouts: PoseDropouts = 0.0
    """as for run; 0: the parameter file's"""
    own_odometry: bool = False
    """nothing tells the robot's place, as for course"""


@dataclass(frozen=True)
class LocalizerOptions(NodeOptions):
    """Say where the robot is, by its own senses and poses that may be late and noisy, until Ctrl-C."""

    policy: str | None = None
    """specialists, generalist or a bundle FILE.onnx; the parameter file's without it"""
    own_odometry: bool = False
    """nothing tells the robot's place: it is reckoned from where the robot begins"""
    start: str | None = None
    """where that is, "X Y HEADING" in m and rad; the parameter file's without it, else the course's start"""


@dataclass(frozen=True)
class NavigatorOptions(NodeOptions):
    """Say where the robot is to go, until Ctrl-C."""

    policy: str | None = None
    """specialists, generalist or a bundle FILE.onnx; the parameter file's without it"""
    torque_limit: Torque | None = None
    """N m that the motors give at most: for weak ones the way is planned slower; the parameter file's without it"""


@dataclass(frozen=True)
class RefereeOptions(NodeOptions):
    """Keep time and score a run, to its end."""

    out: Path | None = None
    """folder for the result and the pose log"""


@dataclass(frozen=True)
class UnitreeSimOptions(Options):
    """Simulate a robot that speaks Unitree's low-level messages, until Ctrl-C."""

    robot: str = "unitree_go2"
    """a robot's name, or the folder that describes it"""
    course: str = "official"
    """as for run"""
    seed: Seed = 0
    """of the simulated robot"""
    randomize: bool = False
    """as for run"""
    torque_limit: Torque | None = None
    """as for run"""
    domain: Domain = 1
    """DDS domain; a robot's own is 0"""
    interface: str = "lo"
    """network interface"""
    score: bool = False
    """keep time and score, and end with the course run"""
    out: Path | None = None
    """JSON file for what happened"""


@dataclass(frozen=True)
class UnitreeCourseOptions(Options):
    """Run the course over Unitree's messages, robot and loop in processes of their own, and print the result."""

    policy: str = "generalist"
    """as for run"""
    robot: str = "unitree_go2"
    """a robot's name, or the folder that describes it"""
    course: str = "official"
    """as for run"""
    seed: Seed = 0
    """of the simulated robot"""
    randomize: bool = False
    """as for run"""
    torque_limit: Torque | None = None
    """as for run"""
    out: Path | None = None
    """folder for the result and the reports"""
    record: Path | None = None
    """file for a recording of the control loop"""
    domain: Domain | None = None
    """DDS domain; a free one without it"""


@dataclass(frozen=True)
class OnboardBenchOptions(Options):
    """Time the control loop for a minute and try every fault on it."""

    seconds: Annotated[float, Range(8, 24 * 3600)] = 60.0
    """of the timed run, from arming on"""
    policy: str = "generalist"
    """as for run"""
    robot: str | None = None
    """as for run"""
    course: str = "official"
    """as for run"""
    seed: Seed = 0
    """of the simulated robot"""
    priority: Annotated[int, Range(0, 99)] = 0
    """of the loop's thread (SCHED_FIFO); 0: an ordinary one"""
