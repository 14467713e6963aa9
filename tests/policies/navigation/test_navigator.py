"""The navigator drives a kinematic robot over the course: gates, limits, poles, end table, kicks, bad poses."""

import numpy as np
import pytest
from kinematic import DT, drive

from policies.navigation.navigator import MotionLimits, Navigator, Tuning, course_navigator
from policies.navigation.paces import Paces
from policies.navigation.path import lay_path
from policies.navigation.rehearsal import rehearsed
from policies.navigation.response import Response
from policies.navigation.route import plan
from sim.course.description import Gate, Waypoint, official
from sim.errors import InputError
from sim.observation import Preview
from sim.planar import to_world, wrap
from sim.robots.description import default_robot

FOOTPRINT = default_robot().footprint

COURSE = official()
SKILLS = ("walk", "climb", "jump")


@pytest.fixture(scope="module")
def route():
    return plan(COURSE, FOOTPRINT, SKILLS)


@pytest.fixture
def navigator(route):
    return course_navigator(COURSE, route)


def assert_within_limits(commands: np.ndarray, limits: MotionLimits) -> None:
    low, high = (np.array([getattr(limits, k)[i] for k in ("forward", "sideways", "yaw")]) for i in (0, 1))
    assert (commands <= high + 1e-5).all() and (commands >= low - 1e-5).all()
    change = np.diff(commands, axis=0, prepend=np.zeros((1, 3)))
    assert np.linalg.norm(change[:, :2], axis=1).max() <= limits.acceleration * DT + 1e-5
    assert np.abs(change[:, 2]).max() <= limits.yaw_acceleration * DT + 1e-5


@pytest.mark.parametrize("seed", [0, 1])
def test_whole_course_with_noise_and_lag(navigator, seed):
    run = drive(COURSE, navigator, noise=(0.005, 0.005), tracking=0.05, seed=seed)
    assert all(o.completed for o in run.result.obstacles.values())
    assert run.result.finished and run.result.end_table_s >= 5.0
    assert run.weave_time < 7.0
    assert_within_limits(run.commands, navigator.limits)


def test_the_body_stays_off_the_poles(route):
    """With a response of 0.2 s each, which is not quite the driven robot's."""
    run = drive(COURSE, rehearsed(COURSE, route, MotionLimits(), Response.first_order(DT, (0.2, 0.2, 0.1))))
    assert run.clearance > -0.02, f"{run.clearance:.3f} m"


@pytest.mark.parametrize("start", [(0.6, -0.6, 0.3), (0.4, -0.4, -0.3)])
def test_perturbed_starts_finish(navigator, start):
    run = drive(COURSE, navigator, start)
    assert all(o.completed for o in run.result.obstacles.values())


def test_end_table_is_held_at_its_centre(navigator):
    run = drive(COURSE, navigator, noise=(0.005, 0.005))
    held = run.poses[-int(4.0 / DT) :, :2]
    assert np.abs(held - COURSE.end_table.center).max() < 0.3
    assert run.steps[-1].state == "holding"
    assert np.abs(run.commands[-50:]).max() < 0.5


def test_a_kicked_robot_recovers(navigator):
    def kick(k, robot):
        if k in (250, 600):
            robot.pose[:2] += (0.1, 0.15)
            robot.velocity[:] = (-0.5, 0.5, 1.0)

    run = drive(COURSE, navigator, disturb=kick)
    assert all(o.completed for o in run.result.obstacles.values())


def test_a_missed_gate_is_driven_again():
    gate = Gate((1.0, -0.4), (1.0, 0.4))
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(3.0, 0.0, yaw=0.0),), gates=(gate,))
    pose, carried, states = np.zeros(3), False, set()
    for _ in range(600):
        if pose[0] > 0.8 and not carried:
            navigator.step((0.95, 0.43, 0.0), DT)
            pose, carried = np.array([1.1, 0.45, 0.0]), True  # past the gate's end
        out = navigator.step(pose, DT)
        states.add(out.state)
        pose[:2] += DT * out.velocity[:2]
    assert navigator.passed == 1 and navigator.retries >= 1 and "returning" in states
    assert np.hypot(pose[0] - 3.0, pose[1]) < 0.2


