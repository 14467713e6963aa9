"""Results of the commands as tables for people."""

from typing import Any

from rich.console import Console
from rich.table import Table


def show(command: str, result: dict[str, Any]) -> None:
    """Prints a command's result on standard output."""
    console = Console()
    if command in ("run", "score"):
        _course(console, result)
    elif command == "evaluate":
        _evaluation(console, result)
    else:
        _plain(console, command, result)


def _course(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"course {result.get('course', 'official')}")
    for column in ("obstacle", "gates", "completed"):
        table.add_column(column)
    for name, obstacle in result["obstacles"].items():
        gates = f"{obstacle['gates_passed']}/{obstacle['gates']}"
        table.add_row(name, gates, "[green]yes[/]" if obstacle["completed"] else "[red]no[/]")
    console.print(table)
    words = [f"score {result['score']:.4f}", f"time {result['time_s']:.2f} s"]
    words += ["finished"] if result.get("finished") else ["not finished"]
    words += ["fell"] if result.get("fell") else []
    words += ["touched the board"] if result.get("touched_jump") else []
    console.print(", ".join(words))
    for key in ("skills", "notes", "log", "picture", "video"):
        if result.get(key):
            console.print(f"{key}: {result[key]}", highlight=False)


def _evaluation(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"{result['runs']} runs")
    table.add_column("obstacle")
    table.add_column("completed")
    for name, rate in result["per_obstacle_success"].items():
        table.add_row(name, f"{100 * rate:.0f} %")
    console.print(table)
    for key, value in result.items():
        if key not in ("per_obstacle_success", "runs") and not isinstance(value, (list, dict)):
            console.print(f"{key}: {value:.4g}" if isinstance(value, float) else f"{key}: {value}")


def _plain(console: Console, title: str, result: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for key, value in result.items():
        table.add_row(key, str(value))
    console.print(table)
