"""What the control loop saw and did, step by step: compact, only ever appended to, readable up to where a crash cut it.

A file is `MAGIC`, then blocks: kind (1 byte), length (4 bytes), payload, CRC-32 of all three (4 bytes), little-endian.
The first block is the header (JSON); `S` blocks are control steps of the fixed form `STEP`, `G` blocks a measured
height grid that holds from the next step on. Nothing in a file is executed or unpickled.
"""

import json
import math
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from robot.loop.transport import Array, Mode, Output, Snapshot, State
from sim.errors import InputError
from sim.reading import check_file

MAGIC = b"BARKOUR-LOOP-1\n"
LARGEST = 1 << 30
"""No recording is larger, bytes: 10 hours at 30 kB/s."""
SECOND_STOPS, SECOND_DAMPS = "second sender: stop", "second sender: damp"
"""What a transport asks for where somebody else sends commands or poses, or readings or joint commands, as well."""
REQUESTS = ("arm", "disarm", "stop", SECOND_STOPS, SECOND_DAMPS)


def step_type(joints: int) -> np.dtype:
    """One control step of a robot with so many joints: what was known, who asked for what, and what came out."""
    return np.dtype(
        [
            ("now", "<i8"), ("late", "<f4"), ("took", "<f4"), ("requests", "u1", 4), ("state", "u1"), ("mode", "u1"),
            ("skill", "u1"), ("position", "<f8", joints), ("velocity", "<f8", joints), ("effort", "<f4", joints),
            ("joints_time", "<i8"), ("joints_stamp", "<i8"), ("orientation", "<f8", 4), ("angular_velocity", "<f8", 3),
            ("imu_time", "<i8"),
            ("pose", "<f8", 4), ("pose_time", "<i8"), ("command", "<f8", 3), ("command_time", "<i8"),
            ("heights_time", "<i8"), ("targets", "<f4", joints),
        ]
    )  # fmt: skip


def step_type_of(size: int) -> np.dtype | None:
    """The `step_type` that has `size` bytes; None where there is none."""
    fixed = step_type(0).itemsize
    joints, left = divmod(size - fixed, step_type(1).itemsize - fixed)
    return step_type(joints) if joints > 0 and not left else None


SEEN = (
    "position", "velocity", "joints_time", "joints_stamp", "orientation", "angular_velocity", "imu_time", "pose",
    "pose_time", "command", "command_time", "heights_time", "skill", "effort",
)  # fmt: skip
LONGEST = 1 << 24
"""No block is longer, bytes."""


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


class Recorder:
    """Writes a recording in a thread of its own, so that a slow disk never holds the loop up.

    A disk that is full or gone ends the recording, not the run: `problem` says so.
    """

    QUEUE = 3000
    """Blocks that may wait for the disk: a minute."""

    def __init__(self, path: Path, header: dict[str, Any], opened: Callable[[Path], Any] | None = None) -> None:
        """`opened` opens the file for appending in binary; a new one is made, an existing one is refused.

        Raises:
          InputError: the file exists or cannot be made.
        """
        self.path, self.problem = Path(path), ""
        self.steps = 0
        try:
            if not self.path.parent.is_dir():
                self.path.parent.mkdir(parents=True)
        except OSError as error:
            raise InputError(f"cannot record to {path}: {error.strerror}") from error
        try:
            self._file = (opened or _new)(self.path)
            self._file.write(MAGIC + block(b"H", json.dumps(header).encode()))
        except FileExistsError as error:
            raise InputError(f"{path} exists: a recording never overwrites another") from error
        except OSError as error:
            raise InputError(f"cannot record to {path}: {error.strerror}") from error
        self._grid_time: int | None = None
        self._queue: queue.Queue[bytes | None] = queue.Queue(self.QUEUE)
        self._thread = threading.Thread(target=self._write, name="recorder", daemon=True)
        self._thread.start()

    def step(self, row: Array, snapshot: Snapshot) -> None:
        """Puts one control step (and the height grid it saw, if that is new) in the queue; never waits."""
        if self.problem:
            return
        data = b""
        if snapshot.heights is not None and snapshot.heights_time != self._grid_time:
            self._grid_time = snapshot.heights_time
            shape = struct.pack("<II", *snapshot.heights.shape)
            data = block(b"G", shape + np.ascontiguousarray(snapshot.heights, "<f4").tobytes())
        try:
            self._queue.put_nowait(data + block(b"S", row.tobytes()))
            self.steps += 1
        except queue.Full:
            self.problem = f"recording to {self.path} ended: the disk does not keep up"

    def close(self) -> None:
        """Writes what waits and closes the file."""
        try:
            self._queue.put(None, timeout=5.0)
            self._thread.join(timeout=10.0)
        except queue.Full:
            self.problem = self.problem or f"recording to {self.path} ended: the disk does not answer"
        if not self._thread.is_alive():
            self._file.close()

    def _write(self) -> None:
        while (data := self._queue.get()) is not None:
            if self.problem:
                continue
            try:
                written = self._file.write(data)
                if written is not None and written < len(data):
                    raise OSError(28, os.strerror(28))
            except OSError as error:
                self.problem = f"recording to {self.path} ended: {error.strerror}"


