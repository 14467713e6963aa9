"""What was refused, with code, value and limit: counted always, logged once a second of each kind."""

import contextlib
import math
import threading
from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from robot.loop.clock import NS
from sim.results import printable

LONGEST = 300
"""Characters of a sentence: a number of 1e308 alone would have as many."""


class Code(StrEnum):
    """What a verdict, a refusal or an answer is about: for programs, which must not read sentences."""

    # the safety chain
    JOINTS_STALE = "joint readings stale"
    IMU_STALE = "IMU readings stale"
    COMMAND_STALE = "command stale"
    POSE_STALE = "pose stale"
    TILT = "tilt"
    HEIGHT = "height"
    JOINT_SPEED = "joint speed"
    JOINT_STUCK = "joint stuck"
    TORQUE = "torque"
    OVERRUN = "overrun"
    MISSED = "deadlines missed"
    """Too many of the last deadlines."""
    AWAY = "loop away"
    """The loop sent nothing for longer than the drives wait for it."""
    STANDING_UP = "standing up"
    POLICY = "policy"
    """The policy raised, or refused its input."""
    POLICY_SHAPE = "policy shape"
    POLICY_NOT_FINITE = "policy not finite"
    POLICY_FROZEN = "policy frozen"
    """Its targets stay although the joints move."""
    GYRO = "gyro disagrees"
    """With the change of the attitude."""
    JOINT_DISAGREES = "joint speed disagrees"
    """With the change of the joint's angle."""
    DRIVE = "drive disagrees"
    """A drive's torque is not what its target asks for."""
    POSE_DISAGREES = "pose disagrees"
    """With legs and commands."""
    POSE_HOPS = "pose hops"
    HEADING_DISAGREES = "heading disagrees"
    """The pose's, with the turn of the attitude."""
    FEET_HEIGHT = "height disagrees"
    """The pose's, with the mapped ground under the feet that stand."""
    FEET_LEAN = "lean disagrees"
    """The attitude's, with the feet that stand."""
    GRID_DISAGREES = "grid disagrees"
    """A measured height grid, with the feet that stand on it."""
    READINGS_RARE = "readings rare"
    COMMAND_STUCK = "command stuck"
    COMMAND_JUMPS = "command jumps"
    IMPLAUSIBLE = "implausible"
    """What sensors say does not agree; the code that a replay has, which knows no more."""
    # messages
    MALFORMED = "malformed"
    """Not of the form or the number of values that such a message has."""
    NOT_FINITE = "not finite"
    UNKNOWN_NAME = "unknown name"
    MISSING_JOINT = "missing joint"
    DUPLICATE_JOINT = "duplicate joint"
    FOREIGN_JOINT = "foreign joint"
    OUT_OF_RANGE = "out of range"
    TOO_FAST = "too fast"
    JUMP = "jump"
    NO_ROTATION = "no rotation"
    """A quaternion whose length is not 1."""
    STAMP_FROZEN = "stamp frozen"
    STAMP_BACKWARDS = "stamp backwards"
    STAMP_JUMP = "stamp jump"
    CLOCK_SET = "clock set"
    CLOCK_RATE = "clock rate"
    """A clock that runs faster or slower than this computer's."""
    DELAY_RISEN = "delay risen"
    LATE = "late"
    SECOND_SENDER = "second sender"
    """Somebody else sends on a topic that one program alone may send on."""
    SENDER_CHANGED = "sender changed"
    FLOOD = "flood"
    """More messages than are looked at."""
    TOO_LARGE = "too large"
    NOT_MET = "not met"
    """A sender whose quality of service a reader does not take."""
    FROZEN = "frozen"
    """Numbers that no longer change although the robot moves."""
    NO_GRAVITY = "no gravity"
    """An accelerometer that does not feel it where the attitude says that it is."""
    NOT_AT_REST = "not at rest"
    ALOFT = "aloft"
    """No foot has borne anything for longer than a jump takes."""
    CHECKSUM = "checksum"
    """A message that was changed on its way."""
    MOTOR = "motor"
    """A motor that is off, or too hot."""
    # what the loop puts out
    COMMAND_RANGE = "command range"
    TARGET_RANGE = "target range"
    TARGET_STEP = "target step"
    TARGET_START = "target start"
    """Further from its joint than a target may be after the drives had to wait."""
    UNREACHABLE = "joints unreachable"
    CONTROL_STEP = "control step"
    RECORDING = "recording"
    # operators, and changes of state that nothing is wrong with
    OPERATOR = "operator"
    UNKNOWN_REQUEST = "unknown request"
    REQUEST_OLD = "request old"
    ALREADY_ARMED = "already armed"
    NOT_ANSWERED = "not answered"
    ARMED = "armed"
    STOOD = "stood"
    RECOVERED = "recovered"
    NOT_ARMED = "not armed yet"


class Source(StrEnum):
    """Whose message or output was refused."""

    LOOP = ""
    """The loop itself: its codes say enough."""
    JOINTS = "joints"
    IMU = "imu"
    POSE = "pose"
    COMMAND = "command"
    SKILL = "skill"
    HEIGHT_GRID = "height grid"


class Refusal(NamedTuple):
    """Why something is not believed or not done."""

    code: Code
    sentence: str
    value: float = math.nan
    """What was seen, in the unit of the limit; NaN where there is no single number."""
    limit: float = math.nan
    """What it is measured against; NaN where there is none."""
    source: str = Source.LOOP
    """A `Source`, or the name of a topic."""

    @property
    def key(self) -> str:
        """What it is counted under: source and code."""
        return f"{self.source} {self.code}".strip()


class Refusals:
    """Counts refusals and notes of each kind and passes the first of each second on to `log`."""

    def __init__(self, log: Callable[[str], None] | None = None) -> None:
        self.log = log
        self.counts: Counter[str] = Counter()
        """By `Refusal.key`."""
        self.last: dict[str, Refusal] = {}
        """`Refusal.key` -> the newest."""
        self._said: dict[str, int] = {}
        self._lock = threading.Lock()

    def add(self, now: int, refusal: Refusal) -> None:
        """Something was refused at `now` (ns)."""
        self._add(now, refusal, "refused")

    def note(self, now: int, refusal: Refusal) -> None:
        """Something worth knowing that refuses nothing."""
        self._add(now, refusal, "note")

    def sentences(self) -> dict[str, str]:
        """The newest sentence of each kind."""
        with self._lock:
            return {key: refusal.sentence for key, refusal in self.last.items()}

    def _add(self, now: int, refusal: Refusal, word: str) -> None:
        key = refusal.key
        if len(refusal.sentence) > LONGEST or not refusal.sentence.isprintable():  # it may quote what a stranger sent
            refusal = refusal._replace(sentence=printable(refusal.sentence[:LONGEST]))
        with self._lock:
            self.counts[key] += 1
            self.last[key] = refusal
            said = self._said.get(key)
            if said is not None and now - said < NS:
                return
            self._said[key] = now
        if self.log is not None:
            with contextlib.suppress(Exception):  # a log that cannot be written stops no robot
                self.log(f"{word}: {refusal.sentence}")
