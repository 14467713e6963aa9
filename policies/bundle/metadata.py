"""What a bundle says about its policy, written and checked: against the robot, against this code, and in itself."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from sim.course.description import SKILLS
from sim.errors import InputError
from sim.observation import COMMANDS, Layout
from sim.reading import unique
from sim.robots.description import Robot

SCHEMA = 2
"""What is written. Since 2 a file has a checksum and the flat keys of `flat`; files of 1 have neither and are read."""
READ = (1, 2)
KEY = "barkour"
"""Property with the metadata."""
GENERALIST = "generalist"
"""Skill of a policy that does everything."""
LARGEST_STEP = 10.0
"""Of a joint target in a control step, rad."""
OPTIONAL = {"target_step"}
"""Keys that a file may lack. Code that does not know them refuses files that have them."""
GOLDEN_MOST = 4096
"""Golden vectors that a bundle may have."""


@dataclass(frozen=True)
class Metadata:
    """What a bundle says about its policy. Every field is JSON-ready."""

    schema: int
    skill: str
    robot: str
    joint_names: list[str]
    default_pose: list[float]
    joint_lower: list[float]
    joint_upper: list[float]
    action_scale: list[float] | float
    """rad per action; here and below one number per joint, or one for all in files of version 0.1."""
    action_limit: float
    kp: list[float] | float
    kd: list[float] | float
    torque_limit: list[float] | float
    control_period: float
    frames: dict[str, str]
    """Conventions in words: base frame, quaternion order, units."""
    layout: dict[str, Any]
    gait: dict[str, Any]
    command_ranges: dict[str, list[float]]
    """Trained command ranges: `forward`, `sideways` (m/s), `yaw` (rad/s)."""
    normalizer: dict[str, list[float]]
    """Mean and standard deviation of each input, as baked into the graph."""
    provenance: dict[str, Any]
    """Command, seed, commit, steps of the training run."""
    golden: dict[str, list[list[float]]]
    """`observation` and `action` rows that the network must reproduce."""
    target_step: float | None = None
    """Largest change of a joint target from one control step to the next, rad: what the network asks for beyond is cut
    off, and its last action is the one that asks for what is left. None: as the network has it."""

    def to_json(self) -> str:
        """Compact JSON, keys sorted, without optional ones that say nothing; floats survive exactly. Raises
        `ValueError` for a number that is not finite."""
        said = {name: value for name, value in asdict(self).items() if value is not None or name not in OPTIONAL}
        return json.dumps(said, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Inverse of `to_json`; `InputError` names a key that is missing or unknown."""
        try:
            data = json.loads(text, parse_constant=_refuse, object_pairs_hook=unique)
        except InputError:
            raise
        except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
            raise InputError(f"its metadata is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise InputError("its metadata is not a JSON object")
        if type(data.get("schema")) is not int or data["schema"] not in READ:
            read = " and ".join(map(str, READ))
            raise InputError(f"its schema version is {data.get('schema')}, this code reads {read}")
        names = {f.name for f in fields(cls)}
        for key in sorted((names ^ set(data)) - OPTIONAL):
            raise InputError(f"its metadata {'lacks' if key in names else 'has the unknown key'} '{key}'")
        return cls(**data)


def _refuse(constant: str) -> Any:
    raise InputError(f"its metadata holds {constant}")


def robot_fields(robot: Robot) -> dict[str, Any]:
    """The part of the metadata that a robot description decides."""
    return {
        "robot": robot.name,
        "joint_names": list(robot.joint_names),
        "default_pose": robot.default_pose.tolist(),
        "joint_lower": robot.joint_lower.tolist(),
        "joint_upper": robot.joint_upper.tolist(),
        "action_scale": robot.action_scale.tolist(),
        "action_limit": robot.action_limit,
        "kp": robot.kp.tolist(),
        "kd": robot.kd.tolist(),
        "torque_limit": robot.torque_limit.tolist(),
        "control_period": robot.control_period,
        "frames": {
            "base": "x forward, y left, z up, at the chassis origin",
            "quaternion": "w, x, y, z; world from base",
            "command": "forward m/s, leftward m/s, yaw rate rad/s, in the base's heading frame",
        },
    }


ONE_FOR_ALL = ("action_scale", "kp", "kd", "torque_limit")
"""Fields in which one number stands for every joint."""


def check_robot(metadata: Metadata, robot: Robot) -> None:
    """Raises `InputError` naming the first thing in which the bundle and the robot description differ."""
    for name, here in robot_fields(robot).items():
        found = getattr(metadata, name)
        if name in ONE_FOR_ALL and type(found) in (int, float):
            found = [found] * robot.joints
        numeric = _numeric(here) and _numeric(found) and np.shape(found) == np.shape(here)
        same = np.allclose(found, here, rtol=1e-6, atol=1e-7) if numeric else found == here
        if not same:
            raise InputError(f"its {name} is {_short(found)}, this robot's is {here}")


def check_use(metadata: Metadata, robot: Robot, layout: Layout) -> None:
    """Raises `InputError` where no policy of this robot can have been trained for such skill, joints or commands.

    `layout` is that of the metadata; it checks itself when it is read, as the gait does.
    """
    skill = metadata.skill
    if skill not in (*SKILLS, GENERALIST):
        raise InputError(f"its skill is {_short(repr(skill))}: known are {', '.join((*SKILLS, GENERALIST))}")
    if layout.joints != robot.joints:
        raise InputError(f"its layout is for {layout.joints} joints, {robot.name} has {robot.joints}")
    _check_ranges(metadata.command_ranges, robot, skill)
    step = metadata.target_step
    if step is not None and not (type(step) in (int, float) and 0 < step <= LARGEST_STEP):
        raise InputError(f"its target_step is {_short(step)}, not above 0 and at most {LARGEST_STEP:g} rad")
    if not isinstance(metadata.provenance, dict):
        raise InputError(f"its provenance is {_short(metadata.provenance)}, not an object")


def check_numbers(metadata: Metadata, inputs: int, actions: int) -> None:
    """Raises `InputError` where normaliser or golden vectors are not finite numbers for so many inputs and actions."""
    _check_normalizer(metadata.normalizer, inputs)
    golden = metadata.golden
    if not isinstance(golden, dict) or set(golden) != {"observation", "action"}:
        raise InputError("its golden vectors need 'observation' and 'action'")
    if not all(isinstance(rows, list) for rows in golden.values()) or not golden["observation"]:
        raise InputError("it has no golden vectors")
    count = len(golden["observation"])
    if count > GOLDEN_MOST:
        raise InputError(f"it has {count} golden vectors, {GOLDEN_MOST} are allowed")
    for name, width in (("observation", inputs), ("action", actions)):
        rows = golden[name]
        if len(rows) != count or not all(isinstance(row, list) and len(row) == width for row in rows):
            raise InputError(f"its golden {name}s must be {count} rows of {width} numbers")
        if not all(_numeric(row) for row in rows):
            raise InputError(f"its golden {name}s are not all finite numbers")


def _check_ranges(ranges: Any, robot: Robot, skill: str) -> None:
    """Finite, ordered, around zero, and no faster than the robot's feet can be."""
    if not isinstance(ranges, dict) or set(ranges) != set(COMMANDS):
        raise InputError(f"its command_ranges need {', '.join(COMMANDS)}, got {_short(ranges)}")
    speed = float(robot.no_load_speed.max()) * robot.standing_height
    turning = speed / math.hypot(*robot.footprint.stance)
    for name in COMMANDS:
        ends = ranges[name]
        if not isinstance(ends, list) or len(ends) != 2 or not _numeric(ends) or not ends[0] <= ends[1]:
            raise InputError(f"its command range '{name}' must be [lowest, highest], got {_short(ends)}")
        most = turning if name == "yaw" else speed
        if max(map(abs, ends)) > most:
            raise InputError(f"its command range '{name}' is {ends}: {robot.name} makes no more than {most:.3g}")
        moves = name == "forward" and skill == "jump"  # a jumper is taken over before it stands
        if not moves and not ends[0] <= 0 <= ends[1]:
            raise InputError(f"its command range '{name}' is {ends}, which leaves out standing")


def _check_normalizer(normalizer: Any, size: int) -> None:
    if not isinstance(normalizer, dict) or set(normalizer) != {"mean", "std"}:
        raise InputError(f"its normalizer needs 'mean' and 'std', got {_short(normalizer)}")
    for name, values in normalizer.items():
        if not isinstance(values, list) or len(values) != size or not _numeric(values):
            raise InputError(f"its normalizer needs {size} finite numbers in '{name}'")
    if min(normalizer["std"]) <= 0:
        raise InputError("its normalizer has a standard deviation that is not above 0")


def flat(metadata: Metadata, layout: Layout) -> dict[str, str]:
    """The keys that other tools of the field read from an ONNX file's properties, names and numbers with commas
    between them; numbers survive exactly. One number per joint, in the order of `joint_names`."""
    joints = len(metadata.joint_names)

    def row(values: list[float] | float) -> str:
        return ",".join(repr(float(v)) for v in (values if isinstance(values, list) else [values] * joints))

    return {
        "joint_names": ",".join(metadata.joint_names),
        "joint_stiffness": row(metadata.kp),
        "joint_damping": row(metadata.kd),
        "default_joint_pos": row(metadata.default_pose),
        "action_scale": row(metadata.action_scale),
        "observation_names": ",".join(layout.slices()),
        "command_names": ",".join(COMMANDS),
    }


def check_flat(metadata: Metadata, layout: Layout, properties: dict[str, str]) -> None:
    """Raises `InputError` where the flat keys say something else than the metadata."""
    for name, wanted in flat(metadata, layout).items():
        if properties.get(name) != wanted:
            raise InputError(f"its property '{name}' is {_short(properties.get(name))}, its metadata says {wanted}")


def _numeric(value: Any) -> bool:
    """Finite numbers, alone or in a list."""
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    return all(type(item) in (int, float) and abs(item) < 1e30 for item in items)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
