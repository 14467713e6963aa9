"""Each check of the safety chain by itself, just inside and just outside its limit."""

from dataclasses import replace

import numpy as np
import pytest

from robot.loop import safety
from robot.loop.refusals import Code
from robot.loop.safety import Action, Context, Limits
from robot.loop.transport import NS, Snapshot
from sim.robots.description import default_robot

ROBOT, LIMITS = default_robot(), Limits()
PERIOD = NS // 50


def context(now: float = 10.0, **seen) -> Context:
    """Everything fresh and in order at `now` (s), save what is given."""
    time = round(now * NS)
    given = {name: time for name in ("joints_time", "imu_time", "pose_time", "command_time")}
    given |= {"position": np.array(ROBOT.default_pose, float), "pose": np.array([0.0, 0.0, 0.2, 0.0])}
    snapshot = replace(Snapshot.blank(ROBOT.joints), **{**given, **seen})
    return Context(ROBOT, LIMITS, time, snapshot, ground=0.0, stood=True)


def lasting(check, seconds: float, **seen):
    """The verdict of a check after it has seen the same for `seconds`, step by step."""
    c = context(**seen)
    verdict = check(c)
    for _ in range(round(seconds * NS / PERIOD)):
        c.now += PERIOD
        for name in ("joints_time", "imu_time", "pose_time", "command_time"):
            setattr(c.snapshot, name, c.now)
        verdict = check(c)
    return verdict


def rolled(angle: float) -> np.ndarray:
    return np.array([np.cos(angle / 2), np.sin(angle / 2), 0.0, 0.0])


def test_nothing_is_wrong_where_nothing_is_wrong():
    assert safety.strictest(safety.ALWAYS + safety.RUNNING, context()) is None


@pytest.mark.parametrize(
    ("check", "name", "limit", "action", "code"),
    [
        (safety.sensors_fresh, "joints_time", LIMITS.sensor_timeout, Action.DAMP, Code.JOINTS_STALE),
        (safety.sensors_fresh, "imu_time", LIMITS.sensor_timeout, Action.DAMP, Code.IMU_STALE),
        (safety.command_fresh, "command_time", LIMITS.command_timeout, Action.BRAKE, Code.COMMAND_STALE),
        (safety.pose_fresh, "pose_time", LIMITS.pose_timeout, Action.BRAKE, Code.POSE_STALE),
    ],
)
def test_messages_may_be_as_old_as_the_limit(check, name, limit, action, code):
    assert check(context(**{name: round((10.0 - limit) * NS)})) is None
    verdict = check(context(**{name: round((10.0 - limit) * NS) - 1_000_000}))
    assert (verdict.action, verdict.code, verdict.limit) == (action, code, limit)
    assert verdict.value == pytest.approx(limit + 0.001)
    never = check(context(**{name: Snapshot().joints_time}))
    assert never.code == code and never.value == np.inf


def test_a_pose_is_not_needed_where_none_is_needed():
    c = context(pose_time=0)
    c.needs_pose = False
    assert safety.pose_fresh(c) is None and safety.clear_of_the_ground(c) is None


@pytest.mark.parametrize(
    ("check", "seconds", "inside", "outside", "action", "code", "value"),
    [
        (safety.upright, 0.06, {"orientation": rolled(1.199)}, {"orientation": rolled(1.201)}, Action.DAMP,
         Code.TILT, 1.201),
        (safety.upright, 0.06, {"orientation": rolled(-1.199)}, {"orientation": rolled(np.pi)}, Action.DAMP,
         Code.TILT, np.pi),
        (safety.clear_of_the_ground, 0.06, {"pose": np.array([0, 0, 0.081, 0])}, {"pose": np.array([0, 0, 0.079, 0])},
         Action.DAMP, Code.HEIGHT, 0.079),
        (safety.joint_speed, 0.03, {"velocity": np.full(12, -34.9)}, {"velocity": np.full(12, -35.1)}, Action.DAMP,
         Code.JOINT_SPEED, 35.1),
        (safety.torque, 0.06, {"effort": np.full(12, -21.5)}, {"effort": np.full(12, -21.7)}, Action.STOP,
         Code.TORQUE, 21.7),
    ],
)  # fmt: skip
def test_values_may_reach_the_limit_for_ever_and_pass_it_for_a_while(
    check, seconds, inside, outside, action, code, value
):
    assert lasting(check, 1.0, **inside) is None
    steps = int(np.ceil(seconds / 0.02 - 1e-9))
    assert lasting(check, 0.02 * (steps - 1), **outside) is None
    verdict = lasting(check, 0.02 * steps, **outside)
    assert verdict.action == action and verdict.code == code and np.isfinite(verdict.limit)
    assert verdict.value == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("check", [safety.upright, safety.joint_speed, safety.clear_of_the_ground])
