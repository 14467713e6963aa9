"""Logs of runs as the only source of experience: no simulator, no teacher to ask (arXiv 2305.14654, appendix D).

A log is an MCAP file with ROS 2 messages under the names that the onboard loop's recordings have (`sim.recordings`),
from that loop or from `ros2 bag`: joint states, IMU, velocity commands, joint targets and, for terrain, odometry with
the course or a height grid. What the drives were asked for is what the student learns to ask for. No clock is known.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from mcap.records import Channel
from mcap_ros2.decoder import DecoderFactory

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.reading import files_below
from distill.locomotion.drive import targets_to_actions
from policies.transformer import generalist_layout
from sim import observation as obs
from sim.course import files as course_files
from sim.course.description import Course
from sim.course.files import by_name
from sim.errors import InputError
from sim.messages import NS
from sim.observation import Layout, Sensors
from sim.reading import check_file, number, unique
from sim.recordings import (
    COMMAND,
    HEIGHTS,
    IMU,
    JOINTS,
    LARGEST,
    LARGEST_VALUE,
    ODOMETRY,
    SETTINGS,
    STATUS,
    TARGETS,
    Digest,
    Reader,
)
from sim.robots.description import DEFAULT, Robot, find_robot

LATE = 1.5
"""Control periods between two joint targets from which on the later one begins another episode."""
SHORTEST = 25
"""Control steps; an episode with fewer teaches nothing."""
MOST = 10_000
"""Files in a folder of logs."""
HEARD = (JOINTS, IMU, ODOMETRY, COMMAND, HEIGHTS, SETTINGS, STATUS, TARGETS)


@dataclass(frozen=True, eq=False)
class Log:
    """What one file says: whole episodes of N control steps together."""

    path: Path
    sha256: str
    frames: np.ndarray
    """Stamped frames `[N, frame_size]`."""
    heights: np.ndarray
    """`[N, height_size]`."""
    actions: np.ndarray
    """`[N, J + 1]`; of the clock, 0."""
    commands: np.ndarray
    """`[N, 3]`, m/s, m/s, rad/s."""
    episodes: tuple[int, ...]


def logs_below(folder: Path) -> list[Path]:
    """The MCAP files in a folder, by name.

    Raises:
      InputError: no folder, one that cannot be read, or none or too many in it.
    """
    try:
        found = files_below(folder, [".mcap"])
    except DistillError as error:
        raise InputError(str(error)) from error
    if not found:
        raise InputError(f"there is no recording *.mcap in {folder}")
    if len(found) > MOST:
        raise InputError(f"{folder} has {len(found)} recordings, {MOST} are allowed")
    for path in found:
        check_file(path, LARGEST)
    return found


def robot_of(paths: Sequence[Path], asked: str | None) -> Robot:
    """The robot that was `asked` for, else the one that the first recording names, else the default one.

    Raises:
      InputError: unknown, or a recording cannot be read.
    """
    if asked is None:
        asked = next((str(_json(data).get("robot", DEFAULT)) for data in _settings(paths[0])), DEFAULT)
    return find_robot(asked)


def _settings(path: Path) -> Iterator[Any]:
    decoded = _Decoder(path)
    for topic, message, _ in decoded:
        if topic == SETTINGS:
            yield getattr(message, "data", "")
            return


def _json(text: Any) -> dict[str, Any]:
    try:
        found: object = json.loads(str(text), object_pairs_hook=unique)
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}  # type: ignore[return-value]


class _Decoder:
    """Messages of the topics in `HEARD` as objects, with when they were logged (ns)."""

    def __init__(self, path: Path, digest: Digest | None = None) -> None:
        self.reader, self._factory = Reader(path, digest), DecoderFactory()
        self._decoders: dict[int, Callable[[bytes], Any] | None] = {}

    def __iter__(self) -> Iterator[tuple[str, Any, int]]:
        for channel, message in self.reader:
            if channel.topic not in HEARD:
                continue
            if channel.schema_id not in self._decoders:
                self._decoders[channel.schema_id] = self._decoder(channel)
            decode = self._decoders[channel.schema_id]
            if decode is None:
                raise InputError(f"{self.reader.path}: {channel.topic} holds no ROS 2 messages")
            try:
                found = decode(message.data)
            except Exception as error:  # the library raises whatever its reading of the bytes runs into
                raise InputError(f"{self.reader.path}: a message on {channel.topic} cannot be read") from error
            yield channel.topic, found, message.log_time

    def _decoder(self, channel: Channel) -> Callable[[bytes], Any] | None:
        schema = self.reader.schemas.get(channel.schema_id)
        try:
            return self._factory.decoder_for(channel.message_encoding, schema)
        except Exception as error:  # or whatever its reading of the definition runs into
            raise InputError(f"{self.reader.path}: the messages on {channel.topic} are of no kind of ROS 2") from error


class _Assembler:
    """Puts control steps together out of the newest of every message."""

    def __init__(self, path: Path, robot: Robot, course: Course | None) -> None:
        self.path, self.robot, self.course = path, robot, course
        self.layout: Layout = generalist_layout(robot.joints, clock=False)
        self.newest: dict[str, Any] = {}
        self.state: str | None = None
        self.waiting: tuple[int, Sensors, np.ndarray, np.ndarray, np.ndarray] | None = None
        """A step whose state is yet to be said: time, readings, command, heights, targets."""
        self.grid: dict[str, float] = {}
        self.steps: list[list[tuple[int, Sensors, np.ndarray, np.ndarray, np.ndarray]]] = []
        self._gone_on = False

    def hear(self, topic: str, message: Any, when: int) -> None:
        """One message."""
        if topic == TARGETS:
            self._settle()
            self.waiting = self._step(message, when)
            if self.waiting is None:
                self._gone_on = False
        elif topic == STATUS:
            pairs = {pair.key: pair.value for status in message.status for pair in status.values}
            self.state = pairs.get("state", self.state)
        elif topic == SETTINGS:
            said = _json(message.data)
            self.grid = self._place_of_grid(said.get("grid"))
            course = said.get("course")
            if not isinstance(course, str | None):
                raise InputError(f"{self.path} has a header that cannot be used: its course is no text")
            if self.course is None and course is not None:
                self.course = course_files.loads(course, str(self.path))
        else:
            self.newest[topic] = message

    def _place_of_grid(self, said: Any) -> dict[str, float]:
        """Where a measured grid lies, m; empty where nothing is said."""
        if said is None:
            return {}
        try:
            place = {name: number(said[name]) for name in ("resolution", "front", "left")}
        except (KeyError, TypeError, OverflowError):
            place = {"resolution": 0.0}
        if not 0 < place["resolution"] < math.inf or not np.isfinite(list(place.values())).all():
            raise InputError(f"{self.path} has a header that cannot be used: its height grid has no place")
        return place

    def _settle(self) -> None:
        """Takes the waiting step in, where the loop ran the policy in it."""
        step, self.waiting = self.waiting, None
        if step is None or self.state not in (None, "running"):
            self._gone_on = False
            return
        period = round(LATE * self.robot.control_period * NS)
        if not self._gone_on or step[0] - self.steps[-1][-1][0] > period:
            self.steps.append([])
        self.steps[-1].append(step)
        self._gone_on = True

    def _step(self, message: Any, when: int) -> tuple[int, Sensors, np.ndarray, np.ndarray, np.ndarray] | None:
        """A step in which the drives were given targets and everything was known; None otherwise."""
        robot, point = self.robot, message.points[0] if message.points else None
        if point is None or not {JOINTS, IMU, COMMAND} <= set(self.newest):
            return None
        targets = self._ordered(message.joint_names, point.positions)
        joints, imu, twist = self.newest[JOINTS], self.newest[IMU], self.newest[COMMAND].twist
        if targets is None:
            return None
        position, speed = (self._ordered(joints.name, values) for values in (joints.position, joints.velocity))
        if position is None or speed is None:
            raise InputError(f"{self.path}: joint states lack joints of the robot {robot.name}")
        turn, rate = imu.orientation, imu.angular_velocity
        orientation = np.array([turn.w, turn.x, turn.y, turn.z])
        sensors = Sensors(orientation, np.array([rate.x, rate.y, rate.z]), position, speed)
        command = np.array([twist.linear.x, twist.linear.y, twist.angular.z])
        heights = self._heights()
        values = np.concatenate([*sensors, command, targets, heights])
        if not (np.abs(values) < LARGEST_VALUE).all() or abs(np.linalg.norm(orientation) - 1.0) > 0.1:
            raise InputError(f"{self.path}: a control step at {when} ns holds values that no step can have")
        return when, sensors, command, heights, targets

    def _ordered(self, names: Sequence[str], values: Any) -> np.ndarray | None:
        """The robot's joints among named ones; None where there is not one value a name or a joint is missing."""
        place = {name: k for k, name in enumerate(names)}
        if len(values) != len(names) or not all(name in place for name in self.robot.joint_names):
            return None
        return np.array([float(values[place[name]]) for name in self.robot.joint_names])

    def _heights(self) -> np.ndarray:
        """Terrain as the policy sees it, `[n]`: of the course's map, of a measured grid where there is one; flat where
        the place is not known."""
        odometry, robot = self.newest.get(ODOMETRY), self.robot
        if odometry is None:
            return np.zeros(self.layout.height_size, np.float32)
        at, turn = odometry.pose.pose.position, odometry.pose.pose.orientation
        yaw = obs.yaw_of(np, np.array([[turn.w, turn.x, turn.y, turn.z]]))
        place = np.array([at.x, at.y, at.z, float(yaw[0])])
        course = self.course

        def ground(x: np.ndarray, y: np.ndarray) -> np.ndarray:
            mapped = np.zeros(np.shape(x)) if course is None else course.height(x, y)
            if HEIGHTS not in self.newest or not self.grid:
                return mapped
            image = self.newest[HEIGHTS]
            if image.encoding != "32FC1" or len(image.data) != 4 * image.height * image.width or not len(image.data):
                raise InputError(f"{self.path}: a height grid holds no {image.height} x {image.width} float32 values")
            cells = np.frombuffer(bytes(image.data), "<f4").reshape(image.height, image.width)
            seen = obs.sampled(cells, x, y, place, self.grid["resolution"], self.grid["front"], self.grid["left"])
            return np.where(np.isnan(seen), mapped, seen)

        pits = None if course is None else course.pit
        seen = obs.terrain_heights(
            np, robot, self.layout, ground, place[None, :2], place[3:], place[2:3], pits=pits
        )  # fmt: skip
        return seen[0].astype(np.float32)

    def log(self, digest: str) -> Log | None:
        """Everything that was heard; None where no episode is long enough."""
        self._settle()
        kept = [steps for steps in self.steps if len(steps) >= SHORTEST]
        if not kept:
            return None
        frames, heights, actions, commands = [], [], [], []
        for steps in kept:
            _, readings, asked, seen, targets = zip(*steps, strict=True)
            sensors = Sensors(*(np.stack(values) for values in zip(*readings, strict=True)))
            action = targets_to_actions(self.robot, np.stack(targets).astype(np.float32))
            before = np.concatenate([np.zeros_like(action[:1]), action[:-1]])
            command = np.stack(asked).astype(np.float32)
            newest = obs.frame(np, self.robot, sensors, before)
            frames.append(obs.stamp(np, self.layout, newest, command, np.zeros((len(steps), 2), np.float32)))
            heights.append(np.stack(seen))
            actions.append(np.concatenate([action, np.zeros_like(action[:, :1])], 1))
            commands.append(command)
        lengths = tuple(map(len, kept))
        return Log(self.path, digest, _joined(frames), _joined(heights), _joined(actions), _joined(commands), lengths)


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts).astype(np.float32)


