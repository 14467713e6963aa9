"""What happens where one skill hands the robot over to another: the same lines in training, evaluation and onboard.

Joint targets fade from the old skill's to the new one's, and a bound's clock is set for the board ahead. Every function
takes the array namespace `xp` (numpy or jax.numpy) and works on any leading dimensions.
"""

from sim import gait as clocks
from sim import observation as obs
from sim.arrays import Array, Namespace
from sim.robots.description import Robot
from sim.robots.gaits import Gait

FADE = 6
"""Control steps within which the step in the joint targets fades."""
SET = 6
"""Control steps in which a skill that takes over sets its clock for the board ahead."""
HALF_BOARD, BEHIND = 0.25, 0.32
"""Half the length of a board that reaches out of view, m, and how far a robot that comes at a walk falls behind the
command until it runs, m."""


def faded(xp: Namespace, robot: Robot, targets: Array, gap: Array, age: Array) -> Array:
    """Joint targets to apply, rad `[..., J]`, within the joints' ranges.

    Args:
      targets: what the new skill asks for, rad `[..., J]`.
      gap: the old skill's last targets less the new one's first, rad `[..., J]`.
      age: control steps since the new skill took over, `[...]`; 0 in its first.
    """
    weight = xp.clip(1 - (age + 1) / (FADE + 1), 0.0, 1.0).astype(xp.float32)
    blended = targets + weight[..., None] * gap
    return xp.clip(blended, xp.asarray(robot.joint_lower), xp.asarray(robot.joint_upper))


def clock_lag(
    xp: Namespace, gait: Gait, layout: obs.Layout, heights: Array, phase: Array, command: Array
) -> tuple[Array, Array]:
    """Cycles, -0.5 to 0.5 `[...]`, that a clock is behind the board ahead when its skill takes over from a walker.

    `heights` `[..., n]` are what the skill's `layout` sees, `phase` `[...]` (cycles) and `command` `[..., 3]` those of
    its first step. The second result says where a board is seen, bool `[...]`; the first is 0 elsewhere.
    """
    board = obs.board_ahead(xp, layout, heights, HALF_BOARD) + BEHIND
    even = clocks.frequency(xp, gait, phase, command)
    speed = xp.hypot(command[..., 0], command[..., 1])
    return clocks.stride_error(xp, gait, phase, even, speed, board), xp.isfinite(board)
