"""Learning from recordings alone: which control steps count, what stands in them, and a bundle from end to end."""

import hashlib
import json
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import barkour
from distill.locomotion.drive import targets_to_actions
from distill.locomotion.recordings import HEARD, SHORTEST, RecordingCollector, logs_below, read_log, robot_of
from policies.bundle.reader import Bundle, Policy
from policies.transformer import generalist_layout
from robot.loop import recording
from robot.loop.transport import NEVER, NS, Mode, State
from sim import messages
from sim import observation as obs
from sim.course import files
from sim.course.description import official
from sim.errors import InputError
from sim.observation import Sensors
from sim.recordings import finish
from sim.robots.description import default_robot, robot_by_name

ROBOT = default_robot()
J, DT = ROBOT.joints, round(ROBOT.control_period * NS)
LAYOUT = generalist_layout(J, clock=False)
STOOD = 10
"""Control steps in which the robot stands up first."""


def header(**changes) -> dict:
    grid = {"resolution": 0.05, "front": 2.0, "left": 0.5}
    said = {"robot": ROBOT.name, "joints": list(ROBOT.joint_names), "course": files.dumps(official()), "grid": grid}
    return said | changes


def steps(count: int = 80, seed: int = 0) -> np.ndarray:
    """Control steps of a run that goes through the course's middle."""
    rng, rows = np.random.default_rng(seed), np.zeros(count, recording.step_type(J))
    rows["now"] = DT * (1 + np.arange(count))
    rows["state"], rows["mode"] = State.RUNNING, Mode.POSITION
    rows["state"][:STOOD] = State.STANDING_UP
    rows["position"] = ROBOT.default_pose + 0.2 * rng.standard_normal((count, J))
    rows["velocity"] = rng.standard_normal((count, J))
    rows["targets"] = ROBOT.default_pose + 0.2 * rng.standard_normal((count, J))
    turned = 0.2 * rng.standard_normal((count, 4)) + [1.0, 0.0, 0.0, 0.0]
    rows["orientation"] = turned / np.linalg.norm(turned, axis=1, keepdims=True)
    rows["angular_velocity"] = rng.standard_normal((count, 3))
    rows["command"] = rng.uniform([-0.5, -0.3, -1.0], [1.5, 0.3, 1.0], (count, 3))
    rows["pose"] = np.column_stack(
        [np.linspace(1.0, 3.5, count), np.full(count, -4.4), np.full(count, 0.21), np.zeros(count)]
    )
    for name in ("joints_time", "imu_time", "pose_time", "command_time", "joints_stamp"):
        rows[name] = rows["now"] - 1000
    rows["heights_time"] = NEVER
    return rows


def written(folder: Path, rows: np.ndarray, name: str = "a.mcap", grids=None, **changes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    recording.write(folder / name, header(**changes), rows, grids or {})
    return folder / name


@pytest.mark.parametrize("ending", ["finished", "as written", "cut off", "zeros"])
def test_a_file_is_opened_to_be_read_once_and_its_checksum_is_of_all_of_it(tmp_path, monkeypatch, ending):
    path = written(tmp_path, steps())
    if ending == "finished":
        finish(path)
    data = path.read_bytes()
    if ending in ("cut off", "zeros"):
        path.write_bytes(data[:-40] if ending == "cut off" else data + bytes(5000))
    said, read = hashlib.sha256(path.read_bytes()).hexdigest(), Counter()
    plain = Path.open

    class Counted:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def read(self, size):
            found = self.file.read(size)
            read["bytes"] += len(found)
            return found

        def fileno(self):
            return self.file.fileno()

    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Counted(plain(self, *a, **k)))
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("read again"))
    log = read_log(path, ROBOT)
    assert log is not None and log.sha256 == said
    assert path.stat().st_size <= read["bytes"] <= path.stat().st_size + 8, "its first eight bytes say what it is"


def test_what_was_sensed_and_asked_for_is_what_is_learned(tmp_path):
    rows = steps()
    log = read_log(written(tmp_path, rows), ROBOT)
    assert log is not None and log.episodes == (len(rows) - STOOD,)
    rows = rows[STOOD:]
    actions = targets_to_actions(ROBOT, rows["targets"].astype(np.float32))
    np.testing.assert_allclose(log.actions[:, :J], actions, atol=1e-5)
    assert (log.actions[:, J] == 0).all(), "of a clock nothing is known"
    sensors = Sensors(*(rows[n] for n in ("orientation", "angular_velocity", "position", "velocity")))
    before = np.concatenate([np.zeros((1, J), np.float32), actions[:-1]])
    frames = obs.stamp(
        np, LAYOUT, obs.frame(np, ROBOT, sensors, before), rows["command"].astype(np.float32), np.zeros((len(rows), 2))
    )
    np.testing.assert_allclose(log.frames, frames, atol=1e-5)
    course, pose = official(), rows["pose"]
    heights = obs.terrain_heights(
        np, ROBOT, LAYOUT, course.height, pose[:, :2], pose[:, 3], pose[:, 2], pits=course.pit
    )  # fmt: skip
    np.testing.assert_allclose(log.heights, heights, atol=1e-4)
    assert log.heights.min() < -1.0, "the board is seen as a pit"
    ranges = RecordingCollector([log]).command_ranges()
    assert ranges["forward"][0] <= 0 <= ranges["forward"][1] == pytest.approx(rows["command"][:, 0].max())


