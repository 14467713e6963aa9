"""The comparison of language-model distillation: arms train alike, the report is complete, bad input is one line."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from distill.language import throughput as bench
from distill.language.collect import Generated
from distill.language.throughput import Arm
from distill.options import DistillBenchOptions
from sim.errors import InputError

SMALL = {"vocabulary": 64, "length": 32, "steps": 4}


@pytest.mark.parametrize(
    "arm", [Arm("barkour", **SMALL), Arm("plain", **SMALL), Arm("barkour", on_policy=True, **SMALL)]
)
def test_an_arm_learns_and_counts_its_steps(arm):
    found = bench.measure(arm)
    assert found["loss"][1] < found["loss"][0] and found["tokens_per_second"] > 0
    assert found["steps"] == (bench.AHEAD if arm.on_policy else 4)


def test_steps_on_own_texts_are_counted_in_whole_rounds(monkeypatch):
    """Each with its writing: half a round would count a text's writing for steps that do not learn from it."""
    arm = Arm("barkour", on_policy=True, **SMALL | {"steps": 11})
    marks: list[str] = []
    label, write = bench._Stamped.label, Generated.collect

    def labelled(self, batch):
        marks.append("step")
        return label(self, batch)

    def written(self, *args, **more):
        marks.append("writing")
        return write(self, *args, **more)

    monkeypatch.setattr(bench._Stamped, "label", labelled)
    monkeypatch.setattr(Generated, "collect", written)
    assert bench.measure(arm)["steps"] == 2 * bench.AHEAD
    at = [k for k, mark in enumerate(marks) if mark == "step"]
    first, last = at[arm.warm_up], at[arm.warm_up + arm.counted + arm.rounds]
    counted = marks[first:last]
    assert counted.count("writing") == 2 and counted.count("step") == 2 * bench.AHEAD + 2  # two rounds' measures


@pytest.mark.slow
def test_trls_trainers_learn_what_this_loop_learns():
    pytest.importorskip("trl", reason="the bench extra is not installed")
    losses = {
        (who, on_policy): bench._child(Arm(who, on_policy=on_policy, **SMALL))["loss"]
        for who, on_policy in (("trl", False), ("trl distillation", False), ("trl distillation", True))
    }
    ours = bench.measure(Arm("barkour", **SMALL))["loss"]
    assert all(before == pytest.approx(ours[0]) and after < before for before, after in losses.values())


def test_the_report_pairs_arms_and_counts_what_grows_with_the_text(monkeypatch):
    logits = bench.BATCH * 8192 * 4 / 1024

    def child(arm: Arm) -> dict:
        copies = {"barkour": 0.5, "plain": 4.0, "trl": 9.0, "trl distillation": 1.0}[arm.who]
        speed = {"barkour": 300.0}.get(arm.who, 100.0)
        return {"tokens_per_second": speed, "peak_kb": 1000 + copies * logits * arm.length, "loss": [2.0, 1.0]}

    monkeypatch.setattr(bench, "_child", child)
    monkeypatch.setattr(bench, "find_spec", lambda name: object())
    found = bench.run(DistillBenchOptions(2)).to_dict()
    assert found["logits_kept"] == pytest.approx({"barkour": 0.5, "plain": 4.0, "trl": 9.0})
    assert set(found["ratios"]) == {name for name in found["arms"] if not name.startswith("barkour")}
    assert all(ratio == {"median": 3.0, "least": 3.0, "largest": 3.0} for ratio in found["ratios"].values())
    assert json.loads(json.dumps(found)) is not None
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert {arm["who"] for arm in bench.run(DistillBenchOptions(1)).arms.values()} == {"barkour", "plain"}


