"""How soon `/stop` acts while a topic is flooded: the control loop over ROS, its robot and operator, and who floods.

python -m robot.bench.flood [--stops 40] [--json]

Three processes of this computer in a ROS domain of their own, over loopback: this one runs the control loop as on a
robot; one is robot and operator, which publishes readings, poses and commands at their usual rates, arms and asks to
stop; one floods a topic, in the place of its sender (`instead`) or as a second one (`beside`).

Time runs from the operator's call to the end of the control step that has taken it up and sent what follows from it to
the joints; `answered` is until the operator has the answer.
"""

import argparse
import contextlib
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.skills.library import load_skills
from robot.loop.assembly import Assembly
from robot.loop.clock import SteadyClock
from robot.loop.controller import SWITCH_INTERVAL
from robot.loop.declarations import OnboardParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.transport import NS, Output, Request
from robot.nodes.course import environment
from robot.nodes.processes import free_domain
from robot.transports import ros2
from robot.transports.hardware import POSE_EVERY, SLICE, STEP_NS
from robot.transports.inprocess import COMMAND_EVERY
from sim.errors import InputError
from sim.robots.description import Robot, default_robot

READING = SLICE * STEP_NS / NS
"""s between two readings."""
PERIODS = {
    "joint_states": READING,
    "imu/data": READING,
    "odom": POSE_EVERY * READING,
    "cmd_vel": COMMAND_EVERY * READING,
}
"""s between two messages of the robot, as `barkour ros sim` and the navigator send them."""
LARGE = 3000
"""Rows and columns of the largest height images."""
PRIORITY = 2
"""Real-time priority of loop and operator: those of one priority share a processor in turns of 0.1 s."""
SAMPLES = 50
"""A flood's messages repeat after so many: numbers that never change are those of a sensor that is stuck."""
PATIENT = {
    "sensor_timeout": 0.5, "command_timeout": 0.5, "pose_timeout": 0.5, "missed": 50, "overruns": 50, "away": 1.0,
}  # fmt: skip
"""Limits for a computer that does other things as well: what is measured is `/stop`, not what stops by itself."""
QUICK = {"stand_up": 0.2, "brake": 0.2, "stand": 0.1, "hold": 0.0, "settle": 0.1}
"""Short motions, so that there is a stop a second."""


@dataclass(frozen=True)
class Flood:
    """What is sent how often."""

    topic: str
    """Empty: nothing."""
    rate: float = 3000.0
    """Messages a second; what was reached is measured."""
    beside: bool = False
    """A second sender; else the robot leaves the topic to it."""
    large: bool = False
    """Height images of `LARGE` x `LARGE`."""


FLOODS = {
    "nothing": Flood(""),
    "joint_states": Flood("joint_states"),
    "imu/data": Flood("imu/data"),
    "odom": Flood("odom"),
    "cmd_vel": Flood("cmd_vel"),
    "skill": Flood("skill"),
    "height_grid": Flood("height_grid"),
    "height_grid, 3000 x 3000": Flood("height_grid", rate=50.0, large=True),
    "joint_states, beside": Flood("joint_states", beside=True),
    "joint_commands, beside": Flood("joint_commands", beside=True),
}


@dataclass(frozen=True)
class Latency:
    """How soon stops acted under one flood, ms."""

    flood: str
    stops: int
    sent: float
    """Messages a second that were sent."""
    acted_p50: float
    acted_p99: float
    acted_max: float
    answered_p50: float
    answered_max: float
    running: int
    """Stops that found the robot running; the others found it stopped already."""
    tick_p99: float
    missed: float
    """Share of deadlines that the control loop missed."""


@dataclass
class _Stop:
    """A stop as the control loop saw it, ns."""

    request: Request
    came: int
    acted: int = 0


class _Timed(ros2.Ros2Transport):
    """A transport that notes when a stop has acted: when the step that took it up has sent what follows from it."""

    def __init__(self, node: ros2.RosNode, messages: MessageFilter) -> None:
        super().__init__(node, messages)
        self.stops: list[_Stop] = []

    def write(self, output: Output) -> None:
        super().write(output)
        self.note()

    def note(self) -> None:
        """To be called after every step: a disarmed robot is sent nothing."""
        if self.stops and self.stops[-1].request.answered and not self.stops[-1].acted:
            self.stops[-1].acted = time.monotonic_ns()

    def _ask(self, kind: str) -> Request:
        request = super()._ask(kind)
        if kind == "stop" and (not self.stops or self.stops[-1].request is not request):
            self.stops.append(_Stop(request, time.monotonic_ns()))
        return request


# --- the other processes ----------------------------------------------------------------------------------------------


