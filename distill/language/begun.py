"""What a run of `barkour distill language` or `classifier` keeps of its beginning, and what goes on from it."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distill.core.errors import DistillError
from distill.core.folders import LOCK
from distill.core.reading import read_json
from sim.errors import InputError
from sim.folders import alone

T = TypeVar("T")
OPTIONS = "options.json"
"""In a run's folder: the options that decide its result, and what its student measured at the start."""
WRITTEN = ("*.json", "*.safetensors", "*.bin", "README.md", "curve.png", "chat_template.jinja", "library.jsonl")
"""What a finished run writes beside its folder; where no run was begun it is another's."""


class Begun(NamedTuple):
    """A run that was begun."""

    options: dict[str, Any]
    start: Any
    """What the student measured before the first step."""


@contextmanager
def begins(folder: Path) -> Iterator[None]:
    """A run's folder to this process alone, as `sim.folders.alone`; what is refused before the run in it has begun
    leaves neither files there nor folders that were not there before."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    with alone(folder):
        mine = all(path.name == LOCK for path in folder.iterdir())  # asked where nobody else can write any more
        try:
            yield
        except (DistillError, InputError, OSError):
            if mine and not (folder / OPTIONS).is_file():
                _emptied(folder, made)
            raise


def _emptied(folder: Path, made: list[Path]) -> None:
    with suppress(OSError):  # what cannot be removed stays: the refusal is what must be said
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in made:  # the folder, what it stands in, and so on
            path.rmdir()


def read_begun(folder: Path, name: str, kind: Callable[[Any], T]) -> Begun | None:
    """The run in a folder, None where there is none; its start stands under `name` and is of a `kind`.

    Raises:
      DistillError: a damaged file.
    """
    path = folder / OPTIONS
    try:
        found = read_json(path, parse_constant=_number) if os.path.lexists(path) else None
        if found is None:
            return None
        if isinstance(found[name], str | bool):  # `float` would read "nan", and true as 1
            raise ValueError(f"{name} is {found[name]!r}")
        return Begun(dict(found["options"]), kind(found[name]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:  # JSON's own are ValueErrors
        raise DistillError(f"{path} is damaged: {error}") from error


def _number(word: str) -> float:
    """A student may measure Infinity at the start, but never NaN."""
    if word != "Infinity":
        raise ValueError(f"{word} was never measured")
    return float("inf")


def check_begun(
    out: Path, folder: Path, known: Begun | None, foreign: bool, resume: bool, asked: Mapping[str, Any],
    defaults: Mapping[str, Any],
) -> None:  # fmt: skip
    """Raises `DistillError` where a run cannot be begun or gone on with in a folder below `out`.

    Args:
      known: the run that is there; `foreign` says whether the folder holds checkpoints.
      resume: whether to go on.
      asked: options that decide the result; `defaults` are those of options that older runs do not know.
    """
    if known is None:
        if foreign:
            raise DistillError(f"{folder} holds a run of something else: choose another --out")
        theirs = sorted(path.name for form in WRITTEN for path in out.glob(form))
        if theirs:
            raise DistillError(f"{out} holds {theirs[0]} of something else, which would be lost: choose another --out")
        return
    if not resume:
        raise DistillError(f"{out} already holds a run: add --resume, or choose another --out")
    for name, value in asked.items():
        before = known.options.get(name, defaults.get(name))
        if before != value:
            raise DistillError(f"{out} was begun with {name} {before}, not {value}")