def test_a_policy_that_sees_the_same_learns_from_the_frames_it_would_have_seen(tmp_path):
    """The rows are what a policy's memory holds on the robot, its own actions included."""
    rows = steps()[STOOD:]
    log = read_log(written(tmp_path, rows), ROBOT)
    assert log is not None

    class Recorded:
        """A bundle whose actions are those of the recording."""

        robot, layout, gait = ROBOT, LAYOUT, Bundle.load(Path("models/generalist.onnx")).gait
        step = 0

        def __call__(self, observation):
            self.step += 1
            return log.actions[self.step - 1 : self.step]

    policy = Policy(Recorded())  # type: ignore[arg-type]
    for k, row in enumerate(rows):
        sensors = Sensors(*(row[n][None] for n in ("orientation", "angular_velocity", "position", "velocity")))
        targets = policy.step(sensors, row["command"][None], log.heights[k : k + 1])
        np.testing.assert_allclose(targets[0], row["targets"], atol=1e-5)
        np.testing.assert_allclose(policy.history[0, 0], log.frames[k], atol=1e-5)


def test_gaps_and_stops_end_an_episode_and_short_ones_are_left_out(tmp_path):
    rows = steps(200)[STOOD:]
    rows["now"][60:] += 5 * DT
    rows["mode"][100] = Mode.DAMP
    rows["state"][150:153] = State.SOFT_STOP
    rows["state"][153 + SHORTEST - 1 :] = State.EMERGENCY
    log = read_log(written(tmp_path, rows), ROBOT)
    assert log is not None and log.episodes == (60, 40, 49)


def test_a_measured_grid_takes_the_maps_place(tmp_path):
    rows = steps()
    grid = np.full((60, 21), 0.07, np.float32)
    log = read_log(written(tmp_path, rows, grids={0: grid}, course=None), ROBOT)
    assert log is not None
    inside = log.heights[:, : LAYOUT.grids[0].size]
    np.testing.assert_allclose(
        inside / obs.HEIGHT_SCALE, 0.07 - rows["pose"][STOOD, 2] + ROBOT.standing_height, atol=1e-4
    )


def test_joints_are_taken_by_name(tmp_path):
    order = np.random.default_rng(1).permutation(J)
    rows, other = steps(), steps()
    for name in ("position", "velocity", "targets"):
        other[name] = rows[name][:, order]
    names = [ROBOT.joint_names[k] for k in order]
    one, two = (
        read_log(written(tmp_path, rows), ROBOT),
        read_log(written(tmp_path, other, "b.mcap", joints=names), ROBOT),
    )
    assert one is not None and two is not None
    np.testing.assert_allclose(one.frames, two.frames, atol=1e-6)
    np.testing.assert_allclose(one.actions, two.actions, atol=1e-6)


def test_a_recording_that_was_cut_off_counts_as_far_as_it_is_whole(tmp_path):
    file = tmp_path / "cut.mcap"
    recorder = recording.Recorder(file, header(), opened=lambda path: path.open("xb", buffering=0))
    for row in steps():
        recorder.step(row, recording.snapshot_of(row, None))
    recorder.close()
    whole = read_log(file, ROBOT)
    file.write_bytes(file.read_bytes()[:-3000])
    cut = read_log(file, ROBOT)
    assert whole is not None and cut is not None
    assert SHORTEST < len(cut.frames) < len(whole.frames)
    np.testing.assert_array_equal(cut.frames, whole.frames[: len(cut.frames)])


GRID_LESS = [[1, 2], "abc", {"resolution": 0.05}, {"resolution": 0, "front": 1.0, "left": 1.0},
             {"resolution": float("nan"), "front": 1.0, "left": 1.0}]  # fmt: skip


@pytest.mark.parametrize("changes", [{"course": 5}, {"course": "a: ["}, *({"grid": grid} for grid in GRID_LESS)])
def test_settings_that_cannot_be_used_are_refused(changes, tmp_path):
    recording.write(tmp_path / "a.mcap", header(**changes), steps(), {})
    with pytest.raises(InputError) as said:
        read_log(tmp_path / "a.mcap", ROBOT)
    assert "a.mcap" in str(said.value) and "\n" not in str(said.value)


def test_a_recording_that_names_no_robot_is_of_the_usual_one(tmp_path):
    said = header()
    del said["robot"]
    recording.write(tmp_path / "a.mcap", said, steps(), {})
    assert robot_of([tmp_path / "a.mcap"], None).name == ROBOT.name


