"""A course over four ROS processes: a result comes, the robot ends safe, nothing is left running, whoever dies."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robot.loop import parameters
from robot.loop.declarations import OnboardParameters, RefereeParameters
from robot.loop.motion import POSES
from robot.loop.refusals import Code
from robot.loop.replay import replay
from robot.loop.transport import NS
from robot.nodes import course as ros_course
from robot.nodes import processes as processes_module
from robot.nodes.course import launch_folder, run_course
from robot.nodes.processes import Processes, free_domain
from robot.nodes.referee import LOG, RESULT, Timekeeper
from robot.options import CourseOptions, ReplayOptions
from robot.transports import ros2
from sim.errors import InputError

PATIENT = {"sensor_timeout": 0.5, "command_timeout": 0.5, "pose_timeout": 0.5}
PATIENT |= {"overruns": 50, "missed": 50, "away": 1.0}
"""Limits for a computer that does other things as well."""
HELD_UP = {Code.JOINTS_STALE, Code.IMU_STALE, Code.COMMAND_STALE, Code.POSE_STALE}
HELD_UP |= {Code.OVERRUN, Code.MISSED, Code.AWAY}
"""What the loop says where the computer holds it, or the simulated robot, up for longer than that."""


@pytest.fixture
def patient(tmp_path: Path) -> Path:
    """`launch/course.yaml` with `PATIENT` limits."""
    text = (launch_folder() / "course.yaml").read_text()
    for name, value in PATIENT.items():
        text = re.sub(rf"\n    {name}: .*", "", text)
        text = text.replace("    auto_arm: true", f"    {name}: {value}\n    auto_arm: true")
    file = tmp_path / "patient.yaml"
    file.write_text(text)
    return file


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int], seconds: float) -> bool:
    """Whether all have ended within `seconds`."""
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


@pytest.mark.slow
def test_the_course_over_four_processes(tmp_path: Path, patient: Path) -> None:
    pids: list[int] = []

    def started(processes: Processes) -> None:
        pids.extend(process.pid for process in processes.running.values())

    out, recording = tmp_path / "out", tmp_path / "run.mcap"
    result = run_course(CourseOptions(seed=3, out=out, record=recording, parameters=patient), started)
    assert len(pids) == 4 and gone(pids, 60.0)
    assert result.died is None and result["end"]
    assert result["controller"]["state"] in ("disarmed", "emergency") and result["drives"]["damping"]
    codes = result["controller"]["codes"]
    assert codes[:2] == [Code.ARMED, Code.STOOD]
    assert result["obstacles"]["start table"]["completed"] or HELD_UP & set(codes)
    assert result["loop"]["ticks"] > 0 and 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert (result["policy"], result["course"], result["seed"]) == ("generalist", "official", 3)
    replayed = replay(ReplayOptions(recording))
    assert replayed["equal"] and replayed["steps"] == result["loop"]["ticks"]
    assert result["log"] == str(out / "pose.csv") and (out / "pose.csv").is_file() and (out / "RESULT.json").is_file()


class Killer:
    """Listens to the control loop's diagnoses and kills one process a second after the robot runs."""

    def __init__(self, victim: str, domain: int) -> None:
        self.victim, self.domain = victim, domain
        self.states: list[str] = []
        self.pids: list[int] = []

    def __call__(self, processes: Processes) -> None:
        self.pids = [process.pid for process in processes.running.values()]
        threading.Thread(target=self._watch, args=(processes.running[self.victim],), daemon=True).start()

    @property
    def running(self) -> bool:
        return any(state.startswith("running") for state in self.states)

    def _watch(self, victim: subprocess.Popen[bytes]) -> None:
        node = ros2.RosNode("killer", (), self.domain)
        hear, refusals = (lambda m: self.states.append(m.status[0].message)), ros2.Refusals()
        node.subscribe(ros2.DIAGNOSTICS, hear, refusals, time.monotonic_ns)
        node.spin()
        end = time.monotonic() + 300
        while not self.running and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1.0)
        victim.kill()
        node.close()


