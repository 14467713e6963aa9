"""From ready to stopped: arms a robot once all is fresh, or lets somebody else, and stops it softly at the end."""

from collections.abc import Callable
from typing import Any, Protocol

from robot.loop.assembly import Assembly
from robot.loop.clock import Clock
from robot.loop.declarations import OnboardParameters
from robot.loop.timing import ARM_EVERY, ENDED_SPARE, LOOK_EVERY, SOFT_STOP_SPARE
from robot.loop.transport import ANSWERED, NEVER, NS, State


class Asked(Protocol):
    """How often an end was asked for."""

    asked: int
    patience: float
    """s after a request until a program whose starter is gone is ended by force."""


class Operation:
    """Arms, waits for the end and stops one robot."""

    def __init__(
        self, assembly: Assembly[Any], options: OnboardParameters, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self.assembly, self.options, self.clock, self.say = assembly, options, clock, say
        self.messages, self.controller, self.loop = assembly.messages, assembly.controller, assembly.loop

    def run(self, ending: Asked) -> None:
        """Until the end is asked for, and then until the robot has stopped. A second request ends at once."""
        ending.patience = self.options.soft_stop + SOFT_STOP_SPARE + ENDED_SPARE
        self.loop.start()
        self.say("ready" + ("; a dry run: nothing is sent to the joints" if self.options.dry_run else ""))
        armed, tried = not self.options.auto_arm, NEVER
        while not ending.asked and self.loop.alive:
            if not armed and self._fresh() and self.clock.now() - tried > ARM_EVERY * NS:
                tried = self.clock.now()
                armed = self.messages.ask("arm").wait(ANSWERED)
            self._wait()
        self._stop(ending)
        if self.loop.failure is not None:
            raise self.loop.failure

    def _wait(self) -> None:
        self.clock.sleep_until(self.clock.now() + round(LOOK_EVERY * NS))

    def _fresh(self) -> bool:
        """Whether everything that a run needs has just come in."""
        seen, now = self.messages.snapshot(), self.clock.now()
        times = [seen.joints_time, seen.imu_time, seen.command_time]
        if self.options.needs_pose:
            times.append(seen.pose_time)
        return all(time != NEVER and now - time < self.options.sensor_timeout * NS for time in times)

    def _stop(self, ending: Asked) -> None:
        """A soft stop, if the robot is held."""
        asked = ending.asked
        if self.controller.state in (State.STANDING_UP, State.RUNNING):
            self.say("asked to end: stopping softly")
            self.messages.ask("stop")
        until = self.clock.now() + (self.options.soft_stop + SOFT_STOP_SPARE) * NS
        self._wait()
        while self.loop.alive and ending.asked <= max(asked, 1) and self.clock.now() < until:
            if self.controller.state in (State.DISARMED, State.EMERGENCY):
                return
            self._wait()
