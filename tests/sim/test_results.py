"""Results: one object for `--json`, for people and for the exit status."""

import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from distill.methods.catalogue import NAMES
from distill.methods.results import Catalogue
from distill.methods.standing import catalogue
from distill.results import LanguageDistilled
from policies.evaluation.results import Evaluation
from robot.results import OnboardBench, OnboardReport, Replay
from sim.course.report import CourseReport
from sim.results import Result

OBSTACLE = {"completed": True, "gates_passed": 6, "gates": 6}
RUN: dict[str, Any] = {
    "course": "[red]odd\x1b[2J.yaml", "score": 0.8123, "time_s": 12.5, "finished": False, "touched_jump": True,
    "end": "time limit", "path_m": 1.0, "progress": 0.5, "log": "[bold]/pose.csv",
    "obstacles": {"weave poles": OBSTACLE, "jump": {"completed": False, "gates_passed": 0, "gates": 2}},
    "obstacle_s": {"weave poles": 4.5}, "gate_times": {"weave poles": [2.0, 5.5]},
    "skills": {"walk": "models/walk.onnx"},
}  # fmt: skip
LOOP: dict[str, Any] = {
    "fell": False, "policy": "generalist", "seed": 0, "randomize": False, "real_time": False, "loop": {},
    "controller": {"state": "disarmed", "reason": "stopped", "refusals": {"stale": 2}},
    "bundles": {"walk.onnx": "abc"}, "latency_ms": None, "recording": "run.rec",
}  # fmt: skip


def shown(result: Result, width: int = 80) -> str:
    file = io.StringIO()
    result.show(Console(file=file, width=width))
    return file.getvalue()


@dataclass(frozen=True, kw_only=True)
class Found(Result):
    number: float
    where: Path
    extra: str | None = None


def test_a_result_is_its_json_object() -> None:
    found = Found.of({"number": math.inf, "where": Path("a/b"), "rows": (1, np.arange(2)), "deep": {"x": math.nan}})
    assert found["number"] == math.inf and found.get("extra") is None and "extra" not in found
    assert found.to_dict() == {"number": None, "where": "a/b", "rows": [1, [0, 1]], "deep": {"x": None}}
    json.dumps(found.to_dict(), allow_nan=False)
    assert Found(number=1.0, where=Path("a"), extra="b")["extra"] == "b"
    with pytest.raises(KeyError):
        found["nothing"]
    with pytest.raises(TypeError):
        Found.of({"number": 1.0})


def test_a_run_shows_score_time_end_obstacles_and_files() -> None:
    text = shown(CourseReport.of(RUN))
    for words in ("0.8123", "12.50 s", "not finished", "time limit", "touched the board"):
        assert words in text
    for words in ("weave poles", "6/6", "4.50 s", "0/2", "models/walk.onnx", "[bold]/pose.csv"):
        assert words in text


def test_a_policy_of_all_skills_is_named_once_and_several_each() -> None:
    one = shown(CourseReport.of(RUN | {"skills": {"walk": "models/a.onnx", "jump": "models/a.onnx"}}))
    assert one.count("models/a.onnx") == 1 and "walk" not in one
    two = shown(CourseReport.of(RUN | {"skills": {"walk": "models/a.onnx", "jump": "models/b.onnx"}}))
    assert "walk: models/a.onnx" in two and "jump: models/b.onnx" in two


def test_no_control_character_of_a_users_file_reaches_the_terminal() -> None:
    text = shown(CourseReport.of(RUN)) + shown(Result.of({"file": "a\x1b]0;b\x07", "back": "\x9b2J"}))
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert "[red]odd\\x1b[2J.yaml" in text and "\\x9b2J" in text


