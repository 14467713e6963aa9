"""A user's own data, in the field's forms: plain text, prompts with completions, conversations.

| form of a row | becomes |
|---|---|
| `text` | `Text` |
| `prompt`, `completion` (strings, or lists of messages) | `Pair`, or `Chat` |
| `messages`, with `tools` where a template takes them | `Chat` |
| `conversations` of turns with `from` and `value` (ShareGPT), with `system`, `tools` | `Chat` |
| `question`, `answer` | `Chat` of two turns |
| `instruction`, `input`, `output` (Alpaca), with `system`, `history` | `Chat` of two turns, or more |

A turn of the assistant with the `weight` 0 is read and not learned. A `text` may have its `entities` beside it;
questions with answers, Alpaca's rows and pairs of strings a `rationale` and the `knowledge` that the answer takes: for
methods that learn them.

Rows stand in `.jsonl`, `.json` (one list), `.csv` and `.parquet` files; a `.txt` or `.md` file is one `Text`. A row
without content is dropped and counted; a file that cannot be read, or rows of no known form, stop the reading with one
line.
"""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from distill.core.errors import DistillError, first_line
from distill.core.reading import files_below, unique

Line = TypeVar("Line", str, bytes)
FORMS = "text | prompt, completion | messages | conversations | question, answer | instruction, input, output"
HUB = "datasets:"
"""Before the name of a data set of the Hugging Face hub."""
LARGEST_WHOLE, LONGEST_LINE = 1 << 30, 1 << 26
"""Bytes of a file that is read as a whole, and characters of a line of the others; more fills the memory."""
EMPTY, NOT_TEXT, NO_ANSWER = "a field is empty or missing", "a field is no text", "no turn of the assistant"
NO_TOOLS, NO_CALLS = "tools that are no list of objects", "calls of tools that are no list of objects"
NO_ROUTE, NO_WEIGHT, NO_SPEAKER = (
    "no teacher is named", "a turn's weight is neither 0 nor 1", "a turn of nobody who is known"
)  # fmt: skip
"""Why rows are dropped."""
SPEAKERS = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "function_call": "assistant", "system": "system", "observation": "tool", "tool": "tool",
}  # fmt: skip
"""Who ShareGPT's turns are `from` -> their roles."""
TWICE = "what is held out of one copy is in the other"


@dataclass(frozen=True)
class Text:
    """A document, every token of which is learned."""

    text: str
    entities: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Type -> mentions in it, where the data say so."""


@dataclass(frozen=True)
class Pair:
    """A prompt and what follows it directly; the completion is learned."""

    prompt: str
    completion: str
    rationale: str = ""
    """Why, where the data say so."""
    knowledge: str = ""
    """What one must know to answer, where the data say so."""


@dataclass(frozen=True)
class Chat:
    """A conversation, of which the assistant's turns are learned."""

    messages: tuple[Mapping[str, Any], ...]
    """Each with `role` and `content`."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """As chat templates take them."""
    unlearned: tuple[int, ...] = ()
    """Places of the assistant's turns that are read and not learned; the last turn is none."""
    rationale: str = ""
    """Why the last turn answers so, where the data say so."""
    knowledge: str = ""
    """What one must know to answer, where the data say so."""

    @property
    def answers(self) -> list[int]:
        """Places of the turns that are learned."""
        turns = enumerate(self.messages)
        return [i for i, turn in turns if turn["role"] == "assistant" and i not in self.unlearned]


Example = Text | Pair | Chat


@dataclass
class Reading:
    """What was found at one path."""

    examples: list[Example] = field(default_factory=list[Example])
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Reason -> rows."""
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name, relative to the path -> SHA-256."""
    routes: list[str] = field(default_factory=list[str])
    """Of each example, what the column says that was asked for; empty where none was."""


