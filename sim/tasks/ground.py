"""The ground that a task is learned on: where episodes begin, what is seen, who guides, and how it repeats itself."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple, Self

import numpy as np

from sim import observation as obs
from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.robots.description import Robot
from sim.tasks import patches
from sim.tasks.commands import Commands
from sim.tasks.draws import Drawn
from sim.tasks.state import Motion, TaskState

BOARD = 6
"""Numbers of `TaskState.board`."""
CLEAR = 0.01
"""A robot begins its episode this far above the ground, m."""
STEER = 1.5
"""Sideways speed for each metre off an obstacle's line, 1/s."""
STEER_LIMIT, TURN, TURN_LIMIT = 0.4, 2.5, 1.2
"""Largest such speed, m/s; yaw rate for each radian off its direction, 1/s; and its largest, rad/s."""


class Start(NamedTuple):
    """Where an episode begins."""

    xy: Array
    """World x and y of the base, m, `[..., 2]`."""
    z: Array
    yaw: Array
    velocity: Array | None
    """Of the base besides what is drawn, in the world, m/s `[..., 2]`; None: at rest."""
    phase: Array
    """Of the clock, cycles."""
    board: Array
    """`TaskState.board`."""


class Passage(NamedTuple):
    """What a control step did with what stands in the way."""

    board: Array
    """`TaskState.board` after it."""
    level: Array
    touch: Array | float = 0.0
    """See `Motion.touch` and `Motion.cleared`."""
    cleared: Array | float = 0.0
    counts: dict[str, Array] | None = None
    """For the log."""


