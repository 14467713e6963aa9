"""Poses with errors on the way from simulated hardware to loop, navigator and referee: who is told what, and when."""

import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from robot.loop.clock import NS, SimulatedClock
from robot.loop.localization import BLIND
from robot.loop.message_filter import MessageFilter
from robot.loop.refusals import Refusals
from robot.loop.transport import Snapshot
from robot.nodes.processes import free_domain
from robot.options import OnboardOptions
from robot.transports import ros2
from robot.transports.hardware import POSE_EVERY, SLICE, SimulatedHardware
from robot.transports.inprocess import InProcess
from sim import observation as obs
from sim.course.description import official
from sim.errors import InputError
from sim.localization import PoseErrors
from sim.robots.description import default_robot

ESTIMATE = np.array([0.03, -0.02, 0.01, 0.4])
"""What the navigator below makes of a pose, less that pose."""


def run(errors: PoseErrors, seconds: float = 0.4, navigated: bool = True) -> dict[str, Any]:
    """A robot that is thrown ahead, turning; what the loop, the navigator and the referee are told of its place."""
    hardware = SimulatedHardware(default_robot(), official(), 3, pose_errors=errors)
    clock = SimulatedClock()
    messages = MessageFilter(default_robot(), clock.now)
    told: dict[str, Any] = {"loop": [], "navigator": [], "referee": [], "age": [], "moved": [], "hardware": hardware}

    def pose(message: dict[str, Any]) -> dict[str, Any]:
        told["loop"].append((message["stamp"] - transport.epoch, *message["position"], *message["orientation"]))
        return message

    def step(x: float, y: float, yaw: float) -> Any:
        told["navigator"].append((x, y, yaw))
        return SimpleNamespace(velocity=np.zeros(3), skill="walk")

    def step_told(place: list[float], age: float, moved: Any, feet: Any) -> Any:
        told["age"].append(age)
        told["moved"].append(moved)
        assert feet.shape[1:] == (3,)
        navigation.place = np.array(place) + ESTIMATE
        return step(place[0], place[1], place[3])

    def seen(stamp: int, position: np.ndarray, orientation: np.ndarray) -> bool:
        told["referee"].append((stamp, *position, *orientation))
        return True

    hardware.physics.qvel[0, [0, 1, 5]] = 1.0, 0.3, 2.0
    transport = InProcess(messages, hardware, clock)
    transport.tampers["pose"] = pose
    navigation: Any = SimpleNamespace(step=step, step_told=step_told, place=None)
    if navigated:
        transport.navigation = navigation
    transport.referee = SimpleNamespace(pose=seen, touch_board=lambda: None)  # type: ignore[assignment]
    transport.follow(clock)
    clock.pass_by(seconds)
    latest: Snapshot = messages.snapshot()
    return told | {name: np.array(told[name]) for name in ("loop", "navigator", "referee")} | {"latest": latest}


@pytest.fixture(scope="module")
def true() -> dict[str, Any]:
    return run(PoseErrors())