def test_a_return_that_something_blocks_is_given_up_with_its_gate():
    """A table's edge behind the robot, which has come down beside the gate."""
    gate = Gate((1.0, -0.4), (1.0, 0.4))
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(3.0, 0.0, yaw=0.0),), gates=(gate,))
    pose, carried, states = np.zeros(3), False, []
    for _ in range(700):
        if pose[0] > 0.8 and not carried:
            navigator.step((0.95, 0.43, 0.0), DT)
            pose, carried = np.array([1.3, 0.45, 0.0]), True
        states.append(navigator.step(pose, DT).state)
        pose[:2] += DT * navigator.command[:2]
        if carried:
            pose[0] = max(pose[0], 1.2)
    assert navigator.passed == 1 and navigator.state == "holding"
    assert states.count("returning") * DT == pytest.approx(Tuning().return_seconds, abs=0.1)


def test_a_robot_that_a_pole_holds_comes_back_to_its_way_before_it_goes_on():
    """It is 5 cm beside its way, where a pole stands before it and holds it as long as it pushes."""
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(3.0, 0.0, yaw=0.0),))
    pose = np.zeros(3)
    for _ in range(500):
        along, aside = (float(v) for v in navigator.step(pose, DT).velocity[:2])
        before = 0.9 < pose[0] <= 1.0 and pose[1] > 0.03
        if pose[0] < 0.9:
            pose += (DT * along, 0.0, 0.0)
            pose[1] = 0.05
        elif before and pose[0] + DT * along > 1.0:
            pose[1] += DT * aside * (along < 0.1)
        else:
            pose += (DT * along, DT * aside, 0.0)
    assert np.hypot(pose[0] - 3.0, pose[1]) < 0.2


def test_a_robot_that_is_turned_between_poles_backs_off_at_once_and_further_every_time():
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(5.0, 0.0, yaw=0.0),))
    tuning, x, back = Tuning(), 0.0, []
    for _ in range(3):
        while x < 3.0:
            x = min(x + DT * max(float(navigator.step((x, 0.0, 0.0), DT).velocity[0]), 0.0), 3.0)
        held = 0
        while navigator.step((3.0, 0.0, 1.0), DT).state != "returning":
            held += 1
        assert held * DT < tuning.held_seconds + 0.1
        back.append(3.0 - navigator.s)
        turns = [navigator.step((3.0, 0.0, 1.0), DT).velocity[2] for _ in range(25)]
        assert turns[-1] == pytest.approx(-tuning.return_turn)
        x = navigator.s
        navigator.step((x, 0.0, 0.0), DT)
    np.testing.assert_allclose(back, tuning.stuck_back * np.array([1, 2, 3]), atol=0.05)


@pytest.mark.parametrize("noise", [0.0, 0.03])
def test_a_robot_that_waits_at_its_start_has_not_been_held(noise):
    """An operator may arm it a minute later: it must still come free from a pole then."""
    navigator, rng = Navigator((0.0, 0.0, 0.0), (Waypoint(5.0, 0.0, yaw=0.0),)), np.random.default_rng(0)
    for _ in range(3000):
        assert navigator.step((*rng.normal(0.0, noise, 2), 0.0), DT).state == "following"
    pushed_to(navigator, 0.0, 3.0)
    assert backs_off(navigator, 3.0) == pytest.approx(Tuning().stuck_back, abs=0.05)


def test_a_robot_that_came_through_may_be_held_as_often_again():
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(8.0, 0.0, yaw=0.0),))
    tuning, x, times = Tuning(), 0.0, 0
    for _ in range(2 * tuning.stuck_tries):
        pushed_to(navigator, x, 3.0)
        if backs_off(navigator, 3.0) is None:
            break
        for _ in range(50):  # however far it is sent back, it is told to go there
            sent = navigator.step((3.0, 0.0, 1.0), DT)
        assert sent.velocity[:2].any() and sent.state == "returning"
        times, x = times + 1, navigator.s
        navigator.step((x, 0.0, 0.0), DT)
    assert 2 < times <= tuning.stuck_tries, "it keeps pushing there in the end"
    pushed_to(navigator, 3.0, 5.0)
    assert backs_off(navigator, 5.0) == pytest.approx(tuning.stuck_back, abs=0.05)


