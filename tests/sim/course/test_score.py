"""The scorer gives the numbers of brax's official one, on any log."""

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from brax.experimental.barkour import score_barkour as brax_scorer
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.bundle.reader import Bundle
from robot.loop.recording import read as read_recording
from sim.course.description import Course, official
from sim.course.files import load
from sim.course.score import Scorer, read_log, score_file, score_log, write_log
from sim.errors import InputError

COURSE = official()
# Places that matter to the rules: gates in order, the end table and its rim, and far away.
GATES = [tuple(gate.center) for obstacle in COURSE.obstacles for gate in obstacle.gates]
PLACES = [*GATES, (4.5, -4.5), (4.5, -4.5), (4.04, -4.5), (3.97, -4.5), (3.9, -4.5), (0.5, -0.5), (2.5, -2.5)]


def both(times, positions, touched):
    mine = score_log(times, positions, touched, COURSE)
    score, metrics = brax_scorer.score_barkour(np.array(times), np.array(positions), touched)
    return mine, score, metrics


def assert_equal(times, positions, touched):
    mine, score, metrics = both(times, positions, touched)
    assert abs(mine.score - score) < 1e-9
    assert abs(mine.time_s - metrics["final_run_time_seconds"]) < 1e-9
    assert abs(mine.end_table_s - metrics["time_at_end_table"]) < 1e-9
    assert abs(mine.path_m - metrics["trajectory_length_meter"]) < 1e-9
    assert sum(o.completed for o in mine.obstacles.values()) == metrics["obstacles_completed"]
    assert sum(o.gates_passed for o in mine.obstacles.values()) == metrics["gates_completed"]


def walk_through(places, speed, dt, noise, rng, hold=0.0):
    """A trajectory through `places` at `speed` m/s, sampled every `dt` s, then `hold` s at the last place."""
    points = []
    for a, b in zip(places[:-1], places[1:], strict=True):
        steps = max(1, int(np.hypot(b[0] - a[0], b[1] - a[1]) / (speed * dt)))
        points += [np.array(a) + (np.array(b) - a) * k / steps for k in range(steps)]
    points += [np.array(places[-1])] * (int(hold / dt) + 1)
    positions = np.array(points) + rng.normal(0, noise, (len(points), 2))
    return (np.arange(len(points)) * dt).tolist(), [tuple(p) for p in positions.tolist()]


@settings(max_examples=200, deadline=None)
@given(
    places=st.lists(st.sampled_from(PLACES), min_size=2, max_size=8),
    speed=st.floats(0.3, 6.0),
    dt=st.sampled_from([0.01, 0.02, 0.05]),
    noise=st.sampled_from([0.0, 0.003, 0.05]),
    hold=st.sampled_from([0.0, 2.0, 5.2]),
    touched=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_official_scorer_between_places_that_matter(places, speed, dt, noise, hold, touched, seed):
    rng = np.random.default_rng(seed)
    assert_equal(*walk_through(places, speed, dt, noise, rng, hold), touched)


CORNERS = [np.array(p) for o in COURSE.obstacles for g in o.gates for p in (g.left, g.right, tuple(g.center))]
CORNERS += [np.array(p) for p in ((4.5, -4.5), (4.0, -4.0), (5.0, -4.5), (5.05, -4.5), (3.95, -4.5))]
# Steps exactly as long as the rule's 0.04 m, and around it.
STEPS = np.array([(0.04, 0), (0, 0.04), (0.024, 0.032), (-0.04, 0), (0, -0.04), (-0.024, 0.032), (0.02, 0), (0, 0.039)])


@settings(max_examples=2500, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    kind=st.sampled_from(["steps", "lattice", "leaps", "gates"]),
    count=st.integers(2, 40),
    touched=st.booleans(),
)
def test_equals_the_official_scorer_where_its_rules_tie(seed, kind, count, touched):
    """On gate lines and poles, on the end table's rim, at steps of exactly 0.04 m, with clocks that stand still."""
    rng = np.random.default_rng(seed)
    at = CORNERS[rng.integers(len(CORNERS))]
    if kind == "steps":
        positions = at + np.cumsum(STEPS[rng.integers(len(STEPS), size=count)], 0)
    elif kind == "lattice":
        positions = at + np.cumsum(rng.integers(-4, 5, (count, 2)) * 0.01, 0)
    elif kind == "leaps":
        positions = np.array([CORNERS[i] for i in rng.integers(len(CORNERS), size=count)])
        positions = positions + rng.integers(-2, 3, (count, 2)) * 0.02
    else:  # every gate in order, some missed on the outside, then the end table
        gates = [gate for obstacle in COURSE.obstacles for gate in obstacle.gates]
        width = rng.uniform(-0.55, 0.55, len(gates))
        places = [g.center + w * (np.array(g.left) - g.right) for g, w in zip(gates, width, strict=True)]
        positions = np.array([*places, *[np.array((4.5, -4.5))] * 8])
    times = np.cumsum(rng.choice([0.0, 0.02, 0.5, 1.0, 5.0], len(positions))) - rng.choice([0.0, 1e-6, 3.0])
    assert_equal(times.tolist(), [tuple(p) for p in positions.tolist()], touched)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.005, 0.4), st.integers(2, 200), st.booleans())
