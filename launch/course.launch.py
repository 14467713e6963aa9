"""A course in simulation: the robot with its driver, control loop, navigator and referee, over loopback alone.

    ros2 launch barkour course.launch.py [course:=reversed] [policy:=specialists] [robot:=NAME] [seed:=3] [out:=DIR]

With poses that have errors (pose_noise:=0.02 pose_delay:=0.06) or own_odometry:=true the localizer runs as well. The
launch ends with the referee, that is with the run.
"""

import os
import sys
from pathlib import Path

from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable, Shutdown

from launch import LaunchDescription

HERE = Path(__file__).resolve().parent
ERRORS = ("pose_noise", "pose_yaw_noise", "pose_delay", "pose_rate", "pose_drift", "pose_dropouts", "own_odometry")
"""Launch arguments with which poses are not the truth."""
GIVEN = {
    "sim": ("robot", "course", "seed", "randomize", "torque_limit", *ERRORS),
    "onboard": ("policy", "robot", "course"),
    "navigator": ("policy", "robot", "course", "torque_limit"),
    "referee": ("robot", "course", "out"),
    "localizer": ("policy", "robot", "course", "own_odometry"),
}
"""Node -> launch arguments that are parameters of it."""
OLD = ("humble", "iron", "jazzy")
"""ROS distributions with Fast DDS 2, which knows the profile's file under another name."""


def processes(context, *_):
    """The four or five processes, with the launch arguments that were given on top of the parameter file."""
    values = context.launch_configurations
    wrong = any(values.get(name) not in ("", None, "false") for name in ERRORS)
    found = []
    for node, names in GIVEN.items():
        if node == "localizer" and not wrong:
            continue
        command = [sys.executable, "-m", "robot.nodes", node, "--ros-args", "--params-file", values["parameters"]]
        for name in names:
            if values.get(name):
                command += ["-p", f"{name}:={values[name]}"]
        if node == "referee" and wrong:
            command += ["-p", "true_pose:=true"]
        ending = {"on_exit": [Shutdown(reason="the run has ended")]} if node == "referee" else {}
        patience = {"sigterm_timeout": "10"} if node == "onboard" else {}  # it stops the robot softly first
        found.append(ExecuteProcess(cmd=command, name=node, output="screen", **ending, **patience))
    return found


def generate_launch_description():
    """Called by `ros2 launch`."""
    profile = "FASTRTPS" if os.environ.get("ROS_DISTRO") in OLD else "FASTDDS"
    return LaunchDescription(
        [
            DeclareLaunchArgument("parameters", default_value=str(HERE / "course.yaml"), description="parameter file"),
            DeclareLaunchArgument("policy", default_value="", description="specialists, generalist or FILE.onnx"),
            DeclareLaunchArgument("robot", default_value="", description="a robot's name or folder"),
            DeclareLaunchArgument("course", default_value="", description="a course's name or FILE.yaml"),
            DeclareLaunchArgument("seed", default_value="", description="seed of the simulation"),
            DeclareLaunchArgument("randomize", default_value="", description="true: draw the physics"),
            DeclareLaunchArgument("torque_limit", default_value="", description="peak joint torque, N m, with a point"),
            *(
                DeclareLaunchArgument(name, default_value="", description="as for barkour ros course, with a point")
                for name in ERRORS
            ),
            DeclareLaunchArgument("out", default_value="", description="folder for RESULT.json and pose.csv"),
            SetEnvironmentVariable(f"{profile}_DEFAULT_PROFILES_FILE", str(HERE / "fastdds_loopback.xml")),
            SetEnvironmentVariable("ROS_AUTOMATIC_DISCOVERY_RANGE", "SYSTEM_DEFAULT"),
            OpaqueFunction(function=processes),
        ]
    )
