"""ROS 2: the only file that imports rclpy and message packages.

`Ros2Transport` joins the control loop to ROS 2; `RosNode` and the small classes below it are what the programs of
`robot.nodes.programs` need of ROS, so that they import none of it. Messages become calls of `MessageFilter`, which
believes them or not; whatever a message holds, no callback raises. Names of topics and services are relative: a
namespace moves them.

Joint commands are trajectory_msgs/JointTrajectory with one point: of the standard messages the one that holds joint
names, targets and when they are due. `header.stamp` is the stamp of the joint reading that it answers, so that drives
can count latency from the reading. Damping is a point without positions and with velocities of zero: drives then use
their velocity gain alone. Gains are parameters of the drives, equal to those of the bundle.
"""

import json
import math
import threading
import time
import warnings
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Quaternion, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.context import Context
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image, Imu, JointState
from std_msgs.msg import Bool, Header, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from robot.loop.declarations import names
from robot.loop.message_filter import MessageFilter
from robot.loop.parameters import EVERYWHERE, SIMULATED_TIME, Declared, declared, load, make, sections
from robot.loop.recording import SECOND_DAMPS, SECOND_STOPS
from robot.loop.refusals import Code, Refusal, Refusals, Source
from robot.loop.transport import ANSWERED, NEVER, NS, Array, Mode, Output, Request
from robot.transports.senders import ELSEWHERE, Claim, Heard, Senders
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.robots.description import Robot

try:
    from rclpy.subscription_content_filter_options import ContentFilterOptions
except ImportError:  # older releases
    ContentFilterOptions = None

T = TypeVar("T")


class Stamped(Protocol):
    """A message with a header."""

    header: Header


M = TypeVar("M", bound=Stamped)


# --- topics and their quality of service ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Topic:
    """A topic, its quality of service, and how much of it is looked at.

    Senders offer reliable delivery and readers ask for best effort, so that they meet drivers of either kind and a
    reader never waits for a lost message. `latched` topics are reliable and transient local on both sides: who comes
    late gets the last one.
    """

    name: str
    kind: Any
    rate: float
    """Most messages that are looked at, 1/s; the others are left out."""
    size: int
    """Largest message that is looked at, bytes."""
    depth: int = 1
    """Newest messages that are kept where they have to wait."""
    latched: bool = False
    alone: bool = True
    """One program alone may send on it: two would be two drivers, two navigators, two control loops."""
    only: str = ""
    """What the middleware itself lets through, as a filter of SQL's form; older releases of rclpy have none."""

    def offered(self) -> QoSProfile:
        """For senders."""
        return self._profile(ReliabilityPolicy.RELIABLE, self.depth)

    def asked(self, depth: int | None = None) -> QoSProfile:
        """For readers; `depth` in place of the topic's own."""
        reliability = ReliabilityPolicy.RELIABLE if self.latched else ReliabilityPolicy.BEST_EFFORT
        return self._profile(reliability, depth or self.depth)

    def _profile(self, reliability: ReliabilityPolicy, depth: int) -> QoSProfile:
        durability = DurabilityPolicy.TRANSIENT_LOCAL if self.latched else DurabilityPolicy.VOLATILE
        return QoSProfile(depth=depth, reliability=reliability, durability=durability)


LARGEST_GRID = 500
"""Rows and columns of a measured height grid: 25 m at 0.05 m."""
KIB = 1024
"""bytes."""
# Rates are twice what the fastest drivers of such robots send, sizes ten times what such a message has. A pose or
# command older than the newest is of no use, so one is kept; of readings those of 32 ms at 250 Hz, since they are held
# against each other, and a gap shows; more are kept where every one counts.
JOINT_STATES = Topic("joint_states", JointState, rate=1000, size=64 * KIB, depth=8)
IMU = Topic("imu/data", Imu, rate=1000, size=4 * KIB, depth=8)
ODOMETRY = Topic("odom", Odometry, rate=500, size=8 * KIB)
LOCALIZATION = Topic("localization", Odometry, rate=500, size=8 * KIB)
"""Poses that may be late and noisy, for the localizer."""
TRUE_ODOMETRY = Topic("true_odom", Odometry, rate=500, size=8 * KIB)
"""Of a simulated robot whose poses are not the truth."""
VELOCITY_COMMAND = Topic("cmd_vel", TwistStamped, rate=200, size=4 * KIB)
SKILL = Topic("skill", String, rate=50, size=KIB, latched=True)
HEIGHT_GRID = Topic(
    "height_grid", Image, rate=50, size=4 * LARGEST_GRID**2 + KIB,
    only=f"height <= {LARGEST_GRID} AND width <= {LARGEST_GRID}",
)  # fmt: skip
"""Larger images are not even taken from the middleware, which holds every other callback up."""
JOINT_COMMANDS = Topic("joint_commands", JointTrajectory, rate=1000, size=64 * KIB, depth=4)
"""The loop's next command must not hide another sender's."""
DIAGNOSTICS = Topic("diagnostics", DiagnosticArray, rate=100, size=256 * KIB, depth=10, alone=False)
BOARD_TOUCHED = Topic("board_touched", Bool, rate=50, size=KIB, latched=True, alone=False)
SCORE = Topic("score", String, rate=50, size=64 * KIB, depth=10)
EVERY_READING = 250
"""The localizer wants every reading, of 1 s at 250 Hz: motion is the sum of them."""
EVERY_POSE = 10
"""The referee wants every pose, so this many may wait for it."""
TOPICS = (
    JOINT_STATES, IMU, ODOMETRY, LOCALIZATION, TRUE_ODOMETRY, VELOCITY_COMMAND, SKILL, HEIGHT_GRID, JOINT_COMMANDS,
    DIAGNOSTICS, BOARD_TOUCHED, SCORE,
)  # fmt: skip
SERVICES = ("arm", "disarm", "stop")
"""std_srvs/Trigger each; asked of the control loop, which answers in its next step."""
TOLD_EVERY = 0.1
"""s between two times that the loop is told of a second sender: ten times before it forgets one."""
POLL = 0.001
"""s between two looks for messages: a quarter of what lies between two readings at 250 Hz."""
SELDOM = 0.004
"""The same in programs that act 50 or 125 times a second: a look costs more than what it finds."""
PENALTY = 1.0
"""s for which a topic is left alone after a message that was too large: one of 36 MB holds up all else for 0.1 s."""
JUDGED_EVERY = 1.0
"""s between two looks at who else sends."""
CALLS = 20
"""So many calls of one service may wait for their answers."""
SERVED_EVERY = 0.005
"""s between two answers about parameters: a flood of questions leaves the control loop its time."""
IDLE = 0.1
"""s after which a thread of callbacks looks whether it is to end."""
LISTENS = 1.5
"""s for which a program listens for another one like it: discovery takes 0.3 s on a quiet computer, and the rarest
message that tells of one, a diagnosis or a score, comes twice a second."""


