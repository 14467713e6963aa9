"""`barkour robot measure`: what a robot is and can do, by simulation, beside what its description says.

From the model alone: mass, height and outline in its pose under its own gains, whether it rises from the ground. With a
walker: how fast it goes ahead, back, aside and around, and how soon it changes that.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from policies.bundle.reader import Bundle
from policies.bundle.shipped import bundle_file
from policies.evaluation.options import RobotMeasureOptions
from policies.evaluation.response import identify
from policies.evaluation.walking import Walker
from policies.navigation.response import SUFFIX
from sim.course.description import TARGET_VELOCITY
from sim.course.scene import build, robot_spec
from sim.course.terrain import Terrain
from sim.envs.worlds import SimulatedRobots, flat, world_seeds
from sim.errors import InputError
from sim.folders import replacing
from sim.observation import COMMANDS
from sim.results import Result, cell
from sim.robots.description import Robot, default_robot, find_robot

if TYPE_CHECKING:
    from rich.console import Console

SETTLE, RISE = 2.0, 1.5
"""Seconds that a robot has to come to rest, and to rise in."""
HEIGHT_OFF, UPRIGHT = 0.03, 0.99
"""A robot stands that is at rest within so many m of the described height, with this cosine of its tilt."""
DIRECTIONS = {"ahead": (0, 1.0), "back": (0, -1.0), "left": (1, 1.0), "around": (2, 1.0)}
"""Name -> column of the command and its sign. A robot's left and right are taken to be alike."""
LEVELS = np.arange(1, 9) / 8
"""Shares of the largest command that the walker was trained on."""
KEPT, SLACK = 0.85, 0.1
"""A command is followed where this share of it is made, less so many m/s or rad/s: small ones are half swallowed."""
RUN_UP, SPEED_SECONDS, TURN_SECONDS = 1.5, 3.5, 2.5
"""Seconds before anything is measured, of a measurement of speed, and after a command is turned round."""


@dataclass(frozen=True, kw_only=True)
class RobotMeasured(Result):
    """What a robot is and can do."""

    robot: str
    mass_kg: float
    stands: bool
    height_m: float
    """Of the base at rest in the default pose."""
    described_height_m: float
    upright: float
    """Cosine of the tilt at rest."""
    sag_rad: float
    """Largest distance of a joint from its target at rest."""
    holding_torque_share: float
    """Largest share of its peak torque that a joint needs to stand."""
    rises: bool
    """Whether it comes from the ground into the default pose by way of the folded one."""
    hip_height_m: float
    target_velocity: float
    """m/s: the default robot's 1.69 at this robot's size, see `target_velocity`."""
    outline_m: dict[str, float]
    """Of the colliders at rest, from the base: front, rear, half_width."""
    described_outline_m: dict[str, float]
    stance_m: list[float]
    """Half the distance between front and hind feet and between left and right feet."""
    policy: str | None = None
    speeds: dict[str, dict[str, float]] | None = None
    """Direction -> `largest` (command that was followed by a robot in the middle, m/s or rad/s), `made` (of it) and
    `asked` (the largest that was tried)."""
    changes: dict[str, dict[str, float]] | None = None
    """Direction -> `acceleration` (m/s^2 or rad/s^2, mean while the command is turned round), `lag` (s until a tenth of
    the change is made)."""
    falls: int | None = None
    """Robots that fell meanwhile, of all."""
    robots: int | None = None
    response: dict[str, Any] | None = None
    """With --response: `lag_s` (forward, sideways, yaw), share of the velocity that the table explains in robots it was
    not fitted to, `file`."""

    @property
    def failure(self) -> str:
        """Where it does not stand or does not rise."""
        if not self.stands:
            return (
                f"{self.robot} does not stand: it rests {self.height_m:.3f} m high ({self.described_height_m:.3f} m "
                f"described), with {self.upright:.3f} of its upright; look at default_pose, kp and legs"
            )
        return "" if self.rises else f"{self.robot} does not rise from the ground: look at folded_pose and kp"

    def show(self, console: "Console") -> None:
        """One line a figure."""
        from rich.table import Table

        table = Table(show_header=False)
        rows: list[tuple[str, Any]] = list(self.items())
        while rows:
            name, value = rows.pop(0)
            if isinstance(value, dict):
                rows = [(f"{name}, {inner}", each) for inner, each in value.items()] + rows
            else:
                numbers = value if isinstance(value, list) else [value]
                said = (f"{each:.3g}" if isinstance(each, float) else str(each) for each in numbers)
                table.add_row(cell(name.replace("_", " ")), cell(", ".join(said)))
        console.print(table)


