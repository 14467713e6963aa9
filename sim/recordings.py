"""MCAP files: written so that a kill loses at most what is in one chunk, read up to the last chunk that is whole.

While something is recorded each chunk is written at once, without an index, whose memory would grow with the recording.
`finish` then puts many of them together, packed and with an index, which makes a file that any tool opens at once. A
file that was cut off is whole up to its last chunk; every chunk has a checksum, and what does not fit it is refused.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from mcap.data_stream import ReadDataStream, RecordBuilder
from mcap.opcode import Opcode
from mcap.records import Channel, Chunk, Header, Message, Schema
from mcap.stream_reader import breakup_chunk
from mcap.writer import MCAP0_MAGIC as MAGIC
from mcap.writer import Writer

from sim.errors import InputError
from sim.folders import replacing
from sim.messages import definition
from sim.reading import check_file

LARGEST = 1 << 30
"""No recording is larger, bytes: 4 hours of a control loop at 60 kB/s, 10 hours of one that was finished."""
LONGEST = 1 << 25
"""No record and no chunk, packed or not, is longer, bytes."""
UNPACKED = 1 << 32
"""All chunks of a file together are not longer, bytes."""
LARGEST_VALUE = 1e9
"""No joint, speed, place or command in a recording is as large; their squares are numbers in float32 too."""
PROFILE, LIBRARY = "ros2", "barkour"
SETTINGS, HEIGHTS, STATUS = "/recording", "/height_grid", "/diagnostics"
"""Topics of a control loop's recording: what it was begun with (JSON), measured heights of the ground, its state."""
JOINTS, IMU, ODOMETRY, COMMAND, SKILL = "/joint_states", "/imu/data", "/odom", "/cmd_vel", "/skill"
"""What it was told; `TARGETS` is what it asked of the drives."""
TARGETS = "/joint_commands"
KNOWN = frozenset(Opcode)
CHUNK_HEAD = 40
"""Bytes of a chunk before the name of its compression and its data, the lengths of both included."""


class Digest(Protocol):
    """As `hashlib` has them."""

    def update(self, data: bytes, /) -> None:
        """Takes more bytes."""
        ...


@dataclass(frozen=True)
class Topic:
    """One channel of a recording: ROS 2 messages of one kind."""

    name: str
    """As ROS 2 names it, with its slash."""
    kind: str
    """Such as `sensor_msgs/JointState`."""
    fields: str = ""
    """Of a kind that is not among `sim.messages.DEFINITIONS`."""

    @property
    def schema(self) -> str:
        """The kind's name as ROS 2 writes it: `sensor_msgs/msg/JointState`."""
        return self.kind.replace("/", "/msg/")


class ChunkWriter:
    """Writes messages chunk by chunk; `flush` ends a chunk, which is written in one piece."""

    def __init__(self, write: Callable[[bytes], object], topics: Sequence[Topic]) -> None:
        """`write` appends bytes to the file, all of them or none that count."""
        self._write, self._builder = write, RecordBuilder()
        self._channel = {topic.name: index + 1 for index, topic in enumerate(topics)}
        self._times: list[int] = []
        head = RecordBuilder()
        Header(profile=PROFILE, library=LIBRARY).write(head)
        write(MAGIC + head.end())
        for index, topic in enumerate(topics, 1):
            text = definition(topic.kind, topic.fields).encode()
            Schema(id=index, data=text, encoding="ros2msg", name=topic.schema).write(self._builder)
            channel = Channel(id=index, topic=topic.name, message_encoding="cdr", metadata={}, schema_id=index)
            channel.write(self._builder)

    def add(self, topic: str, time: int, data: bytes, sequence: int = 0) -> None:
        """A message at a time (ns) in the chunk that is begun."""
        time = max(time, 0)
        self._times.append(time)
        channel = self._channel[topic]
        Message(
            channel_id=channel, log_time=time, data=data, publish_time=time, sequence=sequence
        ).write(self._builder)  # fmt: skip

    def flush(self) -> None:
        """Ends the chunk and writes it."""
        data, times = self._builder.end(), self._times or [0]
        chunk = Chunk(
            compression="", data=data, message_start_time=min(times), message_end_time=max(times),
            uncompressed_crc=zlib.crc32(data), uncompressed_size=len(data),
        )  # fmt: skip
        self._times = []
        chunk.write(self._builder)
        self._write(self._builder.end())