# --- messages in ------------------------------------------------------------------------------------------------------

BODY_FRAMES = ("base", "base_link", "base_footprint", "base_stabilized", "trunk", "body")
WORLD_FRAMES = ("course", "map", "odom", "world", "earth")
"""Usual names (REP 105) of frames that move with a robot, and of those that do not. A header that names none of them,
or nothing, is believed: senders call their frames as they like."""


def _in_frame(messages: MessageFilter, name: str, wrong: Sequence[str], needed: str, source: Source) -> bool:
    """Whether a message may be in the frame that it names; one that is in a `wrong` one is refused."""
    if name.rsplit("/", 1)[-1] not in wrong:
        return True
    sentence = f"{source}: the message is in the frame '{name[:40]}', {needed} is needed"
    return messages.refuse(Refusal(Code.MALFORMED, sentence, source=source))


def stamp_of(message: Stamped) -> int:
    """A message's header stamp, ns; 0 where it is not set."""
    stamp = message.header.stamp
    return stamp.sec * NS + stamp.nanosec


def wxyz(quaternion: Quaternion) -> list[float]:
    """A ROS quaternion (x, y, z, w) as (w, x, y, z)."""
    return [quaternion.w, quaternion.x, quaternion.y, quaternion.z]


def take_joints(messages: MessageFilter, message: JointState) -> bool:
    """Joint angles, speeds and, where they are there, torques, by name. Returns whether they were believed."""
    return messages.joints(list(message.name), message.position, message.velocity, message.effort, stamp_of(message))


def take_imu(messages: MessageFilter, message: Imu) -> bool:
    """Attitude and gyro, base frame. Returns whether they were believed."""
    if message.orientation_covariance[0] == -1:
        sentence = "imu: the message says that it holds no orientation (covariance -1)"
        return messages.refuse(Refusal(Code.NO_ROTATION, sentence, source=Source.IMU))
    if message.angular_velocity_covariance[0] == -1:
        sentence = "imu: the message says that it holds no gyro (covariance -1)"
        return messages.refuse(Refusal(Code.MALFORMED, sentence, source=Source.IMU))
    rate = message.angular_velocity
    return messages.imu(wxyz(message.orientation), [rate.x, rate.y, rate.z], stamp_of(message))


def force_of(message: Imu) -> Array | None:
    """The specific force, m/s^2 `[3]`, base frame; None where the message says that it holds none."""
    if message.linear_acceleration_covariance[0] == -1:
        return None
    force = message.linear_acceleration
    return np.array([force.x, force.y, force.z])


def take_odometry(messages: MessageFilter, message: Odometry) -> bool:
    """The base's pose in the course frame. Returns whether it was believed."""
    of, child, needed = message.header.frame_id, message.child_frame_id, "the base's pose in the course's"
    if not _in_frame(messages, of, BODY_FRAMES, needed, Source.POSE):
        return False
    if not _in_frame(messages, child, WORLD_FRAMES, needed, Source.POSE):
        return False
    position, orientation = pose_of(message)
    return messages.odometry(position.tolist(), orientation.tolist(), stamp_of(message))


def pose_of(message: Odometry) -> tuple[Array, Array]:
    """Position (m) `[3]` and orientation (w, x, y, z) `[4]`."""
    pose = message.pose.pose
    place = pose.position
    return np.array([place.x, place.y, place.z]), np.array(wxyz(pose.orientation))


def take_command(messages: MessageFilter, message: TwistStamped) -> bool:
    """Forward and leftward velocity and yaw rate. Returns whether they were believed."""
    if not _in_frame(messages, message.header.frame_id, WORLD_FRAMES, "the robot's heading", Source.COMMAND):
        return False
    twist = message.twist
    return messages.velocity_command([twist.linear.x, twist.linear.y, twist.angular.z], stamp_of(message))


