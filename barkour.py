"""The front door: `barkour COMMAND ...`, one subcommand per stage, nothing else in it.

Exit status: 0 done as asked; 1 ran but failed its own check; 2 bad usage or bad input, with one line on standard error.
"""

# ruff: noqa: E402, I001 (what ends this process is known first; ours are imported after it is certain that they are)

import atexit
import os
import signal
import sys
import threading

CALLED = __name__ == "__main__" or os.path.basename(sys.argv[0]) == "barkour"
PROGRAM = CALLED and "multiprocessing.spawn" not in sys.modules
"""Whether this process is the command line, not one that imports it or a child of it."""


def _leave(number: int, frame: object) -> None:
    """Ends the process at once: it is asked to while nothing is at work that could be lost."""
    try:
        os.write(2, b"barkour: interrupted\n")
    finally:
        os._exit(130)


def _listen(handler: object) -> None:
    """What is done where the process is asked to end; under `nohup` it is not asked by its terminal."""
    for kind in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if kind != signal.SIGHUP or signal.getsignal(kind) != signal.SIG_IGN:
            signal.signal(kind, handler)  # type: ignore[arg-type]


if PROGRAM and threading.current_thread() is threading.main_thread():
    _listen(_leave)
    atexit.register(_listen, signal.SIG_IGN)  # the last of all: Python's end would make each a kill without a status

import contextlib
import io
import json
import re
import shutil
import textwrap
import traceback
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, make_dataclass
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_origin, get_type_hints

import tyro
from tyro.conf import Positional, arg, subcommand


def _foreign() -> str:
    """A sentence where a package with one of our names comes before ours (Robot Framework has a `robot`)."""
    here = Path(__file__).resolve().parent
    for name in ("sim", "policies", "distill", "robot"):
        spec = find_spec(name)
        places = [] if spec is None else [*(spec.submodule_search_locations or [spec.origin or ""])]
        if here / name not in [Path(place).resolve() for place in places[:1]]:
            there = f"{places[0]}, which is not" if places else "missing, and should be"
            return (
                f"the package '{name}' is {there} {here / name}: take the other one off the path "
                "(PYTHONPATH, the folder you are in, or uninstall it)"
            )
    return ""


if _problem := _foreign():
    print(f"barkour: {_problem}", file=sys.stderr)
    sys.exit(2)

from distill.language.options import CardOptions, ClassifierOptions, LanguageOptions, MeasureOptions
from distill.language.own_options import (
    CompressorOptions,
    EncoderOptions,
    RecommenderOptions,
    StrategiesOptions,
    TaggerOptions,
    VisionOptions,
)
from distill.locomotion.options import Options as LocomotionOptions
from distill.methods.options import ListOptions, ShowOptions, SweepOptions
from distill.methods.options import RecipeRunOptions as RecipeOptions
from distill.options import DistillBenchOptions
from policies.bundle.options import InspectOptions
from policies.evaluation.options import CourseRunOptions, EvaluateOptions, RobotAddOptions, RobotMeasureOptions
from policies.learning import runs
from policies.learning.options import ExportOptions, PhysicsBenchOptions, TrainOptions
from robot.options import (
    ConvertOptions,
    CourseOptions,
    LocalizerOptions,
    NavigatorOptions,
    OnboardBenchOptions,
    OnboardOptions,
    RefereeOptions,
    ReplayOptions,
    RobotDriftOptions,
    SimOptions,
    UnitreeCourseOptions,
    UnitreeSimOptions,
)
from sim.course.options import ScoreOptions
from sim.errors import InputError
from sim.options import Options, flag, range_of, takes_several, types_in, words_in
from sim.programs import fail, open_streams, told
from sim.results import Result


@dataclass(frozen=True)
class Subcommand:
    """What is asked for, and the function that does it: `module:function`, imported when it is called."""

    options: type[Options]
    work: str

    @property
    def about(self) -> str:
        """Its description, from its options."""
        return self.options.__doc__ or ""

    def __call__(self, options: Options) -> Result:
        module, _, name = self.work.partition(":")
        return getattr(import_module(module), name)(options)


@dataclass(frozen=True)
class Group:
    """Commands under one word."""

    about: str
    commands: Mapping[str, Subcommand]


