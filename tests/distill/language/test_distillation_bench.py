"""The comparison of language-model distillation: arms train alike, the report is complete, bad input is one line."""

import json
from dataclasses import replace

import pytest

from distill.language import throughput as bench
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
    assert found["steps"] == (4 if arm.on_policy else 3)  # 8 of a round or 7 in all, less the warm ones and the last


@pytest.mark.slow
def test_trls_trainers_learn_what_this_loop_learns():
    pytest.importorskip("trl", reason="the bench extra is not installed")
    losses = {
        who: bench._child(Arm(who, on_policy=who != "trl", **SMALL))["loss"] for who in ("trl", "trl distillation")
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
    monkeypatch.setattr(bench, "arms", lambda quick: {"nobody": replace(Arm("nobody"), steps=1)})
    with pytest.raises(InputError, match="the arm 'nobody' failed with status 1: KeyError"):
        bench.run(DistillBenchOptions(1))
    assert bench.main(["--rounds", "0"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
