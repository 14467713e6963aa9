"""The skills that are trained, each a `Task` over its own ground with its own terms."""

from collections.abc import Callable

from sim import observation as obs
from sim.errors import InputError
from sim.robots.description import Robot, default_robot
from sim.tasks import patches, rewards
from sim.tasks.boards import Lanes
from sim.tasks.commands import Commands
from sim.tasks.curricula import AsItStands, Distance
from sim.tasks.ground import Ground
from sim.tasks.randomization import Ranges
from sim.tasks.task import Task
from sim.tasks.ways import Ways

STRONG_AND_WEAK = Ranges(strength=(0.6, 1.0))
"""Climbing and jumping are learned over motors from full strength down to two thirds (Barkour v0's 18 N m and the
paper's 12 N m) less a tenth."""


MOSTLY_FLAT = 0.6, 0.06, 0.14, 0.08, 0.12
"""Shares of a walker's worlds where it follows planned ways, which are on the flat."""


POLE_TOUCH = -2.0
"""Weight of a control step in which a walker touches a weave pole: more than that of a whole m/s that is missing."""


def walk(robot: Robot | None = None, ways: Ways | None = None, poles: bool = False) -> Task:
    """Omnidirectional walking on the flat, slopes to 16 degrees, steps and stairs to 0.11 m.

    Commands change as quickly as a navigator's among poles: what is steered by is how soon a robot follows. With `ways`
    most of those on the flat are a navigator's; with `poles` their weave poles can be run into.
    """
    return Task(
        robot or default_robot(),
        Ground(shares=MOSTLY_FLAT) if ways else Ground(),
        ways=ways,
        poles=poles,
        weights=dict(rewards.WALK) | ({"pole_touch": POLE_TOUCH} if poles else {}),
        thrown=0.3,
        commands=Commands((-1.6, 2.4), (-1.5, 1.5), (-3.0, 3.0), seconds=(0.3, 3.0), slewed=0.6),
    )


def climb(robot: Robot | None = None) -> Task:
    """Up and down slopes of 5 to 33 degrees: ridges from any direction, A-frames of the official size lengthwise."""
    return Task(
        robot or default_robot(),
        Ground(patches.CLIMB_KINDS, (0.15, 0.25, 0.6), guided=("frames",)),
        ranges=STRONG_AND_WEAK,
        weights=dict(rewards.CLIMB),
        collision="full",  # the trunk can come to rest on the ridge
        commands=Commands((-1.0, 2.4), (-1.25, 1.25), (-2.5, 2.5), rough_scale=0.7, guided=(0.6, 2.4), downhill=1.7),
        curriculum=Distance(0.65, 0.4),  # 2.4 m/s up 33 degrees is asked of the weakest motors too
    )


def jump(robot: Robot | None = None) -> Task:
    """A bound along a straight line over boards of 0.1 to 0.6 m, from rest and from speed.

    Raises:
      InputError: a robot without a bound.
    """
    robot = robot or default_robot()
    if robot.bound is None:
        raise InputError(
            f"the robot {robot.name} has no bound to learn jumping from: `python -m sim.envs.gait_search --robot "
            f"{robot.name}` finds one"
        )
    return Task(
        robot,
        Lanes(),
        clock=robot.bound,
        grids=(obs.ahead(),),
        critic=("velocity", "height", "contact", "frame", "board"),
        weights=dict(rewards.JUMP),
        endings=("tilted", "low", "astray"),
        curriculum=AsItStands(),
        commands=Commands(forward=(0.4, 2.2), sideways=(-0.4, 0.4), yaw=(-1.2, 1.2)),
        start_level=0.0,
        ranges=STRONG_AND_WEAK,
    )


TASKS: dict[str, Callable[..., Task]] = {"walk": walk, "climb": climb, "jump": jump}
