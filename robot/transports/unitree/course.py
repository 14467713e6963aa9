"""`barkour unitree course`: the course once over Unitree's messages, the robot and the loop in processes of their own.

The processes talk over loopback in a DDS domain of their own. The loop's is what runs on a robot, `barkour onboard
--transport unitree`, with parameters as in `launch/unitree_loopback.yaml`: its own navigator drives it over the course
by the pose that the robot sends. The run ends when the robot's referee says so; the loop is then asked to stop softly,
or, if a process dies before, when the other has had the time to come to its safe state.
"""

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from policies.bundle.shipped import folder as models
from policies.learning import runs
from policies.skills.library import load_skills
from robot.loop.controller import Punctuality
from robot.loop.declarations import OnboardParameters
from robot.loop.recording import check_new
from robot.loop.referee import Referee
from robot.loop.timing import LOOK_EVERY, SOFT_STOP_SPARE
from robot.nodes.ending import write_report
from robot.nodes.processes import UNKNOWN, Processes, free_domain, read_report
from robot.options import UnitreeCourseOptions
from robot.results import OnboardReport
from sim import strict_yaml
from sim.children import APART, environment
from sim.course.files import by_name
from sim.errors import InputError
from sim.folders import alone

RESULT = "result.json"
LONGEST = 180.0
"""s after which a run is over, however far it is: the course's own limit is 50 s, and starting takes some."""


def parameters(options: UnitreeCourseOptions, domain: int, place: Path) -> dict[str, Any]:
    """The loop's parameter file (`launch/unitree_loopback.yaml`) with what this run has of its own."""
    found: dict[str, Any] = strict_yaml.read(models().parent / "launch" / "unitree_loopback.yaml")
    found["onboard"]["ros__parameters"] |= {
        "robot": options.robot,
        "policy": options.policy,
        "course": options.course,
        "report": str(place / "onboard.json"),
    }
    found["unitree"]["ros__parameters"] |= {"domain": domain, "torque_limit": float(options.torque_limit or 0.0)}
    return found


def commands(options: UnitreeCourseOptions, domain: int, place: Path) -> dict[str, list[str]]:
    """The command lines of both processes. Writes the loop's parameter file."""
    file = place / "parameters.yaml"
    file.write_text(json.dumps(parameters(options, domain, place), indent=1), encoding="utf-8")  # JSON is YAML
    front = [sys.executable, "-P", "-m", "barkour"]
    robot = ["unitree", "sim", "--robot", options.robot, "--course", options.course, "--seed", str(options.seed)]
    robot += ["--domain", str(domain), "--score", "--out", str(place / "sim.json")]
    robot += ["--randomize"] if options.randomize else []
    robot += ["--torque-limit", str(options.torque_limit)] if options.torque_limit else []
    loop = ["onboard", "--transport", "unitree", "--parameters", str(file)]
    loop += ["--record", str(options.record)] if options.record else []
    return {"sim": [*front, *robot], "onboard": [*front, *loop]}


def unitree_course(options: UnitreeCourseOptions) -> OnboardReport:
    """Runs the course once over two processes and returns what `barkour unitree course` prints.

    Raises:
      InputError: a policy, robot, course, domain or folder that cannot be.
    """
    by_name(options.course)
    load_skills(options.policy, options.robot)
    domain = free_domain() if options.domain is None else options.domain
    with (
        tempfile.TemporaryDirectory(prefix="barkour-unitree-") as temporary,
        contextlib.ExitStack() as ending,
        runs.stopping(),  # a `kill` ends both processes, as Ctrl-C does
    ):
        place = Path(options.out or temporary).absolute()
        ending.enter_context(alone(place))
        check_new(options.record)
        try:
            place.mkdir(parents=True, exist_ok=True)
            for name in (RESULT, "sim.json", "onboard.json"):
                (place / name).unlink(missing_ok=True)
            lines = commands(options, domain, place)
        except OSError as error:
            raise InputError(f"cannot write to the folder {place}: {error.strerror}") from error
        with Processes(lines, environment(**APART), OnboardParameters().soft_stop) as processes:
            died = _wait(processes, place / "sim.json")
        sim, loop = read_report(place / "sim.json"), read_report(place / "onboard.json")
        result = sim.get("run") or Referee(by_name(options.course)).result()
        if died:
            result["end"] = f"the process {died[0]} ended by itself (exit status {died[1]})"
        report = result | {
            "policy": options.policy, "course": options.course, "seed": options.seed, "randomize": options.randomize,
            "died": died[0] if died else None, "log": None, "real_time": True,
            "controller": loop.get("controller", UNKNOWN), "loop": loop.get("loop", Punctuality().summary()),
            "bundles": loop.get("bundles", {}), "latency_ms": loop.get("latency_ms"),
            "recording": str(options.record) if options.record else None,
            "drives": {name: value for name, value in sim.items() if name != "run"} or None,
        }  # fmt: skip
        if options.out is not None:
            write_report(place / RESULT, report)
        return OnboardReport.of(report)


def _wait(processes: Processes, over: Path) -> tuple[str, int] | None:
    """Until the robot has written its referee's result to `over`, or one has died and the other had time to be safe."""
    until = time.monotonic() + LONGEST
    while time.monotonic() < until and not over.exists():
        ended = processes.ended()
        if ended:
            name, code = next(iter(ended.items()))
            print(f"barkour: the process {name} ended with status {code}", file=sys.stderr)
            time.sleep(processes.aftermath(name) + SOFT_STOP_SPARE)
            return name, code
        time.sleep(LOOK_EVERY)
    return None
