"""What `barkour recipe` found, and how people read it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.results import Result, cell, line

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"supported": "green", "null": "yellow", "undecided": "cyan", "contradicted": "red", "failed": "red"}


LEAST_TITLE = 20
"""Characters of a title that say something."""


@dataclass(frozen=True, kw_only=True)
class Catalogue(Result):
    """All recipes, and their names by three axes of the survey's catalogue."""

    recipes: list[dict[str, Any]]
    by_algorithm: dict[str, list[str]]
    by_skill: dict[str, list[str]]
    by_vertical: dict[str, list[str]]

    def show(self, console: "Console") -> None:
        """One line a recipe by algorithm, with as much of its title as a line has room for; then names by skill and by
        vertical."""
        from rich.table import Table

        ordered = sorted(self.recipes, key=lambda recipe: (recipe["algorithm"], recipe["name"]))
        shown = [
            {
                **{name: str(recipe[name]) for name in ("algorithm", "seeds", "title")},
                "name": recipe["name"] + " *" * bool(recipe["own_models"]),
                "power": chance(recipe["claims"][0]["power"]) if recipe["claims"] else "-",
                "showed": recipe["showed"]["verdict"],
            }
            for recipe in ordered
        ]
        table = Table(box=None, pad_edge=False, expand=True)
        columns, room = ["name", "algorithm", "seeds", "power", "showed"], console.width
        for name in columns:
            width = max(len(name), *(len(row[name]) for row in shown))
            table.add_column(name, no_wrap=True, width=width)
            room -= width + 2
        if room >= LEAST_TITLE:
            table.add_column("title", no_wrap=True, overflow="ellipsis", ratio=1)
            columns.append("title")
        for row in shown:
            table.add_row(*(cell(row[name]) for name in columns))
        console.print(table)
        line(console, "power", "chance that so many seeds find an effect worth finding")
        line(console, "* on your own models", "as barkour recipe show NAME says")
        for axis, groups in (("skill", self.by_skill), ("vertical", self.by_vertical)):
            table = Table(box=None, pad_edge=False, expand=True)
            table.add_column(axis, no_wrap=True)
            table.add_column("recipes", ratio=1)
            for group in sorted(groups):
                table.add_row(cell(group), cell(", ".join(sorted(groups[group]))))
            console.print()
            console.print(table)


@dataclass(frozen=True, kw_only=True)
class Description(Result):
    """One recipe."""

    name: str
    title: str
    source: str
    claim: str
    falsified: str
    claims: list[dict[str, Any]]
    """Power statements: `name`, `text`, `role`, `figure`, `effect`, `spread`, `pilot`, `seeds_needed`, `power`."""
    arms: dict[str, str]
    needs: str
    """What one has to have to use it on models of one's own."""
    costs: str
    hardware: str
    """Devices at the paper's scale; empty where it was not planned."""
    showed: dict[str, Any]
    """`verdict` (`not run` before its seeds are), `figure`, and the `experiment` that they are of."""
    seconds: float | None
    """That a seed took on one core; None where it was not kept."""

    def show(self, console: "Console") -> None:
        """Every field, one below the other."""
        told = {
            f"{c['role']}: {c['name']}": f"{c['text']} ({c['figure']} above 0; {power_line(c)})" for c in self.claims
        }
        _show_all(console, {**self.to_dict(), "claims": told})


