"""What a run's world has of its own: the engine, its solver, and differences that no engine agrees on.

With the defaults this is the physics that runs are judged in. `barkour evaluate --sim2sim` goes through the rest.
"""

from dataclasses import dataclass, replace
from typing import Literal

import mujoco
import numpy as np

from sim.course.scene import EVALUATION, SolverOptions
from sim.errors import InputError
from sim.physics.base import WholePhysics
from sim.physics.cpu import CpuPhysics
from sim.physics.engines import WORDS, Engine
from sim.tasks.randomization import Draw


@dataclass(frozen=True)
class Variation:
    """Physics of evaluation, and what may be changed of it."""

    engine: Engine = "cpu"
    timestep: float = EVALUATION.timestep
    """s."""
    cone: Literal["pyramidal", "elliptic"] = EVALUATION.cone
    """Of MuJoCo's contacts; Drake's friction is the same in every direction always."""
    stiffness: float = 1.0
    """Factor on the stiffness of contacts."""
    friction: float | None = None
    """Sliding friction of the feet, in place of what is drawn."""
    latency: float = 0.0
    """Added to the time from sensing to torque, s."""
    torque: float = 1.0
    """Share of the peak torque that the motors have."""

    def __post_init__(self) -> None:
        for name in ("timestep", "stiffness", "torque"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(f"{name} must be a positive number, got {getattr(self, name)}")

    @property
    def solver(self) -> SolverOptions:
        """Of the scene. A contact is stiffer where its time constant is shorter, with the root of it."""
        constant, ratio = EVALUATION.solref
        return replace(
            EVALUATION, timestep=self.timestep, cone=self.cone, solref=(constant / self.stiffness**0.5, ratio)
        )

    @property
    def words(self) -> str:
        """In words, for conditions."""
        said = [
            WORDS[self.engine],
            f"{1000 * self.timestep:g} ms steps" if self.timestep != EVALUATION.timestep else "",
            f"{self.cone} cone" if self.cone != EVALUATION.cone else "",
            f"contacts {self.stiffness:g} times as stiff" if self.stiffness != 1 else "",
            f"friction {self.friction:g}" if self.friction is not None else "",
            f"{1000 * self.latency:g} ms more latency" if self.latency else "",
            f"{self.torque:g} of the torque" if self.torque != 1 else "",
            "full-body collision",
        ]
        return ", ".join(filter(None, said))

    def drawn(self, drawn: Draw) -> Draw:
        """What was drawn for worlds, with what this says in its place."""
        if self.friction is None:
            return drawn
        return replace(drawn, friction=np.full_like(drawn.friction, self.friction))

    def physics(self, model: mujoco.MjModel, worlds: int, threads: int) -> WholePhysics:
        """The engine with so many worlds of a scene."""
        if self.engine == "drake":
            from sim.physics.drake import DrakePhysics

            return DrakePhysics(model, worlds)
        if self.engine == "mjx":
            from sim.machine import check_xla
            from sim.physics.mjx_whole import WholeMjx

            check_xla()
            return WholeMjx(model, worlds)
        return CpuPhysics(model, worlds, threads)