def measure(options: RobotMeasureOptions) -> RobotMeasured:
    """What `barkour robot measure` prints.

    Raises:
      InputError: no such robot, a model that is not as described, or a policy of another robot.
    """
    robot = find_robot(options.robot)
    file = Path(options.policy) if options.policy is not None else bundle_file("walk", robot.name)
    if options.response and file.with_suffix(SUFFIX).is_dir():
        raise InputError(f"cannot write {file.with_suffix(SUFFIX)}: it is a folder")
    found: dict[str, Any] = {"robot": robot.name, **at_rest(robot)}
    if options.policy is not None or file.is_file():
        bundle = Bundle.load(file)
        if bundle.robot.name != robot.name:
            raise InputError(f"{file} is for the robot {bundle.robot.name}, not {robot.name}")
        found |= {"policy": str(file)}
        found |= (
            response(bundle, file, options.seed) if options.response else paces(bundle, options.repeats, options.seed)
        )
    elif options.response:
        raise InputError(f"{robot.name} has no walker: {file} is missing")
    return RobotMeasured.of(found)


def response(bundle: Bundle, file: Path, seed: int) -> dict[str, Any]:
    """Fields of `RobotMeasured` for --response; writes the table beside the policy's `file`."""
    table, said = identify(bundle, seed=seed)
    kept = file.with_suffix(SUFFIX)
    try:
        with replacing(kept) as partial:
            table.write(partial)
    except OSError as error:
        raise InputError(f"cannot write {kept}: {error.strerror}") from error
    explained = {name: value for name, value in said.items() if name.startswith("explained")}
    lags = table.lag.round(4).tolist()
    return {
        "falls": said["fallen"],
        "robots": said["robots"],
        "response": {"lag_s": lags, **explained, "file": str(kept)},
    }


# --- the robot alone --------------------------------------------------------------------------------------------------


def at_rest(robot: Robot) -> dict[str, Any]:
    """Fields of `RobotMeasured` that need no policy."""
    return {**standing(robot), "rises": rises(robot)}


def standing(robot: Robot) -> dict[str, Any]:
    """What comes of a robot that is put into its pose."""
    model = build(robot, Terrain())
    data = mujoco.MjData(model)
    data.qpos[2], data.qpos[7:], data.ctrl[:] = robot.standing_height + 0.01, robot.default_pose, robot.default_pose
    _run(model, data, SETTLE)
    height, upright = float(data.qpos[2]), _upright(data)
    stands = abs(height - robot.standing_height) <= HEIGHT_OFF and upright >= UPRIGHT
    torque = np.abs(data.actuator_force) / robot.torque_limit
    lower, upper = outline(model, data, robot)
    feet = np.array([_inside(data, robot, data.geom(leg.foot).xpos) for leg in robot.legs])
    described = robot.footprint
    out = {
        "mass_kg": float(model.body_subtreemass[model.body(robot.base_body).id]), "stands": bool(stands),
        "height_m": height, "described_height_m": robot.standing_height, "upright": upright,
        "sag_rad": float(np.abs(data.qpos[7:] - robot.default_pose).max()), "holding_torque_share": float(torque.max()),
        "hip_height_m": hip_height(robot), "target_velocity": target_velocity(robot),
        "outline_m": {"front": upper[0], "rear": -lower[0], "half_width": max(upper[1], -lower[1])},
        "described_outline_m": {n: getattr(described, n) for n in ("front", "rear", "half_width")},
        "stance_m": [float(np.abs(feet[:, i]).mean()) for i in (0, 1)],
    }  # fmt: skip
    return out


