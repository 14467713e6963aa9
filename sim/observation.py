"""The policy's input, from sensors to array: the same lines in training, evaluation and the onboard loop.

Every function takes the array namespace `xp` (numpy or jax.numpy) and works on any leading dimensions. The layout is
data (`Layout`): names, slices, units and scales travel in the policy bundle.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.gait import joint_offset
from sim.planar import place, to_body, to_world, wrap
from sim.robots.description import Robot
from sim.robots.gaits import Gait

HISTORY = 15
"""Control steps that are remembered: 0.3 s at 50 Hz (arXiv 2305.14654, section IV)."""
LONGEST_HISTORY = 60
"""Control steps that a layout may ask for at most; a layout that reaches back further than `HISTORY` keeps more."""

FRAME_FIELDS = (
    ("projected_gravity", 3, "unit vector, base frame", 1.0),
    ("angular_velocity", 3, "rad/s, base frame", 0.25),
    ("joint_offset", "joints", "rad from the default pose", 1.0),
    ("joint_velocity", "joints", "rad/s", 0.05),
    ("last_action", "joints", "action units", 1.0),
)
"""One control step's proprioception: name, width ("joints": one number per joint), unit, and the factor applied."""


def frame_fields(joints: int) -> tuple[tuple[str, int, str, float], ...]:
    """`FRAME_FIELDS` of a robot with so many joints."""
    return tuple(
        (n, joints if isinstance(width, str) else width, unit, scale) for n, width, unit, scale in FRAME_FIELDS
    )


def frame_slices(joints: int) -> dict[str, slice]:
    """Where each of `FRAME_FIELDS` stands in a frame."""
    ends = np.cumsum([width for _, width, _, _ in frame_fields(joints)]).tolist()
    return {name: slice(end - width, end) for (name, width, _, _), end in zip(frame_fields(joints), ends, strict=True)}


def frame_size(joints: int) -> int:
    """Numbers in one control step's proprioception."""
    return sum(width for _, width, _, _ in frame_fields(joints))


COMMANDS = ("forward", "sideways", "yaw")
"""What the three numbers of a command ask for, by the names of their ranges: m/s, m/s, rad/s."""
COMMAND_SCALE = (1.0, 1.0, 1.0)
HEIGHT_SCALE = 5.0
HEIGHT_CLIP = 0.4
PREVIEW_CLIP = 4.0
"""m/s and rad/s: no preview says more, be a robot ever so far from its way."""
PREVIEW_LONGEST, PREVIEW_MOST = 2.0, 8
"""s ahead, and moments, that a preview may have."""
PREVIEWS = ("velocity", "pose")
"""What a preview may be of; see `Preview`."""
PIT_SEEN = 0.37
"""Ground that is seen this much lower than behind the robot is a pit, m: `HEIGHT_CLIP` less what a trunk moves."""


class Sensors(NamedTuple):
    """One reading of the robot. Leading dimensions `[...]` are shared."""

    orientation: Array
    """Unit quaternion (w, x, y, z), world from base, `[..., 4]`."""
    angular_velocity: Array
    """Gyro, rad/s in the base frame, `[..., 3]`."""
    joint_position: Array
    """rad, `[..., J]`, `Robot.joint_names` order."""
    joint_velocity: Array
    """rad/s, `[..., J]`."""


@dataclass(frozen=True)
class Grid:
    """Ground points around the robot: they move with the base and turn with its heading, but do not tilt."""

    name: str
    x: tuple[float, ...]
    """Distances ahead of the base, m."""
    y: tuple[float, ...]
    """Distances to its left, m."""
    boards: bool = False
    """Whether boards that must not be touched look like pits here (`terrain.pit`); else they are plain ground."""

    @property
    def size(self) -> int:
        """Number of points; the heights are ordered x-major."""
        return len(self.x) * len(self.y)


def around(ahead: float = 0.5, behind: float = 0.4, side: float = 0.2, step: float = 0.1) -> Grid:
    """The walker's grid: from `behind` the base to `ahead` of it and `side` to both sides, every `step` m."""
    x = np.round(np.arange(-behind, ahead + step / 2, step), 6)
    y = np.round(np.arange(-side, side + step / 2, step), 6)
    return Grid("around", tuple(map(float, x)), tuple(map(float, y)))


