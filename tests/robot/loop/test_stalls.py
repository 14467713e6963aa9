"""Stalls of real threads and of a whole process: what is sent afterwards is damping, and the stop is latched."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from robot.bench.rig import skills_of
from robot.loop.clock import SteadyClock
from robot.loop.controller import Controller, Loop, Times
from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.refusals import Code
from robot.loop.safety import Limits
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import Mode, Output, State

STALL = 2.0
"""s; far longer than drives wait, and than a busy computer holds up a thread."""
LIMITS = Limits(sensor_timeout=1.0, command_timeout=5.0, pose_timeout=5.0, overruns=50, missed=50, away=1.0)
"""So that nothing but the stall stops the loop on a busy computer."""


class Outputs:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[Output] = []

    def write(self, output: Output) -> None:
        self.written.append(output)

    def report(self, status: dict) -> None:
        pass

    def close(self) -> None:
        pass


class Standing:
    """The real loop in real time around a robot that only stands there, and trembles."""

    def __init__(self) -> None:
        skills, self.clock = skills_of(), SteadyClock()
        self.messages = MessageFilter(skills.robot, self.clock.now, plausible=Plausible(delay=5.0, frozen=5.0))
        self.policy = OnboardPolicy(skills, TerrainHeights(skills.robot, None))
        self.outputs, self.ending = Outputs(), threading.Event()
        self.controller = Controller(self.policy, self.messages, self.outputs, LIMITS, Times(stand_up=0.2))
        self.loop = Loop(self.controller, self.clock)
        self.thread = threading.Thread(target=self._send, daemon=True)

    def run(self) -> None:
        """Until the policy runs."""
        self.thread.start()
        self.loop.start()
        while self.controller.state != State.RUNNING:
            if self.controller.state in (State.DISARMED, State.EMERGENCY):
                self.messages.ask("arm").wait(1.0)
            time.sleep(0.01)

    def end(self) -> None:
        self.ending.set()
        self.loop.end()
        self.thread.join()

    def _send(self) -> None:
        robot, random = self.messages.robot, np.random.default_rng(0)
        while not self.ending.is_set():
            pose = robot.default_pose + random.normal(0.0, 0.001, len(robot.joint_names))
            self.messages.joints(robot.joint_names, pose, np.zeros(len(pose)))
            self.messages.imu([1.0, *random.normal(0.0, 1e-4, 3)], random.normal(0.0, 0.01, 3))
            self.messages.odometry([0.0, 0.0, robot.standing_height], [1.0, 0.0, 0.0, 0.0])
            self.messages.velocity_command([0.0, 0.0, 0.0])
            time.sleep(0.004)


STOPPED = (Code.AWAY, Code.JOINTS_STALE, Code.IMU_STALE)
"""What a stall may be called: which of them is seen first depends on when the sensors' thread goes on."""


def latched(standing: Standing, before: int) -> list[str]:
    """What is wrong after a stall; `before` outputs had been written when it began."""
    time.sleep(0.5)
    later, controller, problems = standing.outputs.written[before:], standing.controller, []
    if controller.state != State.EMERGENCY or controller.code not in STOPPED:
        problems.append(f"{controller.state.name}: {controller.reason}")
    if not later or any(output.mode != Mode.DAMP for output in later[1:]):
        problems.append("after the stall joint targets were sent")
    return problems


def test_a_policy_that_blocks_once_ends_in_a_latched_stop():
    standing = Standing()
    standing.run()
    targets, blocked, before = standing.policy.targets, threading.Event(), []

    def blocking(*inputs):
        if not blocked.is_set():
            before.append(len(standing.outputs.written))
            blocked.set()
            time.sleep(STALL)
        return targets(*inputs)

    standing.policy.targets = blocking
    try:
        assert blocked.wait(60.0)
        while len(standing.outputs.written) <= before[0] + 2:
            time.sleep(0.01)
        assert standing.outputs.written[before[0]].mode == Mode.DAMP, "the very step that blocked"
        assert latched(standing, before[0]) == []
    finally:
        standing.end()


def main() -> None:
    """The process that is stopped: says when it runs, and afterwards what became of it."""
    standing = Standing()
    standing.run()
    print("running", flush=True)
    sys.stdin.readline()
    time.sleep(0.3)
    modes = [output.mode for output in standing.outputs.written]
    damped = modes.index(Mode.DAMP) if Mode.DAMP in modes else len(modes)
    print(*(latched(standing, damped) or ["latched"]), flush=True)
    standing.end()


def test_a_process_that_was_stopped_for_a_while_ends_in_a_latched_stop():
    line = [sys.executable, "-c", "from tests.robot.loop.test_stalls import main; main()"]
    root = Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    with subprocess.Popen(
        line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root, env=environment
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(STALL)
        process.send_signal(signal.SIGCONT)
        print("go on", file=process.stdin, flush=True)
        assert process.stdout.readline() == "latched\n"
    assert process.wait() == 0
