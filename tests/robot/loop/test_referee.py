"""The referee: the same score from a stream of poses as the scorer gives, and an end for every run."""

import numpy as np
import pytest

from robot.loop.referee import Referee
from sim.course.description import official
from sim.course.score import score_file
from sim.errors import InputError

LEVEL = np.array([1.0, 0.0, 0.0, 0.0])
COURSE = official()
NS = 1_000_000_000


def ground(x: float, y: float) -> float:
    return float(COURSE.height(np.array([x]), np.array([y]))[0])


def drive(referee: Referee, points, speed: float = 1.5, stamp: int = 5 * NS, dwell: float = 6.0) -> int:
    """Moves a ghost over straight lines at 100 Hz, then leaves it standing. Returns the last stamp."""
    here = np.array(points[0], float)
    path = [here]
    for point in points[1:]:
        steps = max(int(np.linalg.norm(np.array(point) - here) / speed * 100), 1)
        path += [here + (np.array(point) - here) * k / steps for k in range(1, steps + 1)]
        here = np.array(point, float)
    path += [here] * int(100 * dwell)
    for x, y in path:
        stamp += NS // 100
        if not referee.pose(stamp, np.array([x, y, ground(x, y) + 0.2]), LEVEL):
            break
    return stamp


def through_the_gates() -> list[tuple[float, float]]:
    points = [COURSE.start[:2]]
    for obstacle in COURSE.obstacles:
        for gate in obstacle.gates:
            normal = np.array([gate.right[1] - gate.left[1], gate.left[0] - gate.right[0]])
            normal /= np.linalg.norm(normal)
            before = np.array(points[-1]) - gate.center
            side = normal if before @ normal > 0 else -normal
            points += [tuple(gate.center + 0.08 * side), tuple(gate.center - 0.08 * side)]
    return [*points, tuple(COURSE.end_table.center)]


def test_a_run_through_all_gates_is_scored_as_its_own_log_is(tmp_path):
    referee = Referee(COURSE)
    drive(referee, through_the_gates())
    result = referee.result()
    assert result["finished"] and result["end"] == "held the end table"
    assert all(obstacle["completed"] for obstacle in result["obstacles"].values())
    referee.write(tmp_path / "pose.csv")
    assert score_file(tmp_path / "pose.csv", COURSE).score == result["score"]
    live = referee.live()
    assert live["score"] == result["score"] and live["end"] == result["end"]


def test_a_judge_who_saw_the_board_touched_fails_the_jump():
    clean, touched = Referee(COURSE), Referee(COURSE)
    touched.touch_board()
    for referee in (clean, touched):
        drive(referee, through_the_gates())
    assert not touched.result()["obstacles"]["jump"]["completed"]
    assert touched.result()["score"] < clean.result()["score"] - 0.09


def test_a_robot_on_its_back_has_fallen_and_one_that_stumbles_has_not():
    x, y = COURSE.start[:2]
    over = np.array([0.0, 1.0, 0.0, 0.0])
    for seconds, end in ((0.2, ""), (0.5, "fell")):
        referee = Referee(COURSE)
        for k in range(int(100 * seconds)):
            referee.pose(NS + k * NS // 100, np.array([x, y, ground(x, y) + 0.2]), over)
        referee.pose(NS + int(seconds * NS), np.array([x, y, ground(x, y) + 0.2]), LEVEL)
        assert referee.end == end
    low = Referee(COURSE)
    for k in range(50):
        low.pose(NS + k * NS // 100, np.array([x, y, ground(x, y) + 0.05]), LEVEL)
    assert low.result()["fell"]


def test_a_run_ends_outside_the_course_and_at_the_time_limit():
    gone = Referee(COURSE)
    drive(gone, [COURSE.start[:2], (-4.0, 0.0)])
    assert gone.end == "left the course"
    slow = Referee(COURSE, time_limit=3.0)
    drive(slow, [*through_the_gates()[:4]], dwell=10.0)
    assert slow.end == "time limit"
    assert slow.result()["obstacles"]["start table"]["completed"]


def test_poses_that_say_nothing_new_or_nothing_at_all_are_left_out():
    referee = Referee(COURSE)
    x, y = COURSE.start[:2]
    here = np.array([x, y, 0.4])
    assert referee.pose(2 * NS, here, LEVEL)
    assert referee.pose(2 * NS, here + 1.0, LEVEL)
    assert referee.pose(NS, here + 1.0, LEVEL)
    assert referee.pose(3 * NS, np.array([np.nan, 0.0, 0.0]), LEVEL)
    assert referee.pose(3 * NS, here, np.full(4, np.inf))
    assert referee.times == [0.0]


def test_without_poses_there_is_no_log_and_a_run_can_be_given_up(tmp_path):
    referee = Referee(COURSE)
    with pytest.raises(InputError, match="no pose"):
        referee.write(tmp_path / "pose.csv")
    referee.give_up("no pose")
    referee.give_up("later")
    assert referee.result()["end"] == "no pose" and not referee.pose(1, np.zeros(3), LEVEL)
