"""The loop takes no more memory the longer it runs: what it needs it has before the robot is armed."""

import sys
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from robot.bench.rig import COMMAND, skills_of
from robot.loop.clock import SimulatedClock
from robot.loop.controller import Controller, Loop
from robot.loop.message_filter import MessageFilter
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.recording import Recorder
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import State
from sim.course.description import official

STEPS, STRETCHES = 120, 6
"""Control steps after which everything is in use; of six times as many again at least one must take no more."""
FLOAT = sys.getsizeof(0.5)


class Nowhere:
    """A transport, and the file of a recording, that keep nothing."""

    def write(self, what: object) -> None:
        pass

    def report(self, status: dict) -> None:
        pass

    def close(self) -> None:
        pass


def fed(clock: SimulatedClock, messages: MessageFilter) -> Callable[[], int]:
    """Sends messages of a robot that trembles where it stands, every 4 ms."""
    robot, random = messages.robot, np.random.default_rng(0)

    def message() -> int:
        now = clock.now()
        tremble = random.normal(0.0, 0.001, 31)
        messages.joints(robot.joint_names, robot.default_pose + tremble[:12], tremble[12:24], np.zeros(12), now)
        messages.imu([1.0, *tremble[24:27]], tremble[27:30], now)
        messages.odometry([-6.0 + tremble[30], 6.0, 0.2], [1.0, 0.0, 0.0, 0.0], now)
        messages.velocity_command(COMMAND, now)
        messages.skill(0)
        return now + 4_000_000

    return message


def growth(each_step: Callable[[], object]) -> int:
    """Bytes that `STEPS` steps of a running robot allocate and do not let go of: the fewest of several stretches.

    A leak takes its bytes in every stretch; a table that grows once, or what another thread of the tests keeps, only
    in one. `each_step` is called after every step.
    """
    skills, clock = skills_of(), SimulatedClock()
    messages = MessageFilter(skills.robot, clock.now)
    recorder = Recorder(Path("nowhere.mcap"), {}, lambda path: Nowhere())
    policy = OnboardPolicy(skills, TerrainHeights(skills.robot, official()))
    controller = Controller(policy, messages, Nowhere(), recorder=recorder)  # type: ignore[arg-type]
    loop = Loop(controller, clock)
    clock.at(clock.now(), fed(clock, messages))
    traced: list[int] = []

    def over() -> bool:
        steps = loop.punctuality.steps
        if steps == 5:
            messages.ask("arm")
        if steps % STEPS == 0:
            traced.append(tracemalloc.get_traced_memory()[0])
        each_step()
        return len(traced) == STRETCHES + 1

    tracemalloc.start()
    try:
        loop.run(over)
    finally:
        tracemalloc.stop()
        recorder.close()
    assert controller.state == State.RUNNING and not messages.refusals.counts
    assert recorder.steps == (STRETCHES + 1) * STEPS
    return min(later - earlier for earlier, later in pairwise(traced))


@pytest.mark.slow
def test_a_running_loop_takes_less_memory_than_one_that_keeps_a_float_a_step():
    kept: list[float] = []
    assert growth(lambda: None) < growth(lambda: kept.append(len(kept) + 0.5)) - FLOAT * STEPS / 2
