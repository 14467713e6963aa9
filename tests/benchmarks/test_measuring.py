"""What the benchmarks compute: pairs, verdicts, and one line for bad input."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import ablations, paired, parts, tick
from policies.skills.library import load_skills, paces_of
from sim.course.description import official


def test_a_policy_ties_with_itself_world_by_world(monkeypatch, capsys):
    pairs = (0.9, 12.0), (0.4, 61.0)
    worlds = [{"score": s, "time_s": t, "finished": t < 50, "target_jump_rad": 0.5} for s, t in pairs]
    figures = {key: 0.5 for key, *_ in paired.FIGURES}

    def evaluate(options):
        shift, faster = (0.1, 0.9) if options.policy == "better" else (0.0, 1.0)
        own = [{**w, "score": w["score"] + shift, "time_s": faster * w["time_s"]} for w in worlds]
        return {**figures, "worlds": own, "switches": {"walk to jump": {"jump_rad_peak": 0.3}}}

    monkeypatch.setattr(paired, "evaluate", evaluate)
    assert paired.main(["better", "worse", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["score_difference"] == pytest.approx(0.1) and found["ci95"] == pytest.approx([0.1, 0.1])
    assert found["time_ratio"] == pytest.approx(0.9)
    assert found["target_jump_rad"]["worse"] == {"median": 0.5, "peak": 0.5, "switch_peak": 0.3}
    assert paired.paired(("worse", "worse"))["score_difference"] == 0.0


def arms(**scores: list[float]) -> dict:
    def seeds(values: list[float]) -> dict:
        return {str(k): {"golden": score, "error": 1 - score} for k, score in enumerate(values)}

    return {name.replace("_", " "): seeds(values) for name, values in scores.items()}


@pytest.mark.parametrize(
    "base, other, verdict",
    [
        ([0.8, 0.9, 0.85], [0.2, 0.3, 0.28], "agrees"),
        ([0.2, 0.3, 0.28], [0.8, 0.9, 0.85], "disagrees"),
        ([0.8, 0.2, 0.5], [0.3, 0.6, 0.4], "undecided"),
        ([0.8], [0.2], "one seed alone"),
    ],
)
def test_verdicts_need_the_interval_to_leave_zero(base, other, verdict):
    (row,) = ablations.verdicts({**arms(base=base), **arms(context_5=other)})
    assert row["golden"]["verdict"] == row["error"]["verdict"] == verdict
    assert row["claim"].startswith("15 steps") and row["seeds"] == len(base)


def test_a_tenth_of_the_data_agrees_unless_it_is_clearly_worse():
    for tenth, verdict in (([0.8, 0.9, 0.85], "agrees"), ([0.1, 0.12, 0.11], "disagrees")):
        whole = arms(base=[0.82, 0.88, 0.86])
        (row,) = ablations.verdicts({**whole, "10 % of the data": arms(x=tenth)["x"]})
        assert row["golden"]["verdict"] == verdict


@pytest.mark.parametrize("base", [ablations.BASE, replace(ablations.BASE, width=128, layers=3, context=5)])
def test_arms_differ_from_the_base_in_what_their_name_says(base):
    known = ablations.arms(base)
    same = {name for name, arm in known.items() if arm == known[ablations.BASE_ARM]} - {ablations.BASE_ARM}
    assert same <= {f"context {base.context}", f"width {base.width}, {base.layers} layers"}
    assert {better for _, better, _ in ablations.CLAIMS} | {o for *_, o in ablations.CLAIMS} <= set(known)
    sizes = {name: ablations.TransformerStudent(arm.config).module.size for name, arm in known.items()}
    assert 0.98 < sizes[ablations.MLP] / sizes[ablations.BASE_ARM] <= 1.0
    assert sizes["width 32, 1 layer"] < sizes["width 96, 3 layers"] < sizes["width 128, 3 layers"] < 1e6


def test_arms_are_run_once_over_the_rounds_that_are_asked_for(tmp_path, monkeypatch, capsys):
    shard = SimpleNamespace
    shards = SimpleNamespace(shards=[shard(name="a", about={"round": 0}), shard(name="b", about={"round": 1})])
    monkeypatch.setattr(ablations, "Shards", lambda data: SimpleNamespace(shards=list(shards.shards), rows=7))
    seen: list[tuple] = []

    def train(arm, data, seed, budget, advance):
        seen.append((arm.config.width, arm.config.context, seed, [s.name for s in data.shards]))
        return SimpleNamespace(module=SimpleNamespace(size=5)), 0.5

    monkeypatch.setattr(ablations, "train", train)
    monkeypatch.setattr(ablations, "course_score", lambda *_: lambda student: {"golden": 0.9})
    asked = ["--data", str(tmp_path), "--seeds", "2", "--arms", "base", "context 5", "--width", "128", "--rounds"]
    for _ in range(2):
        assert ablations.main([*asked, "all", "--out", str(tmp_path / "all")]) == 0
    both = ["a", "b"]
    assert seen == [(128, 15, 0, both), (128, 5, 0, both), (128, 15, 1, both), (128, 5, 1, both)]
    assert ablations.main([*asked, "first", "--out", str(tmp_path / "first")]) == 0
    assert seen[4][3] == ["a"] and len(seen) == 8
    found = json.loads((tmp_path / "all" / "ablations.json").read_text())
    assert found["budget"]["rounds"] == "all" and found["verdicts"][0]["seeds"] == 2
    capsys.readouterr()
    assert ablations.main([*asked, "first", "--out", str(tmp_path / "all")]) == 2
    assert ablations.main([*asked, "all", "--steps", "0", "--out", str(tmp_path / "all")]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def test_bad_input_is_one_line(tmp_path, capsys):
    assert paired.main(["nobody", "specialists", "--runs", "1"]) == 2
    assert tick.main([str(tmp_path / "missing.onnx")]) == 2
    assert ablations.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 3 and "nobody" in lines[0] and "missing.onnx" in lines[1] and "no shards" in lines[2]


def test_a_part_is_worth_what_is_lost_without_it_world_by_world():
    whole = [{"score": s, "time_s": t, "finished": True, "all_obstacles": True} for s, t in ((1.0, 10.0), (0.9, 11.0))]
    slower = [{**row, "score": row["score"] - 0.1, "time_s": row["time_s"] + 2.0} for row in whole]
    found = parts.figures(slower, whole)
    assert found["worth_score"] == pytest.approx([0.1, 0.1, 0.1]) and found["worth_seconds"] == pytest.approx([2.0] * 3)
    assert parts.figures(whole, whole)["worth_score"] == [0.0, 0.0, 0.0]
    fallen = [slower[0], {**slower[1], "finished": False, "all_obstacles": False}]
    found = parts.figures(fallen, whole)
    assert found["worth_seconds"] is None and found["finished_rate"] == found["all_obstacles_rate"] == 0.5
    assert found["time_s_median"] == 12.0


def test_every_part_is_really_taken_away():
    skills = load_skills("generalist")
    paces = paces_of(skills)

    def made(name: str) -> tuple:
        arm = parts.ARMS[name]
        own = arm.paces(paces)
        found = parts._navigator(arm, arm.route(official(), skills, own), skills, own)
        return found.route, found.tuning, found.ahead_of_errors.tolist()

    everything = {name: made(name) for name in parts.ARMS}
    assert all(found != everything[parts.SHIPPED] for name, found in everything.items() if name != parts.SHIPPED)
    assert not np.any(everything["rehearsal"][2])
    assert everything["planner"][0] != everything[parts.SHIPPED][0] == everything["feedback"][0]


def test_parts_are_kept_and_another_comparison_is_refused(tmp_path, monkeypatch, capsys):
    asked = []

    def runs_of(arm, skills, seeds, randomize, threads):
        asked.append(arm.without)
        return [{"score": 0.9, "time_s": 10.0, "finished": True, "all_obstacles": True, "end": ""} for _ in seeds]

    monkeypatch.setattr(parts, "runs_of", runs_of)
    for _ in range(2):
        assert parts.main(["--runs", "3", "--out", str(tmp_path)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert list(found["arms"]) == list(parts.ARMS) and len(asked) == len(parts.ARMS)
    assert parts.main(["--runs", "4", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "another comparison" in said
