"""Training checkpoints: one folder each, arrays in safetensors and the rest in JSON, written whole or not at all."""

import json
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from sim.errors import InputError

ARRAYS, VALUES = "arrays.safetensors", "state.json"


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
    partial.mkdir(parents=True)
    save_file({name: np.array(array, order="C") for name, array in arrays.items()}, partial / ARRAYS)
    (partial / VALUES).write_text(json.dumps(values))
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return target


def latest(folder: Path) -> Path | None:
    """The newest whole checkpoint below `folder`, or None."""
    found = sorted(path for path in folder.glob("step_*[0-9]") if (path / VALUES).exists())
    return found[-1] if found else None


def load(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and values of one checkpoint; `InputError` if it is missing, cut off or not a checkpoint."""
    if not (path / VALUES).is_file() or not (path / ARRAYS).is_file():
        raise InputError(f"{path} is not a checkpoint: it needs {ARRAYS} and {VALUES}")
    try:
        return load_file(path / ARRAYS), json.loads((path / VALUES).read_text())
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"checkpoint {path} cannot be read: {error}") from error
