"""The front door: `barkour COMMAND ...`, one subcommand per stage, nothing else in it.

Exit status: 0 done as asked; 1 ran but failed its own check; 2 bad usage or bad input, with one line on standard error.
"""

import contextlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg, subcommand

from distill.locomotion.options import Options, is_run
from sim.errors import InputError

Json = Annotated[bool, arg(help="print one JSON object on standard output and nothing else there")]


@dataclass(frozen=True)
class Run:
    """Run a policy over the course in simulation and score it."""

    policy: str = "generalist"
    """specialists, generalist or a bundle FILE.onnx"""
    course: str = "official"
    """official, another shipped course (rearranged, reversed), generated:SEED, or FILE.yaml"""
    seed: int = 0
    randomize: bool = False
    """draw physics, latency, noise and start pose from the ranges of sim/tasks/randomization.py"""
    record: Path | None = None
    """folder for the pose log, the path's picture, the summary and (where off-screen GL exists) a video"""
    watch: bool = False
    """show the run live in a browser (needs the viz extra)"""
    torque_limit: float | None = None
    """peak joint torque, N m, in place of the robot's (18; the paper's robot: 12)"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from policies.evaluation.course_run import run

        options = vars(self).copy()
        options.pop("json")
        return run(**options)


@dataclass(frozen=True)
class Score:
    """Score a pose log (CSV of time s, x m, y m) as the official scorer does."""

    log: Positional[Path]
    touched_jump: bool = False
    """the robot touched the broad jump's board"""
    course: str = "official"
    """as for run"""
    whole_seconds: bool = False
    """count only whole seconds over the allotted time, as the paper's text does"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from sim.course.files import by_name
        from sim.course.score import score_file

        course = by_name(self.course)
        result = score_file(self.log, course, touched_jump=self.touched_jump, whole_seconds=self.whole_seconds)
        return {**result.to_dict(), "log": str(self.log), "course": course.name}


@dataclass(frozen=True)
class Evaluate:
    """Run a policy many times in parallel worlds and report the distribution."""

    policy: str = "generalist"
    course: str = "official"
    """as for run; generated:0-19 spreads the runs over twenty random courses"""
    runs: int = 50
    randomize: bool = False
    seed: int = 0
    report: Path | None = None
    """folder for report.json, report.md, plots and the table of failures"""
    torque_limit: float | None = None
    """peak joint torque, N m, in place of the robot's (18; the paper's robot: 12)"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from policies.evaluation.evaluate import evaluate

        options = vars(self).copy()
        options.pop("json")
        return evaluate(**options)


