"""The file around a policy: an ONNX model read as far as it must be known to be whole before anything runs it.

onnxruntime reads what a file points to and says nothing of it, and a robot has no `onnx` package. This walks the file's
protobuf messages (https://onnx.ai/onnx/api/classes.html#modelproto, wire format of protobuf) and builds nothing of it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from sim.errors import InputError

CHECKSUM = "barkour_sha256"
"""Property with the SHA-256 of the whole file, computed with zeros in this property's place."""
BLANK = b"0" * 64
FIELDS, DEPTH = 200_000, 24
"""A policy's file has fewer fields, and messages nested less deeply, than these."""
LOOPS = ("Loop", "Scan")
"""Operators that run other graphs as often as their inputs say."""

_MODEL = {7: "graph", 14: "property", 20: "training", 25: "function"}
_MESSAGES: dict[str, dict[int, str]] = {
    "model": _MODEL,
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
    "property": {},
}
"""Messages that are looked into, and which of their fields are messages in turn."""
_OPERATOR, _EXTERNAL, _LOCATION = 4, 13, 14


@dataclass
class Container:
    """What stands in a file."""

    content: bytes
    properties: dict[str, str] = field(default_factory=dict)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Where each property's value stands in `content`: first byte, and the one after the last."""
    operators: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, content: bytes) -> "Container":
        """Walks a model; `InputError` where it is none, is cut off, or is not whole by itself."""
        found = cls(content)
        found._walk("model", 0, len(content), [FIELDS], 0)
        return found

    def digest(self) -> str:
        """SHA-256 that belongs into `CHECKSUM`, which must be there."""
        first, last = self.places[CHECKSUM]
        if last - first != len(BLANK):
            raise InputError(f"its checksum has {last - first} characters, not {len(BLANK)}")
        return hashlib.sha256(self.content[:first] + BLANK + self.content[last:]).hexdigest()

    def check(self) -> None:
        """Raises `InputError` where the file is not what its checksum says."""
        if self.digest() != self.properties[CHECKSUM]:
            raise InputError("it is damaged: its checksum does not fit what stands in it")

    def _walk(self, kind: str, at: int, end: int, left: list[int], depth: int) -> None:
        if depth > DEPTH:
            raise InputError("its messages are nested too deeply")
        parts: dict[int, tuple[int, int]] = {}
        for number, wire, first, last in _fields(self.content, at, end, left):
            if kind == "tensor" and (
                number == _EXTERNAL or (number == _LOCATION and self.content[first:last] != b"\0")
            ):
                raise InputError("it keeps weights in another file: a bundle is one file")
            inner = _MESSAGES[kind].get(number)
            if inner == "training":
                raise InputError("it holds a training graph")
            if inner is not None:
                if wire != 2:
                    raise InputError("it is no ONNX model")
                self._walk(inner, first, last, left, depth + 1)
            elif kind == "node" and number == _OPERATOR:
                self.operators.add(_text(self.content[first:last]))
            parts[number] = first, last
        if kind == "property":
            self._property(parts)

    def _property(self, parts: dict[int, tuple[int, int]]) -> None:
        key = _text(self.content[slice(*parts.get(1, (0, 0)))])
        if key in self.properties:
            raise InputError(f"it has the property '{key}' twice")
        self.places[key] = parts.get(2, (0, 0))
        self.properties[key] = _text(self.content[slice(*self.places[key])])


def stamped(content: bytes) -> bytes:
    """A model with its checksum put in the place of the zeros that it has there."""
    found = Container.read(content)
    first, last = found.places[CHECKSUM]
    return content[:first] + found.digest().encode() + content[last:]


def _fields(content: bytes, at: int, end: int, left: list[int]) -> Iterator[tuple[int, int, int, int]]:
    """Number, wire type, first byte and end of each field of a message."""
    while at < end:
        left[0] -= 1
        if left[0] < 0:
            raise InputError(f"it has more than {FIELDS} fields")
        tag, at = _varint(content, at, end)
        wire = tag & 7
        if wire == 0:
            first = at
            _, at = _varint(content, at, end)
        elif wire in (1, 5):
            first, at = at, at + (8 if wire == 1 else 4)
        elif wire == 2:
            size, first = _varint(content, at, end)
            at = first + size
        else:
            raise InputError("it is no ONNX model")
        if at > end or not tag >> 3:
            raise InputError("it is cut off, or no ONNX model")
        yield tag >> 3, wire, first, at


def _varint(content: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
    raise InputError("it is cut off, or no ONNX model")


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("it is no ONNX model: a text in it is not UTF-8") from error