def _new(path: Path) -> Any:
    return open(path, "xb", buffering=0)  # noqa: SIM115 - kept open by the recorder


def block(kind: bytes, payload: bytes) -> bytes:
    """One block of a recording."""
    body = kind + struct.pack("<I", len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


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
    """Bytes at the end that are no whole block: the step in which the recording was cut off."""

    def grid_at(self, index: int) -> Array | None:
        """The height grid that step `index` saw."""
        known = [k for k in self.grids if k <= index]
        return self.grids[max(known)] if known else None


def read(path: Path) -> Recording:
    """Reads a recording up to its last whole block.

    Raises:
      InputError: not readable, no recording, a header or step that cannot be, or no step at all.
    """
    path = Path(path)
    check_file(path, LARGEST)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    if not data.startswith(MAGIC):
        raise InputError(f"{path} is no recording of the control loop")
    place = len(MAGIC)
    header: dict[str, Any] | None = None
    rows: list[Array] = []
    grids: dict[int, Array] = {}
    while (found := _block(data, place)) is not None:
        kind, payload, place = found
        if header is None:
            header = _header(path, kind, payload)
        elif kind == b"S":
            rows.append(_step(path, payload, len(rows), rows[0].dtype if rows else None))
        elif kind == b"G":
            grids[len(rows)] = _grid(path, payload)
        else:
            raise InputError(f"{path}: a block of unknown kind {kind!r} after {len(rows)} steps")
    if header is None or not rows:
        raise InputError(f"{path} holds no whole control step")
    return Recording(path, header, np.stack(rows), grids, len(data) - place)


def _block(data: bytes, place: int) -> tuple[bytes, bytes, int] | None:
    """Kind, payload and end of the block at `place`; None where none is whole."""
    if place + 9 > len(data):
        return None
    (length,) = struct.unpack_from("<I", data, place + 1)
    end = place + 5 + length
    if length > LONGEST or end + 4 > len(data):
        return None
    (crc,) = struct.unpack_from("<I", data, end)
    if zlib.crc32(data[place:end]) != crc:
        return None
    return data[place : place + 1], data[place + 5 : end], end + 4


def _header(path: Path, kind: bytes, payload: bytes) -> dict[str, Any]:
    try:
        header: object = json.loads(payload) if kind == b"H" else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path} has no header")
    return cast(dict[str, Any], header)


def _step(path: Path, payload: bytes, index: int, kind: np.dtype | None) -> Array:
    """One step, of the `kind` of those before it."""
    kind = kind or step_type_of(len(payload))
    if kind is None or len(payload) != kind.itemsize:
        wanted = "the size of no step" if kind is None else f"{kind.itemsize} are needed"
        raise InputError(f"{path}: step {index} has {len(payload)} bytes, {wanted}")
    row = np.frombuffer(payload, kind)[0].copy()
    known = row["state"] <= max(State) and row["mode"] <= max(Mode) and row["requests"].max() <= len(REQUESTS)
    numbers = [row[name] for name in ("position", "velocity", "orientation", "angular_velocity", "pose", "command")]
    if not known or not all(np.isfinite(values).all() for values in numbers) or not math.isfinite(row["took"]):
        raise InputError(f"{path}: step {index} holds values that no step can have")
    return row


def _grid(path: Path, payload: bytes) -> Array:
    if len(payload) < 8:
        raise InputError(f"{path}: a height grid is cut short")
    rows, columns = struct.unpack_from("<II", payload)
    if 4 * rows * columns != len(payload) - 8:
        raise InputError(f"{path}: a height grid of {rows} x {columns} has {len(payload) - 8} bytes")
    return np.frombuffer(payload, "<f4", offset=8).reshape(rows, columns).copy()
