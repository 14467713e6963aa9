"""`barkour onboard` with the in-process transport: the loop that runs on a robot, against simulated hardware."""

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from policies.skills.library import load_skills
from robot.loop import parameters
from robot.loop.assembly import Assembly
from robot.loop.clock import Clock, SimulatedClock, SteadyClock
from robot.loop.controller import SWITCH_INTERVAL, Controller
from robot.loop.declarations import OnboardParameters, names
from robot.loop.message_filter import MessageFilter
from robot.loop.navigation import NavigationProgram
from robot.loop.parameters import switch
from robot.loop.referee import Referee
from robot.loop.transport import NS, State
from robot.options import OnboardOptions
from robot.results import OnboardReport
from robot.transports.hardware import SimulatedHardware
from robot.transports.inprocess import InProcess
from sim.course.files import by_name
from sim.envs.variation import Variation
from sim.errors import InputError
from sim.folders import replacing
from sim.localization import OWN_ODOMETRY, PoseErrors
from sim.results import plain

ARM_WITHIN = 2.0
"""Simulated hardware must be armed within this, s."""
NAVIGATED = 0.3
"""A navigator's command does not stay the same over so long a way, m; see `Limits.command_moved`."""
LONGEST_RUN = 90.0
"""A run in simulation ends after this, s."""


@dataclass(frozen=True)
class SimulatedOnboard(OnboardParameters):
    """The loop's parameters where nothing can be hurt: without a word of it this is no dry run."""

    dry_run: bool = switch(False, "Computes everything and sends nothing to the joints.")


def onboard_in_simulation(
    asked: OnboardOptions,
    log: Callable[[str], None] = lambda text: print(text, file=sys.stderr),
    variation: Variation = Variation(),
) -> OnboardReport:
    """Arms the controller, lets the navigator take the simulated robot over a course, stops it, disarms it.

    With `real_time` on the computer's clock and in threads, as on a robot; else in simulated time, equal every time.
    `variation` is as for `SimulatedHardware`.

    Returns:
      What the referee says, `controller` (its state, changes of state, refusals), `loop` (its punctuality), `bundles`.

    Raises:
      InputError: a policy, course, seed, parameter file or recording that cannot be used.
    """
    options = parameters.load(
        SimulatedOnboard, asked.parameters, "onboard", elsewhere=names(),
        policy=asked.bundle, course=asked.course, robot=asked.robot,
        dry_run=asked.dry_run or None, record=None if asked.record is None else str(asked.record),
    )  # fmt: skip
    options = replace(options, command_moved=options.command_moved or NAVIGATED)
    skills, seed = load_skills(options.policy, options.robot or None), asked.seed or 0
    if not options.course:
        raise InputError("a simulated robot needs a course: the parameter file names none")
    where = by_name(options.course)
    clock: Clock = SteadyClock() if asked.real_time else SimulatedClock()
    navigation = NavigationProgram(where, skills, asked.torque_limit)
    referee = Referee(where, fall=skills.robot.fall)
    hardware = SimulatedHardware(
        skills.robot, where, seed, randomize=asked.randomize, torque_limit=asked.torque_limit, lying=asked.lying,
        pose_errors=PoseErrors.of(asked), own_odometry=asked.own_odometry, variation=variation,
    )  # fmt: skip
    if asked.lying:
        hardware.advance(1500)

    def connect(messages: MessageFilter) -> InProcess:
        return InProcess(messages, hardware, clock, navigation)

    assembly = Assembly(skills, where, options, clock, connect, log)
    transport = assembly.transport
    watch = _Course(transport, assembly.controller, referee, clock, options.dry_run)
    interval = sys.getswitchinterval()
    try:
        if asked.real_time:
            sys.setswitchinterval(SWITCH_INTERVAL)
            transport.start()
        elif isinstance(clock, SimulatedClock):
            transport.follow(clock)
        assembly.loop.run(watch.over)
    finally:
        sys.setswitchinterval(interval)
        assembly.close()
    if options.report:
        with replacing(Path(options.report)) as partial:
            partial.write_text(json.dumps(plain(assembly.summary()), indent=2) + "\n", encoding="utf-8")
    return OnboardReport.of({
        **referee.result(), **assembly.summary(), "log": None, "policy": options.policy, "course": options.course,
        "seed": seed, "randomize": asked.randomize,
        "navigator_pose": OWN_ODOMETRY if asked.own_odometry else PoseErrors.of(asked).words(),
        "latency_ms": transport.latencies.milliseconds(),
        "limits": asdict(assembly.controller.limits), "recording": options.record or None, "real_time": asked.real_time,
    })  # fmt: skip


class _Course:
    """The operator of a run in simulation: arms, waits for the referee, stops, and waits until all is quiet."""

    def __init__(
        self, transport: InProcess, controller: Controller, referee: Referee, clock: Clock, dry_run: bool
    ) -> None:
        """The referee looks on from when the robot stands: one that lies has not fallen."""
        self.transport, self.controller, self.referee, self.clock = transport, controller, referee, clock
        self.messages = transport.messages
        self.began = clock.now()
        self.dry_run = dry_run
        self.armed = self.stopped = False

    def over(self) -> bool:
        """Called after every control step; whether the run is over."""
        seconds = (self.clock.now() - self.began) / NS
        controller, referee = self.controller, self.referee
        if not self.armed:
            if seconds > 0.1 and not self.messages.requests:
                self.messages.ask("arm")
            self.armed = controller.state != State.DISARMED
            if seconds > ARM_WITHIN and not self.armed:
                referee.give_up("could not be armed")
                return True
            return False
        if controller.state == State.RUNNING:
            self.transport.referee = referee
        if controller.state in (State.DISARMED, State.EMERGENCY):
            referee.give_up(controller.reason)
            return True
        if (referee.end or seconds > LONGEST_RUN) and not self.stopped:
            self.stopped = True
            self.messages.ask("stop")
        if self.dry_run and seconds > 5.0 and not self.stopped:
            referee.give_up("dry run: nothing was sent")
        return False
