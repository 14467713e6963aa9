"""Routes planned from a course: through every gate, off the poles, straight over the A-frame and at the board."""

from dataclasses import replace

import numpy as np
import pytest
from kinematic import clearance
from threadpoolctl import threadpool_info, threadpool_limits

from policies.navigation import planner
from policies.navigation.obstacles.a_frame import OverFrame, straight_over
from policies.navigation.obstacles.base import RouteRequest
from policies.navigation.obstacles.tables import OntoTable
from policies.navigation.paces import Paces
from policies.navigation.path import MotionLimits, lay_path
from policies.navigation.planner import solve
from policies.navigation.problem import Body, Envelope, Problem
from policies.navigation.route import plan
from policies.navigation.route_cache import planned
from sim.course.description import AFrameObstacle, BroadJump, Course, Gate, Pole, Table, Waypoint, official
from sim.course.files import by_name
from sim.course.score import Scorer
from sim.errors import InputError
from sim.planar import wrap
from sim.robots.description import default_robot

FOOTPRINT = default_robot().footprint

SKILLS = ("walk", "climb", "jump")


def follow(course: Course, route) -> tuple[dict[str, int], np.ndarray]:
    """Gates passed by a robot that is exactly on the path, and the poses `[n, 3]`."""
    path = lay_path(course.start, route, MotionLimits())
    scorer = Scorer(course)
    for t, (x, y) in enumerate(path.xy):
        scorer.update(t * 0.02, float(x), float(y))
    passed = {o.name: n for o, n in zip(course.obstacles, scorer.passed, strict=True)}
    return passed, np.column_stack([path.xy, path.yaw])


@pytest.fixture(scope="module")
def official_route():
    return plan(official(), FOOTPRINT, SKILLS)


def test_the_official_route_passes_all_gates_in_order(official_route):
    course = official()
    passed, _ = follow(course, official_route)
    assert passed == {o.name: len(o.gates) for o in course.obstacles}
    assert np.hypot(*(np.array([official_route[-1].x, official_route[-1].y]) - course.end_table.center)) < 0.15


def test_the_shipped_route_is_the_one_that_the_planner_finds(official_route):
    """Up to the linear algebra of this machine."""
    shipped = planned(official(), FOOTPRINT, SKILLS, Paces())
    assert [w.skill for w in shipped] == [w.skill for w in official_route]
    for name in ("x", "y", "speed", "tolerance"):
        values = [[getattr(w, name) for w in route] for route in (shipped, official_route)]
        np.testing.assert_allclose(*values, atol=5e-3, err_msg=name)


def test_the_official_route_keeps_the_body_off_the_poles(official_route):
    _, poses = follow(official(), official_route)
    assert min(clearance(pose, official()) for pose in poses) > 0.015


def test_the_a_frame_is_climbed_straight_along_its_axis(official_route):
    frame = official().a_frame
    assert frame is not None
    climbing = [w for w in official_route if w.skill == "climb"]
    assert climbing
    _, poses = follow(official(), official_route)
    along = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
    offset = poses[:, :2] - frame.center
    on = (np.abs(offset @ along) < frame.half_length) & (np.abs(offset @ [-along[1], along[0]]) < 0.5)
    assert on.any()
    assert np.abs(offset[on] @ [-along[1], along[0]]).max() < 0.1
    assert np.abs(wrap(poses[on, 2] - frame.yaw)).max() < 0.1


def test_the_run_up_to_the_board_is_straight_and_long(official_route):
    _, poses = follow(official(), official_route)
    last = np.flatnonzero(poses[:, 1] < -4.3)
    run_up = poses[last][(poses[last, 0] > 1.0) & (poses[last, 0] < 3.2)]
    assert np.abs(run_up[:, 1] + 4.5).max() < 0.08
    assert np.abs(wrap(run_up[:, 2])).max() < 0.15