@dataclass(frozen=True)
class Train:
    """Train a specialist with PPO."""

    skill: Positional[Literal["walk", "climb", "jump"]]
    backend: Literal["cpu", "mjx"] = "cpu"
    steps: int | None = None
    """environment steps in all, over every world; without it 20, 12 or 16 million for walk, climb or jump"""
    seed: int = 0
    out: Path | None = None
    """folder of the run; runs/SKILL without it"""
    resume: bool = False
    """continue the run in --out from its newest checkpoint"""
    worlds: int = 540
    threads: int = 0
    """physics threads; 0 takes every core"""
    start_from: Path | None = None
    """checkpoint, run or models/SKILL folder whose parameters to begin with"""
    checkpoint_minutes: float = 2.0
    """minutes between checkpoints: the most that an interruption can lose"""
    coordinator: str = ""
    """name:port of host 0 when several hosts train together"""
    hosts: int = 1
    """how many hosts train together; --worlds is the number over all of them"""
    host: int = 0
    """this host's number, from 0"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from policies.learning.train import TrainOptions, train

        options = vars(self).copy()
        options.pop("json")
        options["out"] = self.out or Path("runs") / self.skill
        return train(TrainOptions(**options))


@dataclass(frozen=True, kw_only=True)
class Distill(Options):
    """Distil several policies into one: locomotion makes the Locomotion-Transformer from the three specialists."""

    what: Positional[Literal["locomotion"]]
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from distill.locomotion.recipe import distil

        options = vars(self).copy()
        del options["json"], options["what"]
        return distil(Options(**options))


@dataclass(frozen=True)
class Recipe:
    """Published distillation methods as experiments with a verdict: list, show NAME, run NAME, sweep [NAME ...]."""

    what: Positional[Literal["list", "show", "run", "sweep"]]
    names: Positional[tuple[str, ...]] = ()
    seed: int = 0
    """first seed"""
    seeds: int = 0
    """how many seeds; 0: as many as the recipe's verdict asks for"""
    out: Path = Path("runs/recipes")
    """folder of results, one below it for each recipe; finished arms there are kept"""
    data: Path | None = None
    """folder of real text in place of what is generated"""
    preset: str = "small"
    """sizes of models and data"""
    domain: str = ""
    """another field for recipes that have one, such as the robot's"""
    budget: float = 1.0
    """share of the recipe's steps; less than 1 tries the code and proves nothing"""
    workers: int = 0
    """processes; 0: one a core"""
    plan: bool = False
    """show configs, shapes and sharding at real scale in place of a run"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from distill.methods.command import recipe

        options = vars(self).copy()
        del options["json"]
        options["only_plan"] = options.pop("plan")
        return recipe(**options)


@dataclass(frozen=True)
class Export:
    """Write a checkpoint's policy as one ONNX bundle."""

    checkpoint: Positional[Path]
    file: Positional[Path]
    force: bool = False
    """replace an existing file"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        if is_run(self.checkpoint):
            from distill.locomotion.recipe import export_run

            return export_run(self.checkpoint, self.file, force=self.force)
        from policies.learning.export import export

        return export(self.checkpoint, self.file, force=self.force)


@dataclass(frozen=True)
class Inspect:
    """Check a bundle and show what it says about itself."""

    file: Positional[Path]
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        from policies.bundle.reader import Bundle

        return Bundle.load(self.file).describe()


@dataclass(frozen=True)
class Onboard:
    """Run the 50 Hz control loop with its safety chain: on a robot over ROS 2, or against simulated hardware."""

    bundle: str = "generalist"
    """generalist, specialists or a bundle FILE.onnx"""
    transport: Literal["sim", "ros2"] = "sim"
    """sim: simulated hardware, navigator and referee in this process; ros2: a robot, or `barkour ros sim`"""
    course: str = "official"
    """as for run; the map from which terrain is seen"""
    seed: int = 0
    """of the simulated robot"""
    randomize: bool = False
    """as for run; simulated robot only"""
    torque_limit: float | None = None
    """as for run; simulated robot only"""
    parameters: Path | None = None
    """parameter file, as launch/onboard.yaml"""
    record: Path | None = None
    """file for a recording of the loop's inputs and outputs"""
    replay: Path | None = None
    """feed a recording through the loop, compare what comes out, and do nothing else"""
    dry_run: bool = False
    """compute everything, send nothing"""
    real_time: bool = False
    """simulated robot on the computer's clock, as on a robot; without it as fast as can be"""
    lying: bool = False
    """the simulated robot begins flat on the ground"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        if self.replay is not None:
            from robot.loop.replay import replay

            return replay(self.replay, None if self.bundle == "generalist" else self.bundle)
        if self.transport == "ros2":
            from robot.nodes.programs import run_given

            return run_given(
                "onboard", self.parameters, policy=self.bundle, course=self.course, record=self.record,
                dry_run=self.dry_run,
            )  # fmt: skip
        from robot.transports.simulation import onboard_in_simulation

        return onboard_in_simulation(
            self.bundle, self.course, self.seed, self.randomize, self.torque_limit, self.record, self.parameters,
            self.dry_run, self.real_time, self.lying,
        )  # fmt: skip


@dataclass(frozen=True)
class Ros:
    """Programs of a robot on ROS 2: course runs all of them in processes of their own and prints the result; sim is a
    simulated robot with its driver, navigator says where to go, referee keeps time and scores. The loop is onboard."""

    program: Positional[Literal["course", "sim", "navigator", "referee"]]
    policy: str | None = None
    """specialists, generalist or a bundle FILE.onnx (course, navigator); the parameter file's without it"""
    course: str | None = None
    """as for run; the parameter file's without it"""
    seed: int | None = None
    """of the simulated robot (course, sim)"""
    randomize: bool = False
    """as for run (course, sim)"""
    torque_limit: float | None = None
    """as for run (course, sim)"""
    parameters: Path | None = None
    """parameter file, as launch/course.yaml"""
    out: Path | None = None
    """folder for the result, the pose log and the reports (course, referee)"""
    record: Path | None = None
    """file for a recording of the control loop (course)"""
    domain: int | None = None
    """ROS domain; without it ROS_DOMAIN_ID, for course a free one"""
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        if self.program == "course":
            from robot.nodes.course import run_course

            options = vars(self).copy()
            del options["program"], options["json"]
            return run_course(**options)
        from robot.nodes.programs import run_given

        simulated = {"seed": self.seed, "randomize": self.randomize, "torque_limit": self.torque_limit}
        own = {"sim": simulated, "navigator": {"policy": self.policy}, "referee": {"out": self.out}}[self.program]
        return run_given(self.program, self.parameters, self.domain, course=self.course, **own)


@dataclass(frozen=True)
class Bench:
    """Measure: `physics` compares the engines' environment steps per second in one run; `onboard` times the control
    loop for a minute and tries every fault on it; `distill` trains a language model here, by hand and with TRL."""

    what: Positional[Literal["physics", "onboard", "distill"]]
    json: Json = False

    def __call__(self) -> dict[str, Any]:
        if self.what == "onboard":
            from robot.bench.onboard import run as run_onboard

            return run_onboard()
        if self.what == "distill":
            from distill.language.throughput import run as run_distillation

            return run_distillation(say=lambda text: print(text, file=sys.stderr))
        from policies.learning.throughput import run

        return run()