def _messages(robot: Robot) -> dict[str, tuple[ros2.Topic, Callable[[int], Any]]]:
    """Topic -> what a standing robot and its navigator send on it, by stamp (ns); numbers change in their last digits,
    as those of real sensors do."""
    upright, still, chance = np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), np.random.default_rng(0)

    def joints(stamp: int) -> Any:
        position = robot.default_pose + 1e-4 * chance.standard_normal(robot.joints)
        reading: dict[str, Any] = {
            "names": robot.joint_names,
            "position": position,
            "velocity": np.zeros(robot.joints),
            "effort": [],
        }
        return ros2.joints_message(reading, stamp)

    def pose(stamp: int) -> Any:
        place = np.array([1e-4 * chance.standard_normal(), 0.0, 0.27])
        return ros2.odometry_message(place, upright, still, still, stamp)

    def imu(stamp: int) -> Any:
        return ros2.imu_message(upright, 1e-4 * chance.standard_normal(3), stamp)

    command = Output(ros2.Mode.POSITION, np.array(robot.default_pose, np.float32), 0)
    return {
        "joint_states": (ros2.JOINT_STATES, joints),
        "imu/data": (ros2.IMU, imu),
        "odom": (ros2.ODOMETRY, pose),
        "cmd_vel": (ros2.VELOCITY_COMMAND, lambda stamp: ros2.velocity_message([0.0, 0.0, 0.0], stamp)),
        "skill": (ros2.SKILL, lambda stamp: ros2.String(data="walk")),
        "height_grid": (ros2.HEIGHT_GRID, lambda stamp: ros2.heights_message(np.zeros((50, 20)), stamp)),
        "joint_commands": (ros2.JOINT_COMMANDS, lambda stamp: ros2.command_message(robot, command)),
    }


def _every(period: float, over: threading.Event) -> Iterator[int]:
    """Counts up at a steady pace, or as fast as can be where that is too fast, until `over`."""
    began, count = time.monotonic(), 0
    while not over.is_set():
        yield count
        count += 1
        wait = began + count * period - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        elif wait < -0.5:
            began -= wait


def play_robot(without: str, stops: int, warm: float) -> None:
    """The robot and its operator: sends everything but the topic `without`, arms, asks to stop, and prints a line of
    JSON with when it called and when it was answered, ns."""
    robot, node, over = default_robot(), ros2.RosNode("operator"), threading.Event()
    node.spin()
    messages = _messages(robot)

    def send(topic: str, period: float) -> None:
        kind, message = messages[topic]
        for _ in _every(period, over):
            node.publish(kind, message(time.time_ns()))

    threads = [threading.Thread(target=send, args=pair, daemon=True) for pair in PERIODS.items() if pair[0] != without]
    for thread in threads:
        thread.start()
    time.sleep(warm)
    chance, called = np.random.default_rng(0), list[dict[str, Any]]()
    for _ in range(stops):
        armed = node.call("arm", 3.0)
        if not armed[0]:
            print(f"not armed: {armed[1]}", file=sys.stderr)
        time.sleep(0.5 + 0.1 * chance.random())
        at = time.monotonic_ns()
        answer = node.call("stop", 3.0)
        called.append({"called": at, "answered": time.monotonic_ns(), "armed": armed[0], "granted": answer[0]})
        time.sleep(0.6)
    over.set()
    print(json.dumps(called))
    node.close()


def flood(what: Flood) -> None:
    """Sends until standard input ends, and prints how many messages a second there were."""
    robot, node, over = default_robot(), ros2.RosNode("flood"), threading.Event()
    kind, message = _messages(robot)[what.topic]
    samples = (
        [ros2.heights_message(np.zeros((LARGE, LARGE)), 1)] if what.large else [message(1) for _ in range(SAMPLES)]
    )
    contents = [bytearray(ros2.serialized(sample)) for sample in samples]
    dated = hasattr(samples[0], "header")
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    began, sent = time.monotonic(), 0
    for _ in _every(1 / what.rate, over):
        content = contents[sent % len(contents)]
        if dated:
            struct.pack_into("<iI", content, 4, *divmod(time.time_ns(), NS))  # its stamp, after four bytes of encoding
        node.publish(kind, bytes(content))
        sent += 1
    print(json.dumps(sent / (time.monotonic() - began)))
    node.close()


# --- the measurement --------------------------------------------------------------------------------------------------