def test_a_walker_alone_still_gets_to_the_end_table():
    passed, poses = follow(official(), plan(official(), FOOTPRINT, ("walk",)))
    assert passed["start table"] == 1 and passed["weave poles"] == 6 and passed["jump"] == 2
    height = official().terrain().height(poses[:, 0], poses[:, 1])
    assert height.max() <= 0.1 + 1e-9  # never on the A-frame


def test_the_course_taken_backwards_has_a_route_through_all_gates():
    course = by_name("reversed")
    passed, _ = follow(course, plan(course, FOOTPRINT, SKILLS))
    assert passed == {o.name: len(o.gates) for o in course.obstacles}


def test_a_solved_problem_keeps_its_limits_and_beats_its_guess():
    gate = Gate((1.0, -0.6), (1.0, 0.6))
    problem = Problem(np.zeros(3), np.array([2.0, 0.5, 0.0]), Body.of(FOOTPRINT), (gate,), (Pole(0.5, 0.0),))
    guess = np.array([[0, 0, 0], [0.5, 0.5, 0], [1, 0.2, 0], [1.5, 0.3, 0], [2, 0.5, 0]])
    found = solve(problem, guess)
    assert found.violation < 0.03
    assert found.time[-1] < 4.0
    rate = np.diff(found.pose, axis=0) / np.diff(found.time)[:, None]
    assert np.abs(rate[:, 2]).max() < 1.4 and np.linalg.norm(rate[:, :2], axis=1).max() < 1.7
    room = Body.of(FOOTPRINT).distance(found.pose, np.array([[0.5, 0.0]])) - 0.03
    assert room.min() > problem.margin - 0.03
    assert found.pose[problem.knots, 0] == pytest.approx(1.0, abs=0.01)


