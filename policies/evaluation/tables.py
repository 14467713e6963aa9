"""Results of the commands as tables for people."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def show(command: str, result: dict[str, Any]) -> None:
    """Prints a command's result on standard output."""
    console = Console()
    if command in ("run", "score") or (command in ("onboard", "ros") and "obstacles" in result):
        _course(console, result)
        _controller(console, result)
    elif command == "evaluate":
        _evaluation(console, result)
    else:
        _plain(console, command, result)


def _course(console: Console, result: dict[str, Any]) -> None:
    times = result.get("gate_times", {})
    table = Table(title=f"course {escape(str(result.get('course', 'official')))}")
    for column in ("obstacle", "gates", "completed", *(["last gate at"] if times else [])):
        table.add_column(column)
    for name, obstacle in result["obstacles"].items():
        gates = f"{obstacle['gates_passed']}/{obstacle['gates']}"
        last = [f"{times[name][-1]:.2f} s" if times.get(name) else "-"] if times else []
        table.add_row(escape(name), gates, "[green]yes[/]" if obstacle["completed"] else "[red]no[/]", *last)
    console.print(table)
    words = [f"score {result['score']:.4f}", f"time {result['time_s']:.2f} s"]
    words += ["finished" if result.get("finished") else "not finished"]
    words += [f"ended: {result['end']}"] if result.get("end") else []
    words += ["touched the board"] if result.get("touched_jump") else []
    console.print(", ".join(words))
    for skill, bundle in result.get("skills", {}).items():
        _line(console, skill, bundle)
    for key in ("log", "video"):
        if result.get(key):
            _line(console, key, result[key])


def _controller(console: Console, result: dict[str, Any]) -> None:
    """What the control loop says of itself, where one ran."""
    if "controller" not in result:
        return
    controller, loop = result["controller"], result["loop"]
    _line(console, "controller", f"{controller['state']}: {controller['reason']}")
    _line(console, "refused", ", ".join(f"{kind} {n}" for kind, n in controller["refusals"].items()) or "nothing")
    if result.get("real_time"):
        names = ("tick_ms_p50", "tick_ms_p99", "missed_deadline_rate")
        _line(console, "loop", ", ".join(f"{name} {loop[name]:.3g}" for name in names))
    for name, digest in result["bundles"].items():
        _line(console, f"sha256 of {name}", digest)
    if result.get("recording"):
        _line(console, "recording", result["recording"])


def _evaluation(console: Console, result: dict[str, Any]) -> None:
    table = Table(title=f"{result['runs']} runs")
    table.add_column("obstacle")
    table.add_column("completed")
    for name, rate in result["per_obstacle_success"].items():
        table.add_row(escape(name), f"{100 * rate:.0f} %")
    console.print(table)
    for key, value in result.items():
        if key == "score_ci95":
            _line(console, key, f"{value[0]:.4g} to {value[1]:.4g}")
        elif key not in ("per_obstacle_success", "runs") and not isinstance(value, (list, dict)):
            _line(console, key, f"{value:.4g}" if isinstance(value, float) else value)


def _plain(console: Console, title: str, result: dict[str, Any]) -> None:
    table = Table(title=title, show_header=False)
    table.add_column("what")
    table.add_column("value", overflow="fold")
    for key, value in result.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):  # the whole of it is in --json
            value = f"{len(value)} in all"
        table.add_row(escape(key), escape(str(value)))
    console.print(table)


def _line(console: Console, name: str, value: Any) -> None:
    console.print(f"{name}: {value}", highlight=False, markup=False, soft_wrap=True)
