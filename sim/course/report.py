"""A scored run over a course, wherever it took place."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.results import Result, cell, line

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class CourseReport(Result):
    """What every scored run says."""

    score: float
    time_s: float | None
    """From the start table's gate to the end table, s."""
    finished: bool
    touched_jump: bool
    obstacles: dict[str, dict[str, Any]]
    """Name -> `completed`, `gates_passed`, `gates`."""
    path_m: float
    progress: float
    """Share of all gates that was passed."""
    obstacle_s: dict[str, float]
    """Completed obstacle -> s from the last gate of the one before it."""
    gate_times: dict[str, list[float]]
    """Obstacle -> times at which its gates were passed, s."""
    course: str
    log: str | None
    """The pose log that was read or written."""
    end: str | None = None
    """Why the run ended."""

    def show(self, console: "Console") -> None:
        """Obstacles in a table; score, time and end in a line."""
        from rich.table import Table

        table = Table(title=f"course {cell(self.course)}")
        for column in ("obstacle", "gates", "completed", "took"):
            table.add_column(column, no_wrap=column == "obstacle", overflow="fold")
        for name, obstacle in self.obstacles.items():
            gates = f"{obstacle['gates_passed']}/{obstacle['gates']}"
            took = f"{self.obstacle_s[name]:.2f} s" if name in self.obstacle_s else "-"
            table.add_row(cell(name), gates, "[green]yes[/]" if obstacle["completed"] else "[red]no[/]", took)
        console.print(table)
        words = [f"score {self.score:.4f}", "no time" if self.time_s is None else f"time {self.time_s:.2f} s"]
        words += ["finished" if self.finished else "not finished"]
        words += [f"ended: {cell(self.end)}"] if self.end else []
        words += ["touched the board"] if self.touched_jump else []
        console.print(", ".join(words))
        skills = self.get("skills", {})
        one = len(set(skills.values())) == 1
        for skill, bundle in list(skills.items())[: 1 if one else None]:
            line(console, "policy" if one else skill, bundle)
        for name in ("log", "picture", "recording", "video"):
            if self.get(name):
                line(console, name, self[name])


@dataclass(frozen=True, kw_only=True)
class ScoreReport(CourseReport):
    """A pose log, scored."""

    allotted_s: float
    end_table_s: float
    """How long the robot held the end table, s."""
