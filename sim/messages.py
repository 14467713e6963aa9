"""ROS 2 messages as bytes, without ROS: what recordings hold, so that Foxglove, PlotJuggler and `ros2 bag` know it.

Each function returns one message as the Common Data Representation (CDR, little-endian) that ROS 2 itself writes. They
are written by hand because a control loop runs beside them: the general encoder of mcap-ros2-support takes 70 us of
the interpreter for one `JointState`, this one less than a third of it. Stamps are ns; vectors are
`[3]`, quaternions w, x, y, z `[4]`.
"""

import functools
import struct
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

NS = 1_000_000_000

SIZES = {"B": 1, "i": 4, "I": 4, "d": 8}
"""Form of a number, as `struct` names it -> bytes."""
DEFINITIONS = {
    "builtin_interfaces/Time": "int32 sec\nuint32 nanosec",
    "builtin_interfaces/Duration": "int32 sec\nuint32 nanosec",
    "std_msgs/Header": "builtin_interfaces/Time stamp\nstring frame_id",
    "std_msgs/String": "string data",
    "std_msgs/Float64": "float64 data",
    "std_msgs/ColorRGBA": "float32 r\nfloat32 g\nfloat32 b\nfloat32 a",
    "geometry_msgs/Point": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Vector3": "float64 x\nfloat64 y\nfloat64 z",
    "geometry_msgs/Quaternion": "float64 x\nfloat64 y\nfloat64 z\nfloat64 w",
    "geometry_msgs/Pose": "geometry_msgs/Point position\ngeometry_msgs/Quaternion orientation",
    "geometry_msgs/PoseWithCovariance": "geometry_msgs/Pose pose\nfloat64[36] covariance",
    "geometry_msgs/Twist": "geometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular",
    "geometry_msgs/TwistWithCovariance": "geometry_msgs/Twist twist\nfloat64[36] covariance",
    "geometry_msgs/PoseStamped": "std_msgs/Header header\ngeometry_msgs/Pose pose",
    "geometry_msgs/Wrench": "geometry_msgs/Vector3 force\ngeometry_msgs/Vector3 torque",
    "geometry_msgs/WrenchStamped": "std_msgs/Header header\ngeometry_msgs/Wrench wrench",
    "geometry_msgs/Transform": "geometry_msgs/Vector3 translation\ngeometry_msgs/Quaternion rotation",
    "geometry_msgs/TransformStamped": (
        "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/Transform transform"
    ),
    "geometry_msgs/TwistStamped": "std_msgs/Header header\ngeometry_msgs/Twist twist",
    "sensor_msgs/JointState": (
        "std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort"
    ),
    "sensor_msgs/Imu": (
        "std_msgs/Header header\ngeometry_msgs/Quaternion orientation\nfloat64[9] orientation_covariance\n"
        "geometry_msgs/Vector3 angular_velocity\nfloat64[9] angular_velocity_covariance\n"
        "geometry_msgs/Vector3 linear_acceleration\nfloat64[9] linear_acceleration_covariance"
    ),
    "sensor_msgs/Image": (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\n"
        "uint8[] data"
    ),
    "nav_msgs/Odometry": (
        "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/PoseWithCovariance pose\n"
        "geometry_msgs/TwistWithCovariance twist"
    ),
    "nav_msgs/Path": "std_msgs/Header header\ngeometry_msgs/PoseStamped[] poses",
    "sensor_msgs/CompressedImage": "std_msgs/Header header\nstring format\nuint8[] data",
    "tf2_msgs/TFMessage": "geometry_msgs/TransformStamped[] transforms",
    "visualization_msgs/UVCoordinate": "float32 u\nfloat32 v",
    "visualization_msgs/MeshFile": "string filename\nuint8[] data",
    "visualization_msgs/Marker": (
        "std_msgs/Header header\nstring ns\nint32 id\nint32 type\nint32 action\ngeometry_msgs/Pose pose\n"
        "geometry_msgs/Vector3 scale\nstd_msgs/ColorRGBA color\nbuiltin_interfaces/Duration lifetime\n"
        "bool frame_locked\ngeometry_msgs/Point[] points\nstd_msgs/ColorRGBA[] colors\nstring texture_resource\n"
        "sensor_msgs/CompressedImage texture\nvisualization_msgs/UVCoordinate[] uv_coordinates\nstring text\n"
        "string mesh_resource\nvisualization_msgs/MeshFile mesh_file\nbool mesh_use_embedded_materials"
    ),
    "visualization_msgs/MarkerArray": "visualization_msgs/Marker[] markers",
    "trajectory_msgs/JointTrajectoryPoint": (
        "float64[] positions\nfloat64[] velocities\nfloat64[] accelerations\nfloat64[] effort\n"
        "builtin_interfaces/Duration time_from_start"
    ),
    "trajectory_msgs/JointTrajectory": (
        "std_msgs/Header header\nstring[] joint_names\ntrajectory_msgs/JointTrajectoryPoint[] points"
    ),
    "diagnostic_msgs/KeyValue": "string key\nstring value",
    "diagnostic_msgs/DiagnosticStatus": (
        "byte level\nstring name\nstring message\nstring hardware_id\ndiagnostic_msgs/KeyValue[] values"
    ),
    "diagnostic_msgs/DiagnosticArray": "std_msgs/Header header\ndiagnostic_msgs/DiagnosticStatus[] status",
}
"""Message -> its fields, as ROS 2 Jazzy has them."""