def measure(name: str, stops: int, log: Callable[[str], None] = lambda text: None) -> Latency:
    """Stops the loop so many times under one flood.

    Raises:
      InputError: there is no such flood, or no stop was heard.
    """
    if name not in FLOODS:
        raise InputError(f"unknown flood '{name}': known are {', '.join(FLOODS)}")
    what, domain, skills = FLOODS[name], free_domain(), load_skills("generalist")
    with tempfile.TemporaryDirectory(prefix="barkour-flood-") as folder, _environment(domain, Path(folder)):
        node = ros2.RosNode("onboard")
        options = OnboardParameters(dry_run=False, course="", needs_pose=True, **PATIENT, **QUICK)  # pyright: ignore[reportArgumentType]
        assembly = Assembly(skills, None, options, SteadyClock(), lambda messages: _Timed(node, messages), log)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        with contextlib.ExitStack() as stack:
            stack.callback(sys.setswitchinterval, interval)
            stack.callback(assembly.close)
            node.spin()
            looping = threading.Thread(target=_run, args=(assembly,), name="control loop", daemon=True)
            looping.start()
            stack.callback(looping.join, 5.0)
            stack.callback(assembly.loop.end)
            flooding = _start("flood", json.dumps(asdict(what))) if what.topic else None
            operator = _start("robot", "" if what.beside else what.topic, str(stops))
            said, _ = operator.communicate()
            sent = 0.0
            if flooding is not None:
                sent = float(json.loads(flooding.communicate()[0] or "0"))
            calls = json.loads(said or "[]")
        if not calls:
            raise InputError(f"{name}: the operator did not get to ask: {assembly.controller.reason}")
        acted = [_acted(call, calls[k + 1 :], assembly.transport.stops) for k, call in enumerate(calls)]
        answered = [(call["answered"] - call["called"]) / 1e6 for call in calls]
        loop = assembly.loop.punctuality.summary()
        return Latency(
            flood=name, stops=len(calls), sent=sent,
            acted_p50=float(np.median(acted)), acted_p99=float(np.quantile(acted, 0.99)), acted_max=max(acted),
            answered_p50=float(np.median(answered)), answered_max=max(answered),
            running=sum(call["armed"] for call in calls),
            tick_p99=loop["tick_ms_p99"], missed=loop["missed_deadline_rate"],
        )  # fmt: skip


def _run(assembly: "Assembly[_Timed]") -> None:
    """The control loop in this thread, as `Loop.start` runs it."""

    def over() -> bool:
        assembly.transport.note()
        return False

    assembly.controller.warm_up()
    assembly.loop.run(over)


def _acted(call: dict[str, Any], later: list[dict[str, Any]], stops: list[_Stop]) -> float:
    """How soon a call acted, ms; infinite where the control loop never heard of it."""
    until = later[0]["called"] if later else call["answered"] + NS
    heard = [stop for stop in stops if call["called"] <= stop.came < until and stop.request.answered]
    return (heard[0].acted - call["called"]) / 1e6 if heard else math.inf


@contextlib.contextmanager
def _environment(domain: int, logs: Path) -> Generator[None]:
    """Loopback and a domain, for this process and its children."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environment(domain, logs))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _start(*arguments: str) -> "subprocess.Popen[str]":
    """One of the other processes; it inherits a real-time priority, who floods a lower one."""
    command = [sys.executable, "-m", "robot.bench.flood", "--play", *arguments]
    below = _below if arguments[0] == "flood" else None
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=below)


def _below() -> None:
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY - 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a stop took longer than `--limit`, 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stops", type=int, default=40, help="under each flood")
    parser.add_argument("--floods", nargs="*", default=list(FLOODS), help="names, all without it")
    parser.add_argument("--limit", type=float, default=50.0, help="ms within which every stop must have acted")
    parser.add_argument(
        "--real-time",
        action="store_true",
        help="a real-time priority for loop and operator, a lower one for who floods",
    )
    parser.add_argument("--verbose", action="store_true", help="what the control loop logs")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--play", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.real_time:
        try:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
        except OSError as error:
            print(f"flood: no real-time priority: {error.strerror}", file=sys.stderr)
            return 2
    if options.play:
        if options.play[0] == "flood":
            flood(Flood(**json.loads(options.play[1])))
        else:
            play_robot(options.play[1], int(options.play[2]), warm=3.0)
        return 0
    found: list[Latency] = []

    def log(text: str) -> None:
        if options.verbose:
            print(text, file=sys.stderr)

    try:
        for name in options.floods:
            found.append(measure(name, options.stops, log))
            print(json.dumps(asdict(found[-1])), file=sys.stderr, flush=True)
    except InputError as error:
        print(f"flood: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps([asdict(latency) for latency in found]))
    else:
        table = Table("flood", "sent, 1/s", "acted p50, ms", "p99", "max", "answered p50", "max", "missed deadlines")
        for row in found:
            times = (row.acted_p50, row.acted_p99, row.acted_max, row.answered_p50, row.answered_max)
            table.add_row(row.flood, f"{row.sent:.0f}", *(f"{value:.1f}" for value in times), f"{row.missed:.4f}")
        Console(width=110).print(table)
    return 0 if all(latency.acted_max <= options.limit for latency in found) else 1


if __name__ == "__main__":
    sys.exit(main())