ONBOARD = {
    "loop": Subcommand(OnboardOptions, "robot.onboard:onboard"),
    "replay": Subcommand(ReplayOptions, "robot.loop.replay:replay"),
    "convert": Subcommand(ConvertOptions, "robot.loop.old_recording:convert"),
}
COMMANDS: dict[str, Subcommand | Group] = {
    "run": Subcommand(CourseRunOptions, "policies.evaluation.course_run:run"),
    "score": Subcommand(ScoreOptions, "sim.course.score:score"),
    "evaluate": Subcommand(EvaluateOptions, "policies.evaluation.evaluate:answer"),
    "train": Subcommand(TrainOptions, "policies.learning.train:train"),
    "distill": Group(
        "Distil several policies into one, or a language model into a smaller one.",
        {
            "locomotion": Subcommand(LocomotionOptions, "distill.locomotion.recipe:distil"),
            "language": Subcommand(LanguageOptions, "distill.language.distil:distil"),
            "classifier": Subcommand(ClassifierOptions, "distill.language.classify:distil"),
            "tagger": Subcommand(TaggerOptions, "distill.language.tagger:distil"),
            "encoder": Subcommand(EncoderOptions, "distill.language.encoder:distil"),
            "compressor": Subcommand(CompressorOptions, "distill.language.compressor:distil"),
            "recommender": Subcommand(RecommenderOptions, "distill.language.recommender:distil"),
            "vision": Subcommand(VisionOptions, "distill.language.seeing:distil"),
            "strategies": Subcommand(StrategiesOptions, "distill.language.strategies:distil"),
            "card": Subcommand(CardOptions, "distill.language.card:rewrite"),
            "evaluate": Subcommand(MeasureOptions, "distill.language.card:measure"),
        },
    ),
    "recipe": Group(
        "Published distillation methods as experiments with a verdict.",
        {
            "list": Subcommand(ListOptions, "distill.methods.command:listed"),
            "show": Subcommand(ShowOptions, "distill.methods.command:show"),
            "run": Subcommand(RecipeOptions, "distill.methods.command:run"),
            "sweep": Subcommand(SweepOptions, "distill.methods.command:sweep"),
        },
    ),
    "robot": Group(
        "A robot of one's own.",
        {
            "measure": Subcommand(RobotMeasureOptions, "policies.evaluation.measure:measure"),
            "add": Subcommand(RobotAddOptions, "policies.evaluation.new_robot:add"),
            "drift": Subcommand(RobotDriftOptions, "robot.estimation.drift:drift"),
        },
    ),
    "export": Subcommand(ExportOptions, "distill.locomotion.export:export"),
    "inspect": Subcommand(InspectOptions, "policies.bundle.inspection:inspect"),
    "onboard": Group("The 50 Hz control loop with its safety chain; without a further word, loop.", ONBOARD),
    "ros": Group(
        "Programs of a robot on ROS 2. The control loop is onboard.",
        {
            "course": Subcommand(CourseOptions, "robot.nodes.start:course"),
            "sim": Subcommand(SimOptions, "robot.nodes.start:sim"),
            "localizer": Subcommand(LocalizerOptions, "robot.nodes.start:localizer"),
            "navigator": Subcommand(NavigatorOptions, "robot.nodes.start:navigator"),
            "referee": Subcommand(RefereeOptions, "robot.nodes.start:referee"),
        },
    ),
    "unitree": Group(
        "Robots that speak Unitree's messages. The control loop is onboard --transport unitree.",
        {
            "course": Subcommand(UnitreeCourseOptions, "robot.transports.unitree.course:unitree_course"),
            "sim": Subcommand(UnitreeSimOptions, "robot.transports.unitree.simulated:unitree_sim"),
        },
    ),
    "bench": Group(
        "Measure on this computer.",
        {
            "physics": Subcommand(PhysicsBenchOptions, "policies.learning.throughput:run"),
            "onboard": Subcommand(OnboardBenchOptions, "robot.bench.onboard:run"),
            "distill": Subcommand(DistillBenchOptions, "distill.language.throughput:run"),
        },
    ),
}
EXTRAS = {"jax": "train", "brax": "train", "flax": "train", "optax": "train", "onnx": "train", "safetensors": "train"}
EXTRAS |= {"tensorboardX": "train", "gymnasium": "train"}
EXTRAS |= dict.fromkeys(("viser", "mjviser", "imageio", "mediapy"), "viz")
EXTRAS |= {
    "torch": "distill",
    "accelerate": "distill",
    "rclpy": "ros",
    "cyclonedds": "unitree",
    "pydrake": "sim2sim",
    "transformers": "lm",
    "tokenizers": "lm",
    "openai": "lm",
    "pyarrow": "lm",
    "jinja2": "lm",
    "PIL": "lm",
}
LIBRARIES = ("ACCELERATE_", "HF_", "MPL", "PYTORCH_", "TOKENIZERS_", "TORCH_", "TRANSFORMERS_", "WANDB_")
"""How variables begin that libraries read when they are imported."""
NARROWEST, WIDEST = 40, 1000
"""Columns that a terminal is taken to have, whatever it says: in 4 tyro wraps its help for ever."""
GL_OFF = ("disable", "disabled", "off", "false", "0")
EXTRAS |= {f"{name}_msgs": "ros" for name in ("sensor", "nav", "geometry", "trajectory", "diagnostic", "std")}


