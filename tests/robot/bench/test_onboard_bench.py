"""What `bench onboard` prints: figures of a real loop against a robot in a process of its own."""

import json
import multiprocessing

import pytest

from robot.bench import faults, onboard
from sim.errors import InputError


@pytest.fixture(scope="module")
def measured() -> dict:
    return onboard.measure(6.0, "generalist", "official", 0)


@pytest.mark.slow
def test_the_policy_runs_all_the_time_at_50_hz(measured):
    assert measured["state"] == "running" and measured["history"] == ["standing up: armed", "running: standing"]
    assert measured["ticks"] == pytest.approx(300, abs=10)
    assert measured["running_share"] > 0.5
    assert measured["missed_deadline_rate"] < 0.05


@pytest.mark.slow
def test_figures_are_those_of_a_loop(measured):
    assert 0.1 < measured["tick_cpu_ms"]["p50"] <= measured["tick_cpu_ms"]["p99"] < 20.0
    assert 0.1 < measured["tick_ms_p50"] <= measured["tick_ms_p99"] <= measured["tick_ms_max"]
    assert 0.0 < measured["latency_ms"]["p50"] < 20.0
    assert 0.0 < measured["cpu_share"] < 1.0


@pytest.mark.slow
def test_memory_is_taken_before_arming(measured):
    """What no part of the loop needs anew cannot grow: a page or two for each thread may still be touched."""
    assert measured["memory_growth_kb"] <= 128
    assert measured["memory_growth_armed_kb"] <= 256
    assert measured["memory_growth_blocks"] < 1000


@pytest.mark.slow
def test_the_robots_process_has_ended(measured):
    assert multiprocessing.active_children() == []


def test_what_is_printed_is_json_with_the_keys_that_scripts_rely_on(monkeypatch, capsys):
    figures = {"tick_ms_p50": 1.0, "tick_ms_p99": 2.0, "missed_deadline_rate": 0.0, "state": "running"}
    results = [{"name": "a", "safe": True}, {"name": "b", "safe": False}]
    monkeypatch.setattr(onboard, "measure", lambda *_: figures)
    monkeypatch.setattr(faults, "run_all", lambda: results)
    assert onboard.main(["--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert figures.items() <= found.items()
    assert found["faults_tried"] == 2 and found["faults_safe"] == 1 and found["faults"] == results
    results.pop()
    assert onboard.main([]) == 0
    figures["state"] = "emergency"
    assert onboard.main([]) == 1


def test_bad_input_is_one_line(capsys):
    with pytest.raises(InputError, match="seconds must be more"):
        onboard.run(seconds=1.0)
    assert onboard.main(["--policy", "nobody", "--json"]) == 2
    assert "unknown policy 'nobody'" in capsys.readouterr().err
