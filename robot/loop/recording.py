"""What the control loop saw and did, step by step: an MCAP file that replays exactly and that the field's tools open.

Beside messages as ROS 2 knows them there is one channel with the loop's own steps (`STEPS`), bit by bit, and one with
its settings (`SETTINGS`). Every control step is a chunk that is written at once: a kill loses the step that was being
written and no other. Nothing in a file is executed or unpickled.
"""

import errno
import io
import json
import math
import os
import queue
import re
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from robot.loop.transport import IMPLAUSIBLE_DAMPS, NEVER, Array, Mode, Output, Snapshot, State
from sim import messages
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.folders import writable
from sim.reading import check_file, unique
from sim.recordings import (
    COMMAND,
    HEIGHTS,
    IMU,
    JOINTS,
    LARGEST,
    LARGEST_VALUE,
    ODOMETRY,
    SETTINGS,
    SKILL,
    STATUS,
    TARGETS,
    ChunkWriter,
    Reader,
    Topic,
    finish,
)

OLD_MAGIC = b"BARKOUR-LOOP-1\n"
"""The first bytes of recordings of versions up to 0.1; see `robot.loop.old_recording`."""
SECOND_STOPS, SECOND_DAMPS = "second sender: stop", "second sender: damp"
"""What a transport asks for where somebody else sends commands or poses, or readings or joint commands, as well."""
REQUESTS = ("arm", "disarm", "stop", SECOND_STOPS, SECOND_DAMPS, IMPLAUSIBLE_DAMPS)
MOST_JOINTS, MOST_STEPS = 1000, 1 << 21
"""No robot has more joints, no recording more steps: 11 hours."""
STEPS = "/control_loop"
"""The channel of the loop's own steps."""
ARRIVED = {JOINTS: "joints_time", IMU: "imu_time", ODOMETRY: "pose_time", COMMAND: "command_time"}
"""Topic -> the field that says when its newest message came."""
LEVELS = {State.SOFT_STOP: 1, State.EMERGENCY: 2}
"""State -> level of its diagnosis; 0 for the others."""


def step_type(joints: int) -> np.dtype:
    """One control step of a robot with so many joints: what was known, who asked for what, and what came out.

    The fields lie as CDR lays them, so that a step's bytes are the message on `STEPS`.
    """
    return np.dtype(
        [
            ("now", "<i8"), ("late", "<f4"), ("took", "<f4"), ("requests", "u1", 4), ("state", "u1"), ("mode", "u1"),
            ("skill", "u1"), ("position", "<f8", joints), ("velocity", "<f8", joints), ("effort", "<f4", joints),
            ("joints_time", "<i8"), ("joints_stamp", "<i8"), ("orientation", "<f8", 4), ("angular_velocity", "<f8", 3),
            ("imu_time", "<i8"),
            ("pose", "<f8", 4), ("pose_time", "<i8"), ("command", "<f8", 3), ("command_time", "<i8"),
            ("heights_time", "<i8"), ("targets", "<f4", joints),
        ],
        align=True,
    )  # fmt: skip


def step_fields(joints: int) -> str:
    """`step_type` as ROS 2 defines a message."""
    kinds = {"i8": "int64", "f4": "float32", "f8": "float64", "u1": "uint8"}
    lines: list[str] = []
    kind = step_type(joints)
    for name in kind.names or ():
        one = kind[name]
        count = f"[{one.shape[0]}]" if one.shape else ""
        lines.append(f"{kinds[one.base.str[1:]]}{count} {name}")
    return "\n".join(lines)


SEEN = (
    "position", "velocity", "joints_time", "joints_stamp", "orientation", "angular_velocity", "imu_time", "pose",
    "pose_time", "command", "command_time", "heights_time", "skill", "effort",
)  # fmt: skip


def step_row(
    now: int, late: float, took: float, requests: list[str], snapshot: Snapshot, state: State, output: Output
) -> Array:
    """One step, `[]`; see `step_type`."""
    row = np.zeros((), step_type(len(snapshot.position)))
    row["now"], row["late"], row["took"] = now, late, took
    row["requests"][: len(requests)] = [REQUESTS.index(kind) + 1 for kind in requests[:4]]
    row["state"], row["mode"], row["targets"] = state, output.mode, output.targets
    for name in SEEN:
        row[name] = getattr(snapshot, name)
    return row


def snapshot_of(row: Array, heights: Array | None) -> Snapshot:
    """The snapshot that a step saw."""
    kept: dict[str, Any] = {name: np.array(row[name], float) if row[name].shape else int(row[name]) for name in SEEN}
    return Snapshot(**kept, heights=heights)


