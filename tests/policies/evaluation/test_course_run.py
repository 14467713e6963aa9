"""Course runs on the shipped walker: what they report, that they repeat, that the score is the log's."""

import csv
import json
from dataclasses import replace
from importlib.resources import files

import jsonschema
import numpy as np
import pytest

from policies.evaluation import video
from policies.evaluation.comparison import compare, confidence95
from policies.evaluation.course_run import CourseWorlds, run
from policies.evaluation.evaluate import REPORT, evaluate, summarize
from policies.evaluation.options import CourseRunOptions, EvaluateOptions
from policies.skills.library import load_skills
from sim.course.description import official
from sim.course.score import score_file
from sim.envs.worlds import SimulatedRobots, world_seeds
from sim.errors import InputError
from sim.folders import LOCK
from sim.localization import PoseErrors

SECONDS = 3.0
KEYS = {"score", "time_s", "finished", "fell", "touched_jump", "obstacles", "seed", "policy", "course", "log"}


@pytest.fixture(scope="module", params=["specialists", "generalist"])
def skills(request):
    return load_skills(request.param)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The command of `make run`: one whole run of the course on the shipped weights."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video, "_encoder", lambda: None)  # test_video makes films; this one would take a while
        return run(CourseRunOptions(seed=0, record=folder)), folder


def test_the_shipped_policy_takes_the_robot_over_the_course(whole):
    report, _ = whole
    assert set(report) >= KEYS
    assert report["finished"] and not report["fell"]
    done = {name: o["completed"] for name, o in report["obstacles"].items()}
    assert done["start table"] and done["weave poles"] and done["end table"]
    assert 0.5 < report["score"] <= 1.0
    assert 3.0 < report["weave_s"] < 15.0 and report["torque_peak_nm"] <= 18.0 + 1e-6


@pytest.mark.parametrize("torque_limit", [None, 12.0])
def test_the_way_is_rehearsed_with_weak_motors_too(skills, torque_limit):
    """Without it specialists with 12 N m were held by poles in most runs."""
    worlds = CourseWorlds(official(), skills, [0, 1], torque_limit=torque_limit)
    assert all(np.abs(navigator.ahead_of_errors).max() > 0 for navigator in worlds.navigators)


def test_a_run_leaves_what_the_official_scorer_reads(whole):
    report, folder = whole
    assert {"pose.csv", "path.png", "run.json", "run.mcap", LOCK} == {path.name for path in folder.iterdir()}
    again = score_file(folder / "pose.csv", official(), touched_jump=report["touched_jump"])
    assert again.score == pytest.approx(report["score"], abs=1e-9)
    assert again.time_s == pytest.approx(report["time_s"], abs=1e-9)
    assert json.loads((folder / "run.json").read_text())["score"] == report["score"]
    with (folder / "pose.csv").open() as lines:
        rows = [row for row in csv.reader(lines) if row and not row[0].startswith("#")]
    times = [float(row[0]) for row in rows]
    assert len(rows) > 95 * report["time_s"] and max(np.diff(times)) == pytest.approx(0.01, abs=0.003)


def test_a_world_runs_the_same_alone_and_among_others(skills):
    seeds = world_seeds(7, 3)
    together = CourseWorlds(official(), skills, seeds, randomize=True, time_limit=SECONDS, threads=2).run()
    alone = CourseWorlds(official(), skills, seeds[1:2], randomize=True, time_limit=SECONDS, threads=1).run()
    for name, values in alone[0].trace.arrays().items():
        np.testing.assert_array_equal(values, together[1].trace.arrays()[name], err_msg=name)
    assert not np.array_equal(together[0].trace.arrays()["pose"], together[1].trace.arrays()["pose"])


def test_randomised_worlds_differ_and_nominal_ones_do_not(skills):
    def end(seed: int, randomize: bool) -> tuple[float, float, float]:
        worlds = CourseWorlds(official(), skills, [seed], randomize=randomize, time_limit=0.4)
        return worlds.run()[0].trace.pose[0]

    assert end(1, False) == end(2, False)
    assert end(1, True) != end(2, True)


def test_a_fallen_robot_ends_its_run(skills):
    worlds = CourseWorlds(official(), skills, [0], time_limit=SECONDS)
    worlds.robots.physics.qpos[0, 3:7] = [0.0, 1.0, 0.0, 0.0]  # on its back
    done = worlds.run()[0]
    assert done.end == "fell" and done.fell and done.seconds < 1.5
    assert done.result.score < 0.6


def test_a_touched_board_stays_touched(skills):
    worlds = CourseWorlds(official(), skills, [0], time_limit=SECONDS)
    board = official().board
    assert board is not None
    robots: SimulatedRobots = worlds.robots
    robots.place(np.array([board.center[0]]), np.array([board.center[1]]), np.array([0.0]), worlds.course.height)
    for _ in range(30):
        worlds.step()
    robots.place(np.array([2.5]), np.array([-2.5]), np.array([0.0]), worlds.course.height)
    for _ in range(10):
        worlds.step()
    assert worlds.results()[0].result.touched_jump


def test_an_exploding_world_is_reported_and_the_others_go_on(skills):
    worlds = CourseWorlds(official(), skills, [0, 1], time_limit=0.6)
    worlds.step()
    worlds.robots.physics.qvel[0, 3] = 1e15
    first, second = worlds.run()
    assert first.end == "diverged" and first.fell
    assert second.end == "time limit" and np.isfinite(second.trace.arrays()["pose"]).all()


