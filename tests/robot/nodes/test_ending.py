"""Programs end politely whenever they are asked to; reports that cannot be written are refused before any work."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot.nodes import programs
from robot.nodes.course import launch_folder
from robot.nodes.ending import Ending, check_report, write_report
from robot.options import OnboardOptions, UnitreeSimOptions
from robot.transports.unitree import simulated
from robot.transports.unitree.onboard import onboard_unitree
from sim import children
from sim.errors import InputError


def test_a_report_is_refused_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for bad in (tmp_path, tmp_path / "pipe", "/dev/zero", tmp_path / "file" / "report.json", "/dev/null/report.json"):
        with pytest.raises(InputError, match="cannot write"):
            check_report(bad)
    check_report(None)
    check_report("")
    check_report(tmp_path / "new" / "report.json")
    write_report(tmp_path / "new" / "report.json", {"score": float("nan")})
    assert (tmp_path / "new" / "report.json").read_text() == '{\n  "score": null\n}\n'


def test_a_simulated_robot_does_not_start_where_it_could_not_report(tmp_path, monkeypatch):
    monkeypatch.setattr(simulated, "Claim", lambda *_: pytest.fail("it had begun"))
    with pytest.raises(InputError, match="cannot write"):
        simulated.unitree_sim(UnitreeSimOptions(out=tmp_path))


HANGS = """
import ctypes, os, signal, sys, time
from robot.nodes import programs
from robot.nodes.ending import Ending
ending = Ending()
ending.patience = 1.0
with ending.listening():
    print(os.getpid(), flush=True)
    while True:  # it was asked to end, and does not
        time.sleep(0.01)
"""
STARTS = f"""
import subprocess, sys, time
from robot.nodes.processes import _beginning
import os
subprocess.Popen([sys.executable, "-c", {HANGS!r}], preexec_fn=_beginning(os.getpid(), 0))
time.sleep(600)
"""


def alive(number: int) -> bool:
    try:
        return Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_program_that_hangs_when_its_starter_was_killed_ends_by_its_own_alarm():
    with subprocess.Popen([sys.executable, "-c", STARTS], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        child = int(starter.stdout.readline())
        try:
            os.kill(child, signal.SIGTERM)  # its starter is there: it is left to that one
            assert alive(child)
            starter.kill()
            starter.wait()
            until = time.monotonic() + 60
            while alive(child) and time.monotonic() < until:
                time.sleep(0.05)
            assert not alive(child)
        finally:
            starter.kill()
            if alive(child):
                os.kill(child, signal.SIGKILL)


def test_a_program_whose_starter_is_there_sets_no_alarm():
    ending = Ending()
    ending._ask()
    assert ending.asked == 1 and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_connection_that_is_gone_asks_for_an_end():
    ending, kinds = Ending(), (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with ending.listening():
            for kind in kinds:
                signal.raise_signal(kind)
        assert ending.asked == 3
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # under nohup it is none of a program's business
        with ending.listening():
            signal.raise_signal(signal.SIGHUP)
        assert ending.asked == 3
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_program_gives_signals_back_to_who_called_it(tmp_path, monkeypatch):
    # what a process reads once holds for the ROS nodes of all its tests
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(launch_folder() / "fastdds_loopback.xml"))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")
    kinds = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(kind) for kind in kinds]
    bad = tmp_path / "bad.yaml"
    bad.write_text("onboard: {ros__parameters: {nothing: 1}}")
    for program in (
        lambda: programs.run("onboard", ["--ros-args", "-p", "policy:=none"]),
        lambda: onboard_unitree(OnboardOptions(transport="unitree", parameters=bad)),
        lambda: simulated.unitree_sim(UnitreeSimOptions(interface="none")),
    ):
        with pytest.raises(InputError):
            program()
        assert [signal.getsignal(kind) for kind in kinds] == before


EARLY = """
import os, runpy, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == sys.argv[2]:
            os.kill(os.getpid(), int(sys.argv[1]))
sys.meta_path.insert(0, Finder())
signal.signal(signal.SIGHUP, signal.SIG_DFL)
runpy.run_module("robot.nodes", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("module", ["robot.nodes.surroundings", "robot.nodes.programs"])
def test_a_node_that_is_asked_to_end_while_it_is_imported_ends_in_one_line(kind, module):
    ran = subprocess.run(
        [sys.executable, "-c", EARLY, str(int(kind)), module], capture_output=True, text=True, timeout=120,
        env=children.environment(),
    )  # fmt: skip
    assert ran.returncode == 130 and ran.stderr.count("\n") == 1 and not ran.stdout


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("it is bad"), 2), (OSError(24, "Too many open files"), 2), (MemoryError(), 1),
        (RuntimeError("two\nlines"), 1), (KeyError("a"), 1),
    ],
)  # fmt: skip
def test_whatever_a_node_fails_with_is_one_line(error, status, monkeypatch, capsys):
    def fails(*_):
        raise error

    monkeypatch.delenv("BARKOUR_DEBUG", raising=False)
    monkeypatch.setattr(programs, "run", fails)
    assert programs.main(["sim"]) == status
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and not said.out
    if not isinstance(error, InputError):
        monkeypatch.setenv("BARKOUR_DEBUG", "1")
        with pytest.raises(type(error)):
            programs.main(["sim"])
