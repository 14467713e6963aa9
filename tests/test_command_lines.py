"""Command lines made from the option types themselves: whatever is written, the front door keeps its contract.

Every option's type says what it takes: a range, a choice, a switch, a path, a text. From it come values that are right
and values that are not, and with them whether the line as a whole is. What a command does is left out, so that two
hundred lines take seconds; lines whose fault lies deeper (files, names) go through the real commands.
"""

import contextlib
import dataclasses
import io
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import barkour
import sim.course.description
import sim.course.files
from distill.core.checkpoints import write_text
from distill.language.options import ClassifierOptions, LanguageOptions
from distill.language.own_options import StrategiesOptions, TaggerOptions
from distill.locomotion.options import FINE_TUNED
from policies.evaluation.course_run import write_text as write_report
from policies.evaluation.options import RobotAddOptions
from robot.nodes.programs import ros_arguments
from sim.course.scene import robot_spec
from sim.course.score import write_log
from sim.errors import InputError
from sim.options import Range, range_of, takes_several, types_in
from sim.results import Result
from sim.robots.description import default_robot

SEED = 20261127
LINES = int(os.environ.get("BARKOUR_LINES", "200"))
UNSAFE = ["\x1b[2J", "a\x07b", "\u202egnp", "ş İ ı", "📦", "a\nb", "\x9b31m"]
"""Texts that could write to a terminal, or that a locale lacks."""
NO_NUMBERS = ["nan", "inf", "-inf", "1e400", "", "seven", "0x10", "1,5", "9" * 5000]
NO_NUMBERS += ["1_0", "0_5", "\u0663", "\uff11", " 1", "1\u00a0"]


def commands() -> dict[str, barkour.Subcommand]:
    """Every command as it is written."""
    found = {}
    for word, each in barkour.COMMANDS.items():
        inner = each.commands.items() if isinstance(each, barkour.Group) else [("", each)]
        found |= {f"{word} {name}".strip(): command for name, command in inner}
    return found


class Line:
    """One command line, with what is wrong with it."""

    def __init__(self, rng: random.Random, name: str, faults: int) -> None:
        self.rng, self.command = rng, commands()[name]
        self.hints = get_type_hints(self.command.options, include_extras=True)
        self.words, self.wrong = name.split(), ""
        """`wrong` names the option whose value is refused."""
        options = [field for field in dataclasses.fields(self.command.options)]
        required = [field for field in options if field.default is dataclasses.MISSING]
        chosen = [field for field in options if field not in required and rng.random() < 0.3]
        can_be_wrong = [field for field in options if self.wrong_values(self.hints[field.name])]
        faulty = rng.sample(can_be_wrong, min(faults, len(can_be_wrong)))
        for field in [each for each in options if each in chosen + required + faulty]:
            self.add(field, field in faulty)

    def add(self, field: dataclasses.Field, faulty: bool) -> None:
        """One option with a value."""
        hint = self.hints[field.name]
        positional = field.default is dataclasses.MISSING or field.metadata.get("positional")
        values = [self.right(field.name, hint)]
        if faulty:
            values, self.wrong = [self.rng.choice(self.wrong_values(hint))], field.name
        if bool in types_in(hint):
            values = []
        flag = f"--{field.name.replace('_', '-')}"
        if self.rng.random() < 0.3:
            flag = flag.replace("-", "_").replace("__", "--", 1)  # tyro takes both spellings
        self.words += values if positional else [flag, *values]

    def right(self, name: str, hint: Any) -> str:
        """A value that the option takes."""
        allowed = range_of(hint)
        if allowed is not None:
            return number(self.rng, allowed, int in types_in(hint))
        if get_origin(hint) is Literal:
            return self.rng.choice(get_args(hint))
        return self.rng.choice(["official", "a b", "runs/x", *UNSAFE])

    def wrong_values(self, hint: Any) -> list[str]:
        """Values that it refuses."""
        allowed = range_of(hint)
        if allowed is not None:
            low = allowed.low if allowed.above else allowed.low - 1
            whole = int in types_in(hint)
            beyond = [f"{low:.17g}", f"{allowed.high + 1:.17g}", "-1e9", "1" * 40]
            return beyond + NO_NUMBERS + (["1.5", "1e3"] if whole else [])
        if get_origin(hint) is Literal:
            return ["", "abacus", *UNSAFE]
        return []


def number(rng: random.Random, allowed: Range, whole: bool) -> str:
    """A number in a range: often one of its ends."""
    low, high = allowed.low, allowed.high
    if whole:
        return str(rng.choice([int(low), int(high), rng.randint(int(low), int(high))]))
    inside = low + (high - low) * (1.0 - rng.random())
    return repr(rng.choice([float(high), inside, *([] if allowed.above else [float(low)])]))


