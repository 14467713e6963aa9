"""Locks on folders that are written, over two processes."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from matplotlib.figure import Figure

import barkour
from distill.core.checkpoints import write_json
from distill.core.errors import DistillError
from distill.core.folders import hold
from policies.evaluation import plots
from policies.evaluation.course_run import write_text
from policies.learning import curves
from policies.navigation.response import Response
from sim.errors import InputError
from sim.folders import LOCK, alone, makeable, replacing, writable
from sim.robots.description import default_robot

HOLDER = """
import sys, time
from pathlib import Path
from sim.folders import alone
with alone(Path(sys.argv[1])):
    print("here", flush=True)
    time.sleep(60)
"""
PARENT = """
import time
from multiprocessing import get_context
from distill.core.folders import end_with_parent

def work(path):
    end_with_parent()
    while True:
        open(path, "a").close()
        time.sleep(0.02)

if __name__ == "__main__":
    import sys
    get_context("spawn").Process(target=work, args=(sys.argv[1],)).start()
    print("here", flush=True)
    time.sleep(60)
"""


def begun(script: list[str]) -> subprocess.Popen:
    process = subprocess.Popen([sys.executable, *script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "here\n"
    return process


def test_a_second_process_is_refused_until_the_first_has_ended_however_it_ended(tmp_path):
    folder = tmp_path / "new" / "run"
    process = begun(["-c", HOLDER, str(folder)])
    with pytest.raises(InputError), alone(folder):
        pass
    with pytest.raises(DistillError):
        hold(folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    with alone(folder), alone(folder):  # the same process may ask twice
        lock = hold(folder)
        lock.release()
    hold(folder).release()


def test_a_folder_that_cannot_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError), alone(tmp_path / "file" / "run"):
        pass
    with pytest.raises(DistillError):
        hold(tmp_path / "file" / "run")


# What each command would do in the folder is not reached: it is refused before any work.
WRITERS = {
    "run": ["run", "--record", "FOLDER"],
    "evaluate": ["evaluate", "--runs", "1", "--report", "FOLDER"],
    "sim2sim": ["evaluate", "--runs", "1", "--sim2sim", "--report", "FOLDER"],
    "train": ["train", "walk", "--steps", "1000", "--out", "FOLDER"],
    "locomotion": ["distill", "locomotion", "--steps", "1000", "--out", "FOLDER"],
    "sweep": ["recipe", "sweep", "--out", "FOLDER"],
    "unitree course": ["unitree", "course", "--out", "FOLDER"],
    "ros referee": ["ros", "referee", "--out", "FOLDER"],
}


@pytest.mark.parametrize("words", WRITERS.values(), ids=WRITERS)
def test_every_command_that_writes_a_folder_leaves_another_programs_alone(tmp_path, capsys, words):
    if words[0] == "unitree":
        pytest.importorskip("cyclonedds")
    folder = tmp_path / "theirs"
    process = begun(["-c", HOLDER, str(folder)])
    (folder / "kept").write_text("theirs")
    try:
        status = barkour.main([word.replace("FOLDER", str(folder)) for word in words])
    finally:
        process.kill()
        process.wait()
    said = capsys.readouterr()
    assert status == 2 and said.err.count("\n") == 1 and str(folder) in said.err and not said.out
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "kept"]
    assert (folder / "kept").read_text() == "theirs"


@pytest.mark.parametrize("words", [["robot", "add"], ["distill", "card"]], ids=" ".join)
def test_a_folder_that_is_described_anew_is_left_alone_while_another_program_writes_it(tmp_path, capsys, words):
    folder = tmp_path / "theirs"
    (folder / "run").mkdir(parents=True)
    if words == ["robot", "add"]:
        model = tmp_path / "model.xml"
        model.write_text(re.sub(r"<site [^>]*/>", "", default_robot().mjcf.read_text()))
        words = [*words, "theirs", str(model), "--robots", str(tmp_path), "--force"]
    else:
        (folder / "summary.json").write_text('{"method": "gkd"}')
        (folder / "run" / "options.json").write_text('{"options": {}, "perplexity": 30.0}')
        words = [*words, str(folder)]
    process = begun(["-c", HOLDER, str(folder)])
    before = sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())
    try:
        status = barkour.main(words)
    finally:
        process.kill()
        process.wait()
    said = capsys.readouterr()
    assert status == 2 and said.err.count("\n") == 1 and "another process" in said.err and not said.out
    assert sorted((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file()) == before


def test_what_is_refused_leaves_no_folder_behind(tmp_path):
    words = ["train", "walk", "--robot", "nobody", "--out", str(tmp_path / "runs" / "walk")]
    assert barkour.main(words) == 2 and list(tmp_path.iterdir()) == []
    for kept in ("here", "there/below"):
        folder = tmp_path / kept
        (folder.mkdir if kept == "here" else (lambda: None))()
        with pytest.raises(InputError, match="no"), alone(folder):
            if kept != "here":
                (folder / "row").write_text("written")
            raise InputError("no")
    assert (tmp_path / "here").is_dir() and (tmp_path / "there" / "below" / "row").read_text() == "written"
    with pytest.raises(InputError, match="no"), alone(tmp_path / "a" / "b"), alone(tmp_path / "a" / "b"):
        raise InputError("no")
    assert not (tmp_path / "a").exists()


def test_of_two_that_write_a_file_at_once_one_is_there_whole(tmp_path):
    file = tmp_path / "file"
    with replacing(file) as first, replacing(file) as second:
        first.write_text("first")
        second.write_text("second")
        assert not file.exists()
    assert file.read_text() == "first"
    with pytest.raises(ValueError, match="midway"), replacing(file) as third:
        third.write_text("half")
        raise ValueError("midway")
    assert file.read_text() == "first" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("links", [True, False])
def test_of_two_that_make_a_file_at_once_the_first_is_kept(tmp_path, monkeypatch, links):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "a file system without links")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    file = tmp_path / "file"
    with pytest.raises(FileExistsError), replacing(file, new=True) as first, replacing(file, new=True) as second:
        first.write_text("first")
        second.write_text("second")
    assert file.read_text() == "second" and list(tmp_path.iterdir()) == [file]


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    script, trace = tmp_path / "parent.py", tmp_path / "trace"
    script.write_text(PARENT)
    process = begun([str(script), str(trace)])
    until = time.monotonic() + 60
    while not trace.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.wait()
    while time.monotonic() < until:  # the child touches the file as long as it lives
        trace.unlink(missing_ok=True)
        time.sleep(0.5)
        if not trace.exists():
            return
    raise AssertionError("the child goes on")


def test_a_pipe_that_stands_where_something_is_written_for_a_moment_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "said.partial")
    os.mkfifo(tmp_path / ".barkour-write-test")
    write_json(tmp_path / "said.json", {"a": 1})
    assert json.loads((tmp_path / "said.json").read_text()) == {"a": 1}
    assert writable(tmp_path) == tmp_path


def test_what_was_there_stays_where_the_disk_is_full(tmp_path, monkeypatch):
    file = tmp_path / "run.json"
    file.write_text("before")

    def full(path, text, **how):
        with path.open("w") as stream:
            stream.write(text[:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        write_text(file, "afterwards")
    with pytest.raises(OSError, match="No space"):
        Response.first_order(0.02).write(file)
    assert file.read_text() == "before" and [path.name for path in tmp_path.iterdir()] == ["run.json"]


def save_failures(path: Path) -> None:
    plots.score_histogram([0.5, 0.9], path, "scores")


def save_curve(path: Path) -> None:
    curves.plot([{"steps": 1, "reward": 0.1}], path, "a run")


@pytest.mark.parametrize("save", [save_failures, save_curve])
def test_a_picture_takes_the_place_of_a_pipe_and_leaves_the_one_before_where_the_disk_is_full(
    tmp_path, monkeypatch, spoil, save
):
    file = tmp_path / "curve.png"
    spoil(file, "pipe")
    save(file)
    before = file.read_bytes()
    assert before.startswith(b"\x89PNG")

    def full(figure, path, **options):
        Path(path).write_bytes(before[:9])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", full)
    with pytest.raises((InputError, OSError), match="No space"):
        save(file)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.parametrize("how", ["pipe", "device", "link to nothing", "empty"])
def test_a_folder_that_could_not_be_made_is_refused_before_anything_is(tmp_path, spoil, how):
    spoil(tmp_path / "place", how)
    for folder in (tmp_path / "place", tmp_path / "place" / "below" / "it"):
        with pytest.raises(InputError, match="cannot write"):
            makeable(folder)


def test_names_that_no_folder_can_have_are_refused(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    for name in ("n" * 300, "/".join(["d" * 200] * 30), "loop", "loop/below"):
        with pytest.raises(InputError, match="cannot write"):
            makeable(tmp_path / name)


def test_what_could_be_made_is_not_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "new" / "folder", Path("here"), Path(".")):
        assert makeable(folder) == folder
    (tmp_path / "link").symlink_to(tmp_path)
    assert makeable(tmp_path / "link" / "below") and [each.name for each in tmp_path.iterdir()] == ["link"]
