"""A user's own data are read as their writers meant, or refused in one line; what is dropped is counted."""

import hashlib
import json
import math
from collections import Counter

import pytest

from distill.core.errors import DistillError
from distill.language.data import read_folder
from distill.language.examples import (
    EMPTY,
    NO_ANSWER,
    NO_CALLS,
    NO_SPEAKER,
    NO_WEIGHT,
    NOT_TEXT,
    Chat,
    Pair,
    Text,
    read_examples,
    rows_with,
)

ASKED = Chat(({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}))
ROWS = {
    "text": ({"text": "t", "source": "web"}, Text("t")),
    "pair": ({"prompt": "p", "completion": "c"}, Pair("p", "c")),
    "question": ({"question": "q", "answer": "a"}, ASKED),
    "alpaca": (
        {"instruction": "q", "input": "x", "output": "a"},
        Chat(({"role": "user", "content": "q\n\nx"}, {"role": "assistant", "content": "a"})),
    ),
    "alpaca without input": ({"instruction": "q", "input": "", "output": "a"}, ASKED),
    "messages": ({"messages": list(ASKED.messages)}, ASKED),
    "messages in parts": (
        {"messages": [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in ASKED.messages]},
        ASKED,
    ),
    "pair of messages": ({"prompt": [ASKED.messages[0]], "completion": [ASKED.messages[1]]}, ASKED),
    "alpaca with what came before": (
        {"instruction": "q", "input": "", "output": "a", "system": "s", "history": [["one", "two"]]},
        Chat(({"role": "system", "content": "s"}, {"role": "user", "content": "one"},
              {"role": "assistant", "content": "two"}, *ASKED.messages)),
    ),
    "conversations": (
        {"system": "s", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        Chat(({"role": "system", "content": "s"}, *ASKED.messages)),
    ),
    "conversations of messages": ({"conversations": list(ASKED.messages)}, ASKED),
    "conversations with calls": (
        {"conversations": [
            {"from": "human", "value": "q"}, {"from": "function_call", "value": '{"name": "f", "arguments": {"n": 1}}'},
            {"from": "observation", "value": "2"}, {"from": "gpt", "value": "a"},
        ], "tools": '[{"name": "f"}]'},
        Chat(
            (ASKED.messages[0], {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "function": {"name": "f", "arguments": {"n": 1}}}]},
             {"role": "tool", "content": "2"}, ASKED.messages[1]),
            ({"name": "f"},),
        ),
    ),
    "weights": (
        {"messages": [
            {"role": "user", "content": "q", "weight": None}, {"role": "assistant", "content": "no", "weight": 0},
            *({**turn, "weight": 1} for turn in ASKED.messages), {"role": "assistant", "content": "no", "weight": 0},
        ]},
        Chat((ASKED.messages[0], {"role": "assistant", "content": "no"}, *ASKED.messages), unlearned=(1,)),
    ),
    "tools": ({"messages": list(ASKED.messages), "tools": '[{"n": 1}]'}, Chat(ASKED.messages, ({"n": 1},))),
}  # fmt: skip


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
def test_every_form_is_read_from_every_kind_of_file(form, ending, tmp_path):
    row, wanted = ROWS[form]
    path = tmp_path / f"data.{ending}"
    if ending == "parquet":
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist([row, row]), path)
    else:
        path.write_text(json.dumps([row, row]) if ending == "json" else f"{json.dumps(row)}\n\n{json.dumps(row)}\n")
    found = read_examples(path)
    assert found.examples == [wanted, wanted] and not found.dropped
    assert list(found.files) == [path.name] and len(found.files[path.name]) == 64


def test_tables_and_documents_of_a_folder_are_read_in_order(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "excel.csv").write_bytes('\ufefftext,category\r\n"one, two",x\r\nshort\r\n'.encode())
    (tmp_path / "a.txt").write_text("Chapter one\tThe pump\nIt stood.\n")
    (tmp_path / "c.md").write_bytes("\ufeff# Title".encode())
    (tmp_path / "picture.png").write_bytes(b"\0")
    found = read_examples(tmp_path)
    assert found.examples == [
        Text("Chapter one\tThe pump\nIt stood.\n"), Text("one, two"), Text("short"), Text("# Title"),
    ]  # fmt: skip
    assert list(found.files) == ["a.txt", "b/excel.csv", "c.md"]


