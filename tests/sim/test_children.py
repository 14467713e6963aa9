"""Processes that are started from here run this code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sim
from sim.children import end, ended
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


SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_child_is_ended_where_an_interrupted_wait_has_left_its_lock_taken():
    """As `Popen.poll` does when a signal raises between taking the lock and the block that gives it back."""
    child = subprocess.Popen(SLEEPS)
    child._waitpid_lock.acquire()  # pyright: ignore[reportAttributeAccessIssue]
    end(child)
    assert child.returncode == -signal.SIGKILL and not os.path.exists(f"/proc/{child.pid}")


def test_a_child_whose_end_an_interrupted_wait_has_learnt_is_ended():
    child = subprocess.Popen(SLEEPS)
    child.kill()
    os.waitpid(child.pid, 0)
    end(child)
    assert child.returncode is not None


def test_a_child_that_has_ended_keeps_its_status():
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    until = time.monotonic() + 60
    while ended(child) is None and time.monotonic() < until:
        time.sleep(0.01)
    end(child)
    assert child.returncode == 3


def test_a_group_ends_with_its_leader():
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"
    leader = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, process_group=0
    )
    with leader:
        assert leader.stdout is not None
        other = Path(f"/proc/{int(leader.stdout.readline())}/stat")
        end(leader, group=True)
    until = time.monotonic() + 60
    while other.exists() and other.read_text().split()[2] != "Z" and time.monotonic() < until:
        time.sleep(0.01)
    assert not other.exists() or other.read_text().split()[2] == "Z"


def test_signals_while_children_are_looked_at_raise_no_lock_away():
    """A hundred interrupts, each somewhere in a loop that asks for a child's end."""

    class Asked(BaseException):
        pass

    def ask(*_):
        raise Asked

    before = signal.signal(signal.SIGINT, ask)
    child = subprocess.Popen(SLEEPS)
    alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    try:
        for k in range(100):
            with pytest.raises(Asked):
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + 5e-6 * k)
                while True:
                    ended(child)
            assert not child._waitpid_lock.locked()  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGALRM, alarm)
        end(child)
