"""All recipes by name, and the catalogue by algorithm, skill and vertical (arXiv 2402.13116)."""

from importlib import import_module
from typing import Any

from distill.core.errors import DistillError
from distill.methods.framework import Recipe

NAMES = (
    "self_distillation", "teacher_hacking", "capacity_gap", "miniplm", "ddk", "sinkd", "multi_granularity", "first",
    "step_by_step", "pgkd", "ernie_tiny", "nesycd", "ade_extraction", "universal_ner", "leader",
    "frontier_synthetic", "mend", "strategy_teaching", "llava_kd",
)  # fmt: skip
"""Modules of this package, each with its `RECIPE`."""


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