def ahead(reach: float = 2.0, behind: float = 0.6, side: float = 0.2, step: float = 0.1) -> Grid:
    """The jumper's grid: two lines of points along the way, to see a board coming and passing beneath."""
    x = np.round(np.arange(-behind, reach + step / 2, step), 6)
    return Grid("ahead", tuple(map(float, x)), (-side, side), boards=True)


@dataclass(frozen=True)
class Preview:
    """The commanded motion of the next moments, three numbers for each: m/s ahead, m/s to the left, rad/s.

    In the present heading frame. Where nobody knows what comes, the present command is said to last.
    """

    seconds: tuple[float, ...] = ()
    """From now to the moments that are seen, s, rising; none: no preview."""
    of: str = "velocity"
    """"velocity": what is planned for that moment. "pose": the mean velocity that takes the robot from where it is to
    where it is planned to be then."""

    def __post_init__(self) -> None:
        if self.of not in PREVIEWS:
            raise InputError(f"a preview is of velocity or pose, not of {self.of!r}")
        rising = all(a < b for a, b in zip((0.0, *self.seconds), self.seconds, strict=False))
        if not rising or (self.seconds and self.seconds[-1] > PREVIEW_LONGEST) or len(self.seconds) > PREVIEW_MOST:
            raise InputError(
                f"a preview takes up to {PREVIEW_MOST} rising times to {PREVIEW_LONGEST:g} s, got {self.seconds}"
            )

    @property
    def size(self) -> int:
        """Numbers in the input."""
        return 3 * len(self.seconds)

    def moment(self, xp: Namespace, later: float, then: Array, pose: Array) -> Array:
        """What is seen of one moment, `[..., 3]`: `then` is the planned motion `later` s from now, in the world, its
        velocity (m/s, m/s, rad/s) or its pose (m, m, rad) as `of` says; `pose` is the robot's now, both `[..., 3]`."""
        x, y, turn = then[..., 0], then[..., 1], then[..., 2]
        if self.of == "pose":
            x, y = (x - pose[..., 0]) / later, (y - pose[..., 1]) / later
            turn = wrap(turn - pose[..., 2]) / later
        return xp.stack([*to_body(x, y, pose[..., 2], xp), turn], -1)

    def foreseen(self, xp: Namespace, command: Callable[[float], Array]) -> Array:
        """`[..., len(seconds), 3]` where nothing is planned, but the command `[..., 3]` so many s from now is known."""
        if self.of == "velocity":
            return xp.stack([command(later) for later in self.seconds], -2)
        rows = []
        for later in self.seconds:
            mean = command(later / 2)
            x, y = to_world(mean[..., 0], mean[..., 1], mean[..., 2] * later / 2, xp)
            rows.append(xp.stack([x, y, mean[..., 2]], -1))
        return xp.stack(rows, -2)