@pytest.mark.parametrize("shape", [(0, 4), (7, 5)])
def test_a_height_grid_of_another_size_than_its_data_is_refused(shape, tmp_path, monkeypatch):
    image = messages.image

    def wrong(now, grid):
        data = bytearray(image(now, grid))
        data[28:36] = struct.pack("<II", *shape)  # rows and columns, behind the frame's name
        return bytes(data)

    monkeypatch.setattr(messages, "image", wrong)
    rows = steps()
    rows["heights_time"] = rows["now"]
    recording.write(tmp_path / "a.mcap", header(), rows, {20: np.zeros((6, 6), np.float32)})
    with pytest.raises(InputError, match="grid"):
        read_log(tmp_path / "a.mcap", ROBOT)


@pytest.mark.parametrize("topic", HEARD)
@pytest.mark.parametrize("text", ["float64[[[ x", "", "float64 x"])
def test_messages_of_a_definition_that_is_none_or_another_are_refused(topic, text, tmp_path, monkeypatch):
    kinds = {each.name: each.kind for each in recording.topics(J)}

    def other(kind, fields=""):
        return text if kind == kinds[topic] else messages.definition(kind, fields)

    monkeypatch.setattr("sim.recordings.definition", other)
    rows = steps()
    rows["heights_time"] = rows["now"]
    recording.write(tmp_path / "a.mcap", header(), rows, {20: np.zeros((6, 6), np.float32)})
    with pytest.raises(InputError) as said:
        robot_of([tmp_path / "a.mcap"], None)
        if read_log(tmp_path / "a.mcap", ROBOT) is None:
            raise InputError("nothing in it can be learned from")
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("how", ["pipe", "device", "link to nothing", "huge", "empty"])
def test_what_cannot_be_read_among_recordings_is_refused_and_not_left_out(how, tmp_path, spoil):
    written(tmp_path, steps())
    spoil(tmp_path / "b.mcap", how)
    with pytest.raises(InputError, match=r"b\.mcap"):
        for path in logs_below(tmp_path):
            read_log(path, ROBOT)


@pytest.mark.parametrize("what", ["nothing", "text", "other robot", "no run", "not finite", "too large", "one run"])
def test_what_cannot_be_learned_from_is_one_line_and_status_2(what, tmp_path, capsys):
    logs, rows, extra = tmp_path / "logs", steps(), []
    logs.mkdir()
    if what == "text":
        (logs / "a.mcap").write_text("no recording")
    elif what == "other robot":
        written(logs, rows)
        extra = ["--robot", "unitree_go2"]
    elif what == "no run":
        rows["state"] = State.DISARMED
        written(logs, rows)
    elif what == "not finite":
        rows["position"][40, 3] = np.inf
        written(logs, rows)
    elif what == "too large":
        rows["velocity"][40, 3] = 1e300
        written(logs, rows)
    elif what == "one run":
        written(logs, rows)
    arguments = ["--recordings", str(logs), "--run", str(tmp_path / "run"), *extra]
    assert barkour.main(["distill", "locomotion", *arguments]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "unexpected" not in said and not (tmp_path / "run/options.json").exists()


@pytest.mark.parametrize(
    "option", [["--rounds", "2"], ["--teachers", "generalist"], ["--score-runs", "3"], ["--steps", "9"]]
)
def test_options_of_the_simulator_are_refused_beside_recordings(option, tmp_path, capsys):
    arguments = ["--recordings", str(tmp_path), "--run", str(tmp_path / "run"), *option]
    assert barkour.main(["distill", "locomotion", *arguments]) == 2
    said = capsys.readouterr().err
    assert option[0] in said and said.count("\n") == 1


def test_the_robot_is_the_one_that_was_recorded(tmp_path):
    file = written(tmp_path, steps())
    assert robot_of([file], None).name == ROBOT.name
    assert robot_of([file], "unitree_go2").name == robot_by_name("unitree_go2").name
    assert logs_below(tmp_path) == [file]
    with pytest.raises(InputError):
        logs_below(tmp_path / "nowhere")


def test_a_folder_of_recordings_becomes_a_bundle(tmp_path, capsys):
    for k in range(3):
        written(tmp_path / "logs", steps(120, k), f"{k}.mcap")
    file = tmp_path / "student.onnx"
    arguments = ["--recordings", str(tmp_path / "logs"), "--run", str(tmp_path / "run"), "--out", str(file)]
    small = ["--first-steps", "30", "--batch", "16", "--width", "32", "--layers", "1", "--context", "5"]
    assert barkour.main(["distill", "locomotion", *arguments, *small, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    bundle = Bundle.load(file)
    assert result["parity"] <= 1e-5 and not bundle.layout.clock and bundle.metadata.robot == ROBOT.name
    log = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in log if row["kind"] == "fit"]
    assert losses[-1] < losses[0]
    assert len(json.loads((tmp_path / "run/options.json").read_text())["recordings_sha256"]) == 3
    policy = Policy(bundle)
    still = Sensors(np.array([[1.0, 0, 0, 0]]), np.zeros((1, 3)), ROBOT.default_pose[None], np.zeros((1, J)))
    assert np.isfinite(policy.step(still, np.array([[0.5, 0, 0]]), np.zeros((1, bundle.layout.height_size)))).all()
