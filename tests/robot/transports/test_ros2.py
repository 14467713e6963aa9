"""ROS 2: messages become what the loop understands or are refused in words; two processes, two domains, loopback."""

import json
import os
import subprocess
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import ParameterType
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger

from robot.loop.declarations import OnboardParameters
from robot.loop.message_filter import MessageFilter
from robot.loop.parameters import declared
from robot.loop.recording import SECOND_DAMPS
from robot.loop.refusals import Code, Refusals
from robot.loop.transport import NS, Mode, Output
from robot.nodes.course import command, environment, run_course
from robot.nodes.processes import free_domain
from robot.nodes.programs import main, ros_arguments
from robot.options import CourseOptions
from robot.transports import ros2
from robot.transports.senders import check_free
from sim.course.description import SKILLS
from sim.errors import InputError
from sim.robots.description import default_robot

ROBOT = default_robot()
NAMES = list(ROBOT.joint_names)


@pytest.fixture(scope="module", autouse=True)
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The shipped development profile, for nodes of this process."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment(0, tmp_path_factory.mktemp("log")).items():
            if name.startswith(("ROS_", "RMW_", "FASTDDS_")) and name != "ROS_DOMAIN_ID":
                patch.setenv(name, value)
        patch.delenv("ROS_DOMAIN_ID", raising=False)
        yield


@pytest.fixture
def messages() -> MessageFilter:
    """At steady time 5 s, for the shipped robot."""
    return MessageFilter(ROBOT, lambda: 5 * NS)


def joint_state(names: list[str] = NAMES, **changed) -> ros2.JointState:
    pose = dict(zip(NAMES, ROBOT.default_pose.tolist(), strict=True))
    reading = {"names": names, "position": [pose.get(name, 0.0) for name in names], "velocity": [0.5] * len(names)}
    return ros2.joints_message({**reading, "effort": [1.0] * len(names), **changed}, 3 * NS + 7)


def no_heading() -> Odometry:
    return ros2.odometry_message(np.zeros(3), np.zeros(4), np.zeros(3), np.zeros(3), NS)


def trajectory(targets: np.ndarray = ROBOT.default_pose) -> ros2.JointTrajectory:
    return ros2.command_message(ROBOT, Output(Mode.POSITION, targets, 123))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it comes true; `seconds` only end a test that hangs."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


# --- messages ---------------------------------------------------------------------------------------------------------


def test_joints_are_matched_by_name_and_keep_their_stamp(messages: MessageFilter) -> None:
    assert ros2.take_joints(messages, joint_state(NAMES[::-1] + ["tail"]))
    seen = messages.snapshot()
    np.testing.assert_allclose(seen.position, ROBOT.default_pose, atol=1e-9)
    assert seen.joints_stamp == 3 * NS + 7 and seen.joints_time == 5 * NS
    assert seen.effort.tolist() == [1.0] * 12


def test_quaternions_change_their_order(messages: MessageFilter) -> None:
    tilted = np.array([np.cos(0.2), np.sin(0.2), 0.0, 0.0])
    assert ros2.take_imu(messages, ros2.imu_message(tilted, np.array([0.1, 0.2, 0.3]), NS))
    np.testing.assert_allclose(messages.snapshot().orientation, tilted)
    np.testing.assert_allclose(messages.snapshot().angular_velocity, [0.1, 0.2, 0.3])
    message = ros2.imu_message(tilted, np.zeros(3), NS)
    assert (message.orientation.w, message.orientation.x) == (tilted[0], tilted[1])


def test_a_pose_becomes_place_and_heading(messages: MessageFilter) -> None:
    turned = np.array([np.cos(0.5), 0.0, 0.0, np.sin(0.5)])
    still = np.zeros(3)
    assert ros2.take_odometry(messages, ros2.odometry_message(np.array([1.0, 2.0, 0.3]), turned, still, still, NS))
    np.testing.assert_allclose(messages.snapshot().pose, [1.0, 2.0, 0.3, 1.0])