def test_numbers_that_are_none_are_outside(check):
    nan = {"orientation": np.full(4, np.nan), "velocity": np.full(12, np.nan), "pose": np.full(4, np.nan)}
    assert lasting(check, 0.1, **nan).action == Action.DAMP


def test_what_was_over_in_between_begins_anew():
    c = context(orientation=rolled(2.0))
    for angle in (2.0, 2.0, 0.0, 2.0, 2.0, 2.0):
        c.now += PERIOD
        c.snapshot.orientation = rolled(angle)
        assert safety.upright(c) is None
    c.now += PERIOD
    assert safety.upright(c) is not None


def reading(steps, held: float = 0.5, period: float = 0.02, limits: Limits = LIMITS):
    """Verdicts on joint 4, which reads `held` throughout while the others tremble, step by step: `steps` are its target
    (None: there is none) and speed."""
    c, found = Context(ROBOT, limits, stood=True), []
    for k, (target, speed) in enumerate(steps):
        c.now += round(period * NS)
        position = ROBOT.default_pose + 0.001 * (k % 2)
        position[4] = held
        c.snapshot = Snapshot(position=position, velocity=np.where(np.arange(12) == 4, speed, 0.0), joints_time=c.now)
        c.targets = None if target is None else np.where(np.arange(12) == 4, target, 0.0)
        found.append(safety.encoders_alive(c))
    return found


def test_a_joint_that_does_not_follow_its_target_is_stuck():
    """It is in the fourth step that it was to have moved by the limit, and 0.06 s later it still reads the same."""
    found = reading([(0.0, 0.0)] * 3 + [(0.151, 0.0)] * 4)
    assert found[:6] == [None] * 6 and found[6].action == Action.DAMP
    assert (found[6].code, found[6].limit) == (Code.JOINT_STUCK, LIMITS.encoder_seconds)
    assert found[6].value == pytest.approx(0.06) and ROBOT.joint_names[4] in found[6].sentence
    assert reading([(0.0, 0.0)] * 3 + [(0.149, 0.0)] * 50) == [None] * 53
    slowly = reading([(0.01 * k, 0.0) for k in range(30)])
    assert [v is not None for v in slowly].index(True) == 16 + 3


def test_a_target_that_swings_back_has_moved():
    assert reading([(0.0, 0.0), (0.2, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)])[-1] is not None


def test_a_joint_that_turns_by_its_speed_and_reads_the_same_is_stuck():
    assert reading([(None, 4.0)] * 10)[-1].code == Code.JOINT_STUCK
    assert reading([(None, -4.0)] * 10)[-1] is not None
    assert reading([(None, 0.9)] * 500) == [None] * 500, "an offset of the speed does not add up"


def test_one_digit_of_change_is_a_reading():
    c = Context(ROBOT, LIMITS, stood=True)
    for k in range(50):
        c.now += PERIOD
        c.snapshot = replace(
            Snapshot.blank(12), position=ROBOT.default_pose + np.float32(1e-6 * (k % 2)), joints_time=c.now
        )
        c.targets = np.full(12, 0.5 * (k % 3))
        assert safety.encoders_alive(c) is None


def test_a_robot_that_is_not_held_and_one_that_stands_may_read_the_same_for_ever():
    assert reading([(None, 0.0)] * 500) == [None] * 500
    assert reading([(0.3, 0.0)] * 500) == [None] * 500
    assert reading([(0.0, 0.0)] * 3 + [(None, 0.0)] * 3 + [(0.3, 0.0)] * 20) == [None] * 26


def test_readings_that_do_not_come_are_not_readings_that_stay():
    """Whether they are too old is another check's."""
    c = Context(ROBOT, LIMITS, stood=True)
    for k in range(20):
        c.now += PERIOD
        c.targets = np.full(12, 0.5 * (k % 3))
        c.snapshot = replace(Snapshot.blank(12), joints_time=NS)
        assert safety.encoders_alive(c) is None
    apart = reading([(0.5 * (k % 3), 0.0) for k in range(20)], period=LIMITS.sensor_timeout + 0.01)
    assert apart == [None] * 20


