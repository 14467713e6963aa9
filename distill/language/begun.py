"""What a run of `barkour distill language` or `classifier` keeps of its beginning, and what goes on from it."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from distill.core.errors import DistillError

T = TypeVar("T")
OPTIONS = "options.json"
"""In a run's folder: the options that decide its result, and what its student measured at the start."""
WRITTEN = ("*.json", "*.safetensors", "*.bin", "README.md", "curve.png", "chat_template.jinja")
"""What a finished run writes beside its folder; where no run was begun it is another's."""


class Begun(NamedTuple):
    """A run that was begun."""

    options: dict[str, Any]
    start: Any
    """What the student measured before the first step."""


def read_begun(folder: Path, name: str, kind: Callable[[Any], T]) -> Begun | None:
    """The run in a folder, None where there is none; its start stands under `name` and is of a `kind`.

    Raises:
      DistillError: a damaged file.
    """
    path = folder / OPTIONS
    try:
        found = json.loads(path.read_text(), parse_constant=_number) if path.is_file() else None
        if found is None:
            return None
        if isinstance(found[name], str | bool):  # `float` would read "nan", and true as 1
            raise ValueError(f"{name} is {found[name]!r}")
        return Begun(dict(found["options"]), kind(found[name]))
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:  # JSON's own are ValueErrors
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
