"""The navigator as a ROS 2 node: the newest pose in, velocity command and skill out, once a control period."""

from dataclasses import dataclass

from policies.skills import load_skills
from robot.clock import SteadyClock
from robot.node_end import Ending
from robot.parameters import number, text
from robot.pilot import Pilot
from robot.refusals import Refusals
from robot.ros2 import NavigatorPort, RosNode
from robot.transport import NEVER, NS, Intake
from sim.course_file import by_name


@dataclass(frozen=True)
class NavigatorParameters:
    """Parameters of the node `navigator`."""

    policy: str = text("generalist", "specialists, generalist or a bundle FILE.onnx: what the plan may ask for")
    course: str = text("official", "official, another shipped course, generated:SEED, or FILE.yaml")
    pose_timeout: float = number(0.1, 0.02, 5.0, "with a pose older than this nothing is sent, s")


def run_navigator(node: RosNode, ending: Ending) -> None:
    """The program of the node `navigator`.

    Raises:
      InputError: a parameter, policy or course that cannot be.
    """
    options = node.parameters(NavigatorParameters)
    skills, course = load_skills(options.policy), by_name(options.course)
    node.say(f"planning the way over the course {options.course}")
    pilot = Pilot(course, skills)
    clock = SteadyClock()
    intake = Intake(skills.robot, clock.now, Refusals(node.say))
    port = NavigatorPort(node, intake)
    node.spin()
    node.say("planned; waiting for poses")
    period = round(pilot.period * NS)
    deadline = clock.now()
    while not ending.asked:
        deadline = max(deadline + period, clock.now() - period)
        clock.sleep_until(deadline)
        seen = intake.snapshot()
        if seen.pose_time == NEVER or clock.now() - seen.pose_time > options.pose_timeout * NS:
            continue
        x, y, _, yaw = seen.pose.tolist()
        asked = pilot.step(x, y, yaw)
        port.command(asked.velocity.tolist(), asked.skill)