# --- what was asked for -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """One command with its options."""

    name: str
    """As it is written, such as `ros sim`."""
    command: Subcommand
    options: Options
    json: bool = False
    """Print one JSON object in place of tables."""


def parse(arguments: list[str]) -> Call:
    """The chosen command with its options; bad usage raises `InputError` in one line, `--help` ends with `SystemExit`.

    tyro is asked for plain texts and numbers in their place; the options themselves hold numbers to their ranges.
    """
    said, shown = io.StringIO(), io.StringIO()
    config = (tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.FlagCreatePairsOff)
    if any(word == "" or (word.startswith("--") and word.endswith("=")) for word in arguments):
        raise InputError("an argument is empty: leave its option out, or give it a value")
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(shown), _numbers():
            found: Any = tyro.cli(_front(), args=_today(arguments), prog="barkour", config=config)
    except SystemExit as stop:
        if stop.code in (0, None):
            print(_fitted(shown.getvalue()), end="")
            raise
        given = _today(arguments)
        raise InputError(_unknown_option(given) or _one_line(said.getvalue(), given)) from None
    words = []
    while not hasattr(found, "json"):
        found = found.command
        words.append(type(found).__name__)
    command: Any = COMMANDS[words[0]]
    for word in words[1:]:
        command = command.commands[word]
    _check_lists(_today(arguments), command)
    options = command.options(**{f.name: getattr(found, f.name) for f in fields(command.options)})
    return Call(" ".join(words), command, options, found.json)


def _check_lists(arguments: list[str], command: Subcommand) -> None:
    """Raises `InputError` where an option that takes several values has none, or is there twice: its former ones would
    be left out in silence."""
    names = [word.partition("=")[0].replace("_", "-") if word.startswith("--") else "" for word in arguments]
    hints = get_type_hints(command.options, include_extras=True)
    for name in [flag(each.name) for each in fields(command.options) if takes_several(hints[each.name])]:
        places = [i for i, word in enumerate(names) if word == name]
        if len(places) > 1:
            raise InputError(f"{name} is there {len(places)} times: write all its values behind one")
        if places and "=" not in arguments[places[0]] and [*arguments, "--"][places[0] + 1].startswith("--"):
            raise InputError(f"{name} needs at least one value")


@cache
def _numbers() -> tyro.constructors.ConstructorRegistry:
    """Numbers as they are written: Python would read 1_0 as 10, and digits of every script."""

    def read(kind: type, text: str) -> Any:
        if "_" in text or not text.isascii() or text != text.strip():
            raise ValueError(f"invalid literal for int() with base 10: {text!r}" if kind is int else
                             f"could not convert string to float: {text!r}")  # fmt: skip
        return kind(text)

    def rule(asked: tyro.constructors.PrimitiveTypeInfo) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
        kind: Any = asked.type
        if kind not in (int, float):
            return None
        return tyro.constructors.PrimitiveConstructorSpec(
            nargs=1, metavar=kind.__name__.upper(), instance_from_str=lambda words: read(kind, words[0]),
            is_instance=lambda value: isinstance(value, kind), str_from_instance=lambda value: [str(value)],
        )  # fmt: skip

    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(rule)
    return registry


