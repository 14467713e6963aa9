"""Checkpoints of a run: one file of tensors and one of JSON, replaced together or not at all; nothing is unpickled."""

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from distill.core.errors import DistillError

NAME, OLD = "checkpoint", "checkpoint.old"
VALUES, TENSORS = "state.json", "tensors.pt"


def save(folder: Path, values: Mapping[str, Any], tensors: Mapping[str, Any], keep: bool = False) -> Path:
    """Writes `folder/checkpoint` in place of the one before, which stays beside it where `keep` is asked.

    Processes of one run keep it: one that is killed may have saved when another has not.
    """
    target, old = folder / NAME, folder / OLD
    partial = folder / f"{NAME}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    torch.save(dict(tensors), partial / TENSORS)
    (partial / VALUES).write_text(json.dumps(values))
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
        if (folder / name / VALUES).is_file():
            return folder / name
    return None


def known(folder: Path) -> dict[str, dict[str, int]]:
    """Name of each whole checkpoint in a folder -> how often its run had `saves`, and its `processes`.

    Raises:
      DistillError: one cannot be read.
    """
    found: dict[str, dict[str, int]] = {}
    for name in (NAME, OLD):
        if (folder / name / VALUES).is_file():
            try:
                values = json.loads((folder / name / VALUES).read_text())
            except (OSError, json.JSONDecodeError) as error:
                raise DistillError(f"the checkpoint {folder / name} cannot be read: {error}") from error
            found[name] = {"saves": int(values.get("saves", 0)), "processes": int(values.get("processes", 1))}
    return found


def load(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and tensors; `DistillError` if the checkpoint is cut off or none."""
    try:
        values = json.loads((path / VALUES).read_text())
        return values, torch.load(path / TENSORS, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, json.JSONDecodeError, pickle.UnpicklingError) as error:
        raise DistillError(f"the checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from error


def write_json(path: Path, value: Any, indent: int = 2) -> None:
    """Writes a JSON file whole, or leaves the one before."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=indent) + "\n")
    os.replace(partial, path)


def plain(value: Any) -> Any:
    """The value as JSON would give it back."""
    return json.loads(json.dumps(value, default=str))
