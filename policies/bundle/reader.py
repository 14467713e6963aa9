"""The policy bundle: one ONNX file that carries the network and everything needed to run it as it was trained.

The metadata stands as JSON in the ONNX property `barkour`, floats in full precision. Loading checks it against this
code and the robot and replays golden vectors; whatever differs refuses to load with a sentence that says what.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from policies.bundle import trial
from policies.bundle.container import CHECKSUM, LOOPS, Container
from policies.bundle.metadata import (
    KEY,
    SCHEMA,
    Metadata,
    check_flat,
    check_numbers,
    check_robot,
    check_use,
    robot_fields,
)
from policies.bundle.runtime import onnxruntime
from policies.bundle.shipped import folder as shipped_folder
from sim import gait as clocks
from sim import observation as obs
from sim.errors import InputError, first_line
from sim.observation import Layout, Sensors
from sim.reading import check_file
from sim.robots.description import Robot, robot_by_name
from sim.robots.gaits import Gait

__all__ = ["BATCH", "KEY", "SCHEMA", "Bundle", "FixedBatch", "Metadata", "Policy", "check_robot", "robot_fields"]

GOLDEN_TOLERANCE = 1e-4
LARGEST = 1 << 28
"""No bundle is larger, bytes."""
BATCH = 16
"""Rows that `FixedBatch` runs at once."""


class Bundle:
    """A loaded policy network with its metadata: `bundle(observation [N, size]) -> action [N, actions]`."""

    def __init__(
        self,
        path: Path,
        metadata: Metadata,
        session: onnxruntime.InferenceSession,
        robot: Robot,
        checksum: str | None = None,
    ) -> None:
        self.path, self.metadata, self.robot = path, metadata, robot
        self.layout = Layout.from_dict(metadata.layout)
        self.gait = Gait.from_dict(metadata.gait)
        self.checksum = checksum
        """SHA-256 of the file, as it says itself; None in files written before there was one."""
        self._session = session

    @classmethod
    def load(cls, path: Path | str, trusted: bool = False) -> "Bundle":
        """Reads and checks a bundle.

        A network that was never run here is tried by a child process first (`policies.bundle.trial`), which takes about
        half a second. One that is `trusted`, because its caller made it or because it was installed with this code,
        is not.

        Raises:
          InputError: the file is missing, cut off, damaged, no bundle, for another robot or layout, says things that
            cannot be, or its network takes too much time or memory or does not reproduce the golden vectors.
        """
        path = Path(path)
        if not path.exists() or path.is_dir():
            raise InputError(f"there is no policy file {path}")
        check_file(path, LARGEST)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        try:
            file = Container.read(content)
        except InputError as error:
            raise InputError(f"{path} is not a readable ONNX file: {error}") from error
        text = file.properties.get(KEY)
        if text is None:
            raise InputError(f"{path} is an ONNX file but no policy bundle: it has no '{KEY}' metadata")
        try:
            if CHECKSUM in file.properties:
                file.check()
            metadata = Metadata.from_json(text)
            robot = robot_by_name(metadata.robot)
            check_robot(metadata, robot)
            layout = Layout.from_dict(metadata.layout)
            check_use(metadata, robot, layout)
            Gait.from_dict(metadata.gait)
            if metadata.schema > 1:
                if CHECKSUM not in file.properties:
                    raise InputError(f"it has no checksum ('{CHECKSUM}'), which files of its schema have")
                check_flat(metadata, layout, file.properties)
            if looping := sorted(file.operators.intersection(LOOPS)):
                raise InputError(f"its graph has the operator {looping[0]}: a policy does not loop")
            if not (trusted or path.resolve().is_relative_to(shipped_folder().resolve())):
                trial.try_out(content)
            bundle = cls(path, metadata, _session(content), robot, file.properties.get(CHECKSUM))
            bundle._check_graph()
            check_numbers(metadata, layout.size, bundle.gait.actions(robot.joints))
            bundle._replay()
            trial.remember(content)
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise InputError(f"{path} cannot be used: its metadata is malformed ({error})") from error
        return bundle

    def __call__(self, observation: np.ndarray) -> np.ndarray:
        """Actions `[N, gait.actions]` for observations `[N, layout.size]`, float32."""
        return self._session.run(None, {"observation": observation})[0]  # type: ignore[return-value]

    def describe(self) -> dict[str, Any]:
        """JSON-ready summary for `barkour inspect`."""
        m = self.metadata
        keep = ("schema", "skill", "robot", "joint_names", "default_pose", "action_scale", "kp", "kd", "torque_limit")
        keep += ("control_period", "frames", "gait", "command_ranges", "target_step", "provenance")
        return {
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "checksum": self.checksum
            or "none: written before files had one; `python -m policies.bundle.writer` adds it",
            **{name: getattr(m, name) for name in keep},
            "inputs": {name: [part.start, part.stop] for name, part in self.layout.slices().items()},
            "observation_size": self.layout.size,
            "golden_vectors": len(m.golden["observation"]),
        }

    def _check_graph(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if [i.name for i in inputs] != ["observation"] or [o.name for o in outputs] != ["action"]:
            raise InputError("its graph needs one input 'observation' and one output 'action'")
        wanted = self.layout.size, self.gait.actions(self.robot.joints)
        for end, width in zip((inputs[0], outputs[0]), wanted, strict=True):
            if end.type != "tensor(float)" or len(end.shape) != 2:
                raise InputError(f"its {end.name} is {end.type} of shape {end.shape}, not float32 [batch, {width}]")
            if end.shape[1] != width:
                raise InputError(f"its {end.name} has {end.shape[1]} numbers, the layout says {width}")
            if isinstance(end.shape[0], int):
                raise InputError(f"its {end.name} is fixed at {end.shape[0]} rows: a policy takes any number")

    def _replay(self) -> None:
        """All golden vectors at once and each alone: a robot's action does not depend on who else is asked for."""
        rows, wanted = (np.asarray(self.metadata.golden[name], np.float32) for name in ("observation", "action"))
        for count in (len(rows), 1):
            found = [self._answer(rows[i : i + count]) for i in range(0, len(rows), count)]
            if any(part.shape != (count, wanted.shape[1]) for part in found):
                raise InputError(
                    f"its network answers {count} rows with {found[0].shape}, not {(count, wanted.shape[1])}"
                )
            difference = np.abs(np.concatenate(found) - wanted).max()
            if not difference <= GOLDEN_TOLERANCE:
                raise InputError(f"its network differs from its golden vectors by {difference:.3g}")

    def _answer(self, rows: np.ndarray) -> np.ndarray:
        try:
            return self(rows)
        except Exception as error:  # onnxruntime raises its own unrelated classes
            raise InputError(f"its network does not run on {len(rows)} rows: {_first(error)}") from error


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise InputError(f"it is not a readable ONNX file: {_first(error)}") from error