def _today(arguments: list[str]) -> list[str]:
    """Older spellings as today's: `onboard ...` is `onboard loop ...`, and its `--replay FILE` is `replay FILE`."""
    if arguments[:1] != ["onboard"] or arguments[1:2] in [[word] for word in ONBOARD]:
        return arguments
    rest = arguments[1:]
    for i, word in enumerate(rest):
        if word == "--replay" and i + 1 < len(rest):
            return ["onboard", "replay", rest[i + 1], *rest[:i], *rest[i + 2 :]]
        if word.startswith("--replay="):
            return ["onboard", "replay", word.partition("=")[2], *rest[:i], *rest[i + 1 :]]
    return ["onboard", "loop", *rest]


@cache
def _front() -> type:
    """All commands for tyro."""
    return _group("barkour", Group("An open agility stack for quadrupeds.", {}), COMMANDS)


def _group(name: str, group: Group, commands: Mapping[str, Subcommand | Group]) -> type:
    """A dataclass with the one field `command`, whose type is the union of the group's commands."""
    kinds: list[Any] = [
        Annotated[_group(word, each, each.commands) if isinstance(each, Group) else _leaf(word, each), subcommand(word)]
        for word, each in commands.items()
    ]
    if len(kinds) == 1:  # a union has at least two members
        kinds.append(Annotated[None, tyro.conf.Suppress])
    return make_dataclass(name, [("command", Union[tuple(kinds)])], namespace={"__doc__": group.about})  # noqa: UP007


def _leaf(name: str, command: Subcommand) -> type:
    """The command's options for tyro: required ones by position, ranges shown, and `--json`; nothing is checked yet."""
    hints = get_type_hints(command.options, include_extras=True)
    changed: list[tuple[str, Any, Any]] = []
    for each in fields(command.options):
        hint, required = hints[each.name], each.default is MISSING
        allowed = range_of(hint)
        shown = each.name.upper() if required else each.metadata.get("metavar") or _kind(hint)
        if allowed is not None:
            shown = "|".join(map(str, (allowed, *words_in(hint))))
        if shown and get_origin(hint) is not Literal:
            hint = Annotated[hint, arg(metavar=shown)]
        if other := _others(each):
            hint = Annotated[hint, arg(aliases=other)]
        if not required and each.default in (None, "", ()):  # what it is then stands in its sentence
            hint = Annotated[hint, arg(help_behavior_hint="")]
        if required or each.metadata.get("positional"):
            hint = Positional[hint]
        if hint is not hints[each.name]:
            changed.append((each.name, hint, field() if required else field(default=each.default)))
    json_text = "print one JSON object on standard output and nothing else there"
    changed.append(("json", Annotated[bool, arg(help=json_text)], field(default=False)))
    space = {"__doc__": command.about, "__post_init__": lambda self: None}
    return make_dataclass(name, changed, bases=(command.options,), namespace=space, frozen=True, kw_only=True)


def _others(option: Field[Any]) -> list[str]:
    """Further names of an option, such as one that other commands have for the same."""
    return [flag(name) for name in option.metadata.get("aliases", ())]


def _kind(hint: Any) -> str:
    """What stands for a path or a text in help; empty: as tyro says it."""
    kinds = types_in(hint)
    return "PATH" if Path in kinds else "TEXT" if str in kinds and tuple not in kinds else ""


def _fitted(text: str) -> str:
    """Help with its long lines wrapped, in characters that standard output can show."""
    width = shutil.get_terminal_size().columns
    lines = []
    for line in text.splitlines():
        loose = len(line) > width and line[:1] not in ("│", "╭", "╰", "|", "+")
        indent = "  " if line.startswith("usage") else ""
        lines += textwrap.wrap(line, width, subsequent_indent=indent) if loose else [line]
    out = "\n".join(lines) + "\n"
    try:
        out.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        out = out.translate(str.maketrans("╭╮╰╯─│•", "++++-|*"))
    return out


def _unknown_option(arguments: list[str]) -> str:
    """What is wrong with the first option that a command does not have: what is meant, or who has it; empty if none is.

    tyro looks for likely options among those of all commands.
    """
    words, command = _command_of(arguments)
    if command is None:
        return ""
    own = _options_of(command)
    given = [word.partition("=")[0].replace("_", "-") for word in arguments if word.startswith("--")]
    name = next((one for one in given if one not in own and one not in ("--", "--help")), None)
    if name is None:
        return ""
    near = get_close_matches(name, own, 1, 0.8)
    others = [there for there, each in _subcommands(COMMANDS) if name in _options_of(each)]
    who = f"; {' and '.join(others[:3])} {'has' if len(others) == 1 else 'have'} it" if others else ""
    hint = f"; perhaps {near[0]} is meant" if near else who
    return f"{words} has no option {name}{hint} (see barkour {words} --help)"


