"""The programs of a robot on ROS 2, one process each: `python -m robot.nodes NODE [--ros-args ...]`.

`sim` is a simulated robot with its driver, `onboard` the control loop, `localizer` says where the robot is, `navigator`
where to go, `referee` scores.
Parameters come from ROS: a parameter file (`--params-file`) and single values (`-p NAME:=VALUE`).
"""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from robot.loop.controller import SWITCH_INTERVAL
from robot.nodes.ending import Ending
from robot.nodes.localizer import run_localizer
from robot.nodes.navigator import run_navigator
from robot.nodes.onboard import run_onboard
from robot.nodes.referee import run_referee
from robot.nodes.sim import run_sim
from robot.transports.ros2 import POLL, SELDOM, RosNode
from sim.errors import InputError, check_utf8
from sim.programs import fail, told

PROGRAMS: dict[str, Callable[[RosNode, Ending], dict[str, Any]]] = {
    "sim": run_sim,
    "onboard": run_onboard,
    "localizer": run_localizer,
    "navigator": run_navigator,
    "referee": run_referee,
}
PROMPT = ("sim", "onboard")
"""Those that drives and operators wait for; the others act 50 or 125 times a second."""


def ros_arguments(parameters: Path | None = None, given: Mapping[str, Any] | None = None) -> list[str]:
    """ROS's arguments for a parameter file and single values, which come on top; None is left out.

    Raises:
      InputError: one of them is not UTF-8.
    """
    arguments = ["--ros-args"]
    if parameters is not None:
        check_utf8(parameters, "the parameter file")
        arguments += ["--params-file", str(parameters)]
    for name, value in (given or {}).items():
        if value is not None:
            check_utf8(value, f"the parameter {name}")
            arguments += ["-p", f"{name}:={json.dumps(str(value) if isinstance(value, Path) else value)}"]
    return arguments


def run(name: str, arguments: Sequence[str] = (), domain: int | None = None) -> dict[str, Any]:
    """Runs one program until it has ended by itself or by SIGINT or SIGTERM; to be called in the main thread.

    `arguments` are ROS's own; `domain` takes the place of ROS_DOMAIN_ID. Returns what the program says at its end.

    Raises:
      InputError: an unknown program, or what it was given cannot be.
    """
    if name not in PROGRAMS:
        raise InputError(f"unknown node '{name}': known are {', '.join(PROGRAMS)}")
    sys.setswitchinterval(SWITCH_INTERVAL)
    with Ending().listening() as ending:
        node = RosNode(name, arguments, domain, POLL if name in PROMPT else SELDOM)
        try:
            return PROGRAMS[name](node, ending)
        finally:
            node.close()


def main(arguments: Sequence[str]) -> int:
    """Returns the exit status: 0 done; 2 bad input or 1 another fault, with one line on standard error."""
    try:
        run(arguments[0] if arguments else "", arguments[1:])
    except Exception as error:
        if os.environ.get("BARKOUR_DEBUG") and not isinstance(error, InputError):
            raise
        return fail(*told(error))
    return 0
