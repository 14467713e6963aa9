"""The jumping task: a straight run with boards lying across the way that no foot may touch.

The ground is flat. A board is a strip of 0.1 to 0.6 m across the robot's line; it looks like a pit to the policy and is
there for the feet alone: a foot that stands on it is counted as a touch. A board that is passed clean widens the next
one, a touched one narrows it, per world. Pure functions over numpy or jax.numpy, as `sim.envs.walk`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

from sim import observation as obs
from sim.envs import patches
from sim.envs.walk import TaskState, WalkTask
from sim.terrain import pit

WIDTHS = 0.1, 0.6
"""Length of the board along the way at the lowest and highest level, m."""
WIDER, NARROWER = 0.2, 0.3
"""Change of the level (0 to `patches.LEVELS` - 1, 0.1 m each) after a clean pass and after a touch."""
SOLE, EDGE = 0.003, 0.006
"""A foot this near the floor stands on the board, m, and it reaches this far past the board's edges: a foot's radius
over a board of 1 mm thickness."""
BEHIND = 0.02
"""A board counts as passed when the last foot is this far behind it, m."""
RUN_UP = 1.2, 2.3
"""Distance to the next board's near edge at the start, and after each pass, m."""
ASTRAY = 1.0
"""Heading off the line at which an episode is lost, rad."""
ACCELERATION = 4.0
"""Of the commanded speed, m/s^2, as the navigator's."""


class Ahead(NamedTuple):
    """The board ahead and what is asked until it is passed. Lengths m, speeds m/s, all `[...]`."""

    near: Any
    """x of its near edge."""
    width: Any
    """0 where there is no board for now."""
    touched: Any
    speed: Any
    """Speed that is asked for."""
    now: Any
    """Speed that is commanded, on its way there."""
    until: Any
    """x at which the next board is placed, where there is none."""


def _unpack(board: Any) -> Ahead:
    return Ahead(*(board[..., i] for i in range(6)))


