"""Boards across the way that no leg may touch: the jumper's obstacle, as a part of a task.

A board is a strip of 0.1 to 0.6 m across the robot's line; it looks like a pit to the policy and is there for feet and
knees alone: what is as low as the board and within its edges is counted as a touch. A board that is passed clean widens
the next one, a touched one narrows it, per world. Worlds run along lanes: on flat ground, or with a table across the
way a metre behind each board, as the end table stands behind the official one: the robot mounts it at what speed it has
left and stops on it. Pure functions over numpy or jax.numpy.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, Self

import numpy as np

from sim.arrays import Array, Namespace
from sim.course.terrain import Block, HeightMap, Terrain, pit
from sim.planar import to_body
from sim.robots.description import Robot
from sim.tasks import patches
from sim.tasks.commands import Commands
from sim.tasks.draws import Drawn
from sim.tasks.ground import CLEAR, Ground, Passage, Start
from sim.tasks.state import Motion, TaskState

WIDTHS = 0.1, 0.6
"""Length of the board along the way at the lowest and highest level, m."""
WIDER, NARROWER = 0.2, 0.3
"""Change of the level (0 to `patches.LEVELS` - 1, 0.1 m each) after a clean pass and after a touch."""
SOLE, EDGE = 0.03, 0.02
"""A foot this near the floor stands on the board, m, and so does one that comes this near to the board's edges: of a
foot's radius 6 mm reach over a board of 1 mm thickness, and what copies the jumper needs room for its errors: one copy
carried its trunk 4 cm lower over the board, and a hind foot 4 cm lower, than the jumper that it learned from."""
BEHIND = 0.02
"""A board counts as passed when the last foot is this far behind it, m."""
RUN_UP_RANGE = 1.2, 2.3
"""Distance to the next board's near edge at the start, and after each pass, m."""
LANES = {"flat": 0.0, "low tables": 0.05, "tables": 0.1}
"""Kinds of ground, and the height of their tables, m."""
LANE_PITCH, LANE_WIDTH = 16.0, 12.0
PERIOD, TABLE = 6.0, (4.0, 5.2)
"""Lanes repeat themselves along x every so many metres; where in a period the table begins and ends, m."""
GAP = 0.85, 1.3
"""From a board's far edge to the table behind it, m (official: 1.0)."""
STOP, HOLD, OVER = 0.55, 125, 1.05
"""Where the robot is to stop, m on the table; for how many control steps after the board nothing else is asked; and
how far on the table it has shot over it, m: the official run ends there."""
MOUNTED, ASIDE = 60, 0.45
"""Control steps after the board from which on the base must be over the table, no more than this off its line, m: a
robot that leaves the end table again has not finished."""
STOPPING = 3.0
"""Commanded speed for each metre before the stop, 1/s."""
ASTRAY = 1.0
"""Heading off the line at which an episode is lost, rad."""
ACCELERATION = 4.0
"""Of the commanded speed, m/s^2, as the navigator's."""


DRAWS = (
    ("board_pause", 1), ("board_distance", 1), ("board_width", 2), ("board_speed", 1), ("board_wait", 1), ("", 2),
)  # fmt: skip
"""What boards draw in a control step; see `sim.tasks.draws`."""
STEER, STEER_LIMIT, TURN, TURN_LIMIT = 2.2, 0.4, 3.0, 1.2
"""How the way back to the line and heading is steered, as by the navigator: sideways speed for each metre off the line
(1/s) and its limit (m/s), yaw rate for each radian (1/s) and its limit (rad/s)."""


class Ahead(NamedTuple):
    """The board ahead and what is asked until it is passed. Lengths m, speeds m/s, all `[...]`."""

    near: Array
    """x of its near edge."""
    width: Array
    """0 where there is no board for now."""
    touched: Array
    speed: Array
    """Speed that is asked for."""
    now: Array
    """Speed that is commanded, on its way there."""
    until: Array
    """x at which the next board is placed, where there is none; on lanes with tables, control steps until then."""