def require_different(paths: Sequence[Path]) -> None:
    """Raises `DistillError` where data are given twice, under whatever name: what is held out of one copy would be
    learned. Files of rows are the same where their bytes are; documents may be, as licences in many folders are."""
    places = [str(path) if str(path).startswith(HUB) else os.path.realpath(path) for path in paths]
    twice = next((path for i, path in enumerate(paths) if places[i] in places[:i]), None)
    if twice is not None:
        raise DistillError(f"the data {twice} are given twice: {TWICE}")
    found = [(number, file, file.stat()) for number, path in enumerate(paths) for file in _files(path)]
    sizes = Counter(status.st_size for _, _, status in found)
    known: dict[Any, tuple[int, Path]] = {}
    for number, file, status in found:
        rows = READERS[file.suffix] is not _document
        marks: list[Any] = [(status.st_dev, status.st_ino)]
        if rows and status.st_size and sizes[status.st_size] > 1:
            marks.append(_digest(file))
        for mark in marks:
            owner, other = known.setdefault(mark, (number, file))
            if other is not file and (rows or owner != number):
                raise DistillError(f"the data {file} are given twice, as {other} too: {TWICE}")


def add_files(files: dict[str, str], more: Mapping[str, str], below: str = "") -> None:
    """Adds files with their digests, `below` before their names; a name that another file has already gets a number."""
    for name, digest in more.items():
        wanted = place = f"{below}/{name}" if below else name
        number = 1
        while files.get(place, digest) != digest:
            number += 1
            place = f"{wanted} ({number})"
        files[place] = digest


def reasons(dropped: Mapping[str, int], otherwise: str = "its files are empty") -> str:
    """Why rows were dropped, for an error's line."""
    return ", ".join(f"{count} rows: {reason}" for reason, count in dropped.items() if count) or otherwise


def read_examples(path: Path | str, limit: int = 0, route: str = "") -> Reading:
    """Reads a file, or every file of a known ending below a folder in the order of their names.

    A folder that `datasets` saved is read by it, and `datasets:NAME,CONFIG:SPLIT` from its hub, row by row as it comes.
    After `limit` examples, where it is not 0, no more is read. What rows have in the column `route` is kept beside
    them; those without are dropped.

    Raises:
      DistillError: nothing is there, nothing of a known form, a damaged file, or no example at all.
    """
    path, found = Path(path), Reading()
    for where, row in each_row(path, found.files):
        if limit and len(found.examples) >= limit:
            break
        _take(found, row, where, route)
    if not found.examples:
        raise DistillError(f"{path} holds no example ({reasons(found.dropped)})")
    return found


