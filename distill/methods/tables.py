"""Recipes, their results and plans as tables for people."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLOURS = {"supported": "green", "null": "yellow", "contradicted": "red", "failed": "red"}


def show(console: Console, result: dict[str, Any]) -> None:
    """Prints what `command.recipe` returned."""
    if "by_algorithm" in result:
        _catalogue(console, result)
    elif "verdicts" in result:
        table = Table("recipe", "verdict", title="sweep")
        for name, verdict in result["verdicts"].items():
            table.add_row(name, _verdict(verdict))
        console.print(table)
    elif "checks" in result:
        _result(console, result)
    else:
        table = Table(show_header=False)
        for key, value in result.items():
            inner = value.items() if isinstance(value, dict) else [("", value)]
            text = "\n".join(f"{name}: {item}" if name else str(item) for name, item in inner)
            table.add_row(escape(key), escape(text))
        console.print(table)


def _catalogue(console: Console, result: dict[str, Any]) -> None:
    recipes = {recipe["name"]: recipe for recipe in result["recipes"]}
    table = Table("algorithm", "recipe", "title", "skill", "vertical", "needs", title="recipes")
    for algorithm, names in sorted(result["by_algorithm"].items()):
        for name in names:
            r = recipes[name]
            cells = (algorithm, name, f"{r['title']} ({r['source']})", r["skill"], r["vertical"], r["access"])
            table.add_row(*map(escape, cells))
    console.print(table)


def _result(console: Console, result: dict[str, Any]) -> None:
    table = Table("arm", result["metric"], "95 % interval", "what it is", title=escape(result["title"]))
    for name, arm in result["arms"].items():
        interval = f"{arm['ci95'][0]:.4g} to {arm['ci95'][1]:.4g}" if arm["ci95"] else "-"
        table.add_row(escape(name), f"{arm['mean']:.4g}", interval, escape(arm["about"]))
    console.print(table)
    console.print(f"claim: {result['claim']}", highlight=False, markup=False)
    for check in result["checks"]:
        console.print(
            f"  {'yes' if check['holds'] else 'no '} {check['role']}: {check['text']}", highlight=False, markup=False
        )
    console.print(f"verdict: {_verdict(result['verdict'])} ({len(result['seeds'])} seeds, {result['seconds']:.0f} s)")


def _verdict(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"
