"""A moving average of parameters, which can stand in for them.

Single steps of a small batch make a student better and worse by chance, and so do the rounds in which it collects; the
mean over the last steps is better than most of them (Polyak and Juditsky 1992; as `torch.optim.swa_utils`, which would
keep a second copy of the module beside the one that collectors and measures hold).
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager

import torch

from distill.core.errors import DistillError


class Average:
    """The exponential moving average of some parameters."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        """`decay` per step, from 0 to below 1; it is less in the first steps, which would otherwise be remembered."""
        self.parameters, self.decay = list(parameters), decay
        self.values = [parameter.detach().clone() for parameter in parameters]

    @torch.no_grad()
    def add(self, step: int) -> None:
        """Takes in the parameters after optimiser step `step`, the first one being 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for value, parameter in zip(self.values, self.parameters, strict=True):
            value.lerp_(parameter, 1 - decay)

    @contextmanager
    def applied(self) -> Generator[None]:
        """The average in place of the parameters, which are back afterwards whatever happens."""
        own = [parameter.detach().clone() for parameter in self.parameters]
        try:
            self._give(self.values)
            yield
        finally:
            self._give(own)

    def take(self) -> None:
        """Makes the average the parameters for good."""
        self._give(self.values)

    def restore(self, values: Sequence[torch.Tensor]) -> None:
        """Takes `values` of a checkpoint. Raises `DistillError` where they are of other parameters."""
        if [value.shape for value in values] != [value.shape for value in self.values]:
            raise DistillError("the average is of other parameters")
        for value, kept in zip(self.values, values, strict=True):
            value.copy_(kept)

    @torch.no_grad()
    def _give(self, values: Sequence[torch.Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)
