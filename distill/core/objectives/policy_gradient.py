"""Losses of reinforcement learning on whole tasks: proximal policy optimisation (PPO, arXiv 1707.06347)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, positive
from distill.core.precision import wide
from distill.core.signals import Returns, Rollout, TeacherSignal


@dataclass(frozen=True)
class ClippedSurrogate(Objective):
    """-min(r A, clip(r, 1 - clip, 1 + clip) A), where r is how much likelier the action has become (equation 7).

    Actions are normally distributed, independently in each dimension, around the student's mean; elements are states.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (Rollout,)
    clip: float = 0.2
    """How far the ratio may go before nothing more is gained by it."""

    def __post_init__(self) -> None:
        positive("clip", self.clip)

    def elements(self, student: StudentOutput, signal: Rollout) -> tuple[Tensor, torch.Size]:
        """The student's mean actions `[..., A]`, and `[...]`."""
        mean = student.need("action_mean", self)
        if mean.shape != signal.action.shape:
            raise DistillError(f"the student's actions are {list(mean.shape)}, those taken {list(signal.action.shape)}")
        return mean, mean.shape[:-1]

    def losses(self, student: StudentOutput, signal: Rollout, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        mean, std = student.need("action_mean", self), student.need("action_std", self)
        now = log_likelihood(signal.action, wide(mean), wide(std)).flatten()[rows]
        ratio = (now - signal.log_likelihood.flatten()[rows]).exp()
        gain = signal.advantage.flatten()[rows]
        return -torch.minimum(ratio * gain, ratio.clamp(1 - self.clip, 1 + self.clip) * gain)


class CriticError(Objective):
    """Half the squared error of a critic, which is learned with the student."""

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (Returns,)

    def __init__(self, critic: nn.Module) -> None:
        """`critic` gives values `[...]` of what it sees `[..., D]`."""
        self.critic = critic

    def elements(self, student: StudentOutput, signal: Returns) -> tuple[Tensor, torch.Size]:
        """The values that should have been expected, and their shape."""
        return signal.value, signal.value.shape

    def losses(self, student: StudentOutput, signal: Returns, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        return (self.critic(signal.seen).flatten()[rows] - signal.value.flatten()[rows]).square() / 2

    def learned(self) -> nn.Module:
        """The critic."""
        return self.critic


def log_likelihood(action: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Natural logarithm of the density of actions `[..., A]` under independent normal distributions, `[...]`."""
    return -(((action - mean) / std).square() / 2 + std.log() + math.log(2 * math.pi) / 2).sum(-1)