@dataclass(frozen=True, eq=False)
class Ground:
    """Patches of several kinds and rising difficulty side by side, each endless (`sim.tasks.patches`)."""

    kinds: tuple[str, ...] = patches.KINDS
    shares: tuple[float, ...] = (0.4, 0.1, 0.2, 0.12, 0.18)
    """Of the worlds."""
    guided: tuple[str, ...] = ()
    """Kinds on which commands keep the robot on the obstacle, as a navigator would."""
    built: patches.Patches | None = None
    """The same ground, built already."""

    @cached_property
    def land(self) -> patches.Patches:
        """Its terrain, height map and patches (built once)."""
        return self.built or patches.make_patches(self.kinds)

    def only(self, kind: str) -> "Ground":
        """The same ground with every world on one of its kinds."""
        return replace(self, shares=tuple(float(kind == known) for known in self.kinds), built=self.land)

    def held_by(self, asarray: Callable[[np.ndarray], Array]) -> "Ground":
        """The same ground with its height map in arrays of another library, so that traced positions can look it up."""
        heights = replace(self.land.heights, cells=asarray(self.land.heights.cells))
        return replace(self, built=replace(self.land, heights=heights))

    def hastened(self, haste: float) -> Self:
        """The same ground where what it asks for itself is `haste` times as fast; this one asks for nothing."""
        return self

    # --- where things are -------------------------------------------------------------------------------------------

    def origin(self, xp: Namespace, kind: Array, level: Array) -> Array:
        """Centre of each world's patch, m `[..., 2]`."""
        return xp.asarray(self.land.origins)[kind, level.astype(xp.int32)]

    def height(self, xp: Namespace, xy: Array) -> Array:
        """Of the ground at world points `[..., 2]` (m), m `[...]`."""
        return self.land.heights.height(xy[..., 0], xy[..., 1], xp)

    def shift(self, xp: Namespace, offset: Array) -> Array:
        """Move by whole periods, m, that keeps a base within one, `[..., 2]`; `offset` is from the patch's centre."""
        return -patches.PERIOD * xp.round(offset / patches.PERIOD)

    def pits(self, xp: Namespace, board: Array | None) -> Callable[[Array, Array], Array] | None:
        """What boards look like, as `sim.observation.terrain_heights` takes it; None where there are none."""
        return None

    def heights(
        self, xp: Namespace, robot: Robot, layout: obs.Layout, xy: Array, yaw: Array, z: Array, error: Array,
        board: Array | None = None,
    ) -> Array:  # fmt: skip
        """The policy's terrain heights `[..., n]` for a base at `xy`, `z` (m), heading `yaw`, with an `error` (m) that
        all share; `board` as `TaskState.board`."""
        look = partial(self.land.heights.height, xp=xp)
        return obs.terrain_heights(xp, robot, layout, look, xy, yaw, z, error, self.pits(xp, board))

    # --- how episodes begin and where they lead ---------------------------------------------------------------------

    @property
    def parts(self) -> tuple[str, ...]:
        """Leg parts whose positions `follow` is given, feet first."""
        return ("foot",)

    @property
    def commands_last(self) -> bool:
        """Whether the ground alone says what is asked, so that no random command takes the place of another."""
        return False

    def start(self, xp: Namespace, drawn: Drawn, robot: Robot, kind: Array, level: Array) -> Start:
        """Where an episode begins; on an obstacle's line where the ground guides."""
        xy, yaw = self._place(xp, drawn, kind, level)
        corners = [self.height(xp, xy + xp.asarray(corner)) for corner in robot.footprint.corners]
        z = xp.stack([*corners, self.height(xp, xy)], -1).max(-1) + robot.standing_height + CLEAR
        board = xp.zeros((*yaw.shape, BOARD), xp.float32)
        return Start(xy, z, yaw, None, xp.zeros_like(yaw), board)

    def handed(self, xp: Namespace, kind: Array, level: Array, board: Array, speed: Array) -> tuple[Array, Array]:
        """Where an episode goes on in which another skill hands the robot over at a commanded `speed` (m/s): the middle
        of the near edge of the board ahead, m `[..., 2]`, and `TaskState.board` then.

        Raises:
          InputError: no boards come on this ground.
        """
        raise InputError("recorded hand-overs are for ground on which boards come")

    def _place(self, xp: Namespace, drawn: Drawn, kind: Array, level: Array) -> tuple[Array, Array]:
        """x and y, m `[..., 2]`, and heading, rad `[...]`."""
        origin = self.origin(xp, kind, level)
        xy = origin + (drawn.place - 0.5) * patches.PERIOD
        yaw = (drawn.heading - 0.5) * 2 * np.pi
        guides = self.guides(xp, kind)
        if guides is None:
            return xy, yaw
        across = drawn.place[..., 1]
        side = xp.where(across < 0.5, -1.0, 1.0)
        aside = side * patches.LINES + 0.5 * ((2 * across) % 1.0 - 0.5)
        on_line = xp.stack([xy[..., 0], origin[..., 1] + aside], -1)
        along = 0.4 * yaw + xp.where(xp.abs(yaw) < np.pi / 2, 0.0, 0.6 * np.pi * xp.sign(yaw))
        return xp.where(guides[..., None], on_line, xy), xp.where(guides, along, yaw)

    def guides(self, xp: Namespace, kind: Array) -> Array | None:
        """Where it guides, bool `[...]`; None where it never does."""
        if not self.guided:
            return None
        return xp.asarray(np.array([name in self.guided for name in self.kinds]))[kind]

    def guide(
        self, xp: Namespace, command: Array, asked: Commands, kind: Array, offset: Array, yaw: Array,
        board: Array | None = None,
    ) -> Array:  # fmt: skip
        """The command, where the ground guides: forward along x, whichever way is nearer, on the obstacle's line.

        `asked` has the speeds there; `offset` `[..., 2]` is from the patch's centre, m; `board` as `TaskState.board`.
        """
        guides = self.guides(xp, kind)
        if guides is None:
            return command
        along, across = (offset[..., k] - patches.PERIOD * xp.round(offset[..., k] / patches.PERIOD) for k in (0, 1))
        aside = across - patches.LINES * xp.where(across < 0, -1.0, 1.0)
        turn = xp.arctan2(-xp.sin(yaw), xp.abs(xp.cos(yaw))) * xp.where(xp.cos(yaw) < 0, -1.0, 1.0)
        behind = along * xp.cos(yaw) > 0.0  # the ridge, which lies across x at 0
        most = xp.where(behind, xp.minimum(asked.guided[1], asked.downhill), asked.guided[1])
        forward = xp.minimum(xp.maximum(command[..., 0], asked.guided[0]), most)
        left = xp.clip(-STEER * aside, -STEER_LIMIT, STEER_LIMIT) * xp.cos(yaw)
        steered = xp.stack([forward, left, xp.clip(TURN * turn, -TURN_LIMIT, TURN_LIMIT)], -1)
        return xp.where(guides[..., None], steered, command).astype(xp.float32)

    def follow(
        self, xp: Namespace, robot: Robot, state: TaskState, qpos: Array, points: Array, drawn: Drawn
    ) -> Passage:
        """What a control step did with what stands in the way; `points` `[..., n, 3]` are where `parts` are, m."""
        return Passage(state.board, state.level)

    def astray(self, xp: Namespace, state: TaskState, m: Motion) -> Array:
        """Whether the robot stands but the episode is lost, bool `[...]`."""
        return xp.zeros(m.yaw.shape, bool)

    def board_seen(self, xp: Namespace, state: TaskState, xy: Array) -> Array:
        """What a critic sees of the board ahead of a base at `xy` `[..., 2]`, m: distance to its near edge (m), its
        length (m), whether it was touched, `[..., 3]`."""
        return xp.zeros((*xy.shape[:-1], 3), xp.float32)
