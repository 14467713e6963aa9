"""Runs that begin anywhere: what is counted, and that a policy that falls is seen to fall."""

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import anywhere
from policies.evaluation.comparison import share95
from policies.skills.library import load_skills
from policies.skills.runner import PolicyRunner
from sim.course.description import official


@pytest.mark.parametrize("count, of", [(0, 20), (3, 300), (150, 300), (20, 20)])
def test_the_interval_of_a_share_is_wilsons(count, of):
    wanted = stats.binomtest(count, of).proportion_ci(method="wilson")
    assert share95(count, of) == pytest.approx(list(wanted), abs=1e-4)


def test_robots_that_stand_and_robots_that_fall_are_counted(monkeypatch):
    """Trained policies stand; the same with their targets thrown about fall, near the obstacle that is named."""
    monkeypatch.setattr(anywhere, "SECONDS", 2.0)
    skills = load_skills("generalist")
    stood = anywhere.measure(skills, official(), 12, 0, True, None, 1)
    assert stood["fell"] <= 2 and stood["way_m"] > 1.0
    rng, step = np.random.default_rng(0), PolicyRunner.step
    monkeypatch.setattr(
        PolicyRunner, "step", lambda self, *a, **k: (t := step(self, *a, **k)) + rng.normal(0, 0.6, t.shape)
    )
    fell = anywhere.measure(skills, official(), 12, 0, True, None, 1)
    assert fell["fell"] >= 8 and sum(fell["where"].values()) == fell["fell"] == len(fell["places"])


def test_the_command_writes_what_it_shows_and_refuses_what_cannot_be(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(anywhere, "SECONDS", 0.5)
    out = tmp_path / "anywhere.json"
    assert anywhere.main(["--robots", "3", "--nominal", "--threads", "1", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["robots"] == 3 and "weave poles" in capsys.readouterr().out
    for wrong in (
        ["--robots", "0"],
        ["--along", "-1"],
        ["--along", "nan"],
        ["--policy", "nobody"],
        ["--course", "nowhere"],
    ):
        assert anywhere.main(wrong) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_file_that_cannot_be_written_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(anywhere, "SECONDS", 0.1)
    (tmp_path / "file").touch()
    words = ["--robots", "2", "--threads", "1", "--out", str(tmp_path / "file" / "anywhere.json")]
    assert anywhere.main(words) == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1