def rises(robot: Robot) -> bool:
    """Whether a robot comes from the ground into its pose by way of the folded one."""
    model = build(robot, Terrain())
    data = mujoco.MjData(model)
    data.qpos[2], data.qpos[7:], data.ctrl[:] = robot.standing_height, robot.folded_pose, robot.folded_pose
    _run(model, data, SETTLE)
    for share in np.linspace(0, 1, round(RISE / model.opt.timestep)):
        data.ctrl[:] = robot.folded_pose + share * (robot.default_pose - robot.folded_pose)
        mujoco.mj_step(model, data)
    _run(model, data, SETTLE)
    return abs(float(data.qpos[2]) - robot.standing_height) <= HEIGHT_OFF and _upright(data) >= UPRIGHT


def target_velocity(robot: Robot) -> float:
    """The course's target velocity for a robot's size, m/s.

    The paper sets 1.69 m/s for its own robot and lets bigger ones have more, without a formula. Here robots are asked
    for equal Froude numbers, v^2 / (g h) with h the height of the hips, as animals of different size that move alike
    have (Alexander and Jayes 1983): the velocity grows with the root of the height.
    """
    return TARGET_VELOCITY * float(np.sqrt(hip_height(robot) / hip_height(default_robot())))


def hip_height(robot: Robot) -> float:
    """Mean height of the axes that swing the legs, in the default pose at the described height, m."""
    model = robot_spec(robot).compile()
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:] = (0, 0, robot.standing_height, 1, 0, 0, 0), robot.default_pose
    mujoco.mj_kinematics(model, data)
    return float(np.mean([data.joint(leg.hip).xanchor[2] for leg in robot.legs]))


def outline(model: mujoco.MjModel, data: mujoco.MjData, robot: Robot) -> tuple[list[float], list[float]]:
    """Least and greatest x, y, z of the robot's colliders in the base's frame, m."""
    kinds = mujoco.mjtGeom
    lowest, highest = np.full(3, np.inf), np.full(3, -np.inf)
    base = data.body(robot.base_body).xmat.reshape(3, 3)
    for g in np.flatnonzero(model.body_rootid[model.geom_bodyid] == model.body(robot.base_body).id):
        turn, size = base.T @ data.geom_xmat[g].reshape(3, 3), model.geom_size[g]
        axis = np.abs(turn[:, 2])
        reach = {
            kinds.mjGEOM_SPHERE: np.full(3, size[0]),
            kinds.mjGEOM_CAPSULE: size[0] + size[1] * axis,
            kinds.mjGEOM_CYLINDER: size[0] * np.sqrt(np.maximum(1 - axis**2, 0)) + size[1] * axis,
        }.get(kinds(int(model.geom_type[g])), np.abs(turn) @ size)
        at = _inside(data, robot, data.geom_xpos[g])
        lowest, highest = np.minimum(lowest, at - reach), np.maximum(highest, at + reach)
    return lowest.tolist(), highest.tolist()


def _inside(data: mujoco.MjData, robot: Robot, place: np.ndarray) -> np.ndarray:
    """A place of the world in the base's frame."""
    base = data.body(robot.base_body)
    return base.xmat.reshape(3, 3).T @ (place - base.xpos)


def _run(model: mujoco.MjModel, data: mujoco.MjData, seconds: float) -> None:
    mujoco.mj_step(model, data, round(seconds / model.opt.timestep))


def _upright(data: mujoco.MjData) -> float:
    w, x, y, z = data.qpos[3:7]
    return float(1 - 2 * (x * x + y * y))


# --- with a walker ----------------------------------------------------------------------------------------------------


