"""What comes in: believed where it makes sense, refused with a sentence where not, and nothing ever raised."""

import copy
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from robot.loop.transport import AGREE, NS, RELOCATED, Intake, Plausible
from sim.robots.description import barkour_v0

ROBOT = barkour_v0()
NAMES = ROBOT.joint_names
POSE = np.array(ROBOT.default_pose, float)
STILL = np.zeros(12)
LEVEL = [1.0, 0.0, 0.0, 0.0]


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.time = NS

    def __call__(self) -> int:
        return self.time

    def on(self, seconds: float) -> int:
        self.time += round(seconds * NS)
        return self.time


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def intake(now) -> Intake:
    return Intake(ROBOT, now)


def said(intake: Intake) -> str:
    return " | ".join(intake.refusals.last.values())


# --- whatever comes ---------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(
    st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=3), st.complex_numbers(),
    st.binary(max_size=3),
)  # fmt: skip
ANYTHING = st.one_of(
    NUMBERS,
    st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=2), inner)),
    st.lists(st.floats(), min_size=12, max_size=12),
    st.lists(st.floats(-0.2, 1.2), min_size=3, max_size=4),
    npst.arrays(st.sampled_from([np.float64, np.float32, np.int8, np.complex64, object, "U3"]), st.integers(0, 13)),
    st.just(NAMES),
    st.permutations(NAMES),
    st.just(LEVEL),
)
MESSAGES = st.one_of(
    st.tuples(st.just("joints"), st.tuples(*[ANYTHING] * 5)),
    st.tuples(st.just("imu"), st.tuples(*[ANYTHING] * 3)),
    st.tuples(st.just("odometry"), st.tuples(*[ANYTHING] * 3)),
    st.tuples(st.just("velocity_command"), st.tuples(*[ANYTHING] * 2)),
    st.tuples(st.just("skill"), st.tuples(ANYTHING)),
    st.tuples(st.just("height_grid"), st.tuples(ANYTHING)),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(MESSAGES, min_size=1, max_size=6), st.booleans())
def test_nothing_raises_whatever_comes_and_what_is_refused_changes_nothing(messages, moving):
    now = Now()
    intake = Intake(ROBOT, now)
    intake.moving = moving
    assert intake.joints(NAMES, POSE, STILL) and intake.imu(LEVEL, [0.0] * 3) and intake.odometry([0, 0, 0.2], LEVEL)
    for kind, values in messages:
        now.on(0.004)
        before = copy.deepcopy(vars(intake.snapshot()))
        count = sum(intake.refusals.counts.values())
        if not getattr(intake, kind)(*values):
            for name, value in vars(intake.snapshot()).items():
                np.testing.assert_array_equal(value, before[name], err_msg=f"{kind} {name}")
            assert sum(intake.refusals.counts.values()) > count
        seen = intake.snapshot()
        for name in ("position", "velocity", "orientation", "angular_velocity", "pose", "command"):
            assert np.isfinite(getattr(seen, name)).all(), name
        assert abs(np.linalg.norm(seen.orientation) - 1) < 1e-9 and seen.skill in (0, 1, 2)
        assert all("\n" not in sentence for sentence in intake.refusals.last.values())


def test_wrong_arguments_are_a_refusal(intake):
    assert not intake.joints() and not intake.imu(LEVEL, nobody=3)
    assert "no such message (TypeError)" in said(intake)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"names": NAMES[:11]}, "'knee_hind_right' is missing (1 of 12)"),
        ({"names": [*NAMES[:11], NAMES[0]]}, "is missing"),
        ({"names": [*NAMES, NAMES[0]]}, "named twice"),
        ({"names": [7, *NAMES[1:]]}, "is no text"),
        ({"position": POSE[:11]}, "11 numbers came, 12 are needed"),
        ({"position": [str(q) for q in POSE]}, "0 numbers came"),
        ({"position": POSE[None]}, "12 are needed"),
        ({"velocity": np.where(np.arange(12) == 3, np.nan, 0)}, "not finite (nan)"),
        ({"velocity": np.full(12, 61.0)}, "turns at 61.0 rad/s, limit 60.0"),
        ({"position": POSE + 3.0}, "its range is"),
        ({"effort": [0.0] * 11}, "11 torques came for 12 joints"),
        ({"effort": [np.inf] * 12}, "infinite"),
        ({"stamp": 0.5}, "no whole number"),
    ],
)
def test_joint_messages_that_are_refused_say_why(intake, change, words):
    message = {"names": NAMES, "position": POSE, "velocity": STILL, "effort": (), "stamp": 5}
    assert not intake.joints(**{**message, **change})
    assert words in said(intake)
    assert intake.joints(**message)


