"""What the control loop, its replay, the programs on ROS 2 and the loop's benchmark found."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from robot.loop.refusals import Code
from sim.course.report import CourseReport
from sim.results import Result, line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class LoopReport(Result):
    """The control loop on a robot."""

    controller: dict[str, Any]
    """Its last state with the reason, what it refused, and its changes of state."""
    loop: dict[str, Any]
    """How punctual it was."""
    bundles: dict[str, str]
    """File -> SHA-256."""

    @property
    def failure(self) -> str:
        """Where the controller ended in emergency."""
        return _emergency(self.controller)

    def show(self, console: "Console") -> None:
        """State, refusals, bundles."""
        _show_loop(console, self)
        if self.get("recording"):
            line(console, "recording", self["recording"])


@dataclass(frozen=True, kw_only=True)
class OnboardReport(CourseReport):
    """A course run through the control loop: in simulation, or over processes of ROS."""

    fell: bool
    policy: str
    seed: int
    randomize: bool
    real_time: bool
    controller: dict[str, Any]
    loop: dict[str, Any]
    bundles: dict[str, str]
    latency_ms: dict[str, float] | None
    """From a reading's stamp to the drives."""
    recording: str | None
    died: str | None = None
    """The process that ended before the run did."""

    @property
    def failure(self) -> str:
        """Where a process died, the loop was never armed or the controller ended in emergency."""
        if self.died:
            return f"the process {self.died} ended before the run did: {self.end}"
        if self.controller.get("code") == Code.NOT_ARMED:
            refused = "; ".join(self.controller.get("last_refusals", {}).values()) or "nothing was refused"
            return f"the run did not begin, the loop was never armed: {refused}"
        return _emergency(self.controller)

    def show(self, console: "Console") -> None:
        """The course, then the loop."""
        super().show(console)
        _show_loop(console, self)


@dataclass(frozen=True, kw_only=True)
class Replay(Result):
    """A recording through the loop again."""

    recording: str
    steps: int
    seconds: float
    equal: bool
    differing_steps: int
    first_difference: str
    largest_target_difference: float
    """rad, over the steps in which joints were asked for."""
    lost_bytes: int
    """Cut off at the file's end."""
    states: list[str]

    @property
    def failure(self) -> str:
        """Where something came out differently."""
        return "" if self.equal else f"the recording is not reproduced: {self.first_difference}"


@dataclass(frozen=True, kw_only=True)
class Converted(Result):
    """A recording that was made whole."""

    recording: str
    """The new file."""
    steps: int
    lost_bytes: int
    """Cut off at the old file's end."""


@dataclass(frozen=True, kw_only=True)
class SimReport(Result):
    """The simulated robot's side of a run."""

    commands: int
    seconds: float
    latency_ms: dict[str, float] | None
    damping: bool
    diverged: bool
    touched_board: bool
    refusals: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class UnitreeSimReport(Result):
    """A simulated robot that spoke Unitree's messages."""

    robot: str
    course: str
    seed: int
    commands: int
    """Obeyed."""
    seconds: float
    paused_s: float
    mode: str
    """The robot's own mode that was active at the end; empty where the motors obeyed low-level commands."""
    damping: bool
    height: float
    """Of the base at the end, m."""
    diverged: bool
    calls: list[int]
    """Of its services, by their numbers."""
    refusals: dict[str, int]
    run: dict[str, Any] | None = None
    """What the referee says, where the run was scored."""


@dataclass(frozen=True, kw_only=True)
class LocalizerReport(Result):
    """The localizer's side of a run."""

    poses: int
    """Sent."""
    lost: str
    """Why the place is not known any more; empty where it is."""
    refusals: dict[str, int]

    @property
    def failure(self) -> str:
        """Where the place was lost."""
        return f"the place was lost: {self.lost}" if self.lost else ""


@dataclass(frozen=True, kw_only=True)
class NavigatorReport(Result):
    """The navigator's side of a run."""

    commands: int
    """Sent."""
    refusals: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class RefereeReport(CourseReport):
    """The referee's verdict."""

    fell: bool
    allotted_s: float
    end_table_s: float


@dataclass(frozen=True, kw_only=True)
class OnboardBench(Result):
    """The loop's punctuality, and what became of every fault."""

    tick_ms_p50: float
    tick_ms_p99: float
    missed_deadline_rate: float
    state: str
    """At the end of the timed run."""
    faults_tried: int
    faults_safe: int
    faults: list[dict[str, Any]]
    by_sensor: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """A row for each sensor, see `robot.bench.faults.summary`."""

    @property
    def failure(self) -> str:
        """Where the loop did not run to the end, or a fault did not end safe."""
        if self.state != "running":
            return f"the timed run ended in the state {self.state}"
        unsafe = [fault["name"] for fault in self.faults if not fault["safe"]]
        return f"{len(unsafe)} faults did not end safe: {', '.join(unsafe)}" if unsafe else ""

    def show(self, console: "Console") -> None:
        """The figures, then the faults by sensor."""
        super().show(console)
        console.print(by_sensor(self.by_sensor))


def by_sensor(rows: Sequence[dict[str, Any]]) -> "Table":
    """Faults by sensor, as `robot.bench.faults.summary` has them."""
    from rich.table import Table

    drawn = Table("what is wrong", "tried", "safe", "slowest, ms", "state reached")
    for row in rows:
        states = ", ".join(f"{state} {count}" for state, count in row["states"].items())
        drawn.add_row(row["sensor"], str(row["tried"]), str(row["safe"]), f"{row['slowest_ms']:.0f}", states)
    return drawn


def _emergency(controller: dict[str, Any]) -> str:
    ended = controller["state"] == "emergency"
    return f"the controller ended in emergency: {controller['reason']}" if ended else ""


def _show_loop(console: "Console", report: LoopReport | OnboardReport) -> None:
    controller, loop = report.controller, report.loop
    line(console, "controller", f"{controller['state']}: {controller['reason']}")
    line(console, "refused", ", ".join(f"{kind} {n}" for kind, n in controller["refusals"].items()) or "nothing")
    if report.get("real_time", True):
        names = ("tick_ms_p50", "tick_ms_p99", "missed_deadline_rate")
        line(console, "loop", ", ".join(f"{name} {loop[name]:.3g}" for name in names if loop.get(name) is not None))
    for name, digest in report.bundles.items():
        line(console, f"sha256 of {name}", digest)


@dataclass(frozen=True, kw_only=True)
class DriftReport(Result):
    """How far a robot's own reckoning of its place was off; see `robot.estimation.drift`."""

    robot: str
    policy: str
    runs: int
    seconds: float
    seed: int
    randomized: bool
    way_m: float
    """Gone in all runs, m."""
    drift_per_metre: float
    """Error of the place in the plane at a run's end over the way gone, mean of the runs."""
    heading_deg_per_minute: float
    """Size of the heading's error at the end."""
    height_error_m: float
    """Size of the height's error at the end."""
    velocity_error: float
    """Mean length of the velocity's error, m/s."""
    tilt_error_deg: float
    """Mean angle between the true up and the one that is believed."""
    fell: int
    each: list[dict[str, Any]]
    """One a run."""
