"""Everything that runs on the robot, put together: filter, policy, controller, recorder and loop around a transport."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

from policies.skills.library import Skills
from robot.loop.clock import Clock, SteadyClock
from robot.loop.controller import Controller, Loop
from robot.loop.declarations import OnboardParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.recording import Recorder
from robot.loop.refusals import Refusals
from robot.loop.replay import header, sha256
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import Transport
from sim.course.description import Course

T = TypeVar("T", bound=Transport)


class Assembly(Generic[T]):
    """Control loop and transport of one robot."""

    def __init__(
        self,
        skills: Skills,
        course: Course | None,
        options: OnboardParameters,
        clock: Clock,
        connect: Callable[[MessageFilter], T],
        log: Callable[[str], None],
    ) -> None:
        """`connect` makes the transport that fills a filter; without a `course` the ground is flat.

        Raises:
          InputError: a bundle cannot be read again, or there can be no recording.
        """
        limits, times, grid = options.parts()
        self.bundles = sha256(skills)
        """File name -> SHA-256 of each bundle."""
        self.messages = MessageFilter(skills.robot, clock.now, Refusals(log))
        self.transport = connect(self.messages)
        self.recorder = None
        if options.record:
            said = header(skills, self.bundles, course, limits, times, grid, needs_pose=options.needs_pose)
            epoch = time.time_ns() - clock.now() if isinstance(clock, SteadyClock) else 0
            self.recorder = Recorder(Path(options.record), said, epoch=epoch)
        self.controller = Controller(
            OnboardPolicy(skills, TerrainHeights(skills.robot, course, grid)),
            self.messages,
            self.transport,
            limits,
            times,
            recorder=self.recorder,
            dry_run=options.dry_run,
            needs_pose=options.needs_pose,
            log=log,
        )
        self.loop = Loop(self.controller, clock)

    def close(self) -> None:
        """Ends the loop, the recording and the transport."""
        self.loop.end()
        if self.recorder is not None:
            self.recorder.close()
        self.transport.close()

    def summary(self) -> dict[str, Any]:
        """JSON-ready: the controller's last status with its history, the loop's punctuality, the bundles."""
        history = self.controller.history
        monitors = {code: {"peak": peak, "limit": limit} for code, (peak, limit) in self.controller.monitors().items()}
        said = {
            "monitors": monitors,
            "history": [change.said for change in history],
            "codes": [change.code for change in history],
        }
        return {
            "controller": self.controller.status() | said,
            "loop": self.loop.punctuality.summary(),
            "bundles": self.bundles,
        }