COMMANDS = {"run": Run, "score": Score, "evaluate": Evaluate, "train": Train, "export": Export, "inspect": Inspect}
COMMANDS |= {"distill": Distill, "recipe": Recipe, "onboard": Onboard, "ros": Ros, "bench": Bench}
EXTRAS = {"jax": "train", "brax": "train", "flax": "train", "optax": "train", "onnx": "train", "safetensors": "train"}
EXTRAS |= {"tensorboardX": "train", "gymnasium": "train", "viser": "viz", "imageio": "viz", "mediapy": "viz"}
EXTRAS |= {
    "torch": "distill",
    "accelerate": "distill",
    "rclpy": "ros",
    "transformers": "lm",
    "tokenizers": "lm",
    "openai": "lm",
}
EXTRAS |= {f"{name}_msgs": "ros" for name in ("sensor", "nav", "geometry", "trajectory", "diagnostic", "std")}
EXPORT_TOLERANCE = 1e-5
"""Largest difference of actions between an exported network and the trained one."""


def parse(arguments: list[str]) -> Callable[[], dict[str, Any]]:
    """The chosen command with its options; bad usage raises `InputError` in one line."""
    kinds = [Annotated[kind, subcommand(name)] for name, kind in COMMANDS.items()]
    choice: Any = kinds[0]
    for kind in kinds[1:]:
        choice = choice | kind
    said = io.StringIO()
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff)
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(choice, args=arguments, prog="barkour", config=config)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(_one_line(said.getvalue())) from None


def _one_line(text: str) -> str:
    """The message of tyro's error box: a title, then the message and advice with rules between them.

    A terminal without box characters gets the title as a part of its own; otherwise it stands in the frame.
    """
    parts: list[list[str]] = [[]]
    for line in text.splitlines():
        content = line.strip("│ ")
        if content[:1] in ("╭", "╰", "─") or set(content) == {"-"}:
            parts.append([])
        elif content:
            parts[-1].append(content)
    texts = [" ".join(part) for part in parts if part]
    if "╭" not in text:
        texts = texts[1:]
    message = texts[0] if texts else "the arguments cannot be understood"
    meant = re.search(r"[Pp]erhaps you meant.*?(--[\w-]+)", " ".join(texts))
    return f"{message.rstrip('. ')}{f'; perhaps {meant[1]} is meant' if meant else ''} (see barkour --help)"


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        with contextlib.redirect_stdout(sys.stderr):
            result = command()
        _print(type(command).__name__.lower(), result, as_json=getattr(command, "json", False))
        return _status(result)
    except InputError as error:
        return _fail(str(error))
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            return _unexpected(error)
        return _fail(f"this needs the package {error.name}: pip install 'barkour[{extra}]'")
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:  # the reader of standard output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
    except Exception as error:
        return _unexpected(error)


def _print(command: str, result: dict[str, Any], as_json: bool) -> None:
    """The result on standard output: one JSON object, or tables for people."""
    if as_json:
        print(json.dumps(_plain(result), allow_nan=False))
    elif command == "recipe":
        from rich.console import Console

        from distill.methods.tables import show as show_recipe

        show_recipe(Console(), result)
    else:
        from policies.evaluation.tables import show

        show(command, result)
    sys.stdout.flush()


def _plain(value: Any) -> Any:
    """JSON's own types: numbers that are not finite become null, paths become text, arrays become lists."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):  # numpy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def _status(result: dict[str, Any]) -> int:
    """What the exit status says of a command that ran: 0 done, 1 failed its own check, 130 stopped by Ctrl-C."""
    if result.get("interrupted"):
        return _fail("interrupted and saved; --resume continues", 130)
    if result.get("parity", 0.0) > EXPORT_TOLERANCE:
        return _fail(f"the exported network differs from the trained one by {result['parity']:.3g}", 1)
    if result.get("equal") is False:
        return _fail(f"the recording is not reproduced: {result['first_difference']}", 1)
    if result.get("faults_safe") != result.get("faults_tried"):
        unsafe = [fault["name"] for fault in result["faults"] if not fault["safe"]]
        return _fail(f"{len(unsafe)} faults did not end safe: {', '.join(unsafe)}", 1)
    if result.get("died"):
        return _fail(f"the process {result['died']} ended before the run did: {result['end']}", 1)
    if result.get("controller", {}).get("state") == "emergency":
        return _fail(f"the controller ended in emergency: {result['controller']['reason']}", 1)
    return 0


def _unexpected(error: Exception) -> int:
    """A fault of ours: one line, or the traceback where BARKOUR_DEBUG is set."""
    if os.environ.get("BARKOUR_DEBUG"):
        raise error
    return _fail(f"unexpected {type(error).__name__}: {error} (BARKOUR_DEBUG=1 shows where)", 1)


def _fail(sentence: str, status: int = 2) -> int:
    """One line on standard error."""
    print("barkour: " + " ".join(sentence.split()), file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