def take_skill(messages: MessageFilter, message: String) -> bool:
    """The name of a skill. Returns whether it is known."""
    if message.data not in SKILLS:
        sentence = f"the skill '{message.data[:40]}' is unknown: known are {', '.join(SKILLS)}"
        return messages.refuse(Refusal(Code.UNKNOWN_NAME, sentence, source=Source.SKILL))
    return messages.skill(SKILLS.index(message.data))


def take_height_grid(messages: MessageFilter, message: Image) -> bool:
    """A 32FC1 image of heights, m. Returns whether it was believed."""
    if not _in_frame(messages, message.header.frame_id, WORLD_FRAMES, "the robot's heading", Source.HEIGHT_GRID):
        return False
    rows, columns = message.height, message.width
    problem = ""
    if message.encoding != "32FC1":
        problem = f"its encoding is '{message.encoding[:40]}', 32FC1 is needed"
    elif message.step != 4 * columns or len(message.data) != rows * message.step:
        problem = f"{len(message.data)} bytes in rows of {message.step} came for {rows} x {columns} heights"
    if problem:
        return messages.refuse(Refusal(Code.MALFORMED, f"height grid: {problem}", source=Source.HEIGHT_GRID))
    order = ">f4" if message.is_bigendian else "<f4"
    return messages.height_grid(np.frombuffer(message.data, order).reshape(rows, columns))


def command_of(robot: Robot, message: JointTrajectory) -> Output:
    """A joint command as drives understand it: targets matched by name, or damping where there are no positions.

    Raises:
      InputError: not one point, joints that are missing or named twice, targets that are not finite.
    """
    if len(message.points) != 1:
        raise InputError(f"a joint command has {len(message.points)} points, 1 is needed")
    positions, names = message.points[0].positions, list(message.joint_names)
    if len(positions) == 0:
        return Output(Mode.DAMP, np.zeros(robot.joints, np.float32), stamp_of(message))
    missing = [name for name in robot.joint_names if name not in names]
    if missing or len(set(names)) != len(names):
        problem = f"has no target for '{missing[0]}'" if missing else "names a joint twice"
        raise InputError(f"a joint command {problem}")
    if len(positions) != len(names) or not np.isfinite(positions).all():
        raise InputError(f"a joint command has {len(positions)} targets for {len(names)} joints, or one is not finite")
    targets = np.array([positions[names.index(name)] for name in robot.joint_names], np.float32)
    return Output(Mode.POSITION, targets, stamp_of(message))


# --- messages out -----------------------------------------------------------------------------------------------------


def serialized(message: Any) -> bytes:
    """A message as it goes over the network; `RosNode.publish` takes it like the message itself."""
    return serialize_message(message)


def stamped(message: M, stamp: int, frame: str = "") -> M:
    """`message` with `stamp` (ns) and `frame` in its header."""
    header = message.header
    header.stamp.sec, header.stamp.nanosec = divmod(stamp, NS)
    header.frame_id = frame
    return message


def joints_message(reading: dict[str, Any], stamp: int) -> JointState:
    """A reading of `SimulatedHardware.sense` as a driver publishes it."""
    message = JointState(name=list(reading["names"]))
    message.position, message.velocity, message.effort = (
        _doubles(reading[name]) for name in ("position", "velocity", "effort")
    )
    return stamped(message, stamp)


def imu_message(orientation: Array, angular_velocity: Array, stamp: int, force: Array | None = None) -> Imu:
    """Attitude (w, x, y, z) `[4]`, gyro (rad/s) `[3]` and, where there is an accelerometer, specific force (m/s^2)
    `[3]`, both in the base frame."""
    message = Imu()
    _set_quaternion(message.orientation, orientation)
    _set_vector(message.angular_velocity, angular_velocity)
    if force is None:
        message.linear_acceleration_covariance[0] = -1.0
    else:
        _set_vector(message.linear_acceleration, force)
    return stamped(message, stamp, "base")


def odometry_message(position: Array, orientation: Array, velocity: Array, turning: Array, stamp: int) -> Odometry:
    """Pose in the course frame (m `[3]`; w, x, y, z `[4]`), velocity (m/s) and turning (rad/s) in the base frame."""
    message = Odometry(child_frame_id="base")
    _set_vector(message.pose.pose.position, position)
    _set_quaternion(message.pose.pose.orientation, orientation)
    _set_vector(message.twist.twist.linear, velocity)
    _set_vector(message.twist.twist.angular, turning)
    return stamped(message, stamp, "course")


def velocity_message(command: Sequence[float], stamp: int) -> TwistStamped:
    """Forward, leftward velocity (m/s) and yaw rate (rad/s)."""
    message = TwistStamped()
    twist = message.twist
    twist.linear.x, twist.linear.y, twist.angular.z = (float(value) for value in command)
    return stamped(message, stamp, "base")


def heights_message(heights: Array, stamp: int) -> Image:
    """Heights, m `[rows, columns]`, as `take_height_grid` reads them."""
    rows, columns = heights.shape
    message = Image(height=rows, width=columns, step=4 * columns, encoding="32FC1")
    message.data = array("B", np.asarray(heights, "<f4").tobytes())
    return stamped(message, stamp, "course")


def command_message(robot: Robot, output: Output) -> JointTrajectory:
    """Joint targets or damping for the drives."""
    point = JointTrajectoryPoint(velocities=array("d", bytes(8 * robot.joints)))
    if output.mode == Mode.POSITION:
        point.positions = _doubles(output.targets)
    point.time_from_start.nanosec = round(robot.control_period * NS)
    return stamped(JointTrajectory(joint_names=list(robot.joint_names), points=[point]), output.stamp)


