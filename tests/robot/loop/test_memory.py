"""The loop takes no more memory the longer it runs: what it needs it has before the robot is armed."""

import gc
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

STEPS, STRETCHES = 240, 5
"""Control steps after which most is in use, and how many times as many again are looked at."""
LEAK = 0.9 * STEPS
"""Objects that one line keeps of every stretch if it keeps one a step: what Python and numpy hold back for its next
use came to half of that in a first stretch, and to less in every later one."""
BUT_FOR_TRACING = [tracemalloc.Filter(False, tracemalloc.__file__)]


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


def leaks(each_step: Callable[[], object]) -> set[tuple[str, int]]:
    """Lines of code, file and number, that keep an object of every step in every stretch of `STEPS` steps of a
    running robot. `each_step` is called after every step.

    Counted by line, as bytes in all also fall and rise with what other threads of the tests take and let go of.
    """
    skills, clock = skills_of(), SimulatedClock()
    messages = MessageFilter(skills.robot, clock.now)
    recorder = Recorder(Path("nowhere.mcap"), {}, lambda path: Nowhere())
    policy = OnboardPolicy(skills, TerrainHeights(skills.robot, official()))
    controller = Controller(policy, messages, Nowhere(), recorder=recorder)  # type: ignore[arg-type]
    loop = Loop(controller, clock)
    clock.at(clock.now(), fed(clock, messages))
    taken: list[tracemalloc.Snapshot] = []

    def over() -> bool:
        steps = loop.punctuality.steps
        if steps == 5:
            messages.ask("arm")
        if steps % STEPS == 0:
            gc.collect()
            taken.append(tracemalloc.take_snapshot())
        each_step()
        return len(taken) == STRETCHES + 1

    tracemalloc.start()
    try:
        loop.run(over)
    finally:
        tracemalloc.stop()
        recorder.close()
    assert controller.state == State.RUNNING and not messages.refusals.counts
    assert recorder.steps == (STRETCHES + 1) * STEPS
    counts = [
        {(line.traceback[0].filename, line.traceback[0].lineno): line.count for line in snapshot.statistics("lineno")}
        for snapshot in (snapshot.filter_traces(BUT_FOR_TRACING) for snapshot in taken)
    ]
    return {
        line
        for line in counts[-1]
        if all(later.get(line, 0) - earlier.get(line, 0) >= LEAK for earlier, later in pairwise(counts))
    }


@pytest.mark.slow
def test_no_line_of_a_running_loop_keeps_something_of_every_step():
    assert not leaks(lambda: None)


@pytest.mark.slow
def test_a_loop_that_keeps_something_of_every_step_is_found():
    kept: list[bytes] = []  # not floats: those that were used before are taken first, and count where they were made
    assert {Path(file) for file, _ in leaks(lambda: kept.append(bytes(2)))} == {Path(__file__)}