@dataclass(frozen=True)
class Layout:
    """Which parts of history and terrain a policy sees, and where they stand in its input."""

    joints: int
    """Actuated joints of the robot, J."""
    frames: tuple[int, ...] = (0, 1, 2)
    """Ages of the frames in the input, in control steps; 0 is the newest."""
    grids: tuple[Grid, ...] = ()
    clock: bool = True
    """Whether the gait clock's sine and cosine are in the input."""
    stamped: bool = False
    """Whether every frame carries the command and the clock of its own step, in place of the newest ones once: the
    context of a sequence model."""
    preview: Preview = Preview()

    def __post_init__(self) -> None:
        if not self.frames or min(self.frames) < 0 or max(self.frames) >= LONGEST_HISTORY:
            raise InputError(f"observation frames must be ages from 0 to {LONGEST_HISTORY - 1}, got {self.frames}")

    def slices(self) -> dict[str, slice]:
        """Name to slice: `frame_0` ..., `command`, `clock`, `preview`, `heights_<grid>`, in input order."""
        parts = [(f"frame_{age}", self.frame_size) for age in self.frames]
        if not self.stamped:
            parts += [("command", 3), *([("clock", 2)] if self.clock else [])]
        parts += [("preview", self.preview.size)] if self.preview.seconds else []
        parts += [(f"heights_{grid.name}", grid.size) for grid in self.grids]
        ends = np.cumsum([width for _, width in parts])
        return {name: slice(int(end - width), int(end)) for (name, width), end in zip(parts, ends, strict=True)}

    @property
    def history(self) -> int:
        """Control steps that must be remembered for it."""
        return max(HISTORY, max(self.frames) + 1)

    @property
    def frame_size(self) -> int:
        """Numbers in one frame of the history."""
        return frame_size(self.joints) + (3 + 2 * self.clock if self.stamped else 0)

    @property
    def size(self) -> int:
        """Length of the input vector."""
        return max(part.stop for part in self.slices().values())

    @property
    def height_size(self) -> int:
        """Number of terrain heights over all grids."""
        return sum(grid.size for grid in self.grids)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready description, with the units and scales that make it readable without this code."""
        return {
            "frames": list(self.frames),
            "clock": self.clock,
            "grids": [_grid_dict(g) for g in self.grids],
            "history": self.history,
            "frame_fields": [list(field) for field in frame_fields(self.joints)],
            "command_scale": list(COMMAND_SCALE),
            "height": {"scale": HEIGHT_SCALE, "clip_m": HEIGHT_CLIP, "is": "ground z - base z + standing height"},
            "size": self.size,
            **({"stamped": True} if self.stamped else {}),
            **({"preview": _preview_dict(self.preview)} if self.preview.seconds else {}),
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Layout":
        """Inverse of `to_dict`; raises `InputError` where the description is not one this code produces."""
        try:
            grids = tuple(
                Grid(g["name"], tuple(g["x"]), tuple(g["y"]), bool(g.get("boards", False))) for g in fields["grids"]
            )
            _check_grids(grids)
            if not all(type(age) is int for age in fields["frames"]) or len(set(fields["frames"])) < len(
                fields["frames"]
            ):
                raise InputError(f"observation frames must be different ages, got {fields['frames']}")
            widths = {str(part[0]): int(part[1]) for part in fields["frame_fields"]}
            layout = cls(
                widths["last_action"], tuple(fields["frames"]), grids, bool(fields["clock"]),
                bool(fields.get("stamped", False)), _preview(fields.get("preview")),
            )  # fmt: skip
        except InputError:
            raise
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise InputError(f"observation layout is incomplete: {error}") from error
        ours = layout.to_dict()
        for key in sorted(set(ours) | set(fields)):
            if fields.get(key) != ours.get(key):
                raise InputError(f"observation layout differs in '{key}': file {fields.get(key)}, here {ours.get(key)}")
        return layout


GRID_REACH, GRID_STEPS, GRID_POINTS = 5.0, (0.02, 0.5), 2_000
"""No point of a grid is further from the base, m; distances of its lines, m; and no grid has more points."""


def _check_grids(grids: tuple[Grid, ...]) -> None:
    """Raises `InputError` where a grid from outside is none that moves with a robot: even lines on both sides of the
    base, as far to its left as to its right."""
    if len({grid.name for grid in grids}) < len(grids):
        raise InputError("observation grids must have different names")
    for grid in grids:
        name = f"observation grid '{grid.name}'"
        if not isinstance(grid.name, str) or not grid.name.isidentifier():
            raise InputError(f"{name} needs a name of letters")
        if grid.size > GRID_POINTS:
            raise InputError(f"{name} has {grid.size} points, {GRID_POINTS} are allowed")
        for axis, line in (("x", grid.x), ("y", grid.y)):
            if not line or not all(type(v) in (int, float) and abs(v) <= GRID_REACH for v in line):
                raise InputError(f"{name} needs numbers within {GRID_REACH:g} m in '{axis}'")
            steps = np.diff(line)
            if len(steps) and not (
                np.allclose(steps, steps[0], rtol=0.0, atol=1e-6) and GRID_STEPS[0] <= steps[0] <= GRID_STEPS[1]
            ):
                raise InputError(
                    f"{name} needs even, rising steps of {GRID_STEPS[0]:g} to {GRID_STEPS[1]:g} m in '{axis}'"
                )
        if not np.abs(grid.x).min() < 1e-6:
            raise InputError(
                f"{name} leaves out the base: its lines across are {grid.x[0]:g} to {grid.x[-1]:g} m ahead"
            )
        if not abs(grid.y[0] + grid.y[-1]) < 1e-6:
            raise InputError(f"{name} reaches {-grid.y[0]:g} m to the right and {grid.y[-1]:g} m to the left")


def _preview_dict(preview: Preview) -> dict[str, Any]:
    return {"seconds": list(preview.seconds), "of": preview.of}


def _preview(fields: dict[str, Any] | None) -> Preview:
    return Preview() if fields is None else Preview(tuple(float(t) for t in fields["seconds"]), fields["of"])


def _grid_dict(grid: Grid) -> dict[str, Any]:
    return {"name": grid.name, "x": list(grid.x), "y": list(grid.y), **({"boards": True} if grid.boards else {})}


def projected_gravity(xp: Namespace, orientation: Array) -> Array:
    """Direction of gravity in the base frame, `[..., 3]`, from the quaternion (w, x, y, z) `[..., 4]`."""
    w, x, y, z = (orientation[..., i] for i in range(4))
    return xp.stack([-2 * (x * z - w * y), -2 * (y * z + w * x), -(1 - 2 * (x * x + y * y))], -1)


def yaw_of(xp: Namespace, orientation: Array) -> Array:
    """Heading, rad, `[...]`, of a quaternion (w, x, y, z)."""
    w, x, y, z = (orientation[..., i] for i in range(4))
    return xp.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))


def frame(xp: Namespace, robot: Robot, sensors: Sensors, last_action: Array) -> Array:
    """One control step's proprioception, `[..., frame_size]` float32, fields and scales as `FRAME_FIELDS`."""
    values = (
        projected_gravity(xp, sensors.orientation),
        sensors.angular_velocity,
        sensors.joint_position - xp.asarray(robot.default_pose),
        sensors.joint_velocity,
        last_action,
    )
    scaled = [value * scale for value, (_, _, _, scale) in zip(values, FRAME_FIELDS, strict=True)]
    return xp.concatenate(scaled, -1).astype(xp.float32)


