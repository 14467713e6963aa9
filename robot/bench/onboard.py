"""The control loop in real time on this computer, and every fault of `robot.bench.faults`.

    python -m robot.bench.onboard --seconds 60

The loop's process holds what a robot's would: the loop's thread, and one that takes messages. Drives, sensors and
navigator of the simulated robot run in a process of their own and talk through a pipe, at the rates of a robot: joints
and IMU at 250 Hz, pose at 125 Hz, command at 50 Hz. The robot runs the course and then holds the end table.
"""

import argparse
import json
import multiprocessing
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import numpy as np

from policies.skills.library import load_skills
from robot.bench import faults
from robot.loop.clock import Durations, SteadyClock
from robot.loop.controller import SWITCH_INTERVAL, Controller, Loop, Times
from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.safety import Limits
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import Mode, Output, State
from robot.options import OnboardBenchOptions
from robot.results import OnboardBench
from robot.transports.inprocess import InProcess
from sim.course.files import by_name
from sim.errors import InputError
from sim.machine import machine
from sim.signals import unheard

WARM_UP_SECONDS = 2.0
"""The policy runs so long after arming, s. What the loop needs is allocated before; by now every part of it has been
used as well, and memory must not grow any more."""
READY = 300.0
"""The simulated robot must be there within this, s: its navigator plans the route first."""
ARMING = 60.0
"""Arming is asked for so long, s: a computer that is busy holds the robot's process up as it begins."""
PATIENT = Limits(
    sensor_timeout=0.5, command_timeout=0.5, pose_timeout=0.5, overruns=50, missed=50, away=1.0, readings_rare=5,
    drive_differs=5.0, pose_differs=10.0, pose_hops=10, heading_differs=3.2, feet_height=2.0, feet_lean=3.0,
    command_jumps=10,
)  # fmt: skip
LATE = 0.5
"""The simulated robot shares the computer with the loop. Where its process has to wait, the loop is not to stop but to
be measured: so old and so late may messages be, s."""
KINDS = ("joints", "imu", "odometry", "velocity_command", "skill")
SIZES = {"joints": ("joints",) * 3, "imu": (4, 3), "odometry": (3, 4), "velocity_command": (3,)}
"""Numbers in a message's parts; "joints": as many as the robot has."""
HEAD = struct.Struct("<Bq")
"""Kind or mode, and stamp (ns); float64 numbers follow."""
END = b"end"


# --- the robot's process ----------------------------------------------------------------------------------------------