def rows_with(
    paths: Sequence[Path], wanted: Sequence[str], files: dict[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every row of files or folders, with the words that say where it stands.

    Args:
      wanted: names of the fields that each row must have, whatever is in them; `a|b` wants one of the two at least.
      files: is given each file's SHA-256 by its name, below that of its path.

    Raises:
      DistillError: nothing there, or a row with other fields.
    """
    for path in paths:
        digests: dict[str, str] = {}
        for where, row in each_row(path, digests):
            there = list(row) if isinstance(row, Mapping) else [type(row).__name__]
            if not isinstance(row, Mapping) or not all(set(name.split("|")) & set(row) for name in wanted):
                names = ", ".join(name.replace("|", " or ") for name in wanted)
                raise DistillError(f"{where}: the fields are {', '.join(map(str, there))}; wanted are {names}")
            yield where, row
        add_files(files, digests, path.name)


def each_row(path: Path, digests: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Every row of a file, or of the files of a known ending below a folder, with the words that say where it stands.

    `digests` is given each file's SHA-256 by its name, relative to the path. Errors as of `read_examples`.
    """
    if str(path).startswith(HUB):
        yield from _from_datasets(str(path), _hub(str(path).removeprefix(HUB), str(path)), digests)
        return
    if not path.exists():
        raise DistillError(f"the data {path} do not exist")
    if _is_saved(path):
        yield from _from_datasets(str(path), _saved(path), digests)
        return
    files = _files(path)
    if not files:
        raise DistillError(f"{path} holds no data in a form that is read: {', '.join(READERS)}")
    for file in files:
        name = file.name if file == path else str(file.relative_to(path))
        try:
            digests[name] = _digest(file)
            for where, row in READERS[file.suffix](file):
                yield f"{file}, {where}", row
        except DistillError:
            raise
        except UnicodeDecodeError as error:
            raise DistillError(f"{file} is not UTF-8 (byte {error.start}): save it as UTF-8") from error
        except (OSError, csv.Error, ValueError, RecursionError) as error:
            raise DistillError(f"{file} cannot be read: {first_line(error)}") from error


def _files(path: Path) -> list[Path]:
    """The file, or every file below the folder in the order of their names, of a known ending."""
    if str(path).startswith(HUB) or _is_saved(path):
        return []
    every = files_below(path, READERS) if path.is_dir() else [path]
    return [file for file in every if file.suffix in READERS and file.is_file()]


def _digest(file: Path) -> str:
    """SHA-256 of a file. Raises `DistillError` where it cannot be read with bounded memory, or not at all."""
    try:
        check_size(file)
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise DistillError(f"{file} cannot be read: {first_line(error)}") from error


def _from_datasets(path: str, rows: Any, digests: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Rows of a data set of `datasets`; its fingerprint, or its name and version, stands for the files."""
    mark = str(getattr(rows, "_fingerprint", "") or getattr(getattr(rows, "info", None), "version", ""))
    digests[path] = hashlib.sha256(f"{path} {mark}".encode()).hexdigest()
    number, each = 0, iter(rows)
    while True:
        try:
            row = next(each, None)
        except Exception as error:  # network, archives, scripts: what it raises is its own affair
            raise DistillError(f"{path} cannot be read: {first_line(error)}") from error
        if row is None:
            return
        number += 1
        yield f"{path}, row {number}", row


def _datasets(path: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DistillError(f"{path} needs datasets: pip install 'barkour[data]'") from error
    return datasets


def _is_saved(path: Path) -> bool:
    return any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json"))


def _saved(path: Path) -> Any:
    datasets = _datasets(str(path))
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:
        raise DistillError(f"{path} cannot be read: {first_line(error)}") from error
    if isinstance(found, dict):
        raise DistillError(f"{path} has the splits {', '.join(found)}: give the folder of one")
    return found


def _hub(name: str, path: str) -> Any:
    """`NAME`, `NAME:SPLIT` or `NAME,CONFIG:SPLIT`; the split is train where none is said."""
    where, _, split = name.partition(":")
    source, _, config = where.partition(",")
    try:
        return _datasets(path).load_dataset(source, config or None, split=split or "train", streaming=True)
    except DistillError:
        raise
    except Exception as error:
        raise DistillError(f"{path} cannot be loaded: {first_line(error)}") from error


def _take(found: Reading, row: Any, where: str, route: str) -> None:
    if not isinstance(row, Mapping):
        raise DistillError(f"{where}: a row is an object with the fields {FORMS}, got {type(row).__name__}")
    example = _example(row, where)
    if not isinstance(example, str) and route and fault_of(row.get(route)):
        example = NO_ROUTE
    if isinstance(example, str):
        found.dropped[example] += 1
        return
    found.examples.append(example)
    if route:
        found.routes.append(str(row[route]).strip())


def _example(row: Mapping[str, Any], where: str) -> Example | str:
    """The row's example, or why there is none."""
    why, known = (row[name] if name in row and not fault_of(row[name]) else "" for name in ("rationale", "knowledge"))
    if "messages" in row:
        return _chat(row["messages"], row.get("tools"))
    if "conversations" in row:
        turns = _spoken(row["conversations"])
        return turns if isinstance(turns, str) else _chat([*_told(row), *turns], row.get("tools") or None)
    if "prompt" in row and "completion" in row:
        prompt: Any = row["prompt"]
        completion: Any = row["completion"]
        if isinstance(prompt, list) and isinstance(completion, list):
            return _chat([*prompt, *completion], row.get("tools"))
        text: tuple[Any, Any] = (prompt, completion)
        return fault_of(*text) or Pair(*text, rationale=why, knowledge=known)
    if "question" in row and "answer" in row:
        turns = tuple(_turns(row["question"], row["answer"]))
        return fault_of(row["question"], row["answer"]) or Chat(turns, rationale=why, knowledge=known)
    if "instruction" in row and "output" in row:
        fault = fault_of(row["instruction"], row["output"])
        more = row.get("input") or ""
        if fault or not isinstance(more, str):
            return fault or NOT_TEXT
        asked = f"{row['instruction']}\n\n{more}" if more.strip() else row["instruction"]
        before = _before(row.get("history") or [])
        if isinstance(before, str):
            return before
        found = _chat([*_told(row), *before, *_turns(asked, row["output"])], None)
        return found if isinstance(found, str) else replace(found, rationale=why, knowledge=known)
    if "text" in row:
        return fault_of(row["text"]) or Text(row["text"], _entities(row.get("entities")))
    known = ", ".join(map(str, row)) or "none"
    raise DistillError(f"{where}: the fields are {known}, wanted are {FORMS}")


def _entities(given: Any) -> dict[str, tuple[str, ...]]:
    """Type -> mentions, of an object of lists or a list of objects with `type` (or `label`) and `text`; others are
    left out."""
    found: dict[str, list[str]] = {}
    given = _parsed(given)
    if isinstance(given, Mapping):
        pairs = [(kind, span) for kind, spans in given.items() if isinstance(spans, list) for span in spans]
    elif isinstance(given, list):
        items = [item for item in given if isinstance(item, Mapping)]
        pairs = [(item.get("type", item.get("label")), item.get("text")) for item in items]
    else:
        return {}
    for kind, span in pairs:
        if isinstance(kind, str) and isinstance(span, str) and not fault_of(kind, span):
            found.setdefault(kind, []).append(span)
    return {kind: tuple(spans) for kind, spans in found.items()}


def fault_of(*values: Any) -> str:
    """Why these are not all texts that a tokenizer reads, the first fault; empty where they are."""
    for value in values:
        if value is None or value == "":
            return EMPTY
        if not isinstance(value, str):
            return NOT_TEXT
        if not value.strip():
            return EMPTY
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write and no tokenizer reads
            return NOT_TEXT
    return ""


def _turns(asked: Any, answered: Any) -> list[Mapping[str, Any]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def _told(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the system says before a conversation, where the row has it beside."""
    said = row.get("system")
    return [] if said is None or said == "" else [{"role": "system", "content": said}]


def _before(history: Any) -> list[Mapping[str, Any]] | str:
    """Earlier pairs of a question and its answer as turns, or why there are none."""
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        return NOT_TEXT
    return [turn for pair in history for turn in _turns(*pair)]


def _spoken(turns: Any) -> list[Mapping[str, Any]] | str:
    """ShareGPT's turns as messages, or why there are none; those with `role` and `content` stay as they are."""
    if not isinstance(turns, list):
        return NOT_TEXT
    found: list[Mapping[str, Any]] = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            return NOT_TEXT
        if turn.get("role") is not None:
            found.append(turn)
            continue
        speaker, said = turn.get("from"), turn.get("value")
        if not isinstance(speaker, str) or speaker not in SPEAKERS:
            return NO_SPEAKER
        message: dict[str, Any] = {"role": SPEAKERS[speaker], "content": said}
        if speaker == "function_call":
            call = _parsed(said)
            if not isinstance(call, Mapping) or not isinstance(call.get("name"), str):
                return NO_CALLS
            message |= {"content": "", "tool_calls": [{"type": "function", "function": dict(call)}]}
        found.append({**message, "weight": turn.get("weight")})
    return found


def _parsed(value: Any) -> Any:
    """JSON in a text, as data sets keep what tables take no nested types for; others as they are, None where it is
    none."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        return None


def _chat(messages: Any, tools: Any) -> Chat | str:
    if not isinstance(messages, list) or not messages:
        return EMPTY
    turns: list[Mapping[str, Any]] = []
    unlearned: list[int] = []
    for message in messages:
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            return NOT_TEXT
        content = message.get("content")
        if isinstance(content, list):  # parts, of which text is read
            if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
                return NOT_TEXT
            content = "".join(part["text"] for part in content)
        calls = message.get("tool_calls")
        if calls and not (isinstance(calls, list) and all(isinstance(call, Mapping) and call for call in calls)):
            return NO_CALLS
        if not (calls and not content):  # a call of a tool may say nothing
            fault = fault_of(content)
            if fault:
                return fault
        if message.get("weight") not in (None, 0, 1):
            return NO_WEIGHT
        if message.get("weight") == 0 and message["role"] == "assistant":
            unlearned.append(len(turns))
        turns.append({**{k: v for k, v in message.items() if k != "weight"}, "content": content or ""})
    answers = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and i not in unlearned]
    if not answers:
        return NO_ANSWER
    if unlearned:  # what stands behind the last answer that is learned is of no use
        turns, unlearned = turns[: answers[-1] + 1], [i for i in unlearned if i < answers[-1]]
    if tools is not None and (tools := _parsed(tools)) is None:
        return NO_TOOLS
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        return NO_TOOLS
    try:  # names and arguments too become text that is learned from
        json.dumps([turns, tools], ensure_ascii=False, allow_nan=False, default=str).encode()
    except (ValueError, RecursionError):
        return NOT_TEXT
    return Chat(tuple(turns), tuple(tools or ()), tuple(unlearned))


def check_size(path: Path) -> None:
    """Whether a file can be read with bounded memory: those of rows by its first line, others by their size.

    Raises:
      DistillError: it is too large, a line of it is, or it is no Parquet file. `OSError` where it cannot be read.
    """
    with path.open("rb") as file:
        if path.suffix in (".jsonl", ".csv"):
            _line_of(path, 1, file.readline(LONGEST_LINE))
        elif path.suffix == ".parquet":
            if file.read(4) != b"PAR1":
                raise DistillError(f"{path} is no Parquet file")
        elif path.stat().st_size > LARGEST_WHOLE:
            raise DistillError(
                f"{path} has {path.stat().st_size} bytes, {LARGEST_WHOLE} are allowed: save it as .jsonl"
            )


def _line_of(path: Path, number: int, line: Line) -> Line:
    if len(line) >= LONGEST_LINE:
        raise DistillError(f"{path}, line {number} is longer than {LONGEST_LINE} characters")
    return line


def _lines(path: Path, newline: str) -> Iterator[str]:
    """Lines of a text, none of which fills the memory."""
    with path.open(encoding="utf-8-sig", newline=newline) as file:
        number = 1
        while line := _line_of(path, number, file.readline(LONGEST_LINE)):
            yield line
            number += 1


def _json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(_lines(path, "\n"), 1):  # other line ends are part of the texts
        if line.strip():
            try:
                yield f"line {number}", json.loads(line, object_pairs_hook=unique)
            except json.JSONDecodeError as error:
                raise DistillError(f"{path}, line {number} is no JSON: {error.msg}") from error
            except ValueError as error:
                raise DistillError(f"{path}, line {number} cannot be read: {first_line(error)}") from error


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=unique)
    if not isinstance(rows, list):
        raise DistillError(f"{path} must be a list of rows, got {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        yield f"row {number}", row


def _csv(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(table(path), 1):
        yield f"row {number}", row


def table(path: Path) -> Iterator[dict[str, str | None]]:
    """Rows of a CSV file by the names in its first row; None where a row is short.

    Raises:
      DistillError: two columns of one name, a row longer than the first (its text has commas and no quotes), quotes
        that do not end where a field does, or a zero byte.
    """
    csv.field_size_limit(LONGEST_LINE)
    rows = _rows(path)
    _require_once(path, rows.fieldnames or [])
    number = 0
    while True:
        number += 1
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DistillError(f"{path}, row {number}: {error}") from error
        if row is None:
            return
        if None in row:
            raise DistillError(f"{path}, row {number} has more fields than the header: a text with commas needs quotes")
        yield row


def _require_once(path: Path, names: Sequence[str]) -> None:
    """Raises `DistillError` where a table has a column twice: the last would count, in silence."""
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise DistillError(f"{path} has the column '{twice}' twice")


def _rows(path: Path) -> "csv.DictReader[str]":
    def lines() -> Iterator[str]:
        for line in _lines(path, ""):
            if "\0" in line:
                raise csv.Error("a zero byte, which is no text")
            yield line

    rows = csv.DictReader(lines(), strict=True)
    try:
        _ = rows.fieldnames
    except csv.Error as error:
        raise DistillError(f"{path}, its first row: {error}") from error
    return rows


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        file = ParquetFile(path, page_checksum_verification=True)
        _require_once(path, file.schema_arrow.names)
        for batch in file.iter_batches(4096):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
    except (DistillError, MemoryError):
        raise
    except ArrowInvalid as error:
        raise DistillError(f"{path} is no Parquet file: {first_line(error)}") from error
    except Exception as error:  # damaged pages, and times that Python has no value for, raise whatever they do
        raise DistillError(f"{path} cannot be read after row {number}: {first_line(error)}") from error


def _document(path: Path) -> Iterator[tuple[str, Any]]:
    yield "text", {"text": path.read_text(encoding="utf-8-sig")}


READERS: Mapping[str, Callable[[Path], Iterator[tuple[str, Any]]]] = {
    ".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet, ".txt": _document, ".md": _document,
}  # fmt: skip
"""Ending -> rows of a file, each with the words that say where it stands."""