def test_joints_are_matched_by_name_and_others_left_out(intake):
    names = [*NAMES[::-1], "tail"]
    assert intake.joints(names, [*POSE[::-1], 9.0], [*np.arange(12.0)[::-1], 9.0], [*np.arange(12.0)[::-1], 9.0])
    seen = intake.snapshot()
    np.testing.assert_array_equal(seen.position, POSE)
    np.testing.assert_array_equal(seen.velocity, np.arange(12.0))
    np.testing.assert_array_equal(seen.effort, np.arange(12.0))
    assert "'tail' is no joint of this robot" in said(intake)


def test_torques_may_be_missing(intake):
    for effort in ((), None, [np.nan] * 12):
        assert intake.joints(NAMES, POSE, STILL, effort)
        assert np.isnan(intake.snapshot().effort).all()


def test_arrays_are_copied(intake):
    command, rate, grid, q = np.ones(3), np.zeros(3), np.zeros((2, 2), np.float32), np.array(POSE)
    assert intake.velocity_command(command) and intake.imu(LEVEL, rate) and intake.height_grid(grid)
    assert intake.joints(NAMES, q, STILL)
    for array in (command, rate, grid, q):
        array[:] = np.nan
    seen = intake.snapshot()
    assert all(np.isfinite(a).all() for a in (seen.command, seen.angular_velocity, seen.heights, seen.position))


# --- jumps ------------------------------------------------------------------------------------------------------------


def test_joints_may_move_as_their_speed_says_and_not_otherwise(intake, now):
    assert intake.joints(NAMES, POSE, STILL)
    now.on(0.02)
    assert intake.joints(NAMES, POSE + 0.25, np.full(12, 20.0))
    now.on(0.004)
    assert not intake.joints(NAMES, POSE + 0.6, np.zeros(12))
    assert "jumped by" in said(intake)
    now.on(0.004)
    assert intake.joints(NAMES, POSE + 0.3, np.zeros(12))


def test_what_happens_between_readings_that_are_far_apart_is_not_a_jump(intake, now):
    """A swing of 8 Hz and 24 rad/s, read every 4 ms and with holes of up to 40 ms."""
    rng = np.random.default_rng(0)
    for gap in rng.choice([0.004, 0.004, 0.004, 0.02, 0.04], 500):
        angle = 2 * np.pi * 8 * now.on(gap) / NS
        q, v = POSE + 0.48 * np.sin(angle), np.full(12, 24.0 * np.cos(angle))
        assert intake.joints(NAMES, q, v), said(intake)


def test_an_offset_is_not_believed_before_the_sensor_counts_as_silent(intake, now):
    assert intake.joints(NAMES, POSE, STILL)
    for _ in range(20):
        now.on(0.004)
        assert not intake.joints(NAMES, POSE + np.where(np.arange(12) == 2, 0.7, 0.0), STILL)
    now.on(0.5)
    assert intake.joints(NAMES, POSE + np.where(np.arange(12) == 2, 0.7, 0.0), STILL)


def test_attitude_may_turn_as_the_gyro_says(intake, now):
    assert intake.imu(LEVEL, [0.0] * 3)
    now.on(0.004)
    assert not intake.imu([np.cos(0.2), np.sin(0.2), 0.0, 0.0], [0.0] * 3)
    assert "attitude jumped by 0.400 rad" in said(intake)
    now.on(0.05)
    assert intake.imu([np.cos(0.2), np.sin(0.2), 0.0, 0.0], [8.0, 0.0, 0.0])
    now.on(0.004)
    assert intake.imu([-np.cos(0.2), -np.sin(0.2), 0.0, 0.0], [8.0, 0.0, 0.0])  # the same attitude


