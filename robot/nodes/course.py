"""A course run over ROS 2 without ROS's own launch: four processes, one result, and nothing left running.

Where poses have errors, or nothing tells the robot's place, a fifth says where it is: the localizer. The processes talk
over loopback alone, in a ROS domain of their own. Each is started in a process group of its own and ends with its
parent, even if that is killed. The run ends with the referee, or with the first process that dies:

- sim dies: the control loop's sensors go stale, it damps at once (emergency).
- onboard dies: the drives' own watchdog damps.
- localizer dies: the pose goes stale, the control loop stops softly.
- navigator dies: the command goes stale, the control loop stops softly: brakes, stands, damps, disarms.
- referee dies: the run cannot be scored; everything is stopped, the robot softly.
"""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from policies.bundle.shipped import folder as models
from policies.learning import runs
from policies.skills.library import load_skills
from robot.loop import parameters as files
from robot.loop.controller import Punctuality
from robot.loop.declarations import PARAMETERS, names
from robot.loop.localization import OLDEST
from robot.loop.recording import check_new
from robot.loop.referee import Referee
from robot.loop.timing import LOOK_EVERY
from robot.nodes.ending import write_report
from robot.nodes.processes import UNKNOWN, Processes, free_domain, read_report
from robot.nodes.programs import ros_arguments
from robot.nodes.referee import LOG, RESULT
from robot.options import CourseOptions
from robot.results import OnboardReport
from robot.transports.senders import check_free
from sim import children
from sim.course.files import by_name
from sim.errors import InputError
from sim.folders import alone
from sim.localization import OWN_ODOMETRY, PoseErrors, check_kinds

NODES = ("sim", "onboard", "navigator", "referee")
LOCALIZER = "localizer"
"""The fifth."""
SENT = ("/joint_states", "/odom", "/joint_commands", "/cmd_vel", "/score")
"""What the processes send, each topic one of them alone."""


def launch_folder() -> Path:
    """Where launch files, parameter files and the loopback profile lie: `launch/`, as in the package's share folder."""
    return models().parent / "launch"


def environment(domain: int, logs: Path) -> dict[str, str]:
    """This process' environment with the loopback profile and the domain, for a process of its own."""
    apart = ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "FASTRTPS_DEFAULT_PROFILES_FILE")
    kept = {name: value for name, value in children.environment(**children.APART).items() if name not in apart}
    return kept | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",  # the profile alone says who is looked for
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(launch_folder() / "fastdds_loopback.xml"),
        "ROS_LOG_DIR": str(logs),
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": "[{name}] {message}",
    }


def command(node: str, parameters: Path | None, given: Mapping[str, Any]) -> list[str]:
    """The command line of a node's process."""
    return [sys.executable, "-P", "-m", "robot.nodes", node, *ros_arguments(parameters, given)]