def test_a_problem_is_solved_on_one_thread(monkeypatch):
    """The matrices are small: threads would only wait for each other."""
    threads, inner = [], planner._newton

    def watched(*arguments):
        threads.append([pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"])
        return inner(*arguments)

    monkeypatch.setattr(planner, "_newton", watched)
    with threadpool_limits(2, "blas"):
        solve(
            Problem(np.zeros(3), np.array([1.0, 0.0, 0.0]), Body.of(FOOTPRINT)),
            np.array([[0.0, 0, 0], [1, 0, 0]]),
            barriers=(1e-2,),
        )
        (after,) = {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}
    assert threads and {n for pools in threads for n in pools} == {1} and after == 2


def test_the_bodys_distance_to_points():
    body = Body(front=0.3, rear=0.4, half_width=0.2)
    points = np.array([[0.5, 0.0], [0.0, 0.5], [-0.5, 0.0], [0.0, 0.0]])
    assert body.distance(np.zeros(3), points) == pytest.approx([0.2, 0.3, 0.1, -0.2])
    assert body.distance(np.array([0, 0, np.pi / 2]), points) == pytest.approx([0.3, 0.2, 0.3, -0.2])


def test_a_route_that_asks_for_a_skill_without_a_bundle_is_refused():
    course = replace(official(), route=(Waypoint(2.0, -2.0, skill="jump"),))
    assert plan(course, FOOTPRINT, SKILLS) == course.route
    with pytest.raises(InputError, match="'jump', which has no bundle"):
        plan(course, FOOTPRINT, ("walk", "climb"))


def test_a_jump_without_room_for_its_run_is_refused():
    course = official()
    blocked = replace(course.changed("start table", table=Table((1.2, -4.5))), start=(1.2, -4.5, 0.0))
    with pytest.raises(InputError, match="no route for the skill 'jump'"):
        plan(blocked, FOOTPRINT, SKILLS)
    outside = course.changed("jump", gates=(Gate((0.3, -4.0), (0.3, -5.0)), Gate((3.7, -4.0), (3.7, -5.0))))
    with pytest.raises(InputError, match="inside the area"):
        plan(outside, FOOTPRINT, SKILLS)


def test_slower_skills_make_a_slower_route(official_route):
    quick = lay_path(official().start, official_route, MotionLimits()).time[-1]
    slower = Paces(climb=0.8, jump=1.6, walker=Envelope(sideways=0.6, yaw=1.0, acceleration=1.5))
    slow = lay_path(official().start, plan(official(), FOOTPRINT, SKILLS, slower), MotionLimits()).time[-1]
    assert slow > quick + 1.5


@pytest.mark.parametrize("name", ["official", "reversed"])
def test_an_a_frame_is_left_slower_where_poles_follow(name):
    course, paces = by_name(name), Paces()
    over = [w for w in plan(course, FOOTPRINT, SKILLS, paces) if w.skill == "climb"]
    names = [o.name for o in course.obstacles]
    poles_follow = names[names.index("a frame") + 1] == "weave poles"
    assert poles_follow == (name == "reversed")
    assert over[-1].speed == (paces.weave if poles_follow else paces.descend) and over[0].speed == paces.climb


def test_a_table_is_approached_squarely_where_the_straight_way_brushes_a_pole():
    course = official()
    table, gate = np.array(course.end_table.center), course.obstacles[-1].gates[-1]
    inward = (table - gate.center) / np.linalg.norm(table - gate.center)
    across = np.array([-inward[1], inward[0]])
    here = table - 1.9 * inward + 0.5 * across
    for beside, squarely in ((0.2, True), (0.6, False)):
        way = (table - here) / np.linalg.norm(table - here)
        at = here + 0.3 * way + beside * np.array([-way[1], way[0]])
        ask = RouteRequest(replace(course, extra_poles=(Pole(*at.tolist()),)), FOOTPRINT, SKILLS, Paces())
        entry = OntoTable().entry(ask, len(course.obstacles) - 1, here)
        assert (entry is not None) == squarely
        if entry is not None:
            before = np.array([entry.x, entry.y]) - gate.center
            assert before @ across == pytest.approx(0.0, abs=1e-9) and before @ inward < 0
            assert entry.yaw == pytest.approx(np.arctan2(inward[1], inward[0]))


def test_a_ramp_is_entered_slower_behind_a_turn():
    course, paces = official(), Paces()
    k = next(i for i, o in enumerate(course.obstacles) if isinstance(o, AFrameObstacle))
    frame = straight_over(course.obstacles[k], paces)[0]
    assert frame.yaw is not None
    for turn, speed in ((0.0, paces.enter), (np.pi / 2, paces.enter_turning), (-np.pi / 2, paces.enter_turning)):
        yaw = frame.yaw + turn
        before = Waypoint(frame.x - 1.0 * np.cos(yaw), frame.y - 1.0 * np.sin(yaw), 1.0, yaw=yaw)
        over = OverFrame().extended(RouteRequest(course, FOOTPRINT, SKILLS, paces), k, [before])
        entered = next(w for w in over if w.x == frame.x and w.y == frame.y)
        assert entered.speed == min(speed, paces.climb)


@pytest.mark.parametrize("seed", [1105, 1115, 1118, 1130])
def test_a_run_at_the_board_beside_the_start_table_is_turned_to(seed):
    """A robot that was led round a corner there began its bound at 1 m/s sideways, and touched the board."""
    course = by_name(f"generated:{seed}")
    assert isinstance(course.obstacles[1], BroadJump)
    route = plan(course, FOOTPRINT, SKILLS)
    bound = next(i for i, w in enumerate(route) if w.skill == "jump")
    run = route[bound - 1]
    assert run.yaw is not None and all(w.yaw is not None for w in route[1:bound])
    path = lay_path(course.start, route, MotionLimits())
    there = int(np.hypot(path.xy[:, 0] - run.x, path.xy[:, 1] - run.y).argmin())
    way = path.xy[there] - path.xy[there - 5]
    aside = wrap(float(np.arctan2(way[1], way[0])) - run.yaw)
    assert abs(aside) < 0.2 and abs(wrap(float(path.yaw[there]) - run.yaw)) < 0.2
