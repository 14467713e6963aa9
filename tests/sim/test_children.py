"""Processes that are started from here run this code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import sim
from sim.limited import answer

ROOT = Path(sim.__file__).resolve().parents[1]
PROGRAM = "import json, sys, sim; print(json.dumps([sim.__file__, sys.stdin.read()]))\n"


def test_a_child_runs_the_code_of_its_parent(tmp_path, monkeypatch):
    (tmp_path / "installed" / "sim").mkdir(parents=True)
    (tmp_path / "installed" / "sim" / "__init__.py").write_text("")
    (tmp_path / "child.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "installed"))
    assert answer(str(tmp_path / "child.py"), b"said", 60) == [sim.__file__, "said"]


def test_a_robot_is_added_from_a_checkout_that_is_not_installed(tmp_path):
    model = ROOT / "sim" / "robots" / "barkour_v0" / "robot.xml"
    done = subprocess.run(
        [sys.executable, str(ROOT / "barkour.py"), "robot", "add", "own", str(model), "--robots", ".", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["robot"] == "own"


def test_who_is_interrupted_while_a_child_starts_ends_it(tmp_path, interrupted_start):
    (tmp_path / "child.py").write_text("import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt):
        answer(str(tmp_path / "child.py"), b"said", 60)
    assert len(interrupted_start) == 1 and interrupted_start[0].poll() is not None
