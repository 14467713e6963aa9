"""The control loop as a ROS 2 node: the program that runs on the robot."""

from pathlib import Path
from typing import Any

from policies.skills.library import load_skills
from robot.loop.assembly import Assembly
from robot.loop.clock import SteadyClock
from robot.loop.declarations import OnboardParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.operation import Operation
from robot.nodes.ending import Ending, check_report, write_report
from robot.transports.ros2 import Ros2Transport, RosNode
from sim.course.files import by_name


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
        Operation(self.assembly, self.options, self.clock, self.node.say).run(ending)


def run_onboard(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `onboard`. Returns `Assembly.summary`.

    Raises:
      InputError: a parameter, bundle, course or recording that cannot be.
    """
    options = node.parameters(OnboardParameters)
    check_report(options.report)
    onboard = Onboard(node, options)
    try:
        onboard.run(ending)
    finally:
        onboard.close()
        if options.report:
            write_report(Path(options.report), onboard.summary())
    return onboard.summary()
