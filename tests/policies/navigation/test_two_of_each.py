"""A course with two of each kind of obstacle is loaded, planned, run and scored."""

from dataclasses import replace

import numpy as np
import pytest
from kinematic import clearance, drive

from policies.evaluation.course_run import CourseWorlds
from policies.navigation.navigator import course_navigator
from policies.navigation.path import MotionLimits, lay_path
from policies.navigation.route_cache import planned
from policies.skills.library import load_skills, paces_of
from sim.course.description import SKILLS, Course, official
from sim.course.files import load, save
from sim.course.score import PENALTY, Scorer, score_log

NAMES = ["start table", "weave poles", "a frame", "jump", "weave poles 2", "a frame 2", "jump 2", "end table"]


def twice() -> Course:
    """The official course, and behind its jump the same three obstacles 5 m to the right and 4 m down."""

    def there(point: tuple[float, float]) -> tuple[float, float]:
        return round(point[0] + 5.0, 4), round(point[1] - 4.0, 4)

    start, *between, end = official().obstacles
    obstacles = (start, *between, *(obstacle.moved(there) for obstacle in between), end.moved(there))
    return replace(official(), name="twice", obstacles=obstacles, area=(0.0, -9.0, 10.0, 0.0))


COURSE = twice()


@pytest.fixture(scope="module")
def route():
    skills = load_skills("generalist")
    return planned(COURSE, skills.robot.footprint, SKILLS, paces_of(skills))


@pytest.fixture
def worlds(route):
    return CourseWorlds(replace(COURSE, route=route), load_skills("generalist"), [0], time_limit=2.0)


def visits(*left_out: str) -> list[tuple[float, float]]:
    """The middle of all gates in order, save those of some obstacles, then the end table."""
    gates = [gate for obstacle in COURSE.obstacles if obstacle.name not in left_out for gate in obstacle.gates]
    middles = [(float(gate.center[0]), float(gate.center[1])) for gate in gates for _ in range(2)]
    return [COURSE.start[:2], *middles, *[COURSE.end_table.center] * 8]


def test_each_has_a_name_of_its_own_here_and_in_a_file(tmp_path):
    assert [obstacle.name for obstacle in COURSE.obstacles] == NAMES
    save(COURSE, tmp_path / "course.yaml")
    assert load(tmp_path / "course.yaml") == COURSE
    unnumbered = (tmp_path / "course.yaml").read_text().replace(" 2\n", "\n")
    (tmp_path / "course.yaml").write_text(unnumbered)
    assert load(tmp_path / "course.yaml") == COURSE


def test_a_number_that_is_taken_is_left_out():
    jumps = COURSE.of(type(COURSE.obstacles[3]))
    first, second = (replace(COURSE.obstacles[1], name=name) for name in ("weave poles", "weave poles 2"))
    third = second.moved(lambda point: (point[0], point[1] + 9.0))
    named = replace(COURSE, obstacles=(COURSE.obstacles[0], first, replace(third, name="weave poles"), jumps[0],
                                       COURSE.obstacles[4], COURSE.obstacles[-1]))  # fmt: skip
    assert [o.name for o in named.obstacles if "poles" in o.name] == ["weave poles", "weave poles 3", "weave poles 2"]


def test_the_ground_has_both():
    for name in ("a frame", "a frame 2"):
        ridge = next(o for o in COURSE.obstacles if o.name == name).gates[1].center
        assert COURSE.height(*ridge) > 0.9
    for name in ("jump", "jump 2"):
        board = next(o for o in COURSE.obstacles if o.name == name).board
        assert COURSE.height(*board.center) == board.thickness and COURSE.pit(*np.array(board.center)) > 0.3
    assert len(COURSE.poles) == 2 * len(official().poles)


def test_each_counts_for_itself():
    whole = score_log(range(len(visits())), visits(), False, COURSE)
    assert list(whole.obstacles) == NAMES and all(o.completed for o in whole.obstacles.values())
    for name in NAMES[1:-1]:
        fewer = visits(name)
        result = score_log(range(len(fewer)), fewer, False, COURSE)
        assert [n for n, o in result.obstacles.items() if not o.completed] == [name]
        assert result.obstacles[name].gates_passed < result.obstacles[name].gates


@pytest.mark.parametrize("board, failed", [(0, {"jump"}), (1, {"jump 2"}), (None, {"jump", "jump 2"})])
def test_a_touched_board_fails_its_own_jump(board, failed):
    clean, touched = Scorer(COURSE), Scorer(COURSE)
    touched.touch_jump(board)
    for scorer in (clean, touched):
        for time, (x, y) in enumerate(visits()):
            scorer.update(float(time), x, y)
    assert {name for name, o in touched.result().obstacles.items() if not o.completed} == failed
    lost = PENALTY * len(failed) + 0.01 * len(failed) * 4.0 / COURSE.target_velocity
    assert clean.result().score - touched.result().score == pytest.approx(lost)


def test_a_judge_who_names_no_board_means_the_one_beside_the_robot():
    scorer = Scorer(COURSE)
    for time, (x, y) in enumerate(visits()):
        scorer.update(float(time), x, y)
        if np.hypot(x - 8.7, y + 8.5) < 0.1:  # at the second jump's last gate
            scorer.touch_jump()
    assert [name for name, o in scorer.result().obstacles.items() if not o.completed] == ["jump 2"]


def test_the_route_leads_through_all_gates_off_the_poles(route):
    path, scorer = lay_path(COURSE.start, route, MotionLimits()), Scorer(COURSE)
    for t, (x, y) in enumerate(path.xy):
        scorer.update(t * 0.02, float(x), float(y))
    assert scorer.passed == [len(obstacle.gates) for obstacle in COURSE.obstacles]
    assert min(clearance(pose, COURSE) for pose in np.column_stack([path.xy, path.yaw])) > 0.015
    skills = [w.skill for w in route]
    changes = [skills[0], *(b for a, b in zip(skills, skills[1:], strict=False) if a != b)]
    assert changes == ["walk", "climb", "walk", "jump", "walk", "climb", "walk", "jump", "walk"]


def test_a_robot_with_lag_completes_it(route):
    done = drive(COURSE, course_navigator(COURSE, route), seconds=60.0)
    assert done.result.finished and all(o.completed for o in done.result.obstacles.values())


def test_a_set_of_poles_that_is_given_up_leaves_the_next_one_its_gates(route):
    navigator = course_navigator(COURSE, route)
    poles = [len(obstacle.gates) for obstacle in COURSE.obstacles if "poles" in obstacle.name]
    navigator.passed = 3  # in the first set
    navigator._give_up_gate()
    assert navigator.passed == 1 + poles[0]
    navigator._give_up_gate()
    assert navigator.passed == 1 + sum(poles) == len(navigator.gates)


@pytest.mark.parametrize("name", ["jump", "jump 2"])
def test_in_the_physics_each_board_has_its_own_sensor(worlds, name):
    board = next(o for o in COURSE.obstacles if o.name == name).board
    x, y = board.center
    worlds.robots.place(np.array([x]), np.array([y]), np.array([board.yaw]), COURSE.height)
    for _ in range(30):
        worlds.step()
    result = worlds.results()[0].result
    assert result.touched_jump and worlds.robots.touched.all()
    assert worlds.scorers[0].touched == {NAMES.index(name)}
    assert worlds.robots.model.geom(f"{name} board").id >= 0 and worlds.robots.model.geom("a frame 2 up").id >= 0