def definition(name: str, fields: str = "") -> str:
    """The definition of a message with those of all that is in it: the text of a schema `ros2msg`.

    `fields` defines a message that is not among `DEFINITIONS`.
    """
    needed, parts = [name], list[str]()
    for kind in needed:
        text = fields if kind == name and fields else DEFINITIONS[kind]
        parts.append(text if kind == name else f"MSG: {kind}\n{text}")
        inside = [line.split()[0].partition("[")[0] for line in text.splitlines()]
        needed += [one for one in dict.fromkeys(inside) if "/" in one and one not in needed]
    return f"\n{'=' * 80}\n".join(parts) + "\n"


class Cdr:
    """A message that is written field by field."""

    def __init__(self) -> None:
        self._data = bytearray()

    def number(self, form: str, *values: Any) -> "Cdr":
        """Numbers of one `struct` form, such as `I`, each at a multiple of its size."""
        self._align(SIZES[form])
        self._data += struct.pack(f"<{len(values)}{form}", *values)
        return self

    def text(self, value: str) -> "Cdr":
        """A string; one that is no Unicode is written with what it can be shown by."""
        data = value.encode(errors="backslashreplace").replace(b"\0", b"?")
        self.number("I", len(data) + 1)
        self._data += data + b"\0"
        return self

    def texts(self, values: Sequence[str]) -> "Cdr":
        """A list of strings; of the same ones every time, so that their bytes are kept."""
        self._align(4)
        self._data += _texts(tuple(values))
        return self

    def array(self, values: Any, form: str = "<f8") -> "Cdr":
        """Numbers in a list of fixed length."""
        data = np.ascontiguousarray(values, form)
        if data.size:
            self._align(data.itemsize)
            self._data += data.tobytes()
        return self

    def list(self, values: Any, form: str = "<f8") -> "Cdr":
        """Numbers in a list of any length."""
        data = np.ascontiguousarray(values, form)
        return self.number("I", data.size).array(data, form)

    def time(self, stamp: int) -> "Cdr":
        """Seconds and nanoseconds; what a message cannot hold becomes the nearest that it can."""
        seconds, nanoseconds = divmod(stamp, NS)
        seconds = min(max(seconds, -(2**31)), 2**31 - 1)
        return self.number("i", seconds).number("I", nanoseconds)

    def header(self, stamp: int, frame: str) -> "Cdr":
        """std_msgs/Header."""
        return self.time(stamp).text(frame)

    def quaternion(self, value: Any) -> "Cdr":
        """`value` is w, x, y, z; ROS has x, y, z, w."""
        w, x, y, z = value
        return self.number("d", x, y, z, w)

    def zeros(self, count: int) -> "Cdr":
        """So many float64 of 0."""
        self._align(8)
        self._data += bytes(8 * count)
        return self

    def bytes(self) -> bytes:
        """The message."""
        return b"\x00\x01\x00\x00" + bytes(self._data)

    def _align(self, size: int) -> None:
        self._data += bytes(-len(self._data) % size)


@functools.lru_cache(64)
def _texts(values: tuple[str, ...]) -> bytes:
    """A list of strings from a multiple of 4 bytes on."""
    message = Cdr().number("I", len(values))
    for value in values:
        message.text(value)
    return message.bytes()[4:]


def text(value: str) -> bytes:
    """std_msgs/String."""
    return Cdr().text(value).bytes()


def joint_state(stamp: int, names: Sequence[str], position: Any, velocity: Any, effort: Any) -> bytes:
    """sensor_msgs/JointState: rad, rad/s, N m; `[J]` each."""
    message = Cdr().header(stamp, "").texts(names)
    return message.list(position).list(velocity).list(effort).bytes()


def imu(stamp: int, orientation: Any, angular_velocity: Any, acceleration: Any | None = None) -> bytes:
    """sensor_msgs/Imu in the frame `base`: attitude, gyro (rad/s) and, where there is one, accelerometer (m/s2)."""
    message = Cdr().header(stamp, "base").quaternion(orientation).zeros(9)
    message.array(angular_velocity).zeros(9)
    if acceleration is None:
        return message.zeros(3).number("d", -1.0).zeros(8).bytes()
    return message.array(acceleration).zeros(9).bytes()