def read_log(path: Path, robot: Robot, course: str | None = None) -> Log | None:
    """The control steps of a recording; None where it holds no episode of `SHORTEST` steps.

    `course` is the map's name or file where the recording does not hold it. A recording that was cut off counts as far
    as it is whole; steps in which no policy ran (standing up, damping, stopping) are left out.

    Raises:
      InputError: not readable, damaged, of other joints, or with values that no step can have.
    """
    digest = hashlib.sha256()
    decoder = _Decoder(path, digest)
    assembler = _Assembler(Path(path), robot, None if course is None else by_name(course))
    for topic, message, when in decoder:
        try:
            assembler.hear(topic, message, when)
        except InputError:
            raise
        except (AttributeError, TypeError, ValueError, LookupError) as error:  # another definition of the same name
            raise InputError(f"{path}: a message on {topic} is not of its kind") from error
    return assembler.log(digest.hexdigest())


class RecordingCollector:
    """All logs of a folder as one domain, brought in the first round."""

    name = "recordings"

    def __init__(self, logs: Sequence[Log]) -> None:
        self.logs = tuple(logs)

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """Every control step; nothing new in later rounds."""
        if plan.round:
            return Experience({}, ())
        names = {"frames": "frames", "heights": "heights", "action": "actions"}
        fields = {name: np.concatenate([getattr(log, of) for log in self.logs]) for name, of in names.items()}
        fields["heights"] = fields["heights"].astype(np.float16)
        return Experience(fields, [n for log in self.logs for n in log.episodes])

    def command_ranges(self) -> dict[str, list[float]]:
        """What was asked for, with standing still among it: forward, sideways (m/s) and yaw rate (rad/s)."""
        asked = np.concatenate([log.commands for log in self.logs])
        low, high = np.minimum(asked.min(0), 0.0), np.maximum(asked.max(0), 0.0)
        pairs = zip(("forward", "sideways", "yaw"), low.tolist(), high.tolist(), strict=True)
        return {name: [a, b] for name, a, b in pairs}
