"""What the critic sees besides the actor's input: small named functions, `[..., n]` each; a task lists the names."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from sim import observation as obs
from sim.arrays import Array, Namespace
from sim.physics.base import PhysicsReading
from sim.planar import to_body
from sim.robots.description import Robot
from sim.tasks.ground import Ground
from sim.tasks.state import TaskState


class Look(NamedTuple):
    """A state of the world that is looked at."""

    reading: PhysicsReading
    xy: Array
    """World x and y of the base, m, `[..., 2]`."""
    yaw: Array
    contact: Array
    """1.0 per foot on the ground, `[..., legs]`."""


def heading_frame(xp: Namespace, velocity: Array, yaw: Array) -> Array:
    """A velocity of the world, `[..., 3]`, in the base's heading frame."""
    return xp.stack([*to_body(velocity[..., 0], velocity[..., 1], yaw, xp), velocity[..., 2]], -1)


def velocity(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, look: Look) -> Array:
    """Of the base in its heading frame, m/s."""
    return heading_frame(xp, look.reading.qvel[..., :3], look.yaw)


def height(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, look: Look) -> Array:
    """Of the base over the ground beneath it, m."""
    return (look.reading.qpos[..., 2] - ground.height(xp, look.xy))[..., None]


def contact(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, look: Look) -> Array:
    """Of each foot."""
    return look.contact


def frame(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, look: Look) -> Array:
    """The actor's newest frame without noise."""
    qpos, qvel = look.reading.qpos, look.reading.qvel
    true = obs.Sensors(qpos[..., 3:7], qvel[..., 3:6], qpos[..., 7:], qvel[..., 6:])
    return obs.frame(xp, robot, true, state.last_action)


def board(xp: Namespace, robot: Robot, ground: Ground, state: TaskState, look: Look) -> Array:
    """What the ground knows of the board ahead."""
    return ground.board_seen(xp, state, look.xy)


@dataclass(frozen=True)
class Term:
    """A function and how many numbers it gives for a robot."""

    of: Callable[[Namespace, Robot, Ground, TaskState, Look], Array]
    size: Callable[[Robot], int]


CRITIC: dict[str, Term] = {
    "velocity": Term(velocity, lambda robot: 3),
    "height": Term(height, lambda robot: 1),
    "contact": Term(contact, lambda robot: len(robot.legs)),
    "frame": Term(frame, lambda robot: obs.frame_size(robot.joints)),
    "board": Term(board, lambda robot: 3),
}
"""In this order behind the actor's input, as far as a task lists them."""
