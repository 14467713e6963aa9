"""A course run's MCAP file: what was simulated stands in it, every shape of the scene too, and the layouts fit it."""

import fcntl
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.run_recording import RunRecording, contact_topic, shapes, topics
from policies.skills.library import load_skills
from sim.course.description import official
from sim.course.scene import course_model, robot_spec
from sim.errors import InputError
from sim.robots.description import find_robot

ROOT = Path(__file__).parents[3]
STEPS = 40


def decoded(path: Path) -> dict[str, list]:
    """Topic -> its messages, by a decoder that is not ours."""
    found: dict[str, list] = {}
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        for _, channel, message, content in reader.iter_decoded_messages():
            found.setdefault(channel.topic, []).append((message.log_time, content))
    return found


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> SimpleNamespace:
    """A short run: what was simulated, and what stands in its file."""
    worlds = CourseWorlds(official(), load_skills("specialists"), [0])
    path, kept = tmp_path_factory.mktemp("run") / "run.mcap", []
    recording = RunRecording(path, worlds.robots, worlds.way())
    for _ in range(STEPS):
        worlds.step()
        physics, trace = worlds.robots.physics, worlds.traces[0]
        kept.append([np.array(a) for a in (physics.qpos[0], physics.qvel[0], worlds.robots.force[0])])
        recording.step(trace.command[-1], trace.skill[-1], worlds.so_far(0))
    recording.close()
    return SimpleNamespace(worlds=worlds, kept=kept, found=decoded(path), path=path)


def test_what_the_robot_did_stands_in_the_file(recorded):
    found, worlds = recorded.found, recorded.worlds
    robot = worlds.robots.robot
    assert set(found) == {topic.name for topic in topics(robot)}
    for k in (0, STEPS - 1):
        qpos, qvel, force = recorded.kept[k]
        time, joints = found["/joint_states"][k]
        assert time == (k + 1) * 20_000_000 and list(joints.name) == list(robot.joint_names)
        assert list(joints.position) == qpos[7:].tolist() and list(joints.velocity) == qvel[6:].tolist()
        assert list(joints.effort) == force.tolist()
        pose = found["/odom"][k][1].pose.pose
        assert [pose.position.x, pose.position.y, pose.position.z] == qpos[:3].tolist()
        assert [getattr(pose.orientation, axis) for axis in "wxyz"] == qpos[3:7].tolist()
        (base, *_) = found["/tf"][k][1].transforms
        assert base.child_frame_id == "base" and base.transform.translation.x == qpos[0]
    moved = found["/odom"][-1][1]
    step = np.array(recorded.kept[-1][0][:2] - recorded.kept[-2][0][:2]) / robot.control_period
    heading = worlds.robots.pose[0, 2]
    forward = step @ [np.cos(heading), np.sin(heading)]
    assert moved.twist.twist.linear.x == pytest.approx(forward, abs=0.15)
    assert found["/skill"][0][1].data == worlds.traces[0].skill[1]
    assert [found["/cmd_vel"][-1][1].twist.linear.x] == pytest.approx([worlds.traces[0].command[-1][0]])
    standing = sum(found[contact_topic(leg.corner)][2][1].wrench.force.z for leg in robot.legs)
    assert standing > 10.0, "a robot that stands presses on the ground"
    assert json.loads(found["/score"][0][1].data)["progress"] == found["/progress"][0][1].data
    assert len(found["/path"][0][1].poses) == len(worlds.way())


def test_a_recording_takes_the_place_of_a_pipe_which_it_would_wait_for(recorded, tmp_path, spoil):
    path = tmp_path / "run.mcap"
    spoil(path, "pipe")
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a recording that opens the pipe fails here, and does not wait
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 2**20)
    try:
        RunRecording(path, recorded.worlds.robots, recorded.worlds.way()).close()
    finally:
        os.close(reader)
    assert path.is_file() and "/path" in decoded(path)


def rotation(quaternion) -> np.ndarray:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.array([quaternion.w, quaternion.x, quaternion.y, quaternion.z]))
    return matrix.reshape(3, 3)


