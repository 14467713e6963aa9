"""Many recipes one after the other: how long it will take, one merged table, and a small budget of hours.

With `--budget small` every step of every recipe is done, but of seeds only as many as the hours allow: what is left of
them is shared among the recipes that are left, by what a seed of theirs takes. Hours are those of the clock: as many
seeds are computed at the same time as there are workers, so one of them takes as long as a worker's each. A claim is
judged by the seeds that were run, so few of them say little, and the power that they have stands beside it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from distill.core.checkpoints import plain, write_json, write_text
from distill.core.errors import DistillError
from distill.core.folders import hold
from distill.core.reading import read_json
from distill.methods.catalogue import NAMES, find
from distill.methods.framework import Recipe, processors
from distill.methods.measured import read
from distill.methods.options import SMALL, ExperimentOptions
from distill.methods.run import OPTIONS, check_places, folder_of, kept_arms, run, seeds_of, summary, table

HOURS = 4.0
"""Of a sweep with a small budget, where nothing else is asked for: enough for two cores."""
SWEPT = ("sweep.json", "sweep.md")


@dataclass(frozen=True)
class Part:
    """A recipe of a sweep, as it is with the sweep's domain and preset."""

    recipe: Recipe
    asked: ExperimentOptions

    @property
    def workers(self) -> int:
        """Seeds that are computed at the same time."""
        return self.asked.workers or processors() if self.asked.preset in SMALL else 1

    @property
    def seeds(self) -> list[int]:
        """Those that are asked for."""
        return seeds_of(self.recipe, self.asked)

    def done(self) -> dict[int, float]:
        """Finished seed -> the seconds that it took."""
        arms = kept_arms(self.recipe, folder_of(self.recipe, self.asked))
        return {
            seed: sum(float(one["seconds"]) for one in found.values())
            for seed, found in arms.items()
            if seed in self.seeds
        }

    def seconds(self) -> float | None:
        """Of computing that a seed takes: as measured in the folder, else as kept beside the method; None where it has
        never been measured."""
        done = self.done()
        if done:
            return float(np.median([*done.values()]))
        known = read(self.recipe.name)
        domain = self.asked.domain or self.recipe.domains[0]
        runs = [known.of(self.asked.preset, domain, pilot=pilot) for pilot in (False, True)]
        found = next((run.seconds for run in runs if run is not None and run.seconds is not None), None)
        return None if found is None else found * self.asked.budget

    def clock(self, seeds: int) -> float:
        """Seconds in which so many seeds are computed, `workers` of them at the same time; 0 where it is not known what
        one takes."""
        return math.ceil(seeds / self.workers) * (self.seconds() or 0.0)

    def affordable(self, share: float) -> int:
        """Seeds that a share of the clock's seconds pays for, those that are done among them: one a worker at least,
        which takes no longer than one alone, and no more where it is not known what one takes."""
        seconds = self.seconds()
        rounds = 1 if seconds is None else max(int(share / max(seconds, 1e-9)), 1)
        return min(rounds * self.workers, len(self.seeds))


def sweep(
    names: Iterable[str] = (),
    asked: ExperimentOptions = ExperimentOptions(),
    console: Console | None = None,
    hours: float | None = None,
) -> dict[str, Any]:
    """Runs many recipes (all without names) one after the other, and judges each by every seed that its folder holds.

    Args:
      hours: of the clock, which all of them together are to keep to; a recipe has one seed a worker at least.

    Returns:
      `recipes` (results as of `run`, or `name` and `error`), `verdicts` (name -> verdict), `seconds`, `estimate`
      (`seconds` of the clock that were left, of recipes that have been measured; `unknown`: names of the others); also
      in `out/sweep.json`, and as a table in `out/sweep.md`.

    Raises:
      DistillError: an unknown name or too small a budget, before anything is written.
    """
    recipes = [find(name) for name in tuple(names) or NAMES]
    for recipe in recipes:
        recipe.check_budget(asked.budget)
    lock = hold(Path(asked.out))
    try:
        check_places(Path(asked.out), SWEPT)
        return _sweep(recipes, asked, console or Console(stderr=True), hours)
    finally:
        lock.release()


