"""A stand for faults: the real control loop, safety chain and policy on simulated hardware, in simulated time.

The robot stands or runs on flat ground. What passes between it and the loop is tampered with, and every control step is
kept: which state it ended in, what was sent, what the joints read.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from policies.skills.library import Skills, load_skills
from robot.bench.unitree_wire import UnitreeWire
from robot.loop.clock import SimulatedClock
from robot.loop.controller import SETTLING, Controller, Loop, Times
from robot.loop.message_filter import MessageFilter, Plausible
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.recording import Recorder
from robot.loop.refusals import Code
from robot.loop.safety import Limits
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import NS, Array, Mode, Output, Request, Snapshot
from robot.transports.hardware import SimulatedHardware
from robot.transports.inprocess import InProcess, Tamper
from robot.transports.unitree.simulated import ServoedHardware
from sim.course.description import official

PLACE = (-6.0, 6.0)
"""Flat ground beside the course, m."""
TIMES = Times(stand_up=0.3, brake=0.6, stand=0.3, hold=0.2, settle=0.3)
"""The robot stands already and is not fast: it need not take long."""
LATCHED = 0.1
"""An emergency is left by operators alone: after this nothing new is seen, s."""
COMMAND = (1.2, 0.0, 0.0)
"""m/s, m/s, rad/s; the robot runs."""
DEAD = "loop dead"
DAMPED = "drives damp"


@functools.cache
def skills_of(policy: str = "generalist") -> Skills:
    """The bundles behind a policy, loaded once."""
    return load_skills(policy)


@dataclass(frozen=True)
class Step:
    """What one control step came to."""

    time: int
    """ns."""
    state: str
    phase: str
    output: Output
    sent: tuple[Output, ...]
    """What was written meanwhile."""
    position: Array
    """Joint angles that the loop knew, rad `[J]`."""


class Rig:
    """One robot with its control loop."""

    def __init__(
        self,
        *,
        yaw: float = 0.0,
        command: tuple[float, float, float] = COMMAND,
        dry_run: bool = False,
        recorder: Callable[[], Recorder] | None = None,
        limits: Limits = Limits(),
        times: Times = TIMES,
        plausible: Plausible = Plausible(),
        lying: bool = False,
        unitree: bool = False,
    ) -> None:
        """`yaw` is the heading, rad; `command` what an armed robot is asked for; `lying` lets it sink to the ground
        first; `unitree` joins robot and loop by Unitree's messages."""
        skills, course = skills_of(), official()
        self.robot, self.limits, self.dry_run, self.command = skills.robot, limits, dry_run, command
        self.clock = SimulatedClock()
        self.messages = MessageFilter(self.robot, self.clock.now, plausible=plausible)
        self.hardware = (ServoedHardware if unitree else SimulatedHardware)(self.robot, course, lying=lying)
        self.hardware.worlds.place(np.array([PLACE[0]]), np.array([PLACE[1]]), np.array([yaw]), course.height)
        if lying:
            self.hardware.advance(1200)
        else:
            self.hardware.hold(self.hardware.physics.qpos[0, 7:])
        if isinstance(self.hardware, ServoedHardware):
            self.transport = UnitreeWire(self.messages, self.hardware, self.clock, dry_run=dry_run)
        else:
            self.transport = InProcess(self.messages, self.hardware, self.clock)
        self.transport.follow(self.clock)
        self.policy = OnboardPolicy(skills, TerrainHeights(self.robot, course))
        self.recorder = recorder() if recorder else None
        self.controller = Controller(
            self.policy, self.messages, self.transport, limits, times, recorder=self.recorder, dry_run=dry_run
        )
        self.loop = Loop(self.controller, self.clock)
        self.failure: Exception | None = None
        self.steps: list[Step] = []
        self.requests: list[Request] = []
        self.since: int | None = None
        """When the first wrong or missing message was due, ns."""
        self._written = 0

    # --- a run ----------------------------------------------------------------------------------------------------

    def run(self, seconds: float, *, watched: bool = False) -> None:
        """Lets the robot and its loop go on. What is only `watched` may end `LATCHED` after an emergency."""
        count, period = round(seconds / self.robot.control_period), self.robot.control_period
        if self.failure is None:
            begin, end, latched = len(self.steps), len(self.steps) + count, round(LATCHED / period)

            def over() -> bool:
                self._keep()
                newest = self.steps[max(len(self.steps) - latched, begin) :]
                quiet = watched and len(newest) == latched and all(step.state == "emergency" for step in newest)
                return quiet or len(self.steps) >= end

            try:
                self.loop.run(over)
            except Exception as error:
                self.failure = error
                self.wrong(self.controller.context.now + self.controller.period)
            count = end - len(self.steps) if self.failure is not None else 0
        if self.failure is not None:
            for _ in range(5 * count):
                self.clock.pass_by(0.004)
                self._keep(DAMPED if self.hardware.damping else DEAD)

    def bring_to(self, when: str) -> None:
        """Arms, runs, stops, as `when` says: disarmed, standing up, running, soft stop or emergency."""
        self.run(0.1)
        if when == "disarmed":
            return
        self.transport.command = self.command
        self.ask("arm")
        self.run(0.1)
        if when != "standing up":
            self.run(0.24 + 0.4)
        if when in ("soft stop", "emergency"):
            self.ask({"soft stop": "stop", "emergency": "disarm"}[when])
            self.run(0.1)
        if self.steps[-1].state != when:
            raise RuntimeError(f"the rig is {self.steps[-1].state}, not {when}: {self.controller.reason}")

    def ask(self, kind: str) -> Request:
        """An operator's request, answered in the next step."""
        self.requests.append(self.messages.ask(kind))
        return self.requests[-1]

    def _keep(self, state: str = "") -> None:
        controller, written = self.controller, self.transport.written
        sent = tuple(output for _, output in written[self._written :])
        self._written = len(written)
        self.steps.append(
            Step(
                controller.context.now if not state else self.clock.now(),
                state or controller.state.name.lower().replace("_", " "),
                controller.phase,
                controller.output,
                sent,
                controller.context.snapshot.position,
            )
        )

    # --- tampering ------------------------------------------------------------------------------------------------

    def wrong(self, time: int | None = None) -> None:
        """From now on (or `time`, ns) something is wrong; only the first call counts."""
        if self.since is None:
            self.since = self.clock.now() if time is None else time

    def tamper(self, kind: str, change: Tamper) -> None:
        """Puts `change` between the robot and the loop: for messages `joints`, `imu`, `pose` or `command`."""

        def changed(message: dict[str, Any]) -> dict[str, Any] | None:
            result = change(message)
            if result is not message:
                self.wrong()
            return result

        self.transport.tampers[kind] = changed

    def alter_policy(self, change: Callable[[Array], Any]) -> None:
        """Puts `change` behind the policy."""
        targets = self.policy.targets

        def changed(snapshot: Snapshot, command: Array, now: int, pose_known: bool) -> Any:
            self.wrong()
            return change(targets(snapshot, command, now, pose_known))

        self.policy.targets = changed

    # --- what must hold throughout --------------------------------------------------------------------------------

    def violations(self) -> list[str]:
        """What was sent that must not be sent, each kind once."""
        found: dict[str, str] = {}
        before: Array | None = None
        for step in self.steps:
            place = f"at {step.time / NS:.3f} s, {step.state}"
            for rule, text in self._broken(step, before):
                found.setdefault(rule, f"{text} ({place})")
            held = step.state not in ("disarmed", "emergency") and step.phase != SETTLING
            before = step.output.targets if held else None
        if self.failure is not None and self.steps[-1].state != DAMPED:
            found["alive"] = f"the loop ended: {self.failure!r}"
        if isinstance(self.transport, UnitreeWire):
            found |= self.transport.violations
        return list(found.values())

    def _broken(self, step: Step, before: Array | None) -> list[tuple[str, str]]:
        """Rule and sentence for everything that one step did wrong; `before` are the targets of the step before."""
        broken: list[tuple[str, str]] = []
        robot = self.robot
        if self.dry_run and step.sent:
            broken.append(("dry run", "something was sent in a dry run"))
        if step.state == "disarmed" and step.sent:
            broken.append(("disarmed", "something was sent"))
        damped = step.state == "emergency" or (step.state == "soft stop" and step.phase == SETTLING)
        for output in step.sent:
            if damped and output.mode != Mode.DAMP:
                broken.append(("damping", f"{output.mode.name} was sent"))
            if output.mode != Mode.POSITION:
                continue
            targets = output.targets
            if targets.shape != (self.robot.joints,) or not np.isfinite(targets).all():
                broken.append(("finite", "targets that are not a finite number per joint were sent"))
                continue
            if (targets < robot.joint_lower - 1e-6).any() or (targets > robot.joint_upper + 1e-6).any():
                broken.append(("range", "a target outside its joint's range was sent"))
            change = np.abs(targets - (step.position if before is None else before)).max()
            allowed = self.limits.target_step + (1e-5 if before is not None else Plausible().joint_margin)
            if change > allowed:
                broken.append(("step", f"a target changed by {change:.2f} rad"))
        if step.state in (DEAD, DAMPED):
            return broken
        if not self.dry_run and not step.sent and step.state != "disarmed" and not self._unreachable():
            broken.append(("held", "nothing was sent to a robot that is held"))
        return broken

    def _unreachable(self) -> bool:
        return Code.UNREACHABLE in self.controller.refusals.counts
