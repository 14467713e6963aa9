"""The control loop as a ROS 2 node: the program that runs on the robot."""

from pathlib import Path
from typing import Any

from policies.skills.library import load_skills
from robot.loop.assembly import Assembly
from robot.loop.clock import SteadyClock
from robot.loop.declarations import OnboardParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.transport import NEVER, NS, State
from robot.nodes.ending import Ending, write_report
from robot.transports.ros2 import ANSWERED, Ros2Transport, RosNode
from sim.course.files import by_name

ARM_EVERY = 1.0
"""Seconds between two tries to arm by itself."""


class Onboard:
    """Arms, waits for the end and stops one robot over ROS."""

    def __init__(self, node: RosNode, options: OnboardParameters) -> None:
        self.node, self.options, self.clock = node, options, SteadyClock()
        skills = load_skills(options.policy, options.robot or None)
        course = by_name(options.course) if options.course else None

        def connect(messages: MessageFilter) -> Ros2Transport:
            transport = Ros2Transport(node, messages, options.dry_run)
            node.listen()  # before there is a recording
            return transport

        self.assembly = Assembly(skills, course, options, self.clock, connect, node.say)
        self.messages, self.controller = self.assembly.messages, self.assembly.controller
        self.loop, self.close, self.summary = self.assembly.loop, self.assembly.close, self.assembly.summary
        for name, digest in self.assembly.bundles.items():
            node.say(f"the bundle {name} is whole, sha256 {digest}")

    def run(self, ending: Ending) -> None:
        """Until the end is asked for, and then until the robot has stopped. A second request ends at once."""
        self.node.spin()
        self.loop.start()
        self.node.say("ready" + ("; a dry run: nothing is sent to the joints" if self.options.dry_run else ""))
        armed, tried = not self.options.auto_arm, 0
        while not ending.asked and self.loop.alive:
            if not armed and self._fresh() and self.clock.now() - tried > ARM_EVERY * NS:
                tried = self.clock.now()
                armed = self.messages.ask("arm").wait(ANSWERED)
            self._wait()
        self._stop(ending)
        if self.loop.failure is not None:
            raise self.loop.failure

    def _wait(self) -> None:
        self.clock.sleep_until(self.clock.now() + NS // 50)

    def _fresh(self) -> bool:
        """Whether everything that a run needs has just come in."""
        seen, now = self.messages.snapshot(), self.clock.now()
        times = [seen.joints_time, seen.imu_time, seen.command_time]
        if self.options.needs_pose:
            times.append(seen.pose_time)
        return all(time != NEVER and now - time < self.options.sensor_timeout * NS for time in times)

    def _stop(self, ending: Ending) -> None:
        """A soft stop, if the robot is held."""
        asked, times = ending.asked, self.options
        if self.controller.state in (State.STANDING_UP, State.RUNNING):
            self.node.say("asked to end: stopping softly")
            self.messages.ask("stop")
        until = self.clock.now() + (times.brake + times.stand + times.hold + times.settle + 1.0) * NS
        self._wait()
        while self.loop.alive and ending.asked <= max(asked, 1) and self.clock.now() < until:
            if self.controller.state in (State.DISARMED, State.EMERGENCY):
                return
            self._wait()


def run_onboard(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `onboard`. Returns `Assembly.summary`.

    Raises:
      InputError: a parameter, bundle, course or recording that cannot be.
    """
    options = node.parameters(OnboardParameters)
    onboard = Onboard(node, options)
    try:
        onboard.run(ending)
    finally:
        onboard.close()
        if options.report:
            write_report(Path(options.report), onboard.summary())
    return onboard.summary()
