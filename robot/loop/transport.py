"""What the control loop knows of the outside: what came in last and when, where joint targets go, who asks for what.

A transport (the in-process simulation, ROS 2) hands every message to a `robot.loop.message_filter.MessageFilter`,
which checks its form and its numbers before anything else sees them, and is given an `Output` every control step. Times
are on the steady clock of this computer, ns; the stamps inside messages are their senders' and only compared with each
other.
"""

import threading
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from robot.loop.clock import NS as NS
from robot.loop.refusals import Code

Array = npt.NDArray[Any]
"""Any array; shape and unit stand where it is described."""
NEVER = -(2**62)
"""The time of something that has not happened, ns."""
ANSWERED = 0.5
"""s within which the loop must answer an operator."""


IMPLAUSIBLE_DAMPS = "implausible: damp"
"""The `Request` of a message filter whose messages do not agree with each other."""


class Mode(IntEnum):
    """What joints are asked for."""

    NOTHING = 0
    """Nothing is sent: the robot is not ours."""
    POSITION = 1
    """Joint targets, held by the drives' own PD."""
    DAMP = 2
    """No target: the drives only brake (their velocity gain alone)."""


class State(IntEnum):
    """State of the controller."""

    DISARMED = 0
    STANDING_UP = 1
    RUNNING = 2
    SOFT_STOP = 3
    """Brakes, stands, then damps and disarms."""
    EMERGENCY = 4
    """Damping at once, until armed again."""


@dataclass
class Output:
    """What the loop asks of the joints in one control step."""

    mode: Mode
    targets: Array
    """Joint targets, rad, float32 `[J]`, `Robot.joint_names` order; without meaning unless `mode` is POSITION."""
    stamp: int
    """Stamp of the joint reading that it answers, ns on its sender's clock."""


@dataclass
class Snapshot:
    """The newest accepted message of each kind, with the time it came in (ns, steady clock; NEVER before the first)."""

    position: Array = field(default_factory=lambda: np.zeros(0))
    """Joint angles, rad `[J]`."""
    velocity: Array = field(default_factory=lambda: np.zeros(0))
    """rad/s `[J]`."""
    effort: Array = field(default_factory=lambda: np.zeros(0))
    """N m `[J]`; NaN where the robot does not report it."""
    joints_time: int = NEVER
    joints_stamp: int = 0
    orientation: Array = field(default_factory=lambda: np.array([1.0, 0.0, 0.0, 0.0]))
    """Quaternion (w, x, y, z), world from base `[4]`."""
    angular_velocity: Array = field(default_factory=lambda: np.zeros(3))
    """Gyro, rad/s, base frame `[3]`."""
    imu_time: int = NEVER
    pose: Array = field(default_factory=lambda: np.zeros(4))
    """x, y, z (m) and heading (rad) in the course frame `[4]`."""
    pose_time: int = NEVER
    command: Array = field(default_factory=lambda: np.zeros(3))
    """Forward, leftward velocity (m/s) and yaw rate (rad/s) in the heading frame `[3]`."""
    command_time: int = NEVER
    skill: int = 0
    """Index into `sim.course.description.SKILLS` of the skill that is asked for (specialists only)."""
    heights: Array | None = None
    """A measured height grid `[rows, columns]`, see `robot.loop.terrain`; None where only the course map is known."""
    heights_time: int = NEVER

    @classmethod
    def blank(cls, joints: int) -> "Snapshot":
        """What is known of a robot with so many joints before the first message."""
        return cls(position=np.zeros(joints), velocity=np.zeros(joints), effort=np.full(joints, np.nan))

    def copy(self) -> "Snapshot":
        """A snapshot that later messages do not change."""
        return Snapshot(**vars(self))  # arrays are replaced, never written into


class Request:
    """An operator's `arm`, `disarm` or `stop`, or a transport's wish, answered by the loop in its next step."""

    def __init__(self, kind: str, asked: int | None = None, cause: str = "", about: Code | None = None) -> None:
        """`asked` is when, ns: who asked a loop that stood still must not be heard when it goes on. `cause` is a
        sentence that says why, `about` what it is about."""
        self.kind, self.asked, self.cause, self.about = kind, asked, cause, about
        self.granted = False
        self.code, self.message = Code.NOT_ANSWERED, "the control loop does not answer"
        self._done = threading.Event()

    def answer(self, granted: bool, code: Code, message: str) -> None:
        """Called by the loop."""
        self.granted, self.code, self.message = granted, code, message
        self._done.set()

    @property
    def answered(self) -> bool:
        """Whether the loop has taken it up."""
        return self._done.is_set()

    def wait(self, seconds: float) -> bool:
        """Waits for the answer; whether it was granted."""
        self._done.wait(seconds)
        return self.granted


class Transport(Protocol):
    """Where outputs go. Everything that comes in goes to the `MessageFilter` that the transport was given."""

    def write(self, output: Output) -> None:
        """Sends joint targets or damping; called once a control step unless there is nothing to send."""
        ...

    def report(self, status: dict[str, Any]) -> None:
        """Publishes the controller's status, JSON-ready; called about twice a second and at every change of state."""
        ...

    def close(self) -> None:
        """Lets go of everything."""
        ...