def run_course(options: CourseOptions, started: Callable[[Processes], None] | None = None) -> OnboardReport:
    """Runs a course once over its processes and returns what `barkour ros course` prints.

    Args:
      options: on top of the parameter file's, which is `launch/course.yaml` where none is given. Without `out` nothing
        is kept.
      started: called with the `Processes` when all are started (tests).

    Raises:
      InputError: a value, file or folder that cannot be.
    """
    file = Path(options.parameters or launch_folder() / "course.yaml")
    out, domain = options.out, options.domain
    with (
        tempfile.TemporaryDirectory(prefix="barkour-ros-") as temporary,
        contextlib.ExitStack() as ending,
        runs.stopping(),  # a `kill` ends all processes, as Ctrl-C does
    ):
        place = Path(out or temporary).absolute()
        ending.enter_context(alone(place))
        shared = {"policy": options.policy, "robot": options.robot, "course": options.course}
        given: dict[str, dict[str, Any]] = {
            "sim": {
                "course": options.course, "seed": options.seed, "randomize": options.randomize or None,
                "torque_limit": options.torque_limit, "report": str(place / "sim.json"),
                **PoseErrors.of(options).options(), "own_odometry": options.own_odometry or None,
            },
            "onboard": {
                **shared, "report": str(place / "onboard.json"), "record": options.record and str(options.record),
            },
            LOCALIZER: dict(shared),
            "navigator": dict(shared),
            "referee": {"course": options.course, "out": str(place)},
        }  # fmt: skip
        used = {node: files.load(PARAMETERS[node], file, node, elsewhere=names(), **given[node]) for node in NODES}
        errors, unseen = PoseErrors.of(used["sim"]), used["sim"].own_odometry
        _check(errors, unseen)
        given["navigator"]["torque_limit"] = used["navigator"].torque_limit or used["sim"].torque_limit or None
        nodes = NODES
        if errors or unseen:
            nodes = (*NODES, LOCALIZER)
            given["referee"]["true_pose"] = True
            given[LOCALIZER]["own_odometry"] = unseen or None
            files.load(PARAMETERS[LOCALIZER], file, LOCALIZER, elsewhere=names(), **given[LOCALIZER])
        where = by_name(used["referee"].course)
        robot = load_skills(used["onboard"].policy, used["onboard"].robot or None).robot.name
        for node in ("sim", "referee"):
            given[node]["robot"] = robot
        commands = {node: command(node, file, given[node]) for node in nodes}
        if domain is None:
            domain = free_domain()
        else:
            check_free(domain, SENT)
        check_new(used["onboard"].record)
        _prepare(place)  # what is refused loses nothing of an earlier run
        surroundings, stop = environment(domain, place / "log"), used["onboard"].soft_stop
        with Processes(commands, surroundings, stop) as processes:
            if started is not None:
                started(processes)
            died = _wait(processes)
        result = read_report(place / RESULT) or Referee(where).result() | {"log": None}
        if died:
            node, code = died
            result["end"] = f"the process {node} ended by itself (exit status {code})"
        onboard, sim = read_report(place / "onboard.json"), read_report(place / "sim.json")
        report = result | {
            "policy": used["onboard"].policy,
            "course": used["referee"].course,
            "seed": used["sim"].seed,
            "randomize": used["sim"].randomize,
            "navigator_pose": OWN_ODOMETRY if unseen else errors.words(),
            "log": str(place / LOG) if out is not None and result["log"] else None,
            "died": died[0] if died else None,
            "controller": onboard.get("controller", UNKNOWN),
            "loop": onboard.get("loop", Punctuality().summary()),
            "bundles": onboard.get("bundles", {}),
            "real_time": True,
            "recording": used["onboard"].record or None,
            "latency_ms": sim.get("latency_ms"),
            "drives": {key: value for key, value in sim.items() if key != "latency_ms"} or None,
        }
        if out is not None:
            write_report(place / RESULT, report)
        return OnboardReport.of(report)


def _check(errors: PoseErrors, unseen: bool) -> None:
    """Raises `InputError` for poses of which the localizer makes nothing."""
    check_kinds(errors, unseen)
    if errors.delay > OLDEST:
        raise InputError(f"--pose-delay {errors.delay:g}: the localizer takes no pose that is older than {OLDEST:g} s")


def _prepare(place: Path) -> None:
    """The folder, without what an earlier run left in it."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name in (RESULT, LOG, "sim.json", "onboard.json"):
            (place / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to the folder {place}: {error.strerror}") from error


def _wait(processes: Processes) -> tuple[str, int] | None:
    """Until the referee has ended. The process that died before, with its exit status, if one did."""
    died: tuple[str, int] | None = None
    until = float("inf")
    while time.monotonic() < until:
        ended = processes.ended()
        if ended.get("referee") == 0:
            break
        if died is None and ended:
            died = next(iter(ended.items()))
            print(f"barkour: the process {died[0]} ended with status {died[1]}", file=sys.stderr)
            until = time.monotonic() + processes.aftermath(died[0])
        time.sleep(LOOK_EVERY)
    return died
