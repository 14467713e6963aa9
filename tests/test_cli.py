"""The front door: what a script that calls `barkour` can rely on."""

import ast
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import barkour
from distill.results import Distilled
from policies.learning.results import Exported, Stoppable
from robot.results import LoopReport
from sim.course.description import official
from sim.errors import InputError
from sim.options import Options
from sim.programs import fail
from sim.results import Result

ROOT = Path(__file__).resolve().parents[1]


def call(
    *arguments: str | Path, cwd: Path = ROOT, block: tuple[str, ...] = (), begin: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own, in which the modules in `block` cannot be imported.

    `begin` is a shell's redirection, `variables` are set in its environment.
    """
    hide = "".join(f"sys.modules[{name!r}] = None; " for name in block)
    program = f"import sys; sys.path.insert(0, {str(ROOT)!r}); {hide}import barkour; sys.exit(barkour.main())"
    environment = {k: v for k, v in os.environ.items() if k != "BARKOUR_DEBUG"} | variables
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {begin}', "sh", sys.executable, "-c", program, *map(str, arguments)],
        capture_output=True, text=True, timeout=120, cwd=cwd, env=environment, check=False,
    )  # fmt: skip


def assert_one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Exit status 2, nothing on standard output, one line on standard error that has all the words."""
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("barkour: ")
    for word in words:
        assert word in lines[0]


@pytest.fixture
def good_log(tmp_path: Path) -> Path:
    """A straight walk out of the start table: 1 m/s along its gate's normal, 50 Hz."""
    x, y, yaw = official().start
    rows = [f"{i / 50!r},{x + i / 50 * math.cos(yaw)!r},{y + i / 50 * math.sin(yaw)!r}" for i in range(150)]
    path = tmp_path / "log.csv"
    path.write_text("# time,x,y\n" + "\n".join(rows) + "\n")
    return path


# --- bad usage ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["run", "score", "evaluate", "train", "distill", "export", "inspect", "bench"]),
        (["fly"], ["fly"]),
        (["run", "--sead", "3"], ["--sead", "perhaps --seed"]),
        (["evaluate", "--threads", "3"], ["evaluate has no option --threads", "train", "distill locomotion have it"]),
        (["distill", "vision", "--video", "x"], ["distill vision has no option --video (see"]),
        (["run", "--seed", "x"], ["--seed", "'x'"]),
        (["run", "--seed"], ["--seed"]),
        (["score"], ["LOG"]),
        (["score", "a.csv", "b.csv"], ["b.csv"]),
        (["train", "swim"], ["swim", "walk"]),
        (["train", "walk", "--backend", "abacus"], ["abacus", "cpu", "mjx"]),
        (["bench", "swimming"], ["swimming", "physics"]),
        (["export", "checkpoint"], ["FILE"]),
        (["recipe", "show"], ["NAME"]),
        (["recipe", "show", "a", "b"], ["b"]),
        (["recipe", "list", "ddk"], ["ddk"]),
        (["recipe", "dance"], ["dance"]),
        (["distill"], ["locomotion", "language", "classifier", "tagger", "encoder"]),
        (["ros"], ["navigator"]),
        (["onboard", "--transport", "ros2", "--seed", "3"], ["--seed", "ros2"]),
        (["onboard", "--transport", "ros2", "--lying"], ["--lying"]),
        (["onboard", "--replay", "a.rec", "--seed", "3"], ["--seed"]),
        (["train", "walk", "--backend", "mjx", "--threads", "2"], ["--threads"]),
        (["train", "walk", "--host", "1"], ["--host"]),
        (["distill", "language", "--steps", "5", "--epochs", "2"], ["--epochs", "--steps"]),
        (["distill", "language", "--lora-alpha", "8"], ["--lora-alpha", "--lora"]),
        (["distill", "language", "--route", "x"], ["--route", "--teachers"]),
        (["distill", "language", "--plan", "--dry-run"], ["--plan"]),
        (["distill", "language", "--teacher-url", "ftp://x"], ["--teacher-url", "ftp://x"]),
        (["distill", "language", "--teacher-url", "nonsense"], ["--teacher-url"]),
        (["distill", "classifier", "--steps", "5", "--epochs", "2"], ["--epochs"]),
        (["distill", "classifier", "--texts", "5"], ["--texts", "kd"]),
        (["distill", "tagger", "--about", "event"], ["--about", "event"]),
        (["distill", "encoder", "--student", "x"], ["--student"]),
        (["distill", "classifier", "--method", "labels", "--new-tokens", "5"], ["--new-tokens", "labels"]),
        (["robot", "measure", "barkour_v0", "--response", "--repeats", "2"], ["--repeats", "--response"]),
        (["ros", "referee", "--seed", "1"], ["--seed"]),
        (["run", "extra"], ["run", "extra", "barkour run --help"]),
        (["run", "..."], ["...", "barkour run --help"]),
        (["onboard", "play", "run.mcap"], ["play", "replay", "convert"]),
        (["ros", "bla"], ["bla", "navigator", "barkour ros --help"]),
    ],
)
def test_bad_usage_is_one_sentence_that_names_what_was_wrong(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        barkour.parse(arguments)
    for word in words:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_usage_exits_2_with_one_line() -> None:
    assert_one_line(call("run", "--sead", "3"), "--sead")


@pytest.mark.parametrize("words", [["onboard"], ["onboard", "replay", "run.mcap"]])
def test_the_loop_takes_its_policy_under_the_name_that_other_commands_have(words: list[str]) -> None:
    for name in ("--policy", "--bundle"):
        found: Any = barkour.parse([*words, name, "specialists"]).options
        assert found.bundle == "specialists"


def test_help_goes_to_standard_output_and_exits_0() -> None:
    done = call("score", "--help")
    assert done.returncode == 0 and done.stderr == ""
    for option in ("--touched-jump", "--whole-seconds", "--json"):
        assert option in done.stdout


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("run", ["--policy", "--course", "--seed", "--randomize", "--record", "--watch", "--json"]),
        ("evaluate", ["--policy", "--course", "--runs", "--randomize", "--seed", "--json"]),
        ("train", ["--backend", "--steps", "--seed", "--out", "--resume"]),
    ],
)
def test_promised_options_exist(command: str, options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        barkour.parse([command, "--help"])
    text = capsys.readouterr().out
    assert [option for option in options if option not in text] == []


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("0,0,0\n0.02,zero,0\n", ["line 2", "zero"]),
        ("0,0,0\n1,0,0\n0.5,0,0\n", ["line 3", "backwards"]),
        ("0,0,0\n", ["two"]),
        ("", ["two"]),
        ("0,0\n1,0\n", ["time,x,y"]),
        ("0,0,0\n1,nan,0\n", ["line 2", "finite"]),
    ],
)
def test_a_malformed_log_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, words: list[str]
) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    assert barkour.main(["score", str(path), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    for word in words:
        assert word in said.err


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    assert_one_line(call("score", "nowhere.csv", cwd=tmp_path), "nowhere.csv")
    assert_one_line(call("score", "bad.csv", cwd=tmp_path), "bad.csv")
    assert_one_line(call("inspect", "nowhere.onnx", cwd=tmp_path), "nowhere.onnx")
    assert_one_line(call("inspect", "bad.csv", cwd=tmp_path), "bad.csv", "ONNX")


def test_an_unknown_course_is_refused(tmp_path: Path, good_log: Path) -> None:
    assert_one_line(call("score", good_log, "--course", "moon"), "moon", "official")
    assert_one_line(call("run", "--course", "generated:x"), "generated:x", "generated:SEED")
    assert_one_line(call("run", "--course", "generated:0-3"), "generated:0-3", "4 courses")
    assert_one_line(call("evaluate", "--course", "generated:0-9", "--runs", 9), "generated:0-9", "--runs")
    bad = tmp_path / "course.yaml"
    bad.write_text("name: [unclosed\n")
    assert_one_line(call("score", good_log, "--course", bad), "course.yaml")


# --- results -----------------------------------------------------------------------------------------------------


def test_score_json_is_one_object_and_needs_no_simulator(good_log: Path) -> None:
    done = call("score", good_log, "--json", block=("mujoco", "jax", "brax", "onnxruntime", "matplotlib"))
    assert done.returncode == 0 and done.stderr == ""
    result = json.loads(done.stdout)
    assert set(result) >= {"score", "time_s", "obstacles"}
    assert list(result["obstacles"]) == ["start table", "weave poles", "a frame", "jump", "end table"]
    failed = sum(not obstacle["completed"] for obstacle in result["obstacles"].values())
    assert result["score"] == pytest.approx(1.0 - 0.01 * 50 - 0.1 * failed)


def test_score_for_people_names_every_obstacle(good_log: Path) -> None:
    done = call("score", good_log)
    assert done.returncode == 0
    for name in ("start table", "weave poles", "a frame", "jump", "end table", "score"):
        assert name in done.stdout


EMERGENCY = {"state": "emergency", "reason": "fell over", "refusals": {}}


def _main(monkeypatch: pytest.MonkeyPatch, outcome: Result | BaseException, as_json: bool = True) -> int:
    """The front door with a command that prints, and then returns or raises `outcome`."""

    def work(_: Options) -> Result:
        print("chatter of a library")
        print("Failed to import warp:", "No module named 'warp'")
        print("Failed to import mujoco_warp:", "No module named 'warp'")
        print("chatter without an end", end="")
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    call = barkour.Call("inspect", work, Options(), as_json)  # type: ignore[arg-type]
    monkeypatch.setattr(barkour, "parse", lambda _: call)
    return barkour.main([])


def test_json_output_is_pure_and_strict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    found = Result.of({"score": math.nan, "log": Path("a/b.csv"), "times": (1.0, math.inf)})
    assert _main(monkeypatch, found) == 0
    said = capsys.readouterr()
    assert json.loads(said.out) == {"score": None, "log": "a/b.csv", "times": [1.0, None]}
    assert said.err == "chatter of a library\nchatter without an end\n"


@pytest.mark.parametrize(
    ("outcome", "status", "words"),
    [
        (InputError("the file is\nbroken"), 2, "the file is broken"),
        (PermissionError(13, "Permission denied", "/readonly/out"), 2, "Permission denied: /readonly/out"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (ModuleNotFoundError("No module named 'jax'", name="jax"), 2, "pip install 'barkour[train]'"),
        (ModuleNotFoundError("No module named 'viser'", name="viser"), 2, "pip install 'barkour[viz]'"),
        (ModuleNotFoundError("No module named 'gone'", name="gone"), 1, "gone"),
        (RuntimeError("surprise"), 1, "surprise"),
        (Stoppable(interrupted=True), 130, "--resume"),
        (Stoppable(interrupted=False), 0, ""),
        (Exported(parity=1e-3), 1, "differs"),
        (Exported(parity=math.nan), 1, "differs"),
        (Exported(parity=1e-7), 0, ""),
        (Exported(parity=1.5e-5, rounding=1e-5), 0, ""),
        (Exported(parity=2.5e-5, rounding=1e-5), 1, "differs"),
        (Exported(parity=1e-3, rounding=math.nan), 1, "differs"),
        (Distilled(interrupted=False, rounds=1, steps=1, minutes=0.0, parity=1e-3), 1, "differs"),
        (Distilled(interrupted=True, rounds=1, steps=1, minutes=0.0), 130, "--resume"),
        (LoopReport(controller=EMERGENCY, loop={}, bundles={}), 1, "fell over"),
        (LoopReport(controller=EMERGENCY | {"state": "disarmed"}, loop={}, bundles={}), 0, ""),
    ],
)
def test_every_outcome_has_its_exit_status_and_at_most_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: Result | BaseException,
    status: int,
    words: str,
) -> None:
    monkeypatch.delenv("BARKOUR_DEBUG", raising=False)
    assert _main(monkeypatch, outcome) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if "chatter" not in line]
    assert len(lines) == (1 if status else 0)
    assert words in " ".join(lines)


def test_debug_shows_where_an_unexpected_error_arose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BARKOUR_DEBUG", "1")
    with pytest.raises(RuntimeError, match="surprise"):
        _main(monkeypatch, RuntimeError("surprise"))


def test_training_without_its_extra_says_what_to_install(tmp_path: Path) -> None:
    done = call("train", "walk", "--steps", "1", cwd=tmp_path, block=("jax", "brax"))
    assert_one_line(done, "jax", "pip install 'barkour[train]'")


# --- every command ---------------------------------------------------------------------------------------------------


def commands() -> dict[str, barkour.Subcommand]:
    """Every command as it is written."""
    found = {}
    for word, each in barkour.COMMANDS.items():
        inner = each.commands.items() if isinstance(each, barkour.Group) else [("", each)]
        found |= {f"{word} {name}".strip(): command for name, command in inner}
    return found


@pytest.mark.parametrize("name", ["", "recipe", "ros", "bench", "distill", *commands()])
def test_help_fits_a_terminal_of_80_columns_and_names_every_option(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        barkour.parse([*name.split(), "--help"])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and max(map(len, text.splitlines())) <= 80
    for field in dataclasses.fields(commands()[name].options) if name in commands() else ():
        positional = field.default is dataclasses.MISSING or field.metadata.get("positional")
        assert positional or f"--{field.name.replace('_', '-')}" in text


@pytest.mark.parametrize("name", commands())
def test_every_command_has_its_function_and_its_options_explained(name: str) -> None:
    command = commands()[name]
    module, _, function = command.work.partition(":")
    tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text())
    assert function in [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert command.about and not command.about.startswith(command.options.__name__), "no description"


@pytest.mark.parametrize(
    ("arguments", "name", "options"),
    [
        (["onboard", "--bundle", "a.onnx", "--transport", "ros2"], "onboard loop", {"bundle": "a.onnx"}),
        (["onboard"], "onboard loop", {"transport": "sim"}),
        (["onboard", "--bundle", "b", "--replay", "a"], "onboard replay", {"recording": Path("a"), "bundle": "b"}),
        (["onboard", "--replay=a.rec"], "onboard replay", {"recording": Path("a.rec"), "bundle": None}),
        (["onboard", "replay", "a.rec"], "onboard replay", {"recording": Path("a.rec")}),
        (["recipe", "run", "ddk", "--seed", "3"], "recipe run", {"name": "ddk", "seed": 3}),
        (["recipe", "sweep", "ddk", "first"], "recipe sweep", {"names": ("ddk", "first")}),
        (["recipe", "sweep"], "recipe sweep", {"names": ()}),
        (["ros", "sim", "--seed", "1"], "ros sim", {"seed": 1}),
        (["bench", "physics"], "bench physics", {}),
        (["distill", "locomotion", "--courses", "a", "b"], "distill locomotion", {"courses": ("a", "b")}),
        (["distill", "language", "--data", "a", "b"], "distill language", {"data": (Path("a"), Path("b"))}),
    ],
)
def test_spellings_that_scripts_rely_on(arguments: list[str], name: str, options: dict) -> None:
    call = barkour.parse(arguments)
    assert call.name == name and vars(call.options).items() >= options.items()


# --- where it is started ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["robot", "sim", "policies", "distill"])
def test_a_foreign_package_before_ours_is_named_in_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("raise RuntimeError('a foreign package was imported')\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-m", "barkour", "score", "log.csv"], capture_output=True, text=True, timeout=120,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip
    assert_one_line(done, f"'{name}'", str(tmp_path), str(ROOT))


def test_a_current_folder_that_was_removed_is_one_line(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    program = f"import os, sys; os.rmdir({str(gone)!r}); import barkour; sys.exit(barkour.main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "recipe", "list"], capture_output=True, text=True, timeout=120, check=False,
        cwd=gone, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert_one_line(done, "the current folder")


def test_python_without_docstrings_is_one_line() -> None:
    assert_one_line(call("recipe", "list", PYTHONOPTIMIZE="2"), "-OO")


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "tr_TR.ISO8859-9", "PYTHONIOENCODING": "iso8859-9", "PYTHONUTF8": "0"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=["ascii", "turkish", "c"],
)
def test_every_locale_can_show_what_there_is(variables: dict[str, str], tmp_path: Path, good_log: Path) -> None:
    done = call("score", "--help", **variables)
    assert done.returncode == 0 and done.stderr == "" and "--touched-jump" in done.stdout
    named = good_log.rename(tmp_path / "lög 📦.csv")
    done = call("score", named, **variables)
    assert done.returncode == 0 and done.stderr == "" and "weave poles" in done.stdout
    assert_one_line(call("score", "nö 📦.csv", **variables), "csv")


def test_an_output_that_is_closed_or_full_is_no_traceback(good_log: Path) -> None:
    done = call("score", good_log, begin=">&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert call("score", good_log, begin="2>&-").returncode == 0
    assert call("score", "nowhere.csv", begin=">&- 2>&-").returncode == 2
    assert_one_line(call("score", good_log, begin=">/dev/full"))
    assert call("score", good_log, begin="| head -c 1").stderr == ""
    assert call("score", "nowhere.csv", begin="2>/dev/full").returncode == 2


@pytest.mark.parametrize("begin", ["2>&-", "<&- >&- 2>&-"])
def test_what_is_said_to_closed_streams_is_in_no_file(begin: str, tmp_path: Path) -> None:
    """The system gives their numbers to the files that are opened next."""
    ran = subprocess.run(
        ["sh", "-c", f'exec "$@" {begin}', "sh", sys.executable, "-c", TALKATIVE, str(tmp_path / "log.csv")],
        cwd=ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert (tmp_path / "log.csv").read_text() == "time,x,y\n" and ran.returncode == 2


@pytest.mark.parametrize("columns", ["1", "3", "20", "0", "-5", "abc", "9" * 30])
def test_help_and_results_are_shown_whatever_width_a_terminal_says(columns: str, good_log: Path) -> None:
    """In a process of its own: in a terminal of 4 columns tyro wraps its help for ever."""
    done = call("distill", "--help", COLUMNS=columns)
    assert done.returncode == 0 and done.stderr == "" and "locomotion" in done.stdout
    assert "weave poles" in call("score", good_log, COLUMNS=columns).stdout


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_keeps_no_checkpoints_ends_politely_too(
    kind: signal.Signals, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.signal(kind, signal.SIG_DFL)  # whatever started this one
    try:
        monkeypatch.setattr("sim.course.score.score", lambda _: signal.raise_signal(kind))
        assert barkour.main(["score", "log.csv"]) == 130
        assert capsys.readouterr().err == "barkour: interrupted\n" and signal.getsignal(kind) == signal.SIG_DFL
    finally:
        signal.signal(kind, before)


def test_a_terminal_that_closes_ends_nothing_under_nohup(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(_: Options) -> Result:
        signal.raise_signal(signal.SIGHUP)
        return Result(more={"done": True})

    monkeypatch.setattr("sim.course.score.score", work)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert barkour.main(["score", "log.csv", "--json"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_an_interrupt_of_which_a_library_makes_another_error_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an extension module does that is being imported."""

    def work(_: Options) -> Result:
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None
        raise AssertionError

    monkeypatch.setattr("sim.course.score.score", work)
    assert barkour.main(["score", "log.csv"]) == 130
    assert capsys.readouterr().err == "barkour: interrupted\n"


def test_an_import_that_swallows_interrupts_is_waited_for_and_then_the_command_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = "    signal.raise_signal(signal.SIGTERM)\n    whole = True\n"
    (tmp_path / "swallows.py").write_text(f"import signal\ntry:\n{asked}except BaseException:\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    def work(_: Options) -> Result:
        whole = import_module("swallows").whole
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)
        raise AssertionError(whole)

    monkeypatch.setattr("sim.course.score.score", work)
    before = signal.getsignal(signal.SIGALRM)
    assert barkour.main(["score", "log.csv"]) == 130
    assert capsys.readouterr().err == "barkour: interrupted\n" and signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_an_interrupt_that_python_swallows_comes_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As in what JAX has called when garbage is collected."""

    class Swallows:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work(_: Options) -> Result:
        del [Swallows()][0]
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)
        raise AssertionError

    monkeypatch.setattr("sim.course.score.score", work)
    before = sys.unraisablehook
    assert barkour.main(["score", "log.csv"]) == 130
    assert capsys.readouterr().err == "barkour: interrupted\n" and sys.unraisablehook is before


TALKATIVE = """
import os, subprocess, sys
import barkour, sim.course.score
from sim.errors import InputError
def work(options):
    with open(options.log, "w") as file:
        file.write("time,x,y\\n")
        for number in (1, 2):
            os.write(number, b"a library's warning")
        subprocess.run(["sh", "-c", "echo a child; echo of a child >&2"], stderr=2)
        raise InputError("the log is empty")
sim.course.score.score = work
sys.exit(barkour.main(["score", sys.argv[1]]))
"""


ASKED = {
    "while it is imported": "",
    "while it reads its arguments": "barkour.parse = lambda _: signal.raise_signal(kind)",
    "in code made of text": "import sim.course.score as s; s.score = lambda _: exec('signal.raise_signal(kind)')",
    "when it has ended": "sys.last = Last()",
}


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ASKED)
def test_whenever_the_command_line_is_asked_to_end_its_status_is_its_own(
    when: str, kind: signal.Signals, tmp_path: Path
) -> None:
    """Python's own handlers would make a traceback of it, and Python's end a kill."""
    (tmp_path / "difflib.py").write_text("import signal, sys\nif sys.kind: signal.raise_signal(sys.kind)\n"
                                         "def get_close_matches(*_): return []\n")  # fmt: skip
    early = when == "while it is imported"
    program = f"""
import os, signal, sys
kind = signal.Signals({int(kind)})
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.argv[0], sys.kind = "barkour", kind if {early} else 0
class Last:
    def __del__(self, kill=os.kill, me=os.getpid(), kind=kind):
        kill(me, kind)
import barkour
{ASKED[when]}
sys.exit(barkour.main(["score", "nowhere.csv"]))
"""
    (tmp_path / "started.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "-m", "started"], capture_output=True, text=True, timeout=120, check=False,
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])},
    )  # fmt: skip
    ended = when == "when it has ended"
    assert done.returncode == (2 if ended else 130), done.stderr
    assert done.stderr.count("\n") == 1 and ("nowhere.csv" if ended else "interrupted") in done.stderr


def test_a_full_disk_that_a_library_met_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def full(_: object) -> None:
        save_file({"a": np.zeros(4)}, tmp_path / "gone" / "a.safetensors")

    monkeypatch.setattr("sim.course.score.score", full)
    assert barkour.main(["score", "log.csv"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "No such file or directory" in said and "unexpected" not in said


def test_a_line_is_no_longer_than_people_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert fail(f"the class {'x' * 100_000} is not known") == 2
    said = capsys.readouterr().err
    assert len(said) < 3000 and said.startswith("barkour: the class x") and said.endswith("x is not known\n")


@pytest.mark.parametrize("value", ["nonsense", "osmesa", "EGL", " disable "])
def test_every_mujoco_gl_works_or_is_one_line(value: str) -> None:
    done = call("run", "--course", "moon", MUJOCO_GL=value)
    assert_one_line(done, "MUJOCO_GL" if value == "nonsense" else "")


def test_no_backend_of_matplotlib_is_believed(monkeypatch: pytest.MonkeyPatch, good_log: Path) -> None:
    """It would be refused when pictures are drawn, after hours."""
    monkeypatch.setenv("MPLBACKEND", "nope")
    assert barkour.main(["score", str(good_log), "--json"]) == 0
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.parametrize(
    ("name", "value", "file"),
    [
        ("MUJOCO_GL", "osmesa", "mujoco/rendering/classic/gl_context.py"),
        ("JAX_PLATFORMS", "abacus", "jax/_src/dispatch.py"),
        ("JAX_ENABLE_X64", "maybe", "jax/_src/config.py"),
        ("TORCH_LOGS", "no such backend", "torch/_logging/_internal.py"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "no such", "huggingface_hub/constants.py"),
    ],
)
def test_variables_that_a_library_cannot_start_with_are_one_line(
    name: str, value: str, file: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As PyOpenGL does where there is no OSMesa: an error of its own in the middle of an import."""
    monkeypatch.setenv(name, value)
    code = compile("def load(): raise RuntimeError('no such backend')", f"/x/site-packages/{file}", "exec")
    names: dict = {}
    exec(code, names)

    def work(_: Options) -> Result:
        return names["load"]()

    monkeypatch.setattr(barkour, "parse", lambda _: barkour.Call("run", work, Options(), False))  # type: ignore[arg-type]
    assert barkour.main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and f"{name}={value}" in said.err


@pytest.mark.parametrize("words", ["[enforce fail] can't allocate memory: you tried", "CUDA out of memory.",
                                   "RESOURCE_EXHAUSTED: Out of memory"])  # fmt: skip
def test_what_does_not_fit_is_one_line(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(_: Options) -> Result:
        raise RuntimeError(f"{words}\nand more\n")

    monkeypatch.setattr(barkour, "parse", lambda _: barkour.Call("run", work, Options(), False))  # type: ignore[arg-type]
    assert barkour.main([]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "memory" in said and "unexpected" not in said