@pytest.mark.slow
@pytest.mark.parametrize("victim", (*ros_course.NODES, ros_course.LOCALIZER))
def test_whoever_dies_the_robot_ends_safe_and_everything_ends(
    victim: str, patient: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", str(launch_folder() / "fastdds_loopback.xml"))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT")
    killer = Killer(victim, free_domain())
    own = victim == ros_course.LOCALIZER
    asked = CourseOptions(seed=1, parameters=patient, domain=killer.domain, pose_delay=0.02 if own else 0.0)
    result = run_course(asked, killer)
    assert len(killer.pids) == 4 + own
    assert killer.running and gone(killer.pids, 60.0)
    assert result.died == victim and victim in result["end"] and not result["finished"]
    controller, drives = result["controller"], result["drives"]
    codes = {} if victim == "onboard" else set(controller["codes"])
    if victim == "navigator":
        assert {Code.COMMAND_STALE, Code.COMMAND_STUCK} & set(codes)  # a patient loop may see the second first
    elif own:
        # or before that: a pose that stays while the robot turns or moves on
        assert {Code.POSE_STALE, *POSES, Code.COMMAND_STALE, Code.COMMAND_STUCK} & set(codes)
    elif victim == "sim":
        assert controller["state"] == "emergency" and drives is None
        assert controller["code"] in (Code.JOINTS_STALE, Code.IMU_STALE)
    elif victim == "referee":
        assert codes & ({Code.OPERATOR} | HELD_UP)
    if victim == "onboard":
        assert controller["state"] == "unknown"
    else:
        assert controller["state"] in ("disarmed", "emergency")
    if victim != "sim":
        assert drives["damping"]


PARENT = """
import sys
from robot.nodes.course import run_course
from robot.options import CourseOptions
run_course(CourseOptions(), lambda p: print(*(child.pid for child in p.running.values()), flush=True))
"""


@pytest.mark.parametrize("kind", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_children_end_with_their_parent(kind: signal.Signals) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[3],
    )
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 4 and all(map(alive, pids))
    time.sleep(3.0)
    parent.send_signal(kind)
    parent.wait()
    assert gone(pids, 60.0)


def test_one_that_fails_to_start_ends_the_others(capfd: pytest.CaptureFixture[str]) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    with pytest.raises(OSError), Processes({"sim": sleep, "referee": ["/no/such/program"]}, os.environ):
        raise AssertionError("not reached")
    stubborn = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
    with pytest.MonkeyPatch.context() as patch, Processes({"sim": stubborn, "onboard": sleep}, os.environ) as processes:
        patch.setattr(processes_module, "ENDED_WITHIN", 0.3)
        time.sleep(0.5)
        processes.end()
        assert processes.ended() == {"sim": -signal.SIGKILL, "onboard": -signal.SIGTERM}


def test_who_is_interrupted_while_processes_start_ends_them(interrupted_start: list[subprocess.Popen[bytes]]) -> None:
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    with pytest.raises(KeyboardInterrupt), Processes({"sim": sleep, "onboard": sleep}, os.environ):
        raise AssertionError("not reached")
    assert interrupted_start and not [each for each in interrupted_start if each.poll() is None]


def test_processes_are_ended_however_often_that_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    stubborn = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
    end, ask, ended = processes_module.end, processes_module._ask, list[int]()

    def interrupted_asking(process: subprocess.Popen[bytes]) -> None:
        ask(process)
        signal.raise_signal(signal.SIGINT)

    def interrupted(process: subprocess.Popen[bytes], group: bool = False) -> None:
        signal.raise_signal(signal.SIGINT)
        end(process, group)
        ended.append(process.pid)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt), Processes({"sim": stubborn, "referee": stubborn}, os.environ) as processes:
        time.sleep(0.5)
        monkeypatch.setattr(processes_module, "_ask", interrupted_asking)
        monkeypatch.setattr(processes_module, "end", interrupted)
    assert len(ended) == 2 and len(processes.ended()) == 2


