"""What comes in: believed where it makes sense, refused with a sentence where not, and nothing ever raised."""

import copy
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.refusals import Code, Refusal, Source
from robot.loop.transport import NS
from sim.robots.description import default_robot

ROBOT = default_robot()
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
def messages(now) -> MessageFilter:
    return MessageFilter(ROBOT, now)


def newest(messages: MessageFilter) -> Refusal:
    """The last refusal or note of a kind that came for the first time."""
    return list(messages.refusals.last.values())[-1]


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
def test_nothing_raises_whatever_comes_and_what_is_refused_changes_nothing(sent, moving):
    now = Now()
    messages = MessageFilter(ROBOT, now)
    messages.moving = moving
    assert messages.joints(NAMES, POSE, STILL) and messages.imu(LEVEL, [0.0] * 3)
    assert messages.odometry([0, 0, 0.2], LEVEL)
    for kind, values in sent:
        now.on(0.004)
        before = copy.deepcopy(vars(messages.snapshot()))
        count = sum(messages.refusals.counts.values())
        if not getattr(messages, kind)(*values):
            for name, value in vars(messages.snapshot()).items():
                np.testing.assert_array_equal(value, before[name], err_msg=f"{kind} {name}")
            assert sum(messages.refusals.counts.values()) > count
        seen = messages.snapshot()
        for name in ("position", "velocity", "orientation", "angular_velocity", "pose", "command"):
            assert np.isfinite(getattr(seen, name)).all(), name
        assert abs(np.linalg.norm(seen.orientation) - 1) < 1e-9 and seen.skill in (0, 1, 2)
        assert all("\n" not in sentence for sentence in messages.refusals.sentences().values())
        assert all(type(refusal.code) is Code for refusal in messages.refusals.last.values())


def test_wrong_arguments_are_a_refusal(messages):
    assert not messages.joints() and not messages.imu(LEVEL, nobody=3)
    assert messages.refusals.counts == {"joints malformed": 1, "imu malformed": 1}


@pytest.mark.parametrize(
    ("change", "code", "value", "limit"),
    [
        ({"names": NAMES[:11]}, Code.MISSING_JOINT, 11, 12),
        ({"names": [*NAMES[:11], NAMES[0]]}, Code.MISSING_JOINT, 11, 12),
        ({"names": [*NAMES, NAMES[0]]}, Code.DUPLICATE_JOINT, None, None),
        ({"names": [7, *NAMES[1:]]}, Code.MALFORMED, None, None),
        ({"position": POSE[:11]}, Code.MALFORMED, 11, 12),
        ({"position": [str(q) for q in POSE]}, Code.MALFORMED, 0, 12),
        ({"position": POSE[None]}, Code.MALFORMED, 12, 12),
        ({"velocity": np.where(np.arange(12) == 3, np.nan, 0)}, Code.NOT_FINITE, None, None),
        ({"velocity": np.full(12, 61.0)}, Code.TOO_FAST, 61.0, 60.0),
        ({"position": POSE + 3.0}, Code.OUT_OF_RANGE, 3.0, float(ROBOT.joint_upper[0])),
        ({"effort": [0.0] * 11}, Code.MALFORMED, 11, 12),
        ({"effort": [np.inf] * 12}, Code.NOT_FINITE, None, None),
        ({"stamp": 0.5}, Code.MALFORMED, None, None),
    ],
)
def test_joint_messages_that_are_refused_say_why(messages, change, code, value, limit):
    message = {"names": NAMES, "position": POSE, "velocity": STILL, "effort": (), "stamp": 5}
    assert not messages.joints(**{**message, **change})
    refusal = newest(messages)
    assert (refusal.source, refusal.code) == (Source.JOINTS, code)
    for seen, wanted in ((refusal.value, value), (refusal.limit, limit)):
        assert wanted is None or seen == pytest.approx(wanted, abs=1e-6)
    assert messages.joints(**message)


