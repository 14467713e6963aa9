"""The chain of trainings in calls of minutes: what is started, what is stopped, what is gone on with."""

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu_chain
from benchmarks.gpu_chain import MORE, Chain, command_of, main, progress, together

SAVES = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(130)); print('on', flush=True); "


def begun(out: Path, skill: str, *, finished: bool = False) -> None:
    (out / skill / "checkpoints" / "step_000000000010").mkdir(parents=True)
    if finished:
        (out / skill / f"{skill}.onnx").touch()


def test_a_climber_waits_for_its_walker_and_a_begun_run_goes_on(tmp_path):
    options = Chain(out=tmp_path)
    assert command_of(options, "climb", 1) is None
    begun(tmp_path, "walk")
    assert command_of(options, "climb", 1) is None
    assert "--resume" in (command_of(options, "walk", 3) or [])
    assert "--resume" not in (command_of(options, "jump", 3) or [])
    (tmp_path / "walk" / "walk.onnx").touch()
    words = command_of(options, "climb", 1) or []
    assert words[words.index("--start-from") + 1] == str(tmp_path / "walk" / "start")
    assert command_of(options, "walk", 1) is None


def test_another_robot_begins_with_the_shipped_policies(tmp_path):
    words = command_of(Chain(out=tmp_path, robot="unitree_go2"), "climb", 2) or []
    assert Path(words[words.index("--start-from") + 1]).resolve().name == "climb"
    assert words[words.index("--robot") + 1] == "unitree_go2" and words[words.index("--threads") + 1] == "2"


def test_programs_are_asked_to_save_in_time_and_a_fault_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_chain, "SAVING", 20.0)
    runs = {
        "a": [sys.executable, "-c", SAVES + "time.sleep(600)"],
        "b": [sys.executable, "-c", SAVES + "time.sleep(600)"],
    }
    assert together(runs, tmp_path, time.monotonic() + 23.0, share=0.5)
    assert "on" in (tmp_path / "a.log").read_text()
    assert not together(
        {"c": [sys.executable, "-c", "raise SystemExit(7)"]}, tmp_path, time.monotonic() + 60, share=1.0
    )
    assert "c ended with 7" in capsys.readouterr().err


def test_the_logs_of_the_runs_say_how_far_they_are(tmp_path):
    begun(tmp_path, "jump")
    rows = [{"steps": 10 * k, "seconds": 60.0, "clean_rate": 0.5, "level": 1.0} for k in (1, 2)]
    (tmp_path / "jump" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = progress(Chain(out=tmp_path))
    assert said == {"jump": {"steps": 20, "minutes": 1.0, "level": 1.0, "clean_rate": 0.5}}


def test_a_call_ends_with_a_summary_and_says_that_another_is_needed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_chain, "specialists", lambda options, until: False)
    assert main(["--out", str(tmp_path / "chain"), "--minutes", "0.2"]) == MORE
    assert main(["--out", str(tmp_path / "chain"), "--minutes", "0.2"]) == MORE
    kept = json.loads((tmp_path / "chain" / "chain.json").read_text())
    assert kept["done"] is False and len(kept["calls"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize("wrong", [["--robot", "nobody"], ["--skills", "swim"], ["--stop-after", "lunch"]])
def test_bad_input_is_one_line(tmp_path, capsys, wrong):
    assert main(["--out", str(tmp_path), *wrong]) == 2
    assert capsys.readouterr().err.count("\n") == 1
