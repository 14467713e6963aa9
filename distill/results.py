"""What distillation and its benchmark found."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.learning.results import Exported, Stoppable
from sim.results import Result, line

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, kw_only=True)
class Distilled(Stoppable):
    """One run of `barkour distill locomotion`."""

    rounds: int
    steps: int
    minutes: float
    run: str | None = None
    """The folder to resume, where the run was interrupted."""
    bundle: str | None = None
    """What was written, where it was not."""
    parity: float | None = None
    """Largest difference of the bundle's actions to the trained network's."""
    rounding: float = 0.0
    """As in `Exported`."""

    @property
    def failure(self) -> str:
        """Where the run was interrupted, or its bundle is not what was trained."""
        if super().failure or self.parity is None:
            return super().failure
        return Exported(parity=self.parity, rounding=self.rounding).failure


@dataclass(frozen=True, kw_only=True)
class LanguageDistilled(Stoppable):
    """One run of `barkour distill language`, or what its plan or dry run says."""

    method: str
    settings: dict[str, float]
    teacher: str | None
    student: str
    """Where it comes from."""
    parameters: dict[str, int]
    data: dict[str, Any]
    """What was read, dropped, cut and held out, and the files' SHA-256."""
    steps: int
    out: str | None = None
    """The student's folder."""
    perplexity: dict[str, float] | None = None
    """On held-out data: the student at the `start` and at the `end`, the `teacher`."""
    agreement: float | None = None
    """Share of held-out tokens at which teacher and student have the same likeliest token."""
    vllm: dict[str, Any] | None = None
    """Whether vLLM should serve the student: `known`, `architecture`, `registry`, `problems`."""
    lm_eval: dict[str, Any] | None = None
    """Student and teacher on the tasks that were asked for: `tasks`, `examples`, `version`."""
    minutes: float | None = None

    @property
    def _taught_by(self) -> str:
        """Who is meant by the teacher in figures: a student that learns from itself has no other."""
        return "the teacher" if self.teacher or self.get("teachers") else "the generation before"

    def show(self, console: "Console") -> None:
        """What was read, what was left out, what came of it."""
        settings = "".join(f", {name} {value:g}" for name, value in self.settings.items())
        line(console, "method", f"{self.method}{settings}")
        for role, name in (("teacher", self.teacher), ("student", self.student)):
            if role in self.parameters:
                line(console, role, f"{name}, {self.parameters[role]:,} parameters")
            elif name and role == "teacher":  # one that is served, kept in answers, or asked before the first step
                line(console, role, name)
        if "aligned" in self.more:
            line(console, "pieces that both split alike", f"{self.more['aligned']['in_pieces']:.1%} of the tokens")
        data = self.data
        rows = f"{data['rows']} rows{' (packed)' if data['packed'] else ''}, {data['held_out_rows']} held out"
        line(console, "data", f"{data['examples']} examples, {rows}, {data['learned_tokens']} tokens learned in a pass")
        for what in ("dropped", "cut"):
            for reason, count in data[what].items():
                line(console, what, f"{count}, {reason}")
        if self.perplexity:
            found = {name: f"{value:.4g}" for name, value in self.perplexity.items()}
            taught = f", {self._taught_by}'s {found['teacher']}" if "teacher" in found else ""
            line(console, "perplexity on held-out data", f"{found['start']} before, {found['end']} after{taught}")
        if self.agreement is not None:
            line(console, f"agreement with {self._taught_by}", f"{self.agreement:.1%} of the held-out tokens")
        if "seconds_per_step" in self.more:
            line(console, "a step", f"{self.more['seconds_per_step']:.3g} s, {self.steps} steps {self.minutes:.3g} min")
            line(console, "memory", f"{self.more['peak_gb']:.3g} GB at the peak")
        if self.vllm:
            known = {"no": "not known", "own": "known"}.get(self.vllm["known"], f"known, {self.vllm['known']}")
            more = "".join(f"; {problem}" for problem in self.vllm["problems"])
            line(console, "vLLM", f"{self.vllm['architecture']} {known} to {self.vllm['registry']}{more}")
        show_tasks(console, self.lm_eval or {})
        if self.out:
            line(console, "student", self.out)


