"""The control loop on the computer's clock: how long its steps take, how punctual it is, and what faults do to it.

The simulated robot runs over the course and then stands on its end table until the time is up. Its physics is computed
by a thread of the same process, which a robot does not have, so the figures are upper bounds. Then every fault of
`benchmarks.faults` is tried, in simulated time.
"""

import os
import sys
import time
from typing import Any

from rich.console import Console

from benchmarks.faults import run_all
from policies.skills import load_skills
from robot.brain import Brain
from robot.clock import SteadyClock
from robot.controller import Controller, Loop
from robot.hardware import SimulatedHardware
from robot.inprocess import InProcess
from robot.onboard import SWITCH_INTERVAL
from robot.pilot import Pilot
from robot.safety import Limits
from robot.terrain import Terrain
from robot.transport import NS, Intake
from sim.course import official

WARM_S = 10.0
"""Memory is compared from here on: until then caches fill."""


def run(seconds: float = 60.0, policy: str = "generalist", faults: bool = True) -> dict[str, Any]:
    """Runs the loop for so long and tries the faults.

    Returns:
      JSON-ready: `tick_ms_p50`, `tick_ms_p99`, `missed_deadline_rate`, `late_ms_p99`, `ticks`, `loop_cpu_share` (of one
      core, the loop's thread alone), `memory_growth_kb`, `state`, `refusals`, `faults_tried`, `faults_safe`, `faults`.

    Raises:
      InputError: a policy that cannot be used.
    """
    console = Console(stderr=True)
    console.print(f"the loop runs for {seconds:.0f} s", highlight=False)
    found = measure(seconds, policy)
    tried: list[dict[str, Any]] = []
    if faults:
        console.print("faults are tried: about two minutes")
        tried = run_all()
    return {
        **found,
        "policy": policy,
        "faults_tried": len(tried),
        "faults_safe": sum(bool(fault["safe"]) for fault in tried),
        "unsafe": [fault["name"] for fault in tried if not fault["safe"]],
        "faults": tried,
    }


def measure(seconds: float, policy: str = "generalist") -> dict[str, Any]:
    """The figures of the loop alone, see `run`."""
    skills, course, clock = load_skills(policy), official(), SteadyClock()
    intake = Intake(skills.robot, clock.now)
    brain, pilot = Brain(skills, Terrain(skills.robot, course)), Pilot(course, skills)
    transport = InProcess(intake, SimulatedHardware(skills.robot, course, 3), clock, pilot)
    # Limits of freshness as in launch/course.yaml: the simulated robot is held up by other programs as the loop is.
    limits = Limits(sensor_timeout=0.2, command_timeout=0.25, pose_timeout=0.25)
    controller = Controller(brain, intake, transport, limits)
    loop = Loop(controller, clock)
    began = clock.now()
    memory: list[tuple[float, int]] = []

    def over() -> bool:
        elapsed = (clock.now() - began) / NS
        if loop.punctuality.steps == 10:
            intake.ask("arm")
        if loop.punctuality.steps % 50 == 0:
            memory.append((elapsed, _resident_kb()))
        return elapsed >= seconds

    interval = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL)
    transport.start()
    used, started = time.thread_time(), time.perf_counter()
    try:
        loop.run(over)
    finally:
        share = (time.thread_time() - used) / (time.perf_counter() - started)
        sys.setswitchinterval(interval)
        transport.close()
    warm = next((kb for t, kb in memory if t >= min(WARM_S, seconds / 2)), memory[0][1])
    return {
        **loop.punctuality.summary(),
        "loop_cpu_share": share,
        "memory_growth_kb": memory[-1][1] - warm,
        "state": controller.status()["state"],
        "reason": controller.reason,
        "refusals": dict(intake.refusals.counts),
    }


def _resident_kb() -> int:
    """Memory of this process, kB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