def odometry(stamp: int, position: Any, orientation: Any, velocity: Any, angular_velocity: Any) -> bytes:
    """nav_msgs/Odometry: `base` in the frame `course` (m), velocities in `base` (m/s, rad/s); NaN where not known."""
    message = Cdr().header(stamp, "course").text("base").array(position).quaternion(orientation).zeros(36)
    return message.array(velocity).array(angular_velocity).zeros(36).bytes()


def velocity_command(stamp: int, command: Any) -> bytes:
    """geometry_msgs/TwistStamped: forward, leftward velocity (m/s) and yaw rate (rad/s) `[3]`."""
    forward, left, turn = command
    return Cdr().header(stamp, "base").number("d", forward, left, 0.0, 0.0, 0.0, turn).bytes()


def joint_targets(stamp: int, names: Sequence[str], targets: Any | None, period: int) -> bytes:
    """trajectory_msgs/JointTrajectory with one point that is due after `period` (ns): targets, rad `[J]`, or damping
    (velocities of zero alone) where they are None."""
    message = Cdr().header(stamp, "").texts(names).number("I", 1).list(() if targets is None else targets)
    message.number("I", len(names)).zeros(len(names)).number("I", 0, 0)
    return message.time(period).bytes()


def number(value: float) -> bytes:
    """std_msgs/Float64."""
    return Cdr().number("d", value).bytes()


def force(stamp: int, frame: str, value: Any) -> bytes:
    """geometry_msgs/WrenchStamped: a force (N) in a frame."""
    return Cdr().header(stamp, frame).array(value).zeros(3).bytes()


def path(stamp: int, points: Any) -> bytes:
    """nav_msgs/Path in the frame `course`: points, m `[N, 3]`."""
    message = Cdr().header(stamp, "course").number("I", len(points))
    for point in points:
        message.header(stamp, "course").array(point).number("d", 0.0, 0.0, 0.0, 1.0)
    return message.bytes()


def transforms(stamp: int, frames: Sequence[str], positions: Any, orientations: Any) -> bytes:
    """tf2_msgs/TFMessage: where frames are in the frame `course`, m `[N, 3]` and w, x, y, z `[N, 4]`."""
    message = Cdr().number("I", len(frames))
    for frame, position, orientation in zip(frames, positions, orientations, strict=True):
        message.header(stamp, "course").text(frame).array(position).quaternion(orientation)
    return message.bytes()


class Marker(NamedTuple):
    """One shape of a visualization_msgs/MarkerArray, fixed in its frame."""

    frame: str
    kind: int
    """1 box, 2 sphere, 3 cylinder, 11 triangles."""
    position: Any
    orientation: Any
    size: Any
    """Edges, or diameters and height, m `[3]`."""
    color: Any
    """Red, green, blue, opacity, 0..1 `[4]`."""
    points: Any = ()
    """Corners of triangles, m `[N, 3]`."""


def markers(stamp: int, shapes: Sequence[Marker]) -> bytes:
    """visualization_msgs/MarkerArray."""
    message = Cdr().number("I", len(shapes))
    for index, shape in enumerate(shapes):
        message.header(stamp, shape.frame).text("scene").number("i", index, shape.kind, 0)
        message.array(shape.position).quaternion(shape.orientation).array(shape.size).array(shape.color, "<f4")
        message.time(0).number("B", 1).number("I", len(shape.points)).array(shape.points)
        message.number("I", 0).text("").header(0, "").text("").number("I", 0)  # colours, texture
        message.number("I", 0).text("").text("").text("").number("I", 0).number("B", 0)  # text and mesh file
    return message.bytes()


def image(stamp: int, heights: Any) -> bytes:
    """sensor_msgs/Image of encoding 32FC1: a height grid, m `[rows, columns]`."""
    rows, columns = np.shape(heights)
    message = Cdr().header(stamp, "base").number("I", rows, columns).text("32FC1").number("B", 0)
    data = np.ascontiguousarray(heights, "<f4")
    return message.number("I", 4 * columns).list(data.view(np.uint8).ravel(), "u1").bytes()


def diagnostics(
    stamp: int, level: int, name: str, message: str, hardware: str, values: Iterable[tuple[str, str]]
) -> bytes:
    """diagnostic_msgs/DiagnosticArray with one status; levels are 0 (fine), 1 (warning), 2 (error)."""
    said = Cdr().header(stamp, "").number("I", 1).number("B", level).text(name).text(message).text(hardware)
    pairs = list(values)
    said.number("I", len(pairs))
    for key, value in pairs:
        said.text(key).text(value)
    return said.bytes()