def _command_of(arguments: list[str]) -> tuple[str, Subcommand | None]:
    """The command that the first words name, and its options; None where they name none."""
    words: list[str] = []
    here: Mapping[str, Subcommand | Group] = COMMANDS
    for word in arguments:
        each = here.get(word)
        if each is None:
            break
        words.append(word)
        if isinstance(each, Subcommand):
            return " ".join(words), each
        here = each.commands
    return " ".join(words), None


def _options_of(command: Subcommand) -> list[str]:
    """Options of a command by name; what stands in its place without one is not among them."""
    named = [each for each in fields(command.options) if each.default is not MISSING]
    own = [each for each in named if not each.metadata.get("positional")]
    return ["--json", *(flag(each.name) for each in own), *(name for each in own for name in _others(each))]


def _subcommands(commands: Mapping[str, Subcommand | Group], before: str = "") -> Iterator[tuple[str, Subcommand]]:
    """Every command with its words."""
    for word, each in commands.items():
        if isinstance(each, Group):
            yield from _subcommands(each.commands, f"{before}{word} ")
        else:
            yield f"{before}{word}", each


def _one_line(text: str, arguments: list[str]) -> str:
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
    for kind, said in (("a whole number", r"invalid literal for int\(\) "), ("a number", "could not convert ")):
        message = re.sub(rf"^Error parsing (--\S+): (no type .*)?{said}[^:]*: ", rf"\1 must be {kind}, got ", message)
    message = re.sub(r" - typing\.Literal\[(.*?)\]: .*$", r" (or \1)", message)  # a word that stands beside numbers
    message = re.sub(r"^Error parsing (--\S+): no type .*Exceeds the limit .*$", r"\1 has too many digits", message)
    meant = re.search(r"[Pp]erhaps you meant.*?(--[\w-]+)", " ".join(texts))
    known = next((text.partition(": ")[2] for text in texts if text.startswith("Available subcommands: ")), "")
    words, command = _command_of(arguments)
    extra = message.partition("Unrecognized options: ")[2]
    if known and not meant:
        message = f"{message.replace('options', 'command')}; there are {known}"
    elif extra and command is not None:
        message = f"{words} does not know what to do with {extra}"
        if words == "onboard loop" and arguments[2] == extra.split(",")[0]:  # a word that may be meant as a command
            message += f"; commands of onboard are {', '.join(ONBOARD)}"
    help_of = f"barkour {words} --help".replace("  ", " ")
    message = message if message.endswith("...") else message.rstrip(". ")
    return f"{message}{f'; perhaps {meant[1]} is meant' if meant else ''} (see {help_of})"


# --- what came of it --------------------------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    open_streams()
    _check_width()
    os.environ["MPLBACKEND"] = "agg"  # nothing here opens a window, and matplotlib is first asked when all work is done
    for kind in (FutureWarning, DeprecationWarning):  # of libraries, for those who write programs
        warnings.filterwarnings("ignore", category=kind)
    try:
        call = parse(sys.argv[1:] if arguments is None else arguments)
        _check_place()
        _check_gl()
        with runs.stopping(), contextlib.redirect_stdout(_Aside()) as aside, contextlib.ExitStack() as ending:
            ending.callback(aside.end)
            result = call.command(call.options)
        _print(result, call.json)
        return fail(result.failure, result.status) if result.failure else result.status
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            return _unexpected(error)
        return fail(f"this needs the package {error.name}: pip install 'barkour[{extra}]'")
    except KeyboardInterrupt:
        if PROGRAM:  # asked again, it ends without what libraries do at an end, and has said so
            _listen(lambda *_: os._exit(130))
            exec("")  # where the interrupt passed through another exec, Python would forget the status and kill itself
        return fail("interrupted", 130)
    except BrokenPipeError:  # the reader of standard output has gone, as `| head` does
        _forget_output()
        return 1
    except (InputError, OSError, MemoryError) as error:
        return fail(*told(error))
    except Exception as error:
        return _unexpected(error)