def test_command_and_skill(messages: MessageFilter) -> None:
    assert ros2.take_command(messages, ros2.velocity_message([1.0, -0.2, 0.5], NS))
    assert messages.snapshot().command.tolist() == [1.0, -0.2, 0.5]
    assert ros2.take_skill(messages, String(data="jump"))
    assert SKILLS[messages.snapshot().skill] == "jump"


def test_a_height_grid_is_read_in_either_byte_order(messages: MessageFilter) -> None:
    heights = np.arange(6, dtype=np.float32).reshape(2, 3)
    for big in (0, 1):
        data = array("B", heights.astype(">f4" if big else "<f4").tobytes())
        message = Image(height=2, width=3, step=12, encoding="32FC1", is_bigendian=big, data=data)
        assert ros2.take_height_grid(messages, message)
        seen = messages.snapshot().heights
        assert seen is not None and seen.tolist() == heights.tolist()


COLOUR = Image(height=1, width=1, step=3, encoding="rgb8")
SHORT = Image(height=9, width=9, step=36, encoding="32FC1")
FLAT = Image(height=1, width=1, step=4, encoding="32FC1", data=array("B", bytes(4)))
GRID = "height grid malformed"
MALFORMED = {
    "too few joints": (ros2.take_joints, joint_state(NAMES[:-1]), "joints missing joint"),
    "joint named twice": (ros2.take_joints, joint_state([*NAMES, NAMES[0]]), "joints duplicate joint"),
    "no speeds": (ros2.take_joints, joint_state(velocity=[]), "joints malformed"),
    "degrees": (ros2.take_joints, joint_state(position=np.rad2deg(ROBOT.default_pose) + 30), "joints out of range"),
    "not finite": (ros2.take_joints, joint_state(velocity=[np.nan] * 12), "joints not finite"),
    "no joints": (ros2.take_joints, ros2.JointState(), "joints missing joint"),
    "no attitude": (ros2.take_imu, ros2.imu_message(np.zeros(4), np.zeros(3), NS), "imu no rotation"),
    "a pose that is turned nowhere": (ros2.take_odometry, no_heading(), "pose no rotation"),
    "a pose in the robot": (ros2.take_odometry, ros2.stamped(Odometry(), NS, "robot1/base_link"), "pose malformed"),
    "a map's pose": (ros2.take_odometry, Odometry(child_frame_id="map"), "pose malformed"),
    "a command on the map": (ros2.take_command, ros2.stamped(ros2.TwistStamped(), NS, "/map"), "command malformed"),
    "a grid on the map": (ros2.take_height_grid, ros2.stamped(FLAT, NS, "odom"), GRID),
    "wild command": (ros2.take_command, ros2.velocity_message([np.inf, 0.0, 0.0], NS), "command not finite"),
    "no such skill": (ros2.take_skill, String(data="fly"), "skill unknown name"),
    "a colour image": (ros2.take_height_grid, COLOUR, GRID),
    "a short grid": (ros2.take_height_grid, SHORT, GRID),
    "a number of 300 digits": (ros2.take_joints, joint_state(position=[1e308] * 12), "joints out of range"),
    "a skill that writes to the terminal": (ros2.take_skill, String(data="\x1b[2Jwalk\n"), "skill unknown name"),
    "an encoding that does": (ros2.take_height_grid, Image(height=1, width=1, encoding="\x1b[31m" * 9), GRID),
    "an empty grid": (ros2.take_height_grid, Image(encoding="32FC1"), GRID),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_message_is_refused_in_one_sentence(messages: MessageFilter, name: str) -> None:
    take, message, key = MALFORMED[name]
    before = vars(messages.snapshot())
    assert not take(messages, message)
    assert messages.refusals.counts == {key: 1}
    sentence = messages.refusals.last[key].sentence
    assert sentence.isprintable() and len(sentence) < 500
    after = vars(messages.snapshot())
    del before["heights"], after["heights"]
    assert all(np.array_equal(after[key], before[key], equal_nan=True) for key in before)
    assert messages.snapshot().heights is None


@pytest.mark.parametrize(("what", "code"), [("orientation", "no rotation"), ("angular_velocity", "malformed")])
def test_an_imu_that_says_it_knows_no_attitude_or_no_rates_is_refused(
    messages: MessageFilter, what: str, code: str
) -> None:
    message = ros2.imu_message(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(3), NS)
    getattr(message, f"{what}_covariance")[0] = -1.0
    assert not ros2.take_imu(messages, message)
    assert messages.refusals.counts == {f"imu {code}": 1}


def test_a_joint_command_survives_the_way_to_the_drives() -> None:
    message = trajectory()
    assert message.points[0].velocities.tolist() == [0.0] * 12
    assert message.points[0].time_from_start.nanosec == round(ROBOT.control_period * NS)
    back = ros2.command_of(ROBOT, message)
    assert (back.mode, back.stamp) == (Mode.POSITION, 123)
    np.testing.assert_allclose(back.targets, ROBOT.default_pose, atol=1e-6)


def test_drives_match_joints_by_name() -> None:
    message = trajectory(np.arange(12, dtype=np.float32))
    message.joint_names = message.joint_names[::-1]
    assert ros2.command_of(ROBOT, message).targets.tolist() == list(range(11, -1, -1))


def test_damping_has_no_positions() -> None:
    message = ros2.command_message(ROBOT, Output(Mode.DAMP, ROBOT.default_pose, 5))
    assert len(message.points[0].positions) == 0 and message.points[0].velocities.tolist() == [0.0] * 12
    assert ros2.command_of(ROBOT, message).mode == Mode.DAMP


def test_drives_refuse_what_is_no_command() -> None:
    missing, twice, infinite, empty = trajectory(), trajectory(), trajectory(), trajectory()
    missing.joint_names = [*NAMES[:-1], "tail"]
    twice.joint_names = [*NAMES, NAMES[0]]
    infinite.points[0].positions[3] = np.inf
    empty.points = []
    for message in (missing, twice, infinite, empty):
        with pytest.raises(InputError, match="a joint command"):
            ros2.command_of(ROBOT, message)


def test_diagnostics_say_state_and_why() -> None:
    status = {"state": "emergency", "phase": "", "reason": "the base leans", "refusals": {"tilt": 1}}
    (diagnosis,) = ros2.diagnostics_message(ROBOT, status, NS).status
    assert diagnosis.level == DiagnosticStatus.ERROR and diagnosis.message == "emergency: the base leans"
    assert {value.key: value.value for value in diagnosis.values}["refusals"] == '{"tilt": 1}'


def test_topics_are_named_once_and_latched_ones_are_reliable() -> None:
    assert len({topic.name for topic in ros2.TOPICS}) == len(ros2.TOPICS)
    for topic in ros2.TOPICS:
        assert topic.asked().durability == topic.offered().durability
        reliable = topic.asked().reliability == ros2.ReliabilityPolicy.RELIABLE
        assert reliable == topic.latched


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_every_parameter_is_declared_with_description_and_range() -> None:
    node = ros2.RosNode("onboard", ros_arguments(None, {"tilt": 1, "course": "", "dry_run": True}), free_domain())
    try:
        options = node.parameters(OnboardParameters)
        assert (options.tilt, options.course, options.dry_run) == (1.0, "", True)
        for parameter in declared(OnboardParameters):
            described = node.node.describe_parameter(parameter.name)
            assert described.description and described.read_only
            if parameter.low is not None and parameter.kind is float:
                (span,) = described.floating_point_range
                assert (span.from_value, span.to_value) == (parameter.low, parameter.high)
            elif parameter.low is not None:
                (span,) = described.integer_range
                assert (span.from_value, span.to_value) == (parameter.low, parameter.high)
        assert node.node.describe_parameter("tilt").type == ParameterType.PARAMETER_DOUBLE
        assert node.node.get_parameter("tilt").value == 1.0
    finally:
        node.close()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"tlit": 1.0}, "unknown parameter 'tlit'"),
        ({"tilt": 9.0}, "'tilt' must lie between"),
        ({"tilt": "much"}, "'tilt' must be a number"),
        ({"overruns": 2.5}, "'overruns' must be a whole number"),
    ],
)
def test_impossible_parameters_are_refused(given: dict, words: str) -> None:
    node = ros2.RosNode("onboard", ros_arguments(None, given), free_domain())
    try:
        with pytest.raises(InputError, match=words):
            node.parameters(OnboardParameters)
    finally:
        node.close()


