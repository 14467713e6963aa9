"""Messages of fixed size as bytes: the fields that Unitree's low-level interface names, where DDS puts them on the
wire, and where its checksum counts them.

A field is known by its path, such as `imu_state.quaternion` or `motor_cmd.q` (one number a motor). DDS writes numbers
one after the other, each aligned to its own size (XCDR1, little endian). The checksum is taken over the message as a C
structure, which aligns and pads each nested structure as well, so the same numbers lie elsewhere.
"""

import functools
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import InputError

Array = npt.NDArray[Any]
ENCAPSULATION = bytes((0, 1, 0, 0))
"""XCDR1, little endian, no options."""
POLYNOMIAL_START = 0xFFFFFFFF
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
"""Bytes with their bits in reverse order."""


@dataclass(frozen=True)
class Field:
    """Numbers, or nested structures, of one name."""

    name: str
    kind: "str | Structure"
    """numpy's name of a number (`u1`, `i2`, `u4`, `f4`, ...), or a structure."""
    count: int | None = None
    """Of an array; None where there is only one."""


@dataclass(frozen=True)
class Structure:
    """A message or a part of one."""

    name: str
    """DDS's name of its type."""
    fields: tuple[Field, ...]

    @functools.cached_property
    def alignment(self) -> int:
        """Bytes to which a C structure of this kind is aligned: those of its largest number."""
        return max(
            f.kind.alignment if isinstance(f.kind, Structure) else np.dtype(f.kind).itemsize for f in self.fields
        )

    @functools.cached_property
    def wire(self) -> "Layout":
        """Where DDS puts it."""
        return _layout(self, padded=False)

    @functools.cached_property
    def memory(self) -> "Layout":
        """Where a C compiler puts it."""
        return _layout(self, padded=True)

    @functools.cached_property
    def checked(self) -> Array:
        """Of the bytes that the checksum counts, all of the C structure but the last four, in its order: their places
        on the wire; one past the end for padding, which is zero. The bytes of each word come last first."""
        source = np.full(self.memory.size, self.wire.size)
        for path, places in self.memory.places.items():
            size = np.dtype(self.wire.kinds[path]).itemsize
            for there, here in zip(places.tolist(), self.wire.places[path].tolist(), strict=True):
                source[there : there + size] = range(here, here + size)
        return source[:-4].reshape(-1, 4)[:, ::-1].ravel()


@dataclass(frozen=True)
class Layout:
    """Where the numbers of a structure lie."""

    size: int
    """Bytes."""
    places: dict[str, Array]
    """Path -> offset of each number, bytes `[n]`."""
    kinds: dict[str, str]
    """Path -> numpy's name of the number."""


def _layout(structure: Structure, padded: bool) -> Layout:
    places: dict[str, list[int]] = {}
    kinds: dict[str, str] = {}

    def put(part: Structure, prefix: str, at: int) -> int:
        if padded:
            at = _up(at, part.alignment)
        for entry in part.fields:
            for _ in range(entry.count or 1):
                if isinstance(entry.kind, Structure):
                    at = put(entry.kind, f"{prefix}{entry.name}.", at)
                else:
                    size = np.dtype(entry.kind).itemsize
                    at = _up(at, size)
                    places.setdefault(prefix + entry.name, []).append(at)
                    kinds[prefix + entry.name] = entry.kind
                    at += size
        return _up(at, part.alignment) if padded else at

    size = put(structure, "", 0)
    return Layout(size, {path: np.array(found) for path, found in places.items()}, kinds)


def _up(at: int, step: int) -> int:
    return -(-at // step) * step


class Packed:
    """A message as the bytes on the wire, whose fields are read and written by their paths."""

    def __init__(self, structure: Structure, data: bytes | None = None) -> None:
        """All zero without `data` (without its encapsulation).

        Raises:
          InputError: data of another size.
        """
        layout = structure.wire
        if data is not None and len(data) < layout.size:
            raise InputError(f"a message {structure.name} of {len(data)} bytes, {layout.size} are needed")
        self.structure, self.layout = structure, layout
        whole = _up(layout.size, 4)
        self.buffer = bytearray(whole if data is None else bytes(data[: layout.size]).ljust(whole, b"\0"))
        self._views: dict[str, Array] = {}

    def __getitem__(self, path: str) -> Array:
        """The numbers of a field `[n]`, a copy."""
        view, places = self._where(path)
        return view[places]

    def __setitem__(self, path: str, value: Any) -> None:
        """Writes one number to all of a field, or one to each."""
        view, places = self._where(path)
        view[places] = value

    def bytes(self) -> bytes:
        """As it goes over the wire, with its encapsulation."""
        return ENCAPSULATION + bytes(self.buffer[: self.layout.size])

    def checksum(self) -> int:
        """What its `crc` should be: CRC-32/MPEG-2 of the words of the C structure without `crc`, each from its highest
        bit on (unitree_sdk2, `crc.h`).

        zlib's CRC-32 is the same polynomial over reflected bits, with its result inverted.
        """
        counted = np.append(np.frombuffer(self.buffer, np.uint8)[: self.layout.size], np.uint8(0))
        words = counted[self.structure.checked].tobytes().translate(REVERSED)
        return int(f"{zlib.crc32(words) ^ POLYNOMIAL_START:032b}"[::-1], 2)

    @property
    def whole(self) -> bool:
        """Whether its `crc` is right."""
        return int(self["crc"][0]) == self.checksum()

    def seal(self) -> "Packed":
        """Writes its `crc`."""
        self["crc"] = self.checksum()
        return self

    def _where(self, path: str) -> tuple[Array, Array]:
        kind = self.layout.kinds[path]
        view = self._views.get(kind)
        if view is None:
            view = self._views[kind] = np.frombuffer(self.buffer, "<" + kind)
        return view, self.layout.places[path] // view.itemsize
