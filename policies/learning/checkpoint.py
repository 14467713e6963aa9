"""Training checkpoints: one folder each, arrays in safetensors and the rest in JSON, written whole or not at all.

A third file holds their SHA-256, as `sha256sum -c` reads it: a flipped bit is refused before anything is trained on it.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sim.errors import InputError
from sim.reading import LARGEST_OWN, read_own, read_text

ARRAYS, VALUES, SUMS = "arrays.safetensors", "state.json", "SHA256SUMS"
OLD = ".old"


def flatten(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Leaves of a pytree as numpy arrays, named `prefix` + the path to each."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {prefix + jax.tree_util.keystr(path): np.array(leaf, order="C") for path, leaf in leaves}


def unflatten(example: Any, arrays: dict[str, np.ndarray], prefix: str) -> Any:
    """A pytree like `example` with the leaves that `flatten` named; `InputError` where name or shape differs."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(example)
    found = []
    for path, leaf in leaves:
        name = prefix + jax.tree_util.keystr(path)
        if name not in arrays or arrays[name].shape != np.shape(leaf):
            here = arrays[name].shape if name in arrays else "nothing"
            raise InputError(f"the checkpoint holds {here} for {name}, this configuration needs {np.shape(leaf)}")
        found.append(arrays[name])
    return jax.tree_util.tree_unflatten(structure, found)


def save(folder: Path, steps: int, arrays: dict[str, np.ndarray], values: dict[str, Any], keep: int = 2) -> Path:
    """Writes `folder/step_<steps>` and removes all but the newest `keep` checkpoints."""
    target = write(folder / f"step_{steps:012d}", arrays, values)
    for old in sorted(folder.glob("step_*[0-9]"))[:-keep]:
        shutil.rmtree(old)
    return target


def write(target: Path, arrays: dict[str, np.ndarray], values: dict[str, Any]) -> Path:
    """Writes one checkpoint as the folder `target`, in place of an older one of that name."""
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        save_file({name: np.array(array, order="C") for name, array in arrays.items()}, partial / ARRAYS)
        (partial / VALUES).write_text(json.dumps({**values, "sums": True}))
        seal(partial)
    except (OSError, SafetensorError) as error:  # a full disk is either
        shutil.rmtree(partial, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write the checkpoint {target}: {reason}; those before are kept") from error
    old = target.with_suffix(OLD)
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`, or None: the one that was to be replaced, where a run was killed
    between two renames."""
    whole = {path.with_suffix("").name: path for path in folder.glob(f"step_*{OLD}") if (path / VALUES).exists()}
    whole |= {path.name: path for path in folder.glob("step_*[0-9]") if (path / VALUES).exists()}
    return whole[max(whole)] if whole else None


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and values of one checkpoint; `InputError` if it is missing, cut off, changed or not a checkpoint.
    Checkpoints of before there were checksums are read without."""
    if not path.exists():
        raise InputError(f"{path} is not a checkpoint: there is no such folder")
    if not (path / VALUES).is_file() or not (path / ARRAYS).is_file():
        raise InputError(f"{path} is not a checkpoint: it needs {ARRAYS} and {VALUES}")
    try:
        _check(path)
        values = read_own(path / VALUES)
        if not isinstance(values, dict):
            raise InputError(f"checkpoint {path} cannot be read: {VALUES} is no JSON object")
        if values.pop("sums", False) and not (path / SUMS).is_file():
            raise InputError(f"checkpoint {path} has lost its {SUMS}")
        return load_file(path / ARRAYS), values
    except InputError:
        raise
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"checkpoint {path} cannot be read: {error}") from error


def seal(path: Path) -> None:
    """Writes the checksums of a checkpoint."""
    (path / SUMS).write_text("".join(f"{_digest(path / name)}  {name}\n" for name in (ARRAYS, VALUES)))


def _check(path: Path) -> None:
    """Raises `InputError` where a file is not what it was when it was written."""
    if not (path / SUMS).is_file():
        return
    said = dict(line.split("  ", 1)[::-1] for line in read_text(path / SUMS, LARGEST_OWN).splitlines())
    for name in (ARRAYS, VALUES):
        if said.get(name) != _digest(path / name):
            raise InputError(f"checkpoint {path} cannot be read: {name} is not what was written")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