SECTION = "{}:\n  ros__parameters: {{dry_run: true, tilt: 0.5}}\n"


@pytest.mark.parametrize("section", ["onboard", "onbord", "/robot2/onboard"])
def test_a_file_whose_sections_ros_would_leave_out_is_refused(tmp_path: Path, section: str) -> None:
    """Under a namespace, or with a misspelt node, its limits would be dropped without a word."""
    file = tmp_path / "p.yaml"
    file.write_text(SECTION.format(section))
    arguments = [*ros_arguments(file), "-r", "__ns:=/robot1"]
    node = ros2.RosNode("onboard", arguments, free_domain())
    try:
        with pytest.raises(InputError, match="no section for the node /robot1/onboard"):
            node.parameters(OnboardParameters)
    finally:
        node.close()


@pytest.mark.parametrize("section", ["/**", "/robot1/onboard"])
def test_sections_for_a_namespace_hold(tmp_path: Path, section: str) -> None:
    file = tmp_path / "p.yaml"
    file.write_text(SECTION.format(section).replace("}", ", patience: 5.0}" if "*" in section else "}"))
    node = ros2.RosNode("onboard", [*ros_arguments(file), "-r", "__ns:=/robot1"], free_domain())
    try:
        options = node.parameters(OnboardParameters)
        assert options.dry_run and options.tilt == 0.5
    finally:
        node.close()


