"""What a finished course run did: how it ended, when it passed its gates, and every control step of it."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from sim.course.score import CourseScore


@dataclass
class Trace:
    """What one robot did, one row per control step."""

    time: list[float] = field(default_factory=list)
    pose: list[tuple[float, float, float]] = field(default_factory=list)
    """x, y (m), heading (rad)."""
    height: list[float] = field(default_factory=list)
    """z of the base, m."""
    velocity: list[tuple[float, float, float]] = field(default_factory=list)
    """Forward, leftward (m/s), yaw rate (rad/s)."""
    command: list[tuple[float, float, float]] = field(default_factory=list)
    skill: list[str] = field(default_factory=list)
    waypoint: list[int] = field(default_factory=list)

    def arrays(self) -> dict[str, np.ndarray]:
        """The rows as arrays, time first `[T, ...]`."""
        return {name: np.asarray(values) for name, values in self.__dict__.items()}


@dataclass(frozen=True)
class Switch:
    """One change of skill."""

    time: float
    """s from the first step."""
    before: str
    after: str
    jump: float
    """Largest change of a joint target in that control step, rad."""
    unblended: float
    """What it would have been without fading over, rad."""


@dataclass
class CourseRun:
    """One finished run."""

    seed: int
    result: CourseScore
    end: str
    """Why it ended: `held the end table`, `left the end table`, `fell`, `left the course`, `time limit`, `diverged`."""
    seconds: float
    """Simulated, from the first step."""
    trace: Trace
    torque_peak: list[float]
    """N m, per joint."""
    target_jump: float
    """Largest change of a joint target between two control steps, rad."""
    world: dict[str, Any]
    """The world's drawn parameters."""
    switches: list[Switch] = field(default_factory=list)
    course: str = ""
    """The course's own name."""

    @property
    def all_obstacles(self) -> bool:
        """Whether every obstacle was completed."""
        return all(obstacle.completed for obstacle in self.result.obstacles.values())

    @property
    def fell(self) -> bool:
        """Whether a fall ended it."""
        return self.end in ("fell", "diverged")

    @property
    def gate_times(self) -> dict[str, list[float]]:
        """Obstacle -> times at which its gates were passed, s from the first step."""
        return self.result.gate_times

    @property
    def obstacle_s(self) -> dict[str, float]:
        """Completed obstacle -> s that it took; see `CourseScore.obstacle_s`."""
        return self.result.obstacle_s

    @property
    def weave_s(self) -> float | None:
        """From the start table's gate to the last weave gate, s; None where not all were passed."""
        start, weave = self.gate_times.get("start table"), self.gate_times.get("weave poles")
        whole = "weave poles" in self.result.obstacles and self.result.obstacles["weave poles"].completed
        return weave[-1] - start[-1] if start and weave and whole else None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready summary, without the trace."""
        return {
            "score": self.result.score,
            "time_s": self.result.time_s,
            "finished": self.result.finished,
            "fell": self.fell,
            "touched_jump": self.result.touched_jump,
            "end": self.end,
            "weave_s": self.weave_s,
            "obstacle_s": self.obstacle_s,
            "simulated_s": self.seconds,
            "path_m": self.result.path_m,
            "progress": self.result.progress,
            "obstacles": self.result.to_dict()["obstacles"],
            "gate_times": self.gate_times,
            "seed": self.seed,
            "torque_peak_nm": max(self.torque_peak),
            "target_jump_rad": self.target_jump,
            "switches": [asdict(switch) for switch in self.switches],
            "world": self.world,
        }