def test_equals_the_official_scorer_on_random_walks(seed, step, count, touched):
    rng = np.random.default_rng(seed)
    start = np.array(PLACES[rng.integers(len(PLACES))])
    positions = start + np.cumsum(rng.normal(0, step, (count, 2)), 0)
    times = 3.0 + np.cumsum(rng.uniform(0.0, 0.2, count))
    assert_equal(times.tolist(), [tuple(p) for p in positions.tolist()], touched)


def full_run(speed=1.5, seed=0):
    places = [(0.5, -0.4), *GATES, (4.5, -4.5)]
    return walk_through(places, speed, 0.02, 0.0, np.random.default_rng(seed), hold=5.5)


def test_a_run_through_all_gates_completes_everything():
    times, positions = full_run()
    result = score_log(times, positions, False, COURSE)
    assert result.finished and all(o.completed for o in result.obstacles.values())
    assert result.score > 0.9 and result.progress == 1.0
    assert_equal(times, positions, False)


def test_times_over_obstacles_add_up_to_the_runs():
    times, positions = full_run()
    result = score_log([t + 100.0 for t in times], positions, False, COURSE)
    assert list(result.obstacle_s) == ["weave poles", "a frame", "jump", "end table"]
    assert sum(result.obstacle_s.values()) == pytest.approx(result.time_s)
    assert {name: len(gates) for name, gates in result.gate_times.items()} == {
        obstacle.name: len(obstacle.gates) for obstacle in COURSE.obstacles if obstacle.gates
    }
    beyond = next(t for t, (x, _) in zip(times, positions, strict=True) if x > 1.4)  # where the start table's gate is
    assert result.gate_times["start table"] == [pytest.approx(100.0 + beyond, abs=0.021)]
    touched = score_log(times, positions, True, COURSE)
    assert "jump" not in touched.obstacle_s and "jump" in touched.gate_times


def test_touching_the_board_costs_the_jump_and_its_time():
    times, positions = full_run(speed=0.6)
    clean, touched = (score_log(times, positions, t, COURSE) for t in (False, True))
    assert not touched.obstacles["jump"].completed
    assert clean.score - touched.score == pytest.approx(0.1 + 0.01 * 4 / 1.69)


def test_whole_seconds_never_cost_more_and_less_than_a_second():
    times, positions = full_run(speed=0.5)
    exact = score_log(times, positions, False, COURSE)
    whole = score_log(times, positions, False, COURSE, whole_seconds=True)
    over = exact.time_s - exact.allotted_s
    assert over > 1 and whole.score == pytest.approx(1 - 0.01 * math.floor(over))


