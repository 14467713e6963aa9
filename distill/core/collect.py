"""What the loop needs from the outside: students, sources of experience, and batches of what they brought."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from torch import Tensor, nn

from distill.core.objectives.base import StudentOutput
from distill.core.shards import Shards


@dataclass(frozen=True)
class CollectionPlan:
    """One order to collect."""

    round: int
    beta: float
    """Share of the experience in which the teacher drives; 1 in the first round, when there is no student yet."""
    rows: int
    """About how many rows are wanted."""
    seed: int


@dataclass(frozen=True)
class Experience:
    """What was collected: whole episodes of rows, one after the other."""

    fields: Mapping[str, np.ndarray]
    """Name -> `[rows, ...]`; what a teacher with a memory of its own has to say about them is among the fields."""
    episodes: Sequence[int]
    """Rows of each episode; none where a domain brings nothing new."""
    measured: Mapping[str, float] = field(default_factory=dict[str, float])
    """For the log. `gain`, where given, is positive and higher where who drives does better: the mixture follows the
    teacher's over the student's (`distill.core.mixture`). `ratio` in its place is the student's cost over the teacher's
    itself; known in the first round too, it is where the mixture begins."""


class Student(ABC):
    """A model that learns, and how it is fed."""

    module: nn.Module

    @abstractmethod
    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """What the objective needs, from `module`: this student's own, perhaps wrapped for several devices."""

    def begin(self, shards: Shards) -> None:  # noqa: B027 - most students have nothing to do
        """Called once, with the first experience and before the first step: the place for input statistics."""


class Collector(Protocol):
    """One domain's source of experience."""

    @property
    def name(self) -> str:
        """The domain."""
        ...

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """New experience; equal plans and students give equal experience."""
        ...


class Sampler(Protocol):
    """Batches from shards. One whose attribute `forgets` is true draws from the newest round alone: what is older is
    deleted once that round has been collected."""

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """`counts` examples of each domain, one after the other; from episodes never trained on if `held_out`."""
        ...


@runtime_checkable
class Resumable(Protocol):
    """A sampler that remembers something between batches; the loop keeps it with its checkpoints."""

    def state(self) -> dict[str, Any]:
        """JSON-ready; see `restore`."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was called."""
        ...