def test_simulated_time_is_refused_at_the_start_and_later() -> None:
    node = ros2.RosNode("onboard", ros_arguments(None, {"use_sim_time": True}), free_domain())
    try:
        with pytest.raises(InputError, match="use_sim_time"):
            node.parameters(OnboardParameters)
    finally:
        node.close()
    node = ros2.RosNode("onboard", (), free_domain())
    try:
        node.parameters(OnboardParameters)
        (result,) = node.node.set_parameters([Parameter("use_sim_time", value=True)])
        assert not result.successful and not node.node.get_parameter("use_sim_time").value
    finally:
        node.close()


def test_bad_usage_is_one_line_and_status_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([]) == 2 and "unknown node ''" in capsys.readouterr().err
    for arguments in (ros_arguments(tmp_path / "none.yaml"), ["--ros-args", "--nonsense"]):
        assert main(["sim", *arguments]) == 2
        said = capsys.readouterr().err
        assert said.startswith("barkour: ") and said.count("\n") == 1


def test_operators_and_sensors_reach_the_loop_and_commands_the_drives() -> None:
    """Two nodes of one domain, a third in another that must hear nothing."""
    domain, elsewhere = free_domain(), free_domain()
    assert domain != elsewhere
    mine, robot, stranger = (ros2.RosNode(n, (), d) for n, d in (("a", domain), ("b", domain), ("c", elsewhere)))
    messages, foreign = (MessageFilter(ROBOT, time.monotonic_ns) for _ in range(2))
    transport, _ = ros2.Ros2Transport(mine, messages), ros2.Ros2Transport(stranger, foreign)
    driven: list[Output] = []
    drives = Refusals()
    port = ros2.DriverPort(robot, ROBOT, driven.append, drives, time.monotonic_ns)
    client = robot.node.create_client(Trigger, "stop")
    with pytest.raises(InputError):
        ros2.DriverPort(robot, ROBOT, driven.append, messages.refusals, time.monotonic_ns)
    check_free(domain, ("/height_grid",))
    try:
        for node in (mine, robot, stranger):
            node.spin()
        assert until(lambda: _send(port) and messages.snapshot().joints_time > 0)
        transport.report({"state": "disarmed", "phase": "", "reason": "not armed yet"})
        assert until(lambda: transport.write(Output(Mode.DAMP, ROBOT.default_pose, 9)) is None and bool(driven))
        assert driven[0].mode == Mode.DAMP and driven[0].stamp == 9
        assert client.wait_for_service(timeout_sec=60.0)
        answer = client.call_async(Trigger.Request())
        assert until(lambda: bool(messages.requests))
        messages.requests.popleft().answer(True, Code.OPERATOR, "stopping")
        assert until(answer.done)
        assert answer.result().success and answer.result().message == "stopping"
        assert foreign.snapshot().joints_time < 0
        assert not messages.requests and not messages.refusals.counts
        held = Output(Mode.POSITION, ROBOT.default_pose, 0)
        second = robot.node.create_publisher(ros2.JointTrajectory, "joint_commands", ros2.JOINT_COMMANDS.offered())
        key = f"joint_commands {Code.SECOND_SENDER}"

        def both() -> bool:
            transport.write(held)
            second.publish(trajectory())
            return messages.refusals.counts[key] > 0 and drives.counts[key] > 0 and driven[-1].mode == Mode.DAMP

        assert until(both)
        assert messages.requests[0].kind == SECOND_DAMPS
    finally:
        for node in (mine, robot, stranger):
            node.close()