def _first(error: Exception) -> str:
    return first_line(error)[:120]


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


def target_step(bundle: Any) -> float | None:
    """A bundle's `Metadata.target_step`; None of what stands in for one and has no metadata."""
    return getattr(getattr(bundle, "metadata", None), "target_step", None)


class Policy:
    """A bundle with its memory, for `worlds` robots at once: sensors and command in, joint targets out.

    The same steps as in training (`sim.tasks.task`): observe, act, then add the gait clock. `worlds=1` is a robot.
    """

    def __init__(self, bundle: Bundle, worlds: int = 1) -> None:
        self.bundle, self.worlds, self._target_step = bundle, worlds, target_step(bundle)
        self.last_action = np.zeros((worlds, bundle.robot.joints), np.float32)
        self.history = np.zeros((worlds, bundle.layout.history, bundle.layout.frame_size), np.float32)
        self.phase = np.zeros(worlds, np.float32)
        self.drive = np.zeros(worlds, np.float32)
        """What the policy last added to its clock's frequency, Hz; 0 unless it drives the clock."""
        self.fresh = np.ones(worlds, bool)
        """Robots whose history begins with their next sensors."""
        self.targets = np.zeros((worlds, bundle.robot.joints), np.float32)
        """Joint targets of the last step, rad; set by who applies others. The next ones lie within the policy's
        `target_step` of them."""
        self._asked: tuple[np.ndarray, np.ndarray | None] = np.zeros((worlds, 3), np.float32), None
        """Command and board of the last step."""

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Forgets everything about the robots in `mask` `[worlds]` (all without one)."""
        mask = np.ones(self.worlds, bool) if mask is None else mask
        self.last_action[mask] = 0.0
        self.phase[mask], self.drive[mask] = 0.0, 0.0
        self.fresh |= mask

    def step(
        self, sensors: Sensors, command: np.ndarray, heights: np.ndarray, phase: np.ndarray | None = None,
        preview: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """One control step.

        Args:
          sensors: readings, `[worlds, ...]`.
          command: `[worlds, 3]`, m/s, m/s, rad/s.
          heights: `[worlds, layout.height_size]` from `heights_at`.
          phase: of the clock in this step, `[worlds]` cycles, where another policy turns it.
          preview: what is asked for next, `[worlds, moments, 3]` (`sim.observation.Preview`); None: the command lasts.

        Returns:
          Joint targets, rad, `[worlds, J]`.

        Raises:
          InputError: something is not finite; the memory is then unchanged.
        """
        told = [("command", command), ("heights", heights), *([] if preview is None else [("preview", preview)])]
        for name, values in [*sensors._asdict().items(), *told]:
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
        begun = ~self.fresh
        self.fresh[:] = False
        observation = obs.observe(np, self.bundle.layout, self.history, command, clock, heights, preview)
        action = np.clip(self.bundle(observation), -robot.action_limit, robot.action_limit)
        if gait.driven:
            action, self.drive = action[:, : robot.joints], action[:, robot.joints]
        self.last_action = action
        uneven = gait.lift_per_relief != 0.0
        steps = obs.relief(np, self.bundle.layout, heights) if uneven else np.zeros(self.worlds, np.float32)
        self._asked = command, board
        wanted = obs.joint_targets(np, robot, gait, action, self.phase, command, steps)
        self.targets = obs.near(np, wanted, self.targets, self._target_step, begun)
        if self._target_step is not None and (cut := (self.targets != wanted).any(-1)).any():
            asked = obs.action_for(np, robot, gait, self.targets, self.phase, command, steps)
            self.last_action = np.where(cut[:, None], asked, action)
        return self.targets

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
