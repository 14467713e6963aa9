"""A course run as an MCAP file: what the robot did, in ROS 2 messages that Foxglove, PlotJuggler and Rerun show.

Beside joints, IMU, true pose, commands, targets, skill and contacts it holds the scene itself as shapes, so that a 3-D
panel draws the robot on the course. `launch/foxglove_run.json` is a Foxglove layout for it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from sim import messages
from sim.course.scene import foot_sensor
from sim.envs.worlds import SimulatedRobots
from sim.errors import InputError
from sim.messages import NS, Marker
from sim.recordings import ChunkWriter, Topic, finish
from sim.robots.description import Robot

JOINTS, IMU, ODOMETRY, COMMAND, SKILL = "/joint_states", "/imu/data", "/odom", "/cmd_vel", "/skill"
TARGETS, FRAMES, SCENE, PATH = "/joint_commands", "/tf", "/scene", "/path"
SCORE, PROGRESS = "/score", "/progress"
FLOOR = 30.0
"""Edge of the floor that is drawn, m."""
CHUNK = 50
"""Control steps in a chunk before the file is packed."""


def contact_topic(corner: str) -> str:
    """The topic of the force on a leg's foot."""
    return f"/contact/{corner}"


def topics(robot: Robot) -> tuple[Topic, ...]:
    """The channels of a run's recording."""
    return (
        Topic(JOINTS, "sensor_msgs/JointState"), Topic(IMU, "sensor_msgs/Imu"), Topic(ODOMETRY, "nav_msgs/Odometry"),
        Topic(COMMAND, "geometry_msgs/TwistStamped"), Topic(SKILL, "std_msgs/String"),
        Topic(TARGETS, "trajectory_msgs/JointTrajectory"), Topic(FRAMES, "tf2_msgs/TFMessage"),
        Topic(SCENE, "visualization_msgs/MarkerArray"), Topic(PATH, "nav_msgs/Path"),
        Topic(SCORE, "std_msgs/String"), Topic(PROGRESS, "std_msgs/Float64"),
        *(Topic(contact_topic(leg.corner), "geometry_msgs/WrenchStamped") for leg in robot.legs),
    )  # fmt: skip