def test_a_control_loop_that_was_told_to_stand_for_long_is_left_to_it() -> None:
    short, long = (parameters.make(OnboardParameters, {"hold": hold}).soft_stop for hold in (1.0, 30.0))
    assert long - short == pytest.approx(29.0)
    processes = Processes({}, {}, long)
    assert processes.aftermath("navigator") > long > processes.aftermath("onboard") > processes.aftermath("referee")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"policy": "nobody"}, "unknown policy"),
        ({"course": "nowhere"}, "nowhere"),
        ({"seed": -1}, "--seed"),
        ({"domain": 300}, "--domain"),
        ({"parameters": Path("none.yaml")}, "cannot read none.yaml"),
        ({"out": Path("/proc/none")}, "cannot write to the folder"),
        ({"record": Path(__file__)}, "never overwrites"),
        ({"record": Path("/dev/zero")}, "never overwrites"),
        ({"record": Path(__file__) / "run.mcap"}, "cannot write to the folder"),
        ({"pose_delay": 1.0}, "--pose-delay"),
        ({"own_odometry": True, "pose_noise": 0.1}, "--own-odometry"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        run_course(CourseOptions(**given), lambda _: pytest.fail("something was started"))


@pytest.mark.parametrize(
    ("option", "sim", "navigator", "planned"),
    [(None, 0.0, 0.0, None), (12.0, 0.0, 0.0, "12.0"), (None, 13.0, 0.0, "13.0"), (12.0, 13.0, 11.0, "11.0")],
)
def test_the_way_is_planned_for_the_motors_that_the_robot_has(
    option: float | None, sim: float, navigator: float, planned: str | None, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By the option, else by the simulated robot in the parameter file; what that says of the plan comes first."""
    text = (launch_folder() / "course.yaml").read_text()
    assert "torque_limit: 0.0" in text and "navigator:\n  ros__parameters:\n" in text
    text = text.replace("torque_limit: 0.0", f"torque_limit: {sim}")
    text = text.replace(
        "navigator:\n  ros__parameters:\n", f"navigator:\n  ros__parameters:\n    torque_limit: {navigator}\n"
    )
    (tmp_path / "file.yaml").write_text(text)
    started: list[dict[str, list[str]]] = []

    class Started(Exception):
        pass

    def start(lines: dict[str, list[str]], *_: object) -> None:
        started.append(lines)
        raise Started

    monkeypatch.setattr(ros_course, "Processes", start)
    with pytest.raises(Started):
        run_course(CourseOptions(torque_limit=option, parameters=tmp_path / "file.yaml"))
    asked = [word.split(":=")[1] for word in started[0]["navigator"] if word.startswith("torque_limit:=")]
    assert asked == ([planned] if planned else [])


@pytest.mark.parametrize(
    "given", [{"policy": "nobody"}, {"parameters": Path("none.yaml")}, {"record": Path(__file__)}, {"pose_delay": 1.0}]
)
def test_what_is_refused_loses_nothing_of_an_earlier_run(given: dict[str, Any], tmp_path: Path) -> None:
    earlier = {name: f"what {name} says" for name in (RESULT, LOG, "sim.json", "onboard.json")}
    for name, text in earlier.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError):
        run_course(CourseOptions(out=tmp_path, **given))
    assert {name: (tmp_path / name).read_text() for name in earlier} == earlier


def test_the_referee_gives_up_a_run_without_poses_or_without_a_start() -> None:
    options = parameters.make(RefereeParameters, {"patience": 2.0, "start_patience": 5.0})
    silent = Timekeeper(options, 0)
    assert silent.look(NS)["end"] == "" and silent.look(3 * NS)["end"] == "no pose"
    assert silent.finish("stopped")["end"] == "no pose"
    waiting = Timekeeper(options, 0)
    x, y, _ = waiting.referee.course.start
    for second in range(1, 6):
        waiting.pose(second * NS, second * NS, np.array([x, y, 0.3]), np.array([1.0, 0.0, 0.0, 0.0]))
        assert waiting.look(second * NS)["end"] == ""
    assert waiting.look(5 * NS + 1)["end"] == "not started"
