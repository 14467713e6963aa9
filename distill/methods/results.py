"""What `barkour recipe` found, and how people read it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.results import Result, cell, line

if TYPE_CHECKING:
    from rich.console import Console

COLOURS = {"supported": "green", "null": "yellow", "contradicted": "red", "failed": "red"}


@dataclass(frozen=True, kw_only=True)
class Catalogue(Result):
    """All recipes, and their names by three axes of the survey's catalogue."""

    recipes: list[dict[str, Any]]
    by_algorithm: dict[str, list[str]]
    by_skill: dict[str, list[str]]
    by_vertical: dict[str, list[str]]

    def show(self, console: "Console") -> None:
        """One line a recipe, ordered by algorithm; long titles are cut where the line ends."""
        from rich.table import Table

        ordered = sorted(self.recipes, key=lambda recipe: (recipe["algorithm"], recipe["name"]))
        table = Table(box=None, pad_edge=False)
        for name in ("name", "algorithm", "title"):
            whole = max(len(recipe[name]) for recipe in ordered) + 2 * (name == "name") if name != "title" else None
            table.add_column(name, no_wrap=True, overflow="ellipsis", min_width=whole)
        for recipe in ordered:
            marked = {**recipe, "name": recipe["name"] + " *" * bool(recipe["own_models"])}
            table.add_row(*(cell(marked[name]) for name in ("name", "algorithm", "title")))
        console.print(table)
        line(console, "* on your own models", "barkour distill language|classifier --method NAME")


@dataclass(frozen=True, kw_only=True)
class Description(Result):
    """One recipe."""

    name: str
    title: str
    source: str
    claim: str
    falsified: str
    arms: dict[str, str]

    def show(self, console: "Console") -> None:
        """Every field, one below the other."""
        _show_all(console, self)


@dataclass(frozen=True, kw_only=True)
class RecipeVerdict(Result):
    """The judged experiment."""

    name: str
    title: str
    claim: str
    verdict: str
    """supported, null or contradicted."""
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


def _verdict(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"


def _show_all(console: "Console", result: Result) -> None:
    from rich.table import Table

    table = Table(show_header=False)
    for key, value in result.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        text = "\n".join(cell(f"{name}: {item}" if name else item) for name, item in inner)
        table.add_row(cell(key), text)
    console.print(table)
