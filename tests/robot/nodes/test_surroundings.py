"""What the environment says to ROS is checked before ROS is loaded."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from robot.nodes.surroundings import check_surroundings
from sim.errors import InputError

ROOT = Path(__file__).parents[3]
WRONG = {
    "ROS_DOMAIN_ID": ("abc", "-1", "233", "99999999999", "1.5", " 7", "\u0663"),
    "ROS_AUTOMATIC_DISCOVERY_RANGE": ("everywhere", "localhost"),
    "ROS_LOCALHOST_ONLY": ("x",),
    "RCUTILS_COLORIZED_OUTPUT": ("5",),
    "FASTDDS_DEFAULT_PROFILES_FILE": ("/no/such/file.xml", "/"),
}


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("ROS_", "RMW_", "FASTDDS_", "FASTRTPS_", "RCUTILS_"))]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_what_ros_cannot_use_or_would_leave_out_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=name):
        check_surroundings()


def test_what_is_unset_empty_or_known_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    check_surroundings()
    for name in WRONG:
        monkeypatch.setenv(name, "")
    check_surroundings()
    known = {"ROS_DOMAIN_ID": "232", "ROS_AUTOMATIC_DISCOVERY_RANGE": "OFF", "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp"}
    for name, value in (known | {"FASTDDS_DEFAULT_PROFILES_FILE": str(ROOT / "launch/fastdds_loopback.xml")}).items():
        monkeypatch.setenv(name, value)
    check_surroundings()
    monkeypatch.setenv("ROS_DOMAIN_ID", "abc")
    check_surroundings(domain=False)


@pytest.mark.parametrize("command", [["-m", "robot.nodes", "referee"], ["-m", "barkour", "ros", "course"]])
def test_a_middleware_that_is_not_there_is_one_line_and_status_2(command: list[str]) -> None:
    ran = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ | {"RMW_IMPLEMENTATION": "rmw_nobody"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and not ran.stdout
