"""The velocity commands of training: where they are drawn from, and how the ground may steer them."""

import math
from dataclasses import dataclass, replace
from typing import Self

from sim.arrays import Array, Namespace
from sim.observation import COMMANDS
from sim.tasks.draws import Drawn

DRAWS = (
    ("command_velocity", 3), ("command_straight", 1), ("command_standing", 1), ("command_life", 1), ("command_slew", 2),
)  # fmt: skip
"""What a command draws; see `sim.tasks.draws`."""

AT_ONCE = 1e6
"""An acceleration at which every command is reached in one step, m/s^2."""


@dataclass(frozen=True)
class Commands:
    """Ranges of the random velocity commands, and how often they change."""

    forward: tuple[float, float] = (-1.6, 2.1)
    sideways: tuple[float, float] = (-0.9, 0.9)
    yaw: tuple[float, float] = (-1.7, 1.7)
    rough_scale: float = 0.65
    """Factor on planar speeds away from flat ground."""
    standing: float = 0.08
    """Share of commands that ask for standing still."""
    straight: float = 0.2
    """Share of commands that ask for forward motion alone."""
    seconds: tuple[float, float] = (2.0, 6.0)
    """How long a command lasts."""
    guided: tuple[float, float] = (0.4, 1.5)
    """Forward speeds on ground that guides, m/s."""
    downhill: float = math.inf
    """The highest of them behind the ridge of an obstacle, m/s: a navigator brakes there, and a robot that is asked to
    run down as fast as up is better off slow on both."""
    slewed: float = 0.0
    """Share of commands that are reached at an acceleration, as a navigator's are; the others jump."""
    slew: tuple[float, float] = (3.0, 8.0)
    """That acceleration, m/s^2."""
    slew_radius: float = 0.4
    """m: the acceleration divided by it is that of the commanded yaw rate, rad/s^2."""

    def hastened(self, haste: float) -> Self:
        """The same over ranges that reach `haste` times as far; the least speed where the ground guides stays."""
        wider = {name: (low * haste, high * haste) for name in COMMANDS for low, high in [getattr(self, name)]}
        guided = self.guided[0], self.guided[1] * haste
        return replace(self, **wider, guided=guided, downhill=self.downhill * haste)

    def draw(
        self, xp: Namespace, drawn: Drawn, rough: Array, guided: Array | None, period: float
    ) -> tuple[Array, Array]:
        """A random command `[..., 3]` (m/s, m/s, rad/s) and its life in control steps of `period` s, `[...]`.

        `rough` `[...]` says where the ground is not flat, `guided` where it leads along an obstacle (None: nowhere).
        """
        ranges = (self.forward, self.sideways, self.yaw)
        low, high = (xp.asarray([r[i] for r in ranges], dtype=xp.float32) for i in (0, 1))
        command = low + drawn.command_velocity * (high - low)
        planar = xp.asarray([self.rough_scale, self.rough_scale, 1.0], dtype=xp.float32)
        command = command * xp.where(rough[..., None], planar, xp.ones(3, xp.float32))
        straight = xp.asarray([1.0, 0.0, 0.0], dtype=xp.float32)
        command = xp.where((drawn.command_straight < self.straight)[..., None], command * straight, command)
        command = xp.where((drawn.command_standing < self.standing)[..., None], xp.zeros_like(command), command)
        if guided is not None:
            ahead = self.guided[0] + drawn.command_velocity[..., 0] * (self.guided[1] - self.guided[0])
            along = xp.stack([ahead, xp.zeros_like(ahead), xp.zeros_like(ahead)], -1)
            command = xp.where(guided[..., None], along, command)
        life = (self.seconds[0] + drawn.command_life * (self.seconds[1] - self.seconds[0])) / period
        return command.astype(xp.float32), xp.round(life).astype(xp.float32)

    def drawn_slew(self, xp: Namespace, drawn: Drawn) -> Array:
        """The acceleration at which a drawn command is reached, m/s^2 `[...]`; `AT_ONCE` where it jumps."""
        slew = self.slew[0] + drawn.command_slew[..., 1] * (self.slew[1] - self.slew[0])
        return xp.where(drawn.command_slew[..., 0] < self.slewed, slew, AT_ONCE).astype(xp.float32)

    def towards(self, xp: Namespace, command: Array, goal: Array, slew: Array, period: float) -> Array:
        """The command `[..., 3]` one control step of `period` s later on its way to `goal` `[..., 3]`."""
        gap = goal - command
        planar = xp.sqrt((gap[..., :2] ** 2).sum(-1))
        share = xp.minimum(1.0, slew * period / xp.maximum(planar, 1e-6))
        most = slew[..., None] * period / self.slew_radius
        moved = xp.concatenate([gap[..., :2] * share[..., None], xp.clip(gap[..., 2:], -most, most)], -1)
        return (command + moved).astype(xp.float32)

    def within(self, xp: Namespace, command: Array) -> Array:
        """A command `[..., 3]` within the ranges; the direction of its velocity is kept."""
        low, high = (xp.asarray([r[i] for r in (self.forward, self.sideways, self.yaw)], xp.float32) for i in (0, 1))
        planar = command[..., :2]
        bound = xp.where(planar > 0, high[:2], -low[:2])
        scale = xp.maximum(1.0, (xp.abs(planar) / bound).max(-1))[..., None]
        return xp.concatenate([planar / scale, xp.clip(command[..., 2:], low[2:], high[2:])], -1)
