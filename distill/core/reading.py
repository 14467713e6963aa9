"""Files of a run, read back: they may have been changed, cut off or exchanged by then."""

import json
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError, first_line

LARGEST = 64 * 2**20
"""Bytes of a file that a run wrote about itself."""
MOST_OTHERS = 100_000
"""Files and folders that may lie beside those that are looked for: a whole disk has more, and is hardly meant."""


def check_regular(path: Path) -> int:
    """The bytes of a file that is to be read, or appended to.

    Raises:
      OSError: as `stat` does, `FileNotFoundError` above all.
      DistillError: no regular file: a pipe or a device would never end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise DistillError(f"{path} is no regular file")
    return status.st_size


def read_text(path: Path, largest: int = LARGEST) -> str:
    """A text in UTF-8, with or without a byte order mark.

    Raises:
      OSError: as opening it does, `FileNotFoundError` above all.
      DistillError: no regular file, one of more than `largest` bytes, or no text.
    """
    size = check_regular(path)
    if size > largest:
        raise DistillError(f"{path} has {size} bytes, {largest} are allowed")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DistillError(f"{path} is not text") from error


def files_below(folder: Path, endings: Collection[str]) -> list[Path]:
    """What lies below a folder, in the order of its names, and ends in one of `endings` (`.txt`), pipes and devices
    too, folders not. Links to folders are not followed.

    Raises:
      DistillError: no folder, one in it that cannot be read, or more than `MOST_OTHERS` other things in it.
    """
    found: list[Path] = []
    others = 0
    try:
        for place, folders, files in os.walk(folder, onerror=_refuse):
            mine = [path for path in map(Path(place).joinpath, files) if path.suffix in endings]
            found += mine
            others += len(folders) + len(files) - len(mine)
            if others > MOST_OTHERS:
                raise DistillError(
                    f"{folder} has more than {MOST_OTHERS} files or folders that are not {', '.join(sorted(endings))}: "
                    "name a folder that holds little else"
                )
    except OSError as error:
        what = error.strerror or first_line(error)
        raise DistillError(f"{error.filename or folder} cannot be read: {what}") from error
    return sorted(found)


def _refuse(error: OSError) -> None:
    raise error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads`; raises `ValueError` where it has a field twice: the last would be taken in
    silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it has the field {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def read_json(
    path: Path,
    largest: int = LARGEST,
    *,
    parse_int: Callable[[str], Any] | None = None,
    parse_float: Callable[[str], Any] | None = None,
    parse_constant: Callable[[str], Any] | None = None,
) -> Any:
    """What a JSON file holds; its numbers are read as `json.loads` is told. Raises what `read_text` does.

    Raises:
      DistillError: also where it is no JSON, has a field twice, or is nested too deeply to be read.
    """
    text = read_text(path, largest)
    try:
        return json.loads(
            text, parse_int=parse_int, parse_float=parse_float, parse_constant=parse_constant, object_pairs_hook=unique
        )
    except RecursionError as error:
        raise DistillError(f"{path} is nested too deeply") from error
    except ValueError as error:  # numbers of thousands of digits have one that is not JSON's
        raise DistillError(f"{path} is no JSON: {error}") from error
