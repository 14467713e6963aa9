"""Files of a run that are read back: whatever they have become in the meantime, the answer is one sentence at once."""

import json
import os
import resource
import signal

import numpy as np
import pytest
import torch

import distill.core.errors
import sim.errors
from distill.core import checkpoints, reading
from distill.core.checkpoints import write_json, write_text
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.reading import files_below, read_json, read_text
from distill.core.shards import Shards


@pytest.fixture
def changed(spoil):
    """As `spoil`, and text that is no JSON."""

    def change(path, how: str) -> None:
        texts = {
            "nested": b"[" * 100_000,
            "bytes": b"\xff\xfe\x00",
            "cut off": b'{"a": 1',
            "twice": b'{"a": 1, "a": 2}',
        }
        if how in texts:
            path.write_bytes(texts[how])
        else:
            spoil(path, how)

    return change


KINDS = ["pipe", "device", "folder", "huge", "nested", "bytes", "cut off", "twice"]


@pytest.mark.parametrize("how", KINDS)
def test_what_is_no_json_any_more_is_one_sentence(tmp_path, how, changed):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    changed(path, how)
    with pytest.raises(DistillError) as found:
        read_json(path)
    assert "\n" not in str(found.value) and "summary.json" in str(found.value)


@pytest.mark.parametrize("name", ["state.json", "tensors.pt", "SHA256SUMS"])
@pytest.mark.parametrize("sums", [True, False])
def test_a_checkpoint_with_a_pipe_is_refused_at_once(tmp_path, name, sums, changed):
    checkpoint = checkpoints.save(tmp_path, {"a": 1}, {"t": torch.zeros(2)})
    if not sums:  # as those of before there were checksums
        (checkpoint / "SHA256SUMS").unlink()
        write_json(checkpoint / "state.json", {"a": 1})
    if (checkpoint / name).exists():
        changed(checkpoint / name, "pipe")
        with pytest.raises(DistillError, match="checkpoint"):
            checkpoints.load(checkpoint)


@pytest.mark.parametrize("name", ["index.json", "shard_00000/x.npy"])
def test_experience_with_a_pipe_is_refused_at_once(tmp_path, name, changed):
    Shards(tmp_path).append({"x": np.zeros((2, 1))}, [2], {})
    changed(tmp_path / name, "pipe")
    with pytest.raises(DistillError, match="regular"):
        Shards(tmp_path)


def test_a_log_with_other_lines_is_drawn_without_them_and_a_pipe_is_not_waited_for(tmp_path, changed):
    with Journal(tmp_path) as journal:
        journal.add(1, {"loss": 0.5})
        journal.add(2, {"loss": 0.25})
        with (tmp_path / "log.jsonl").open("a") as log:
            log.write("[" * 100_000 + '\n7\n{"kind": "fit"}\n{"kind": "fit", "step": []}\n{"kind"')
        assert [row["loss"] for row in journal.rows("fit")] == [0.5, 0.25]
        changed(tmp_path / "log.jsonl", "pipe")
        with pytest.raises(DistillError, match="regular"):
            journal.add(3, {"loss": 0.1})


@pytest.mark.parametrize("kind", [distill.core.errors, sim.errors])
def test_an_error_of_a_library_is_one_line_even_where_it_says_nothing(kind):
    assert kind.first_line(MemoryError()) == "MemoryError" and kind.first_line(KeyError("a\nb")) == r"'a\nb'"
    assert kind.first_line(ValueError("\n one\ntwo")) == "one"


def test_a_file_that_is_not_there_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


def test_numbers_are_read_as_asked(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("\ufeff[1, 2.5]", encoding="utf-8")
    assert read_json(path, parse_int=lambda word: f"<{word}>") == ["<1>", 2.5]


def test_what_cannot_be_written_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    write_text(path, "before\u2028")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        write_text(path, "after")
    assert read_text(path) == "before\u2028"
    assert json.dumps(read_text(path))


@pytest.mark.parametrize("room", [0, 100, 5_000], ids=["none", "of the header", "of a part"])
def test_a_checkpoint_that_a_full_disk_cannot_take_says_so(room, tmp_path):
    checkpoints.save(tmp_path, {"step": 1}, {"a": torch.zeros(10)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    heard = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(DistillError, match="File too large; the one before is kept"):
            checkpoints.save(tmp_path, {"step": 2}, {"a": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heard)
    assert checkpoints.load(checkpoints.newest(tmp_path))[0]["step"] == 1


def test_files_are_found_below_a_folder_by_name(tmp_path):
    for name in ("b.txt", "a/c.txt", "a/b/d.md", "a.txt/e.csv", "f.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    (tmp_path / "a/loop").symlink_to(tmp_path)
    names = [str(path.relative_to(tmp_path)) for path in files_below(tmp_path, {".txt", ".md"})]
    assert names == ["a/b/d.md", "a/c.txt", "b.txt", "f.md"]


@pytest.mark.parametrize("nested", [True, False])
def test_a_folder_of_mostly_other_things_is_not_searched_to_its_end(tmp_path, monkeypatch, nested):
    monkeypatch.setattr(reading, "MOST_OTHERS", 20)
    place = tmp_path
    for i in range(30):
        if nested:
            place = place / "d"
            place.mkdir()
        else:
            (tmp_path / f"{i}.bin").write_text("")
        (place / f"{i}.txt").write_text("")
    with pytest.raises(DistillError, match="more than 20"):
        files_below(tmp_path, [".txt"])
    assert len(files_below(tmp_path / "d/d/d/d/d/d/d/d/d/d/d", [".txt"]) if nested else [0] * 20) == 20


@pytest.mark.parametrize("how", ["missing", "a file", "closed"])
def test_a_folder_that_cannot_be_searched_is_refused_and_nothing_left_out(tmp_path, how, monkeypatch):
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "closed").mkdir()
    if how == "closed":  # root may read every folder
        scan = os.scandir

        def refuse(path):
            if str(path).endswith("closed"):
                raise PermissionError(13, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DistillError) as found:
        files_below({"missing": tmp_path / "b", "a file": tmp_path / "a.txt", "closed": tmp_path}[how], [".txt"])
    assert "\n" not in str(found.value) and str(tmp_path) in str(found.value)
