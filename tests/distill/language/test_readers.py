"""Readers of every form of rows: what no tokenizer reads is dropped and counted, whichever field it stands in."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from distill.core.errors import DistillError
from distill.language.compressor import read_tasks
from distill.language.examples import add_files, read_examples, require_different
from distill.language.knowledge import KnowledgeBase
from distill.language.labelled import classes_of, read_labelled
from distill.language.pictured import Pictures, read_pictured
from distill.language.spans import records
from distill.language.tagger import read_answers
from distill.language.visits import read_names, read_patients
from distill.methods.strategy_teaching.method import Library
from distill.methods.universal_ner.method import parsed

HALF = "a\ud800"
"""With half of a surrogate pair, which JSON can write."""
DEEP, DIGITS = "[" * 100_000 + "]" * 100_000, f"[{'9' * 5000}]"
ANSWER = '[{"drug": "aspirin", "event": "pain"}]'


def pictured(path: Path) -> Any:
    Image.new("RGB", (4, 4)).save(path.parent / "a.png")
    return read_pictured([path], Pictures(None), "<image>")


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
READERS: dict[str, tuple[Any, dict[str, Any], list[dict[str, Any]]]] = {
    "labelled": (lambda path: read_labelled([path]), {"text": "a", "label": "b"}, [{"text": HALF}, {"label": HALF}]),
    "compressor": (
        lambda path: read_tasks([path]), {"demonstrations": ["a", "b"], "prompt": "c", "completion": "d"},
        [{"demonstrations": ["a", HALF]}, {"demonstrations": HALF}, {"demonstrations": []}, {"prompt": HALF},
         {"completion": HALF}],
    ),
    "tagger": (
        lambda path: read_answers([path], ("drug", "event")),
        {"text": "aspirin and pain", "mentions": ["aspirin"], "answer": ANSWER},
        [{"text": HALF}, {"mentions": ["aspirin", HALF]}, {"mentions": 5}, {"mentions": [5]}, {"mentions": None},
         {"answer": HALF}],
    ),
    "patients": (
        lambda path: read_patients([path]), {"visits": [{"diagnoses": ["a"], "medications": ["b"]}]},
        [{"visits": [{"diagnoses": [HALF]}]}, {"visits": [{"diagnoses": ["a"], "medications": [HALF]}]},
         {"profile": {"a": HALF}}, {"profile": {HALF: "a"}}, {"text": HALF}],
    ),
    "pictured": (
        pictured, {"image": "a.png", "prompt": "a", "answer": "b"},
        [{"prompt": HALF}, {"answer": HALF}, {"rejected": HALF}, {"rejected": "b", "prompt": HALF}, {"prompt": 5},
         {"prompt": True}, {"answer": {"a": 1}}, {"messages": [{"role": HALF, "content": "a"}, TURNS[1]]},
         {"messages": [{"role": "user", "content": 5}, TURNS[1]]}],
    ),
    "examples": (
        read_examples, {"messages": TURNS},
        [{"tools": "{"}, {"tools": DEEP}, {"tools": DIGITS}, {"tools": 5}, {"tools": {"a": 1}}, {"tools": ["a"]},
         {"messages": [{"role": "user", "content": HALF}, TURNS[1]]}],
    ),
}  # fmt: skip


def count_of(found: Any) -> int:
    for name in ("texts", "rows", "examples"):
        if hasattr(found, name):
            value = getattr(found, name)
            return value if isinstance(value, int) else len(value)
    raise AssertionError(found)


@pytest.mark.parametrize("name", READERS)
def test_what_no_tokenizer_reads_is_dropped_and_counted(name: str, tmp_path: Path) -> None:
    read, good, changes = READERS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**good, **change}) + "\n" for change in ({}, *changes)))
    found = read(path)
    assert count_of(found) == 1 and sum(found.dropped.values()) == len(changes), found.dropped


@pytest.mark.parametrize("ending", [".jsonl", ".json"])
def test_a_field_that_stands_twice_is_refused(ending: str, tmp_path: Path) -> None:
    row = '{"text": "a", "label": "b", "text": "c"}'
    path = tmp_path / f"rows{ending}"
    path.write_text(row if ending == ".jsonl" else f"[{row}]")
    with pytest.raises(DistillError, match="the field 'text' twice"):
        read_labelled([path])


def test_names_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "names.jsonl"
    for bad in ({"code": HALF, "name": "a"}, {"code": "a", "name": HALF}):
        path.write_text(json.dumps(bad))
        with pytest.raises(DistillError, match="line 1"):
            read_names(path, {})
    path.write_text("")
    with pytest.raises(DistillError, match="holds no name"):
        read_names(path, {})


@pytest.mark.parametrize(
    "row", [{"scenario": None}, {"scenario": HALF}, {"strategies": "abc"}, {"strategies": [None]}, {"origin": HALF}]
)
def test_a_library_holds_texts_alone(row: dict[str, Any], tmp_path: Path) -> None:
    good = {"scenario": "a", "strategies": ["b"], "origin": None}
    (tmp_path / "library.jsonl").write_text(json.dumps(good) + "\n")
    assert Library.load(tmp_path / "library.jsonl").lessons[0].origin == ""
    (tmp_path / "library.jsonl").write_text(json.dumps({**good, **row}) + "\n")
    with pytest.raises(DistillError, match="holds no library"):
        Library.load(tmp_path / "library.jsonl")
    (tmp_path / "knowledge.jsonl").write_text(json.dumps({"question": HALF, "knowledge": "a"}) + "\n")
    with pytest.raises(DistillError, match="no text"):
        KnowledgeBase.load(tmp_path / "knowledge.jsonl")


@pytest.mark.parametrize("answer", [DEEP, DIGITS])
def test_an_answer_of_a_model_may_be_anything(answer: str, tmp_path: Path) -> None:
    from collections import Counter

    assert records(answer, ("a", "b"), Counter()) == [] and parsed(answer) == []
    row = {"text": "a", "entities": answer}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    assert read_examples(tmp_path / "rows.jsonl").examples[0].entities == {}  # type: ignore[union-attr]


def test_classes_that_are_long_numbers_are_in_the_order_of_their_letters() -> None:
    assert classes_of(["10", "9"]) == ["9", "10"]
    assert classes_of(["9" * 5000, "10"]) == ["10", "9" * 5000]


ROWS = '{"text": "a"}\n{"text": "b"}\n'
COPIES: dict[str, Callable[[Path, Path], object]] = {
    "a link": lambda old, new: new.symlink_to(old), "a hard link": os.link, "a copy": shutil.copyfile,
}  # fmt: skip


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("given", [("one/rows.jsonl", "two/more.jsonl"), ("one", "two"), (".",)])
def test_rows_that_are_given_twice_under_any_name_are_refused(how: str, given: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "one/rows.jsonl").write_text(ROWS)
    COPIES[how](tmp_path / "one/rows.jsonl", tmp_path / "two/more.jsonl")
    with pytest.raises(DistillError, match="given twice"):
        require_different([tmp_path / name for name in given])


def test_a_file_beside_its_folder_is_given_twice_and_licences_in_many_folders_are_not(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "LICENSE.md").write_text("the same everywhere")
        (tmp_path / name / "rows.jsonl").write_text(ROWS.replace("a", name))
        (tmp_path / name / "empty.jsonl").touch()
    require_different([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(DistillError, match="given twice"):
        require_different([tmp_path / "one", tmp_path / "one/LICENSE.md"])
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    require_different([tmp_path / "loop.jsonl"])  # that it is not there is said by its reader
    with pytest.raises(DistillError, match="do not exist"):
        read_examples(tmp_path / "loop.jsonl")


def test_two_files_of_one_name_are_both_among_those_that_were_read() -> None:
    files: dict[str, str] = {}
    for digest in ("1", "2", "1", "3"):
        add_files(files, {"rows.jsonl": digest}, "rows.jsonl")
    assert [*files.values()] == ["1", "2", "3"] and "rows.jsonl/rows.jsonl (3)" in files


def test_tables_with_a_column_twice_and_values_that_python_has_none_for_are_refused(tmp_path: Path) -> None:
    twice = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"])], names=["text", "text"])
    late = pyarrow.table({"text": pyarrow.array([2**62], pyarrow.timestamp("ms"))})
    for table, message in ((twice, "column 'text' twice"), (late, "cannot be read")):
        pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
        with pytest.raises(DistillError, match=message):
            read_examples(tmp_path / "rows.parquet")


def test_pages_of_a_table_that_do_not_fit_their_checksums_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"text": ["the first text", "the second text"]})
    pyarrow.parquet.write_table(
        table, path, compression="none", use_dictionary=False, write_statistics=False, write_page_checksum=True
    )
    content = path.read_bytes()
    path.write_bytes(content.replace(b"first", b"fifth", 1))
    with pytest.raises(DistillError, match="cannot be read"):
        read_examples(path)


def test_rows_without_one_that_can_be_used_say_why(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 1.5}\n')
    with pytest.raises(DistillError, match="no row has a text and a label .1 rows: a field is no text"):
        read_labelled([path])
