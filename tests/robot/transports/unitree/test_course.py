"""The course over Unitree's messages in one command: what is started, and that nothing is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot.loop import parameters as files
from robot.loop.declarations import OnboardParameters, UnitreeParameters, names
from robot.options import UnitreeCourseOptions
from robot.transports.unitree import course
from robot.transports.unitree.course import commands, unitree_course
from sim.errors import InputError


def test_the_loop_gets_a_parameter_file_that_it_reads(tmp_path):
    options = UnitreeCourseOptions(policy="specialists", course="reversed", seed=5, randomize=True, torque_limit=20.0)
    lines = commands(options, 7, tmp_path)
    file = Path(lines["onboard"][lines["onboard"].index("--parameters") + 1])
    loop = files.load(OnboardParameters, file, "onboard", elsewhere=names())
    link = files.load(UnitreeParameters, file, "unitree", elsewhere=names())
    assert (loop.policy, loop.course, loop.robot) == ("specialists", "reversed", "unitree_go2")
    assert loop.auto_arm and not loop.dry_run and link.domain == 7 and link.interface == "lo"
    assert link.torque_limit == 20.0
    robot = lines["sim"]
    assert robot[robot.index("--seed") + 1] == "5" and "--randomize" in robot and "--score" in robot
    assert robot[robot.index("--domain") + 1] == "7"


@pytest.mark.parametrize(
    "wrong",
    [
        {"policy": "nobody"}, {"robot": "nobody"}, {"course": "nowhere"}, {"record": Path(__file__)},
        {"record": Path(__file__) / "run.mcap"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_before_anything_starts(wrong, monkeypatch):
    monkeypatch.setattr(course, "Processes", lambda *_: pytest.fail("something was started"))
    with pytest.raises(InputError):
        unitree_course(UnitreeCourseOptions(**wrong))


@pytest.mark.slow
def test_a_course_that_is_ended_leaves_no_process(tmp_path):
    words = [sys.executable, "-m", "barkour", "unitree", "course", "--out", str(tmp_path / "run"), "--json"]
    root = Path(__file__).resolve().parents[4]
    process = subprocess.Popen(words, cwd=root, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "simulated unitree_go2" in line:
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 130
    until = time.monotonic() + 10.0
    while time.monotonic() < until and (left := _with(str(tmp_path))):
        time.sleep(0.1)
    assert left == []


def _with(text: str) -> list[int]:
    """Processes whose command line holds `text`, but this one."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if text in line and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found