def paces(bundle: Bundle, repeats: int, seed: int) -> dict[str, Any]:
    """`speeds`, `changes`, `falls` and `robots` of a walker on the flat, in evaluation physics drawn per robot."""
    ranges = bundle.metadata.command_ranges
    largest = {n: abs(ranges[COMMANDS[column]][0 if sign < 0 else 1]) for n, (column, sign) in DIRECTIONS.items()}
    command = np.zeros((len(DIRECTIONS), len(LEVELS), repeats, 3), np.float32)
    for i, (name, (column, sign)) in enumerate(DIRECTIONS.items()):
        command[i, :, :, column] = sign * largest[name] * LEVELS[:, None]
    flat_command = command.reshape(-1, 3)
    robots = _robots(bundle, len(flat_command), seed)
    walker = Walker(bundle, robots)
    dt = bundle.robot.control_period
    seen = np.zeros((round((SPEED_SECONDS - RUN_UP) / dt), *flat_command.shape))
    for _ in range(round(RUN_UP / dt)):
        walker.step(flat_command)
    for k in range(len(seen)):
        walker.step(flat_command)
        seen[k] = robots.velocity
    made = np.where(walker.fallen[:, None], 0.0, seen.mean(0)).reshape(command.shape)
    speeds, changes = {}, {}
    for i, (name, (column, sign)) in enumerate(DIRECTIONS.items()):
        middle = np.median(sign * made[i, :, :, column], -1)
        followed = middle >= KEPT * largest[name] * LEVELS - SLACK
        level = int(np.argmin(followed)) if not followed.all() else len(LEVELS)  # all below it are followed too
        speeds[name] = {
            "largest": float(largest[name] * LEVELS[level - 1]) if level else 0.0,
            "made": float(middle[level - 1]) if level else 0.0, "asked": float(largest[name]),
        }  # fmt: skip
    falls, count = int(walker.fallen.sum()), robots.worlds
    for name in ("ahead", "left", "around"):
        if speeds[name]["largest"] > 0:
            found, down = _change(bundle, DIRECTIONS[name][0], speeds[name]["largest"], repeats, seed)
            changes[name], falls, count = found, falls + down, count + repeats
    return {"speeds": speeds, "changes": changes, "falls": falls, "robots": count}


def _change(bundle: Bundle, column: int, speed: float, repeats: int, seed: int) -> tuple[dict[str, float], int]:
    """How soon robots go from `-speed` to `speed` in a column of the command, and how many fall over it.

    The speed backward is what is lost of `speed` where the walker was trained on less.
    """
    low, high = bundle.metadata.command_ranges[COMMANDS[column]]
    before, after = np.zeros((repeats, 3), np.float32), np.zeros((repeats, 3), np.float32)
    before[:, column], after[:, column] = max(-speed, low), min(speed, high)
    robots = _robots(bundle, repeats, seed)
    walker = Walker(bundle, robots)
    dt = bundle.robot.control_period
    for _ in range(round(RUN_UP / dt)):
        walker.step(before)
    began = np.median(robots.velocity[:, column])
    seen = []
    for _ in range(round(TURN_SECONDS / dt)):
        walker.step(after)
        seen.append(np.median(robots.velocity[~walker.fallen, column]) if not walker.fallen.all() else began)
    course = np.array(seen) - began
    change = float(np.mean(course[-round(0.5 / dt) :]))
    tenth, most = (int(np.argmax(course >= share * change)) for share in (0.1, 0.9))
    seconds = max(most - tenth, 1) * dt
    return {"acceleration": 0.8 * change / seconds, "lag": (tenth + 1) * dt}, int(walker.fallen.sum())


def _robots(bundle: Bundle, count: int, seed: int) -> SimulatedRobots:
    robots = SimulatedRobots(
        bundle.robot, build(bundle.robot, Terrain()), world_seeds(seed, count), randomize=True
    )  # fmt: skip
    robots.place(np.zeros(count), np.zeros(count), np.zeros(count), flat)
    return robots