class Reader:
    """The messages of a file in the order in which they were written, up to where it was cut off."""

    def __init__(self, path: Path, digest: Digest | None = None) -> None:
        """`digest` is given every byte of the file while its messages are read, and has all of them once those are.

        Raises:
          InputError: a path is no MCAP file or too large.
        """
        self.path, self._digest = Path(path), digest
        check_file(self.path, LARGEST)
        self.lost = 0
        """Once all is read: bytes at the end that are no whole chunk."""
        self.closed = False
        """Once all is read: whether the recording was ended properly."""
        self.schemas: dict[int, Schema] = {}
        self.channels: dict[int, Channel] = {}
        try:
            with self.path.open("rb") as file:
                if file.read(len(MAGIC)) != MAGIC:
                    raise InputError(f"{self.path} is no MCAP recording")
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error

    def __iter__(self) -> Iterator[tuple[Channel, Message]]:
        """Channel and message, one by one.

        Raises:
          InputError: the file is damaged.
        """
        try:
            with self.path.open("rb") as file:
                read = file if self._digest is None else _Told(file, self._digest)
                yield from self._messages(read, os.fstat(file.fileno()).st_size)
                while self._digest is not None and read.read(LONGEST):
                    pass  # what follows the messages
        except OSError as error:
            raise InputError(f"cannot read {self.path}: {error.strerror}") from error

    def _messages(self, file: "_Reads", size: int) -> Iterator[tuple[Channel, Message]]:
        unpacked = 0
        for body in self._chunks(file, size):
            try:
                chunk = Chunk.read(ReadDataStream(io.BytesIO(body)))
                plain = _unpacked(chunk)
                records = breakup_chunk(plain, validate_crc=True)
            except Exception as error:  # whatever a damaged file makes of the libraries that read it
                raise self._damaged(str(error) or type(error).__name__) from error
            unpacked += len(plain.data)
            if unpacked > UNPACKED:
                raise InputError(f"{self.path} holds more than {UNPACKED} bytes of messages")
            for record in records:
                if isinstance(record, Schema):
                    self.schemas[record.id] = record
                elif isinstance(record, Channel):
                    self.channels[record.id] = record
                elif isinstance(record, Message):
                    if record.channel_id not in self.channels:
                        raise self._damaged("a message of no channel")
                    yield self.channels[record.channel_id], record

    def _chunks(self, file: "_Reads", size: int) -> Iterator[bytes]:
        """The bodies of all whole chunks."""
        place, checksum = len(MAGIC), zlib.crc32(file.read(len(MAGIC)))
        while True:
            head = file.read(9)
            opcode, length = struct.unpack("<BQ", head) if len(head) == 9 else (0, 0)
            if len(head) < 9 or not any(head) or place + 9 + length > size:
                self._cut(file, place, head)
                return
            if opcode not in KNOWN or length > LONGEST:
                raise self._damaged(f"a record of kind {opcode} and {length} bytes at byte {place}")
            body = file.read(length)
            if opcode == Opcode.DATA_END:
                self._check_end(file, body, checksum)
                return
            if opcode == Opcode.CHUNK:
                yield body
            checksum = zlib.crc32(body, zlib.crc32(head, checksum))
            place += 9 + length

    def _cut(self, file: "_Reads", place: int, head: bytes) -> None:
        """The file ends in the record at `place`, or in nothing but zeros, as after a loss of power."""
        rest = head + file.read(LONGEST + 1)
        self.lost = len(rest)
        if not any(rest):
            return
        said = "the length of its last record is not the record's" if self.lost <= LONGEST else "no record ends it"
        if rest[0] not in KNOWN or self.lost > LONGEST:
            raise self._damaged(f"no record begins at byte {place}")
        if rest[0] == Opcode.CHUNK and len(rest) >= 9 + CHUNK_HEAD:
            (length,) = struct.unpack_from("<Q", rest, 1)
            (name,) = struct.unpack_from("<I", rest, 9 + 28)
            inside = rest[9 + 32 + name : 9 + CHUNK_HEAD + name]
            if length > LONGEST or (len(inside) == 8 and CHUNK_HEAD + name + struct.unpack("<Q", inside)[0] != length):
                raise self._damaged(said)

    def _check_end(self, file: "_Reads", body: bytes, checksum: int) -> None:
        """The file was ended: index and checksums must be whole as well, if they are there."""
        told = struct.unpack("<I", body)[0] if len(body) == 4 else None
        if told is None or told not in (0, checksum):
            raise self._damaged("its checksum is another")
        rest = file.read(LARGEST)
        footer = struct.pack("<BQ", Opcode.FOOTER, 20)
        if rest[-len(MAGIC) :] != MAGIC or rest[-37:-28] != footer:
            self.lost = len(rest)  # of the index alone: every message is there
            return
        (crc,) = struct.unpack("<I", rest[-12:-8])
        if crc and zlib.crc32(rest[:-12]) != crc:
            raise self._damaged("the checksum of its index is another")
        self.closed = True

    def _damaged(self, reason: str) -> InputError:
        return InputError(f"{self.path} is damaged: {' '.join(reason.split())[:120]}")


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Told:
    """A file of which everything that is read is told to a digest."""

    def __init__(self, file: _Reads, digest: Digest) -> None:
        self._file, self._digest = file, digest

    def read(self, size: int, /) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data