class _Sender:
    """An messages at the robot's end of the pipe: what drives and sensors say is sent."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def joints(self, names: Any, position: Any, velocity: Any, effort: Any, stamp: int) -> bool:
        return self._send("joints", stamp, position, velocity, effort)

    def imu(self, orientation: Any, angular_velocity: Any, stamp: int) -> bool:
        return self._send("imu", stamp, orientation, angular_velocity)

    def odometry(self, position: Any, orientation: Any, stamp: int) -> bool:
        return self._send("odometry", stamp, position, orientation)

    def velocity_command(self, command: Any, stamp: int) -> bool:
        return self._send("velocity_command", stamp, command)

    def skill(self, index: int) -> bool:
        return self._send("skill", index)

    def _send(self, kind: str, stamp: int, *parts: Any) -> bool:
        numbers = b"".join(np.asarray(part, float).tobytes() for part in parts)
        self._pipe.send_bytes(HEAD.pack(KINDS.index(kind), stamp) + numbers)
        return True


def _robot(pipe: Connection, policy: str, robot: str | None, course: str, seed: int) -> None:
    """The process of drives, sensors and navigator, until the other end says so or is gone."""
    from robot.loop.navigation import NavigationProgram
    from robot.transports.hardware import SimulatedHardware

    sys.setswitchinterval(SWITCH_INTERVAL)
    skills, where = load_skills(policy, robot), by_name(course)
    navigation, hardware = NavigationProgram(where, skills), SimulatedHardware(skills.robot, where, seed)
    sender: Any = _Sender(pipe)
    transport = InProcess(sender, hardware, SteadyClock(), navigation)
    transport.start()
    try:
        while (data := pipe.recv_bytes()) != END:
            mode, stamp = HEAD.unpack_from(data)
            transport.write(Output(Mode(mode), np.frombuffer(data, float, offset=HEAD.size), stamp))
        transport.close()
        pipe.send_bytes(END + json.dumps(transport.latencies.milliseconds()).encode())
    except (EOFError, OSError):
        transport.close()


# --- the loop's process -----------------------------------------------------------------------------------------------


class _Piped:
    """The transport of the loop: a pipe to the robot's process."""

    def __init__(self, pipe: Connection, messages: MessageFilter) -> None:
        self.pipe, self.messages = pipe, messages
        self.latency_ms: dict[str, float] | None = None
        """From a reading's stamp to the arrival of the command that answers it, p50 and p99; known after `close`."""
        self.came = threading.Event()
        self._thread = threading.Thread(target=self._take, name="messages", daemon=True)
        self._thread.start()

    def write(self, output: Output) -> None:
        """See `robot.loop.transport.Transport`."""
        self.pipe.send_bytes(HEAD.pack(output.mode, output.stamp) + np.asarray(output.targets, float).tobytes())

    def report(self, status: dict[str, Any]) -> None:
        """Nobody listens."""

    def close(self) -> None:
        """Ends the robot's process."""
        self.pipe.send_bytes(END)
        self._thread.join(10.0)

    def _take(self) -> None:
        try:
            while not (data := self.pipe.recv_bytes()).startswith(END):
                self._message(data)
                self.came.set()
            self.latency_ms = json.loads(data[len(END) :])
        except (EOFError, OSError):
            return

    def _message(self, data: bytes) -> None:
        code, stamp = cast(tuple[int, int], HEAD.unpack_from(data))
        kind = KINDS[code]
        if kind == "skill":
            self.messages.skill(stamp)
            return
        robot = self.messages.robot
        sizes = [robot.joints if size == "joints" else size for size in SIZES[kind]]
        parts = np.split(np.frombuffer(data, float, offset=HEAD.size), np.cumsum(sizes)[:-1])
        names = (robot.joint_names,) if kind == "joints" else ()
        getattr(self.messages, kind)(*names, *parts, stamp=stamp)


