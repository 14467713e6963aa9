"""What `barkour run` and `barkour evaluate` are asked for."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from sim.errors import InputError
from sim.localization import POSE, PoseDelay, PoseDrift, PoseDropouts, PoseNoise, PoseRate, YawNoise
from sim.options import Options, Range, Torque, WorldSeed
from sim.physics.engines import Engine


@dataclass(frozen=True)
class CourseRunOptions(Options):
    """Run a policy over the course in simulation and score it."""

    policy: str = "generalist"
    """specialists, generalist or a bundle FILE.onnx"""
    robot: str | None = None
    """a robot's name or folder; without it barkour_v0, or the robot of FILE.onnx"""
    course: str = "official"
    """official, another shipped course (rearranged, reversed), generated:SEED, or FILE.yaml"""
    seed: WorldSeed = 0
    """of everything that is drawn"""
    randomize: bool = False
    """draw physics, latency, noise and start pose from the ranges of sim/tasks/randomization.py"""
    record: Path | None = None
    """folder for the pose log, an MCAP recording, the path's picture, the summary and (with off-screen GL) a video"""
    watch: bool = False
    """show the run live in a browser (needs the viz extra)"""
    listen: str = "127.0.0.1"
    """IP address that --watch listens on; 0.0.0.0: every one, for whoever reaches this computer"""
    torque_limit: Torque | None = None
    """peak joint torque, N m, in place of the robot's (18; the paper's robot: 12)"""
    pose_noise: PoseNoise = 0.0
    """standard deviation of the position that the robot knows of itself, m; the score takes the true one"""
    pose_yaw_noise: YawNoise = 0.0
    """standard deviation of the heading that it knows, rad"""
    pose_delay: PoseDelay = 0.0
    """age of a pose when it becomes known, s"""
    pose_rate: PoseRate = 0.0
    """poses a second; 0: one every control step"""
    pose_drift: PoseDrift = 0.0
    """error of the position as a share of the way gone, in a direction drawn per run"""
    pose_dropouts: PoseDropouts = 0.0
    """share of the time without poses, in dropouts of 0.1 s on average"""
    own_odometry: bool = False
    """no poses: the robot knows its place by IMU, joints, feet and the course's map alone"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own_odometry:
            self.refuse(POSE, "with --own-odometry")
        if not self.watch:
            self.refuse(("listen",), "without --watch")
        try:
            ipaddress.ip_address(self.listen)
        except ValueError as error:
            raise InputError(f"--listen must be an IP address such as 0.0.0.0, got {self.listen!r}") from error


@dataclass(frozen=True)
class EvaluateOptions(Options):
    """Run a policy many times in parallel worlds and report the distribution."""

    policy: str = "generalist"
    """as for run"""
    robot: str | None = None
    """as for run"""
    course: str = "official"
    """as for run; generated:0-19 spreads the runs over twenty random courses"""
    runs: Annotated[int, Range(1, 100_000)] = 50
    """how many"""
    randomize: bool = False
    """as for run"""
    seed: WorldSeed = 0
    """from which the worlds' seeds are drawn"""
    report: Path | None = None
    """folder for report.html, report.json, report.md, plots and the table of failures"""
    against: str | None = None
    """a second policy over the same worlds, and what the first has over it, world by world"""
    torque_limit: Torque | None = None
    """as for run"""
    pose_noise: PoseNoise = 0.0
    """as for run"""
    pose_yaw_noise: YawNoise = 0.0
    """as for run"""
    pose_delay: PoseDelay = 0.0
    """as for run"""
    pose_rate: PoseRate = 0.0
    """as for run"""
    pose_drift: PoseDrift = 0.0
    """as for run"""
    pose_dropouts: PoseDropouts = 0.0
    """as for run"""
    own_odometry: bool = False
    """as for run"""
    engine: Engine = "cpu"
    """physics: cpu (MuJoCo's C engine), drake (needs the sim2sim extra) or mjx (needs the train extra; slow)"""
    sim2sim: bool = False
    """the runs, and as many walks, in MuJoCo and Drake, each with other solvers, friction, latency and torque; with
    --report rows are kept in sim2sim.json, and an interrupted table goes on"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.own_odometry:
            self.refuse(POSE, "with --own-odometry")
        if self.sim2sim:
            self.refuse(("against", "own_odometry"), "with --sim2sim")
            if self.engine == "drake":
                raise InputError("--sim2sim has MuJoCo and Drake always: --engine mjx adds MJX")


@dataclass(frozen=True)
class RobotMeasureOptions(Options):
    """Measure a robot: does it stand and rise, its outline, and how fast and quick its walker is."""

    robot: str
    """a robot's name or folder"""
    policy: Path | None = None
    """a walker FILE.onnx; without it the robot's own, where it has one"""
    repeats: Annotated[int, Range(1, 1000)] = 3
    """robots, each of physics of its own, for every speed that is tried"""
    seed: WorldSeed = 0
    """of their physics"""
    response: bool = False
    """measure in place of speeds how the walker's velocity answers its commands, and keep the table beside its file,
    where the navigator finds it"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.response:
            self.refuse(("repeats",), "with --response")


@dataclass(frozen=True)
class RobotAddOptions(Options):
    """Describe a robot from its MJCF or URDF: writes a folder that --robot takes, and measures what stands in it."""

    name: str
    """what it is to be called"""
    model: Path
    """its MJCF or URDF"""
    robots: Path = Path("robots")
    """folder of robots' folders"""
    force: bool = False
    """replace an existing description"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_utf8("model", "robots")
