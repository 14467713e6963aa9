"""The table over engines and physics: what is in it, that it goes on where it stopped, and what it refuses."""

import json
import os

import pytest

from policies.evaluation import sim2sim as module
from policies.evaluation.course_run import CourseWorlds
from policies.evaluation.evaluate import answer, evaluate
from policies.evaluation.options import EvaluateOptions
from policies.evaluation.sim2sim import FILE, Sim2Sim, measure, sim2sim, variations
from policies.skills.library import load_skills
from sim.course.description import official
from sim.course.files import save
from sim.course.generator import generate
from sim.envs.variation import Variation
from sim.errors import InputError

ROW = {
    "score_mean": 0.9, "all_obstacles": 1, "fell": 0, "time_s_median": None, "velocity_error": 0.1, "walk_falls": 0,
}  # fmt: skip


@pytest.fixture
def short(monkeypatch):
    """Runs and walks of a moment."""
    defaults = CourseWorlds.__init__.__kwdefaults__ | {"time_limit": 0.2}
    monkeypatch.setattr(CourseWorlds.__init__, "__kwdefaults__", defaults)
    monkeypatch.setattr(module, "WALK_SECONDS", 1.1)


def test_each_change_stands_once_in_each_engine():
    rows = [(variation.engine, words) for words, variation in variations(("cpu", "drake"))]
    assert len(set(rows)) == len(rows)
    assert rows[:2] == [("cpu", "none"), ("drake", "none")]
    cpu, drake = ({words for engine, words in rows if engine == one} for one in ("cpu", "drake"))
    assert drake < cpu and {"pyramidal cone"} == cpu - drake
    changed = [variation for words, variation in variations(("cpu",)) if words != "none"]
    assert Variation() not in changed and len(set(changed)) == len(changed)


def test_a_row_is_what_evaluate_says_of_the_same_runs(short):
    options = EvaluateOptions("specialists", runs=2, randomize=True, seed=5)
    row = measure(load_skills("specialists"), official(), Variation(), options)
    found = evaluate(options)
    assert row["score_mean"] == found["score_mean"]
    assert [world["seed"] for world in row["worlds"]] == [world["seed"] for world in found["worlds"]]
    assert row["velocity_error"] > 0 and row["walk_falls"] in (0, 1, 2)
    weak = measure(load_skills("specialists"), official(), Variation(friction=0.4), options)
    assert weak["velocity_error"] != row["velocity_error"]