def test_a_pose_elsewhere_is_believed_when_it_stays_there(intake, now):
    def pose(x: float) -> bool:
        now.on(0.008)
        return intake.odometry([x, 0.0, 0.2], LEVEL)

    assert pose(0.0)
    assert not any(pose(5.0 + 3.0 * (k % 2)) for k in range(3 * RELOCATED))
    assert pose(0.1)
    assert [pose(5.0) for _ in range(RELOCATED)].index(True) == RELOCATED - 1
    assert not intake.odometry([1e9, 0.0, 0.0], LEVEL) and "from the origin" in said(intake)


# --- stamps -----------------------------------------------------------------------------------------------------------


def commands(intake: Intake, now: Now, *stamps: float, every: float = 0.02) -> list[bool]:
    """Whether commands with these stamps (s, added to the time) are believed."""
    return [intake.velocity_command([0.0] * 3, now.on(every) + round(stamp * NS)) for stamp in stamps]


def test_a_clock_that_was_set_is_believed_when_several_agree(intake, now):
    assert all(commands(intake, now, *[0.0] * 5))
    for jump in (5.0, 0.0, -5.0, 0.0):
        assert commands(intake, now, *[jump] * 6) == [False] * (AGREE - 1) + [True] * (7 - AGREE)
        assert "clock was set by" in said(intake)


def test_a_single_odd_stamp_is_left_out(intake, now):
    assert all(commands(intake, now, 0.0, 0.0))
    for jump in (0.3, 5.0, -5.0, -0.3):
        assert commands(intake, now, jump, 0.0, 0.0) == [False, True, True]


def test_old_messages_are_not_a_clock_that_was_set(intake, now):
    assert all(commands(intake, now, 0.0, 0.0))
    assert not any(commands(intake, now, *[-0.3] * 40))
    assert "late" in said(intake)
    assert all(commands(intake, now, 0.0, 0.0))


def test_after_a_silence_a_sender_may_have_another_clock(intake, now):
    assert all(commands(intake, now, 0.0, 0.0))
    now.on(2.0)
    assert all(commands(intake, now, -0.5, -0.5, -0.5))


def test_a_stamp_that_stands_still_is_refused_however_long(intake, now):
    assert intake.velocity_command([0.0] * 3, 77)
    for _ in range(5):
        now.on(0.7)
        assert not intake.velocity_command([0.0] * 3, 77)


def test_clocks_may_drift_for_an_hour(intake, now):
    drift = 1e-4
    assert all(all(commands(intake, now, -drift * 0.5 * k, every=0.5)) for k in range(7200))


def test_readings_of_a_moving_robot_must_change(intake, now):
    intake.moving = True
    readings = [intake.imu(LEVEL, [0.0] * 3) for _ in range(8) if now.on(0.004)]
    assert readings[:3] == [True] * 3 and not any(readings[4:])
    assert "have not changed" in said(intake)
    assert intake.imu(LEVEL, [0.1, 0.0, 0.0])
    intake.moving = False
    now.on(0.5)
    assert intake.imu(LEVEL, [0.1, 0.0, 0.0]) and intake.imu(LEVEL, [0.1, 0.0, 0.0])


# --- threads ----------------------------------------------------------------------------------------------------------


def test_messages_from_several_threads_leave_no_mixture():
    intake = Intake(ROBOT, Now(), plausible=Plausible(jump=10.0))
    ending = threading.Event()

    def send(value: float) -> None:
        while not ending.is_set():
            intake.joints(NAMES, POSE + value, np.full(12, value), np.full(12, value))

    threads = [threading.Thread(target=send, args=(0.1 * k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            seen = intake.snapshot()
            if np.isfinite(seen.effort).all():
                np.testing.assert_allclose(seen.position - POSE, seen.velocity)
                np.testing.assert_array_equal(seen.velocity, seen.effort)
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def test_a_log_that_fails_is_no_fault(intake):
    def broken(text: str) -> None:
        raise BrokenPipeError

    intake.refusals.log = broken
    assert not intake.skill(9) and intake.refusals.counts["skill"] == 1