LOOP = "barkour: control loop"
"""What the control loop calls itself on the topic of diagnoses, which many programs share."""
LEVELS = {"soft stop": DiagnosticStatus.WARN, "emergency": DiagnosticStatus.ERROR}
"""State -> level of its diagnosis; OK for the others."""


def diagnostics_message(robot: Robot, status: dict[str, Any], stamp: int) -> DiagnosticArray:
    """The controller's status."""
    phase = f" ({status['phase']})" if status["phase"] else ""
    diagnosis = DiagnosticStatus(
        level=LEVELS.get(status["state"], DiagnosticStatus.OK),
        name=LOOP,
        message=f"{status['state']}{phase}: {status['reason']}",
        hardware_id=robot.name,
        values=[KeyValue(key=key, value=json.dumps(value)) for key, value in status.items()],
    )
    return stamped(DiagnosticArray(status=[diagnosis]), stamp)


def _doubles(values: Any) -> "array[float]":
    return array("d", np.asarray(values, float).tobytes())


def _set_vector(vector: Any, values: Array) -> None:
    vector.x, vector.y, vector.z = (float(value) for value in values)


def _set_quaternion(quaternion: Any, values: Array) -> None:
    quaternion.w, quaternion.x, quaternion.y, quaternion.z = (float(value) for value in values)


# --- a node -----------------------------------------------------------------------------------------------------------


def _descriptor(parameter: Declared) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(
        name=parameter.name, description=parameter.description, read_only=True, dynamic_typing=False
    )
    if parameter.low is not None and parameter.high is not None:
        low, high = parameter.low, parameter.high
        if parameter.kind is int:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high), step=1)]
        else:
            descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    return descriptor


def _no_simulated_time(parameters: "list[Parameter[Any]]") -> SetParametersResult:
    asked = any(parameter.name == "use_sim_time" and parameter.value for parameter in parameters)
    return SetParametersResult(successful=not asked, reason=SIMULATED_TIME if asked else "")


def _unused(*_: Any) -> None:
    """Of what is polled."""


class _Polled(MutuallyExclusiveCallbackGroup):
    """Keeps executors away from what is polled."""

    def can_execute(self, entity: Any) -> bool:
        return False


class _Service:
    """A service whose calls are taken and answered where messages are, without waiting for anything."""

    def __init__(self, service: Any, begin: Callable[[], Request]) -> None:
        self._service, self._begin = service, begin
        self._waiting: deque[tuple[float, Request, Any]] = deque()
        """Until when an answer is waited for (steady clock, s), the request, who asked."""

    def look(self, now: float) -> None:
        """Takes calls and sends answers."""
        handle = self._service.handle
        while len(self._waiting) < CALLS:
            with handle:
                _, header = handle.service_take_request(Trigger.Request)
            if header is None:
                break
            self._waiting.append((now + ANSWERED, self._begin(), header))
        for _ in range(len(self._waiting)):
            until, request, header = self._waiting.popleft()
            if request.answered or now >= until:
                response = Trigger.Response()
                response.success, response.message = request.granted, request.message
                self._service.send_response(response, header)
            else:
                self._waiting.append((until, request, header))


class _Reader:
    """Takes a topic's messages where they lie, instead of being woken up for each: a flood costs no more than its topic
    may, and an executor's wait, ten times what it takes to read a message, is saved."""

    def __init__(
        self,
        topic: Topic,
        subscription: Any,
        heard: Callable[[bytes, Any], None],
        refusals: Refusals,
        clock: Callable[[], int],
        depth: int,
    ) -> None:
        self.topic, self.subscription, self._heard, self._depth = topic, subscription, heard, depth
        self._refusals, self._clock = refusals, clock
        self._handle = subscription.handle
        self._due = 0.0
        self._since, self._first = 0.0, 0
        """Since when, on the steady clock, s, and from which number on a publisher's messages are counted."""

    def look(self, now: float) -> None:
        """Takes what has come in by `now` (steady clock, s), if it is time."""
        if now < self._due:
            return
        for count in range(self._depth):
            try:
                with self._handle:
                    taken = self._handle.take_message(self.topic.kind, True)
                if taken is None:
                    return
                self._due = now + (count + 1) / self.topic.rate
                self._take(now, *taken)
            except Exception as error:  # whatever a message holds, the program goes on
                self._say(Code.MALFORMED, f"a message is of no use: {' '.join(str(error).split())[:200]}")

    def _take(self, now: float, content: bytes, info: Any) -> None:
        self._count(now, info)
        if len(content) <= self.topic.size:
            self._heard(content, info)
            return
        self._due = now + PENALTY
        sentence = f"a message has {len(content)} bytes, limit {self.topic.size}; none is taken for {PENALTY} s"
        self._say(Code.TOO_LARGE, sentence, len(content), self.topic.size)

    def _count(self, now: float, info: Any) -> None:
        """Notes once a second where more is sent than is looked at."""
        number = info.get("publication_sequence_number")
        if number is None or now - self._since < 1.0:
            return
        rate = (number - self._first) / (now - self._since)
        if self._since and now - self._since < 2.0 and rate > self.topic.rate:
            sentence = (
                f"{self.topic.name}: {rate:.0f} messages a second are sent, of {self.topic.rate:g} at most is heard"
            )
            note = Refusal(Code.FLOOD, sentence, rate, self.topic.rate, self.topic.name)
            self._refusals.note(self._clock(), note)
        self._since, self._first = now, number

    def judge(self, compatibility: QoSCompatibility, reason: str, sentence: str) -> None:
        """Refuses a sender that does not meet the topic's quality of service."""
        if compatibility == QoSCompatibility.ERROR:
            self._say(Code.NOT_MET, f"{sentence}: {reason.removeprefix('ERROR: ').rstrip(';')}")

    def _say(self, code: Code, sentence: str, value: float = math.nan, limit: float = math.nan) -> None:
        refusal = Refusal(code, f"{self.topic.name}: {sentence}", value, limit, self.topic.name)
        self._refusals.add(self._clock(), refusal)


