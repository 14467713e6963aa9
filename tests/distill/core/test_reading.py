"""Files of a run that are read back: whatever they have become in the meantime, the answer is one sentence at once."""

import json
import os

import pytest

from distill.core.checkpoints import write_json, write_text
from distill.core.errors import DistillError
from distill.core.reading import read_json, read_text


def changed(path, how: str) -> None:
    path.unlink()
    if how == "pipe":
        os.mkfifo(path)
    elif how == "device":
        path.symlink_to("/dev/zero")
    elif how == "folder":
        path.mkdir()
    elif how == "huge":
        with path.open("wb") as file:
            file.truncate(40 * 2**30)
    elif how == "nested":
        path.write_text("[" * 100_000)
    elif how == "bytes":
        path.write_bytes(b"\xff\xfe\x00")
    else:
        path.write_text('{"a": 1')


KINDS = ["pipe", "device", "folder", "huge", "nested", "bytes", "cut off"]


@pytest.mark.parametrize("how", KINDS)
def test_what_is_no_json_any_more_is_one_sentence(tmp_path, how):
    path = tmp_path / "summary.json"
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}
    changed(path, how)
    with pytest.raises(DistillError) as found:
        read_json(path)
    assert "\n" not in str(found.value) and "summary.json" in str(found.value)


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
