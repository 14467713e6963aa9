"""All recipes by name, and the catalogue by algorithm, skill and vertical (arXiv 2402.13116)."""

from importlib import import_module
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError
from distill.methods.framework import Recipe

NAMES = tuple(sorted(file.parent.name for file in Path(__file__).parent.glob("*/experiment.py")))
"""Folders of this package that hold an `experiment.py` with its `RECIPE`: a new one is listed once it is there."""

MAP = {
    "name": "survey_taxonomy", "source": "arXiv 2402.13116",
    "claim": "none: a map of the methods by what is taken from the teacher, how it is put into the student, skill and "
    "vertical",
    "needs": "nothing",
}  # fmt: skip
"""The catalogue itself, which a survey gave its axes."""


def find(name: str) -> Recipe:
    """The recipe of that name; raises `DistillError` where there is none."""
    if name not in NAMES:
        raise DistillError(f"there is no recipe '{name}'; there are {', '.join(NAMES)}")
    return import_module(f"distill.methods.{name}.experiment").RECIPE


def catalogue() -> dict[str, Any]:
    """`recipes` (each as `Recipe.about`), and their names `by_algorithm`, `by_skill` and `by_vertical`."""
    about = [find(name).about() for name in NAMES]
    grouped: dict[str, dict[str, list[str]]] = {f"by_{axis}": {} for axis in ("algorithm", "skill", "vertical")}
    for recipe in about:
        for axis in ("algorithm", "skill", "vertical"):
            grouped[f"by_{axis}"].setdefault(recipe[axis], []).append(recipe["name"])
    return {"recipes": about, **grouped}