class RosNode:
    """One node in a context of its own.

    From `spin` on one thread looks for messages and calls of services, and another answers what asks for parameters.
    """

    def __init__(self, name: str, arguments: Sequence[str] = (), domain: int | None = None, poll: float = POLL) -> None:
        """`arguments` are ROS's own (`--ros-args ...`); `domain` takes the place of ROS_DOMAIN_ID; messages are looked
        for every `poll` s.

        Raises:
          InputError: arguments or a parameter file that ROS does not take.
        """
        self._files = [Path(b) for a, b in pairwise(arguments) if a == "--params-file"]
        for file in self._files:
            sections(file)
        self.context = Context()
        try:
            rclpy.init(
                args=["barkour", *arguments],
                context=self.context,
                domain_id=domain,
                signal_handler_options=SignalHandlerOptions.NO,
            )
            with warnings.catch_warnings():  # of what could not be cleaned up after the error that is raised as well
                warnings.simplefilter("ignore", RuntimeWarning)
                self.node = rclpy.create_node(
                    name, context=self.context, automatically_declare_parameters_from_overrides=True
                )
        except Exception as error:  # rclpy raises half a dozen kinds that have no common ancestor
            raise InputError(f"ROS does not start: {' '.join(str(error).split())}") from error
        self.name, self._every = name, poll
        self._readers: list[_Reader] = []
        self._judged: dict[str, set[bytes]] = {}
        """Topic -> the publishers whose quality of service was looked at."""
        self._services: list[_Service] = []
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()
        self._publishers: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}
        self._claims: list[Claim] = []
        self._own: dict[str, bytes] = {}
        """Topic -> identity of this node's own publisher."""
        self._alone: list[tuple[Topic, Callable[[bytes], bool]]] = []
        """Topics that tell of another program like this one, and whether a message on it is such a program's."""
        self._began = time.monotonic()

    def parameters(self, kind: type[T]) -> T:
        """Declares every parameter of `kind` with description and range, read-only, and returns what was given.

        Raises:
          InputError: a value that is unknown, mistyped or out of range; a parameter file without a section for this
            node, which ROS would leave out without a word.
        """
        node, foreign = self.node, set[str]()
        for file in self._files:
            load(kind, file, node.get_name(), node.get_namespace(), elsewhere=names())
            known = {parameter.name for parameter in declared(kind)}
            shared = [section for where, section in sections(file).items() if "*" in where]
            foreign |= {name for section in shared for name in section if name in names() - known}
        given = {name: value.value for name, value in node.get_parameters_by_prefix("").items()}
        if given.get("use_sim_time"):
            raise InputError(SIMULATED_TIME)
        node.add_on_set_parameters_callback(_no_simulated_time)
        apart = foreign | set(EVERYWHERE)
        own = {name: value for name, value in given.items() if name not in apart and not name.startswith("qos_")}
        chosen = make(kind, own)
        declare = cast(Callable[..., Any], getattr(node, "declare_parameter"))  # noqa: B009 - typed in part only
        for parameter in declared(kind):
            if parameter.name in own:
                node.undeclare_parameter(parameter.name)
            value = getattr(chosen, parameter.name)
            declare(parameter.name, value, _descriptor(parameter), ignore_override=True)
        return chosen

    def publish(self, topic: Topic, message: Any) -> None:
        """Sends a message."""
        publisher = self._publishers.get(topic.name)
        if publisher is None:
            publisher = self._publishers[topic.name] = self.node.create_publisher(
                topic.kind, topic.name, topic.offered()
            )
        publisher.publish(message)

    def advertise(self, *topics: Topic) -> None:
        """Makes publishers known before the first message, so that readers are found by then.

        Raises:
          InputError: another program of this computer sends on a topic that one alone may send on.
        """
        for topic in topics:
            if topic.alone:
                self._claims.append(Claim(self.context.get_domain_id(), self.node.resolve_topic_name(topic.name)))
                self._alone.append((topic, lambda content: True))
            known = self._identities(topic)
            self._publishers[topic.name] = self.node.create_publisher(topic.kind, topic.name, topic.offered())
            self._own[topic.name] = next(iter(self._identities(topic) - known), b"")

    def be_alone(self, topic: Topic, like_this: Callable[[Any], bool]) -> None:
        """A message on `topic` that is `like_this` comes from another program like this one: `listen` refuses it."""
        self._alone.append((topic, lambda content: like_this(deserialize_message(content, topic.kind))))

    def _identities(self, topic: Topic) -> set[bytes]:
        """Of all publishers that are known on a topic."""
        return {bytes(info.endpoint_gid) for info in self.node.get_publishers_info_by_topic(topic.name)}

    def listen(self) -> None:
        """Hears whether another program like this one is at work, until `LISTENS` after this node was made, or after
        somebody was seen who could be one: a program that was killed is seen for a while. Once.

        Raises:
          InputError: one is.
        """
        heard: list[Topic] = []

        def hear(topic: Topic, like_this: Callable[[Any], bool]) -> Callable[[bytes, Any], None]:
            return lambda content, info: heard.append(topic) if like_this(content) else None

        refusals, kept = Refusals(), list(self._readers)
        for topic, like_this in self._alone:
            self._read(topic, hear(topic, like_this), refusals, time.monotonic_ns)
        ears = [reader for reader in self._readers if reader not in kept]
        began, seen = self._began, False
        while ears and not heard and (left := began + LISTENS - time.monotonic()) > 0:
            for reader in ears:
                reader.look(time.monotonic())
            time.sleep(min(left, 10 * POLL))
            others = (self._identities(reader.topic) - {self._own.get(reader.topic.name)} for reader in ears)
            if not seen and any(others):
                began, seen = time.monotonic(), True
        self._readers, self._alone = kept, []
        for reader in ears:
            self.node.destroy_subscription(reader.subscription)
        if heard:
            name, domain = self.node.resolve_topic_name(heard[0].name), self.context.get_domain_id()
            raise InputError(f"another program sends {name} in the ROS domain {domain}: {ELSEWHERE}")

    def subscribe(
        self,
        topic: Topic,
        take: Callable[[Any], Any],
        refusals: Refusals,
        clock: Callable[[], int],
        second: Callable[[str], Any] = lambda sentence: None,
        depth: int | None = None,
    ) -> Senders:
        """Calls `take` with every message of the topic's one sender; what it raises is a refusal.

        Where another one sends as well, its messages are refused and `second` is told so in a sentence. `depth` takes
        the place of the topic's own. Returns who sends.
        """
        senders = Senders()

        def heard(content: bytes, info: Any) -> None:
            if not topic.alone or self._of_one(topic, senders, info, refusals, clock(), second):
                take(deserialize_message(content, topic.kind))

        self._read(topic, heard, refusals, clock, depth)
        return senders

    def watch(self, topic: Topic, refusals: Refusals, clock: Callable[[], int], second: Callable[[str], Any]) -> None:
        """Tells `second` in a sentence where somebody else sends on a topic that this node has advertised."""
        senders = Senders(self._own[topic.name])

        def heard(_: bytes, info: Any) -> None:
            self._of_one(topic, senders, info, refusals, clock(), second)

        self._read(topic, heard, refusals, clock)

    def _read(
        self,
        topic: Topic,
        heard: Callable[[bytes, Any], None],
        refusals: Refusals,
        clock: Callable[[], int],
        depth: int | None = None,
    ) -> None:
        """Hands on what comes in on a topic, as bytes: not more, and nothing larger, than the topic may have."""

        more: dict[str, Any] = {}
        if topic.only and ContentFilterOptions is not None:
            more["content_filter_options"] = ContentFilterOptions(
                filter_expression=topic.only, expression_parameters=[]
            )
        subscription: Any = self.node.create_subscription(
            topic.kind,
            topic.name,
            _unused,
            topic.asked(depth),
            callback_group=_Polled(),
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),  # see `_judge`
            raw=True,
            **more,
        )
        self._readers.append(_Reader(topic, subscription, heard, refusals, clock, depth or topic.depth))

    def _of_one(
        self,
        topic: Topic,
        senders: Senders,
        info: Any,
        refusals: Refusals,
        now: int,
        second: Callable[[str], Any],
    ) -> bool:
        """Whether a message comes from the one that sends on a topic."""
        publisher = info.get("publisher_gid")  # older releases of rclpy do not say it
        identity = bytes(publisher["data"]) if publisher else None
        heard = senders.hear(identity, now, lambda: self.node.count_publishers(topic.name))
        if heard is Heard.KNOWN:
            return True
        sentence = f"another program sends on {topic.name}"
        if heard is Heard.CHANGED:
            sentence += " from now on"
            refusals.note(now, Refusal(Code.SENDER_CHANGED, sentence, source=topic.name))
            return True
        sentence += " as well"
        refusals.add(now, Refusal(Code.SECOND_SENDER, sentence, source=topic.name))
        second(sentence)
        return False

    def offer(self, name: str, begin: Callable[[], Request]) -> None:
        """A std_srvs/Trigger service: `begin` puts a call before the loop, whose answer goes back when it is there."""
        service: Any = self.node.create_service(Trigger, name, _unused, callback_group=_Polled())
        self._services.append(_Service(service, begin))

    def call(self, name: str, seconds: float) -> tuple[bool, str]:
        """Asks a std_srvs/Trigger service; success and message, or why there was no answer within so many seconds."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = cast(Any, self.node.create_client(Trigger, name))
        if not client.wait_for_service(timeout_sec=seconds):
            return False, f"there is no service {name}"
        answered, future = threading.Event(), client.call_async(Trigger.Request())

        def done(_: Any) -> None:
            answered.set()

        future.add_done_callback(done)
        if not answered.wait(seconds):
            client.remove_pending_request(future)
            return False, f"the service {name} did not answer within {seconds} s"
        response = future.result()
        return response.success, response.message

    def now(self) -> int:
        """The time for stamps, ns."""
        return self.node.get_clock().now().nanoseconds

    def say(self, text: str) -> None:
        """Logs; refusals as warnings."""
        logger = self.node.get_logger()
        if text.startswith("refused"):
            logger.warning(text)
        else:
            logger.info(text)

    def spin(self) -> None:
        """Lets callbacks run, in a thread of their own, after `listen`.

        Raises:
          InputError: another program like this one is at work in the domain.
        """
        self.listen()
        for name, run in (("ROS messages", self._poll), ("ROS", self._serve)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _poll(self) -> None:
        """Looks after messages, and now and then who sends and reads."""
        due, judge = time.monotonic(), 0.0
        while not self._ending.is_set():
            for service in self._services:
                service.look(time.monotonic())
            for reader in self._readers:
                reader.look(time.monotonic())
            now = time.monotonic()
            if now >= judge:
                judge = now + JUDGED_EVERY
                self._judge()
            due = max(due + self._every, now)
            time.sleep(max(due - time.monotonic(), 0.0))

    def _judge(self) -> None:
        """Says once of every sender whose quality of service a reader does not take that nothing of it comes."""
        for reader in self._readers:
            topic, known = reader.topic, self._judged.get(reader.topic.name, set[bytes]())
            if self.node.count_publishers(topic.name) == len(known):
                continue
            others = self.node.get_publishers_info_by_topic(topic.name)
            new = [other for other in others if bytes(other.endpoint_gid) not in known]
            for other in new:
                meets = qos_check_compatible(other.qos_profile, topic.asked())
                reader.judge(*meets, f"the node {other.node_name} offers it so that nothing of it comes in here")
            self._judged[topic.name] = {bytes(other.endpoint_gid) for other in others}

    def _serve(self) -> None:
        """Answers what asks for parameters and the like."""
        try:
            while not self._ending.is_set():
                self._executor.spin_once(timeout_sec=IDLE)
                time.sleep(SERVED_EVERY)
        except ExternalShutdownException:
            pass

    def close(self) -> None:
        """Leaves ROS. Twice is as good as once."""
        if self._ending.is_set():
            return
        self._ending.set()
        self._executor.wake()
        for thread in self._threads:
            thread.join(2.0)
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
        for claim in self._claims:
            claim.close()


# --- what the programs see of it --------------------------------------------------------------------------------------


class Ros2Transport:
    """The loop's `Transport` over ROS 2: sensors, command, skill and operators in; joints and diagnostics out."""

    def __init__(self, node: RosNode, messages: MessageFilter, dry_run: bool = False) -> None:
        """In a dry run the joints may be another program's.

        Raises:
          InputError: another control loop of this computer sends in this domain.
        """
        self.node, self.messages = node, messages
        self._closed = False
        self._asked: dict[str, int] = {}
        node.advertise(JOINT_COMMANDS, DIAGNOSTICS)
        node.be_alone(DIAGNOSTICS, lambda message: any(status.name == LOOP for status in message.status))
        for topic, take, kind in (
            (JOINT_STATES, take_joints, SECOND_DAMPS),
            (IMU, take_imu, SECOND_DAMPS),
            (ODOMETRY, take_odometry, SECOND_STOPS),
            (VELOCITY_COMMAND, take_command, SECOND_STOPS),
            (SKILL, take_skill, SECOND_STOPS),
            (HEIGHT_GRID, take_height_grid, None),  # without a grid there is the map
        ):
            node.subscribe(
                topic,
                lambda message, take=take: take(messages, message),
                messages.refusals,
                messages.clock,
                lambda sentence, kind=kind: self._part(kind, sentence),
            )
        if not dry_run:
            node.watch(
                JOINT_COMMANDS,
                messages.refusals,
                messages.clock,
                lambda sentence: self._part(SECOND_DAMPS, sentence),
            )
        self._requests: dict[str, Request] = {}
        for name in SERVICES:
            node.offer(name, lambda name=name: self._ask(name))

    def write(self, output: Output) -> None:
        """See `Transport`."""
        if not self._closed:
            self.node.publish(JOINT_COMMANDS, command_message(self.messages.robot, output))

    def report(self, status: dict[str, Any]) -> None:
        """See `Transport`."""
        if not self._closed:
            self.node.publish(DIAGNOSTICS, diagnostics_message(self.messages.robot, status, self.node.now()))

    def close(self) -> None:
        """See `Transport`."""
        self._closed = True
        self.node.close()

    def _part(self, kind: str | None, sentence: str) -> None:
        """Tells the loop, not too often, that two programs send the same."""
        now = self.messages.clock()
        if kind is not None and now - self._asked.get(kind, NEVER) > TOLD_EVERY * NS:
            self._asked[kind] = now
            self.messages.ask(kind, sentence)

    def _ask(self, kind: str) -> Request:
        """Who asks for what somebody has just asked for gets the same answer: a flood is one request a step."""
        request = self._requests.get(kind)
        if request is None or request.answered:
            request = self._requests[kind] = self.messages.ask(kind)
        return request


