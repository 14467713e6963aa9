"""Each monitor by itself: quiet with sound readings, however noisy, rare or late, and soon there with odd ones."""

import numpy as np
import pytest

from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.plausibility import FROZEN_STEPS, GyroAgainstAttitude, PolicyAnswers, SpeedAgainstPosition
from robot.loop.refusals import Code
from robot.loop.safety import Limits
from robot.loop.transport import IMPLAUSIBLE_DAMPS, NS
from sim.robots.description import default_robot
from sim.tasks.randomization import SensorNoise

ROBOT, PLAUSIBLE, LIMITS, NOISE = default_robot(), Plausible(), Limits(), SensorNoise()
CODES = {"imu": Code.GYRO, "joints": Code.JOINT_DISAGREES}


def turned(angle: np.ndarray) -> np.ndarray:
    """Quaternion of a rotation vector, rad `[3]`."""
    size = float(np.linalg.norm(angle)) + 1e-12
    return np.array([np.cos(size / 2), *(np.sin(size / 2) * angle / size)])


def product(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    w = p[0] * q[0] - p[1:] @ q[1:]
    return np.array([w, *(p[0] * q[1:] + q[0] * p[1:] + np.cross(p[1:], q[1:]))])


def imu(change=lambda w: w, seconds=2.0, every=4, late=0.0, seed=0):
    """The first time (s) at which the gyro monitor speaks of a base that rolls, pitches and turns; None if never."""
    monitor, rng, q = GyroAgainstAttitude(PLAUSIBLE.gyro_differs), np.random.default_rng(seed), np.array([1.0, 0, 0, 0])
    for k in range(1, round(1000 * seconds) + 1):
        t = k / 1000
        rate = np.array([2.0 * np.sin(20 * t), 1.5 * np.cos(26 * t), 1.6])
        q = product(q, turned(rate / 1000))
        if k % every:
            continue
        seen = product(q, turned(NOISE.orientation * rng.uniform(-1, 1, 3)))
        w = np.asarray(change(rate), float) + NOISE.angular_velocity * rng.uniform(-1, 1, 3)
        stamp = round((5 + t) * NS)
        if monitor.see(stamp + round(late * rng.random() * NS), stamp, seen / np.linalg.norm(seen), w) is not None:
            return t
    return None


def joints(change=lambda v: v, seconds=2.0, every=4, late=0.0, seed=0):
    """The same for the speeds of joints that swing as a trot's do."""
    monitor = SpeedAgainstPosition(PLAUSIBLE.joint_differs, PLAUSIBLE.acceleration, ROBOT)
    rng, phase = np.random.default_rng(seed), np.arange(ROBOT.joints)
    for k in range(every, round(1000 * seconds) + 1, every):
        t = k / 1000
        q = 0.4 * np.sin(20 * t + phase) + NOISE.joint_position * rng.uniform(-1, 1, ROBOT.joints)
        v = change(8.0 * np.cos(20 * t + phase)) + NOISE.joint_velocity * rng.uniform(-1, 1, ROBOT.joints)
        stamp = round((5 + t) * NS)
        if monitor.see(stamp + round(late * rng.random() * NS), stamp, q, v) is not None:
            return t
    return None


@pytest.mark.parametrize("run", [imu, joints])
@pytest.mark.parametrize(("every", "late"), [(4, 0.0), (8, 0.0), (20, 0.0), (4, 0.03)])
def test_sound_readings_raise_no_doubt(run, every, late):
    assert run(seconds=3.0, every=every, late=late) is None


@pytest.mark.parametrize(
    ("run", "change"),
    [
        (imu, lambda w: 0 * w), (imu, lambda w: -w), (imu, lambda w: w[[1, 0, 2]]), (imu, lambda w: 2 * w),
        (imu, lambda w: w + [0.0, 1.0, 0.0]),
        (joints, lambda v: 0 * v), (joints, lambda v: -v), (joints, lambda v: 1.5 * v),
        (joints, lambda v: np.roll(v, 1)), (joints, lambda v: np.where(np.arange(len(v)) == 7, 0.0, v)),
    ],
)  # fmt: skip
def test_readings_that_contradict_each_other_do(run, change):
    told = run(change)
    assert told is not None and told < 0.4


def paused(pause, kind, change=lambda v: v, counts=lambda t: t, seconds=1.2, seed=0):
    """As `joints`, in a world that stands still for `pause` s three times a second while its sender's computer does
    not: nothing is said meanwhile, or the same again, and then the world catches up or is late ever after. Where stamps
    do not go on they are the world's and there is no count; else they are the computer's, and the count the world's."""
    monitor = SpeedAgainstPosition(PLAUSIBLE.joint_differs, PLAUSIBLE.acceleration, ROBOT)
    rng, phase = np.random.default_rng(seed), np.arange(ROBOT.joints)
    lost, standing, before = 0, 0, -1
    for ms in range(4, round(1000 * seconds) + 1, 4):
        if ms % 332 == 0:
            standing = ms + round(1000 * pause)
        if ms < standing:
            lost += 4
            if "silent" in kind:
                continue
        elif "catches up" in kind and ms >= standing + 4:
            lost = 0
        t = (ms - lost) / 1000
        if ms - lost != before:
            q = 0.4 * np.sin(20 * t + phase) + NOISE.joint_position * rng.uniform(-1, 1, ROBOT.joints)
            v = change(8.0 * np.cos(20 * t + phase)) + NOISE.joint_velocity * rng.uniform(-1, 1, ROBOT.joints)
        before = ms - lost
        now = round((5 + ms / 1000) * NS)
        go_on = "stamps" not in kind
        stamp, count = (now, round(counts(t) * 1000) * 1_000_000) if go_on else (round((5 + t) * NS), None)
        if monitor.see(now, stamp, q, v, count) is not None:
            return ms / 1000
    return None


PAUSES = (0.005, 0.01, 0.02, 0.028, 0.04, 0.06)
KINDS = ("silent, catches up", "silent, late", "repeats, catches up", "repeats, late")


@pytest.mark.parametrize("kind", [*KINDS, "silent, late, world's stamps", "repeats, late, world's stamps"])
@pytest.mark.parametrize("pause", PAUSES)
def test_a_world_that_pauses_is_no_fault(pause, kind):
    assert paused(pause, kind) is None


def test_without_the_worlds_count_a_pause_looks_like_a_fault():
    """So the test above can fail."""
    for kind, pause in zip(KINDS, (0.028, 0.02, 0.02, 0.01), strict=True):
        assert paused(pause, kind, counts=lambda t: 0.0) is not None


@pytest.mark.parametrize("kind", [*KINDS, "silent, late, world's stamps"])
@pytest.mark.parametrize("pause", [0.02, 0.06])
@pytest.mark.parametrize(
    "change", [lambda v: np.where(np.arange(len(v)) == 7, 0.0, v), lambda v: np.where(np.arange(len(v)) == 7, -v, v),
               lambda v: 1.5 * v, lambda v: np.roll(v, 1)],
)  # fmt: skip
def test_a_speed_that_is_wrong_is_one_in_a_world_that_pauses(pause, kind, change):
    readings = iter(range(10**6))  # sound ones first, so that the count is gone by
    told = paused(pause, kind, lambda v: change(v) if next(readings) > 100 else v)
    assert told is not None and 0.4 < told < 0.9


@pytest.mark.parametrize("rate", [0.5, 0.8, 1.5, 2.0])
def test_a_world_in_another_time_is_seen_although_its_count_agrees(rate):
    """Angles change by the world's time, so speeds are wrong by the computer's; so are they at once when it begins."""
    monitor = SpeedAgainstPosition(PLAUSIBLE.joint_differs, PLAUSIBLE.acceleration, ROBOT)
    phase, world, told = np.arange(ROBOT.joints), 0.0, None
    for k in range(500):
        world += 0.004 * (rate if k > 200 else 1.0)
        now, q, v = 5 * NS + k * 4_000_000, 0.4 * np.sin(20 * world + phase), 8.0 * np.cos(20 * world + phase)
        if monitor.see(now, now, q, v, round(1000 * world) * 1_000_000) is not None:
            told = told or 0.004 * (k - 200)
    assert told is not None and told < 0.5


@pytest.mark.parametrize(
    "counts", [lambda t: 0.0, lambda t: 1000 * t, lambda t: t / 2, lambda t: -t, lambda t: t + 0.04 * int(t / 0.02),
               lambda t: t + (100.0 if 1000 * t % 8 < 4 else 0.0)]
)  # fmt: skip
def test_a_count_that_keeps_no_time_hides_no_fault_and_makes_none(counts):
    assert paused(0.0, KINDS[0], counts=counts) is None
    for change in (lambda v: 0 * v, lambda v: -v, lambda v: 1.5 * v):
        told = paused(0.0, KINDS[0], change, counts)
        assert told is not None and told < 0.4


@pytest.mark.parametrize("spike", [45.0, -45.0])
def test_one_odd_speed_is_no_fault(spike):
    count = iter(range(10**6))
    assert joints(lambda v: v + spike * (next(count) == 100) * (np.arange(len(v)) == 5)) is None


@pytest.mark.parametrize(("before", "after"), [(22.0, -8.0), (-23.0, 6.0), (24.0, -3.0)])
def test_a_foot_that_strikes_is_no_fault(before, after):
    """From `before` to `after` (rad/s) between two readings, as runs on the course show it, every 0.2 s."""
    monitor = SpeedAgainstPosition(PLAUSIBLE.joint_differs, PLAUSIBLE.acceleration, ROBOT)
    speeds = np.tile(np.concatenate([np.linspace(0.0, before, 25), np.linspace(after, 0.0, 25)]), 10)
    angles = np.concatenate([[0.0], np.cumsum(0.004 * 0.5 * (speeds[1:] + speeds[:-1]))])
    for k, (angle, speed) in enumerate(zip(angles, speeds, strict=True)):
        stamp = 5 * NS + 4_000_000 * k
        assert monitor.see(stamp, stamp, np.full(ROBOT.joints, angle), np.full(ROBOT.joints, speed)) is None
    assert monitor.peak < 0.5 * monitor.limit


def test_a_gap_begins_anew():
    monitor = SpeedAgainstPosition(PLAUSIBLE.joint_differs, PLAUSIBLE.acceleration, ROBOT)
    for k, q in ((1, 0.0), (2, 0.0), (12, 1.0), (13, 1.0)):
        assert monitor.see(k * NS // 100, k * NS // 100, np.full(ROBOT.joints, q), np.zeros(ROBOT.joints)) is None


def test_a_policy_that_stays_while_joints_move_does_not_answer():
    still, moved = LIMITS.answer_still, LIMITS.answer_moved

    def told(targets: float, positions: float) -> list[bool]:
        monitor = PolicyAnswers(moved, still)
        seen = [monitor.see(np.full(ROBOT.joints, targets * k), np.full(ROBOT.joints, positions * k)) for k in range(8)]
        return [one is not None for one in seen]

    assert told(0.0, moved) == [False] * (FROZEN_STEPS - 1) + [True] * (9 - FROZEN_STEPS)
    assert not any(told(still, moved)) and not any(told(0.0, 0.2 * moved))


@pytest.mark.parametrize("kind", ["imu", "joints"])
def test_a_filter_tells_the_loop_again_and_again(kind):
    time = [NS]
    messages = MessageFilter(ROBOT, lambda: time[0])
    for k in range(150):
        time[0] = NS + k * 4_000_000
        spread = np.full(ROBOT.joints, 5.0)
        if kind == "imu":
            messages.imu([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 3.0 + 1e-6 * k], time[0])
        else:
            pose = np.asarray(ROBOT.default_pose, float) + 1e-6 * k
            messages.joints(ROBOT.joint_names, pose, spread, (), time[0])
    asked = list(messages.requests)
    assert len(asked) >= 2 and {(r.kind, r.about) for r in asked} == {(IMPLAUSIBLE_DAMPS, CODES[kind])}
