"""What experiments measured: kept in small files beside the methods, judged anew by the claims as they are declared.

    barkour recipe run ddk --seed 1000
    python -m distill.methods.standing --keep runs/recipes/ddk      writes ddk/measured.json, then the table of the docs

A file holds figures, one number a seed, and no verdicts: those follow from `Recipe.claims` whenever they are asked for.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.core.errors import DistillError
from distill.core.reading import read_json
from distill.methods import run as experiments
from distill.methods.catalogue import find
from distill.methods.claims import Claim, Judged, judge
from distill.methods.framework import Recipe
from distill.methods.statistics import Check, Results

FOLDER = Path(__file__).parent
FILE = "measured.json"
DIGITS = 6
"""Significant ones that are kept of a figure."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Seeds of one experiment that were run with all their steps."""

    preset: str
    domain: str
    rule: str
    """The commit that fixed the claims: before any of these was run, unless they are a pilot's."""
    pilot: bool
    """Whether they gave the spread that the number of seeds follows from; then they give no verdict."""
    seeds: tuple[int, ...]
    figures: Mapping[str, tuple[float, ...]]
    """Claim -> what its figure was with each seed. A pilot may lack some."""
    seconds: float | None = None
    """Of computing a seed, on one core; None where it was not kept."""
    checks: tuple[Mapping[str, Any], ...] = ()
    """As `statistics.Check`."""

    def __post_init__(self) -> None:
        if not self.seeds or list(self.seeds) != sorted(set(self.seeds)):
            raise ValueError(f"seeds must be there and in order, got {list(self.seeds)}")
        for name, values in self.figures.items():
            if len(values) != len(self.seeds) or not all(math.isfinite(value) for value in values):
                raise ValueError(f"'{name}' must be one finite number a seed, got {list(values)}")
        if self.seconds is not None and not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ValueError(f"seconds must not be negative, got {self.seconds}")

    def judged(self, recipe: Recipe) -> list[Judged]:
        """The verdicts of the claims, those that were measured. Raises `DistillError` where none was."""
        claims = [replace(claim, figure=Kept(self.figures[claim.name])) for claim in self.measured(recipe)]
        if not claims:
            raise DistillError(f"no claim of {recipe.name} was measured with seeds {list(self.seeds)}")
        checks = [Check(**check) for check in self.checks]
        judged = judge(claims, Results({seed: {} for seed in self.seeds}, recipe.metric), checks)
        declared = {claim.name: claim for claim in recipe.claims}
        return [replace(one, claim=declared[one.claim.name]) for one in judged]

    def measured(self, recipe: Recipe) -> list[Claim]:
        """The claims that there are figures of."""
        return [claim for claim in recipe.claims if claim.name in self.figures]

    def whole(self, recipe: Recipe) -> bool:
        """Whether these are as many seeds as the recipe asks for, and every claim was measured."""
        return not self.pilot and len(self.seeds) >= recipe.seeds and len(self.measured(recipe)) == len(recipe.claims)


@dataclass(frozen=True)
class Kept:
    """A figure that was measured earlier."""

    values: tuple[float, ...]

    def __call__(self, results: Results) -> np.ndarray:  # noqa: ARG002
        """`[seeds]`."""
        return np.array(self.values)


@dataclass(frozen=True)
class Measured:
    """All that is kept of one method."""

    runs: tuple[Run, ...] = field(default=(), kw_only=True)
    earlier: str = field(default="", kw_only=True)
    """The verdict of an experiment that has been changed since, see docs/recipes.md."""
    means: Mapping[str, float] = field(default_factory=dict[str, float], kw_only=True)
    """Claim of the default variant -> its figure's mean over its pilot, where the seeds' own figures were not kept."""

    def of(self, preset: str, domain: str, *, pilot: bool) -> Run | None:
        """The run of that variant."""
        there = (run for run in self.runs if (run.preset, run.domain, run.pilot) == (preset, domain, pilot))
        return next(there, None)