@dataclass(frozen=True, kw_only=True)
class RecipeVerdict(Result):
    """The judged experiment."""

    name: str
    title: str
    claim: str
    verdict: str
    """supported, contradicted, null or undecided: that of the first claim."""
    claims: list[dict[str, Any]]
    """Of each: `name`, `text`, `role`, `figure`, `mean`, `ci`, `confidence`, `p`, `verdict`, `why`, `excludes`; as
    planned, `effect`, `spread`, `pilot`, `seeds_needed`, `power`; and what was seen, `spread_seen`, `power_seen`,
    `detectable`, `seeds_needed_seen`. Empty for recipes that are judged by checks alone."""
    checks: list[dict[str, Any]]
    arms: dict[str, dict[str, Any]]
    """Name -> `metric`, `mean`, `ci95`, `n_seeds`, `about`."""
    metric: str
    seconds: float
    seed: int
    seeds: list[int]
    out: str

    def show(self, console: "Console") -> None:
        """Arms in a table; claim, checks and verdict in lines."""
        from rich.table import Table

        table = Table("arm", cell(self.metric), "95 % interval", "what it is", title=cell(self.title))
        for name, arm in self.arms.items():
            interval = f"{arm['ci95'][0]:.4g} to {arm['ci95'][1]:.4g}" if arm["ci95"] else "-"
            table.add_row(cell(name), f"{arm['mean']:.4g}", interval, cell(arm["about"]))
        console.print(table)
        for claim in self.claims:
            _show_claim(console, claim)
        if not self.claims:
            line(console, "claim", self.claim)
        for check in self.checks:
            line(console, f"  {'yes' if check['holds'] else 'no '} {check['role']}", check["text"])
        console.print(f"verdict: {_verdict(self.verdict)} ({len(self.seeds)} seeds, {self.seconds:.0f} s)")


@dataclass(frozen=True, kw_only=True)
class Sweep(Result):
    """The verdicts of several recipes."""

    recipes: list[dict[str, Any]]
    verdicts: dict[str, str]
    """Name -> verdict, or `failed`."""
    seconds: float
    estimate: dict[str, Any]
    """Before it began: `seconds` of computing that were left, and the names of recipes of which they are `unknown`."""

    @property
    def failure(self) -> str:
        """The first of the recipes that failed, and why."""
        failed = [found for found in self.recipes if "error" in found]
        first = f": {failed[0]['name']}: {failed[0]['error']}" if failed else ""
        return f"{len(failed)} of {len(self.recipes)} recipes failed{first}" if failed else ""

    def show(self, console: "Console") -> None:
        """One line a recipe."""
        from rich.table import Table

        table = Table("recipe", "verdict", title="sweep")
        for name, verdict in self.verdicts.items():
            table.add_row(cell(name), _verdict(verdict))
        console.print(table)


@dataclass(frozen=True, kw_only=True)
class Plan(Result):
    """What an experiment takes at real scale."""

    name: str
    devices: int
    gigabytes: float
    tokens: str
    command: str
    models: dict[str, dict[str, Any]]

    def show(self, console: "Console") -> None:
        """Every field, one below the other."""
        _show_all(console, self)


@dataclass(frozen=True, kw_only=True)
class Plans(Result):
    """What several experiments take."""

    plans: list[Plan]

    def show(self, console: "Console") -> None:
        """One plan below the other."""
        for plan in self.plans:
            plan.show(console)


def excluded(claim: dict[str, Any]) -> str:
    """What a null verdict says beside the word."""
    return "" if claim["excludes"] is None else f", effects above {claim['excludes']:.3g} are excluded"


def power_line(claim: dict[str, Any]) -> str:
    """The power statement of a claim, in words."""
    if claim["spread"] is None:
        return f"of {claim['effect']:g} not known: no pilot has said how many seeds it takes"
    pilot = f"{len(claim['pilot'])} pilot seeds"
    return (
        f"{claim['effect']:g} at a spread of {claim['spread']:g} ({pilot}) takes {claim['seeds_needed']} seeds; "
        f"{claim['seeds']} have {chance(claim['power'])}"
    )


def chance(power: float | None) -> str:
    """A power in words: no test is certain."""
    return "-" if power is None else ">99%" if power > 0.995 else f"{power:.0%}"


def _show_claim(console: "Console", claim: dict[str, Any]) -> None:
    line(console, claim["role"], claim["text"])
    low, high = claim["ci"] or (-math.inf, math.inf)
    ends = f"{100 * claim['confidence']:.4g} % interval {low:+.4g} to {high:+.4g}"
    line(console, f"  {claim['figure']}", f"{claim['mean']:+.4g}, {ends}")
    line(console, "  power", power_line(claim))
    line(console, f"  {claim['verdict']}", (claim["why"] or "decided by that interval") + excluded(claim))


def _verdict(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"


def _show_all(console: "Console", result: Mapping[str, Any]) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    for key, value in result.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        text = "\n".join(cell(f"{name}: {item}" if name else item) for name, item in inner)
        table.add_row(cell(key), "-" if value in (None, "", [], {}) else text)
    console.print(table)