def test_the_loops_report_adds_what_the_controller_says() -> None:
    report = OnboardReport.of(RUN | LOOP)
    text = shown(report)
    for words in ("weave poles", "disarmed: stopped", "stale 2", "abc", "run.rec"):
        assert words in text
    assert report.status == 0
    assert OnboardReport.of(RUN | LOOP | {"died": "sim"}).status == 1
    waiting = LOOP["controller"] | {"code": "not armed yet", "last_refusals": {"late": "joints: it is late"}}
    report = OnboardReport.of(RUN | LOOP | {"controller": waiting})
    assert report.status == 1 and "joints: it is late" in report.failure
    emergency = LOOP["controller"] | {"state": "emergency"}
    assert OnboardReport.of(RUN | LOOP | {"controller": emergency}).status == 1


def test_an_evaluation_shows_rates_and_the_interval() -> None:
    result = {"runs": 50, "score_mean": 0.61, "score_ci95": [0.6, 0.62], "time_s_median": None, "finished_rate": 1.0}
    result |= {"fell_rate": 0.0, "conditions": {}, "policy": "a", "course": "b", "seed": 0, "skills": {}, "worlds": [1]}
    result |= {"robot": "c"}
    text = shown(Evaluation.of(result | {"per_obstacle_success": {"weave poles": 0.94}}))
    for words in ("50 runs", "94 %", "0.61", "0.6 to 0.62", "time_s_median: None"):
        assert words in text


def test_the_catalogue_has_one_line_a_recipe_at_80_columns() -> None:
    found = Catalogue.of(catalogue())
    whole = shown(found)
    assert max(map(len, whole.splitlines())) <= 80
    assert "…" not in whole and "title" in shown(found, 120)
    listing, *axes = whole.split("\n\n")
    lines = listing.splitlines()
    for text, groups in zip(axes, (found.by_skill, found.by_vertical), strict=True):
        told = text.replace(",", " ").split()
        assert all(told.count(name) == 1 for name in NAMES)
        assert all(any(row.startswith(group + " ") for row in text.splitlines()) for group in groups)
    assert all(sum(line.split()[:1] == [name] for line in lines) == 1 for name in NAMES)
    assert {line.split()[0] for line in lines[1:]} <= {*NAMES, "power:", "*"}  # and what column and mark mean


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (Replay(recording="a", steps=1, seconds=1.0, equal=True, differing_steps=0, first_difference="",
                largest_target_difference=0.0, lost_bytes=0, states=[]), 0),
        (Replay(recording="a", steps=1, seconds=1.0, equal=False, differing_steps=1, first_difference="step 1",
                largest_target_difference=0.1, lost_bytes=0, states=[]), 1),
        (OnboardBench(tick_ms_p50=1, tick_ms_p99=1, missed_deadline_rate=0, state="running", faults_tried=1,
                      faults_safe=1, faults=[{"name": "a", "safe": True}]), 0),
        (OnboardBench(tick_ms_p50=1, tick_ms_p99=1, missed_deadline_rate=0, state="running", faults_tried=1,
                      faults_safe=0, faults=[{"name": "a", "safe": False}]), 1),
        (OnboardBench(tick_ms_p50=1, tick_ms_p99=1, missed_deadline_rate=0, state="emergency", faults_tried=0,
                      faults_safe=0, faults=[]), 1),
    ],
)  # fmt: skip
def test_a_failed_check_is_status_1_and_one_sentence(result: Result, status: int) -> None:
    assert result.status == status and bool(result.failure) == bool(status) and "\n" not in result.failure


def test_a_student_that_learns_from_itself_is_compared_with_no_teacher() -> None:
    found: dict[str, Any] = {
        "method": "self_distillation", "settings": {"alpha": 0.5}, "teacher": None, "student": "small",
        "parameters": {"student": 10}, "steps": 3, "agreement": 0.5,
        "interrupted": False, "perplexity": {"start": 9.0, "end": 7.0, "teacher": 8.0},
        "data": {
            "rows": 4, "packed": False, "held_out_rows": 1, "examples": 4, "learned_tokens": 9, "dropped": {},
            "cut": {},
        },
    }  # fmt: skip
    text = shown(LanguageDistilled.of(found))
    assert "the teacher" not in text and text.count("the generation before") == 2
    assert "the teacher's 8" in shown(LanguageDistilled.of(found | {"teacher": "large"}))