def test_whole_seconds_count_a_second_that_is_just_full():
    # The clock starts at the gate at t = 0 and stops at the end table 3 s after the allotted time.
    allotted = sum(o.nominal_size for o in COURSE.obstacles if o.name == "start table" or o.name == "end table") / 1.69
    positions = [(1.4, -0.3), (4.5, -4.5), (4.5, -4.5)]
    result = score_log([0.0, allotted + 3, allotted + 9], positions, False, COURSE, whole_seconds=True)
    assert result.score == pytest.approx(1 - 0.3 - 0.03, abs=1e-12)


def test_without_the_end_table_both_rules_take_half():
    times, positions = full_run()
    cut = next(i for i, p in enumerate(positions) if p[0] > 4.0 and p[1] < -4.0)
    for whole in (False, True):
        result = score_log(times[:cut], positions[:cut], False, COURSE, whole_seconds=whole)
        assert not result.finished and result.score == pytest.approx(1 - 0.5 - 0.1)


def test_a_lost_pose_changes_nothing():
    times, positions = full_run()
    scorer = Scorer(COURSE)
    for time, (x, y) in zip(times, positions, strict=True):
        scorer.update(time, x, y)
        scorer.update(time, math.nan, y)
    assert scorer.result() == score_log(times, positions, False, COURSE)


def test_a_run_without_samples_has_a_result_that_json_can_hold():
    result = Scorer(COURSE).result().to_dict()
    assert result["score"] == pytest.approx(0.0) and result["time_s"] == 0.0
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_other_courses_bring_their_own_gates_sizes_and_end_table():
    shift = np.array((10.0, 3.0))

    def moved_obstacle(obstacle):
        return replace(obstacle.moved(lambda p: _add(p, shift)), nominal_size=2 * obstacle.nominal_size)

    moved = Course(
        name="moved",
        obstacles=(moved_obstacle(COURSE.obstacles[0]), moved_obstacle(COURSE.obstacles[-1])),
        start=(10.5, 2.5, 0.0),
    )
    times, positions = full_run()
    result = score_log(times, [_add(p, shift) for p in positions], False, moved)
    assert result.finished and set(result.obstacles) == {"start table", "end table"}
    assert result.allotted_s == pytest.approx(4 / 1.69)


def _add(point, shift):
    return (float(point[0] + shift[0]), float(point[1] + shift[1]))


def test_the_papers_best_run_is_scored_as_published():
    # 20.4 s with every obstacle: 0.91 by whole seconds (arXiv 2305.14654).
    over = 20.4 - sum(o.nominal_size for o in COURSE.obstacles) / COURSE.target_velocity
    assert 1 - 0.01 * math.floor(over) == pytest.approx(0.91)


def test_streaming_equals_batch_at_every_moment():
    times, positions = full_run()
    scorer = Scorer(COURSE)
    for i, (time, (x, y)) in enumerate(zip(times, positions, strict=True)):
        scorer.update(time, x, y)
        if i % 100 == 1:
            assert scorer.result() == score_log(times[: i + 1], positions[: i + 1], False, COURSE)


def test_logs_survive_a_round_trip_exactly(tmp_path):
    times, positions = full_run(seed=3)
    write_log(tmp_path / "log.csv", times, positions, "seed 3")
    assert read_log(tmp_path / "log.csv") == (times, positions)
    assert not list(tmp_path.glob("*.partial"))
    assert score_file(tmp_path / "log.csv", COURSE) == score_log(times, positions, False, COURSE)


def test_the_official_script_reads_our_logs(tmp_path):
    times, positions = full_run(seed=3)
    write_log(tmp_path / "log.csv", times, positions, "two\nlines")
    data = np.loadtxt(tmp_path / "log.csv", delimiter=",")
    score, _ = brax_scorer.score_barkour(data[:, 0], data[:, 1:], False)
    assert score_file(tmp_path / "log.csv", COURSE).score == pytest.approx(score, abs=1e-9)


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot write the log"):
        write_log(tmp_path / "no folder" / "log.csv", [0.0], [(0.0, 0.0)])


