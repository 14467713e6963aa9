"""Recordings of versions up to 0.1, read to be converted; and whatever was cut off, made whole.

A file of theirs is `MAGIC`, then blocks: kind (1 byte), length (4 bytes), payload, CRC-32 of all three (4 bytes),
little-endian. The first block is the header (JSON), `S` blocks are control steps, `G` blocks a measured height grid
that holds from the next step on. What follows the last whole block was cut off.
"""

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any, cast

import numpy as np

from robot.loop.recording import OLD_MAGIC as MAGIC
from robot.loop.recording import Recording, check_steps, read, step_type, taken, write
from robot.loop.transport import Array
from robot.options import ConvertOptions
from robot.results import Converted
from sim.errors import InputError
from sim.reading import check_file, unique
from sim.recordings import LARGEST, LONGEST, finish
from sim.results import printable

OLD = (
    "now", "late", "took", "requests", "state", "mode", "skill", "position", "velocity", "effort", "joints_time",
    "joints_stamp", "orientation", "angular_velocity", "imu_time", "pose", "pose_time", "command", "command_time",
    "heights_time", "targets",
)  # fmt: skip
"""Their fields, in order."""


def convert(options: ConvertOptions) -> Converted:
    """Writes a recording as a whole MCAP file with an index: one of an earlier version, or one that was cut off.

    Raises:
      InputError: no recording, or the new file exists or cannot be written.
    """
    path, to = options.recording, options.to
    if to.exists():
        raise taken(to)
    if is_old(path):
        found = read_old(path)
        write(to, found.header, found.steps, found.grids)
    else:
        found = read(path)
        finish(path, to)
    if found.cut:
        print(printable(found.cut), file=sys.stderr)
    return Converted(recording=str(to), steps=len(found.steps), lost_bytes=found.lost)


def is_old(path: Path) -> bool:
    """Whether a file is a recording of an earlier version; raises `InputError` where it cannot be read."""
    check_file(path, LARGEST)
    try:
        with Path(path).open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def packed_type(joints: int) -> np.dtype:
    """A step of `step_type` as these files hold it: without gaps."""
    kind = step_type(joints)
    return np.dtype([(name, kind[name]) for name in OLD])


def packed_type_of(size: int) -> np.dtype | None:
    """The `packed_type` that has `size` bytes; None where there is none."""
    fixed = packed_type(0).itemsize
    joints, left = divmod(size - fixed, packed_type(1).itemsize - fixed)
    return packed_type(joints) if joints > 1 and not left else None


def read_old(path: Path) -> Recording:
    """Reads a recording of an earlier version up to its last whole block.

    Raises:
      InputError: not readable, damaged, a header or step that cannot be, or no step at all.
    """
    path = Path(path)
    check_file(path, LARGEST)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    place = len(MAGIC)
    header: dict[str, Any] | None = None
    rows: list[bytes] = []
    grids: dict[int, Array] = {}
    packed: np.dtype | None = None
    while (found := _block(data, place)) is not None:
        kind, payload, place = found
        if header is None:
            header = _header(path, kind, payload)
        elif kind == b"S":
            packed = packed or packed_type_of(len(payload))
            if packed is None or len(payload) != packed.itemsize:
                raise InputError(f"{path}: step {len(rows)} has {len(payload)} bytes, which no step of its robot has")
            rows.append(payload)
        elif kind == b"G":
            grids[len(rows)] = _grid(path, payload)
        else:
            raise InputError(f"{path}: a block of unknown kind {kind!r} after {len(rows)} steps")
    if header is None or not rows or packed is None:
        raise InputError(f"{path} holds no whole control step")
    lost = len(data) - place
    if not _torn(data[place:], packed.itemsize):
        raise InputError(f"{path} is damaged after {len(rows)} steps, at byte {place}")
    cut = f"{path} was cut off: {len(rows)} control steps are whole, {lost} bytes at its end are lost" if lost else ""
    were = np.frombuffer(b"".join(rows), packed)
    steps = np.zeros(len(rows), step_type(were["position"].shape[1]))
    for name in OLD:
        steps[name] = were[name]
    check_steps(path, steps)
    return Recording(path, header, steps, grids, lost, cut)


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


def _torn(rest: bytes, size: int) -> bool:
    """Whether what follows the last whole block may be one that was being written: the beginning of a step of `size`
    bytes or of a grid, or zeros, as after a loss of power. Anything else was changed."""
    if not any(rest):
        return True
    kind, length = rest[:1], rest[1:5]
    if kind == b"S":
        expected = size
    elif kind == b"G" and len(rest) >= 13:
        rows, columns = struct.unpack_from("<II", rest, 5)
        expected = 8 + 4 * rows * columns
    else:
        return kind == b"G"
    return struct.pack("<I", expected).startswith(length) and len(rest) < 9 + expected if expected <= LONGEST else False


def _header(path: Path, kind: bytes, payload: bytes) -> dict[str, Any]:
    try:
        header: object = json.loads(payload, object_pairs_hook=unique) if kind == b"H" else None
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{path} has no header")
    return cast(dict[str, Any], header)


def _grid(path: Path, payload: bytes) -> Array:
    if len(payload) < 8:
        raise InputError(f"{path}: a height grid is cut short")
    rows, columns = struct.unpack_from("<II", payload)
    if 4 * rows * columns != len(payload) - 8:
        raise InputError(f"{path}: a height grid of {rows} x {columns} has {len(payload) - 8} bytes")
    return np.frombuffer(payload, "<f4", offset=8).reshape(rows, columns).copy()