# --- writing ----------------------------------------------------------------------------------------------------------


def topics(joints: int) -> tuple[Topic, ...]:
    """The channels of a recording."""
    return (
        Topic(SETTINGS, "std_msgs/String"), Topic(STEPS, "barkour/ControlStep", step_fields(joints)),
        Topic(HEIGHTS, "sensor_msgs/Image"), Topic(JOINTS, "sensor_msgs/JointState"), Topic(IMU, "sensor_msgs/Imu"),
        Topic(ODOMETRY, "nav_msgs/Odometry"), Topic(COMMAND, "geometry_msgs/TwistStamped"),
        Topic(SKILL, "std_msgs/String"), Topic(TARGETS, "trajectory_msgs/JointTrajectory"),
        Topic(STATUS, "diagnostic_msgs/DiagnosticArray"),
    )  # fmt: skip


class Steps:
    """Writes control steps with the messages that they came from, one chunk a step."""

    def __init__(self, write: Callable[[bytes], object], header: dict[str, Any], joints: int, epoch: int = 0) -> None:
        """`epoch` is added to the loop's times to make the file's, ns."""
        self._chunks, self._epoch, self._robot = ChunkWriter(write, topics(joints)), epoch, str(header.get("robot", ""))
        named = header.get("joints", ())
        self._names = list(named) if len(named) == joints else [f"joint_{k}" for k in range(joints)]
        self._header: str | None = json.dumps(header)
        self._count = 0
        self._times = dict.fromkeys(ARRIVED, NEVER)
        self._skill: int | None = None
        self._said = ("", "")

    def write(self, row: Array, grid: Array | None, said: tuple[str, str] = ("", "")) -> None:
        """One step, with the height grid that is new in it, and the state's code and reason."""
        add, now = self._chunks.add, int(row["now"]) + self._epoch
        if self._header is not None:
            add(SETTINGS, now, messages.text(self._header))
            self._header = None
        if grid is not None:
            add(HEIGHTS, now, messages.image(now, grid))
        self._sensors(row)
        if row["skill"] != self._skill:
            self._skill = int(row["skill"])
            known = self._skill < len(SKILLS)
            add(SKILL, now, messages.text(SKILLS[self._skill] if known else str(self._skill)))
        if row["mode"] != Mode.NOTHING:
            due = None if row["mode"] == Mode.DAMP else row["targets"]
            add(TARGETS, now, messages.joint_targets(int(row["joints_stamp"]), self._names, due, 0))
        state = State(int(row["state"]))
        if (state.name, said) != self._said:
            self._said = (state.name, said)
            code, reason = said
            pairs = [("state", state.name.lower()), ("code", code)]
            text = f"{state.name.lower().replace('_', ' ')}: {reason}"
            level = LEVELS.get(state, 0)
            add(STATUS, now, messages.diagnostics(now, level, "barkour: control loop", text, self._robot, pairs))
        add(STEPS, now, b"\x00\x01\x00\x00" + row.tobytes(), self._count)
        self._count += 1
        self._chunks.flush()

    def _sensors(self, row: Array) -> None:
        """What came in since the step before. A pose has a heading alone, and no speed is known with it."""
        for topic, field in ARRIVED.items():
            when = int(row[field])
            if when == self._times[topic]:
                continue
            self._times[topic] = when
            stamp = when + self._epoch
            if topic == JOINTS:
                values = (row["position"], row["velocity"], row["effort"])
                data = messages.joint_state(int(row["joints_stamp"]), self._names, *values)
            elif topic == IMU:
                data = messages.imu(stamp, row["orientation"], row["angular_velocity"])
            elif topic == ODOMETRY:
                *place, heading = row["pose"].tolist()
                turned = (math.cos(heading / 2), 0.0, 0.0, math.sin(heading / 2))
                data = messages.odometry(stamp, place, turned, np.full(3, np.nan), row["angular_velocity"])
            else:
                data = messages.velocity_command(stamp, row["command"])
            self._chunks.add(topic, stamp, data)