@pytest.mark.parametrize(
    "text, message",
    [
        ("0,0,0\n0.1,hello,0\n", "line 2: expected"),
        ("0,0,0\n0.1,0\n", "line 2: expected"),
        ("0,0,0\n0.1,0,0,0\n", "line 2: expected"),
        ("time,x,y\n0,0,0\n", "line 1: expected"),
        ("# comment\n0,0,0\n\n1e999,0,0\n", "line 4: a number is not finite"),
        ("0.2,0,0\n0.1,0,0\n", "line 2: time runs backwards"),
        ("0,0,0\n", "at least two"),
        ("", "at least two"),
        ("0,0,0\n1,nan,0\n", "line 2: a number is not finite"),
        ("# time\ntime,x,y\n0,0,0\n1,0,0\n", "line 2: expected.*header"),
        ("time (s), x [m], y [m]\n0,0,0\n1,0,0\n", "line 1: expected.*header"),
        ("0,0_5,0\n1_0,0,0\n", "line 1: expected"),
        ("0,０,0\n1,0,0\n", "line 1: expected"),
        ("0,0,0\n1,1e308,-1e308\n", "line 2: .* farther"),
        ("0,0,0\n20000,1,0\n", "not ms or ns"),
        ("1764000000000000000,0,0\n1764000020000000000,1,0\n", "not ms or ns"),
        ("".join(f"{20 * i},{0.02 * i},0\n" for i in range(150)), "not ms or ns"),
        ("".join(f"{i / 3000!r},{0.02 * i},0\n" for i in range(1500)), "not minutes"),
        ("".join(f"{i / 180000!r},{0.02 * i},0\n" for i in range(1500)), "not minutes or hours"),
        ("".join(f"{i / 3000!r},{0.01 * i},0\n" for i in range(250)), "not minutes or hours"),
        ("# made by hand\u20280,0,0\n1,1,0\n2,2,0\n", "line 1: lines must end"),
        ("0,0,0\n1,1,0 # here\x0b2,2,0\n3,3,0\n", "line 2: lines must end"),
        ("3,0,0\n3,1,0\n", "one time"),
        ("0,0,0\x0c1,0,0\n", "line 1: expected"),
        ("0,0,0\u20281,0,0\n", "line 1: expected"),
    ],
)
def test_bad_logs_are_refused_with_line_and_reason(tmp_path, text, message):
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_log(path)


@pytest.mark.parametrize("unit", [100.0, 1000.0, 39.37])
def test_positions_that_are_no_metres_are_refused(tmp_path, unit):
    times, positions = full_run()
    write_log(tmp_path / "log.csv", times, [(unit * x, unit * y) for x, y in positions])
    with pytest.raises(InputError, match="metres"):
        score_file(tmp_path / "log.csv", COURSE)


def test_a_pose_that_waits_hops_and_jitters_is_scored(tmp_path):
    times, positions = full_run()
    rng = np.random.default_rng(0)
    lost = [_add(p, rng.normal(0, 0.03, 2) + 100 * (rng.random() < 0.1)) for p in positions]
    waiting = [-1000.0, *times], [positions[0], *lost]
    write_log(tmp_path / "log.csv", *waiting)
    assert score_file(tmp_path / "log.csv", COURSE) == score_log(*waiting, False, COURSE)


def test_only_regular_files_of_bounded_size_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(40 << 30)
    for path in (tmp_path / "pipe", tmp_path / "sparse", Path("/dev/zero"), tmp_path):
        for read in (read_log, load, Bundle.load, read_recording):
            with pytest.raises(InputError) as found:
                read(path)
            assert "\n" not in str(found.value)


def test_a_missing_or_binary_log_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot read the log"):
        read_log(tmp_path / "nothing.csv")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot read the log"):
        read_log(tmp_path / "binary.csv")
