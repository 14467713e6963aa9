"""Losses over a vocabulary, some rows at a time: of all logits only a chunk's exist at once, and no gradient of theirs.

`mean_loss` makes the gradients along with the loss, as its weights are known: each chunk's logits are computed once.
`row_losses` gives the loss of every row, whose weights come later, and computes a chunk again in the backward pass.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from distill.core.precision import wide_type

Losses = Callable[[Tensor, Tensor], Tensor]
"""`losses(logits [n, V], rows [n]) -> [n]`: of one chunk."""
CPU, ELSEWHERE = 2**20, 2**24
"""Logits of a chunk: a processor's caches hold the first, other devices want few and large kernels."""
FEWEST = 32
"""Rows of a chunk at least, whatever the vocabulary: every chunk reads both output layers and adds to a gradient of
their size. On a processor 6 rows of 152,064 logits take 2.2 times as long as 32 do (widths 256 and 576), 64 1.2 times.
"""


def rows_at_once(vocabulary: int, device: torch.device, chunk_size: int | None) -> int:
    """Rows of a chunk of `chunk_size` logits, at least 1; of what suits the device where that is None."""
    if chunk_size is not None:
        return max(1, chunk_size // vocabulary)
    return max(FEWEST, (CPU if device.type == "cpu" else ELSEWHERE) // vocabulary)


def row_losses(features: Tensor, head: Tensor | None, rows: Tensor, chunk: int, losses: Losses) -> Tensor:
    """Losses `[N]` of `rows` `[N]` of the logits `[M, V]`, which are `features` or, with a head, features @ head.T."""
    return _applied(_RowLosses, features, head, rows, chunk, losses)


def mean_loss(
    features: Tensor, head: Tensor | None, rows: Tensor, weights: Tensor, chunk: int, losses: Losses
) -> Tensor:
    """Their mean with `weights` `[N]`; 0 where there is no weight. See `row_losses`."""
    return _applied(_MeanLoss, features, head, rows, weights, chunk, losses, torch.is_grad_enabled())


def _applied(function: type[torch.autograd.Function], *inputs: Any) -> Tensor:
    apply = cast("Callable[..., Tensor]", function.apply)  # pyright: ignore[reportUnknownMemberType] (torch: untyped)
    return apply(*inputs)


class _MeanLoss(torch.autograd.Function):
    """Gradients are those of the mean and are multiplied in the backward pass by what comes from above, a scalar."""

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        head: Tensor | None,
        rows: Tensor,
        weights: Tensor,
        chunk: int,
        losses: Losses,
        learning: bool,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[:2]
        ctx.gradients = gradients = _Gradients(features, head, *wanted) if learning and any(wanted) else None
        dtype = wide_type(features)
        weights = weights.to(dtype) / weights.sum(dtype=dtype).clamp(min=torch.finfo(dtype).tiny)
        total = torch.zeros((), dtype=dtype, device=features.device)
        for part, share in zip(torch.split(rows, chunk), torch.split(weights, chunk), strict=True):
            chosen = features.index_select(0, part)
            with torch.set_grad_enabled(gradients is not None):
                logits = _logits(chosen, head).detach().requires_grad_(gradients is not None)
                value = (losses(logits, part) * share).sum()
            total += value.detach()
            if gradients is not None:
                gradients.add(part, chosen, torch.autograd.grad(value, logits)[0])
        return total

    @staticmethod
    @once_differentiable  # it forgets the names of parameters
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        return *ctx.gradients.scaled(grad_outputs[0]), None, None, None, None, None


class _RowLosses(torch.autograd.Function):
    """Computes chunks again backwards."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, head: Tensor | None, rows: Tensor, chunk: int, losses: Losses) -> Tensor:
        ctx.save_for_backward(features, head, rows)
        ctx.chunk, ctx.losses = chunk, losses
        kind = features.device.type
        ctx.autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
        parts = [losses(_logits(features.index_select(0, part), head), part) for part in torch.split(rows, chunk)]
        return torch.cat(parts)

    @staticmethod
    @once_differentiable  # it forgets the names of parameters
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *grad_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        (gradient,) = grad_outputs
        features, head, rows = ctx.saved_tensors
        gradients = _Gradients(features, head, *ctx.needs_input_grad[:2])
        enabled, dtype = ctx.autocast  # as forwards, so that a chunk is computed again with the same numbers
        for part, upstream in zip(torch.split(rows, ctx.chunk), torch.split(gradient, ctx.chunk), strict=True):
            chosen = features.index_select(0, part)
            with torch.enable_grad(), torch.autocast(features.device.type, dtype, enabled):
                logits = _logits(chosen, head).detach().requires_grad_()
                (to_logits,) = torch.autograd.grad(ctx.losses(logits, part), logits, upstream)
            gradients.add(part, chosen, to_logits)
        return *gradients.scaled(None), None, None, None


class _Gradients:
    """Of features and head, added up chunk by chunk: in float32 where they are shorter."""

    def __init__(self, features: Tensor, head: Tensor | None, for_features: bool, for_head: bool) -> None:
        self.head, self.kinds = head, (features.dtype, None if head is None else head.dtype)
        self.to_features = torch.zeros_like(features, dtype=wide_type(features)) if for_features else None
        self.to_head = torch.zeros_like(head, dtype=wide_type(head)) if head is not None and for_head else None

    def add(self, part: Tensor, chosen: Tensor, to_logits: Tensor) -> None:
        """A chunk's: its rows `[n]`, their features `[n, F]`, the gradient of their logits `[n, V]`."""
        with torch.autocast(chosen.device.type, enabled=False):
            if self.to_features is not None:
                back = to_logits if self.head is None else to_logits @ self.head.to(to_logits.dtype)
                self.to_features.index_copy_(0, part, back.to(self.to_features.dtype))
            if self.to_head is not None:
                self.to_head.addmm_(to_logits.to(self.to_head.dtype).T, chosen.to(self.to_head.dtype))

    def scaled(self, upstream: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """For features and head, in their own types, multiplied by a scalar; these stay as they are."""
        factor = None if upstream is None or bool(upstream == 1) else upstream  # then no copy is needed

        def scaled(gradient: Tensor | None, kind: torch.dtype | None) -> Tensor | None:
            return None if gradient is None else (gradient if factor is None else gradient * factor).to(kind)

        return scaled(self.to_features, self.kinds[0]), scaled(self.to_head, self.kinds[1])


def _logits(features: Tensor, head: Tensor | None) -> Tensor:
    return features if head is None else F.linear(features, head)