class Recorder:
    """Writes a recording in a thread of its own, so that a slow disk never holds the loop up.

    A disk that is full or gone ends the recording, not the run: `problem` says so.
    """

    QUEUE = 3000
    """Steps that may wait for the disk: a minute."""
    PATIENCE = 20.0
    """So long `close` waits for the disk, and as long again for each half hour that was recorded, s."""

    def __init__(
        self, path: Path, header: dict[str, Any], opened: Callable[[Path], Any] | None = None, epoch: int = 0
    ) -> None:
        """A new file is made, an existing one is refused.

        Args:
          header: JSON-ready; `joints` are the names of joints in messages, `robot` the robot's.
          opened: opens the file for appending in binary, unbuffered; a file that it opens is not packed in the end.
          epoch: what makes times of the loop's clock times since 1970, ns.

        Raises:
          InputError: the file exists or cannot be made.
        """
        self.path, self.problem = Path(path), ""
        self.steps = 0
        self.written = 0
        """Steps that a kill cannot take back."""
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot record to {path}: {error.strerror}") from error
        try:
            self._file = (opened or _new)(self.path)
        except FileExistsError as error:
            raise taken(path) from error
        except OSError as error:
            raise InputError(f"cannot record to {path}: {error.strerror}") from error
        self._header, self._epoch, self._packs = header, epoch, opened is None
        self._grid_time: int | None = None
        self._queue: queue.Queue[tuple[Array, Array | None, tuple[str, str]] | None] = queue.Queue(self.QUEUE)
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)
        self._thread.start()

    def step(self, row: Array, snapshot: Snapshot, said: tuple[str, str] = ("", "")) -> None:
        """Puts one control step (and the height grid it saw, if that is new) in the queue; never waits. `said` is the
        state's code and reason."""
        if self.problem:
            return
        grid = None
        if snapshot.heights is not None and snapshot.heights_time != self._grid_time:
            self._grid_time, grid = snapshot.heights_time, snapshot.heights
        try:
            self._queue.put_nowait((row, grid, said))
            self.steps += 1
        except queue.Full:
            self.problem = f"recording to {self.path} ended: the disk does not keep up"

    def close(self) -> None:
        """Writes what waits, closes the file and packs it."""
        try:
            self._queue.put(None, timeout=5.0)
            self._thread.join(timeout=self.PATIENCE * (1 + self.steps / 90_000))
        except queue.Full:
            self.problem = self.problem or f"recording to {self.path} ended: the disk does not answer"

    def _work(self) -> None:
        steps: Steps | None = None
        while (item := self._queue.get()) is not None:
            if self.problem:
                continue
            row, grid, said = item
            try:
                if steps is None:
                    steps = Steps(
                        lambda data: _append(self._file, data), self._header, len(row["position"]), self._epoch
                    )
                steps.write(row, grid, said)
                self.written += 1
            except OSError as error:
                self.problem = f"recording to {self.path} ended: {error.strerror}"
            except Exception as error:  # a recording that fails stops no robot
                self.problem = f"recording to {self.path} ended: {type(error).__name__}: {error}"
        self._file.close()
        if self._packs and self.written:
            try:
                finish(self.path)
            except InputError as error:
                self.problem = self.problem or str(error)


def _append(file: Any, data: bytes) -> None:
    """Writes to a raw file, which may take a part only: its disk is full."""
    written = file.write(data)
    if written is not None and written < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def taken(path: str | Path) -> InputError:
    """The refusal of a place where something is."""
    return InputError(f"{path} exists: a recording never overwrites another")


def check_new(path: str | Path | None) -> None:
    """Before any work: that a recording can be made there; nothing where there is no path.

    Raises:
      InputError: something is there already, or nothing can be written beside it.
    """
    if not path:
        return
    if os.path.lexists(path):
        raise taken(path)
    writable(Path(path).parent)


def _new(path: Path) -> io.FileIO:
    return io.FileIO(path, "x")


def write(path: Path, header: dict[str, Any], steps: Array, grids: dict[int, Array]) -> None:
    """A recording of steps `[N]` that are known already; grids by the index of the step from which on they hold.

    Raises:
      InputError: the file exists or cannot be written.
    """
    path = Path(path)
    try:
        with _new(path) as file:
            writer = Steps(lambda data: _append(file, data), header, len(steps[0]["position"]))
            for index, row in enumerate(steps):
                writer.write(row, grids.get(index))
    except FileExistsError as error:
        raise taken(path) from error
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
    finish(path)


# --- reading ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording that was read."""

    path: Path
    header: dict[str, Any]
    steps: Array
    """Steps `[N]`; see `step_type`."""
    grids: dict[int, Array]
    """Height grids by the index of the step from which on they hold."""
    lost: int
    """Bytes at the end that are no whole chunk: the step in which the recording was cut off."""
    cut: str = ""
    """A sentence where the recording was cut off."""

    def grid_at(self, index: int) -> Array | None:
        """The height grid that step `index` saw."""
        before = bisect_right(self._grid_steps, index)
        return self.grids[self._grid_steps[before - 1]] if before else None

    @cached_property
    def _grid_steps(self) -> list[int]:
        return sorted(self.grids)


