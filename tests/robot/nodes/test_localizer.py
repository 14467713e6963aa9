"""The localizer as a program on ROS: what it does not begin with."""

import time
from typing import Any

import pytest

from robot.loop.message_filter import MessageFilter
from robot.nodes.course import environment
from robot.nodes.processes import free_domain
from robot.nodes.programs import main, ros_arguments
from robot.transports import ros2
from sim.robots.description import default_robot


@pytest.fixture(autouse=True)
def loopback(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped development profile."""
    for name, value in environment(0, tmp_path).items():
        if name.startswith(("ROS_", "RMW_", "FASTDDS_")) and name != "ROS_DOMAIN_ID":
            monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    "given",
    [
        {"own_odometry": True, "start": "here"},
        {"course": "nowhere"},
        {"robot": "nobody"},
        {"blind": 60.0},
        {"gap": "long"},
        {"starts": "1 2 3"},
    ],
)
def test_what_it_cannot_begin_with_is_one_line(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["localizer", *ros_arguments(given=given)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_two_localizers_are_not_both_obeyed() -> None:
    nodes = [ros2.RosNode("localizer", (), free_domain())]
    nodes.append(ros2.RosNode("localizer", (), nodes[0].context.get_domain_id()))
    messages = MessageFilter(default_robot(), time.monotonic_ns)
    try:
        ros2.LocalizerPort(nodes[0], messages)
        with pytest.raises(ros2.InputError, match="odom"):
            ros2.LocalizerPort(nodes[1], messages)
    finally:
        for node in nodes:
            node.close()