def test_a_control_loop_beside_another_ends_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of another computer, whose claim cannot be seen: its diagnoses tell."""
    domain = free_domain()
    first, beside = (ros2.RosNode(name, (), domain) for name in ("onboard", "beside"))
    messages = MessageFilter(ROBOT, lambda: 0)
    transport = ros2.Ros2Transport(first, messages)
    with pytest.raises(InputError):
        ros2.Ros2Transport(beside, messages)
    with pytest.raises(InputError):
        run_course(CourseOptions(domain=domain), lambda _: pytest.fail("something was started"))
    monkeypatch.setattr(ros2, "LISTENS", 60.0)  # it ends as soon as the other one is heard
    monkeypatch.setattr(ros2, "Claim", lambda domain, topic: SimpleNamespace(close=lambda: None))
    over = threading.Event()

    def report() -> None:
        while not over.wait(0.1):
            transport.report({"state": "disarmed", "phase": "", "reason": "not armed yet"})

    reporter = threading.Thread(target=report)
    reporter.start()
    try:
        ros2.Ros2Transport(beside, messages, dry_run=True)
        with pytest.raises(InputError):
            beside.spin()
    finally:
        over.set()
        reporter.join()
        first.close()
        beside.close()


def _send(port: ros2.DriverPort) -> bool:
    reading = {"names": NAMES, "position": ROBOT.default_pose, "velocity": np.zeros(12), "effort": np.zeros(12)}
    upright = {"orientation": np.array([1.0, 0.0, 0.0, 0.0]), "angular_velocity": np.zeros(3)}
    port.joints(reading | upright, time.time_ns())
    return True


class Taken:
    """What a subscription or a service has in store, as rclpy hands it out."""

    def __init__(self, *store: Any) -> None:
        self.handle, self.store, self.sent = self, list(store), list[tuple[Any, Any]]()

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass

    def take_message(self, kind: Any, raw: bool) -> Any:
        return self.store.pop(0) if raw and self.store else None

    def service_take_request(self, kind: Any) -> Any:
        return self.store.pop(0) if self.store else (None, None)

    def send_response(self, response: Any, header: Any) -> None:
        self.sent.append((header, response))


def test_an_operator_is_told_when_the_loop_does_not_answer(messages: MessageFilter) -> None:
    calls = Taken((None, "first"))
    service = ros2._Service(calls, lambda: messages.ask("arm"))
    service.look(0.0)
    assert not calls.sent
    service.look(ros2.ANSWERED)
    ((header, response),) = calls.sent
    assert header == "first" and not response.success and response.message
    assert messages.requests[0].code == Code.NOT_ANSWERED


def test_any_number_of_calls_is_one_request_a_step_and_arming_never_holds_a_stop_up() -> None:
    messages = MessageFilter(ROBOT, lambda: 0)
    node = ros2.RosNode("asked", (), free_domain())
    try:
        transport = ros2.Ros2Transport(node, messages)
    finally:
        node.close()
    arm, stop = (Taken(*((None, k) for k in range(n))) for n in (100, 1))
    services = [ros2._Service(arm, lambda: transport._ask("arm")), ros2._Service(stop, lambda: transport._ask("stop"))]
    for service in services:
        service.look(0.0)
    assert [request.kind for request in messages.requests] == ["arm", "stop"]
    messages.requests.pop().answer(True, Code.OPERATOR, "stopping")
    for service in services:
        service.look(0.001)
    assert len(stop.sent) == 1 and stop.sent[0][1].success and not arm.sent and arm.store
    messages.requests.pop().answer(True, Code.ARMED, "armed")
    services[0].look(0.002)
    assert len(arm.sent) == ros2.CALLS
    services[0].look(0.003)
    assert len(messages.requests) == 1


def reader(topic: ros2.Topic, heard: Callable[[bytes, Any], Any], *contents: Any) -> tuple[Any, Refusals]:
    """A reader of a topic on which `contents` have come in, and what it refuses."""
    refusals = Refusals()
    return ros2._Reader(topic, Taken(*contents), heard, refusals, lambda: 0, topic.depth), refusals


def test_what_is_too_large_is_not_parsed_and_its_topic_is_left_alone_for_a_while() -> None:
    heard: list[bytes] = []
    small, huge = (b"a", {}), (bytes(ros2.SKILL.size + 1), {})
    skills, refusals = reader(ros2.SKILL, lambda content, info: heard.append(content), small, huge, small)
    for now in (0.0, 0.1, 0.2, 0.1 + ros2.PENALTY):
        skills.look(now)
    assert heard == [b"a", b"a"] and refusals.counts == {f"skill {Code.TOO_LARGE}": 1}


def test_of_a_flood_no_more_is_taken_than_the_topic_may_have_and_that_is_noted() -> None:
    heard: list[bytes] = []
    many = [(b"a", {"publication_sequence_number": 60 * k}) for k in range(2000)]
    poses, refusals = reader(ros2.ODOMETRY, lambda content, info: heard.append(content), *many)
    for k in range(int(2 / ros2.POLL)):
        poses.look(1.0 + k * ros2.POLL)
    assert 0 < len(heard) <= 2 * ros2.ODOMETRY.rate + 1
    assert 0 < refusals.counts[f"odom {Code.FLOOD}"] <= 2


@pytest.mark.parametrize("content", [b"", b"\0", b"\0\1\0\0" + b"\xff" * 64])
def test_bytes_that_are_no_message_are_refused(messages: MessageFilter, content: bytes) -> None:
    """Among them lengths that promise more than there is."""
    node = ros2.RosNode("torn", (), free_domain())
    try:
        node.subscribe(ros2.JOINT_STATES, lambda m: ros2.take_joints(messages, m), messages.refusals, messages.clock)
        joints = node._readers[0]
        joints._handle = Taken((content, {}), (content, {}))
        joints.look(1.0)
        joints.look(2.0)
    finally:
        node.close()
    key = f"joint_states {Code.MALFORMED}"
    assert messages.refusals.counts == {key: 2} and "\n" not in messages.refusals.last[key].sentence


def test_a_driver_that_was_started_anew_is_believed_and_one_that_comes_back_is_not() -> None:
    messages = MessageFilter(ROBOT, time.monotonic_ns)
    domain = free_domain()
    nodes = [ros2.RosNode(name, (), domain) for name in ("ears", "first", "second")]
    ears, first, second = nodes
    try:
        ears.subscribe(ros2.IMU, lambda m: ros2.take_imu(messages, m), messages.refusals, messages.clock)
        ears.spin()
        upright, counts = np.array([1.0, 0.0, 0.0, 0.0]), messages.refusals.counts

        def sent(node: ros2.RosNode) -> bool:
            node.publish(ros2.IMU, ros2.imu_message(upright, np.zeros(3), time.time_ns()))
            return True

        assert until(lambda: sent(first) and messages.snapshot().imu_time > 0)
        heard = messages.snapshot().imu_time
        assert until(lambda: sent(second) and counts[f"imu/data {Code.SENDER_CHANGED}"] == 1)
        assert until(lambda: sent(second) and messages.snapshot().imu_time > heard)
        assert until(lambda: sent(first) and counts[f"imu/data {Code.SECOND_SENDER}"] > 0)
    finally:
        for node in nodes:
            node.close()


def test_who_offers_a_topic_in_a_way_that_is_not_heard_is_said(messages: MessageFilter) -> None:
    domain = free_domain()
    node, other = ros2.RosNode("ears", (), domain), ros2.RosNode("mouth", (), domain)
    try:
        node.subscribe(ros2.SKILL, lambda m: ros2.take_skill(messages, m), messages.refusals, messages.clock)
        node.spin()
        other.node.create_publisher(String, "skill", 1)
        key = f"skill {Code.NOT_MET}"
        assert until(lambda: key in messages.refusals.last)
        assert messages.refusals.counts[key] == 1 and "\n" not in messages.refusals.last[key].sentence
    finally:
        node.close()
        other.close()


def test_what_a_callback_raises_is_a_refusal(messages: MessageFilter) -> None:
    def useless(_) -> None:
        raise InputError("no use")

    node = ros2.RosNode("ears", (), free_domain())
    try:
        node.subscribe(ros2.SKILL, useless, messages.refusals, messages.clock)
        node.spin()
        node.publish(ros2.SKILL, String(data="walk"))
        assert until(lambda: "skill malformed" in messages.refusals.last)
        assert messages.refusals.last["skill malformed"].source == ros2.SKILL.name
    finally:
        node.close()


def test_the_simulated_robot_in_its_own_process_is_heard_over_loopback_alone(tmp_path: Path) -> None:
    """Readings come at their rate, save where this computer held the simulation up and it says so; joints go where they
    are commanded; no socket is bound to anything but loopback, no group is joined."""
    domain, report, groups = free_domain(), tmp_path / "sim.json", _groups()
    line = command("sim", None, {"seed": 1, "report": str(report)})
    node = ros2.RosNode("listener", (), domain)
    messages = MessageFilter(ROBOT, time.monotonic_ns)
    transport = ros2.Ros2Transport(node, messages)
    stamps: list[int] = []
    node.subscribe(ros2.JOINT_STATES, lambda m: stamps.append(ros2.stamp_of(m)), messages.refusals, messages.clock)
    sim = subprocess.Popen(line, env=environment(domain, tmp_path))
    try:
        node.spin()
        assert until(lambda: messages.snapshot().pose_time > 0 and len(stamps) > 100, 120.0)
        assert messages.snapshot().pose[2] > 0.1
        targets = ROBOT.default_pose + 0.2
        command_joints = Output(Mode.POSITION, targets, 0)
        assert until(lambda: transport.write(command_joints) is None and _reached(messages, targets), 120.0)
        assert {address for address, _ in _bound(sim.pid)} == {"127.0.0.1"}
        assert _groups() <= groups
    finally:
        sim.terminate()
        node.close()
    assert sim.wait(60) == 0
    said = json.loads(report.read_text())
    assert said["commanded"] and not said["refusals"]
    apart, period = np.diff(np.unique(stamps)), 4_000_000
    assert len(apart) and apart.min() >= period
    assert (apart % period).sum() <= said["paused_s"] * NS


def _reached(messages: MessageFilter, targets: np.ndarray) -> bool:
    """Whether joints are nearer their targets than the standing pose is."""
    return bool(np.abs(messages.snapshot().position - targets).max() < 0.12)


def _bound(pid: int) -> set[tuple[str, int]]:
    """Local address and port of a process' UDP sockets."""
    folder = Path(f"/proc/{pid}/fd")
    sockets = {target[8:-1] for fd in folder.iterdir() if (target := os.readlink(fd)).startswith("socket:")}
    found = set()
    for line in Path("/proc/net/udp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[9] in sockets:
            address, port = columns[1].split(":")
            parts = [str(int(address[i : i + 2], 16)) for i in (6, 4, 2, 0)]
            found.add((".".join(parts), int(port, 16)))
    return found


def _groups() -> set[str]:
    """Multicast groups that this computer is in."""
    return {line.split()[0] for line in Path("/proc/net/igmp").read_text().splitlines()[1:] if line.startswith("\t")}
