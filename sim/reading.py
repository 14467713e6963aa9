"""Files from outside are read whole: regular ones, of a size that they may have."""

import json
import math
import stat
import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from sim.errors import InputError, first_line


def check_file(path: Path, largest: int, what: str = "") -> None:
    """Raises `InputError` where a path is no regular file (a pipe or a device would never end) or larger than `largest`
    bytes. `what` says what it should be, such as `the log`."""
    name = f"{what} {path}".strip()
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot read {name}: it is no regular file")
    if status.st_size > largest:
        raise InputError(f"cannot read {name}: it has {status.st_size} bytes, {largest} are allowed")


def read_text(path: Path, largest: int, what: str = "") -> str:
    """A text in UTF-8; raises `InputError` as `check_file` does, and where it is none."""
    check_file(path, largest, what)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"cannot read {f'{what} {path}'.strip()}: {reason}") from error


LARGEST_OWN = 2**30
"""Bytes of a file that a run wrote about itself."""


def read_arrays(path: Path, names: Iterable[str], what: str, optional: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """Finite float32 arrays by name, as `numpy.savez` writes them; of the `optional` ones those that are there.

    Raises:
      InputError: as `check_file` does; the file is damaged or holds no such arrays; they have no dimension, hold no
        number or one that is not finite, or are larger than such a file may be.
    """
    check_file(path, LARGEST_OWN, what)
    try:
        with zipfile.ZipFile(path) as packed:
            size = sum(each.file_size for each in packed.infolist())
        if size > LARGEST_OWN:
            raise ValueError(f"it has {size} bytes unpacked, {LARGEST_OWN} are allowed")
        with np.load(path, allow_pickle=False) as found:
            wanted = [*names, *(name for name in optional if name in found)]
            arrays = {name: np.asarray(found[name], np.float32) for name in wanted}
        for name, array in arrays.items():
            if not array.ndim or not array.size or not np.isfinite(array).all():
                raise ValueError(f"{name} is empty or not finite")
    except Exception as error:  # a damaged one raises what zipfile, zlib, numpy and its header's parser raise
        raise InputError(f"cannot read {what} {path}: {first_line(error)}") from error
    return arrays


def read_own(path: Path) -> Any:
    """JSON that a run wrote about itself, which may have been exchanged since; raises `InputError` as `read_text`
    does, and where it is none."""
    text = read_text(path, LARGEST_OWN)
    try:
        return json.loads(text, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no JSON: {error}") from error


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for `json.loads`; raises `ValueError` where it has a key twice: JSON takes the last in
    silence."""
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"it has the key {twice[0]!r} twice")
    return dict(pairs)


def read_json(text: str) -> Any:
    """JSON whose numbers are numbers that a float holds: no 1e400, which is read as infinity, no 400 digits, no NaN;
    and whose objects have no key twice.

    Raises:
      ValueError: it is no such JSON.
    """

    def known(said: str) -> Any:
        if not math.isfinite(float(said)):
            raise ValueError(f"{said[:20]} is no finite number")
        return float(said) if set(".eE") & set(said) else int(said)

    def refuse(said: str) -> Any:
        raise ValueError(f"{said} is no number of JSON")

    return json.loads(text, parse_int=known, parse_float=known, parse_constant=refuse, object_pairs_hook=unique)


def number(value: Any) -> float:
    """A value of JSON as the number that it is; raises `TypeError` for what Python would make one of: true, "1.5"."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{str(value)[:20]!r} is no number")
    return float(value)
