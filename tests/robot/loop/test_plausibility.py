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