def said(words: list[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of a command line in this process; no exception comes out."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = barkour.main(words)
        except SystemExit as stop:
            status = stop.code
    return int(status or 0), out.getvalue(), err.getvalue()


def assert_contract(words: list[str], status: int, out: str, err: str) -> None:
    """Statuses that are promised; one printable line for bad input; never a traceback."""
    about = f"{words!r}: status {status}, {err!r}"
    assert status in (0, 1, 2, 130), about
    assert not [word for word in ("Traceback", "unexpected", "typing.", "<class", "int()") if word in err], about
    assert [c for c in out + err if not (c.isprintable() or c == "\n")] == [], about
    if status == 2:
        assert out == "" and err.startswith("barkour: ") and err.count("\n") == 1, about


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Commands note their options and do nothing."""
    asked: list[Any] = []

    def work(self: barkour.Subcommand, options: Any) -> Result:
        asked.append(options)
        return Result.of({"options": {name: str(value) for name, value in vars(options).items()}})

    monkeypatch.setattr(barkour.Subcommand, "__call__", work)
    return asked


def test_lines_made_from_the_option_types_keep_the_contract(no_work: list[Any]) -> None:
    rng, names = random.Random(SEED), list(commands())
    counts = {0: 0, 2: 0}
    for k in range(LINES):
        line = Line(rng, names[k % len(names)], faults=k // len(names) % 2)
        line.words += ["--json"] if rng.random() < 0.5 else []
        no_work.clear()
        status, out, err = said(line.words)
        assert_contract(line.words, status, out, err)
        assert (status == 0) == bool(no_work), "work was begun though the line was refused, or the other way round"
        if line.wrong:
            assert status == 2, f"{line.words!r} was accepted: its {line.wrong} is wrong"
        if status == 0 and "--json" in line.words:
            assert set(json.loads(out)) == {"options"}
        counts[status] = counts.get(status, 0) + 1
    assert min(counts.values()) > LINES / 5, f"one-sided lines: {counts}"


@pytest.mark.parametrize("name", ["distill language", "distill locomotion", "bench distill", "recipe run"])
def test_an_option_of_several_values_has_some_and_is_there_once(name: str, no_work: list[Any]) -> None:
    """`--data a --data b` learned from b alone, in silence, and `--vocabularies` began without one."""
    hints = get_type_hints(commands()[name].options, include_extras=True)
    several = [f"--{key.replace('_', '-')}" for key, hint in hints.items() if takes_several(hint)]
    begun = [*name.split(), *(["ddk"] if name == "recipe run" else [])]
    assert several
    for option in several:
        value = "teacher=64" if option in ("--teachers", "--slurm") else "64"
        for wrong in ([option], [option, "--json"], [option, value] * 2, [f"{option}={value}", option, value]):
            no_work.clear()
            status, out, err = said([*begun, *wrong])
            assert_contract([*begun, *wrong], status, out, err)
            assert status == 2 and option in err and not no_work, (wrong, err)
        assert said([*begun, option, value, "--json"])[0] == 0 or option in ("--slurm", "--weights", "--teachers")


def test_what_is_written_arrives(no_work: list[Any]) -> None:
    """Right values of every option, one at a time, come out of the options as they were written."""
    rng = random.Random(SEED + 1)
    for name, command in commands().items():
        hints = get_type_hints(command.options, include_extras=True)
        needed = [Line(rng, name, 0).right(f.name, hints[f.name]) for f in dataclasses.fields(command.options)
                  if f.default is dataclasses.MISSING]  # fmt: skip
        for field in dataclasses.fields(command.options):
            allowed = range_of(hints[field.name])
            if allowed is None or field.default is dataclasses.MISSING:
                continue
            for value in (allowed.high, allowed.low if not allowed.above else allowed.high / 2):
                words = [*name.split(), *needed, f"--{field.name.replace('_', '-')}", f"{value!r}"]
                no_work.clear()
                status, _, err = said(words)
                if status == 0:
                    assert getattr(no_work[0], field.name) in (value, (value,))  # several may be given
                else:
                    others = {
                        *FINE_TUNED,
                        "lora_alpha",
                        "texts",
                        "new_tokens",
                        "lm_eval_limit",
                        "ways",
                        "clock",
                        "hours",
                    }
                    alone = field.name in others and "has no effect" in err
                    assert alone or field.name in ("host", "hosts", "worlds", "threads", "priority", "calls"), (
                        words,
                        err,
                    )


@pytest.mark.parametrize(
    "words",
    [
        [], ["--json"], ["--"], [""], ["\x00"], ["run", "\x1b]0;x\x07"],
        ["run", "--seed"], ["run", "--seed", "1", "--seed", "x"], ["run", "-5"], ["run", "--seed=", "--json"],
        ["recipe", ""], ["recipe", "run"], ["onboard", "--replay"], ["onboard", "--replay="],
        ["onboard", "loop", "loop"],
        ["onboard", "replay", ""], ["ros", "--help=1"], ["train", "walk", "climb"], ["score", "\x00"], ["score", ""],
        ["distill", "locomotion", "--courses"], ["distill", "locomotion", "--courses", ""], ["evaluate", "--runs=1_0e"],
        ["train", "walk", "--hosts", "2", "--coordinator", "host:99999"], ["run", "--" + "y" * 1000],
        ["recipe", "sweep", "--hours", "2"],
        ["recipe", "sweep", "ddk", "ddk"], ["recipe", "run", "ddk", "--plan", "--seeds", "3"],
        ["recipe", "run", "ddk", "--preset", "real", "--workers", "2"], ["run", "x" * 10_000],
    ],
    ids=lambda words: " ".join(words)[:40].encode("unicode_escape").decode() or "nothing",
)  # fmt: skip
def test_odd_lines_are_refused_in_one_line(words: list[str], no_work: list[Any]) -> None:
    status, out, err = said(words)
    assert_contract(words, status, out, err)
    assert status == 2


NAMES = ["", "nowhere", "a/b/c", "\x1b[2J", "generated:1e9", "generated:-1", "official\n", "/dev/null", "."]
REAL = [
    ("score", ["X"]), ("score", [__file__, "--course", "X"]), ("inspect", ["X"]), ("recipe show", ["X"]),
    ("recipe show", ["ddk", "--domain", "X"]), ("recipe run", ["X"]), ("recipe sweep", ["X"]),
    ("run", ["--course", "X"]), ("run", ["--policy", "X"]), ("evaluate", ["--course", "X"]), ("onboard replay", ["X"]),
    ("onboard", ["--bundle", "X"]), ("onboard", ["--parameters", "X"]),
]  # fmt: skip
"""Commands, X standing for what a user could write; each is refused before any work."""


@pytest.mark.parametrize(("name", "words"), REAL, ids=lambda part: " ".join(part) if isinstance(part, list) else part)
def test_names_that_are_none_are_refused_by_the_commands_themselves(
    name: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for value in NAMES:
        line = [*name.split(), *(value if word == "X" else word for word in words)]
        status, out, err = said(line)
        assert_contract(line, status, out, err)
        assert status == 2, f"{line!r} was accepted"
    assert list(tmp_path.iterdir()) == []


ODD = "f\udcfcr"
"""A name in Latin-1, as Python reads it from the command line."""


@pytest.mark.parametrize(
    "make",
    [
        *(lambda kind=kind: kind(out=Path(ODD)) for kind in (LanguageOptions, ClassifierOptions, TaggerOptions)),
        lambda: StrategiesOptions(policy=ODD), lambda: LanguageOptions(candidates=("a", ODD)),
        lambda: RobotAddOptions("own", Path("dog.urdf"), robots=Path(ODD)), lambda: RobotAddOptions("own", Path(ODD)),
        lambda: ros_arguments(given={"out": ODD}), lambda: ros_arguments(Path(ODD)),
        lambda: robot_spec(replace(default_robot(), mjcf=Path(ODD))),
    ],
)  # fmt: skip
def test_a_name_that_libraries_do_not_take_is_refused_before_any_work(make: Callable[[], Any]) -> None:
    with pytest.raises(InputError):
        make()


@pytest.mark.parametrize(
    "write",
    [
        lambda path: write_log(path, [0.0, 1.0], [(0.0, 0.0), (1.0, 0.0)], f"{ODD} on official"),
        lambda path: write_report(path, f"{ODD} on official"),
        lambda path: write_text(path, f"{ODD} on official"),
    ],
)
def test_files_of_any_name_can_be_spoken_of(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path / "file")
    said = (tmp_path / "file").read_text(encoding="utf-8")
    assert "f" in said and "r on official" in said


def test_what_a_parameter_file_says_holds_in_simulation_too(tmp_path: Path) -> None:
    (tmp_path / "mine.mcap").write_text("mine")
    file = tmp_path / "p.yaml"
    file.write_text(f"onboard: {{ros__parameters: {{record: '{tmp_path / 'mine.mcap'}'}}}}\n")
    status, out, err = said(["onboard", "--parameters", str(file)])
    assert_contract([str(file)], status, out, err)
    assert status == 2 and "mine.mcap" in err and (tmp_path / "mine.mcap").read_text() == "mine"


def test_a_touched_jump_needs_a_course_with_one(tmp_path: Path) -> None:
    official = sim.course.description.official()
    course = replace(official, obstacles=(official.obstacles[0], official.obstacles[-1]), name="short")
    sim.course.files.save(course, tmp_path / "short.yaml")
    (tmp_path / "log.csv").write_text("0,0.5,-0.5\n1,1,-0.5\n")
    line = ["score", str(tmp_path / "log.csv"), "--course", str(tmp_path / "short.yaml")]
    assert said(line)[0] == 0
    status, out, err = said([*line, "--touched-jump"])
    assert_contract(line, status, out, err)
    assert status == 2 and "--touched-jump" in err


def test_the_generator_makes_wrong_numbers_of_every_kind() -> None:
    """The property above would hold for lines that are all refused for one reason."""
    rng = random.Random(SEED)
    line = Line(rng, "evaluate", 0)
    wrong = line.wrong_values(line.hints["runs"])
    assert {"nan", "inf", "0", "100001", "1.5", ""} <= set(wrong)
    right = [int(line.right("runs", line.hints["runs"])) for _ in range(50)]
    assert {1, 100_000} <= set(right) and all(1 <= value <= 100_000 for value in right)