class DriverPort:
    """The robot's drives and sensors as a ROS driver: publishes readings, hands on joint commands."""

    def __init__(
        self,
        node: RosNode,
        robot: Robot,
        drive: Callable[[Output], None],
        refusals: Refusals,
        clock: Callable[[], int],
        *,
        poses: Topic | None = ODOMETRY,
        truth: bool = False,
    ) -> None:
        """`drive` gets every joint command, and damping while two programs command; it may raise `InputError` to refuse
        one. `poses` is where `pose` sends; None where nothing tells the robot's place. `truth`: the true pose is sent
        as well, by `true_pose`.

        Raises:
          InputError: another driver of this computer sends in this domain.
        """
        self.node, self.poses = node, poses
        damped = Output(Mode.DAMP, np.zeros(robot.joints, np.float32), 0)
        places = (poses, TRUE_ODOMETRY if truth else None)
        node.advertise(JOINT_STATES, IMU, BOARD_TOUCHED, *(topic for topic in places if topic))

        def take(message: JointTrajectory) -> None:
            drive(damped if senders.contested(clock()) else command_of(robot, message))

        senders = node.subscribe(JOINT_COMMANDS, take, refusals, clock, lambda sentence: drive(damped))

    def joints(self, reading: dict[str, Any], stamp: int) -> None:
        """A reading of joints and IMU."""
        self.node.publish(JOINT_STATES, joints_message(reading, stamp))
        felt = reading["orientation"], reading["angular_velocity"]
        self.node.publish(IMU, imu_message(*felt, stamp, reading.get("linear_acceleration")))

    def pose(self, pose: tuple[Array, Array], velocity: tuple[Array, Array], stamp: int) -> None:
        """Pose and velocity of the base, see `odometry_message`; where `poses` is a topic."""
        assert self.poses is not None
        self.node.publish(self.poses, odometry_message(*pose, *velocity, stamp))

    def true_pose(self, pose: tuple[Array, Array], velocity: tuple[Array, Array], stamp: int) -> None:
        """The true one of a simulated robot whose `pose` has errors, for the referee."""
        self.node.publish(TRUE_ODOMETRY, odometry_message(*pose, *velocity, stamp))

    def board_touched(self, touched: bool) -> None:
        """Whether the board was touched."""
        self.node.publish(BOARD_TOUCHED, Bool(data=touched))