def test_without_errors_all_are_told_the_truth(true):
    assert true["hardware"].tells_truth
    np.testing.assert_array_equal(true["loop"], true["referee"])
    assert np.diff(true["loop"][:, 0]).tolist() == [SLICE * POSE_EVERY * NS // 1000] * (len(true["loop"]) - 1)


def test_late_poses_are_old_ones_with_their_own_stamps(true):
    late = run(PoseErrors(delay=0.04), navigated=False)
    np.testing.assert_array_equal(late["referee"], true["referee"])
    moved = late["loop"][late["loop"][:, 0] > 0]
    assert len(moved) == len(true["loop"]) - 5, "those of the last 40 ms are still on their way"
    np.testing.assert_allclose(moved[:, :4], true["loop"][: len(moved), :4], atol=1e-12)
    late = run(PoseErrors(delay=0.04))
    assert np.abs(late["navigator"] - true["navigator"]).max() > 0.02
    assert not true["age"] and np.allclose(late["age"][5:], 0.04, atol=0.011), "the navigator knows how old they are"
    assert np.isfinite(np.array(late["moved"])).all() and len(late["moved"]) == len(late["age"])


def test_the_loop_is_told_what_the_navigator_makes_of_late_poses(true):
    """Every control period, as of now, and it leans as the IMU says."""
    late = run(PoseErrors(delay=0.04, noise=0.01))
    told, asked = late["loop"], late["navigator"]
    assert np.diff(told[:, 0]).tolist() == [20_000_000] * (len(told) - 1) and len(told) == len(asked)
    np.testing.assert_allclose(told[:, 1:3], asked[:, :2] + ESTIMATE[:2])
    np.testing.assert_allclose(obs.yaw_of(np, told[:, 4:]), asked[:, 2] + ESTIMATE[3])
    np.testing.assert_array_equal(late["referee"], true["referee"])


def test_what_is_estimated_is_told_no_longer_where_poses_stay_away(monkeypatch):
    monkeypatch.setattr(SimulatedHardware, "told_pose", lambda self: None)
    told = run(PoseErrors(noise=0.01))
    assert told["loop"][-1, 0] <= BLIND * NS < told["referee"][-1, 0] and len(told["navigator"]) > len(told["loop"])


def test_drift_and_a_wrong_heading_leave_roll_and_pitch_alone(true):
    wrong = run(PoseErrors(yaw_noise=0.3, drift=0.2), navigated=False)
    np.testing.assert_array_equal(wrong["referee"], true["referee"])
    n = len(wrong["loop"])
    told, truth = wrong["loop"], np.array([row for row in true["loop"] if row[0] in set(wrong["loop"][:, 0])])
    assert len(truth) == n
    quats = told[:, 4:], truth[:, 4:]
    down = [obs.projected_gravity(np, quat) for quat in quats]
    np.testing.assert_allclose(down[0], down[1], atol=1e-9)
    yaw = [obs.yaw_of(np, quat) for quat in quats]
    assert 0.15 < np.std(yaw[0] - yaw[1]) < 0.5
    off = np.linalg.norm(told[:, 1:3] - truth[:, 1:3], axis=1)
    way = np.linalg.norm(np.diff(truth[:, 1:3], axis=0), axis=1).sum()
    assert off[-1] == pytest.approx(0.2 * way, rel=0.1) and (np.diff(off) > -1e-12).all()


def test_the_loop_sees_what_it_is_told_and_poses_can_be_rare():
    rare = run(PoseErrors(rate=20.0, noise=0.05), navigated=False)
    assert len(rare["loop"]) == pytest.approx(0.4 * 20, abs=1)
    np.testing.assert_allclose(rare["latest"].pose[:3], rare["loop"][-1, 1:4])
    known = run(PoseErrors(rate=20.0, noise=0.05))["navigator"][-1]
    np.testing.assert_allclose(known[:2], rare["loop"][-1, 1:3])


def test_pose_errors_belong_to_simulated_robots():
    with pytest.raises(InputError, match="--pose-noise has no effect"):
        OnboardOptions(transport="ros2", pose_noise=0.01)


def test_over_ros_the_referee_hears_the_truth_and_the_navigator_does_not() -> None:
    robot = default_robot()
    domain, heard, told, messages = free_domain(), [], [], MessageFilter(robot, time.monotonic_ns)
    nodes = [ros2.RosNode(name, (), domain) for name in ("sim", "referee", "navigator", "localizer")]
    still, level = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
    try:
        driver = ros2.DriverPort(
            nodes[0], robot, lambda output: None, Refusals(), time.monotonic_ns, poses=ros2.LOCALIZATION, truth=True
        )
        localizer = ros2.LocalizerPort(nodes[3], MessageFilter(robot, time.monotonic_ns))
        localizer.hear(SimpleNamespace(seen=told.append))  # type: ignore[arg-type]
        ros2.RefereePort(
            nodes[1], lambda stamp, position, turned: heard.append(position), lambda: None, Refusals(),
            time.monotonic_ns, truth=True,
        )  # fmt: skip
        ros2.NavigatorPort(nodes[2], messages)
        for node in nodes:
            node.spin()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not (heard and told) or messages.snapshot().pose_time < 0):
            driver.pose((np.array([1.0, 2.0, 0.3]), level), (still, still), nodes[0].now())
            localizer.pose((np.array([6.0, 7.0, 0.3]), level), (still, still), nodes[3].now())
            driver.true_pose((np.array([4.0, 5.0, 0.3]), level), (still, still), nodes[0].now())
            time.sleep(0.02)
    finally:
        for node in nodes:
            node.close()
    assert heard[0].tolist() == [4.0, 5.0, 0.3]
    assert messages.snapshot().pose[:2].tolist() == [6.0, 7.0]


def test_a_robot_that_reckons_its_place_tells_that_in_place_of_the_truth():
    """Near the truth and not it, stamped when it was believed, and begun where the robot is."""
    hardware = SimulatedHardware(default_robot(), official(), 3, own_odometry=True)
    other = SimulatedHardware(default_robot(), official(), 3)
    assert not hardware.tells_truth and other.tells_truth
    told = []
    for _ in range(60):
        np.testing.assert_array_equal(hardware.sense()["position"], other.sense()["position"])
        pose = hardware.told_pose()
        if pose is not None:
            told.append((*pose[0], pose[2]))
            assert pose[2] == hardware.time
        hardware.advance(SLICE)
        other.advance(SLICE)
    assert len(told) == 60 // POSE_EVERY
    true, believed = hardware.pose()[0], np.array(told[-1][:3])
    assert 0 < np.linalg.norm(believed - true) < 0.03
    assert np.linalg.norm(hardware.told_velocity()[0] - hardware.velocity()[0]) < 0.2
    np.testing.assert_array_equal(hardware.pose()[0], other.pose()[0])


def test_two_kinds_of_wrong_poses_are_refused():
    with pytest.raises(InputError):
        SimulatedHardware(default_robot(), official(), pose_errors=PoseErrors(noise=0.1), own_odometry=True)
    with pytest.raises(InputError):
        OnboardOptions(transport="ros2", own_odometry=True)
