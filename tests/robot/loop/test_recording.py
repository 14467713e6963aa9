"""Recordings: what was written is read, cut files up to where they were cut, damaged ones are refused."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory

import barkour
from robot.bench import kills
from robot.bench.fault_kinds import Full
from robot.loop import recording
from robot.loop.old_recording import convert, packed_type, read_old
from robot.loop.recording import (
    HEIGHTS,
    OLD_MAGIC,
    SETTINGS,
    STEPS,
    Recorder,
    Recording,
    check_steps,
    read,
    snapshot_of,
    step_row,
    step_type,
    topics,
)
from robot.loop.transport import Mode, Output, Snapshot, State
from robot.options import ConvertOptions
from sim import messages
from sim.errors import InputError
from sim.recordings import MAGIC, ChunkWriter, Reader, finish

ROOT = Path(__file__).parents[3]
STEP = step_type(12)
HEADER = {"schema": 1, "policy": "generalist", "robot": "barkour_v0", "joints": [f"joint {k}" for k in range(12)]}


def snapshot(seed: int, heights: np.ndarray | None = None) -> Snapshot:
    rng = np.random.default_rng(seed)
    return Snapshot(
        position=rng.normal(size=12), velocity=rng.normal(size=12), effort=rng.normal(size=12), joints_time=seed,
        joints_stamp=seed + 1, orientation=rng.normal(size=4), angular_velocity=rng.normal(size=3), imu_time=seed + 2,
        pose=rng.normal(size=4), pose_time=seed + 3, command=rng.normal(size=3), command_time=seed + 4, skill=seed % 3,
        heights=heights, heights_time=seed if heights is not None else 0,
    )  # fmt: skip


def record(path: Path, count: int = 5, heights: np.ndarray | None = None, **options) -> list[Snapshot]:
    recorder = Recorder(path, HEADER, **options)
    seen = [snapshot(k, heights) for k in range(count)]
    for k, shot in enumerate(seen):
        output = Output(Mode.POSITION, np.full(12, k, np.float32), k)
        row = step_row(20 * k, 0.001 * k, 0.002, ["arm", "stop"][: k % 3], shot, State.RUNNING, output)
        recorder.step(row, shot, ("armed", "armed by hand"))
    recorder.close()
    assert not recorder.problem
    return seen


def unfinished(path: Path) -> io.FileIO:
    """A file for a recorder that leaves it as a kill would."""
    return io.FileIO(path, "x")


def chunks(data: bytes) -> list[tuple[int, int]]:
    """Where the chunks of an unfinished file begin and end."""
    found, place = [], len(MAGIC)
    while place < len(data):
        opcode, length = struct.unpack_from("<BQ", data, place)
        if opcode == 6:
            found.append((place, place + 9 + length))
        place += 9 + length
    return found


@pytest.mark.parametrize("options", [{}, {"opened": unfinished}])
def test_what_was_recorded_is_read(tmp_path, options):
    seen = record(tmp_path / "run.mcap", **options)
    found = read(tmp_path / "run.mcap")
    assert found.header == HEADER and found.lost == 0 and len(found.steps) == 5
    assert bool(found.cut) == bool(options)
    for k, wanted in enumerate(seen):
        row = found.steps[k]
        again = snapshot_of(row, None)
        for name in recording.SEEN:
            np.testing.assert_allclose(getattr(again, name), getattr(wanted, name), rtol=1e-6, err_msg=name)
        assert row["now"] == 20 * k and row["state"] == State.RUNNING and (row["targets"] == k).all()
        assert [code for code in row["requests"] if code] == [1, 3][: k % 3]


def test_a_height_grid_is_kept_once_and_holds_until_the_next(tmp_path):
    first, second = np.zeros((3, 2), np.float32), np.full((4, 5), np.nan, np.float32)
    recorder = Recorder(tmp_path / "run.mcap", HEADER)
    for k, grid in enumerate((None, first, first, second)):
        shot = snapshot(k, grid)
        shot.heights_time = {0: 0, 1: 7, 2: 7, 3: 9}[k]
        output = Output(Mode.NOTHING, np.zeros(12, np.float32), 0)
        recorder.step(step_row(k, 0, 0, [], shot, State.DISARMED, output), shot)
    recorder.close()
    found = read(tmp_path / "run.mcap")
    assert sorted(found.grids) == [1, 3]
    assert found.grid_at(0) is None
    np.testing.assert_array_equal(found.grid_at(2), first)
    np.testing.assert_array_equal(found.grid_at(3), second)


def test_other_programs_read_the_messages(tmp_path):
    """Decoded with the decoder of mcap-ros2-support by the definitions in the file, whose fields are those of ROS."""
    seen = record(tmp_path / "run.mcap", heights=np.arange(6, dtype=np.float32).reshape(3, 2))
    found: dict[str, list] = {}
    with (tmp_path / "run.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert reader.get_summary().chunk_indexes, "an index"
        for schema, channel, message, decoded in reader.iter_decoded_messages():
            assert schema.encoding == "ros2msg" and channel.message_encoding == "cdr"
            found.setdefault(channel.topic, []).append((message, decoded))
    assert set(found) == {topic.name for topic in topics(12)}
    message, joints = found["/joint_states"][2]
    assert message.log_time == 2 and joints.header.stamp.nanosec == 3 and list(joints.name) == HEADER["joints"]
    np.testing.assert_array_equal(joints.position, seen[2].position)
    np.testing.assert_array_equal(joints.velocity, seen[2].velocity)
    np.testing.assert_allclose(joints.effort, seen[2].effort, rtol=1e-6)
    imu = found["/imu/data"][2][1]
    assert [getattr(imu.orientation, k) for k in "wxyz"] == seen[2].orientation.tolist()
    assert [getattr(imu.angular_velocity, k) for k in "xyz"] == seen[2].angular_velocity.tolist()
    assert imu.header.frame_id == "base" and imu.linear_acceleration_covariance[0] == -1
    pose, odometry = seen[3].pose, found["/odom"][3][1]
    assert odometry.header.frame_id == "course" and odometry.child_frame_id == "base"
    assert [getattr(odometry.pose.pose.position, k) for k in "xyz"] == pose[:3].tolist()
    turned = odometry.pose.pose.orientation
    assert 2 * np.arctan2(turned.z, turned.w) == pytest.approx(pose[3]) and turned.x == turned.y == 0
    twist = found["/cmd_vel"][4][1].twist
    assert [twist.linear.x, twist.linear.y, twist.angular.z] == seen[4].command.tolist()
    assert [one.data for _, one in found["/skill"]] == ["walk", "climb", "jump", "walk", "climb"]
    command = found["/joint_commands"][4][1]
    assert list(command.joint_names) == HEADER["joints"] and list(command.points[0].positions) == [4.0] * 12
    (status,) = found["/diagnostics"][0][1].status
    assert status.message == "running: armed by hand" and status.hardware_id == "barkour_v0"
    assert {pair.key: pair.value for pair in status.values}["code"] == "armed"
    image = found["/height_grid"][0][1]
    assert (image.height, image.width, image.encoding) == (3, 2, "32FC1")
    assert np.frombuffer(bytes(image.data), "<f4").tolist() == list(range(6))
    steps = read(tmp_path / "run.mcap").steps
    for row, (_, decoded) in zip(steps, found[STEPS], strict=True):
        for name in steps.dtype.names:
            told = getattr(decoded, name)  # bytes where ROS says uint8[]
            assert np.array_equal(list(told) if isinstance(told, bytes) else told, row[name]), name


def test_definitions_and_bytes_are_those_of_ros():
    """Against the message packages of ROS 2 and their own deserialisation."""
    from importlib import import_module

    rclpy = pytest.importorskip("rclpy.serialization")
    for name, fields in messages.DEFINITIONS.items():
        package, _, kind = name.partition("/")
        try:
            known = getattr(import_module(f"{package}.msg"), kind).get_fields_and_field_types()
        except ModuleNotFoundError:
            assert package in ("tf2_msgs", "visualization_msgs"), name
            continue
        told = dict(reversed(line.split()) for line in fields.splitlines())
        plain = {"double": "float64", "float": "float32", "octet": "byte", "boolean": "bool"}
        for field, said in known.items():
            base, _, many = said.replace("sequence<", "").replace(">", "[]").partition("[")
            assert told[field] == plain.get(base, base) + (f"[{many}" if many else ""), (name, field)
        assert list(told) == list(known)

    from nav_msgs.msg import Odometry
    from trajectory_msgs.msg import JointTrajectory

    data = messages.odometry(5_000_000_007, [1, 2, 3], [0.1, 0.2, 0.3, 0.4], [4, 5, 6], [7, 8, 9])
    found = rclpy.deserialize_message(data, Odometry)
    assert (found.header.stamp.sec, found.header.stamp.nanosec, found.child_frame_id) == (5, 7, "base")
    assert found.pose.pose.orientation.w == 0.1 and found.twist.twist.angular.z == 9
    data = messages.joint_targets(1, ["a", "bcd"], [1.0, 2.0], 20_000_000)
    found = rclpy.deserialize_message(data, JointTrajectory)
    assert found.joint_names == ["a", "bcd"] and list(found.points[0].positions) == [1, 2]
    assert found.points[0].time_from_start.nanosec == 20_000_000


def test_every_step_is_written_at_once_and_is_a_chunk_of_its_own(tmp_path):
    writes: list[bytes] = []

    class Counted(io.FileIO):
        def write(self, data):
            writes.append(bytes(data))
            return super().write(data)

    record(tmp_path / "run.mcap", 7, opened=lambda path: Counted(path, "x"))
    assert len(writes) == 8 and len(chunks(b"".join(writes))) == 7


def test_a_recording_is_readable_up_to_where_it_was_cut(tmp_path):
    record(tmp_path / "run.mcap", opened=unfinished)
    data = (tmp_path / "run.mcap").read_bytes()
    ends = [end for _, end in chunks(data)]
    for cut in [*range(len(MAGIC) + 1, len(data), 97), *ends, *(end + 1 for end in ends[:-1])]:
        (tmp_path / "cut.mcap").write_bytes(data[:cut])
        whole = [end for end in ends if end <= cut]
        if whole:
            found = read(tmp_path / "cut.mcap")
            assert len(found.steps) == len(whole) and found.lost == cut - whole[-1]
            assert "\n" not in found.cut and str(len(whole)) in found.cut
        else:
            with pytest.raises(InputError, match="no whole control step"):
                read(tmp_path / "cut.mcap")
    (tmp_path / "zeros.mcap").write_bytes(data + bytes(5000))  # as a loss of power leaves it
    assert len(read(tmp_path / "zeros.mcap").steps) == 5


@pytest.mark.parametrize("finished", [True, False])
def test_a_flipped_bit_is_found_or_changes_nothing(tmp_path, finished):
    record(tmp_path / "run.mcap", 3, **({} if finished else {"opened": unfinished}))
    data = (tmp_path / "run.mcap").read_bytes()
    wanted, path = read(tmp_path / "run.mcap").steps.tobytes(), tmp_path / "flipped.mcap"
    refused = 0
    places = [*range(60), *range(60, len(data), 41), *range(len(data) - 60, len(data))]
    starts = [] if finished else [start for start, _ in chunks(data)[1:]]
    for place in places + [start + k for start in starts for k in range(49)]:
        bad = bytearray(data)
        bad[place] ^= 1 << place % 8
        path.write_bytes(bad)
        try:
            found = read(path)
        except InputError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            kept = found.steps.tobytes()
            assert kept == wanted or (found.cut and wanted.startswith(kept))
    assert refused > 0.9 * len(places)


def test_a_recording_never_overwrites_another(tmp_path):
    record(tmp_path / "run.mcap")
    before = (tmp_path / "run.mcap").read_bytes()
    with pytest.raises(InputError, match="never overwrites"):
        Recorder(tmp_path / "run.mcap", HEADER)
    assert (tmp_path / "run.mcap").read_bytes() == before
    with pytest.raises(InputError, match="cannot record"):
        Recorder(tmp_path / "run.mcap" / "deeper.mcap", HEADER)


@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path, short):
    path = tmp_path / "run.mcap"
    recorder = Recorder(path, HEADER, lambda p: Full(short, p, 16_000))
    output = Output(Mode.DAMP, np.zeros(12, np.float32), 0)
    for k in range(50):
        recorder.step(step_row(k, 0, 0, [], snapshot(k), State.RUNNING, output), snapshot(k))
    recorder.close()
    assert "No space left" in recorder.problem and str(path) in recorder.problem
    assert 1 <= len(read(path).steps) == recorder.written < 50


KILLED = """
import sys
from pathlib import Path
from tests.robot.loop.test_recording import HEADER, Recorder, Mode, Output, State, snapshot, step_row
import numpy as np
recorder = Recorder(Path(sys.argv[1]), HEADER)
shot, output, k = snapshot(3), Output(Mode.POSITION, np.zeros(12, np.float32), 0), 0
while True:
    recorder.step(step_row(k, 0, 0, [], shot, State.RUNNING, output), shot)
    while recorder.written <= k:
        pass
    print(k, flush=True)
    k += 1