class Locates(Protocol):
    """What becomes of the localizer's messages, once the message filter has believed them; `LocalizationProgram`."""

    def joints(self) -> None:
        """A joint reading."""
        ...

    def inertial(self, stamp: int, force: Array | None) -> None:
        """An IMU reading with its stamp, ns, and the specific force, m/s^2 `[3]`."""
        ...

    def seen(self, stamp: int) -> bool:
        """A pose that was true at `stamp`, ns."""
        ...


class LocalizerPort:
    """Readings, poses with errors and velocity commands in, the pose of now out."""

    def __init__(self, node: RosNode, messages: MessageFilter) -> None:
        """Raises `InputError` where another program of this computer sends `odom` in this domain."""
        self.node, self._messages = node, messages
        node.advertise(ODOMETRY)

    def hear(self, program: Locates) -> None:
        """Hands on what comes in."""
        node, messages = self.node, self._messages

        def joints(message: JointState) -> None:
            if take_joints(messages, message):
                program.joints()

        def imu(message: Imu) -> None:
            if take_imu(messages, message):
                program.inertial(stamp_of(message), force_of(message))

        def pose(message: Odometry) -> None:
            if take_odometry(messages, message):
                program.seen(stamp_of(message))

        rest = messages.refusals, messages.clock
        node.subscribe(JOINT_STATES, joints, *rest, depth=EVERY_READING)
        node.subscribe(IMU, imu, *rest, depth=EVERY_READING)
        node.subscribe(LOCALIZATION, pose, *rest)
        node.subscribe(VELOCITY_COMMAND, lambda message: take_command(messages, message), *rest)

    def pose(self, pose: tuple[Array, Array], velocity: tuple[Array, Array], stamp: int) -> None:
        """Pose and velocity of the base, see `odometry_message`."""
        self.node.publish(ODOMETRY, odometry_message(*pose, *velocity, stamp))