def read(name: str, folder: Path = FOLDER) -> Measured:
    """What is kept of a method; nothing where there is no file. Raises `DistillError` for a file of something else."""
    path = folder / name / FILE
    if not path.is_file():
        return Measured()
    try:
        found = read_json(path)
        runs = [
            Run(**{
                **run, "seeds": tuple(run["seeds"]), "checks": tuple(run.get("checks", ())),
                "figures": {claim: tuple(values) for claim, values in run["figures"].items()},
            })
            for run in found["runs"]
        ]  # fmt: skip
        means = {claim: float(mean) for claim, mean in found.get("means", {}).items()}
        return Measured(runs=tuple(runs), earlier=found.get("earlier", ""), means=means)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DistillError(f"{path} holds no figures: {error}") from error


def keep(results: Path, rule: str, folder: Path = FOLDER, *, pilot: bool = False) -> Path:
    """Keeps the finished seeds of a folder that `barkour recipe run` wrote, beside the method they are of, in place of
    what is kept of that variant. Seeds that a claim names as its pilot are one run, all others another.

    Args:
      rule: the commit that fixed the claims.
      pilot: whether all of them are a pilot's, of a claim that does not name it.

    Raises:
      DistillError: no finished seed, or one that was run with fewer steps or on another robot.
    """
    try:
        name = read_json(results / experiments.RESULT)["name"]
        options = read_json(results / experiments.OPTIONS)
        preset, domain, budget = (options[each] for each in ("preset", "domain", "budget"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DistillError(f"{results} holds no experiment that was run: {error}") from error
    if "robot" in options:
        raise DistillError(f"{results} is of another robot, {options['robot']}, than the one whose figures are kept")
    if budget != 1:
        raise DistillError(f"{results} was run with {budget:.0%} of its steps, which proves nothing")
    recipe = find(name).on(domain, preset)
    arms = experiments.kept_arms(recipe, results)
    of_pilot = {s: pilot or s in recipe.pilot for s in arms}
    variant = {"preset": preset, "domain": domain, "rule": rule}
    parts = {of: {s: arms[s] for s in arms if of_pilot[s] == of} for of in (True, False)}
    runs = [_run(recipe, part, pilot=of, **variant) for of, part in parts.items() if part]
    if not runs:
        raise DistillError(f"{results} holds no finished seed")
    known = read(name, folder)
    replaced = {(run.preset, run.domain, run.pilot) for run in runs}
    others = [run for run in known.runs if (run.preset, run.domain, run.pilot) not in replaced]
    path = folder / name / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write(replace(known, runs=(*others, *runs)), path)
    return path


def write(measured: Measured, path: Path) -> None:
    """A file with a line a run."""
    rest = {"earlier": measured.earlier} if measured.earlier else {}
    rest |= {"means": dict(measured.means)} if measured.means else {}
    head = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in rest.items())
    runs = ",".join(f"\n {json.dumps(asdict(run))}" for run in measured.runs)
    end = "\n" * bool(runs)
    partial = path.with_suffix(".partial")
    partial.write_text(f'{{{head}"runs": [{runs}{end}]}}\n')
    os.replace(partial, path)


def _run(recipe: Recipe, kept: Mapping[int, Mapping[str, Any]], **variant: Any) -> Run:
    rows = Results(
        {seed: {arm: one["measures"] for arm, one in arms.items()} for seed, arms in kept.items()}, recipe.metric
    )
    spent = [sum(float(one["seconds"]) for one in arms.values()) for arms in kept.values()]
    return Run(
        seeds=tuple(kept), seconds=round(float(np.median(spent)), 1),
        figures={claim.name: tuple(_rounded(value) for value in claim.figure(rows)) for claim in recipe.claims},
        checks=tuple(vars(check) for check in recipe.rule(rows)), **variant,
    )  # fmt: skip


def _rounded(value: float) -> float:
    return float(f"{float(value):.{DIGITS}g}")
