"""What every obstacle has, and what course, scene, score, generator and planner ask of it.

A kind of obstacle is a subclass with its own geometry, in a module of its own, registered under the name that files
and results use. How a robot is led over it stands in `policies.navigation.obstacles`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np

from sim.course.terrain import Block, Piece, footprint
from sim.errors import InputError

if TYPE_CHECKING:
    from sim.course.placement import Placed

Point = tuple[float, float]


@dataclass(frozen=True)
class Gate:
    """A segment that the base must cross: (x, y) of its left and right pole, m."""

    left: Point
    right: Point

    @property
    def center(self) -> np.ndarray:
        """Middle of the gate, `[2]`, m."""
        return (np.array(self.left) + np.array(self.right)) / 2


@dataclass(frozen=True)
class Obstacle:
    """A scored obstacle: complete when its gates are passed in order, and what else its kind asks for is done."""

    name: str
    """Its kind's, where there are several with a number: `jump`, `jump 2`."""
    nominal_size: float
    """Length of a typical trajectory over it, m; allotted time = this / target velocity."""
    gates: tuple[Gate, ...]

    KIND: ClassVar[str] = ""
    """The official scorer's name."""
    SKILL: ClassVar[str] = "walk"
    """What it asks of the robot, one of `sim.course.description.SKILLS`."""
    ONCE: ClassVar[bool] = False
    """Every course has exactly one."""
    STARTS_CLOCK: ClassVar[bool] = False
    """The clock starts anew at its gate."""
    ENDS_RUN: ClassVar[bool] = False
    """It is where a run ends."""
    TRIED_AGAIN: ClassVar[bool] = False
    """Its gates are driven at again where they were missed; over other obstacles there is no way back."""
    SIZE: ClassVar[float] = 1.0
    """Nominal size of the official one, m."""

    @property
    def standing_poles(self) -> "tuple[Any, ...]":
        """Its poles (`sim.course.obstacles.weave_poles.Pole`)."""
        return ()

    def pieces(self) -> tuple[Piece, ...]:
        """What of it is ground to walk on."""
        return ()

    def forbidden(self) -> Block | None:
        """What of it must not be touched."""
        return None

    def pit(self, x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
        """Depth at which a jumping policy sees what must not be touched, at world points, m; None without such."""
        return None

    def footprints(self) -> list[tuple[str, np.ndarray]]:
        """Names and corners `[4, 2]` (m) of what stands on the floor, its poles aside."""
        solids = [*self.pieces(), *([board] if (board := self.forbidden()) else [])]
        return [(piece.name, footprint(piece)) for piece in solids]

    def completed(self, passed: int, held: bool, touched: bool) -> bool:
        """Whether it counts as done with `passed` gates; `held`: the robot stayed where the run ends; `touched`: what
        it forbids was touched."""
        return passed >= len(self.gates)

    def check(self) -> None:
        """Raises `InputError` with one sentence if it makes no sense by itself."""
        require(kind_of(self.name) is type(self), f"'{self.name}' is no name for a {type(self).__name__}: {self.KIND}")
        require(self.nominal_size > 0, f"'{self.name}' needs a positive nominal_size, got {self.nominal_size}")
        require(len(self.gates) > 0, f"'{self.name}' needs at least one gate")
        for i, gate in enumerate(self.gates):
            length = float(np.hypot(*(np.array(gate.left) - gate.right)))
            require(length > 1e-6, f"gate {i + 1} of '{self.name}' has zero length: {gate.left} to {gate.right}")

    def moved(self, move: Callable[[Point], Point]) -> Self:
        """Elsewhere: `move` says where a point comes to lie."""
        return replace(self, gates=tuple(Gate(move(gate.left), move(gate.right)) for gate in self.gates))

    @classmethod
    def place(cls, rng: np.random.Generator, before: "Placed", last: bool, poles: int) -> "Placed | None":
        """One of its kind a random step ahead of `before` on a generated course, with the way there; None where the
        turn would be too sharp. `last`: only the end table follows; `poles`: how many a set has on this course."""
        raise InputError(f"generated courses have no '{cls.KIND}'")


KINDS: dict[str, type[Obstacle]] = {}
"""By name; the official ones once `sim.course.obstacles` is imported."""


Kind = TypeVar("Kind", bound=type[Obstacle])


def registered(kind: Kind) -> Kind:
    """Class decorator: files, scores and planners know this kind."""
    KINDS[kind.KIND] = kind
    return kind


def kind_of(name: str) -> type[Obstacle] | None:
    """The kind behind a name such as `jump` or `jump 2`; None where there is none."""
    return KINDS.get(re.sub(r" [1-9][0-9]*$", "", name))


def require(condition: bool, sentence: str) -> None:
    """Raises `InputError` with the sentence unless the condition holds."""
    if not condition:
        raise InputError(sentence)
