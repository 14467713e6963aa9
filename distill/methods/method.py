"""Methods that anyone may call on models and data of their own: what a student learns from, and who writes it.

A method is data: the losses, each with its weight, and the shares of the rows that the student and the teacher write
anew in every round. `distill.language.distil` puts it into the core's loop.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective

METHODS = ("kd", "gkd", "reverse_kl", "sequence_kd", "labels")
"""Folders of this package, each with the `METHOD` of its `method.py`."""


@dataclass(frozen=True)
class MethodOptions:
    """Settings that methods share; each says which it reads."""

    alpha: float = 0.5
    """The teacher's weight, the labels have the rest."""
    temperature: float = 1.0
    """Both models' logits are divided by it."""
    beta: float = 0.5
    """Place between the forward (0) and the reverse (1) divergence."""
    on_policy: float = 0.5
    """Share of the rows that the student writes."""

    def __post_init__(self) -> None:
        for name in ("alpha", "on_policy"):
            if not 0 <= getattr(self, name) <= 1:
                raise DistillError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.beta < 1:
            raise DistillError(f"beta must lie between 0 and 1, got {self.beta}")
        if not self.temperature > 0:
            raise DistillError(f"the temperature must be positive, got {self.temperature}")


@dataclass(frozen=True)
class Method:
    """One method."""

    name: str
    title: str
    source: str
    losses: Callable[[MethodOptions], Mapping[str, tuple[float, Objective]]]
    """Weight and objective of `labels`, the tokens of the rows, and of `teacher`, its distribution over them."""
    reads: tuple[str, ...] = ()
    """Which of `MethodOptions` it heeds."""
    student_writes: Callable[[MethodOptions], float] = lambda options: 0.0
    """Share of the rows."""
    teacher_writes: Callable[[MethodOptions], float] = lambda options: 0.0
    """Share of the rows."""

    def needs_teacher(self, options: MethodOptions) -> bool:
        """Whether it can be done without one."""
        return "teacher" in self.losses(options) or self.teacher_writes(options) > 0


def find(name: str) -> Method:
    """The method of that name; raises `DistillError` where there is none."""
    folder = name.replace("-", "_")
    if folder not in METHODS:
        raise DistillError(f"there is no method '{name}'; there are {', '.join(METHODS)}")
    return import_module(f"distill.methods.{folder}.method").METHOD
