"""The localizer as a program on ROS: where it says that the robot is, and what it does not begin with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.estimation.kinematics import GRAVITY, matrix_of
from robot.loop.message_filter import MessageFilter
from robot.loop.refusals import Refusals
from robot.nodes.course import environment
from robot.nodes.processes import free_domain
from robot.nodes.programs import main, ros_arguments
from robot.transports import ros2
from robot.transports.hardware import SimulatedHardware
from sim.course.description import official
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


def test_it_says_over_ros_where_a_robot_is_that_late_and_noisy_poses_tell_of() -> None:
    """A robot stands on the start table; its driver is here, the localizer in a process of its own."""
    robot, domain, rng = default_robot(), free_domain(), np.random.default_rng(4)
    hardware = SimulatedHardware(robot, official(), 3, own_odometry=True, reckons=False)
    hardware.advance(1000)
    reading, (true, turned) = hardware.sense(), hardware.pose()
    reading |= {"orientation": turned, "linear_acceleration": matrix_of(turned).T @ [0.0, 0.0, GRAVITY]}
    reading |= {
        "angular_velocity": np.zeros(3),
        "velocity": np.zeros(robot.joints),
    }  # its noise would be always the same
    node, ears = ros2.RosNode("sim", (), domain), ros2.RosNode("ears", (), domain)
    command = [sys.executable, "-m", "robot.nodes", "localizer", *ros_arguments(given={"course": "official"})]
    process = subprocess.Popen(
        command, env=os.environ | {"ROS_DOMAIN_ID": str(domain)}, cwd=Path(__file__).parents[3]
    )  # fmt: skip
    said: list[tuple[int, np.ndarray]] = []
    told: list[np.ndarray] = []
    still, late = np.zeros(3), 60_000_000
    try:
        driver = ros2.DriverPort(
            node, robot, lambda output: None, Refusals(), time.monotonic_ns, poses=ros2.LOCALIZATION
        )  # fmt: skip
        ears.subscribe(
            ros2.ODOMETRY, lambda message: said.append((ros2.stamp_of(message), ros2.pose_of(message)[0])),
            Refusals(), time.monotonic_ns,
        )  # fmt: skip
        node.spin()
        ears.spin()
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline and len(said) < 250 and process.poll() is None:
            for _ in range(5):
                driver.joints(reading, time.monotonic_ns())
                time.sleep(0.004)
            told.append(true + rng.normal(0.0, [0.05, 0.05, 0.0]))
            driver.pose((told[-1], turned), (still, still), time.monotonic_ns() - late)
    finally:
        process.send_signal(signal.SIGTERM)
        for one in (node, ears):
            one.close()
    assert process.wait(60) == 0 and len(said) >= 250
    off, raw = (np.linalg.norm(np.array(rows) - true, axis=1) for rows in ([p for _, p in said[100:]], told))
    assert np.median(off) < 0.75 * np.median(raw)
    assert (np.diff([stamp for stamp, _ in said]) > 0).all()


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
