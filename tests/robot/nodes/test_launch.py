"""Launch files and parameter files: what `ros2 launch` would start, without ROS's launch packages."""

import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from robot.loop import parameters
from robot.loop.declarations import PARAMETERS, LocalizerParameters, OnboardParameters
from robot.nodes.course import launch_folder

ROOT = Path(__file__).resolve().parents[3]
LAUNCH = ROOT / "launch"


class Made:
    """Stands for every action of ROS's launch: remembers what it was made with."""

    def __init__(self, *args: Any, **named: Any) -> None:
        self.args, self.named = args, named


KINDS = ("DeclareLaunchArgument", "ExecuteProcess", "OpaqueFunction", "SetEnvironmentVariable", "Shutdown")


@pytest.fixture(autouse=True)
def stub() -> Iterator[None]:
    """ROS's launch packages as far as the launch files use them."""
    launch, actions = ModuleType("launch"), ModuleType("launch.actions")
    launch.LaunchDescription = type("LaunchDescription", (Made,), {})  # type: ignore[attr-defined]
    for kind in KINDS:
        setattr(actions, kind, type(kind, (Made,), {}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "launch", launch)
        patch.setitem(sys.modules, "launch.actions", actions)
        yield


def described(file: str, **given: str) -> tuple[list[Any], dict[str, str], dict[str, str]]:
    """The processes of a launch file with launch arguments; all arguments with their values; the environment."""
    spec = importlib.util.spec_from_file_location("launch_file", LAUNCH / file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (actions,) = module.generate_launch_description().args
    kinds = [type(action).__name__ for action in actions]
    assert kinds[-1] == "OpaqueFunction" and "OpaqueFunction" not in kinds[:-1]
    arguments = {a.args[0]: a.named["default_value"] for a in actions if type(a).__name__ == "DeclareLaunchArgument"}
    assert all(a.named["description"] for a in actions if type(a).__name__ == "DeclareLaunchArgument")
    assert set(given) <= set(arguments)
    environment = dict(a.args for a in actions if type(a).__name__ == "SetEnvironmentVariable")
    processes = actions[-1].named["function"](SimpleNamespace(launch_configurations=arguments | given))
    return processes, arguments, environment


def nodes(processes: list[Any]) -> list[str]:
    return [process.named["cmd"][3] for process in processes]


def test_the_course_starts_four_processes_and_ends_with_the_referee() -> None:
    processes, arguments, environment = described("course.launch.py", seed="3", course="reversed", out="there")
    assert nodes(processes) == ["sim", "onboard", "navigator", "referee"]
    assert arguments["parameters"] == str(LAUNCH / "course.yaml")
    commands = {process.named["cmd"][3]: process.named["cmd"] for process in processes}
    assert commands["sim"][:3] == [sys.executable, "-m", "robot.nodes"]
    assert "course:=reversed" in commands["onboard"] and "seed:=3" in commands["sim"]
    assert "seed:=3" not in commands["onboard"] and "out:=there" in commands["referee"]
    assert not any("policy" in word for command in commands.values() for word in command)
    (end,) = processes[3].named["on_exit"]
    assert type(end).__name__ == "Shutdown" and all("on_exit" not in process.named for process in processes[:3])
    assert Path(environment["FASTDDS_DEFAULT_PROFILES_FILE"]).is_file()


def test_where_poses_are_not_the_truth_the_localizer_runs_and_the_referee_has_the_truth() -> None:
    for given in ({"pose_noise": "0.02", "pose_delay": "0.06"}, {"own_odometry": "true"}):
        processes, _, _ = described("course.launch.py", **given)
        assert nodes(processes) == ["sim", "onboard", "navigator", "referee", "localizer"]
        commands = {process.named["cmd"][3]: process.named["cmd"] for process in processes}
        assert "true_pose:=true" in commands["referee"]
        assert ("own_odometry:=true" in commands["localizer"]) == ("own_odometry" in given)
        assert all(f"{name}:={value}" in commands["sim"] for name, value in given.items())
    commands = [process.named["cmd"] for process in described("course.launch.py", own_odometry="false")[0]]
    assert len(commands) == 4 and not any("true_pose:=true" in command for command in commands)


def test_a_robots_localizer_is_asked_for() -> None:
    given = {"localizer": "true", "own_odometry": "true", "start": "1.0 2.0 0.5"}
    processes, arguments, _ = described("onboard.launch.py", **given)
    assert nodes(processes) == ["onboard", "localizer"]
    assert "start:=1.0 2.0 0.5" in processes[1].named["cmd"] and "own_odometry:=true" in processes[1].named["cmd"]
    assert parameters.load(LocalizerParameters, Path(arguments["parameters"]), "localizer") == LocalizerParameters()


def test_older_ros_gets_the_profile_under_its_older_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROS_DISTRO", "jazzy")
    assert "FASTRTPS_DEFAULT_PROFILES_FILE" in described("course.launch.py")[2]


def test_a_robot_starts_dry_without_navigator() -> None:
    processes, arguments, environment = described("onboard.launch.py")
    assert nodes(processes) == ["onboard"] and not environment
    options = parameters.load(OnboardParameters, Path(arguments["parameters"]), "onboard")
    assert options.dry_run and not options.auto_arm
    processes, _, _ = described("onboard.launch.py", navigator="true", dry_run="false", enclave="/barkour")
    assert nodes(processes) == ["onboard", "navigator"]
    assert "dry_run:=false" in processes[0].named["cmd"] and "dry_run:=false" not in processes[1].named["cmd"]
    assert "/barkour/navigator" in processes[1].named["cmd"]


def test_launch_arguments_are_parameters_of_their_nodes() -> None:
    everything = {"policy": "p", "course": "c", "seed": "1", "randomize": "true", "torque_limit": "9.0", "out": "o"}
    for file, given in (
        ("course.launch.py", everything),
        ("onboard.launch.py", {"policy": "p", "course": "c", "dry_run": "true", "record": "r", "navigator": "true"}),
    ):
        for process in described(file, **given)[0]:
            known = {parameter.name for parameter in parameters.declared(PARAMETERS[process.named["cmd"][3]])}
            assert {word.split(":=")[0] for word in process.named["cmd"] if ":=" in word} <= known


@pytest.mark.parametrize("node", PARAMETERS)
def test_the_course_parameter_file_holds_for_every_node(node: str) -> None:
    parameters.load(PARAMETERS[node], LAUNCH / "course.yaml", node)


def test_the_onboard_parameter_file_names_every_limit_with_its_default() -> None:
    options = parameters.load(OnboardParameters, LAUNCH / "onboard.yaml", "onboard")
    assert options == OnboardParameters()
    text = (LAUNCH / "onboard.yaml").read_text()
    for parameter in parameters.declared(OnboardParameters):
        assert re.search(rf"^    {parameter.name}:", text, re.M) or parameter.name == "report"


def test_the_profile_knows_no_address_but_loopback() -> None:
    tree = ElementTree.parse(LAUNCH / "fastdds_loopback.xml")
    addresses = [e.text for e in tree.iter() if e.tag.endswith("address")]
    assert addresses == ["127.0.0.1", "127.0.0.1"]
    (builtin,) = [e.text for e in tree.iter() if e.tag.endswith("useBuiltinTransports")]
    assert builtin == "false"
    assert launch_folder() == LAUNCH


def test_the_package_declares_every_message_package_that_is_imported() -> None:
    named = {e.text for e in ElementTree.parse(ROOT / "package.xml").iter("exec_depend")}
    source = (ROOT / "robot" / "transports" / "ros2.py").read_text()
    imported = set(re.findall(r"^(?:from|import) (\w+_(?:msgs|srvs|interfaces)|rclpy)", source, re.M))
    assert len(imported) == 9 and imported <= named


def test_no_other_file_imports_ros() -> None:
    for file in (ROOT / "robot").rglob("*.py"):
        if file.name != "ros2.py":
            assert not re.search(r"^\s*(?:from|import) (?:rclpy|\w+_msgs|std_srvs)", file.read_text(), re.M), file


def test_the_folder_shadows_no_module() -> None:
    """A package here would stand before ROS's own `launch`."""
    assert not (LAUNCH / "__init__.py").exists()
