"""What distillation and its benchmark found."""

from dataclasses import dataclass
from typing import Any

from policies.learning.results import Exported, Stoppable
from sim.results import Result


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

    @property
    def failure(self) -> str:
        """Where the run was interrupted, or its bundle is not what was trained."""
        return super().failure or ("" if self.parity is None else Exported(parity=self.parity).failure)


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
    minutes: float | None = None


@dataclass(frozen=True, kw_only=True)
class DistillBench(Result):
    """Tokens per second and memory, here, by hand and with TRL."""

    arms: dict[str, dict[str, Any]]
    ratios: dict[str, dict[str, float]]
    """Of tokens/s, this project over the other's."""
    logits_kept: dict[str, float]
    rounds: int
    machine: dict[str, Any]
