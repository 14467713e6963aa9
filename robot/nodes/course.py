"""A course run over ROS 2 without ROS's own launch: four processes, one result, and nothing left running.

The processes talk over loopback alone, in a ROS domain of their own. Each is started in a process group of its own and
ends with its parent, even if that is killed. The run ends with the referee, or with the first process that dies:

- sim dies: the control loop's sensors go stale, it damps at once (emergency).
- onboard dies: the drives' own watchdog damps.
- navigator dies: the command goes stale, the control loop stops softly: brakes, stands, damps, disarms.
- referee dies: the run cannot be scored; everything is stopped, the robot softly.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
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
from robot.loop.controller import Punctuality, Times
from robot.loop.declarations import PARAMETERS, names
from robot.loop.referee import Referee
from robot.loop.timing import DAMPED_WITHIN, ENDED_SPARE, ENDED_WITHIN, LOOK_EVERY, SOFT_STOP_SPARE
from robot.nodes.ending import write_report
from robot.nodes.programs import ros_arguments
from robot.nodes.referee import LOG, RESULT
from robot.options import CourseOptions
from robot.results import OnboardReport
from robot.transports.senders import check_free
from sim.course.files import by_name
from sim.errors import InputError
from sim.folders import alone
from sim.localization import PoseErrors

NODES = ("sim", "onboard", "navigator", "referee")
LARGEST_DOMAIN = 101
"""Domains up to here have ports below those that Linux gives to clients."""
SENT = ("/joint_states", "/joint_commands", "/cmd_vel", "/score")
"""A topic of each process, that it alone may send on."""
UNKNOWN: dict[str, Any] = {"state": "unknown", "reason": "its process left no report", "refusals": {}, "history": []}
"""What is said of a controller whose process was killed."""
NICE = -10
"""Niceness of the processes, where it may be lowered."""
REAL_TIME = ("sim", "onboard")
"""Processes that get the lowest real-time priority, where that is permitted: what they do does not wait for others."""
PR_SET_PDEATHSIG = 1


def launch_folder() -> Path:
    """Where launch files, parameter files and the loopback profile lie: `launch/`, as in the package's share folder."""
    return models().parent / "launch"


def environment(domain: int, logs: Path) -> dict[str, str]:
    """This process' environment with the loopback profile and the domain, for a process of its own."""
    apart = ("ROS_LOCALHOST_ONLY", "ROS_STATIC_PEERS", "ROS_DISCOVERY_SERVER", "FASTRTPS_DEFAULT_PROFILES_FILE")
    kept = {name: value for name, value in os.environ.items() if name not in apart}
    root = str(Path(__file__).resolve().parents[2])
    return kept | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",  # the profile alone says who is looked for
        "RMW_IMPLEMENTATION": "rmw_fastrtps_cpp",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(launch_folder() / "fastdds_loopback.xml"),
        "ROS_LOG_DIR": str(logs),
        "RCUTILS_CONSOLE_OUTPUT_FORMAT": "[{name}] {message}",
        "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def free_domain() -> int:
    """A ROS domain in which nobody on this computer is: its first discovery port can be had."""
    for domain in random.SystemRandom().sample(range(1, LARGEST_DOMAIN + 1), LARGEST_DOMAIN):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise InputError("no ROS domain is free on this computer")


def command(node: str, parameters: Path | None, given: Mapping[str, Any]) -> list[str]:
    """The command line of a node's process."""
    return [sys.executable, "-P", "-m", "robot.nodes", node, *ros_arguments(parameters, given)]