def stamp(xp: Namespace, layout: Layout, newest: Array, command: Array, clock: Array) -> Array:
    """The frame `[..., layout.frame_size]` that a layout's history keeps: `frame`'s numbers and, where the layout is
    `stamped`, the command `[..., 3]` and the clock `[..., 2]` of the same step."""
    if not layout.stamped:
        return newest
    parts = [newest, command * xp.asarray(COMMAND_SCALE, dtype=xp.float32), *([clock] if layout.clock else [])]
    return xp.concatenate(parts, -1).astype(xp.float32)


def fill(xp: Namespace, newest: Array, steps: int = HISTORY) -> Array:
    """A history `[..., steps, n]` in which every step equals `newest` `[..., n]`: the state after a reset."""
    return xp.repeat(newest[..., None, :], steps, -2)


def push(xp: Namespace, history: Array, newest: Array) -> Array:
    """The history `[..., 15, n]` with `newest` `[..., n]` in front (index 0) and the oldest step dropped."""
    return xp.concatenate([newest[..., None, :], history[..., :-1, :]], -2)


def remembered(xp: Namespace, history: Array, newest: Array, fresh: Array) -> Array:
    """The history `[..., steps, n]` after a step with the frame `newest` `[..., n]`: pushed, or filled with it where
    the memory is `fresh`, bool `[...]`."""
    return xp.where(fresh[..., None, None], fill(xp, newest, history.shape[-2]), push(xp, history, newest))


def grid_points(xp: Namespace, grid: Grid, base_xy: Array, yaw: Array) -> Array:
    """World points of a grid, `[..., n, 2]` m, for a base at `base_xy` `[..., 2]` with heading `yaw` `[...]`."""
    return xp.stack(_points(xp, (grid,), base_xy, yaw), -1)


def _points(xp: Namespace, grids: tuple[Grid, ...], base_xy: Array, yaw: Array) -> tuple[Array, Array]:
    """World x and y of the points of grids, one grid after the other, `[..., n]` both, m."""
    x, y = (xp.asarray(values) for values in _cells(grids))
    return place(base_xy[..., :1], base_xy[..., 1:2], yaw[..., None], x, y, xp)