class _Timed(Controller):
    """A controller that also keeps the processor time of its steps: what other programs on this computer take is not in
    it."""

    steps = ran = 0
    """Steps, and those in which the policy ran."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.used = Durations()

    def step(self, now: int, late: float = 0.0, took: float = 0.0) -> Output:
        """See `Controller`."""
        began = time.thread_time()
        output = super().step(now, late, took)
        self.used.add(time.thread_time() - began)
        self.steps += 1
        self.ran += self.state == State.RUNNING
        return output


def run(options: OnboardBenchOptions) -> OnboardBench:
    """What `barkour bench onboard` prints. `priority` is the loop's, see `robot.loop.controller.Times`.

    Returns:
      `tick_ms_p50`, `tick_ms_p99`, `tick_ms_max`, `late_ms_p99`, `missed_deadline_rate`, `ticks` (of the loop);
      `tick_cpu_ms` (p50 and p99 of the processor time of a step, without what other programs took), `cpu_share`
      (processor time of the loop's process over time); `memory_growth_kb` (of its resident memory, from
      `WARM_UP_SECONDS` after arming to the end), `memory_growth_armed_kb` (from arming to the end),
      `memory_growth_kb_per_minute` (over the later half), `memory_growth_blocks` (Python's allocations, after
      `WARM_UP_SECONDS`); `latency_ms` (p50 and p99 from a reading's stamp to the drives), `state` (at the
      end), `running_share` (of the steps, in which the policy ran);
      `faults_tried`, `faults_safe`, `faults` (see `faults.run_all`), `by_sensor` (see `faults.summary`); and on what it
      was measured.

    Raises:
      InputError: an unknown policy or course, or a simulated robot that does not start.
    """
    measured = measure(options.seconds, options.policy, options.course, options.seed, options.priority, options.robot)
    tried = faults.run_all()
    return OnboardBench.of({
        **measured, **asdict(options),
        "faults_tried": len(tried),
        "faults_safe": sum(result["safe"] for result in tried), "faults": tried, "by_sensor": faults.summary(tried),
        "machine": machine(),
    })  # fmt: skip


def measure(
    seconds: float, policy: str, course: str, seed: int, priority: int = 0, robot: str | None = None
) -> dict[str, Any]:
    """The loop in real time for `seconds` from arming on; see `run`."""
    skills, where, clock = load_skills(policy, robot), by_name(course), SteadyClock()
    context = multiprocessing.get_context("spawn")
    pipe, robots = context.Pipe()
    process = context.Process(target=_robot, args=(robots, policy, robot, course, seed), daemon=True)
    with unheard():
        process.start()
    robots.close()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    messages = MessageFilter(skills.robot, clock.now, plausible=Plausible(delay=LATE))
    transport = _Piped(pipe, messages)
    controller = _Timed(
        OnboardPolicy(skills, TerrainHeights(skills.robot, where)),
        messages,
        transport,
        PATIENT,
        Times(priority=priority),
    )
    loop = Loop(controller, clock)
    try:
        if not transport.came.wait(READY):
            raise InputError(f"the simulated robot did not start within {READY:.0f} s")
        time.sleep(0.5)
        loop.start()
        memory = [_memory()]
        refusal = _arm(messages)
        if refusal:
            raise InputError(f"the simulated robot cannot be armed: {refusal}")
        time.sleep(WARM_UP_SECONDS)
        memory.append(_memory())
        used, began = time.process_time(), time.monotonic()
        for _ in range(2):
            time.sleep((seconds - WARM_UP_SECONDS) / 2)
            memory.append(_memory())
        share = (time.process_time() - used) / (time.monotonic() - began)
        state = controller.status()
    finally:
        loop.end()
        if process.is_alive():
            transport.close()
        process.join(10.0)
        if process.is_alive():
            process.kill()
        sys.setswitchinterval(interval)
    if loop.failure is not None:
        raise loop.failure
    return {
        **loop.punctuality.summary(), "tick_cpu_ms": controller.used.milliseconds(), "cpu_share": share,
        **_growth(*memory, seconds=(seconds - WARM_UP_SECONDS) / 2), "latency_ms": transport.latency_ms,
        "state": state["state"], "running_share": controller.ran / max(controller.steps, 1),
        "refusals": state["refusals"], "history": [change.said for change in controller.history],
        "codes": [change.code for change in controller.history],
    }  # fmt: skip


def _arm(messages: MessageFilter) -> str:
    """Arms the robot, asked again for `ARMING` where its process is held up; else why not, as it was said last."""
    until = time.monotonic() + ARMING
    while not (request := messages.ask("arm")).wait(1.0):
        if time.monotonic() > until:
            return request.message or "no answer"
        time.sleep(0.2)
    return ""


def _memory() -> tuple[int, int]:
    """Resident memory of this process, kB (0 where the system does not tell), and blocks that Python has allocated."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        pages = 0
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024, sys.getallocatedblocks()


def _growth(
    armed: tuple[int, int], warm: tuple[int, int], half: tuple[int, int], end: tuple[int, int], seconds: float
) -> dict[str, float]:
    """What `run` says of memory, from `_memory` at four times; `half` and `end` are `seconds` apart."""
    return {
        "memory_growth_kb": end[0] - warm[0],
        "memory_growth_armed_kb": end[0] - armed[0],
        "memory_growth_kb_per_minute": (end[0] - half[0]) / seconds * 60,
        "memory_growth_blocks": end[1] - warm[1],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 1 where a fault is not safe or the robot did not run to the end, 2 with one line
    for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--policy", default="generalist")
    parser.add_argument("--priority", type=int, default=0, help="SCHED_FIFO priority of the loop's thread; 0: none")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        found = run(OnboardBenchOptions(options.seconds, options.policy, priority=options.priority))
    except InputError as error:
        print(f"onboard: {error}", file=sys.stderr)
        return 2
    said = found.to_dict()
    if not options.json:
        del said["faults"]
    print(json.dumps(said, indent=None if options.json else 2))
    return found.status


if __name__ == "__main__":
    sys.exit(main())
