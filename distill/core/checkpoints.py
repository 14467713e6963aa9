"""Checkpoints of a run: one file of tensors and one of JSON, replaced together or not at all; nothing is unpickled.

A third file holds their SHA-256, as `sha256sum -c` reads it: a flipped bit is refused before anything is trained on it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from distill.core.errors import DistillError, first_line
from distill.core.reading import check_regular, read_json, read_text

NAME, OLD = "checkpoint", "checkpoint.old"
VALUES, TENSORS, SUMS = "state.json", "tensors.pt", "SHA256SUMS"
LARGEST_VALUES = 2**30
"""Bytes: a sampler may keep where it is in every file of its data."""


def save(folder: Path, values: Mapping[str, Any], tensors: Mapping[str, Any], keep: bool = False) -> Path:
    """Writes `folder/checkpoint` in place of the one before, which stays beside it where `keep` is asked.

    Processes of one run keep it: one that is killed may have saved when another has not.
    """
    target, old = folder / NAME, folder / OLD
    partial = folder / f"{NAME}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        with (partial / TENSORS).open("wb") as file:  # a file of Python's own: its error says why it cannot be written
            torch.save(dict(tensors), file)
        (partial / VALUES).write_text(json.dumps({**values, "sums": True}))
        lines = [f"{digest(partial / name)}  {name}\n" for name in (TENSORS, VALUES)]
        (partial / SUMS).write_text("".join(lines))
    except (OSError, RuntimeError) as error:  # torch says RuntimeError where a disk is full
        shutil.rmtree(partial, ignore_errors=True)
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        reason = getattr(cause, "strerror", None) or first_line(error)
        raise DistillError(f"cannot write a checkpoint to {folder}: {reason}; the one before is kept") from error
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    if not keep:
        shutil.rmtree(old, ignore_errors=True)
    return target


def newest(folder: Path) -> Path | None:
    """The whole checkpoint in a folder, or None: the one before, where a run was cut off between two renames."""
    for name in (NAME, OLD):
        if os.path.lexists(folder / name / VALUES):
            return folder / name
    return None


def known(folder: Path) -> dict[str, dict[str, int]]:
    """Name of each whole checkpoint in a folder -> how often its run had `saves`, and its `processes`.

    Raises:
      DistillError: one cannot be read.
    """
    found: dict[str, dict[str, int]] = {}
    for name in (NAME, OLD):
        if os.path.lexists(folder / name / VALUES):
            try:
                values = read_json(folder / name / VALUES, LARGEST_VALUES)
                found[name] = {"saves": int(values.get("saves", 0)), "processes": int(values.get("processes", 1))}
            except (OSError, ValueError, TypeError, AttributeError, OverflowError) as error:
                raise DistillError(f"the checkpoint {folder / name} cannot be read: {error}") from error
    return found


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and tensors; `DistillError` if the checkpoint is cut off, changed or none. Those of before there were
    checksums are read without."""
    try:
        _check(path)
        values: dict[str, Any] = dict(read_json(path / VALUES, LARGEST_VALUES))
        if values.pop("sums", False) and not (path / SUMS).is_file():
            raise DistillError(f"the checkpoint {path} has lost its {SUMS}")
        check_regular(path / TENSORS)
        return values, torch.load(path / TENSORS, weights_only=True, map_location="cpu")
    except DistillError:
        raise
    except Exception as error:  # what torch's reader makes of a damaged archive has no end of kinds
        reason = first_line(error)
        raise DistillError(f"the checkpoint {path} cannot be read: {reason}") from error


def _check(path: Path) -> None:
    """Raises `DistillError` where a file is not what it was when it was written."""
    if not (path / SUMS).is_file():
        return
    said = dict(line.split("  ", 1)[::-1] for line in read_text(path / SUMS).splitlines())
    for name in (TENSORS, VALUES):
        if said.get(name) != digest(path / name):
            raise DistillError(f"the checkpoint {path} cannot be read: {name} is not what was written")


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises what `check_regular` does."""
    check_regular(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any, indent: int = 2) -> None:
    """Writes a JSON file whole, or leaves the one before."""
    write_text(path, json.dumps(value, indent=indent) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a file in UTF-8 whole, or leaves the one before. Bytes of a file's name that are no UTF-8 are escaped."""
    with _replacing(path) as stream:
        stream.write(text.encode(errors="backslashreplace"))


def save_figure(figure: Any, path: Path) -> None:
    """Writes a picture of matplotlib as PNG whole, or leaves the one before."""
    with _replacing(path) as stream:
        figure.savefig(stream, dpi=120, format="png")


@contextmanager
def _replacing(path: Path) -> Generator[BinaryIO]:
    """A new file beside `path`, which takes its place where all is written."""
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)  # of an earlier end, or a pipe, to which writing would wait for ever
    with partial.open("xb") as stream:
        yield stream
    os.replace(partial, path)


def plain(value: Any) -> Any:
    """The value as JSON would give it back."""
    return json.loads(json.dumps(value, default=str))
