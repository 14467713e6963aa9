"""Random courses: fair, repeatable, and what their names may be."""

from collections import Counter

import numpy as np
import pytest

from sim.course.description import OBSTACLES, Course, convex_overlap
from sim.course.files import by_name, load, save, several
from sim.course.generator import POLES, generate
from sim.course.obstacles.a_frame import SLOPE
from sim.course.obstacles.broad_jump import BOARD_LENGTH
from sim.course.obstacles.weave_poles import POLE_GAP
from sim.course.placement import AREA, OVERHANG
from sim.course.score import score_log
from sim.course.terrain import footprint
from sim.errors import InputError


@pytest.fixture(scope="module")
def courses() -> list[Course]:
    return [generate(seed) for seed in range(50)]  # each has passed the course's own checks: nothing overlaps


def test_all_have_all_obstacles_within_the_official_sizes(courses):
    sizes = {"start table": 1.0, "weave poles": 6.0, "a frame": 6.0, "jump": 4.0, "end table": 1.0}
    for course in courses:
        assert {o.name: o.nominal_size for o in course.obstacles} == sizes
        assert course.obstacles[0].name == "start table" and course.obstacles[-1].name == "end table"
        assert course.a_frame is not None and course.board is not None
        assert SLOPE[0] <= course.a_frame.slope <= SLOPE[1]
        assert BOARD_LENGTH[0] <= course.board.length <= BOARD_LENGTH[1]
        assert POLES[0] <= len(course.poles) <= POLES[1]
        poles = np.array([(p.x, p.y) for p in course.poles])
        gaps = np.linalg.norm(np.diff(poles, axis=0), axis=1)
        assert gaps.min() > POLE_GAP[0] - 1e-3 and gaps.max() < POLE_GAP[1] + 1e-3


def test_they_lie_in_the_area_and_their_tables_are_axis_aligned(courses):
    low, high = np.array(AREA[:2]) - OVERHANG - 1e-3, np.array(AREA[2:]) + OVERHANG + 1e-3
    for course in courses:
        corners = np.concatenate([footprint(piece) for piece in course.terrain().pieces])
        corners = np.concatenate([corners, [(p.x, p.y) for p in course.poles]])
        assert (corners >= low).all() and (corners <= high).all()
        assert course.height(*course.start[:2]) == course.start_table.height


def test_the_run_at_the_board_is_long_flat_and_free(courses):
    for course in courses:
        board, jump = course.board, next(o for o in course.obstacles if o.name == "jump")
        assert board is not None
        along = np.array([np.cos(board.yaw), np.sin(board.yaw)])
        ahead = (np.array(board.center) - jump.gates[0].center) @ along - board.length / 2
        run = np.linspace(jump.gates[0].center - (1.55 - ahead) * along, jump.gates[1].center, 40)
        assert ahead == pytest.approx(0.8, abs=1e-3)
        assert (course.terrain().height(run[:, 0], run[:, 1]) == 0).all()
        assert (run > np.array(AREA[:2]) - 1e-3).all() and (run < np.array(AREA[2:]) + 1e-3).all()
        poles = np.array([(p.x, p.y) for p in course.poles])
        assert np.linalg.norm(run[:, None] - poles, axis=2).min() > 0.3


def test_gates_are_made_as_the_official_ones(courses):
    for course in courses:
        gates = {o.name: o.gates for o in course.obstacles}
        assert len(gates["weave poles"]) == len(course.poles) + 1
        places = [(p.x, p.y) for p in course.poles]
        for gate, pole, following in zip(gates["weave poles"][1:-1], places, places[1:], strict=False):
            assert (gate.left, gate.right) == (pole, following)
        for gate, pole in ((gates["weave poles"][0], places[0]), (gates["weave poles"][-1], places[-1])):
            assert gate.right == pole
            assert np.hypot(*(np.array(gate.left) - pole)) == pytest.approx(0.7, abs=1e-3)
        frame = course.a_frame
        assert frame is not None
        along = np.array([np.cos(frame.yaw), np.sin(frame.yaw)])
        at = [(gate.center - frame.center) @ along for gate in gates["a frame"]]
        assert np.allclose(at, (-frame.half_length, 0, frame.half_length), atol=1e-3)
        visited = [course.start[:2], *(g.center for o in course.obstacles for g in o.gates)]
        result = score_log(range(len(visited) + 8), [*visited, *[course.end_table.center] * 8], False, course)
        assert result.finished


def test_orders_sides_and_headings_vary(courses):
    orders = Counter(tuple(o.name for o in course.obstacles) for course in courses)
    assert len(orders) == 6 and max(orders.values()) < 50
    assert {name for order in orders for name in order} == set(OBSTACLES)
    assert {len(course.poles) for course in courses} == set(range(POLES[0], POLES[1] + 1))
    quarters = Counter(int(np.floor(course.a_frame.yaw / (np.pi / 2))) for course in courses if course.a_frame)
    assert len(quarters) == 4
    sides = Counter()
    for course in courses:
        first = next(o for o in course.obstacles if o.name == "weave poles").gates[0]
        line = np.array((course.poles[-1].x, course.poles[-1].y)) - first.right
        outward = np.array(first.left) - first.right
        sides[bool(line[0] * outward[1] - line[1] * outward[0] > 0)] += 1
    assert min(sides.values()) > 20


def test_equal_seeds_equal_courses_and_others_differ(courses):
    assert generate(7) == courses[7] == by_name("generated:7")
    assert len({course.start_table.center for course in courses}) == len(courses)
    assert courses[7].name == "generated:7"


def test_they_survive_a_file(courses, tmp_path):
    for course in courses[:20]:
        save(course, tmp_path / "course.yaml")
        assert load(tmp_path / "course.yaml") == course


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, True, "7"])
def test_what_is_no_seed_is_refused(seed):
    with pytest.raises(InputError, match="needs a seed from 0"):
        generate(seed)


NAMES = ["generated:", "generated:x", "generated:-3", "generated:1-", "generated:1-2-3", "generated: 7", "generated:٣"]


@pytest.mark.parametrize("name", NAMES)
def test_malformed_names_are_refused(name):
    for reader in (by_name, several):
        with pytest.raises(InputError, match="must be generated:SEED"):
            reader(name)


@pytest.mark.parametrize("name", ["generated:9-3", "generated:0-1000", "generated:4294967296"])
def test_ranges_that_make_no_sense_are_refused(name):
    with pytest.raises(InputError, match="must name 1 to 1000 seeds"):
        several(name)


def test_a_range_is_several_names_and_no_course():
    assert several("generated:3-5") == ["generated:3", "generated:4", "generated:5"]
    assert several("official") == ["official"]
    with pytest.raises(InputError, match="names 3 courses: only evaluate"):
        by_name("generated:3-5")


def test_overlap_of_quadrilaterals():
    square = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1]])
    assert convex_overlap(square, square + 0.9) and not convex_overlap(square, square + [1.1, 0])