def lanes(kinds: tuple[str, ...]) -> patches.Patches:
    """The training ground: one lane per kind along x, two periods ahead and one behind the first."""
    pieces = [
        Block(
            f"{kind} {k}", (k * PERIOD + sum(TABLE) / 2, i * LANE_PITCH), (TABLE[1] - TABLE[0], LANE_WIDTH), LANES[kind]
        )
        for i, kind in enumerate(kinds)
        for k in (-1, 0, 1)
        if LANES[kind] > 0
    ]
    origins = np.zeros((len(kinds), patches.LEVELS, 2), np.float32)
    origins[:, :, 1] = LANE_PITCH * np.arange(len(kinds))[:, None]
    edge = LANE_WIDTH / 2
    upper = (2 * PERIOD, (len(kinds) - 1) * LANE_PITCH + edge)
    terrain = Terrain(tuple(pieces))
    return patches.Patches(terrain, HeightMap.from_terrain(terrain, (-PERIOD, -edge), upper, 0.025), origins)


def _table_edge(xp: Namespace, x: Array) -> Array:
    """Where the table begins in the period of a robot at `x`, m; the run-up to it lies in the same period."""
    return PERIOD * xp.floor(x / PERIOD) + TABLE[0]


def _unpack(board: Array) -> Ahead:
    return Ahead(*(board[..., i] for i in range(6)))


