"""What `bench onboard` prints: figures of a real loop against a robot in a process of its own."""

import json
import multiprocessing

import pytest

from robot.bench import faults, onboard
from robot.loop.refusals import Code
from robot.loop.transport import Output
from robot.options import OnboardBenchOptions
from sim.errors import InputError

HELD_UP = {Code.OVERRUN, Code.AWAY, Code.JOINTS_STALE, Code.IMU_STALE}
"""What a loop says that this computer held up for longer than it may."""


@pytest.fixture(scope="module")
def measured() -> dict:
    """Figures of the first run that was not held up before the policy ran."""
    for _ in range(5):
        found = onboard.measure(4.0, "generalist", "official", 0)
        if Code.STOOD in found["codes"] or not HELD_UP & set(found["codes"]):
            return found
    pytest.fail(f"held up five times: {found['codes']}")


@pytest.mark.slow
def test_the_policy_runs_from_arming_to_the_end(measured):
    """Unless this computer held the loop up, which it then says."""
    assert measured["codes"][:2] == [Code.ARMED, Code.STOOD]
    assert measured["state"] == "running" or HELD_UP & set(measured["codes"])
    assert 0.0 < measured["running_share"] <= 1.0 and 0.0 <= measured["missed_deadline_rate"] < 1.0


@pytest.mark.slow
def test_figures_are_those_of_a_loop(measured):
    """A step takes processor time, none takes less wall time than that, and quantiles are in order."""
    used, ticks = measured["tick_cpu_ms"], measured["ticks"]
    assert 0.0 < used["p50"] <= used["p99"] and used["p50"] <= 1.02 * measured["tick_ms_p50"]
    assert measured["tick_ms_p50"] <= measured["tick_ms_p99"] <= measured["tick_ms_max"]
    assert 0.0 < measured["latency_ms"]["p50"] <= measured["latency_ms"]["p99"]
    assert measured["cpu_share"] > 0.0 and ticks > 0


@pytest.mark.slow
def test_a_loop_that_keeps_something_of_every_step_is_seen(measured, monkeypatch):
    """Beside the loop as it is, whose windows of past readings fill once; `tests/robot/loop/test_memory.py` holds the
    loop itself to it, without a clock."""
    keys = {"memory_growth_kb", "memory_growth_armed_kb", "memory_growth_kb_per_minute", "memory_growth_blocks"}
    assert keys <= set(measured)
    kept: list[list[list[int]]] = []

    class Keeps(onboard._Timed):
        def step(self, now: int, late: float = 0.0, took: float = 0.0) -> Output:
            kept.append([[number] for number in range(50)])
            return super().step(now, late, took)

    monkeypatch.setattr(onboard, "_Timed", Keeps)
    found = onboard.measure(4.0, "generalist", "official", 0)
    assert found["memory_growth_blocks"] > measured["memory_growth_blocks"] + 10 * len(kept)


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
    with pytest.raises(InputError, match="--seconds"):
        OnboardBenchOptions(seconds=1.0)
    assert onboard.main(["--policy", "nobody", "--json"]) == 2
    assert "unknown policy 'nobody'" in capsys.readouterr().err
