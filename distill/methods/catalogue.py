"""All recipes by name."""

from importlib import import_module
from pathlib import Path

from distill.core.errors import DistillError
from distill.methods.framework import Recipe

NAMES = tuple(sorted(file.parent.name for file in Path(__file__).parent.glob("*/experiment.py")))
"""Folders of this package that hold an `experiment.py` with its `RECIPE`: a new one is listed once it is there."""


def find(name: str) -> Recipe:
    """The recipe of that name; raises `DistillError` where there is none."""
    if name not in NAMES:
        raise DistillError(f"there is no recipe '{name}'; there are {', '.join(NAMES)}")
    return import_module(f"distill.methods.{name}.experiment").RECIPE
