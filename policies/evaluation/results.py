"""What `barkour run` and `barkour evaluate` found."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.course.report import CourseReport
from sim.results import Result, cell, line

if TYPE_CHECKING:
    from rich.console import Console


FORMAT = "barkour-evaluation/1"
"""The form of an evaluation's object, which `evaluation.schema.json` beside this file describes."""


@dataclass(frozen=True, kw_only=True)
class RunReport(CourseReport):
    """One run in evaluation physics; see `policies.evaluation.outcome.CourseRun`."""

    fell: bool
    simulated_s: float
    weave_s: float | None
    policy: str
    skills: dict[str, Any]
    """Skill -> the bundle that has it."""
    seed: int
    randomize: bool
    torque_limit_nm: float
    torque_peak_nm: float
    target_jump_rad: float
    switches: list[dict[str, Any]]
    """Changes of skill."""
    world: dict[str, Any]
    """What was drawn for this run's world."""
    navigator_pose: str
    """What the robot knew of its place."""
    picture: str | None = None
    recording: str | None = None
    video: str | None = None


@dataclass(frozen=True, kw_only=True)
class Evaluation(Result):
    """The distribution over many runs; see `policies.evaluation.evaluate.summarize`."""

    runs: int
    score_mean: float
    score_ci95: list[float]
    finished_rate: float
    fell_rate: float
    time_s_median: float | None
    per_obstacle_success: dict[str, float]
    conditions: dict[str, Any]
    policy: str
    robot: str
    course: str
    seed: int
    skills: dict[str, Any]
    worlds: list[dict[str, Any]]
    """One a run: seed, course, score, time, how it ended."""
    format: str = FORMAT
    """Name and version of this object's form."""
    against: dict[str, Any] | None = None
    """The same of a second policy over the same worlds."""
    comparison: dict[str, Any] | None = None
    """What the first has over it; see `policies.evaluation.comparison.compare`."""
    report: str | None = None
    """The folder that was written."""

    def show(self, console: "Console") -> None:
        """Obstacles in a table; every figure in a line."""
        from rich.table import Table

        table = Table(title=f"{self.runs} runs")
        table.add_column("obstacle")
        table.add_column("completed")
        for name, rate in self.per_obstacle_success.items():
            table.add_row(cell(name), f"{100 * rate:.0f} %")
        console.print(table)
        for name, value in self.items():
            if name == "score_ci95":
                line(console, name, f"{value[0]:.4g} to {value[1]:.4g}")
            elif name not in ("per_obstacle_success", "runs", "format") and not isinstance(value, (list, dict)):
                line(console, name, f"{value:.4g}" if isinstance(value, float) else value)
        if self.comparison and self.against:
            low, high = self.comparison["ci95"]
            name = f"score less that of {self.against['policy']}"
            line(console, name, f"{self.comparison['score_difference']:+.4f} [{low:+.4f}, {high:+.4f}]")