def _unpacked(chunk: Chunk) -> Chunk:
    """A chunk without compression; never longer than it says."""
    size = chunk.uncompressed_size
    if size > LONGEST:
        raise ValueError(f"a chunk of {size} bytes")
    if chunk.compression == "zstd":
        import zstandard

        data = zstandard.ZstdDecompressor().stream_reader(chunk.data).read(size + 1)
    elif chunk.compression == "lz4":
        import lz4.frame

        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, size + 1)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise ValueError(f"unknown compression {chunk.compression!r}")
    if len(data) != size:
        raise ValueError(f"a chunk of {len(data)} bytes, not {size}")
    chunk.data, chunk.compression = data, ""
    return chunk


def finish(path: Path, to: Path | None = None) -> None:
    """Writes what can be read of a recording packed and with an index, in place of the file or to a new one.

    Raises:
      InputError: the file cannot be read or written; it is left as it was.
    """
    path, target = Path(path), Path(to or path)
    try:
        with replacing(target) as made, made.open("wb") as file:
            copy(Reader(path), file)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror}") from error


def copy(reader: Reader, stream: IO[Any]) -> None:
    """Writes the messages of a recording to a stream, packed and with an index."""
    writer = Writer(stream, enable_data_crcs=True)
    writer.start(profile=PROFILE, library=LIBRARY)
    known: dict[int, int] = {}
    for channel, message in reader:
        if channel.id not in known:
            known[channel.id] = _register(writer, channel, reader.schemas.get(channel.schema_id))
        writer.add_message(
            known[channel.id], message.log_time, message.data, message.publish_time, message.sequence
        )  # fmt: skip
    writer.finish()


def _register(writer: Writer, channel: Channel, schema: Schema | None) -> int:
    kind = 0 if schema is None else writer.register_schema(schema.name, schema.encoding, schema.data)
    return writer.register_channel(channel.topic, channel.message_encoding, kind, channel.metadata)
