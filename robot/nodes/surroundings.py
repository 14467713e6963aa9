"""What the environment says to ROS, checked before ROS is loaded: it would end the process, or go on without a word."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from robot.options import LAST_DOMAIN
from sim.errors import InputError


class _Allowed(NamedTuple):
    """What a variable may be."""

    form: str
    """A regular expression of the whole value."""
    words: str


_SWITCH = _Allowed("[01]", "0 or 1")
ALLOWED = {
    "ROS_AUTOMATIC_DISCOVERY_RANGE": _Allowed(
        "SUBNET|LOCALHOST|OFF|SYSTEM_DEFAULT", "SUBNET, LOCALHOST, OFF or SYSTEM_DEFAULT"
    ),
    "ROS_LOCALHOST_ONLY": _SWITCH,
    "RCUTILS_COLORIZED_OUTPUT": _SWITCH,
    "RCUTILS_LOGGING_BUFFERED_STREAM": _SWITCH,
    "RCUTILS_LOGGING_USE_STDOUT": _SWITCH,
}
FILES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""Files without which the middleware would use the whole network."""
TESTED = "rmw_fastrtps_cpp"
"""The middleware that the extra `ros` brings."""


def check_surroundings(domain: bool = True) -> None:
    """Checks the variables that ROS reads, the ROS domain among them if `domain`. Empty ones count as unset.

    Raises:
      InputError: a value that ROS cannot use, or that it would leave out without a word.
    """
    given = {name: value for name, value in os.environ.items() if value}
    number = given.get("ROS_DOMAIN_ID", "0")
    if domain and not (re.fullmatch("[0-9]{1,3}", number) and int(number) <= LAST_DOMAIN):
        raise InputError(f"ROS_DOMAIN_ID must be a whole number from 0 to {LAST_DOMAIN}, got {number[:40]!r}")
    for name, allowed in ALLOWED.items():
        if name in given and not re.fullmatch(allowed.form, given[name]):
            raise InputError(f"{name} must be {allowed.words}, got {given[name][:40]!r}")
    for name in FILES:
        if name in given and not Path(given[name]).is_file():
            raise InputError(f"{name} names {given[name][:200]!r}, where there is no file")
    middleware = given.get("RMW_IMPLEMENTATION", TESTED)
    if middleware != TESTED and subprocess.run([sys.executable, "-c", "import rclpy"], capture_output=True).returncode:
        raise InputError(f"RMW_IMPLEMENTATION names {middleware[:80]!r}, which ROS on this computer does not have")