@dataclass(frozen=True, eq=False)
class Lanes(Ground):
    """Lanes along x, one a kind, on which boards come (`LANES`); the line is the middle of a world's lane."""

    kinds: tuple[str, ...] = tuple(LANES)
    shares: tuple[float, ...] = (0.3, 0.1, 0.6)
    speeds: tuple[float, float] = (1.5, 2.2)
    """Commanded speeds, m/s: slower strides are too short for half a metre."""
    pause: float = 0.15
    """Share of passes after which no board comes for a while and a lower speed is asked for."""
    slow: tuple[float, float] = (0.5, 1.5)
    """Speeds in a pause and from a board onto its table, where the robot stops, m/s."""

    @cached_property
    def land(self) -> patches.Patches:
        """See `Ground.land`."""
        return self.built or lanes(self.kinds)

    def hastened(self, haste: float) -> Self:
        """See `Ground.hastened`: the highest speeds at a board and behind it are `haste` times as high."""
        (low, high), (slow, less_slow) = self.speeds, self.slow
        return replace(self, speeds=(low, high * haste), slow=(slow, less_slow * haste))

    def table(self, xp: Namespace, kind: Array) -> Array:
        """Height of the tables on each world's lane, m `[...]`."""
        return xp.asarray(np.array([LANES[name] for name in self.kinds], np.float32))[kind]

    def shift(self, xp: Namespace, offset: Array) -> Array:
        """See `Ground.shift`."""
        back = xp.where(offset[..., 0] > PERIOD, -PERIOD, 0.0)
        return xp.stack([back, xp.zeros_like(back)], -1)

    def pits(self, xp: Namespace, board: Array | None) -> Callable[[Array, Array], Array] | None:
        """See `Ground.pits`."""
        if board is None:
            return None

        def depth(x: Array, y: Array) -> Array:
            b = _unpack(board)
            half = (b.width / 2)[..., None]
            return pit(xp, x - b.near[..., None] - half, xp.zeros_like(y), half, 10.0)

        return depth

    def guide(
        self, xp: Namespace, command: Array, asked: Commands, kind: Array, offset: Array, yaw: Array,
        board: Array | None = None,
    ) -> Array:  # fmt: skip
        """Along +x at the board's commanded speed, back to the line and heading, as the navigator steers."""
        if board is None:
            return command
        aside = xp.clip(-STEER * offset[..., 1], -STEER_LIMIT, STEER_LIMIT)
        planar = to_body(_unpack(board).now, aside, yaw, xp)
        turn = xp.clip(-TURN * yaw, -TURN_LIMIT, TURN_LIMIT)
        return xp.stack([*planar, turn], -1).astype(xp.float32)

    @property
    def parts(self) -> tuple[str, ...]:
        """Feet, and shanks for the knees."""
        return ("foot", "shank")

    @property
    def commands_last(self) -> bool:
        """See `Ground.commands_last`."""
        return True

    def start(self, xp: Namespace, drawn: Drawn, robot: Robot, kind: Array, level: Array) -> Start:
        """See `Ground.start`. Two in five episodes begin at speed, the others at rest; on a lane with tables at the
        run-up to one."""
        running = drawn.running < 0.4
        yaw = 0.4 * (drawn.heading - 0.5)
        zero = xp.zeros_like(yaw)
        y = self.origin(xp, kind, level)[..., 1] + 0.3 * (drawn.place[..., 1] - 0.5)
        speed = xp.where(running, 0.4 + 1.5 * drawn.running_speed, zero)
        low, high = self.speeds
        width = _width(xp, level, drawn.board_width)
        near = self._near(xp, kind, zero, width, drawn.board_distance)
        ahead = Ahead(near, width, zero, low + (high - low) * drawn.board_speed, speed, zero)
        run_up = near - RUN_UP_RANGE[0] - (RUN_UP_RANGE[1] - RUN_UP_RANGE[0]) * drawn.run_up
        x = xp.where(self.table(xp, kind) > 0, run_up, zero)
        z = xp.full(yaw.shape, robot.standing_height + CLEAR)
        planar = xp.stack([speed * xp.cos(yaw), speed * xp.sin(yaw)], -1)
        phase = xp.where(running, drawn.running_phase, 0.0)
        return Start(xp.stack([x, y], -1), z, yaw, planar, phase, xp.stack(ahead, -1).astype(xp.float32))

    def handed(self, xp: Namespace, kind: Array, level: Array, board: Array, speed: Array) -> tuple[Array, Array]:
        """See `Ground.handed`."""
        ahead = _unpack(board)._replace(now=speed)
        near = xp.stack([ahead.near, self.origin(xp, kind, level)[..., 1]], -1)
        return near, xp.stack(ahead, -1).astype(xp.float32)

    def follow(
        self, xp: Namespace, robot: Robot, state: TaskState, qpos: Array, points: Array, drawn: Drawn
    ) -> Passage:
        """See `Ground.follow`: touches and passes of the board, and the next one; the counts are of boards passed,
        passed clean, and their width (m)."""
        b = _unpack(state.board)
        far = b.near + b.width
        there = b.width > 0
        legs, knee = len(robot.legs), robot.knee_radius  # hind knees that fold low touch the board too
        soles, shanks = points[..., :legs, :], points[..., legs:, :]
        x = soles[..., 0]
        low_points = xp.concatenate([soles, 2 * shanks - soles], -2)  # a shank's middle is between foot and knee
        reach = xp.asarray(np.repeat(np.array([EDGE, knee], np.float32), legs))
        tops = np.array([robot.foot_radius + SOLE, knee + SOLE], np.float32)
        low = low_points[..., 2] < xp.asarray(np.repeat(tops, legs))
        inside = xp.minimum(low_points[..., 0] - b.near[..., None], far[..., None] - low_points[..., 0]) + reach
        standing = low & (inside > 0) & there[..., None]
        touch = (standing * (1.0 + 8.0 * xp.maximum(inside, 0.0))).sum(-1).astype(xp.float32)
        touched = xp.maximum(b.touched, standing.max(-1).astype(xp.float32))
        passed = there & (x.min(-1) > far + BEHIND)
        clean = passed & (touched == 0)
        change = WIDER * clean - NARROWER * (passed & ~clean)
        level = xp.clip(state.level + change, 0, patches.LEVELS - 1).astype(xp.float32)

        table = self.table(xp, state.kind) > 0
        pausing = passed & (table | (drawn.board_pause < self.pause))
        due = ~there & xp.where(table, b.until <= 0, qpos[..., 0] > b.until)
        fresh = (passed & ~pausing) | due
        here, (low_speed, high_speed) = qpos[..., 0], self.speeds
        width = _width(xp, level, drawn.board_width)
        near = self._near(xp, state.kind, here, width, drawn.board_distance)
        step = ACCELERATION * robot.control_period
        slow = self.slow[0] + (self.slow[1] - self.slow[0]) * drawn.board_speed
        speed = xp.where(
            fresh, low_speed + (high_speed - low_speed) * drawn.board_speed, xp.where(pausing, slow, b.speed)
        )
        stop = _table_edge(xp, here) + STOP
        holding = table & ~fresh & (pausing | ~there)
        asked = xp.where(holding, xp.clip(STOPPING * (stop - here), 0.0, speed), speed)
        waiting = xp.where(table, float(HOLD), here + 0.3 + 0.8 * drawn.board_wait)
        ahead = Ahead(
            xp.where(fresh, near, b.near),
            xp.where(fresh, width, xp.where(pausing, 0.0, b.width)),
            xp.where(fresh, 0.0, touched),
            speed,
            b.now + xp.clip(asked - b.now, -step, step),
            xp.where(pausing, waiting, b.until - 1.0 * table),
        )
        moved = PERIOD * (here > PERIOD)  # as `Lanes.shift` will move the robot
        ahead = ahead._replace(near=ahead.near - moved, until=ahead.until - moved * ~table)
        counts = {
            "passed": passed.astype(xp.float32),
            "clean": clean.astype(xp.float32),
            "width": xp.where(passed, b.width, 0.0).astype(xp.float32),
        }
        board = xp.stack(ahead, -1).astype(xp.float32)
        return Passage(board, level, touch, clean.astype(xp.float32), counts)

    def astray(self, xp: Namespace, state: TaskState, m: Motion) -> Array:
        """See `Ground.astray`: turned away from the line, shot over the table where it was to stop, or down from it."""
        b, x = _unpack(state.board), m.place[..., 0]
        holding = (self.table(xp, state.kind) > 0) & (b.width == 0) & (b.until > 0)
        over = x > PERIOD * xp.floor((x - TABLE[0]) / PERIOD) + TABLE[0] + OVER
        into = x - _table_edge(xp, x)
        aside = xp.abs(m.place[..., 1] - self.origin(xp, state.kind, state.level)[..., 1])
        off = (b.until < HOLD - MOUNTED) & ((into < 0) | (aside > ASIDE))
        return (xp.abs(m.yaw) > ASTRAY) | (holding & ((over & (x > TABLE[0])) | off))

    def board_seen(self, xp: Namespace, state: TaskState, xy: Array) -> Array:
        """See `Ground.board_seen`."""
        b = _unpack(state.board)
        return xp.stack([xp.where(b.width > 0, b.near - xy[..., 0], 3.0), b.width, b.touched], -1)

    def _near(self, xp: Namespace, kind: Array, here: Array, width: Array, u: Array) -> Array:
        """x of the next board's near edge for a robot at x = `here`: a run-up ahead, or in front of the next table that
        still has room for one."""
        free = here + RUN_UP_RANGE[0] + (RUN_UP_RANGE[1] - RUN_UP_RANGE[0]) * u
        period = xp.floor((here - TABLE[0] + GAP[1] + 0.3) / PERIOD) + 1
        before_table = PERIOD * period + TABLE[0] - (GAP[0] + (GAP[1] - GAP[0]) * u) - width
        return xp.where(self.table(xp, kind) > 0, before_table, free)


def _width(xp: Namespace, level: Array, u: Array) -> Array:
    """The level's board, m `[...]`; in one case of five a narrower one."""
    width = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * level / (patches.LEVELS - 1)
    return xp.where(u[..., 0] < 0.2, WIDTHS[0] + (width - WIDTHS[0]) * u[..., 1], width)