@cache
def _cells(grids: tuple[Grid, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Places of the points of grids ahead of their base and to the left of it, `[n]` both, m."""
    lines = [
        np.meshgrid(np.asarray(grid.x, np.float32), np.asarray(grid.y, np.float32), indexing="ij") for grid in grids
    ]
    x, y = (np.concatenate([line[axis].ravel() for line in lines]) for axis in (0, 1))
    return x, y


@cache
def _placed(grids: tuple[Grid, ...]) -> tuple[tuple[Grid, slice], ...]:
    """Each grid with the place of its heights among those of all."""
    ends = np.cumsum([grid.size for grid in grids]).tolist()
    return tuple((grid, slice(end - grid.size, end)) for grid, end in zip(grids, ends, strict=True))


def sampled(cells: np.ndarray, x: Array, y: Array, pose: Array, resolution: float, front: float, left: float) -> Array:
    """Heights (m) of a measured grid `[rows, columns]` at world points `x`, `y` (m): the cell's, NaN outside.

    It moves with a base at `pose` `[4]` (x, y, z in m, heading in rad) and turns with its heading, but does not tilt.
    Its first row is `front` m ahead, its first column `left` m to the left, cells are `resolution` m wide. numpy only.
    """
    ahead, aside = to_body(x - pose[0], y - pose[1], pose[3])
    row = np.rint((front - ahead) / resolution).astype(int)
    column = np.rint((left - aside) / resolution).astype(int)
    rows, columns = cells.shape
    known = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    found = np.full(np.shape(x), np.nan)
    found[known] = cells[row[known], column[known]]
    return found


def relative_heights(xp: Namespace, robot: Robot, ground: Array, base_z: Array) -> Array:
    """Policy's terrain heights: ground `[..., n]` against the base `[...]` (m), 0 on the flat, clipped, scaled."""
    return xp.clip(ground - base_z[..., None] + robot.standing_height, -HEIGHT_CLIP, HEIGHT_CLIP) * HEIGHT_SCALE


def terrain_heights(
    xp: Namespace,
    robot: Robot,
    layout: Layout,
    ground: Callable[[Array, Array], Array],
    xy: Array,
    yaw: Array,
    z: Array,
    error: Array = 0.0,
    pits: Callable[[Array, Array], Array] | None = None,
) -> Array:
    """Policy's terrain heights over all grids of a layout, `[..., height_size]`.

    Args:
      ground: height of the ground (m) at arrays of world x and y (m).
      pits: depth (m) at which grids with `boards` see forbidden ground there (`terrain.pit`); None: no boards.
      xy, yaw, z: base position `[..., 2]` (m), heading `[...]` (rad), height `[...]` (m).
      error: added to every height, m, broadcast over `[..., height_size]`.
    """
    if not layout.grids:
        return xp.zeros((*yaw.shape, 0), xp.float32)
    x, y = _points(xp, layout.grids, xy, yaw)
    seen = ground(x, y)
    if pits is not None:
        parts = [
            seen[..., here] - pits(x[..., here], y[..., here]) if grid.boards else seen[..., here]
            for grid, here in _placed(layout.grids)
        ]
        seen = xp.concatenate(parts, -1)
    return relative_heights(xp, robot, seen + error, z)


def board_ahead(xp: Namespace, layout: Layout, heights: Array, half: float = 0.0) -> Array:
    """Distance along the heading from the base to the middle of the board in view, m `[...]`; infinite without one.

    From the policy's heights `[..., height_size]`: a cell that a board covers in part is seen at part of a pit's
    depth, so an edge is known to a fraction of a cell. A board that reaches past the far end of the grid has no middle
    yet, save where `half` its length (m) is given; one that has left the near end is behind.
    """
    for grid, place_of in _placed(layout.grids):
        if not grid.boards:
            continue
        here = heights[..., place_of]
        table = here.reshape(*here.shape[:-1], len(grid.x), len(grid.y)) / HEIGHT_SCALE
        table = table.mean(-1)
        level = xp.minimum(table[..., :1], xp.median(table, -1)[..., None])  # the floor's, be a table behind or below
        share = xp.clip((level - table) / PIT_SEEN, 0.0, 1.0)
        x = xp.asarray(np.asarray(grid.x, np.float32))
        whole = share.sum(-1)
        middle = (share * x).sum(-1) / xp.maximum(whole, 1e-6)
        seen = (whole > 0.5) & (table[..., 0] > -0.5 * PIT_SEEN)
        cut = share[..., -1] >= 0.1
        if half:
            edge = x[-1] + (0.5 - whole) * (x[1] - x[0])
            return xp.where(seen, xp.where(cut, edge + half, middle), xp.inf).astype(xp.float32)
        return xp.where(seen & ~cut, middle, xp.inf).astype(xp.float32)
    return xp.full(heights.shape[:-1], xp.inf, xp.float32)


def relief(xp: Namespace, layout: Layout, heights: Array) -> Array:
    """Height of the highest step around the robot, m `[...]`, from the policy's heights `[..., height_size]`.

    The largest second difference along a grid's rows and columns: an edge counts with its height, an even slope not at
    all, a crest with the change of height that it makes in one cell, and an error that all heights share drops out.
    """
    highest = xp.zeros(heights.shape[:-1], xp.float32)
    for grid, place_of in _placed(layout.grids):
        if grid.boards:  # a pit is no step
            continue
        here = heights[..., place_of] / HEIGHT_SCALE
        table = here.reshape(*here.shape[:-1], len(grid.x), len(grid.y))
        for along in (-2, -1):
            if table.shape[along] >= 3:
                bends = xp.abs(xp.diff(table, n=2, axis=along)).max(-1).max(-1)
                highest = xp.maximum(highest, bends)
    return highest.astype(xp.float32)


def observe(
    xp: Namespace, layout: Layout, history: Array, command: Array, clock: Array, heights: Array,
    preview: Array | None = None,
) -> Array:  # fmt: skip
    """The policy's input.

    Args:
      history: `[..., layout.history, layout.frame_size]`, newest first.
      command: forward and leftward velocity (m/s) and yaw rate (rad/s) in the base's heading frame, `[..., 3]`.
      clock: `[..., 2]` from `sim.gait.clock`.
      heights: `[..., height_size]` from `relative_heights`, grids in layout order.
      preview: `[..., len(layout.preview.seconds), 3]`; None: the command lasts.

    Returns:
      float32 `[..., layout.size]`.
    """
    parts = [history[..., age, :] for age in layout.frames]
    if not layout.stamped:
        parts += [command * xp.asarray(COMMAND_SCALE, dtype=xp.float32), *([clock] if layout.clock else [])]
    if layout.preview.seconds:
        seen = layout.preview.foreseen(xp, lambda later: command) if preview is None else preview
        parts.append(xp.clip(seen.reshape(*seen.shape[:-2], -1), -PREVIEW_CLIP, PREVIEW_CLIP))
    if layout.height_size:
        parts.append(heights)
    return xp.concatenate(parts, -1).astype(xp.float32)


def action_scale(robot: Robot, gait: Gait) -> np.ndarray:
    """Change of the joint targets for an action of 1 with this clock, rad, float32 `[J]`."""
    return (robot.action_scale * gait.scale).astype(np.float32)


def joint_targets(
    xp: Namespace, robot: Robot, gait: Gait, action: Array, phase: Array, command: Array, steps: Array
) -> Array:
    """From action `[..., J]` to joint targets, rad `[..., J]`: scaled action about the default pose plus the clock.

    `steps` `[...]` is the `relief` around the robot, m. `action` must already be clipped to `robot.action_limit`; the
    result is held inside the joint ranges.
    """
    clock = joint_offset(xp, robot, gait, phase, command, steps)
    target = xp.asarray(robot.default_pose) + xp.asarray(action_scale(robot, gait)) * action + clock
    return xp.clip(target, xp.asarray(robot.joint_lower), xp.asarray(robot.joint_upper)).astype(xp.float32)


def near(xp: Namespace, targets: Array, before: Array, step: float | None, begun: Array) -> Array:
    """Joint targets, rad `[..., J]`, no further than `step` (rad; None: as far as they like) from those of the control
    step `before`, for robots that had one, `begun` `[...]`."""
    if step is None:
        return targets
    return xp.where(begun[..., None], xp.clip(targets, before - step, before + step), targets).astype(xp.float32)


def action_for(
    xp: Namespace, robot: Robot, gait: Gait, targets: Array, phase: Array, command: Array, steps: Array
) -> Array:
    """The action `[..., J]` that asks for joint `targets` `[..., J]`: `joint_targets`'s inverse within limits."""
    offset = targets - xp.asarray(robot.default_pose) - joint_offset(xp, robot, gait, phase, command, steps)
    action = offset / xp.asarray(action_scale(robot, gait))
    return xp.clip(action, -robot.action_limit, robot.action_limit).astype(xp.float32)