class _Aside(io.TextIOBase):
    """What libraries print: to standard error, without MJX's lines on a missing warp, which nothing here uses."""

    def __init__(self) -> None:
        self._begun = ""

    def write(self, text: str) -> int:
        """Passes whole lines on."""
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            if not re.match(r"Failed to import (mujoco_)?warp:", line):
                sys.stderr.write(line + "\n")
        return len(text)

    def end(self) -> None:
        """Ends a line that was begun."""
        if self._begun:
            self.write("\n")


def _check_width() -> None:
    """Terminals narrower or wider than libraries can lay a table out for are taken to have the next width that is; a
    variable that says 0 means that nobody knows, for which rich would show nothing."""
    width = shutil.get_terminal_size().columns
    if "COLUMNS" in os.environ or not NARROWEST <= width <= WIDEST:
        os.environ["COLUMNS"] = str(min(max(width, NARROWEST), WIDEST))


def _check_place() -> None:
    """Raises `InputError` for what libraries do not start with: a current folder that has been removed, and a Python
    that leaves out docstrings, of which transformers makes its own."""
    try:
        os.getcwd()
    except OSError as error:
        raise InputError(f"the current folder cannot be read ({error.strerror}): change to another") from error
    if sys.flags.optimize > 1:
        raise InputError("Python leaves docstrings out (-OO, PYTHONOPTIMIZE=2), which libraries read: take -O, or none")


def _forget_output() -> None:
    """Standard output leads nowhere from now on: what is left in it is lost, without a complaint at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_gl() -> None:
    """Raises `InputError` for a value of MUJOCO_GL that MuJoCo cannot be imported with."""
    value = os.environ.get("MUJOCO_GL", "").strip().lower()
    if value not in ("", "glfw", "glx", "egl", "osmesa", "enable", "on", "true", "1", *GL_OFF):
        raise InputError(f"MUJOCO_GL is '{value}': known are egl and osmesa (off-screen), glfw, disable")
    if "MUJOCO_GL" in os.environ:
        os.environ["MUJOCO_GL"] = value


def _print(result: Result, as_json: bool) -> None:
    """The result on standard output: one JSON object, or what people read."""
    try:
        if as_json:
            print(json.dumps(result.to_dict(), allow_nan=False))
        else:
            from rich.console import Console

            result.show(Console())
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        _forget_output()
        raise OSError(error.errno, f"cannot write to standard output: {error.strerror}") from error


def _unexpected(error: Exception) -> int:
    """A fault of ours: one line, or the traceback where BARKOUR_DEBUG is set. Not ours: GL that MuJoCo cannot load,
    variables that a library does not start with, and models that do not fit."""
    if os.environ.get("BARKOUR_DEBUG"):
        raise error
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    if any("gl_context" in file or f"{os.sep}OpenGL{os.sep}" in file for file in files):
        return fail(f"MUJOCO_GL={os.environ.get('MUJOCO_GL')} does not work here: {error}")
    if no_memory(error):
        return fail(*told(MemoryError()))
    if system := re.search(r"\(os error (\d+)\)", str(error)):  # as libraries written in Rust say it
        return fail(f"a file cannot be read or written: {os.strerror(int(system[1]))}")
    set_for_jax = sorted(f"{name}={value}" for name, value in os.environ.items() if name.startswith("JAX_"))
    inner = files[-1] if files and f"{os.sep}jax{os.sep}" in files[-1] else ""
    if set_for_jax and inner and (inner.endswith("config.py") or not str(error) or "backend" in str(error)):
        return fail(f"JAX does not start with {', '.join(set_for_jax)}: {str(error) or 'it has no such device here'}")
    for name, value in sorted(os.environ.items()):
        if name.startswith(LIBRARIES) and (name in str(error) or (len(value) > 3 and value in str(error))):
            return fail(f"{name}={value} does not work here: {error}")
    return fail(*told(error))


def no_memory(error: Exception) -> bool:
    """Whether an array library found no room: each has an error of its own, all the same words."""
    words = ("can't allocate memory", "out of memory", "RESOURCE_EXHAUSTED", "Unable to allocate")
    return isinstance(error, RuntimeError) and any(word.lower() in str(error).lower() for word in words)


if __name__ == "__main__":
    sys.exit(main())
