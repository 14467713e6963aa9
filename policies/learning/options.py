"""What `barkour train`, `export` and `bench physics` are asked for. Light to import: shown without JAX."""

import re
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from sim.errors import InputError
from sim.options import Options, Range, Seed, Threads
from sim.robots.description import DEFAULT
from sim.tasks.patches import LEVELS


@dataclass(frozen=True)
class TrainOptions(Options):
    """Train a specialist with PPO."""

    skill: Literal["walk", "climb", "jump"]
    """what it learns"""
    robot: str = DEFAULT
    """a robot's name, or the folder that describes one"""
    backend: Literal["cpu", "mjx"] = "cpu"
    """physics engine: MuJoCo C on threads, or MJX on an accelerator"""
    steps: Annotated[int, Range(1, 10**11)] | None = None
    """environment steps in all, over every world; without it 20, 12 or 16 million for walk, climb or jump"""
    seed: Seed = 0
    """of parameters, worlds and exploration"""
    out: Path | None = None
    """folder of the run; runs/SKILL without it"""
    resume: bool = False
    """continue the run in --out from its newest checkpoint"""
    worlds: Annotated[int, Range(1, 2**17)] = 540
    """simulated robots side by side, rounded down to a multiple of 6, the minibatches"""
    threads: Threads = 0
    """physics threads; 0 takes every core"""
    start_from: Path | None = None
    """checkpoint, run or models/SKILL folder whose parameters to begin with, another robot's too"""
    handovers: str = ""
    """for jump: half of the episodes begin as this policy's walker hands the robot over; specialists are the shipped"""
    ways: Annotated[int, Range(0, 2000)] = 0
    """for walk: three in four commands on the flat follow one of so many planned ways, as on a course"""
    poles: bool = False
    """with --ways, on the cpu: the weave poles of their courses stand there"""
    preview: Literal["none", "velocity", "pose"] = "none"
    """for walk: what it sees of the next 0.6 s of the motion that is asked for"""
    haste: Annotated[float, Range(0.5, 2.0)] = 1.0
    """speeds that are asked for, and accelerations of --ways, as a multiple of the skill's own"""
    clock: Annotated[float, Range(1.0, 5.0)] | None = None
    """for walk and climb: how fast the trot's clock turns at low speed, Hz; without it the robot's own"""
    level: Annotated[float, Range(0, LEVELS - 1)] | None = None
    """of the curriculum, where worlds begin; without it the skill's own start. For --start-from a trained run"""
    checkpoint_minutes: Annotated[float, Range(0, 24 * 60)] = 2.0
    """minutes between checkpoints: the most that an interruption can lose"""
    coordinator: str = ""
    """name:port of host 0 when several hosts train together"""
    hosts: Annotated[int, Range(1, 1024)] = 1
    """how many hosts train together; --worlds is the number over all of them"""
    host: Annotated[int, Range(0, 1023)] = 0
    """this host's number, from 0"""
    listen: str = "127.0.0.1"
    """IP address on which host 0 waits for the others; 0.0.0.0 for every network"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hosts == 1:
            self.refuse(("coordinator", "host", "listen"), "without --hosts")
        elif not _is_address(self.coordinator):
            raise InputError(f"several hosts need --coordinator NAME:PORT (host 0's address), got '{self.coordinator}'")
        if self.host >= self.hosts:
            raise InputError(f"--host must be 0 to {self.hosts - 1} with --hosts {self.hosts}, got {self.host}")
        if self.host:
            self.refuse(("listen",), "on another host than host 0")
        elif self.hosts > 1:
            self._check_reach()
        if self.worlds % self.hosts:
            raise InputError(f"--worlds {self.worlds} cannot be split over {self.hosts} hosts evenly")
        if self.backend == "mjx":
            self.refuse(("threads",), "with --backend mjx")
        if self.skill != "jump":
            self.refuse(("handovers",), f"for the skill {self.skill}")
        if self.skill != "walk":
            self.refuse(("ways", "preview"), f"for the skill {self.skill}")
        if not self.ways:
            self.refuse(("poles",), "without --ways")
        if self.backend != "cpu":
            self.refuse(("poles",), f"with --backend {self.backend}")
        if self.skill == "jump":
            self.refuse(("clock",), "for the skill jump, whose strides time its clock")

    def _check_reach(self) -> None:
        """Host 0 must listen where the others look for it."""
        if not _is_ip(self.listen):
            raise InputError(f"--listen must be an IP address such as 0.0.0.0, got {self.listen!r}")
        name = self.coordinator.rpartition(":")[0]
        here = name == "localhost" or (_is_ip(name) and ip_address(name).is_loopback)
        if ip_address(self.listen).is_loopback and not here:
            raise InputError(
                f"host 0 listens on this computer alone, but is looked for at {self.coordinator}: say --listen with "
                "the IP address of its network, or 0.0.0.0"
            )

    @property
    def folder(self) -> Path:
        """Where the run is kept."""
        return self.out or Path("runs") / self.skill


@dataclass(frozen=True)
class ExportOptions(Options):
    """Write a checkpoint's policy as one ONNX bundle."""

    checkpoint: Path
    """a checkpoint, a run's folder (its newest), a run of distill locomotion, or a bundle FILE.onnx to write anew"""
    file: Path
    """the bundle FILE.onnx to write"""
    robot: str | None = None
    """name or folder of the checkpoint's robot, where it is not known by its name"""
    target_step: Annotated[float, Range(0, 10)] | None = None
    """largest change of a joint target in a control step, rad; what the policy asks for beyond is cut off. 0: none"""
    force: bool = False
    """replace an existing file"""

    @property
    def changes(self) -> dict[str, float | None]:
        """What of the bundle's metadata is to be other than the checkpoint says."""
        return {} if self.target_step is None else {"target_step": self.target_step or None}


@dataclass(frozen=True)
class PhysicsBenchOptions(Options):
    """Compare the engines' environment steps per second in one run; about three minutes."""


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_address(text: str) -> bool:
    found = re.fullmatch(r"[^\s:]+:([0-9]{1,5})", text)
    return found is not None and 1 <= int(found[1]) <= 65535
