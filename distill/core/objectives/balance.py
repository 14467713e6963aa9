"""How evenly the routers of sparse layers send elements to their experts (Switch Transformer, arXiv 2101.03961).

Of each layer, over the elements that count:

    E sum over e of f_e P_e,    f_e share of choices that fell on expert e, P_e mean probability that its router gave it

which is 1 where all experts are chosen evenly and E where everything goes to one; `f` has no gradient. Layers are added
up. All `top_k` choices are counted, as in transformers' sparse models; DeepSpeed counts first choices alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput
from distill.core.precision import wide
from distill.core.signals import TeacherSignal


def balance(probabilities: Tensor, weights: Tensor, top_k: int) -> Tensor:
    """The loss of one layer, a scalar, of a router's `probabilities` `[N, E]` and `weights` `[N]`, not all 0."""
    share = (weights / weights.sum())[:, None]
    chosen = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(top_k, -1).indices, 1.0)
    return probabilities.shape[-1] * ((share * chosen).sum(0) / top_k * (share * probabilities).sum(0)).sum()


@dataclass(frozen=True)
class LoadBalance(Objective):
    """The sum of `balance` over sparse layers; whatever the teacher says, it is about the student alone.

    Weigh it lightly (0.01 is usual): at its least the router knows nothing.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (TeacherSignal,)
    top_k: int = 2
    """Experts that each element goes to."""

    def __post_init__(self) -> None:
        if self.top_k < 1:
            raise DistillError(f"an element goes to at least 1 expert, got {self.top_k}")

    def elements(self, student: StudentOutput, signal: TeacherSignal) -> tuple[Tensor, torch.Size]:  # noqa: ARG002
        """The first layer's probabilities `[..., E]`, and `[...]`."""
        layers = student.need("router", self)
        if not layers or any(layer.shape[:-1] != layers[0].shape[:-1] for layer in layers):
            raise DistillError(f"sparse layers of one shape are wanted, got {[list(layer.shape) for layer in layers]}")
        if any(layer.shape[-1] < self.top_k for layer in layers):
            raise DistillError(f"{self.top_k} experts are chosen of {min(layer.shape[-1] for layer in layers)}")
        return layers[0], layers[0].shape[:-1]

    def mean(
        self, student: StudentOutput, signal: TeacherSignal, rows: Tensor, weights: Tensor, mask: Tensor | None  # noqa: ARG002
    ) -> Tensor:  # fmt: skip
        """The sum over layers; 0 where nothing counts."""
        found: list[Tensor] = []
        for layer in student.need("router", self):
            chosen = wide(layer.reshape(-1, layer.shape[-1]).index_select(0, rows))
            found.append(balance(chosen, weights.to(chosen.dtype), self.top_k) if len(rows) else 0.0 * chosen.sum())
        return torch.stack(found).sum()

    def losses(self, student: StudentOutput, signal: TeacherSignal, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Not defined: what is balanced are all elements together."""
        raise DistillError("a balance is of all elements, not of one")
