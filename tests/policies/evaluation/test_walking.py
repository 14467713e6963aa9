"""What the measurement of walkers says: right figures in either engine, and one line for what cannot be."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from policies.bundle.reader import Bundle
from policies.evaluation.walking import WalkEval, tracking, walk_figures
from sim.errors import InputError

ROOT = Path(__file__).parents[3]
WALK = ROOT / "models" / "walk.onnx"


@pytest.mark.parametrize("engine", ["cpu", "drake"])
def test_the_shipped_walker_walks_in_either_engine(engine):
    if engine == "drake":
        pytest.importorskip("pydrake")
    found = walk_figures(WalkEval(WALK, episodes=2, seconds=3.0, engine=engine, seed=3))
    assert found["options"]["engine"] == engine
    assert found["tracking"]["falls"] == found["forward_2"]["falls"] == 0
    assert found["tracking"]["velocity_error"] < 0.25 and found["forward_2"]["speed_mean"] > 1.7
    assert found["steps"]["crossed_rate"] == 1.0


def test_errors_are_of_what_was_asked_for():
    """A robot that is asked to stand is off by little; one that is asked for more than it can, by what it lacks."""
    bundle, still = Bundle.load(WALK), np.zeros(3)
    options = WalkEval(WALK, episodes=2, seconds=3.0, nominal=True)
    assert tracking(bundle, options, still)["velocity_error"] < 0.1
    asked = tracking(bundle, options, still, fixed=(6.0, 0.0, 0.0))
    assert asked["speed_mean"] < 5.0 and asked["velocity_error"] >= 6.0 - asked["speed_mean"] - 1e-3


@pytest.mark.parametrize(
    "wrong", [{"seconds": 0.5}, {"hold": float("nan")}, {"forward": -1.0}, {"yaw": float("inf")}, {"episodes": 0}]
)
def test_what_cannot_be_measured_is_refused(wrong):
    with pytest.raises(InputError):
        walk_figures(WalkEval(WALK, **{"episodes": 1, "seconds": 2.0, **wrong}))


def test_as_a_command(tmp_path):
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "policies.evaluation.walking", *more]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)

    done = run(str(WALK), "--episodes", "1", "--seconds", "2", "--json")
    assert done.returncode == 0 and json.loads(done.stdout)["tracking"]["episodes"] == 1
    missing = run(str(tmp_path / "none.onnx"))
    assert missing.returncode == 2 and missing.stderr.count("\n") == 1