class RunRecording:
    """Writes the first of some simulated robots, step by step, from when it stands on the course."""

    def __init__(self, path: Path, robots: SimulatedRobots, way: np.ndarray) -> None:
        """`way` are the points of the path that it is to follow, m `[N, 3]`.

        Raises:
          InputError: the file cannot be written.
        """
        self.path, self.robots, model = Path(path), robots, robots.model
        try:
            self.path.unlink(missing_ok=True)  # of an earlier run, or a pipe, to which writing would wait for ever
            self._file = self.path.open("xb")
        except OSError as error:
            raise InputError(f"cannot write {path}: {error.strerror}") from error
        self._chunks = ChunkWriter(self._append, topics(robots.robot))
        self._data = mujoco.MjData(model)
        self._frames = [_frame(model, i, robots.robot) for i in range(1, model.nbody)]
        feet = [int(model.geom_bodyid[model.geom(leg.foot).id]) for leg in robots.robot.legs]
        self._feet = [_frame(model, body, robots.robot) for body in feet]
        self._address = {model.sensor(i).name: int(model.sensor(i).adr[0]) for i in range(model.nsensor)}
        self._skill, self._score, self._steps = "", "", 0
        self._chunks.add(SCENE, 0, messages.markers(0, shapes(model, robots.robot)))
        self._chunks.add(PATH, 0, messages.path(0, way))

    def step(self, command: Sequence[float], skill: str, score: dict[str, Any]) -> None:
        """What the robot is like now, which `command` (m/s, m/s, rad/s) and skill led there, and the score so far."""
        robots, physics, add = self.robots, self.robots.physics, self._chunks.add
        robot, now = robots.robot, round(robots.time * NS)
        qpos, qvel, sensed = physics.qpos[0], physics.qvel[0], physics.sensordata[0]
        add(JOINTS, now, messages.joint_state(now, robot.joint_names, qpos[7:], qvel[6:], robots.force[0]))
        period = round(robot.control_period * NS)
        add(TARGETS, now, messages.joint_targets(now, robot.joint_names, robots.targets[0], period))
        at = self._address
        attitude, gyro, felt = (sensed[at[name] :] for name in ("orientation", "gyro", "accelerometer"))
        add(IMU, now, messages.imu(now, attitude[:4], gyro[:3], felt[:3]))
        turned = np.zeros(3)
        mujoco.mju_rotVecQuat(turned, np.array(qvel[:3]), np.array([qpos[3], *-qpos[4:7]]))
        add(ODOMETRY, now, messages.odometry(now, qpos[:3], qpos[3:7], turned, qvel[3:6]))
        add(COMMAND, now, messages.velocity_command(now, command))
        for leg, frame in zip(robot.legs, self._feet, strict=True):
            pressed = float(sensed[at[foot_sensor(leg.corner)]])
            add(contact_topic(leg.corner), now, messages.force(now, frame, (0.0, 0.0, pressed)))
        self._data.qpos[:] = qpos
        mujoco.mj_kinematics(robots.model, self._data)
        add(FRAMES, now, messages.transforms(now, self._frames, self._data.xpos[1:], self._data.xquat[1:]))
        if skill != self._skill:
            self._skill = skill
            add(SKILL, now, messages.text(skill))
        said = json.dumps(score)
        if said != self._score:
            self._score = said
            add(SCORE, now, messages.text(said))
            add(PROGRESS, now, messages.number(float(score["progress"])))
        self._steps += 1
        if self._steps % CHUNK == 0:
            self._chunks.flush()

    def close(self) -> None:
        """Ends the file and packs it; raises `InputError` where it cannot be written."""
        try:
            self._chunks.flush()
            self._file.close()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error
        finish(self.path)

    def _append(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise InputError(f"cannot write {self.path}: {error.strerror}") from error


def _frame(model: mujoco.MjModel, body: int, robot: Robot) -> str:
    """The frame of a body: `base` for the robot's own, `course` for the world's."""
    name = str(model.body(body).name)
    return "course" if body == 0 else "base" if name == robot.base_body else name or f"body_{body}"


def shapes(model: mujoco.MjModel, robot: Robot) -> list[Marker]:
    """Every geom of a model as shapes in the frames of their bodies.

    Raises:
      InputError: a geom of a kind that cannot be drawn.
    """
    found: list[Marker] = []
    for geom in range(model.ngeom):
        found += _shapes(model, geom, _frame(model, int(model.geom_bodyid[geom]), robot))
    return found


def _shapes(model: mujoco.MjModel, geom: int, frame: str) -> list[Marker]:
    kinds, kind = mujoco.mjtGeom, int(model.geom_type[geom])
    size, place, turned = model.geom_size[geom], model.geom_pos[geom], model.geom_quat[geom]
    color = model.geom_rgba[geom]
    if int(model.geom_matid[geom]) >= 0 and (color == (0.5, 0.5, 0.5, 1.0)).all():  # MuJoCo's own default
        color = model.mat_rgba[model.geom_matid[geom]]
    if kind == int(kinds.mjGEOM_PLANE):
        edges = [2 * float(half) or FLOOR for half in size[:2]]
        return [Marker(frame, 1, place - (0.0, 0.0, 0.005), turned, (*edges, 0.01), color)]
    if kind == int(kinds.mjGEOM_BOX):
        return [Marker(frame, 1, place, turned, 2 * size, color)]
    if kind == int(kinds.mjGEOM_SPHERE):
        return [Marker(frame, 2, place, turned, np.full(3, 2 * size[0]), color)]
    if kind == int(kinds.mjGEOM_ELLIPSOID):
        return [Marker(frame, 2, place, turned, 2 * size, color)]
    round_size = (2 * size[0], 2 * size[0], 2 * size[1])
    if kind == int(kinds.mjGEOM_CYLINDER):
        return [Marker(frame, 3, place, turned, round_size, color)]
    if kind == int(kinds.mjGEOM_CAPSULE):
        axis = np.zeros(3)
        mujoco.mju_rotVecQuat(axis, np.array([0.0, 0.0, float(size[1])]), turned)
        ends = [Marker(frame, 2, place + end, turned, np.full(3, 2 * size[0]), color) for end in (axis, -axis)]
        return [Marker(frame, 3, place, turned, round_size, color), *ends]
    if kind == int(kinds.mjGEOM_MESH):
        mesh = int(model.geom_dataid[geom])
        first, count = int(model.mesh_vertadr[mesh]), int(model.mesh_vertnum[mesh])
        begin, faces = int(model.mesh_faceadr[mesh]), int(model.mesh_facenum[mesh])
        corners = model.mesh_vert[first : first + count][model.mesh_face[begin : begin + faces].ravel()]
        return [Marker(frame, 11, place, turned, np.ones(3), color, corners)]
    raise InputError(f"the geom '{model.geom(geom).name}' is of a kind that cannot be drawn")
