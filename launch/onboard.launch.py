"""The control loop on a robot; localizer and navigator where they are asked for. Starts as a dry run, see onboard.yaml.

    ros2 launch barkour onboard.launch.py [dry_run:=false] [navigator:=true] [policy:=FILE.onnx] [enclave:=/barkour]
                                          [localizer:=true] [own_odometry:=true] [start:="1.0 2.0 0.5"]

Sensors, poses and drives are the robot's own driver's business. Discovery is ROS's own: set ROS_DOMAIN_ID, and SROS 2
where strangers share the network (docs/ros.md).
"""

import sys
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
GIVEN = {
    "onboard": ("policy", "robot", "course", "dry_run", "record"),
    "localizer": ("policy", "robot", "course", "own_odometry", "start"),
    "navigator": ("policy", "robot", "course", "torque_limit"),
}
"""Node -> launch arguments that are parameters of it."""


def processes(context, *_):
    """The processes, with the launch arguments that were given on top of the parameter file."""
    values = context.launch_configurations
    found = []
    for node in GIVEN:
        if node != "onboard" and values[node] != "true":
            continue
        command = [sys.executable, "-m", "robot.nodes", node, "--ros-args", "--params-file", values["parameters"]]
        if values["enclave"]:
            command += ["--enclave", f"{values['enclave']}/{node}"]
        for name in GIVEN[node]:
            if values.get(name):
                command += ["-p", f"{name}:={values[name]}"]
        found.append(ExecuteProcess(cmd=command, name=node, output="screen", sigterm_timeout="10"))
    return found


def generate_launch_description():
    """Called by `ros2 launch`."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("parameters", default_value=str(HERE / "onboard.yaml"), description="parameter file"),
            DeclareLaunchArgument("navigator", default_value="false", description="true: the navigator runs here, too"),
            DeclareLaunchArgument("localizer", default_value="false", description="true: it says where the robot is"),
            DeclareLaunchArgument("own_odometry", default_value="", description="true: nothing sees the robot"),
            DeclareLaunchArgument("start", default_value="", description="'X Y HEADING' where own odometry begins"),
            DeclareLaunchArgument("policy", default_value="", description="specialists, generalist or FILE.onnx"),
            DeclareLaunchArgument("robot", default_value="", description="a robot's name or folder"),
            DeclareLaunchArgument("course", default_value="", description="a course's name or FILE.yaml"),
            DeclareLaunchArgument(
                "torque_limit", default_value="", description="motors, N m, with a point; the plan's"
            ),
            DeclareLaunchArgument("dry_run", default_value="", description="true or false"),
            DeclareLaunchArgument("record", default_value="", description="file for a recording of the loop"),
            DeclareLaunchArgument("enclave", default_value="", description="SROS 2 enclave above the nodes' own"),
            OpaqueFunction(function=processes),
        ]
    )
