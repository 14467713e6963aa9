"""The loop takes no more memory the longer it runs: what it needs it has before the robot is armed."""

import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from robot.bench.rig import COMMAND, skills_of
from robot.loop.clock import SimulatedClock
from robot.loop.controller import Controller, Loop
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.recording import Recorder
from robot.loop.terrain import Terrain
from robot.loop.transport import Intake, State
from sim.course.description import official

STEPS, STRETCHES = 500, 4
"""Control steps after which everything is in use; of four times as many again at least one must take no more."""
ALLOWED = 8_000
"""Bytes: Python and numpy keep some freed blocks for later. A float a step in a list would be 12,000 and more."""


class Nowhere:
    """A transport, and the file of a recording, that keep nothing."""

    def write(self, what: object) -> None:
        pass

    def report(self, status: dict) -> None:
        pass

    def close(self) -> None:
        pass


def fed(clock: SimulatedClock, intake: Intake) -> Callable[[], int]:
    """Sends messages of a robot that trembles where it stands, every 4 ms."""
    robot, random = intake.robot, np.random.default_rng(0)

    def message() -> int:
        now = clock.now()
        tremble = random.normal(0.0, 0.001, 31)
        intake.joints(robot.joint_names, robot.default_pose + tremble[:12], tremble[12:24], np.zeros(12), now)
        intake.imu([1.0, *tremble[24:27]], tremble[27:30], now)
        intake.odometry([-6.0 + tremble[30], 6.0, 0.2], [1.0, 0.0, 0.0, 0.0], now)
        intake.velocity_command(COMMAND, now)
        intake.skill(0)
        return now + 4_000_000

    return message


def growth(each_step: Callable[[], object]) -> int:
    """Bytes that `STEPS` steps of a running robot allocate and do not let go of: the fewest of four stretches.

    A leak takes its bytes in every stretch; a table that grows once, or what another thread of the tests keeps, only
    in one. `each_step` is called after every step.
    """
    skills, clock = skills_of(), SimulatedClock()
    intake = Intake(skills.robot, clock.now)
    recorder = Recorder(Path("nowhere.rec"), {}, lambda path: Nowhere())
    policy = OnboardPolicy(skills, Terrain(skills.robot, official()))
    controller = Controller(policy, intake, Nowhere(), recorder=recorder)  # type: ignore[arg-type]
    loop = Loop(controller, clock)
    clock.at(clock.now(), fed(clock, intake))
    traced: list[int] = []

    def over() -> bool:
        steps = loop.punctuality.steps
        if steps == 5:
            intake.ask("arm")
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
    assert controller.state == State.RUNNING and not intake.refusals.counts
    assert recorder.steps == (STRETCHES + 1) * STEPS
    return min(later - earlier for earlier, later in pairwise(traced))


@pytest.mark.slow
def test_a_running_loop_takes_no_more_memory():
    assert growth(lambda: None) < ALLOWED


@pytest.mark.slow
def test_a_float_that_is_kept_every_step_is_found_out():
    kept: list[float] = []
    assert growth(lambda: kept.append(len(kept) + 0.5)) > ALLOWED
