"""Random courses and the rearranged one: routes through every gate, driven by a kinematic robot; ranges evaluated."""

import numpy as np
import pytest
from kinematic import drive

from policies.evaluation import evaluate as module
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.evaluate import evaluate
from policies.evaluation.options import EvaluateOptions
from policies.navigation.navigator import course_navigator
from policies.navigation.obstacles.broad_jump import BRAKED
from policies.navigation.paces import Paces
from policies.navigation.path import MotionLimits, lay_path
from policies.navigation.route_cache import planned
from sim.course.description import SKILLS, Course
from sim.course.files import by_name
from sim.course.score import Scorer
from sim.robots.description import default_robot

FOOTPRINT = default_robot().footprint

NAMES = ["rearranged", "reversed", *(f"generated:{seed}" for seed in range(10))]


def route_of(course: Course):
    return planned(course, FOOTPRINT, SKILLS, Paces())


@pytest.mark.parametrize("name", NAMES)
def test_a_robot_on_the_path_passes_all_gates(name):
    course = by_name(name)
    route = route_of(course)
    assert {w.skill for w in route} == set(SKILLS)
    path = lay_path(course.start, route, MotionLimits())
    scorer = Scorer(course)
    for k, (x, y) in enumerate(path.xy):
        scorer.update(0.02 * k, float(x), float(y))
    assert scorer.passed == [len(o.gates) for o in course.obstacles]
    low, high = np.array(course.area[:2]) - 1.0, np.array(course.area[2:]) + 1.0
    assert (path.xy > low).all() and (path.xy < high).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_robot_that_lags_gets_over_the_course(name):
    course = by_name(name)
    run = drive(course, course_navigator(course, route_of(course)))
    assert run.result.finished
    assert all(o.completed for o in run.result.obstacles.values())


@pytest.mark.parametrize("name", ["reversed", "generated:3", "generated:5"])
def test_the_jumper_starts_with_all_feet_on_the_floor_and_slows_down_where_no_table_follows(name):
    course = by_name(name)
    route, board = route_of(course), course.board
    assert board is not None
    along = np.array([np.cos(board.yaw), np.sin(board.yaw)])
    first = next(k for k, w in enumerate(route) if w.skill == "jump")
    begin = np.array([route[first - 1].x, route[first - 1].y])
    feet = begin - FOOTPRINT.reach[1] * along
    assert (course.terrain().height(*np.stack([begin, feet], 1)) == 0).all()
    last = max(k for k, w in enumerate(route) if w.skill == "jump")
    gate = next(o for o in course.obstacles if o.name == "jump").gates[-1]
    assert (np.array([route[last].x, route[last].y]) - gate.center) @ along == pytest.approx(BRAKED, abs=1e-3)
    path = lay_path(course.start, route, MotionLimits())
    behind = (path.s > path.marks[last]) & (path.s < path.marks[last + 1])
    assert path.speed[behind].max() <= Paces().settled + 0.01 and np.abs(path.yaw_slope[behind]).max() < 0.5


def test_an_evaluation_of_a_range_takes_turns_and_names_the_courses(tmp_path, monkeypatch):
    monkeypatch.setattr(
        CourseWorlds.__init__, "__kwdefaults__", CourseWorlds.__init__.__kwdefaults__ | {"time_limit": 0.4}
    )
    monkeypatch.setattr(module, "MOST_WORLDS", 2)
    out = evaluate(
        EvaluateOptions(policy="specialists", course="generated:3-4", runs=5, randomize=True, seed=5, report=tmp_path)
    )
    assert [world["course"] for world in out["worlds"]] == ["generated:3", "generated:4"] * 2 + ["generated:3"]
    assert [world["seed"] for world in out["worlds"]] == module.world_seeds(5, 5).tolist()
    assert out["runs"] == 5 and set(out["per_obstacle_success"]) == set(out["worlds"][0]["gates"])
    failures = (tmp_path / "failures.md").read_text()
    assert "| seed | course |" in failures and "--course COURSE --seed SEED" in failures
    alone = evaluate(EvaluateOptions(policy="specialists", course="generated:4", runs=2, randomize=True, seed=5))
    assert alone["course"] == "generated:4" and alone["worlds"][1] == out["worlds"][1]