def estimate(parts: Sequence[Part], hours: float | None) -> dict[str, Any]:
    """`seconds` of the clock that are left for recipes of which it is known, and the names of the others, `unknown`."""
    left, unknown, spent = 0.0, list[str](), 0.0
    for place, part in enumerate(parts):
        share = _share(hours, spent, len(parts) - place)
        count = len(part.seeds) if share is None else part.affordable(share)
        spent += part.clock(count)
        left += part.clock(max(count - len(part.done()), 0))
        if part.seconds() is None:
            unknown.append(part.recipe.name)
    return {"seconds": round(left, 1), "unknown": unknown}


def _share(hours: float | None, spent: float, recipes: int) -> float | None:
    """Of the clock's seconds that are not spent, one's of so many recipes; None without a limit."""
    return None if hours is None else max(3600 * hours - spent, 0.0) / recipes


def _sweep(
    recipes: Sequence[Recipe], asked: ExperimentOptions, console: Console, hours: float | None
) -> dict[str, Any]:
    parts: dict[str, Part] = {}
    failed: dict[str, str] = {}
    for recipe in recipes:
        try:
            part = Part(recipe.on(asked.domain, asked.preset), asked)
            part.done()  # a folder that is damaged is told of before hours have passed
            parts[recipe.name] = part
        except DistillError as error:
            failed[recipe.name] = str(error)
    before = estimate([*parts.values()], hours)
    console.print(_told(before, len(recipes), hours), highlight=False)
    spent, found = 0.0, list[dict[str, Any]]()
    for place, recipe in enumerate(recipes):
        share = _share(hours, spent, len(recipes) - place)
        try:
            if recipe.name in failed:
                raise DistillError(failed[recipe.name])
            result = _run(parts[recipe.name], share, console)
        except DistillError as error:
            console.print(f"{recipe.name}: {error}", highlight=False, markup=False)
            result = {"name": recipe.name, "error": str(error), "seconds": 0.0}
        found.append(result)
        if recipe.name in parts:
            spent += parts[recipe.name].clock(len(result.get("seeds", ())))
        rest = {later.name for later in recipes[place + 1 :]}
        unspent = None if hours is None else max(hours - spent / 3600, 0.0)
        left = estimate([part for name, part in parts.items() if name in rest], unspent)
        console.print(f"sweep: {place + 1} of {len(recipes)} recipes; {_time(left)} left", highlight=False)
    merged = {
        "recipes": found,
        "verdicts": {result["name"]: result.get("verdict", "failed") for result in found},
        "seconds": round(sum(result["seconds"] for result in found), 1), "estimate": before,
    }  # fmt: skip
    merged_file, table_file = (Path(asked.out) / name for name in SWEPT)
    write_json(merged_file, plain(merged))
    write_text(table_file, table(found))
    return merged


def _run(part: Part, share: float | None, console: Console) -> dict[str, Any]:
    """One recipe: all seeds that were asked for, or those that its share of seconds pays for."""
    recipe, asked = part.recipe, part.asked
    count = len(part.seeds) if share is None else part.affordable(share)
    result = run(recipe, replace(asked, seeds=count), console)
    while share is not None and part.affordable(share) > count:  # the first seed has said what one takes
        count = part.affordable(share)
        result = run(recipe, replace(asked, seeds=count), console)
    folder = Path(result["out"])
    whole = [seed for seed in kept_arms(recipe, folder) if seed not in recipe.pilot]
    if set(whole) > set(result["seeds"]):
        result = summary(recipe, folder, whole, read_json(folder / OPTIONS))
    return result


def _told(before: dict[str, Any], recipes: int, hours: float | None) -> str:
    limit = "" if hours is None else f", at most {hours:g} h in all but the first seeds of each"
    return f"sweep: {recipes} recipes; {_time(before)}{limit}"


def _time(found: dict[str, Any]) -> str:
    """What is left, in words."""
    hours = found["seconds"] / 3600
    known = f"about {hours:.1f} h" if hours >= 0.1 else f"about {60 * hours:.0f} min"
    return known + f" and {len(found['unknown'])} recipes whose time is not known" * bool(found["unknown"])
