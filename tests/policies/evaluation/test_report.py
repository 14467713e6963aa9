"""What an evaluation reports: times per obstacle, switches, pictures and tables, from hand-made runs."""

from dataclasses import replace

import numpy as np
import pytest

from policies.evaluation import plots, report
from policies.evaluation.evaluate import conditions, summarize
from policies.evaluation.outcome import CourseRun, Switch, Trace
from sim.course.description import official
from sim.course.score import Scorer
from sim.robots.description import default_robot


def course_run(seed: int, last: dict[str, float], time_s: float, end: str = "held the end table") -> CourseRun:
    """A run that passed the last gates of its obstacles at the given times."""
    course = official()
    scorer = Scorer(course)
    scorer.update(0.0, *course.start[:2])
    result = scorer.result()
    done = {name: replace(o, completed=name in last or name == "end table") for name, o in result.obstacles.items()}
    result = replace(result, obstacles=done, time_s=time_s, finished=end.startswith("held"))
    result = replace(result, gate_times={name: [at - 0.5, at] for name, at in last.items()})
    trace = Trace()
    for k in range(int(50 * (time_s + 2))):
        trace.time.append(0.02 * k)
        trace.pose.append((0.5 + 0.01 * k, -0.5, 0.0))
        trace.velocity.append((0.3 + 0.1 * seed, 0.0, 0.0))
    switches = [Switch(3.0, "walk", "climb", 0.02 * seed, 0.2), Switch(6.0, "climb", "walk", 0.03, 0.3)]
    return CourseRun(seed, result, end, time_s + 6, trace, [10.0] * 12, 0.3, {}, switches)


@pytest.fixture
def runs() -> list[CourseRun]:
    first = course_run(1, {"start table": 1.0, "weave poles": 6.0, "a frame": 10.0, "jump": 12.0}, 11.5)
    second = course_run(2, {"start table": 1.2, "weave poles": 6.8, "a frame": 11.2, "jump": 14.0}, 13.5)
    return [first, second]


def test_times_over_obstacles_run_from_the_one_before(runs):
    assert runs[0].obstacle_s == pytest.approx({"weave poles": 5.0, "a frame": 4.0, "jump": 2.0, "end table": 0.5})
    out = summarize(runs)
    assert out["obstacle_s_median"]["weave poles"] == pytest.approx((5.0 + 5.6) / 2)
    assert out["obstacle_s_median"]["start table"] is None
    assert out["time_s_best"] == 11.5 and out["all_obstacles_rate"] == 1.0


def test_an_obstacle_that_was_not_completed_has_no_time():
    run = course_run(1, {"start table": 1.0, "weave poles": 6.0}, 20.0, end="fell")
    assert run.obstacle_s == pytest.approx({"weave poles": 5.0})
    assert course_run(1, {"weave poles": 6.0}, 20.0).obstacle_s == {}
    assert course_run(1, {"start table": 1.0}, 20.0, end="fell").obstacle_s == {}


def test_switches_are_counted_with_their_peaks(runs):
    out = summarize(runs)["switches"]
    assert out["walk to climb"]["count"] == 2 and out["walk to climb"]["jump_rad_peak"] == pytest.approx(0.04)
    assert out["climb to walk"]["unblended_rad_median"] == pytest.approx(0.3)


def test_tables_name_seeds_conditions_and_references(runs):
    failed = course_run(7, {"start table": 1.0, "weave poles": 6.0}, 20.0, end="fell")
    every = [*runs, failed]
    result = summarize(every) | {"policy": "specialists", "course": "official", "robot": "barkour_v0"}
    result["conditions"] = conditions(default_robot(), True) | {"torque_limit_nm": 12.0}
    said = report.report_table(result)
    assert "| weave poles | 5.00 | 9.27 | under 4 |" in said and "torque_limit_nm: 12.0" in said
    assert "| falls | 33 % | 8 % | 0 % |" in said and "| walk to climb | 3 |" in said
    failures = report.failure_table(every, result)
    assert "| 7 |" in failures and "--seed SEED --randomize --torque-limit 12" in failures


def test_the_speed_profile_is_drawn_whatever_the_runs_did(runs, tmp_path):
    plots.speed_profile(runs, tmp_path / "speed.png", "two")
    never = course_run(3, {}, 2.0, end="fell")
    plots.speed_profile([never], tmp_path / "none.png")
    assert (tmp_path / "speed.png").stat().st_size > (tmp_path / "none.png").stat().st_size > 1000
    assert np.isfinite(runs[0].trace.velocity).all()


@pytest.mark.parametrize("name", ["f\udcfcr.onnx", "a$b_$c.onnx", "$x^{$", "\x1b[31m"])
def test_pictures_are_drawn_whatever_a_policy_is_called(name, runs, tmp_path):
    plots.score_histogram([0.5, 1.0], tmp_path / "scores.png", name)
    plots.speed_profile(runs, tmp_path / "speed.png", name)
    plots.path_over_course(official(), runs, tmp_path / "paths.png", title=name)
    assert all((tmp_path / f"{each}.png").stat().st_size > 1000 for each in ("scores", "speed", "paths"))
