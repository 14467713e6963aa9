"""Recordings: what was written is read, cut files up to where they were cut, anything else in a file is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.bench.faults import Full
from robot.loop import recording
from robot.loop.recording import MAGIC, Recorder, block, read, snapshot_of, step_row, step_type
from robot.loop.transport import Mode, Output, Snapshot, State
from sim.errors import InputError

STEP = step_type(12)
HEADER = {"schema": 1, "policy": "generalist"}


def snapshot(seed: int, heights: np.ndarray | None = None) -> Snapshot:
    rng = np.random.default_rng(seed)
    return Snapshot(
        position=rng.normal(size=12), velocity=rng.normal(size=12), effort=rng.normal(size=12), joints_time=seed,
        joints_stamp=seed + 1, orientation=rng.normal(size=4), angular_velocity=rng.normal(size=3), imu_time=seed + 2,
        pose=rng.normal(size=4), pose_time=seed + 3, command=rng.normal(size=3), command_time=seed + 4, skill=seed % 3,
        heights=heights, heights_time=seed if heights is not None else 0,
    )  # fmt: skip


def record(path: Path, count: int = 5, heights: np.ndarray | None = None) -> list[Snapshot]:
    recorder = Recorder(path, HEADER)
    seen = [snapshot(k, heights) for k in range(count)]
    for k, shot in enumerate(seen):
        output = Output(Mode.POSITION, np.full(12, k, np.float32), k)
        recorder.step(step_row(20 * k, 0.001 * k, 0.002, ["arm", "stop"][: k % 3], shot, State.RUNNING, output), shot)
    recorder.close()
    assert not recorder.problem
    return seen


def test_what_was_recorded_is_read(tmp_path):
    seen = record(tmp_path / "run.rec")
    found = read(tmp_path / "run.rec")
    assert found.header == HEADER and found.lost == 0 and len(found.steps) == 5
    for k, wanted in enumerate(seen):
        row = found.steps[k]
        again = snapshot_of(row, None)
        for name in recording.SEEN:
            np.testing.assert_allclose(getattr(again, name), getattr(wanted, name), rtol=1e-6, err_msg=name)
        assert row["now"] == 20 * k and row["state"] == State.RUNNING and (row["targets"] == k).all()
        assert [code for code in row["requests"] if code] == [1, 3][: k % 3]


def test_a_height_grid_is_kept_once_and_holds_until_the_next(tmp_path):
    first, second = np.zeros((3, 2), np.float32), np.full((4, 5), np.nan, np.float32)
    recorder = Recorder(tmp_path / "run.rec", HEADER)
    for k, grid in enumerate((None, first, first, second)):
        shot = snapshot(k, grid)
        shot.heights_time = {0: 0, 1: 7, 2: 7, 3: 9}[k]
        output = Output(Mode.NOTHING, np.zeros(12, np.float32), 0)
        recorder.step(step_row(k, 0, 0, [], shot, State.DISARMED, output), shot)
    recorder.close()
    found = read(tmp_path / "run.rec")
    assert sorted(found.grids) == [1, 3]
    assert found.grid_at(0) is None
    np.testing.assert_array_equal(found.grid_at(2), first)
    np.testing.assert_array_equal(found.grid_at(3), second)


def test_a_recording_is_readable_up_to_where_it_was_cut(tmp_path):
    record(tmp_path / "run.rec")
    data = (tmp_path / "run.rec").read_bytes()
    whole = len(block(b"S", bytes(STEP.itemsize)))
    for missing in range(1, len(data) - len(MAGIC), 7):
        (tmp_path / "cut.rec").write_bytes(data[:-missing])
        left = 5 - -(-missing // whole)
        if left > 0:
            found = read(tmp_path / "cut.rec")
            assert len(found.steps) == left and found.lost == (-missing) % whole
        else:
            with pytest.raises(InputError, match="no whole control step"):
                read(tmp_path / "cut.rec")


def test_a_flipped_bit_ends_the_recording_there(tmp_path):
    record(tmp_path / "run.rec")
    data = bytearray((tmp_path / "run.rec").read_bytes())
    whole = len(block(b"S", bytes(STEP.itemsize)))
    data[-2 * whole - 40] ^= 4
    (tmp_path / "run.rec").write_bytes(data)
    found = read(tmp_path / "run.rec")
    assert len(found.steps) == 2 and found.lost == 3 * whole


def test_a_recording_never_overwrites_another(tmp_path):
    record(tmp_path / "run.rec")
    before = (tmp_path / "run.rec").read_bytes()
    with pytest.raises(InputError, match="never overwrites"):
        Recorder(tmp_path / "run.rec", HEADER)
    assert (tmp_path / "run.rec").read_bytes() == before
    with pytest.raises(InputError, match="cannot record"):
        Recorder(tmp_path / "run.rec" / "deeper.rec", HEADER)


@pytest.mark.parametrize("short", [False, True])
def test_a_full_disk_ends_the_recording_and_nothing_else(tmp_path, short):
    path = tmp_path / "run.rec"
    recorder = Recorder(path, HEADER, lambda p: Full(short, p))
    output = Output(Mode.DAMP, np.zeros(12, np.float32), 0)
    for k in range(50):
        recorder.step(step_row(k, 0, 0, [], snapshot(k), State.RUNNING, output), snapshot(k))
    recorder.close()
    assert "No space left" in recorder.problem and str(path) in recorder.problem
    assert 1 <= len(read(path).steps) <= 4


BLOCKS = st.sampled_from([b"H", b"S", b"G", b"X", b""]).flatmap(
    lambda kind: st.binary(max_size=STEP.itemsize + 3).map(lambda payload: block(kind, payload) if kind else payload)
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.lists(BLOCKS, max_size=4), st.booleans())
def test_whatever_stands_in_a_file_is_read_or_refused_with_a_sentence(tmp_path_factory, head, blocks, magic):
    path = tmp_path_factory.mktemp("fuzz") / "run.rec"
    path.write_bytes((MAGIC if magic else head) + b"".join(blocks))
    try:
        found = read(path)
    except InputError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    else:
        assert len(found.steps) >= 1


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=STEP.itemsize, max_size=STEP.itemsize))
def test_a_step_of_any_bytes_is_a_step_that_can_be_or_is_refused(tmp_path_factory, payload):
    path = tmp_path_factory.mktemp("fuzz") / "run.rec"
    path.write_bytes(MAGIC + block(b"H", b"{}") + block(b"S", payload))
    try:
        row = read(path).steps[0]
    except InputError:
        return
    shot = snapshot_of(row, None)
    assert np.isfinite(shot.position).all() and np.isfinite(shot.pose).all()
    assert State(int(row["state"])) in State and Mode(int(row["mode"])) in Mode


def test_a_header_that_is_deep_or_huge_is_refused(tmp_path):
    path = tmp_path / "run.rec"
    for payload in (b"[" * 100_000, b"{}x", b"[]", b"\xff"):
        path.write_bytes(MAGIC + block(b"H", payload) + block(b"S", bytes(STEP.itemsize)))
        with pytest.raises(InputError, match="no header"):
            read(path)
    path.write_bytes(MAGIC + block(b"H", b"{}") + b"S" + struct.pack("<I", 2**31) + bytes(64))
    with pytest.raises(InputError, match="no whole control step"):
        read(path)
