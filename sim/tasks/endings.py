"""Why an episode ends before its time: small named functions, bool `[...]` each; a task lists the names it wants."""

from collections.abc import Callable, Sequence

from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.robots.description import Robot
from sim.tasks.ground import Ground
from sim.tasks.state import Motion, TaskState

Ending = Callable[[Namespace, Robot, Ground, TaskState, Motion], Array]


def tilted(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, m: Motion) -> Array:
    """The base leans further than the robot's `Fall` allows in training."""
    return m.gravity[..., 2] > -robot.fall.learning_upright


def low(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, m: Motion) -> Array:
    """The base is nearer to the ground than the robot's `Fall` allows in training."""
    return m.clearance < robot.fall.learning_clearance


def astray(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, m: Motion) -> Array:
    """The robot stands, but not where the ground wants it."""
    return ground.astray(xp, state, m)


ENDINGS: dict[str, Ending] = {ending.__name__: ending for ending in (tilted, low, astray)}


def ended(xp: Namespace, names: Sequence[str], robot: Robot, ground: Ground, state: TaskState, m: Motion) -> Array:
    """1.0 where any of the named endings has come, `[...]`.

    Raises:
      InputError: a name that is no ending.
    """
    unknown = [name for name in names if name not in ENDINGS]
    if unknown:
        raise InputError(f"unknown ending '{unknown[0]}': known are {', '.join(sorted(ENDINGS))}")
    over = xp.zeros(m.yaw.shape, bool)
    for name in names:
        over = over | ENDINGS[name](xp, robot, ground, state, m)
    return over.astype(xp.float32)
