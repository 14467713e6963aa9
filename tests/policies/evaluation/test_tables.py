"""Results for people: what a person must be able to read off the screen."""

from typing import Any

import pytest

from policies.evaluation.tables import show

OBSTACLE = {"completed": True, "gates_passed": 6, "gates": 6}
RUN: dict[str, Any] = {
    "course": "[red]odd.yaml",
    "score": 0.8123,
    "time_s": 12.5,
    "finished": False,
    "touched_jump": True,
    "end": "time limit",
    "obstacles": {"weave poles": OBSTACLE, "jump": {"completed": False, "gates_passed": 0, "gates": 2}},
    "gate_times": {"weave poles": [3.0, 4.5]},
    "skills": {"walk": "models/walk.onnx"},
    "log": "[bold]/pose.csv",
}


def test_a_run_shows_score_time_end_obstacles_and_files(capsys: pytest.CaptureFixture[str]) -> None:
    show("run", RUN)
    text = capsys.readouterr().out
    for words in ("[red]odd.yaml", "0.8123", "12.50 s", "not finished", "time limit", "touched the board"):
        assert words in text
    for words in ("weave poles", "6/6", "4.50 s", "0/2", "models/walk.onnx", "[bold]/pose.csv"):
        assert words in text


def test_a_scored_log_needs_none_of_the_simulators_fields(capsys: pytest.CaptureFixture[str]) -> None:
    show("score", {name: RUN[name] for name in ("score", "time_s", "obstacles")})
    assert "weave poles" in capsys.readouterr().out


def test_an_evaluation_shows_rates_and_the_interval(capsys: pytest.CaptureFixture[str]) -> None:
    result = {"runs": 50, "score_mean": 0.61, "score_ci95": [0.6, 0.62], "time_s_median": None}
    show("evaluate", {**result, "per_obstacle_success": {"weave poles": 0.94}, "worlds": [1, 2]})
    text = capsys.readouterr().out
    for words in ("50 runs", "94 %", "0.61", "0.6 to 0.62", "time_s_median: None"):
        assert words in text


def test_anything_else_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    show("inspect", {"robot": "barkour_v0", "odd": "[/red]"})
    assert "barkour_v0" in (text := capsys.readouterr().out) and "[/red]" in text