@dataclass(frozen=True, eq=False)
class JumpTask(WalkTask):
    """Running along +x over boards; the line is y = 0."""

    speeds: tuple[float, float] = (1.5, 2.2)
    """Commanded speeds, m/s: slower strides are too short for half a metre."""
    pause: float = 0.15
    """Share of passes after which no board comes for a while and a lower speed is asked for."""
    slow: tuple[float, float] = (0.4, 1.2)
    """Speeds in a pause, m/s."""

    @property
    def extra_privileged(self) -> int:
        """Distance to the board's near edge, its width, whether it was touched."""
        return 3

    def begin(self, xp: Any, u: Any, kind: Any, level: Any) -> tuple[TaskState, Any, Any]:
        """See `WalkTask.begin`. Two in five episodes begin at speed, the others at rest."""
        state, qpos, qvel = super().begin(xp, u, kind, level)
        running = u[..., 60] < 0.4
        yaw = 0.4 * (u[..., 2] - 0.5)
        zero = xp.zeros_like(yaw)
        y = 0.3 * (u[..., 1] - 0.5)
        start = xp.where(running, 0.4 + 1.5 * u[..., 61], zero)
        half = yaw / 2
        base = xp.stack([zero, y, qpos[..., 2], xp.cos(half), zero, zero, xp.sin(half)], -1)
        qpos = xp.concatenate([base, qpos[..., 7:]], -1).astype(xp.float32)
        planar = xp.stack([start * xp.cos(yaw), start * xp.sin(yaw)], -1)
        qvel = xp.concatenate([qvel[..., :2] + planar, qvel[..., 2:]], -1).astype(xp.float32)
        low, high = self.speeds
        near = RUN_UP[0] + (RUN_UP[1] - RUN_UP[0]) * u[..., 62]
        ahead = Ahead(near, self._width(xp, level, u[..., 63:65]), zero, low + (high - low) * u[..., 65], start, zero)
        board = xp.stack(ahead, -1).astype(xp.float32)
        command = self._guide(xp, state.command, kind, base[..., :2], yaw, board)
        sensors = obs.Sensors(qpos[..., 3:7], qvel[..., 3:6], qpos[..., 7:], qvel[..., 6:])
        newest = obs.frame(xp, self.robot, sensors, state.last_action)
        state = state._replace(
            history=obs.fill(xp, newest),
            last_feet=xp.repeat(qpos[..., None, :2], 4, -2),
            phase=xp.where(running, u[..., 66], 0.0).astype(xp.float32),
            command=command,
            command_life=xp.full(yaw.shape, 1e6, xp.float32),
            board=board,
        )
        return state, qpos, qvel

    def promote(self, xp: Any, state: TaskState, fallen: Any) -> Any:
        """The next episode's level: the board's own, lower after a fall."""
        return xp.clip(state.level - NARROWER * fallen, 0, patches.LEVELS - 1).astype(xp.float32)

    # --- parts ------------------------------------------------------------------------------------------------------

    @staticmethod
    def _width(xp: Any, level: Any, u: Any) -> Any:
        """The level's board; in one case of five a narrower one."""
        width = WIDTHS[0] + (WIDTHS[1] - WIDTHS[0]) * level / (patches.LEVELS - 1)
        return xp.where(u[..., 0] < 0.2, WIDTHS[0] + (width - WIDTHS[0]) * u[..., 1], width)

    def _board(self, xp: Any, state: TaskState, qpos: Any, feet: Any, u: Any) -> tuple[Any, Any, Any, Any, dict]:
        b = _unpack(state.board)
        far = b.near + b.width
        there = b.width > 0
        x, low = feet[..., 0], feet[..., 2] < self.robot.foot_radius + SOLE
        inside = xp.minimum(x - (b.near - EDGE)[..., None], (far + EDGE)[..., None] - x)
        standing = low & (inside > 0) & there[..., None]
        touch = (standing * (1.0 + 8.0 * xp.maximum(inside, 0.0))).sum(-1).astype(xp.float32)
        touched = xp.maximum(b.touched, standing.max(-1).astype(xp.float32))
        passed = there & (x.min(-1) > far + BEHIND)
        clean = passed & (touched == 0)
        change = WIDER * clean - NARROWER * (passed & ~clean)
        level = xp.clip(state.level + change, 0, patches.LEVELS - 1).astype(xp.float32)

        pausing = passed & (u[..., 0] < self.pause)
        due = ~there & (qpos[..., 0] > b.until)
        fresh = (passed & ~pausing) | due
        here, (low_speed, high_speed) = qpos[..., 0], self.speeds
        near = here + RUN_UP[0] + (RUN_UP[1] - RUN_UP[0]) * u[..., 1]
        width = self._width(xp, level, u[..., 2:4])
        speed = low_speed + (high_speed - low_speed) * u[..., 4]
        slow = self.slow[0] + (self.slow[1] - self.slow[0]) * u[..., 4]
        step = ACCELERATION * self.robot.control_period
        speed = xp.where(fresh, speed, xp.where(pausing, slow, b.speed))
        ahead = Ahead(
            xp.where(fresh, near, b.near),
            xp.where(fresh, width, xp.where(pausing, 0.0, b.width)),
            xp.where(fresh, 0.0, touched),
            speed,
            b.now + xp.clip(speed - b.now, -step, step),
            xp.where(pausing, here + 0.3 + 0.8 * u[..., 5], b.until),
        )
        counts = {
            "passed": passed.astype(xp.float32),
            "clean": clean.astype(xp.float32),
            "width": xp.where(passed, b.width, 0.0).astype(xp.float32),
        }
        board = xp.stack(ahead, -1).astype(xp.float32)
        return board, level, touch, clean.astype(xp.float32), counts

    def _astray(self, xp: Any, yaw: Any) -> Any:
        return xp.abs(yaw) > ASTRAY

    def _more_privileged(self, xp: Any, state: TaskState, xy: Any) -> list[Any]:
        b = _unpack(state.board)
        return [xp.stack([xp.where(b.width > 0, b.near - xy[..., 0], 3.0), b.width, b.touched], -1)]

    def _shift(self, xp: Any, offset: Any) -> Any:
        return xp.zeros_like(offset)

    def _origin(self, xp: Any, kind: Any, level: Any) -> Any:
        return xp.zeros((*level.shape, 2), xp.float32)

    def _ground(self, xp: Any, xy: Any) -> Any:
        return xp.zeros_like(xy[..., 0])

    def _heights(self, xp: Any, xy: Any, yaw: Any, z: Any, error: Any, board: Any = None) -> Any:
        def pits(x: Any, y: Any) -> Any:
            b = _unpack(board)
            half = (b.width / 2)[..., None]
            return pit(xp, x - b.near[..., None] - half, y, half, 10.0)

        def flat(x: Any, y: Any) -> Any:
            return xp.zeros_like(x)

        return obs.terrain_heights(
            xp, self.robot, self.layout, flat, xy, yaw, z, error, pits if board is not None else None
        )

    def _guide(self, xp: Any, command: Any, kind: Any, offset: Any, yaw: Any, board: Any = None) -> Any:
        """Along +x at the board's commanded speed, back to the line and heading, as the navigator steers."""
        if board is None:
            return command
        aside = xp.clip(-2.2 * offset[..., 1], -0.4, 0.4)
        c, s, now = xp.cos(yaw), xp.sin(yaw), _unpack(board).now
        return xp.stack([c * now + s * aside, c * aside - s * now, xp.clip(-3.0 * yaw, -1.2, 1.2)], -1).astype(
            xp.float32
        )