def test_line_ends_of_other_alphabets_are_part_of_a_text(tmp_path):
    rows = [{"question": "line one\u2028line two\u0085?", "answer": "a\nb"}] * 2
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    found = read_examples(tmp_path / "a.jsonl").examples
    assert len(found) == 2 and found[0].messages[0]["content"] == "line one\u2028line two\u0085?"


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "q", "answer": None}, EMPTY), ({"text": "  "}, EMPTY), ({"text": 3}, NOT_TEXT),
        ({"question": "a \ud83d", "answer": "x"}, NOT_TEXT), ({"messages": []}, EMPTY),
        ({"messages": [{"role": "user", "content": "hi"}]}, NO_ANSWER), ({"messages": ["hi"]}, NOT_TEXT),
        ({"messages": [{"role": "assistant", "content": None}]}, EMPTY),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": "f"}]}, NO_CALLS),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, NO_CALLS),
        ({"messages": [{"role": "\ud800", "content": "hi"}, ASKED.messages[1]]}, NOT_TEXT),
        ({"messages": list(ASKED.messages), "tools": [{"name": "\ud800"}]}, NOT_TEXT),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": [{"arguments": "\ud800"}]}]}, NOT_TEXT),
        ({"messages": [{"role": "user", "content": "hi", "weight": math.nan}, ASKED.messages[1]]}, NO_WEIGHT),
        ({"messages": [{"role": "user", "content": "hi", "about": math.nan}, ASKED.messages[1]]}, NOT_TEXT),
        ({"messages": [ASKED.messages[0], {**ASKED.messages[1], "weight": "0"}]}, NO_WEIGHT),
        ({"messages": [ASKED.messages[0], {**ASKED.messages[1], "weight": 0}]}, NO_ANSWER),
        ({"conversations": [{"from": "narrator", "value": "q"}, {"from": "gpt", "value": "a"}]}, NO_SPEAKER),
        ({"conversations": [{"from": ["gpt"], "value": "a"}]}, NO_SPEAKER), ({"conversations": "q"}, NOT_TEXT),
        ({"conversations": [{"from": "function_call", "value": "f(1)"}]}, NO_CALLS),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": None}]}, EMPTY),
        ({"instruction": "q", "output": "a", "history": [["one"]]}, NOT_TEXT),
        ({"instruction": "q", "output": "a", "system": 3}, NOT_TEXT),
    ],
)  # fmt: skip
def test_rows_without_content_are_dropped_and_counted(row, why, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + '\n{"text": "kept"}\n' + json.dumps(row))
    found = read_examples(tmp_path)
    assert found.examples == [Text("kept")] and found.dropped == Counter({why: 2})
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    with pytest.raises(DistillError, match="no example") as error:
        read_examples(tmp_path)
    assert why in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text"\n'), ("a.jsonl", b'["q", "a"]\n'), ("a.jsonl", b'{"words": "x"}\n'),
        ("a.json", b'{"text": "x"}'), ("a.json", b"["), ("a.txt", "caf\u00e9".encode("latin-1")),
        ("a.parquet", b"PAR1 not really"), ("a.csv", b"a,b\n1,2\n"), ("a.csv", b"text,text\na,b\n"),
        ("a.csv", b"text,label\nfine,x\nwith, a comma,x\n"), ("a.csv", b"text\na\0b\n"), ("a.csv", b'text\n"a"b\n'),
        ("a.csv", b'text\n"a, b\n'), ("a.csv", b'text,"label\n'), ("a.doc", b"x"), ("a.jsonl", b""),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line_with_its_place(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DistillError) as error:
        read_examples(path)
    assert len(str(error.value).splitlines()) == 1 and str(error.value).count(str(path)) == 1


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "txt", "md"])
def test_a_file_that_would_fill_the_memory_is_refused_before_it_is_read(ending, tmp_path):
    with (tmp_path / f"a.{ending}").open("wb") as file:
        file.truncate(40 << 30)
    for read in (read_examples, read_folder) if ending not in ("parquet",) else (read_examples,):
        with pytest.raises(DistillError) as error:
            read(tmp_path)
        assert len(str(error.value).splitlines()) == 1


def test_names_of_files_are_shown_without_what_could_write_to_a_terminal(tmp_path):
    (tmp_path / "a\x1b[2J.txt").write_text("some text")
    assert list(read_folder(tmp_path).texts) == ["a\\x1b[2J"]


def test_a_missing_path_and_an_empty_folder_are_one_line(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(DistillError, match=str(path)):
            read_examples(path)


def test_rows_of_several_paths_have_the_fields_that_are_wanted_and_their_hashes(tmp_path):
    for name, row in (("a", {"text": "x", "label": 1}), ("b", {"text": "y", "category": 2, "more": None})):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(row))
    files: dict[str, str] = {}
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    found = [row for _, row in rows_with(paths, ("text", "label|category"), files)]
    assert [row["text"] for row in found] == ["x", "y"]
    wanted = {f"{path.name}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
    assert files == wanted
    for fields in (("text", "label"), ("more",)):
        with pytest.raises(DistillError, match=f"wanted are {', '.join(fields)}"):
            list(rows_with(paths, fields, {}))
    (tmp_path / "a.jsonl").write_text("[1]")
    with pytest.raises(DistillError, match="list"):
        list(rows_with(paths, ("text",), {}))