def test_time_runs_out(skills):
    done = CourseWorlds(official(), skills, [0], time_limit=0.5).run()[0]
    assert done.end == "time limit" and done.seconds == pytest.approx(0.5) and not done.result.finished


def test_seeds_of_an_evaluation_depend_on_seed_and_number_only():
    np.testing.assert_array_equal(world_seeds(3, 10)[:4], world_seeds(3, 4))
    assert len(set(world_seeds(3, 50).tolist()) | set(world_seeds(4, 50).tolist())) == 100
    with pytest.raises(InputError, match="at least 1 run"):
        world_seeds(0, 0)


def test_an_evaluation_counts_what_its_runs_did(skills):
    done = CourseWorlds(official(), skills, world_seeds(1, 3), time_limit=SECONDS).run()
    done[0].end = "fell"
    done[2].result = replace(done[2].result, score=1.0)
    out = summarize(done)
    scores = [run.result.score for run in done]
    assert out["runs"] == 3 and out["fell_rate"] == pytest.approx(1 / 3)
    assert out["score_mean"] == pytest.approx(np.mean(scores)) and out["score_best"] == 1.0
    assert out["time_s_median"] is None and out["finished_rate"] == 0.0
    low, high = confidence95(np.array(scores))
    assert low < out["score_mean"] < high


def test_an_evaluation_writes_its_report(tmp_path, monkeypatch):
    monkeypatch.setattr(
        CourseWorlds.__init__, "__kwdefaults__", CourseWorlds.__init__.__kwdefaults__ | {"time_limit": 1.0}
    )
    asked = EvaluateOptions(runs=2, randomize=True, seed=5, report=tmp_path / "report", against="specialists")
    out = evaluate(asked)
    assert {"runs", "score_mean", "score_ci95", "finished_rate", "fell_rate", "time_s_median"} <= set(out)
    assert {"per_obstacle_success", "conditions"} <= set(out)
    assert [world["seed"] for world in out["worlds"]] == world_seeds(5, 2).tolist()
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["score_mean"] == out["score_mean"] and set(written["drawn"]) == {str(s) for s in world_seeds(5, 2)}
    schema = json.loads((files("policies.evaluation") / "evaluation.schema.json").read_text())
    jsonschema.validate(written, schema)
    jsonschema.validate(out.to_dict(), schema)
    alone = evaluate(EvaluateOptions("specialists", runs=2, randomize=True, seed=5)).to_dict()
    assert out.to_dict()["against"] == alone and out["comparison"] == compare(out, alone)
    assert set(out) - set(alone) == {"against", "comparison", "report"}
    for name in ("report.html", "scores.png", "paths.png", "failures.md"):
        assert (tmp_path / "report" / name).stat().st_size > 100


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"policy": "generalists"}, "unknown policy"),
        ({"policy": "missing.onnx"}, "missing.onnx"),
        ({"course": "unofficial"}, "unofficial"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_run_is_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        run(CourseRunOptions(**wrong))


def test_a_folder_that_cannot_be_written_is_refused_before_the_run(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(InputError, match="cannot write"):
        run(CourseRunOptions(record=taken))


@pytest.mark.slow
def test_changes_of_skill_are_named_by_who_really_drives():
    (done,) = CourseWorlds(official(), load_skills("specialists"), [0], time_limit=25.0).run()
    changes = [(switch.before, switch.after) for switch in done.switches]
    assert changes == [("walk", "climb"), ("climb", "walk"), ("walk", "jump"), ("jump", "walk")]
    assert done.trace.skill.count("jump") > 50


def test_navigator_and_heights_take_the_pose_that_the_robot_knows():
    skills, errors = load_skills("generalist"), PoseErrors(noise=0.05, yaw_noise=0.1, delay=0.1, drift=0.05)
    seeds = world_seeds(2, 2)
    kept = {"randomize": True, "time_limit": 0.4, "threads": 1}
    alone = CourseWorlds(official(), skills, seeds[:1], pose_errors=errors, **kept)
    seen: list[np.ndarray] = []
    step = alone.navigators[0].step
    alone.navigators[0].step = lambda pose, dt: (seen.append(np.array(pose)), step(pose, dt))[1]  # type: ignore[method-assign]
    for _ in range(19):
        alone.step()
    robots, layout = alone.robots, skills.bundles[0].layout
    assert robots.localization is not None
    assert np.linalg.norm(seen[-1][:2] - robots.pose[0, :2]) > 1e-3
    assert robots.estimated is not None
    np.testing.assert_array_equal(seen[-1], robots.estimated[0, [0, 1, 3]])
    heights = robots.ground_seen(layout)
    robots.estimated[:, 0] += 5.0  # on the floor behind the course
    assert np.abs(robots.ground_seen(layout) - heights).max() > 0.05
    together = CourseWorlds(official(), skills, seeds, pose_errors=errors, **kept).run()
    again = CourseWorlds(official(), skills, seeds[:1], pose_errors=errors, **kept).run()
    np.testing.assert_array_equal(together[0].trace.pose, again[0].trace.pose)
    x, y, _ = again[0].trace.pose[-1]
    true = CourseWorlds(official(), skills, seeds[:1], **kept)
    assert true.robots.localization is None and (true.run()[0].trace.pose[-1][:2]) != (x, y)


def test_a_report_that_could_not_be_written_is_refused_before_the_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "policies.evaluation.evaluate.CourseWorlds", lambda *given, **named: pytest.fail("a run was begun")
    )
    for name in REPORT:
        folder = tmp_path / name.replace(".", "_")
        (folder / name).mkdir(parents=True)
        with pytest.raises(InputError, match=name):
            evaluate(EvaluateOptions(runs=1, report=folder))
