"""`barkour onboard --transport unitree`: the control loop on a robot that speaks Unitree's messages."""

import sys
from pathlib import Path

import numpy as np

from policies.skills.library import Skills, load_skills, paces_of, trained_limits
from robot.loop import parameters
from robot.loop.assembly import Assembly
from robot.loop.clock import Clock, SteadyClock
from robot.loop.controller import SWITCH_INTERVAL
from robot.loop.declarations import OnboardParameters, UnitreeParameters, names
from robot.loop.message_filter import MessageFilter
from robot.loop.navigation import NavigationProgram
from robot.loop.operation import Operation
from robot.loop.transport import NEVER, NS
from robot.nodes.ending import Ending, check_report, write_report
from robot.options import OnboardOptions
from robot.results import LoopReport
from robot.transports.senders import Claim
from robot.transports.unitree.bus import Bus, Worker
from robot.transports.unitree.messages import LOW_COMMAND
from robot.transports.unitree.transport import UnitreeTransport
from sim.course.description import SKILLS, Course
from sim.course.files import by_name
from sim.errors import InputError

POSE_OLD = 0.1
"""s after which a pose is too old to navigate by."""
DEAD_BAND = 0.08
"""Of a stick's way, in which it asks for nothing."""


class Commands(Worker):
    """Says fifty times a second where to go: by the course's navigator, or as the remote's sticks ask."""

    def __init__(
        self,
        transport: UnitreeTransport,
        skills: Skills,
        course: Course | None,
        clock: Clock,
        torque_limit: float | None = None,
    ) -> None:
        """Without a `course` the sticks decide: ahead and aside by the left one, turning by the right one, up to the
        speeds that the policy was trained at. `torque_limit`: as for `NavigationProgram`."""
        super().__init__("commands")
        self.transport, self.messages, self.clock = transport, transport.messages, clock
        self.program = None if course is None else NavigationProgram(course, skills, torque_limit)
        self.period = skills.robot.control_period
        limits = trained_limits(skills, paces_of(skills).limits)
        self.ranges = np.array([limits.forward, limits.sideways, limits.yaw])

    def _run(self) -> None:
        while not self._ending.wait(self.period):
            now = self.clock.now()
            if self.program is None:
                self._by_remote(now)
                continue
            seen = self.messages.snapshot()
            if seen.pose_time == NEVER or now - seen.pose_time > POSE_OLD * NS:
                continue  # the loop's command grows old, and it stops
            asked = self.program.step(float(seen.pose[0]), float(seen.pose[1]), float(seen.pose[3]))
            self.messages.skill(SKILLS.index(asked.skill))
            self.messages.velocity_command(asked.velocity.tolist(), now)

    def _by_remote(self, now: int) -> None:
        remote = self.transport.remote
        sticks = np.zeros(3) if remote is None else np.array([remote.left[1], -remote.left[0], -remote.right[0]])
        sticks = np.where(np.abs(sticks) < DEAD_BAND, 0.0, np.clip(sticks, -1, 1))
        command = np.where(sticks > 0, sticks * self.ranges[:, 1], -sticks * self.ranges[:, 0])
        self.messages.velocity_command(command.tolist(), now)


def onboard_unitree(asked: OnboardOptions) -> LoopReport:
    """Releases the robot's own walking, then runs the loop until SIGINT or SIGTERM; a dry run unless the parameter file
    says otherwise.

    Raises:
      InputError: parameters, bundle, course, interface or domain that cannot be, no robot, a robot of another kind, or
        one whose own walking does not let go. Nothing was sent then.
    """
    with Ending().listening() as ending:
        return _onboard(asked, ending)


def _onboard(asked: OnboardOptions, ending: Ending) -> LoopReport:
    sys.setswitchinterval(SWITCH_INTERVAL)
    options = parameters.load(
        OnboardParameters, asked.parameters, "onboard", elsewhere=names(), policy=asked.bundle, course=asked.course,
        robot=asked.robot,
        dry_run=asked.dry_run or None, record=None if asked.record is None else str(asked.record),
    )  # fmt: skip
    link = UnitreeParameters()
    if asked.parameters is not None:
        link = parameters.load(UnitreeParameters, asked.parameters, "unitree", elsewhere=names())
    skills = load_skills(options.policy, options.robot or None)
    course = by_name(options.course) if options.course else None
    if link.drive == "course" and (course is None or not link.pose):
        raise InputError("to drive a course (drive: course) both a course and a pose (pose: true) are needed")
    check_report(options.report)
    clock = SteadyClock()
    claim = None if options.dry_run else Claim(link.domain, f"dds:{link.interface}:{LOW_COMMAND}")
    bus = Bus(link.domain, link.interface)

    def connect(messages: MessageFilter) -> UnitreeTransport:
        made = UnitreeTransport(
            bus, skills.robot, messages, dry_run=options.dry_run, pose=link.pose, clock=clock, log=_say
        )
        made.listen()  # before there is a recording
        if link.switcher and not options.dry_run:
            made.release()
        return made

    assembly = Assembly(skills, course, options, clock, connect, _say)
    transport = assembly.transport
    driven = course if link.drive == "course" else None
    commands = Commands(transport, skills, driven, clock, link.torque_limit or None)
    try:
        commands.start()
        transport.start(link.switcher)
        Operation(assembly, options, clock, _say).run(ending)
    finally:
        commands.close()
        assembly.close()
        if claim is not None:
            claim.close()
        if options.report:
            latency = {"latency_ms": transport.latencies.milliseconds()}
            write_report(Path(options.report), assembly.summary() | latency)
    return LoopReport.of(assembly.summary())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
