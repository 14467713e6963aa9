"""What training, export and the benchmark of physics found."""

from dataclasses import dataclass
from typing import Any

from sim.results import Result

EXPORT_TOLERANCE = 1e-5
"""Largest difference of actions between an exported network and the trained one, where float32 is as exact."""


@dataclass(frozen=True, kw_only=True)
class Stoppable(Result):
    """Of work that Ctrl-C ends early, saved."""

    interrupted: bool

    @property
    def failure(self) -> str:
        """Where it was interrupted."""
        return "interrupted and saved; --resume continues" if self.interrupted else ""

    @property
    def status(self) -> int:
        """130 where it was interrupted, as shells have it for Ctrl-C."""
        return 130 if self.interrupted else super().status


@dataclass(frozen=True, kw_only=True)
class Trained(Stoppable):
    """One run of `barkour train`."""

    skill: str
    backend: str
    steps: int
    seed: int
    worlds: int
    minutes: float
    command: str
    commit: str | None
    last: dict[str, float]
    """Means over the last twentieth of the iterations."""
    checkpoint: str
    curve: str
    bundle: str | None = None
    """What was exported, where the run came to its end."""
    start: str | None = None
    """The folder that `--start-from` takes."""


@dataclass(frozen=True, kw_only=True)
class Exported(Result):
    """A bundle that was written."""

    parity: float
    """Largest difference of its actions to the trained network's."""
    rounding: float = 0.0
    """Largest difference of the trained network's actions to what they are in double precision: either network may be
    so far off, on inputs that no robot ever met."""

    @property
    def failure(self) -> str:
        """Where the bundle is not what was trained."""
        if self.parity <= max(EXPORT_TOLERANCE, 2 * self.rounding):
            return ""
        return f"the exported network differs from the trained one by {self.parity:.3g}"


@dataclass(frozen=True, kw_only=True)
class PhysicsBench(Result):
    """Environment steps per second of both engines."""

    cpu_steps_per_second: float
    mjx_steps_per_second: float
    ratio: float
    """C engine over MJX."""
    cpu_with_learner_steps_per_second: float
    scenes: dict[str, Any]
    conditions: dict[str, Any]