@dataclass(frozen=True, kw_only=True)
class ClassifierDistilled(Stoppable):
    """One run of `barkour distill classifier`, or what its dry run says."""

    method: str
    settings: dict[str, float]
    teacher: str | None
    student: str
    parameters: dict[str, int]
    classes: list[str]
    data: dict[str, Any]
    """Rows that were read, trained on, held out, dropped and cut, and the files' SHA-256."""
    steps: int
    out: str | None = None
    """The student's folder."""
    measured_on: str | None = None
    """`test`, or `held-out rows`."""
    accuracy: dict[str, float] | None = None
    """There: the student at the `start` and at the `end`, the `teacher`."""
    calibration_error: dict[str, float] | None = None
    minutes: float | None = None

    def show(self, console: "Console") -> None:
        """What was read, and what came of it."""
        line(console, "method", self.method + "".join(f", {name} {value:g}" for name, value in self.settings.items()))
        for role, name in (("teacher", self.teacher), ("student", self.student)):
            if role in self.parameters:
                line(console, role, f"{name}, {self.parameters[role]:,} parameters")
        rows = f"{self.data['trained']} rows of {len(self.classes)} classes"
        line(console, "data", f"{rows}, {self.data['held_out']} held out")
        for what in ("dropped", "cut"):
            for reason, count in self.data[what].items():
                line(console, what, f"{count}, {reason}")
        for name, found in (("accuracy", self.accuracy), ("calibration error", self.calibration_error)):
            if found:
                figures = ", ".join(f"{who} {value:.4g}" for who, value in found.items())
                line(console, f"{name} on {self.measured_on}", figures)
        if self.out:
            line(console, "student", self.out)


@dataclass(frozen=True, kw_only=True)
class OwnDistilled(Stoppable):
    """One run of `barkour distill tagger` or a command like it, or what its dry run says."""

    method: str
    student: str
    parameters: dict[str, int]
    data: dict[str, Any]
    """Rows that were trained on, held out and dropped, and the files' SHA-256."""
    steps: int
    out: str | None = None
    """The student's folder."""
    measured_on: str
    figures: dict[str, dict[str, float]] | None = None
    """There: of the student at the `start` and at the `end`."""
    minutes: float | None = None

    def show(self, console: "Console") -> None:
        """What was read, and what came of it."""
        line(console, "method", self.method)
        for role, count in self.parameters.items():
            line(console, role, f"{count:,} parameters")
        line(console, "data", f"{self.data['trained']} rows, {self.data['held_out']} held out")
        for what in ("dropped", "cut"):
            for reason, count in self.data.get(what, {}).items():
                line(console, what, f"{count}, {reason}")
        if self.figures:
            for name, value in self.figures["end"].items():
                beside = {who: values[name] for who, values in self.more.get("beside", {}).items() if name in values}
                more = "".join(f"; {who} {other:.4g}" for who, other in beside.items())
                before = f"{self.figures['start'][name]:.4g} before"
                line(console, f"{name} on {self.measured_on}", f"{before}, {value:.4g}{more}")
        if "seconds" in self.more:
            each = ", ".join(f"{stage} {value:.3g} s" for stage, value in self.more["seconds"].items())
            line(console, "a step", f"{each}; {self.steps} steps {self.minutes:.3g} min")
            line(console, "memory", f"{self.more['peak_gb']:.3g} GB at the peak")
        if self.out:
            line(console, "student", self.out)


@dataclass(frozen=True, kw_only=True)
class CardWritten(Result):
    """The card of a student's folder."""

    card: str
    method: str


@dataclass(frozen=True, kw_only=True)
class StudentMeasured(Result):
    """A finished student on tasks of lm-eval, or on data of its own form."""

    card: str
    lm_eval: dict[str, Any] | None = None
    """`tasks`, `examples`, `version`."""
    figures: dict[str, dict[str, float]] | None = None
    """By the data's names."""

    def show(self, console: "Console") -> None:
        """Measure by measure, and where they stand."""
        show_tasks(console, self.lm_eval or {})
        for data, figures in (self.figures or {}).items():
            for name, value in figures.items():
                line(console, f"{name} on {data}", f"{value:.4g}")
        line(console, "card", self.card)


def show_tasks(console: "Console", found: Mapping[str, Any]) -> None:
    """Figures of lm-eval's tasks, a line a measure."""
    for task, measures in found.get("tasks", {}).items():
        for name, models in measures.items():
            line(console, f"{task}: {name}", ", ".join(f"{who} {one['value']:.4g}" for who, one in models.items()))


@dataclass(frozen=True, kw_only=True)
class DistillBench(Result):
    """Tokens per second and memory, here, by hand and with TRL."""

    arms: dict[str, dict[str, Any]]
    ratios: dict[str, dict[str, float]]
    """Of tokens/s, this project over the other's."""
    logits_kept: dict[str, float]
    rounds: int
    machine: dict[str, Any]
