"""The navigator as a ROS 2 node: the newest pose in, velocity command and skill out, once a control period."""

from typing import Any

from policies.skills.library import load_skills
from robot.loop.clock import SteadyClock
from robot.loop.declarations import NavigatorParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.navigation import NavigationProgram
from robot.loop.refusals import Refusals
from robot.loop.transport import NEVER, NS
from robot.nodes.ending import Ending
from robot.transports.ros2 import NavigatorPort, RosNode
from sim.course.files import by_name


def run_navigator(node: RosNode, ending: Ending) -> dict[str, Any]:
    """The program of the node `navigator`. Returns how many commands were sent, and what was refused.

    Raises:
      InputError: a parameter, policy or course that cannot be.
    """
    options = node.parameters(NavigatorParameters)
    skills, course = load_skills(options.policy, options.robot or None), by_name(options.course)
    node.say(f"planning the way over the course {options.course}")
    navigation = NavigationProgram(course, skills, options.torque_limit or None)
    clock = SteadyClock()
    messages = MessageFilter(skills.robot, clock.now, Refusals(node.say))
    port = NavigatorPort(node, messages)
    node.spin()
    node.say("planned; waiting for poses")
    period = round(navigation.period * NS)
    deadline, sent = clock.now(), 0
    while not ending.asked:
        deadline = max(deadline + period, clock.now() - period)
        clock.sleep_until(deadline)
        seen = messages.snapshot()
        if seen.pose_time == NEVER or clock.now() - seen.pose_time > options.pose_timeout * NS:
            continue
        x, y, _, yaw = seen.pose.tolist()
        asked = navigation.step(x, y, yaw)
        port.command(asked.velocity.tolist(), asked.skill)
        sent += 1
    return {"commands": sent, "refusals": dict(messages.refusals.counts)}