class NavigatorPort:
    """Poses in, velocity command and skill out."""

    def __init__(self, node: RosNode, messages: MessageFilter) -> None:
        self.node, self._skill = node, ""
        node.advertise(VELOCITY_COMMAND, SKILL)
        node.subscribe(ODOMETRY, lambda message: take_odometry(messages, message), messages.refusals, messages.clock)

    def command(self, velocity: Sequence[float], skill: str) -> None:
        """Forward, leftward velocity (m/s), yaw rate (rad/s); the skill is sent where it changes."""
        if skill != self._skill:
            self._skill = skill
            self.node.publish(SKILL, String(data=skill))
        self.node.publish(VELOCITY_COMMAND, velocity_message(velocity, self.node.now()))


class RefereePort:
    """Poses and touches of the board in, the live score out."""

    def __init__(
        self,
        node: RosNode,
        pose: Callable[[int, Array, Array], Any],
        touched: Callable[[], Any],
        refusals: Refusals,
        clock: Callable[[], int],
        *,
        truth: bool = False,
    ) -> None:
        """`pose` gets stamp (ns), position (m) `[3]` and orientation (w, x, y, z) `[4]`; with `truth` the true ones
        that a simulated robot sends beside those with errors."""
        self.node = node
        node.advertise(SCORE)
        node.subscribe(
            TRUE_ODOMETRY if truth else ODOMETRY, lambda message: pose(stamp_of(message), *pose_of(message)),
            refusals, clock, depth=EVERY_POSE,
        )  # fmt: skip
        node.subscribe(BOARD_TOUCHED, lambda message: touched() if message.data else None, refusals, clock)

    def score(self, live: dict[str, Any]) -> None:
        """The live score, JSON."""
        self.node.publish(SCORE, String(data=json.dumps(live)))
