"""The policy bundle: one ONNX file that carries the network and everything needed to run it as it was trained.

The metadata stands as JSON in the ONNX property `barkour`, floats in full precision. Loading checks it against this
code and the robot and replays golden vectors; whatever differs refuses to load with a sentence that says what.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from policies.bundle.runtime import onnxruntime
from sim import gait as clocks
from sim import observation as obs
from sim.errors import InputError
from sim.observation import Layout, Sensors
from sim.reading import check_file
from sim.robots.description import Robot, robot_by_name
from sim.robots.gaits import Gait

SCHEMA = 1
KEY = "barkour"
GOLDEN_TOLERANCE = 1e-4
LARGEST = 1 << 30
"""No bundle is larger, bytes."""
BATCH = 16
"""Rows that `FixedBatch` runs at once."""


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

    def to_json(self) -> str:
        """Compact JSON, keys sorted; floats survive exactly."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> "Metadata":
        """Inverse of `to_json`; `InputError` names a key that is missing or unknown."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise InputError(f"its metadata is not JSON: {error}") from error
        if not isinstance(data, dict):
            raise InputError("its metadata is not a JSON object")
        if data.get("schema") != SCHEMA:
            raise InputError(f"its schema version is {data.get('schema')}, this code reads {SCHEMA}")
        names = {f.name for f in fields(cls)}
        for key in sorted(names ^ set(data)):
            raise InputError(f"its metadata {'lacks' if key in names else 'has the unknown key'} '{key}'")
        return cls(**data)


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


class Bundle:
    """A loaded policy network with its metadata: `bundle(observation [N, size]) -> action [N, actions]`."""

    def __init__(self, path: Path, metadata: Metadata, session: onnxruntime.InferenceSession, robot: Robot) -> None:
        self.path, self.metadata, self.robot = path, metadata, robot
        self.layout = Layout.from_dict(metadata.layout)
        self.gait = Gait.from_dict(metadata.gait)
        for name in ("forward", "sideways", "yaw"):
            low, high = metadata.command_ranges[name]
            if not (_numeric([low, high]) and low <= high):
                raise InputError(f"its command range '{name}' is {metadata.command_ranges[name]}")
        self._session = session

    @classmethod
    def load(cls, path: Path | str) -> "Bundle":
        """Reads and checks a bundle.

        Raises:
          InputError: the file is missing, cut off, no bundle, for another robot or layout, or its network does not
            reproduce the golden vectors.
        """
        path = Path(path)
        if not path.exists() or path.is_dir():
            raise InputError(f"there is no policy file {path}")
        check_file(path, LARGEST)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises its own unrelated classes
            raise InputError(f"{path} is not a readable ONNX file: {str(error).splitlines()[0][:120]}") from error
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        if text is None:
            raise InputError(f"{path} is an ONNX file but no policy bundle: it has no '{KEY}' metadata")
        try:
            metadata = Metadata.from_json(text)
            robot = robot_by_name(metadata.robot)
            check_robot(metadata, robot)
            bundle = cls(path, metadata, session, robot)
            bundle._check_graph()
            bundle._replay()
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path} cannot be used: its metadata is malformed ({error})") from error
        return bundle

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Actions `[N, gait.actions]` for observations `[N, layout.size]`, float32."""
        return self._session.run(None, {"observation": observation})[0]  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """JSON-ready summary for `barkour inspect`."""
        m = self.metadata
        keep = ("schema", "skill", "robot", "joint_names", "default_pose", "action_scale", "kp", "kd", "torque_limit")
        keep += ("control_period", "frames", "gait", "command_ranges", "provenance")
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            **{name: getattr(m, name) for name in keep},
            "inputs": {name: [part.start, part.stop] for name, part in self.layout.slices().items()},
            "observation_size": self.layout.size,
            "golden_vectors": len(m.golden["observation"]),
        }

    def _check_graph(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != ["observation"] or [o.name for o in outputs] != ["action"]:
            raise InputError("its graph needs one input 'observation' and one output 'action'")
        sizes = inputs[0].shape[-1], outputs[0].shape[-1]
        widths = {
            "observation": (sizes[0], self.layout.size),
            "action": (sizes[1], self.gait.actions(self.robot.joints)),
        }
        for name, (found, wanted) in widths.items():
            if found != wanted:
                raise InputError(f"its {name} has {found} numbers, the layout says {wanted}")

    def _replay(self) -> None:
        golden = {name: np.asarray(rows, np.float32) for name, rows in self.metadata.golden.items()}
        count = len(golden["observation"])
        if count < 1:
            raise InputError("it has no golden vectors")
        for name, wanted in (
            ("observation", (count, self.layout.size)),
            ("action", (count, self.gait.actions(self.robot.joints))),
        ):
            if golden[name].shape != wanted:
                raise InputError(f"its golden {name}s have shape {golden[name].shape}, not {wanted}")
        difference = np.abs(self(golden["observation"]) - golden["action"]).max()
        if not difference <= GOLDEN_TOLERANCE:
            raise InputError(f"its network differs from its golden vectors by {difference:.3g}")


ONE_FOR_ALL = ("action_scale", "kp", "kd", "torque_limit")
"""Fields in which one number stands for every joint."""


def check_robot(metadata: Metadata, robot: Robot) -> None:
    """Raises `InputError` naming the first thing in which the bundle and the robot description differ."""
    for name, here in robot_fields(robot).items():
        found = getattr(metadata, name)
        if name in ONE_FOR_ALL and isinstance(found, (int, float)) and not isinstance(found, bool):
            found = [found] * robot.joints
        numeric = _numeric(here) and _numeric(found) and np.shape(found) == np.shape(here)
        same = np.allclose(found, here, rtol=1e-6, atol=1e-7) if numeric else found == here
        if not same:
            raise InputError(f"its {name} is {found}, this robot's is {here}")


def _numeric(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return all(isinstance(item, (int, float)) for item in items)


class FixedBatch:
    """A bundle that always runs its network on the same number of rows.

    Matrix products round differently for different batch sizes; with this a world's actions do not depend on how many
    worlds are run beside it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.metadata, self.robot, self.layout, self.gait = bundle.metadata, bundle.robot, bundle.layout, bundle.gait
        self.path = bundle.path
        self._bundle = bundle

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Actions `[N, gait.actions]` for observations `[N, size]`."""
        count = len(observation)
        padded = np.zeros((-(-count // BATCH) * BATCH, observation.shape[1]), np.float32)
        padded[:count] = observation
        return np.concatenate([self._bundle(padded[i : i + BATCH]) for i in range(0, len(padded), BATCH)])[:count]


class Policy:
    """A bundle with its memory, for `worlds` robots at once: sensors and command in, joint targets out.

    The same steps as in training (`sim.tasks.task`): observe, act, then add the gait clock. `worlds=1` is a robot.
    """

    def __init__(self, bundle: Bundle, worlds: int = 1) -> None:
        self.bundle, self.worlds = bundle, worlds
        self.last_action = np.zeros((worlds, bundle.robot.joints), np.float32)
        self.history = np.zeros((worlds, bundle.layout.history, bundle.layout.frame_size), np.float32)
        self.phase = np.zeros(worlds, np.float32)
        self.drive = np.zeros(worlds, np.float32)
        """What the policy last added to its clock's frequency, Hz; 0 unless it drives the clock."""
        self.fresh = np.ones(worlds, bool)
        """Robots whose history begins with their next sensors."""
        self._asked: tuple[np.ndarray, np.ndarray | None] = np.zeros((worlds, 3), np.float32), None
        """Command and board of the last step."""

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Forgets everything about the robots in `mask` `[worlds]` (all without one)."""
        mask = np.ones(self.worlds, bool) if mask is None else mask
        self.last_action[mask] = 0.0
        self.phase[mask], self.drive[mask] = 0.0, 0.0
        self.fresh |= mask

    def step(
        self, sensors: Sensors, command: np.ndarray, heights: np.ndarray, phase: np.ndarray | None = None
    ) -> np.ndarray:
        """One control step.

        Args:
          sensors: readings, `[worlds, ...]`.
          command: `[worlds, 3]`, m/s, m/s, rad/s.
          heights: `[worlds, layout.height_size]` from `heights_at`.
          phase: of the clock in this step, `[worlds]` cycles, where another policy turns it.

        Returns:
          Joint targets, rad, `[worlds, J]`.

        Raises:
          InputError: something is not finite; the memory is then unchanged.
        """
        for name, values in [*sensors._asdict().items(), ("command", command), ("heights", heights)]:
            if not np.isfinite(values).all():
                raise InputError(f"policy input '{name}' is not finite")
        robot, gait = self.bundle.robot, self.bundle.gait
        command = np.asarray(command, np.float32)
        heights = np.asarray(heights, np.float32)
        newest = obs.frame(np, robot, sensors, self.last_action)
        board = obs.board_ahead(np, self.bundle.layout, heights) if gait.lock_gain else None
        if phase is None:
            following = clocks.advance(np, gait, self.phase, command, robot.control_period, board, self.drive)
            phase = np.where(self.fresh, 0.0, following)
        self.phase = np.asarray(phase, np.float32)
        clock = clocks.clock(np, gait, self.phase, command)
        newest = obs.stamp(np, self.bundle.layout, newest, command, clock)
        self.history = obs.remembered(np, self.history, newest, self.fresh)
        self.fresh[:] = False
        observation = obs.observe(np, self.bundle.layout, self.history, command, clock, heights)
        action = np.clip(self.bundle(observation), -robot.action_limit, robot.action_limit)
        if gait.driven:
            action, self.drive = action[:, : robot.joints], action[:, robot.joints]
        self.last_action = action
        steps = obs.relief(np, self.bundle.layout, heights)
        self._asked = command, board
        return obs.joint_targets(np, robot, gait, action, self.phase, command, steps)

    @property
    def frequency(self) -> np.ndarray:
        """How fast the clock turns from the last step to the next, Hz `[worlds]`."""
        command, board = self._asked
        gait = self.bundle.gait
        return clocks.frequency(np, gait, self.phase, command, board, self.drive) * np.ones(self.worlds, np.float32)

    def heights_at(
        self,
        ground: Callable[[np.ndarray, np.ndarray], np.ndarray],
        xy: np.ndarray,
        z: np.ndarray,
        yaw: np.ndarray,
        pits: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> np.ndarray:
        """The heights input `[worlds, n]`: `ground(x, y)` around bases at `xy` `[worlds, 2]`, `z`, `yaw` `[worlds]`;
        `pits` as in `sim.observation.terrain_heights`."""
        return obs.terrain_heights(np, self.bundle.robot, self.bundle.layout, ground, xy, yaw, z, pits=pits)