def test_a_robot_that_is_carried_away_is_asked_for_nothing_and_back_at_the_start_it_begins_anew():
    path = (Waypoint(4.0, 0.0, yaw=0.0), Waypoint(4.0, 4.0, yaw=np.pi / 2))
    navigator, fresh = Navigator((0.0, 0.0, 0.0), path), Navigator((0.0, 0.0, 0.0), path)
    pushed_to(navigator, 0.0, 3.5)
    away = [navigator.step((0.0, 3.0, 0.0), DT) for _ in range(100)]
    assert all(each.state == "lost" and not each.velocity.any() and each.reason for each in away)
    turned = [navigator.step((0.0, 0.0, 2.0), DT) for _ in range(200)]
    assert not turned[-1].velocity.any(), "not as it stands at the start"
    waits = [navigator.step((0.1, -0.1, 0.1), DT) for _ in range(100)]
    assert waits[-1].state == "following" and navigator.s < 0.3
    for _ in range(100 - 51):  # as one that stands there for the first time, as long
        expected = fresh.step((0.1, -0.1, 0.1), DT)
    np.testing.assert_allclose(waits[-1].velocity, expected.velocity, atol=1e-6)


def test_a_way_that_comes_by_its_start_goes_on():
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(3.0, 0.0, yaw=0.0), Waypoint(-3.0, 0.2, yaw=0.0)))
    pushed_to(navigator, 0.0, 3.0)
    x = 3.0
    while x > 0.0:
        x -= 0.01
        navigator.step((x, 0.1, 0.0), DT)
    before = navigator.s
    for _ in range(100):
        navigator.step((0.0, 0.1, 0.0), DT)
    assert navigator.s >= before - Tuning().stuck_back * 3 > 1.0


def pushed_to(navigator: Navigator, x: float, end: float) -> None:
    """Drives a robot straight ahead from `x` to where something holds it."""
    while x < end:
        x = min(x + DT * max(float(navigator.step((x, 0.0, 0.0), DT).velocity[0]), 0.01), end)


def backs_off(navigator: Navigator, x: float) -> float | None:
    """m by which a robot that is held at `x`, turned, is sent back; None where it is not within 5 s."""
    for _ in range(250):
        if navigator.step((x, 0.0, 1.0), DT).state == "returning":
            return x - navigator.s
    return None


def test_a_gate_that_cannot_be_passed_is_given_up():
    gate = Gate((1.0, 1.0), (1.0, 2.0))  # the path does not lead through it
    navigator = Navigator((0.0, 0.0, 0.0), (Waypoint(3.0, 0.0, yaw=0.0),), gates=(gate,))
    pose = np.zeros(3)
    for _ in range(900):
        pose[:2] += DT * navigator.step(pose, DT).velocity[:2]
    assert navigator.retries == Tuning().tries
    assert navigator.state == "holding"


@pytest.mark.parametrize("bad", [(np.nan, 0.0, 0.0), (0.5, -0.5, np.inf), (np.nan, np.nan, np.nan), (9.0, 9.0, 0.0)])
def test_a_pose_that_cannot_be_trusted_stops_the_robot(navigator, bad):
    pose = np.array(COURSE.start)
    for _ in range(20):
        assert navigator.step(pose, DT).state == "following"
    out = navigator.step(bad, DT)
    assert out.state == "lost" and out.reason
    assert (out.velocity == 0).all()
    assert navigator.step(pose, DT).state == "following"


def test_lost_poses_on_the_way_do_not_end_the_run(navigator):
    def corrupt(k, pose):
        return pose * np.nan if 200 <= k < 220 or k == 400 else pose

    run = drive(COURSE, navigator, corrupt=corrupt)
    assert np.isfinite(run.commands).all()
    assert all(o.completed for o in run.result.obstacles.values())


def test_reset_gives_the_same_run_again(navigator):
    first = drive(COURSE, navigator, seconds=3.0)
    navigator.reset()
    again = drive(COURSE, navigator, seconds=3.0)
    assert np.array_equal(first.commands, again.commands)


def test_a_path_passes_its_waypoints_within_every_limit():
    route = [Waypoint(1, 0, 2.0), Waypoint(1.5, 1, 2.0, yaw=1.0), Waypoint(0, 1, 0.6, yaw=-2.0), Waypoint(0, 2, 2.0)]
    limits = MotionLimits()
    path = lay_path((0.0, 0.0, 0.0), route, limits)
    for w, mark in zip(route, path.marks, strict=True):
        i = min(int(round(mark / 0.01)), len(path.s) - 1)
        assert np.hypot(*(path.xy[i] - (w.x, w.y))) < 0.02
        assert w.yaw is None or abs(wrap(path.yaw[i] - w.yaw)) < 0.06
    planar = path.speed * np.linalg.norm(path.tangent, axis=1)
    slow = (path.s > path.marks[1] + 0.01) & (path.s < path.marks[2])
    assert planar.max() <= 2.0 and planar[slow].max() <= 0.6 + 1e-6
    assert np.abs(path.speed * path.yaw_slope).max() <= limits.yaw[1]
    assert path.speed[-1] == 0.0