def test_torques_that_are_not_reported_are_no_fault():
    assert lasting(safety.torque, 1.0, effort=np.full(12, np.nan)) is None


def test_a_robot_that_has_not_stood_may_be_low():
    c = context(pose=np.array([0.0, 0.0, -0.005, 0.0]))
    c.stood = False
    for _ in range(50):
        c.now += PERIOD
        assert safety.clear_of_the_ground(c) is None


def test_height_counts_from_the_ground_below():
    c = context(pose=np.array([0.0, 0.0, 1.1, 0.0]))
    c.ground = 1.0
    assert lasting_low(c) is None
    c.ground = 1.05
    low = lasting_low(c)
    assert low.code == Code.HEIGHT and low.value == pytest.approx(0.05)


def lasting_low(c: Context):
    verdict = None
    for _ in range(5):
        c.now += PERIOD
        c.snapshot.pose_time = c.now
        verdict = safety.clear_of_the_ground(c)
    return verdict


def test_so_many_steps_in_a_row_may_overrun():
    c = context()
    c.overran = LIMITS.overruns - 1
    assert safety.punctual(c) is None
    c.overran += 1
    verdict = safety.punctual(c)
    assert (verdict.action, verdict.code) == (Action.STOP, Code.OVERRUN)
    assert (verdict.value, verdict.limit) == (LIMITS.overruns, 3)


def test_so_many_of_the_last_deadlines_may_be_missed():
    c = context()
    c.deadlines.extend([False, True] * (LIMITS.missed - 1))
    assert safety.keeping_up(c) is None
    c.deadlines.append(True)
    verdict = safety.keeping_up(c)
    assert (verdict.action, verdict.code) == (Action.STOP, Code.MISSED)
    assert verdict.value == verdict.limit == LIMITS.missed
    c.deadlines.extend([False] * safety.WINDOW)
    assert safety.keeping_up(c) is None


def test_a_loop_may_be_silent_as_long_as_the_drives_wait():
    c = context()
    watchdog = c.limits.away
    assert watchdog == ROBOT.drives.watchdog
    c.silent = watchdog
    assert safety.present(c) is None
    c.silent = watchdog + 0.001
    assert (safety.present(c).action, safety.present(c).code) == (Action.DAMP, Code.AWAY)
    c.limits = Limits(away=0.5)
    assert safety.present(c) is None


def test_targets_begin_near_the_joints():
    here, allowed = np.array(ROBOT.default_pose, float), Limits().start_of(ROBOT)
    np.testing.assert_allclose(allowed * ROBOT.kp, np.full(ROBOT.default_pose.shape, ROBOT.torque_limit))
    targets, problem = safety.near_the_joints(here + 0.99 * allowed, here, allowed, ROBOT)
    assert problem is None and np.array_equal(targets, here + 0.99 * allowed)
    targets, problem = safety.near_the_joints(here - 1.45, here, allowed, ROBOT)
    assert (problem.code, problem.value, problem.limit) == (
        Code.TARGET_START, pytest.approx(1.45), pytest.approx(allowed[0])
    )  # fmt: skip
    assert np.abs(targets - here).max() <= allowed.max() + 1e-6 and (targets >= ROBOT.joint_lower).all()


def test_the_strictest_verdict_counts_and_every_check_is_made():
    c = context(orientation=rolled(2.0), velocity=np.full(12, 50.0), effort=np.full(12, 30.0), command_time=0)
    assert safety.strictest(safety.ALWAYS + safety.RUNNING, c).action == Action.BRAKE
    assert c.tilted_since == c.fast_since == c.strained_since == c.now
    c.joints_time = 0
    c.snapshot.joints_time = 0
    assert safety.strictest(safety.ALWAYS + safety.RUNNING, c).code == Code.JOINTS_STALE


def test_commands_are_held_inside_the_trained_ranges():
    ranges = {"forward": [-1.0, 2.0], "sideways": [-0.5, 0.5], "yaw": [-1.5, 1.5]}
    command, problem = safety.bounded_command(np.array([2.0, -0.5, 1.5]), ranges)
    assert problem is None and command.tolist() == [2.0, -0.5, 1.5]
    command, problem = safety.bounded_command(np.array([2.1, 0.0, -9.0]), ranges)
    assert command.tolist() == [2.0, 0.0, -1.5]
    assert problem[2:4] == (-9.0, -1.5) and problem.code == Code.COMMAND_RANGE and "yaw" in problem.sentence