def test_joints_are_matched_by_name_and_others_left_out(messages):
    names = [*NAMES[::-1], "tail"]
    assert messages.joints(names, [*POSE[::-1], 9.0], [*np.arange(12.0)[::-1], 9.0], [*np.arange(12.0)[::-1], 9.0])
    seen = messages.snapshot()
    np.testing.assert_array_equal(seen.position, POSE)
    np.testing.assert_array_equal(seen.velocity, np.arange(12.0))
    np.testing.assert_array_equal(seen.effort, np.arange(12.0))
    assert newest(messages).code == Code.FOREIGN_JOINT


@pytest.mark.parametrize("what", ["position", "velocity", "effort"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_what_a_joint_of_another_machine_reads_is_no_matter(messages, what, odd):
    """Broadcasters send NaN for what hardware does not report."""
    message = {"position": [*POSE, 0.1], "velocity": [*STILL, 0.0], "effort": [*STILL, 0.0]}
    message[what][-1] = odd
    assert messages.joints([*NAMES, "arm"], **message)
    np.testing.assert_array_equal(messages.snapshot().position, POSE)


def test_torques_may_be_missing(messages):
    for effort in ((), None, [np.nan] * 12):
        assert messages.joints(NAMES, POSE, STILL, effort)
        assert np.isnan(messages.snapshot().effort).all()


def test_arrays_are_copied(messages):
    command, rate, grid, q = np.ones(3), np.zeros(3), np.zeros((2, 2), np.float32), np.array(POSE)
    assert messages.velocity_command(command) and messages.imu(LEVEL, rate) and messages.height_grid(grid)
    assert messages.joints(NAMES, q, STILL)
    for array in (command, rate, grid, q):
        array[:] = np.nan
    seen = messages.snapshot()
    assert all(np.isfinite(a).all() for a in (seen.command, seen.angular_velocity, seen.heights, seen.position))


# --- jumps ------------------------------------------------------------------------------------------------------------


def test_joints_may_move_as_their_speed_says_and_not_otherwise(messages, now):
    assert messages.joints(NAMES, POSE, STILL)
    now.on(0.02)
    assert messages.joints(NAMES, POSE + 0.25, np.full(12, 20.0))
    now.on(0.004)
    assert not messages.joints(NAMES, POSE + 0.6, np.zeros(12))
    jump = newest(messages)
    assert jump.code == Code.JUMP and jump.value > jump.limit > Plausible().jump
    now.on(0.004)
    assert messages.joints(NAMES, POSE + 0.3, np.zeros(12))


def test_what_happens_between_readings_that_are_far_apart_is_not_a_jump(messages, now):
    """A swing of 8 Hz and 24 rad/s, read every 4 ms and with holes of up to 40 ms."""
    rng = np.random.default_rng(0)
    for gap in rng.choice([0.004, 0.004, 0.004, 0.02, 0.04], 500):
        angle = 2 * np.pi * 8 * now.on(gap) / NS
        q, v = POSE + 0.48 * np.sin(angle), np.full(12, 24.0 * np.cos(angle))
        assert messages.joints(NAMES, q, v), messages.refusals.sentences()


def test_an_offset_is_not_believed_before_the_sensor_counts_as_silent(messages, now):
    assert messages.joints(NAMES, POSE, STILL)
    for _ in range(20):
        now.on(0.004)
        assert not messages.joints(NAMES, POSE + np.where(np.arange(12) == 2, 0.7, 0.0), STILL)
    now.on(0.5)
    assert messages.joints(NAMES, POSE + np.where(np.arange(12) == 2, 0.7, 0.0), STILL)


def test_attitude_may_turn_as_the_gyro_says(messages, now):
    assert messages.imu(LEVEL, [0.0] * 3)
    now.on(0.004)
    assert not messages.imu([np.cos(0.2), np.sin(0.2), 0.0, 0.0], [0.0] * 3)
    assert newest(messages)[2:4] == (pytest.approx(0.4), pytest.approx(Plausible().jump + 3.0 * 0.004))
    now.on(0.05)
    assert messages.imu([np.cos(0.2), np.sin(0.2), 0.0, 0.0], [8.0, 0.0, 0.0])
    now.on(0.004)
    assert messages.imu([-np.cos(0.2), -np.sin(0.2), 0.0, 0.0], [8.0, 0.0, 0.0])  # the same attitude


def test_a_pose_elsewhere_is_believed_when_it_stays_there(messages, now):
    def pose(x: float) -> bool:
        now.on(0.008)
        return messages.odometry([x, 0.0, 0.2], LEVEL)

    assert pose(0.0)
    assert not any(pose(5.0 + 3.0 * (k % 2)) for k in range(3 * Plausible().relocated))
    assert pose(0.1)
    assert [pose(5.0) for _ in range(Plausible().relocated)].index(True) == Plausible().relocated - 1
    assert not messages.odometry([1e9, 0.0, 0.0], LEVEL)
    assert newest(messages) == (Code.OUT_OF_RANGE, newest(messages).sentence, 1e9, Plausible().pose_range, Source.POSE)


# --- stamps -----------------------------------------------------------------------------------------------------------


def commands(messages: MessageFilter, now: Now, *stamps: float, every: float = 0.02) -> list[bool]:
    """Whether commands with these stamps (s, added to the time) are believed."""
    return [messages.velocity_command([0.0] * 3, now.on(every) + round(stamp * NS)) for stamp in stamps]


@pytest.mark.parametrize("every", [0.004, 0.02, 0.1])
@pytest.mark.parametrize("jump", [5.003, 2.003, 1.013, 0.999, 0.503, 0.303, 0.103, 0.071])
@pytest.mark.parametrize("back", [False, True])
def test_a_clock_that_was_set_is_known_said_once_and_believed_again(messages, now, jump, back, every):
    """By any step, forward or back, seen by senders of any pace."""
    step = -jump if back else jump
    assert all(commands(messages, now, *[0.0] * 20, every=every))
    agree = Plausible().agree
    for offset in (step, 0.0):
        believed = commands(messages, now, *[offset] * 30, every=every)
        assert believed == [False] * (agree - 1) + [True] * (31 - agree)
    assert messages.refusals.counts["command clock set"] == 2
    assert abs(messages.refusals.last["command clock set"].value) == pytest.approx(jump, abs=0.03)


@pytest.mark.parametrize("step", [-0.05, -0.03, 0.03, 0.05])
def test_steps_that_are_smaller_than_a_delay_change_little(messages, now, step):
    assert all(commands(messages, now, *[0.0] * 20, every=0.004))
    believed = commands(messages, now, *[step] * 50, every=0.004)
    assert sum(believed) >= 50 - Plausible().agree and all(believed[Plausible().agree :])


def test_a_single_odd_stamp_is_left_out(messages, now):
    assert all(commands(messages, now, 0.0, 0.0))
    for jump in (0.3, 5.0, -5.0, -0.3):
        assert commands(messages, now, jump, 0.0, 0.0) == [False, True, True]


def test_old_messages_among_new_ones_are_left_out(messages, now):
    assert all(commands(messages, now, 0.0, 0.0))
    believed = commands(messages, now, *[-0.3, 0.0] * 40)
    assert believed == [False, True] * 40 and not messages.refusals.counts["command clock set"]


def delayed(messages: MessageFilter, now: Now, delays: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Which commands are believed that take so long (s), sent every 0.02 s, and how long they took in the end: none
    overtakes another."""
    sent, found = now.time, []
    for delay in delays:
        sent += NS // 50
        now.time = max(now.time + 1, sent + round(delay * NS))
        found.append((messages.velocity_command([0.0] * 3, sent), (now.time - sent) / NS))
    believed, took = zip(*found, strict=True)
    return np.array(believed), np.array(took)


@pytest.mark.parametrize("rise", [0.1, 0.3, 0.9])
def test_a_rise_of_delay_is_late_until_it_has_come_to_stay(messages, now, rise):
    """By then the loop has stopped: it counts on messages that are no older than it knows."""
    late = round(Plausible().lasting / 0.02)
    believed, _ = delayed(messages, now, [0.01] * 20 + [0.01 + rise] * (late + 20))
    assert believed[:20].all() and not believed[20 : 19 + late].any() and believed[22 + late :].all()
    assert messages.refusals.counts["command delay risen"] == 1
    assert messages.refusals.last["command delay risen"].value == pytest.approx(rise, abs=0.02)
    assert not messages.refusals.counts["command clock set"]


def test_messages_that_are_held_up_now_and_then_are_left_out_alone(messages, now):
    believed, took = delayed(messages, now, [*[0.01] * 20, *[*[0.01] * 10, 0.2, 0.19, 0.17, *[0.01] * 10] * 5])
    limit = 0.01 + Plausible().delay
    assert believed[took < limit - 0.01].all() and not believed[took > limit + 0.01].any()
    assert 0 < np.sum(took > limit + 0.01) < len(took) / 2
    assert set(messages.refusals.counts) == {"command late"}


@pytest.mark.parametrize("every", [0.004, 0.02])
@pytest.mark.parametrize("rate", [0.5, 0.8, 0.9, 1.2, 1.5])
def test_a_clock_that_runs_otherwise_is_refused_for_it_within_a_second(messages, now, rate, every):
    """Simulated time that is not real time, too."""
    count = round(1.1 / every)
    believed = commands(messages, now, *[(rate - 1) * every * k for k in range(2 * count)], every=every)
    assert not any(believed[count:])
    assert messages.refusals.last["command clock rate"].code == Code.CLOCK_RATE


@pytest.mark.parametrize("rate", [0.96, 1.04, 1.08])
def test_a_clock_that_runs_a_little_otherwise_is_noted_within_a_second(messages, now, rate):
    believed = commands(messages, now, *[(rate - 1) * 0.02 * k for k in range(55)])
    assert all(believed) and messages.refusals.counts["command clock rate"] == 1


def test_an_unsteady_network_is_no_clock(messages, now):
    delays = np.abs(np.random.default_rng(0).normal(0.0, 0.012, 3000)).clip(0, 0.05)
    assert delayed(messages, now, delays)[0].all() and not messages.refusals.counts


def test_after_a_silence_a_sender_may_have_another_clock(messages, now):
    assert all(commands(messages, now, 0.0, 0.0))
    now.on(2.0)
    assert all(commands(messages, now, -0.5, -0.5, -0.5))


def test_a_stamp_that_stands_still_is_refused_however_long(messages, now):
    assert messages.velocity_command([0.0] * 3, 77)
    for _ in range(5):
        now.on(0.7)
        assert not messages.velocity_command([0.0] * 3, 77)


def test_clocks_may_drift_for_an_hour(messages, now):
    drift = 1e-4
    assert all(all(commands(messages, now, -drift * 0.5 * k, every=0.5)) for k in range(7200))


def test_readings_of_a_moving_robot_must_change(messages, now):
    messages.moving = True
    readings = [messages.imu(LEVEL, [0.0] * 3) for _ in range(8) if now.on(0.004)]
    assert readings[:3] == [True] * 3 and not any(readings[4:])
    assert newest(messages).code == Code.FROZEN
    assert messages.imu(LEVEL, [0.1, 0.0, 0.0])
    messages.moving = False
    now.on(0.5)
    assert messages.imu(LEVEL, [0.1, 0.0, 0.0]) and messages.imu(LEVEL, [0.1, 0.0, 0.0])


# --- threads ----------------------------------------------------------------------------------------------------------


def test_messages_from_several_threads_leave_no_mixture():
    messages = MessageFilter(ROBOT, Now(), plausible=Plausible(jump=10.0))
    ending = threading.Event()

    def send(value: float) -> None:
        while not ending.is_set():
            messages.joints(NAMES, POSE + value, np.full(12, value), np.full(12, value))

    threads = [threading.Thread(target=send, args=(0.1 * k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            seen = messages.snapshot()
            if np.isfinite(seen.effort).all():
                np.testing.assert_allclose(seen.position - POSE, seen.velocity)
                np.testing.assert_array_equal(seen.velocity, seen.effort)
    finally:
        ending.set()
        for thread in threads:
            thread.join()


def test_a_log_that_fails_is_no_fault(messages):
    def broken(text: str) -> None:
        raise BrokenPipeError

    messages.refusals.log = broken
    assert not messages.skill(9) and messages.refusals.counts["skill unknown name"] == 1