"""


def test_what_a_killed_process_had_written_is_read_and_made_whole(tmp_path, capsys):
    path = tmp_path / "run.mcap"
    program = KILLED.replace("tests.robot.loop.test_recording", "test_recording")
    search = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": search}
    ) as process:
        assert process.stdout is not None
        for moment in (1, 90):
            for _ in range(moment):
                told = int(process.stdout.readline())
            assert len(read(path).steps) > told  # read while it is written
        process.send_signal(signal.SIGKILL)
        told = int((process.stdout.read().split(b"\n")[:-1] or [told])[-1])
    found = read(path)
    assert len(found.steps) in (told + 1, told + 2) and found.cut
    assert barkour.main(["onboard", "convert", str(path), str(tmp_path / "whole.mcap"), "--json"]) == 0
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and json.loads(said.out)["steps"] == len(found.steps)
    whole = read(tmp_path / "whole.mcap")
    assert not whole.cut and np.array_equal(whole.steps, found.steps)
    assert barkour.main(["onboard", "convert", str(path), str(tmp_path / "whole.mcap")]) == 2


def block(kind: bytes, payload: bytes) -> bytes:
    """A block as versions up to 0.1 wrote it."""
    body = kind + struct.pack("<I", len(payload)) + payload
    return body + struct.pack("<I", zlib.crc32(body))


def old(rows: np.ndarray, header: dict = HEADER, more: bytes = b"") -> bytes:
    steps = b"".join(block(b"S", row.tobytes()) for row in rows)
    return OLD_MAGIC + block(b"H", json.dumps(header).encode()) + more + steps


def test_a_recording_of_an_earlier_version_is_converted(tmp_path, capsys):
    record(tmp_path / "new.mcap")
    wanted = read(tmp_path / "new.mcap").steps
    rows = np.zeros(5, packed_type(12))
    for name in packed_type(12).names:
        rows[name] = wanted[name]
    grid = np.arange(6, dtype="<f4").reshape(2, 3)
    path, made = tmp_path / "old.rec", tmp_path / "old.mcap"
    path.write_bytes(old(rows, more=block(b"G", struct.pack("<II", 2, 3) + grid.tobytes()))[:-10])
    with pytest.raises(InputError, match="barkour onboard convert"):
        read(path)
    assert barkour.main(["onboard", "convert", str(path), str(made)]) == 0
    assert capsys.readouterr().err.count("\n") == 1
    found = read(made)
    assert found.header == HEADER and np.array_equal(found.steps, wanted[:4])
    np.testing.assert_array_equal(found.grid_at(0), grid)


OLD_BLOCKS = st.sampled_from([b"H", b"S", b"G", b"X", b""]).flatmap(
    lambda kind: st.binary(max_size=500).map(lambda payload: block(kind, payload) if kind else payload)
)


@pytest.mark.parametrize("grid_first", [False, True])
def test_an_old_recording_ends_where_it_was_cut_and_is_refused_where_it_was_changed(tmp_path, grid_first):
    grid = block(b"G", struct.pack("<II", 2, 3) + bytes(24))
    rows, path = np.zeros(3, packed_type(12)), tmp_path / "old.rec"
    whole, more = old(rows), grid if grid_first else old(rows[:1])[len(old(rows[:0])) :]
    path.write_bytes(whole + more)
    steps = len(read_old(path).steps)
    for kept in range(1, len(more)):
        path.write_bytes(whole + more[:kept])
        found = read_old(path)
        assert len(found.steps) == 3 and found.cut and found.lost == kept
    path.write_bytes(whole + bytes(5000))  # as after a loss of power
    assert len(read_old(path).steps) == 3
    for place in range(len(more)):
        changed = bytearray(more)
        changed[place] ^= 0x10
        for after in (b"", whole[-200:]):
            path.write_bytes(whole + changed + after)
            with pytest.raises(InputError):
                read_old(path)
    assert steps == 3 + (not grid_first)


@settings(max_examples=100, deadline=None)
@given(st.lists(OLD_BLOCKS, max_size=4))
def test_whatever_stands_in_an_old_file_is_converted_or_refused_in_one_line(tmp_path_factory, blocks):
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "old.rec").write_bytes(OLD_MAGIC + b"".join(blocks))
    with pytest.raises(InputError) as error:
        convert(ConvertOptions(folder / "old.rec", folder / "new.mcap"))
    assert "\n" not in str(error.value) and not (folder / "new.mcap").exists()


MESSAGES = st.lists(st.tuples(st.sampled_from([SETTINGS, STEPS, HEIGHTS]), st.binary(max_size=60)), max_size=4)


@settings(max_examples=200, deadline=None)
@given(MESSAGES, st.binary(max_size=30))
def test_whatever_stands_in_a_file_is_read_or_refused_with_a_sentence(tmp_path_factory, parts, tail):
    path, written = tmp_path_factory.mktemp("fuzz") / "run.mcap", []
    writer = ChunkWriter(written.append, topics(12))
    for topic, data in parts:
        writer.add(topic, 0, data)
        writer.flush()
    path.write_bytes(b"".join(written) + tail)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=STEP.itemsize, max_size=STEP.itemsize))
def test_a_step_of_any_bytes_is_a_step_that_can_be_or_is_refused(payload):
    steps = np.frombuffer(payload, STEP)
    row = steps[0]
    try:
        check_steps(Path("run.mcap"), steps)
    except InputError:
        return
    shot = snapshot_of(row, None)
    assert np.isfinite(shot.position).all() and np.isfinite(shot.pose).all()
    assert State(int(row["state"])) in State and Mode(int(row["mode"])) in Mode


def mcap(path: Path, *parts: tuple[str, bytes], joints: int = 12, sequence: int = 0) -> Path:
    """A file of single messages."""
    written: list[bytes] = []
    writer = ChunkWriter(written.append, topics(joints))
    for topic, data in parts:
        writer.add(topic, 0, data, sequence)
    writer.flush()
    path.write_bytes(b"".join(written))
    return path


def test_what_is_no_recording_of_the_loop_is_refused(tmp_path):
    step, path = b"\0\1\0\0" + bytes(STEP.itemsize), tmp_path / "run.mcap"
    for payload in ("[" * 100_000, "{}x", "[]", "\0"):
        with pytest.raises(InputError, match="no header"):
            read(mcap(path, (SETTINGS, messages.text(payload)), (STEPS, step)))
    settings = (SETTINGS, messages.text("{}"))
    with pytest.raises(InputError, match="no whole control step"):
        read(mcap(path, settings))
    with pytest.raises(InputError, match="step 0 is missing"):
        read(mcap(path, settings, (STEPS, step), sequence=1))
    with pytest.raises(InputError, match="bytes"):
        read(mcap(path, settings, (STEPS, step[:-1])))
    with pytest.raises(InputError, match="height grid"):
        read(mcap(path, settings, (HEIGHTS, messages.image(0, np.zeros((2, 2)))[:-1]), (STEPS, step)))
    with pytest.raises(InputError, match="another form"):
        read(mcap(path, settings, (STEPS, step), joints=1001))


def test_a_chunk_that_would_unpack_to_more_than_it_says_is_refused(tmp_path):
    import zstandard
    from mcap.data_stream import RecordBuilder
    from mcap.records import Chunk, Header

    for said in (100, 1 << 40):
        builder = RecordBuilder()
        Header(profile="", library="").write(builder)
        data = zstandard.compress(bytes(1 << 24))
        Chunk(
            compression="zstd", data=data, message_start_time=0, message_end_time=0, uncompressed_crc=0,
            uncompressed_size=said,
        ).write(builder)  # fmt: skip
        (tmp_path / "bomb.mcap").write_bytes(MAGIC + builder.end())
        with pytest.raises(InputError, match="damaged"):
            read(tmp_path / "bomb.mcap")


def test_packing_leaves_the_file_as_it_was_where_it_fails(tmp_path):
    record(tmp_path / "run.mcap", opened=unfinished)
    data = bytearray((tmp_path / "run.mcap").read_bytes())
    data[-100] ^= 1
    (tmp_path / "run.mcap").write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        finish(tmp_path / "run.mcap")
    assert (tmp_path / "run.mcap").read_bytes() == bytes(data)
    assert [path.name for path in tmp_path.iterdir()] == ["run.mcap"]
    with pytest.raises(InputError):
        list(Reader(tmp_path / "run.mcap"))


def test_a_process_that_is_killed_at_any_moment_leaves_what_it_recorded():
    ages = kills.lost(2)
    assert len(ages) == 2 and np.isfinite(ages).all()


@pytest.mark.parametrize("field", ["late", "took", "position", "velocity", "orientation", "pose", "command"])
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_step_with_a_value_that_none_can_have_is_refused(field, value):
    steps = np.zeros(3, step_type(12))
    check_steps(Path("run.mcap"), steps)
    steps[field][1] = value
    with pytest.raises(InputError, match="step 1 "):
        check_steps(Path("run.mcap"), steps)


def test_each_step_is_shown_the_newest_grid_before_it():
    grids = {5: np.ones((1, 1)), 2: np.zeros((1, 1)), 900: np.full((1, 1), 3.0)}
    recording = Recording(Path("run.mcap"), {}, np.zeros(1000, step_type(12)), grids, 0)
    assert recording.grid_at(1) is None
    found = [float(grid[0, 0]) for k in (2, 4, 5, 899, 900, 999) if (grid := recording.grid_at(k)) is not None]
    assert found == [0.0, 0.0, 1.0, 1.0, 3.0, 3.0]
