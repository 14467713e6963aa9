"""Losses on a control policy's actions: the teacher is a specialist, the student imitates it state by state."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, choice, positive
from distill.core.precision import wide
from distill.core.signals import Actions, TeacherSignal


class ActionObjective(Objective):
    """An objective on actions; elements are states `[...]`."""

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (Actions,)

    def elements(self, student: StudentOutput, signal: Actions) -> tuple[Tensor, torch.Size]:
        """The student's mean actions `[..., A]`, and `[...]`."""
        mean = student.need("action_mean", self)
        if mean.shape != signal.mean.shape:
            raise DistillError(
                f"the student's actions have the shape {list(mean.shape)}, the teacher's {list(signal.mean.shape)}"
            )
        return mean, mean.shape[:-1]


@dataclass(frozen=True)
class SquaredError(ActionObjective):
    """Behavioural cloning: the mean over states of ||a_S - a_T||^2, squares *summed* over the action dimensions.

    That is the Locomotion-Transformer's loss (Barkour, arXiv 2305.14654, section IV-B), and A times torch's `mse_loss`.
    """

    def losses(self, student: StudentOutput, signal: Actions, rows: Tensor, mask: Tensor | None) -> Tensor:
        """||a_S - a_T||^2, `[N]`."""
        return _error(student, signal, rows).square().sum(-1)


@dataclass(frozen=True)
class Huber(ActionObjective):
    """Huber's loss summed over the action dimensions: e^2 / 2 for |e| <= delta, else delta (|e| - delta / 2)."""

    delta: float = 1.0
    """Where it turns from square to linear, in action units."""

    def __post_init__(self) -> None:
        positive("delta", self.delta)

    def losses(self, student: StudentOutput, signal: Actions, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        size = _error(student, signal, rows).abs()
        inside = size.clamp(max=self.delta)
        return (inside * (size - inside / 2)).sum(-1)


@dataclass(frozen=True)
class GaussianKL(ActionObjective):
    """KL divergence between diagonal normal distributions, in closed form; teacher T and student S both give a std.

    KL(a || b) = sum over dimensions of log(s_b / s_a) + (s_a^2 + (m_a - m_b)^2) / (2 s_b^2) - 1/2.
    """

    direction: str = "forward"
    """`forward`: KL(T || S), the student covers the teacher; `reverse`: KL(S || T), it seeks the teacher's mode."""

    def __post_init__(self) -> None:
        choice("direction", self.direction, ("forward", "reverse"))

    def losses(self, student: StudentOutput, signal: Actions, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`. Raises `DistillError` for a missing or non-positive std."""
        if signal.std is None:
            raise DistillError("GaussianKL needs the teacher's std, which these actions do not have")
        std = student.need("action_std", self)
        if std.shape != signal.std.shape:
            raise DistillError(
                f"the student's std has the shape {list(std.shape)}, the teacher's {list(signal.std.shape)}"
            )
        std = _rows(std, rows)
        if not (std > 0).all():
            raise DistillError("the student's std must be positive")
        difference = _error(student, signal, rows)
        a, b = _rows(signal.std, rows).to(std.dtype), std
        if self.direction == "reverse":
            a, b = b, a
        return ((b / a).log() + (a.square() + difference.square()) / (2 * b.square()) - 0.5).sum(-1)


def _error(student: StudentOutput, signal: Actions, rows: Tensor) -> Tensor:
    """a_S - a_T of the states that count, `[N, A]`."""
    assert student.action_mean is not None
    mean = _rows(student.action_mean, rows)
    return mean - _rows(signal.mean, rows).to(mean.dtype)


def _rows(values: Tensor, rows: Tensor) -> Tensor:
    """The states that count, `[N, A]`, in float32 or better."""
    return wide(values.reshape(-1, values.shape[-1]).index_select(0, rows))