def test_every_geom_is_drawn_where_mujoco_has_it(recorded):
    """The boxes around the drawn shapes of each body, placed by `/tf`, are MuJoCo's own."""
    model = recorded.worlds.robots.model
    data = mujoco.MjData(model)
    data.qpos[:] = recorded.kept[-1][0]
    mujoco.mj_kinematics(model, data)
    frames = {t.child_frame_id: t.transform for t in recorded.found["/tf"][-1][1].transforms}
    drawn: list[tuple[np.ndarray, np.ndarray]] = []
    for marker in recorded.found["/scene"][0][1].markers:
        place, turn = np.zeros(3), np.eye(3)
        if marker.header.frame_id != "course":
            frame = frames[marker.header.frame_id]
            place = np.array([frame.translation.x, frame.translation.y, frame.translation.z])
            turn = rotation(frame.rotation)
        own = marker.pose.position
        drawn.append((place + turn @ [own.x, own.y, own.z], np.array([marker.scale.x, marker.scale.y, marker.scale.z])))
    kinds = mujoco.mjtGeom
    for geom in range(model.ngeom):
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        if kind == int(kinds.mjGEOM_PLANE):
            continue
        wanted = 2 * size if kind == int(kinds.mjGEOM_BOX) else np.array([2 * size[0]] * 3)
        if kind in (int(kinds.mjGEOM_CAPSULE), int(kinds.mjGEOM_CYLINDER)):
            wanted[2] = 2 * size[1]
        near = [
            scale for at, scale in drawn if np.allclose(at, data.geom_xpos[geom], atol=1e-6)
        ]  # fmt: skip
        assert any(np.allclose(scale, wanted, atol=1e-6) for scale in near), model.geom(geom).name


@pytest.mark.parametrize("name", ["barkour_v0", "unitree_go2"])
def test_every_robot_can_be_drawn(name):
    robot = find_robot(name)
    model = course_model(official(), robot)
    assert len(shapes(model, robot)) >= model.ngeom


def test_meshes_are_drawn_by_their_triangles_and_unknown_kinds_are_refused(tmp_path):
    robot = find_robot("barkour_v0")
    spec = robot_spec(robot)
    spec.add_mesh(name="wedge", uservert=[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1])
    trunk = spec.body(robot.base_body)
    trunk.add_geom(name="wedge", type=mujoco.mjtGeom.mjGEOM_MESH, meshname="wedge", contype=0, conaffinity=0)
    model = spec.compile()
    (wedge,) = (shape for shape in shapes(model, robot) if shape.kind == 11)
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, np.array(wedge.orientation))
    corners = wedge.position + np.asarray(wedge.points) @ turn.reshape(3, 3).T
    assert len(corners) == 12
    found = {tuple(row) for row in np.abs(corners.round(4)).tolist()}
    assert found == {(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)}
    model.geom_type[model.geom("wedge").id] = mujoco.mjtGeom.mjGEOM_SDF
    with pytest.raises(InputError, match="wedge"):
        shapes(model, robot)


def follow(content, path: str):
    """The value at a message path as Foxglove writes it, such as `.points[0].positions[2]`."""
    for field, index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        content = getattr(content, field) if field else content[int(index)]
    return content


def paths_in(layout: dict) -> set[str]:
    """Message paths in a layout, topics of its 3-D panels among them."""
    found: set[str] = set()
    for name, panel in layout["configById"].items():
        found |= {path["value"] for path in panel.get("paths", [])} | set(panel.get("topics", {}))
        if "topicPath" in panel:
            found.add(panel["topicPath"])
        assert name.partition("!")[0] in ("3D", "Plot", "StateTransitions", "RawMessages")
    return found


def panels_of(layout) -> list[str]:
    return [layout] if isinstance(layout, str) else panels_of(layout["first"]) + panels_of(layout["second"])


@pytest.mark.parametrize("kind", ["run", "onboard"])
def test_the_layouts_show_what_recordings_hold(recorded, kind):
    layout = json.loads((ROOT / "launch" / f"foxglove_{kind}.json").read_text())
    assert sorted(panels_of(layout["layout"])) == sorted(layout["configById"])
    onboard = ROOT / "tests" / "robot" / "loop" / "recordings" / "specialists_seed_3.mcap"
    found = recorded.found if kind == "run" else decoded(onboard)
    for path in sorted(paths_in(layout)):
        topic = max((name for name in found if path == name or path.startswith(name + ".")), key=len, default="")
        assert topic, f"{path}: no such topic"
        value = follow(found[topic][-1][1], path[len(topic) :])
        assert path == topic or isinstance(value, (float, int, str))
        if isinstance(value, float):
            assert np.isfinite(value), path