class Processes:
    """The running processes of a course run; leaving the `with` block ends every one of them."""

    def __init__(
        self, commands: Mapping[str, list[str]], environment: Mapping[str, str], soft_stop: float = Times().soft_stop
    ) -> None:
        """All that they write goes to standard error. `soft_stop` is how long the control loop takes over one, s."""
        self.soft_stop = soft_stop
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands, self._environment = commands, environment

    def __enter__(self) -> "Processes":
        try:
            for name, line in self._commands.items():
                self.running[name] = subprocess.Popen(
                    line,
                    env=dict(self._environment),
                    stdin=subprocess.DEVNULL,
                    stdout=2,
                    stderr=2,
                    process_group=0,
                    preexec_fn=_beginning(os.getpid(), name in REAL_TIME),
                )
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()

    def ended(self) -> dict[str, int]:
        """Process -> exit status, of those that have ended."""
        return {name: code for name, process in self.running.items() if (code := process.poll()) is not None}

    def aftermath(self, died: str) -> float:
        """Seconds for which the others go on after one died: so long it takes until the robot is in its safe state."""
        return {
            "navigator": self.soft_stop + SOFT_STOP_SPARE,
            "referee": 0.0,  # ending the others stops the robot softly
        }.get(died, DAMPED_WITHIN)

    def end(self) -> None:
        """Ends all: first the control loop, which stops the robot softly, then the rest; by force who does not obey.

        Ctrl-C meanwhile cuts the waiting short, not the ending.
        """
        try:
            self._tell(["onboard"], self.soft_stop + SOFT_STOP_SPARE + ENDED_SPARE)
            self._tell([name for name in self.running if name != "onboard"], ENDED_WITHIN)
        finally:
            for process in self.running.values():
                _signal(process, signal.SIGKILL)
            for process in self.running.values():
                process.wait()

    def _tell(self, names: list[str], patience: float) -> None:
        told = [self.running[name] for name in names if name in self.running]
        for process in told:
            _signal(process, signal.SIGTERM)
        until = time.monotonic() + patience
        while any(process.poll() is None for process in told) and time.monotonic() < until:
            time.sleep(LOOK_EVERY)


def _signal(process: subprocess.Popen[bytes], kind: signal.Signals) -> None:
    if process.poll() is None:
        os.killpg(process.pid, kind)


def _beginning(parent: int, real_time: bool) -> Callable[[], None]:
    """What a child does before it becomes its program: it asks to be ended when its parent is gone, and to be let
    before other work on this computer, where that is permitted."""
    library = ctypes.CDLL(None)

    def begin() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            os.nice(NICE)
        if real_time:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))

    return begin


def run_course(options: CourseOptions, started: Callable[[Processes], None] | None = None) -> OnboardReport:
    """Runs a course once over four processes and returns what `barkour ros course` prints.

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
        _prepare(place)
        shared = {"policy": options.policy, "robot": options.robot, "course": options.course}
        recording = None if options.record is None else str(options.record)
        given: dict[str, dict[str, Any]] = {
            "sim": {
                "course": options.course, "seed": options.seed, "randomize": options.randomize or None,
                "torque_limit": options.torque_limit, "report": str(place / "sim.json"),
                **PoseErrors.of(options).options(), "own_odometry": options.own_odometry or None,
            },
            "onboard": shared | {"report": str(place / "onboard.json"), "record": recording},
            "navigator": shared,
            "referee": {"course": options.course, "out": str(place)},
        }  # fmt: skip
        used = {node: files.load(PARAMETERS[node], file, node, elsewhere=names(), **given[node]) for node in NODES}
        errors = PoseErrors.of(used["sim"])
        given["referee"]["true_pose"] = True if errors or used["sim"].own_odometry else None
        where = by_name(used["referee"].course)
        robot = load_skills(used["onboard"].policy, used["onboard"].robot or None).robot.name
        for node in ("sim", "referee"):
            given[node]["robot"] = robot
        commands = {node: command(node, file, given[node]) for node in NODES}
        if domain is None:
            domain = free_domain()
        else:
            check_free(domain, SENT)
        surroundings, stop = environment(domain, place / "log"), used["onboard"].soft_stop
        with Processes(commands, surroundings, stop) as processes:
            if started is not None:
                started(processes)
            died = _wait(processes)
        result = _read(place / RESULT) or Referee(where).result() | {"log": None}
        if died:
            node, code = died
            result["end"] = f"the process {node} ended by itself (exit status {code})"
        onboard, sim = _read(place / "onboard.json"), _read(place / "sim.json")
        report = result | {
            "policy": used["onboard"].policy,
            "course": used["referee"].course,
            "seed": used["sim"].seed,
            "randomize": used["sim"].randomize,
            "navigator_pose": "own odometry" if used["sim"].own_odometry else errors.words(),
            "log": str(place / LOG) if out is not None and result["log"] else None,
            "died": died[0] if died else None,
            "controller": onboard.get("controller", UNKNOWN),
            "loop": onboard.get("loop", Punctuality().summary()),
            "bundles": onboard.get("bundles", {}),
            "real_time": True,
            "recording": recording,
            "latency_ms": sim.get("latency_ms"),
            "drives": {key: value for key, value in sim.items() if key != "latency_ms"} or None,
        }
        if out is not None:
            write_report(place / RESULT, report)
        return OnboardReport.of(report)


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


def _read(file: Path) -> dict[str, Any]:
    """A report, or nothing where its process did not live to write it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
