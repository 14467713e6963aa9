"""How fast a route may be, with strong and with weak motors."""

from dataclasses import dataclass, replace

from policies.navigation.path import MotionLimits
from policies.navigation.problem import Envelope


@dataclass(frozen=True)
class Paces:
    """How fast a route may be: what the skills were measured to do on the course (m/s, m/s^2, rad/s)."""

    walker: Envelope = Envelope(forward=(-1.2, 1.8), sideways=1.1, yaw=2.2, acceleration=3.2, yaw_acceleration=6.0)
    """Among the poles."""
    turn: Envelope = Envelope(forward=(-1.2, 1.8), sideways=1.1, yaw=2.2, acceleration=3.2, yaw_acceleration=6.0)
    """In turns between obstacles: a jumper takes a robot over behind one, and touches boards more behind slow ones."""
    limits: MotionLimits = MotionLimits()
    """What may be commanded on the way, and how fast the way may bend, speed up and brake."""
    made_up: float = 0.0
    """How much of the speed that a walker lacks along its way, as its response foretells, is asked for beforehand in
    every round of a rehearsal (`policies.navigation.rehearsal`)."""
    late: Envelope = Envelope(forward=(-1.2, 1.8), sideways=0.9, yaw=1.7, acceleration=2.4)
    """Among poles that are entered in motion, from another obstacle: robots got stuck there on faster ways."""
    walk: float = 1.5
    """On straights."""
    weave: float = 1.3
    """Among poles that are passed squarely, where no fast way is found."""
    table: float = 1.2
    """Off the start table."""
    enter: float = 1.9
    """Where the climber takes over."""
    enter_turning: float = 1.2
    """The same behind a turn: feet that still push aside slide on the ramp."""
    climb: float = 2.2
    """Up the A-frame, on the map."""
    descend: float = 1.9
    """Down from its ridge: a turn follows."""
    run_in: float = 1.3
    """Where the run-up to the board begins."""
    jump: float = 2.0
    """At a board with open ground behind it. At 1.8 it was touched in 7 of 20 runs of the reversed course, so in 2."""
    jump_to_table: float = 1.8
    """At a board before the end table. At 2.0 3 of 32 nominal runs did not end there, here 1 of 100."""
    landing: float = 1.0
    """Behind the board."""
    braked: float = 0.5
    settled: float = 0.8
    """At a bound and at a walk, behind a board with no table."""
    mount: float = 1.1
    """Onto the end table at a bound."""
    arrival: float = 0.6
    """Onto the end table at a walk: a foot that catches on the edge costs the run there, and 0.4 s are worth 0.004."""


_WEAK_WALKER = Envelope(forward=(-1.0, 1.4), sideways=0.9, yaw=1.8, acceleration=1.8, yaw_acceleration=2.0)
WEAK = Paces(
    walker=_WEAK_WALKER,
    turn=_WEAK_WALKER,
    late=replace(_WEAK_WALKER, yaw=1.5, acceleration=2.0),
    climb=1.2,
    jump_to_table=2.0,
)
"""What holds with peak torques of 12 N m, as the paper's robot has."""
WEAK_SHARE = 15 / 18
"""Share of the robot's own peak torque under which `WEAK` is taken: half way from 18 N m to the paper's 12."""