def test_an_interrupted_table_goes_on(tmp_path, monkeypatch):
    measured: list[Variation] = []

    def stops(skills, course, variation, options):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append(variation)
        return dict(ROW)

    options = EvaluateOptions(runs=1, sim2sim=True, report=tmp_path / "table")
    monkeypatch.setattr(module, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        sim2sim(options)
    kept = json.loads((tmp_path / "table" / FILE).read_text())
    assert len(kept["rows"]) == 3
    before = list(measured)
    monkeypatch.setattr(module, "measure", lambda *given: measured.append(given[2]) or dict(ROW))
    table = answer(options)
    assert isinstance(table, Sim2Sim)
    assert measured[:3] == before and len(set(measured)) == len(measured) == len(table.rows)
    assert json.loads((tmp_path / "table" / FILE).read_text())["rows"] == table.rows
    with pytest.raises(InputError, match="seed"):
        sim2sim(EvaluateOptions(runs=1, sim2sim=True, seed=1, report=tmp_path / "table"))


@pytest.mark.parametrize("score", ["NaN", "1e400", "Infinity"])
def test_a_figure_that_was_never_measured_is_refused(tmp_path, score):
    table = json.dumps({"runs": 1, "rows": [{**ROW, "engine": "MuJoCo", "change": "none"}]})
    (tmp_path / FILE).write_text(table)
    assert len(module._kept(tmp_path / FILE, {"runs": 1})) == 1
    (tmp_path / FILE).write_text(table.replace(f'"score_mean": {ROW["score_mean"]}', f'"score_mean": {score}'))
    with pytest.raises(InputError):
        module._kept(tmp_path / FILE, {"runs": 1})


@pytest.mark.parametrize("name", ["all_obstacles", "fell", "walk_falls", "time_s_median", "velocity_error", "change"])
def test_a_row_without_what_is_shown_of_it_is_refused(tmp_path, name):
    row = {**ROW, "engine": "MuJoCo", "change": "none"}
    for changed in ({**row, name: [1]}, {key: value for key, value in row.items() if key != name}):
        (tmp_path / FILE).write_text(json.dumps({"runs": 1, "rows": [changed]}))
        with pytest.raises(InputError, match=FILE):
            module._kept(tmp_path / FILE, {"runs": 1})


def test_a_table_that_never_ends_is_not_waited_for(tmp_path, spoil):
    for how in ("device", "huge"):
        spoil(tmp_path / FILE, how)
        with pytest.raises(InputError, match=FILE):
            module._kept(tmp_path / FILE, {"runs": 1})


def test_no_row_is_lost_while_others_are_measured_anew(tmp_path, monkeypatch):
    def ends(*_):
        raise KeyboardInterrupt

    options = EvaluateOptions(runs=1, sim2sim=True, report=tmp_path)
    monkeypatch.setattr(module, "measure", lambda *_: dict(ROW))
    sim2sim(options)
    table = json.loads((tmp_path / FILE).read_text())
    rows = [*table["rows"][:1], *table["rows"][2:], {**ROW, "engine": "mjx", "change": "none"}]
    (tmp_path / FILE).write_text(json.dumps({**table, "rows": rows}))
    monkeypatch.setattr(module, "measure", ends)
    with pytest.raises(KeyboardInterrupt):
        sim2sim(options)
    assert json.loads((tmp_path / FILE).read_text())["rows"] == rows
    monkeypatch.setattr(module, "measure", lambda *_: dict(ROW))
    assert sim2sim(options).rows == table["rows"]
    assert json.loads((tmp_path / FILE).read_text())["rows"] == [*table["rows"], rows[-1]]


def test_a_table_of_another_course_under_the_same_name_is_refused(tmp_path, monkeypatch):
    course = tmp_path / "course.yaml"
    save(official(), course)
    options = EvaluateOptions(runs=1, sim2sim=True, report=tmp_path / "table", course=str(course))
    monkeypatch.setattr(module, "measure", lambda *_: dict(ROW))
    sim2sim(options)
    save(generate(3), course)
    with pytest.raises(InputError, match="course_sha256"):
        sim2sim(options)


def test_a_table_with_a_row_twice_or_that_is_a_pipe_is_refused(tmp_path):
    row = {**ROW, "engine": "mujoco", "change": "none"}
    (tmp_path / FILE).write_text(json.dumps({"runs": 1, "rows": [row, {**row, "score_mean": 0.1}]}))
    with pytest.raises(InputError, match=FILE):
        module._kept(tmp_path / FILE, {"runs": 1})
    (tmp_path / FILE).unlink()
    os.mkfifo(tmp_path / FILE)
    with pytest.raises(InputError, match=FILE):
        sim2sim(EvaluateOptions(runs=1, sim2sim=True, report=tmp_path))


def test_a_damaged_table_is_refused(tmp_path):
    (tmp_path / FILE).write_text('{"rows": [{}]}')
    with pytest.raises(InputError, match=FILE):
        sim2sim(EvaluateOptions(runs=1, sim2sim=True, report=tmp_path))


@pytest.mark.parametrize("wrong", [{"against": "specialists"}, {"engine": "drake"}])
def test_options_that_it_would_ignore_are_refused(wrong):
    with pytest.raises(InputError):
        EvaluateOptions(sim2sim=True, **wrong)


def test_one_course_only():
    with pytest.raises(InputError, match="one course"):
        sim2sim(EvaluateOptions(runs=2, sim2sim=True, course="generated:1-2"))