def read(path: Path) -> Recording:
    """Reads a recording up to its last whole chunk.

    Raises:
      InputError: not readable, damaged, no recording of the control loop, a header or step that cannot be, or no step.
    """
    path = Path(path)
    try:
        reader = Reader(path)
    except InputError as error:
        raise _older(path) or error from error
    header: dict[str, Any] | None = None
    rows: list[bytes] = []
    grids: dict[int, Array] = {}
    kind: np.dtype | None = None
    for channel, message in reader:
        if channel.topic == SETTINGS and header is None:
            header = _header(path, message.data)
        elif channel.topic == STEPS:
            if kind is None:
                schema = reader.schemas.get(channel.schema_id)
                kind = _kind(path, b"" if schema is None else schema.data)
            if message.sequence != len(rows):
                raise InputError(f"{path} is damaged: step {len(rows)} is missing")
            if len(message.data) != 4 + kind.itemsize:
                had = len(message.data) - 4
                raise InputError(f"{path}: step {len(rows)} has {had} bytes, {kind.itemsize} are needed")
            rows.append(message.data[4:])
            if len(rows) > MOST_STEPS:
                raise InputError(f"{path} holds more than {MOST_STEPS} control steps")
        elif channel.topic == HEIGHTS:
            grids[len(rows)] = _grid(path, message.data)
    if header is None or not rows or kind is None:
        raise InputError(f"{path} holds no whole control step")
    steps = np.frombuffer(bytearray().join(rows), kind)
    check_steps(path, steps)
    cut = ""
    if not reader.closed:
        cut = f"{path} was cut off: {len(rows)} control steps are whole, {reader.lost} bytes at its end are lost"
    return Recording(path, header, steps, grids, reader.lost, cut)


def _older(path: Path) -> InputError | None:
    """What is said of a recording of an earlier version."""
    try:
        check_file(path, LARGEST)
        with path.open("rb") as file:
            old = file.read(len(OLD_MAGIC)) == OLD_MAGIC
    except (OSError, InputError):
        return None
    said = f"{path} was recorded by an earlier version: barkour onboard convert {path} NEW.mcap makes it readable"
    return InputError(said) if old else None


def _header(path: Path, data: bytes) -> dict[str, Any]:
    try:
        header: object = json.loads(data[8:].rstrip(b"\0"), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path} has no header")
    return cast(dict[str, Any], header)


def _kind(path: Path, schema: bytes) -> np.dtype:
    """The form of the steps that a schema describes."""
    found = re.search(rb"^float64\[([1-9][0-9]{0,3})\] position$", schema, re.MULTILINE)
    joints = int(found.group(1)) if found else 0
    if not 0 < joints <= MOST_JOINTS or schema.decode(errors="replace").strip() != step_fields(joints):
        raise InputError(f"{path} holds control steps of another form than this version reads")
    return step_type(joints)


def check_steps(path: Path, steps: Array) -> None:
    """Raises `InputError` where one of the steps `[N]` holds what none can."""
    fits = (steps["state"] <= max(State)) & (steps["mode"] <= max(Mode))
    fits &= (np.abs(steps["late"]) < LARGEST_VALUE) & (np.abs(steps["took"]) < LARGEST_VALUE)
    fits &= (steps["requests"] <= len(REQUESTS)).all(axis=1)
    for name in ("position", "velocity", "orientation", "angular_velocity", "pose", "command"):
        fits &= (np.abs(steps[name]) < LARGEST_VALUE).all(axis=1)
    if not fits.all():
        raise InputError(f"{path}: step {int(np.argmin(fits))} holds values that no step can have")


GRID_HEAD = np.dtype(
    [
        ("stamp", "<u4", 2), ("frame_size", "<u4"), ("frame", "S8"), ("rows", "<u4"), ("columns", "<u4"),
        ("encoding_size", "<u4"), ("encoding", "S6"), ("bigendian", "u1"), ("gap", "u1"), ("step", "<u4"),
        ("size", "<u4"),
    ]
)  # fmt: skip
"""What `sim.messages.image` writes before the heights."""


def _grid(path: Path, data: bytes) -> Array:
    """The heights of a `sim.messages.image`."""
    head = np.frombuffer(data[4:52].ljust(GRID_HEAD.itemsize, b"\0"), GRID_HEAD)[0]
    rows, columns = int(head["rows"]), int(head["columns"])
    if head["frame"] != b"base" or head["encoding"] != b"32FC1" or 4 * rows * columns != len(data) - 52:
        raise InputError(f"{path}: a height grid of {rows} x {columns} has {len(data) - 52} bytes")
    return np.frombuffer(data, "<f4", offset=52).reshape(rows, columns).copy()