def test_a_failing_arm_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr(bench, "arms", lambda *_: {"nobody": replace(Arm("nobody"), steps=1)})
    with pytest.raises(InputError, match="the arm 'nobody' failed with status 1: KeyError"):
        bench.run(DistillBenchOptions(1))
    assert bench.main(["--rounds", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_sizes_that_are_asked_for_are_measured_where_they_fit(monkeypatch):
    def child(arm: Arm) -> dict:
        return {"tokens_per_second": 100.0, "peak_kb": 1000, "loss": [2.0, 1.0]}

    said: list[str] = []
    monkeypatch.setattr(bench, "_child", child)
    monkeypatch.setattr(bench, "find_spec", lambda name: object())
    monkeypatch.setattr(bench, "_available", lambda: 4 * 10**9)
    options = DistillBenchOptions(1, vocabularies=(8192, 152064), lengths=(512, 2048))
    found = bench.run(options, said.append).to_dict()
    assert {(arm["vocabulary"], arm["length"]) for arm in found["arms"].values()} == {
        (v, n) for v in (8192, 152064) for n in (512, 2048)
    }
    assert {arm["who"] for arm in found["arms"].values()} == {"barkour", "plain", "trl", "trl distillation"}
    assert {name.split(",")[0] for name in found["left_out"]} == {"plain", "trl"}, "those that keep all logits"
    assert all("152064" in name and "2048" in name for name in found["left_out"] if name.startswith("plain"))
    assert len([line for line in said if line.startswith("left out")]) == len(found["left_out"]) > 0
    with pytest.raises(InputError):
        DistillBenchOptions(1, lengths=(16,))


def test_an_arm_takes_no_module_of_the_current_folder(monkeypatch, tmp_path):
    (tmp_path / "statistics.py").write_text("raise RuntimeError('a foreign module was imported')\n")
    monkeypatch.chdir(tmp_path)
    assert bench._child(Arm("plain", **SMALL))["tokens_per_second"] > 0


def test_what_an_interrupted_arm_had_written_is_deleted_and_its_processes_end(monkeypatch):
    started: list[subprocess.Popen[str]] = []
    folders: list[Path] = []

    class Started(subprocess.Popen[str]):
        def __init__(self, command, env, **more):
            super().__init__([sys.executable, "-c", "import time; time.sleep(60)"], env=env, **more)
            started.append(self)
            folders.append(Path(env["TMPDIR"]))
            (folders[0] / "checkpoint").write_text("half of one")

    def interrupted(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Started)
    monkeypatch.setattr(bench.time, "sleep", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench._child(Arm("barkour", **SMALL, processes=2))
    assert len(started) == 2 and all(process.returncode for process in started) and not folders[0].exists()


def test_who_is_interrupted_while_an_arm_starts_ends_it(interrupted_start):
    with pytest.raises(KeyboardInterrupt):
        bench._child(Arm("barkour", **SMALL))
    assert len(interrupted_start) == 1 and interrupted_start[0].poll() is not None


@pytest.mark.slow
@pytest.mark.parametrize("who", ["barkour", "plain", "trl", "trl distillation"])
def test_two_processes_learn_one_student(who):
    if who.startswith("trl"):
        pytest.importorskip("trl", reason="the bench extra is not installed")
    found = bench._child(Arm(who, **SMALL, processes=2))
    assert found["loss"][1] < found["loss"][0] and found["tokens_per_second"] > 0


def test_one_process_that_fails_ends_the_others(monkeypatch):
    ranks = bench._ranks(2)
    monkeypatch.setattr(bench, "_ranks", lambda _: [ranks[0], {**ranks[1], "MASTER_PORT": "none"}])
    with pytest.raises(InputError, match="the arm 'plain' failed with status 1"):
        bench._child(Arm("plain", **SMALL, processes=2))  # the first waits for the second otherwise


def test_processes_that_are_asked_for_are_arms_of_their_own():
    named = bench.arms(processes=(1, 2))
    assert {arm.processes for arm in named.values()} == {1, 2}
    assert all(("2 processes" in name) == (arm.processes == 2) for name, arm in named.items())
    with pytest.raises(InputError):
        DistillBenchOptions(1, processes=(0,))


def test_an_arm_ends_when_its_parent_was_killed():
    arm = json.dumps(asdict(Arm("plain", vocabulary=64, length=32, steps=20_000)))
    child = [sys.executable, "-P", "-m", "distill.language.throughput", "--arm", arm, "--parent"]
    program = f"import os, subprocess; print(subprocess.Popen([*{child!r}, str(os.getpid())]).pid, flush=True)"
    root = str(Path(bench.__file__).resolve().parents[2])
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    said, _ = parent.communicate(timeout=60)  # until the child has gone too, whose output this is
    assert said.strip().isdigit()