def test_a_turn_on_the_spot_is_part_of_a_path():
    path = lay_path((0.0, 0.0, 0.0), [Waypoint(1, 0, yaw=0.0), Waypoint(1, 0, yaw=2.0)], MotionLimits())
    assert abs(path.yaw[-1] - 2.0) < 0.05
    assert np.hypot(*(path.xy[-1] - (1, 0))) < 0.02


def test_a_route_that_leads_nowhere_is_refused():
    with pytest.raises(InputError):
        lay_path((1.0, 0.0, 0.0), [Waypoint(1.0, 0.0, yaw=0.0)], MotionLimits())


@pytest.mark.parametrize("skill, made, most", [("climb", 0.2, 0.9), ("climb", 0.5, 1.22), ("walk", 0.2, 1.5)])
def test_on_the_a_frame_no_more_is_asked_than_the_robot_nearly_makes(skill, made, most):
    """The robot makes `made` m/s along a straight line, whatever it is asked."""
    route = [Waypoint(1.0, 0.0, 1.5, skill), Waypoint(9.0, 0.0, 1.5, skill), Waypoint(12.0, 0.0, 1.5)]
    navigator = Navigator((0.0, 0.0, 0.0), route)
    asked = [navigator.step((made * DT * k, 0.0, 0.0), DT).velocity[0] for k in range(60)]
    assert asked[-1] == pytest.approx(most, abs=0.06)


def test_the_run_at_the_board_holds_its_speed_until_the_hind_feet_are_down(route):
    path = lay_path(COURSE.start, route, MotionLimits())
    board = COURSE.board
    assert board is not None
    over = (np.abs(path.xy[:, 0] - board.center[0]) < board.length / 2 + 0.4) & (path.xy[:, 1] < -4.3)
    planned = path.speed[over]
    assert over.sum() > 50 and np.allclose(planned, Paces().jump_to_table)
    behind = (path.xy[:, 0] > 3.6) & (path.xy[:, 1] < -4.3)
    assert path.speed[behind].max() < Paces().mount + 0.1 < Paces().jump_to_table and path.speed[-1] == 0.0


def test_the_jumper_drives_from_its_run_up_onto_the_table_and_the_walker_stops_there(route):
    jumps = [w for w in route if w.skill == "jump"]
    edge = COURSE.end_table.center[0] - COURSE.end_table.size[0] / 2
    assert jumps[-1].x > edge + 0.2 and route[-1].skill == "walk" and route[-1].x > jumps[-1].x
    assert route.index(jumps[-1]) == len(route) - 2


# --- what comes next --------------------------------------------------------------------------------------------------


def test_a_preview_is_where_the_path_goes(navigator):
    """Of a robot that is on its way: the same place and velocity as the path has that many seconds later."""
    path, moments = navigator.path, (0.2, 0.6)
    for i in np.linspace(0, len(path.s) - 200, 20).astype(int):
        navigator.reset()
        navigator.s = float(path.s[i])
        pose = np.array([*path.xy[i], path.yaw[i]])
        navigator.step(pose, DT)
        here = int(round(navigator.s / (path.s[1] - path.s[0])))
        for later, pose_rate, rate in zip(
            moments, navigator.preview(pose, Preview(moments, "pose")), navigator.preview(pose, Preview(moments)),
            strict=True,
        ):  # fmt: skip
            j = int(np.searchsorted(path.time, path.time[here] + later))
            x, y = to_world(pose_rate[0], pose_rate[1], pose[2])
            np.testing.assert_allclose(pose[:2] + later * np.array([x, y]), path.xy[j], atol=1e-5)
            assert wrap(pose[2] + later * pose_rate[2] - path.yaw[j]) == pytest.approx(0.0, abs=1e-5)
            x, y = to_world(rate[0], rate[1], pose[2])
            np.testing.assert_allclose([x, y], path.speed[j] * path.tangent[j], atol=1e-5)


def test_where_the_path_is_not_followed_the_command_goes_on(navigator):
    pose = np.array([*navigator.path.xy[0], navigator.path.yaw[0]])
    for _ in range(10):
        navigator.step(pose, DT)
    for lost in (np.array([np.nan, 0.0, 0.0]), pose + [30.0, 0.0, 0.0]):
        asked = navigator.step(lost, DT)
        assert asked.state == "lost"
        seen = navigator.preview(lost, Preview((0.2, 0.6)))
        np.testing.assert_array_equal(seen, [asked.velocity] * 2)
