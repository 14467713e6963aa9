"""The localizer as a ROS 2 node: readings and poses with errors in, the pose of now out."""

from typing import Any

from policies.skills.library import load_skills
from robot.loop.clock import SteadyClock
from robot.loop.declarations import LocalizerParameters
from robot.loop.localization import BELIEVED, Believed, LocalizationProgram
from robot.loop.message_filter import MessageFilter
from robot.loop.refusals import Refusals
from robot.loop.timing import LOOK_EVERY
from robot.loop.transport import NS
from robot.nodes.ending import Ending
from robot.transports.ros2 import LocalizerPort, RosNode
from sim.course.files import by_name


def run_localizer(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `localizer`. Returns how many poses were sent, why the place is lost if it is, and what
    was refused.

    Raises:
      InputError: a parameter, policy or course that cannot be, or legs that cannot be read by own odometry.
    """
    options = node.parameters(LocalizerParameters)
    skills = load_skills(options.policy, options.robot or None)
    course = by_name(options.course) if options.course else None
    clock = SteadyClock()
    messages = MessageFilter(skills.robot, clock.now, Refusals(node.say), BELIEVED)
    port = LocalizerPort(node, messages)

    def send(told: Believed) -> None:
        port.pose((told.position, told.orientation), (told.velocity, told.turning), told.stamp)

    program = LocalizationProgram(skills, course, options, messages, send, node.say)
    port.hear(program)
    node.spin()
    node.say("waiting for readings" if options.own_odometry else "waiting for readings and poses")
    while not ending.asked:
        messages.requests.clear()  # what does not agree is for the control loop to act on
        clock.sleep_until(clock.now() + round(LOOK_EVERY * NS))
    lost = program.lost.sentence if program.lost else ""
    return {"poses": program.sent, "lost": lost, "refusals": dict(messages.refusals.counts)}
