"""What every objective shares: which signals it takes, which elements count, and how they are averaged.

A loss is the weighted mean over the elements that count, sum(w l) / sum(w): elements are states of a robot or tokens
of a text. Elements that are masked out or have weight 0 are never read, so garbage or NaN there changes neither the
loss nor a gradient; where nothing counts the loss is 0, with gradients of 0.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.signals import LogitScaling, TeacherSignal


@dataclass(frozen=True, eq=False)
class StudentOutput:
    """What a student computed on a batch; only what the objectives need has to be there."""

    logits: Tensor | None = None
    """`[..., V]`."""
    hidden: tuple[Tensor, ...] | None = None
    """Layers, each `[..., T, D]`."""
    attention: tuple[Tensor, ...] | None = None
    """Layers, each `[..., H, T, T]`: probabilities, or scores where the teacher gives scores."""
    action_mean: Tensor | None = None
    """`[..., A]`."""
    action_std: Tensor | None = None
    """`[..., A]`, positive."""
    lm_head: Tensor | None = None
    """`[V, D]`. In place of `logits`: they are then `scaling(hidden[-1] @ lm_head.T)`, and never exist as a whole."""
    scaling: LogitScaling = LogitScaling()
    """Of logits that are made with `lm_head`."""
    router: tuple[Tensor, ...] | None = None
    """Sparse layers, each `[..., E]`: probabilities that a router gave the experts."""

    def need(self, name: str, objective: "Objective") -> Any:
        """The field `name`, or `DistillError` where the student left it out."""
        value = getattr(self, name)
        if value is None:
            raise DistillError(f"{type(objective).__name__} needs the student's {name}, which it did not give")
        return value


class Objective(ABC):
    """A loss of the student's output against a teacher's signal."""

    accepts: ClassVar[tuple[type[TeacherSignal], ...]]
    """Kinds of signal that it can use."""

    def __call__(
        self,
        student: StudentOutput,
        signal: TeacherSignal,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar. `mask` `[...]` is True where an element counts, `weights` `[...]` are not negative.

        Raises `DistillError` for a kind of signal that is not accepted, for what the student did not give and for
        shapes that do not fit.
        """
        self.require(type(signal))
        like, shape = self.elements(student, signal)
        rows, row_weights = counted(shape, like.device, mask, weights)
        return self.mean(student, signal, rows, row_weights, mask)

    def require(self, kind: type[TeacherSignal]) -> None:
        """Raise `DistillError` where signals of this kind are not accepted; ask before a training starts."""
        if not issubclass(kind, self.accepts):
            wanted = " or ".join(accepted.KIND for accepted in self.accepts)
            raise DistillError(f"{type(self).__name__} takes {wanted}, got {getattr(kind, 'KIND', kind.__name__)}")

    @abstractmethod
    def elements(self, student: StudentOutput, signal: Any) -> tuple[Tensor, torch.Size]:
        """The student's tensor that the loss is about, and the shape `[...]` of the elements.

        Raises `DistillError` where student and signal do not fit together.
        """

    @abstractmethod
    def losses(self, student: StudentOutput, signal: Any, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Loss of each element that counts, `[N]`; `rows` `[N]` are their places among the flattened elements."""

    def mean(self, student: StudentOutput, signal: Any, rows: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
        """The mean of `losses` with `weights` `[N]`; 0 where nothing counts."""
        losses = self.losses(student, signal, rows, mask)
        weights = weights.to(losses.dtype)
        total = weights.sum()
        return (losses * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))

    def learned(self) -> nn.Module:
        """What the objective itself learns (projections); an empty module for most. Save its state with the student."""
        return nn.Module()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of `learned`, for the optimiser."""
        return self.learned().parameters()


class WeightedSum(Objective):
    """A sum of named objectives with weights, such as 0.5 cross-entropy + 0.5 KL + 0.1 hidden states."""

    def __init__(self, parts: Mapping[str, tuple[float, Objective]]):
        """`parts`: name -> (weight, objective)."""
        if not parts:
            raise DistillError("a weighted sum needs at least one part")
        for name, (weight, _) in parts.items():
            if not math.isfinite(weight):
                raise DistillError(f"the weight of '{name}' must be finite, got {weight}")
            if "." in name:  # names become keys of `learned`
                raise DistillError(f"the name of a part must not hold a dot, got '{name}'")
        self.named = dict(parts)

    def __call__(self, student: StudentOutput, signal: Any, mask: Any = None, weights: Any = None) -> Tensor:
        """The weighted sum; arguments as for `with_parts`."""
        return self.with_parts(student, signal, mask, weights)[0]

    def with_parts(
        self,
        student: StudentOutput,
        signal: TeacherSignal | Mapping[str, TeacherSignal],
        mask: Tensor | Mapping[str, Tensor | None] | None = None,
        weights: Tensor | Mapping[str, Tensor | None] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each part before its weight and without gradient, for the log.

        `signal`, `mask` and `weights` are given to every part, or by the parts' names.
        """
        values = {
            name: part(student, self._of(name, signal), self._of(name, mask), self._of(name, weights))
            for name, (_, part) in self.named.items()
        }
        total = torch.stack([weight * values[name] for name, (weight, _) in self.named.items()]).sum()
        return total, {name: value.detach() for name, value in values.items()}

    @property
    def accepts(self) -> tuple[type[TeacherSignal], ...]:  # type: ignore[override]
        """Kinds that at least one part takes; each part checks what it is given."""
        return tuple(dict.fromkeys(kind for _, part in self.named.values() for kind in part.accepts))

    def learned(self) -> nn.Module:
        """What the parts learn, as `part_NAME` (a bare name might be one of the module's own attributes)."""
        return nn.ModuleDict({f"part_{name}": part.learned() for name, (_, part) in self.named.items()})

    def elements(self, student: StudentOutput, signal: Any) -> tuple[Tensor, torch.Size]:
        """Not defined: parts may differ in their elements."""
        raise DistillError("a weighted sum has no elements of its own, ask its parts")

    def losses(self, student: StudentOutput, signal: Any, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Not defined, as `elements`."""
        raise DistillError("a weighted sum has no elements of its own, ask its parts")

    def _of(self, name: str, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        values = cast("Mapping[str, Any]", value)
        if set(values) != set(self.named):
            raise DistillError(f"the sum has the parts {sorted(self.named)}, got values for {sorted(values)}")
        return values[name]


class RowsAndTokens(WeightedSum):
    """A weighted sum of parts about each token of a row and parts about the row: the mask is of tokens alone."""

    def __init__(
        self, parts: Mapping[str, tuple[float, Objective]], rows: Collection[str], known: Collection[str] = ()
    ) -> None:
        """`rows`: names of the parts whose elements are whole rows `[B]`; all of those count, but for parts that are
        `known`, of which rows count that have a token that counts."""
        super().__init__(parts)
        self.rows, self.known = frozenset(rows), frozenset(known)

    def __call__(self, student: StudentOutput, signal: Any, mask: Any = None, weights: Any = None) -> Tensor:
        """The sum; `mask` `[B, T]` says which tokens count."""
        masks = {name: None if name in self.rows else mask for name in self.named}
        if mask is not None:
            masks |= {name: mask.any(-1) for name in self.known & set(self.named)}
        return self.with_parts(student, signal, masks, weights)[0]


class OwnMasks(WeightedSum):
    """A weighted sum of parts that count different elements: the mask holds one for each of them."""

    def __init__(self, parts: Mapping[str, tuple[float, Objective]], order: Sequence[str]) -> None:
        """`order`: names of parts in the order of the masks `[B, masks, ...]`; some may be left out of `parts`."""
        super().__init__(parts)
        if set(parts) - set(order):
            raise DistillError(f"the parts {sorted(set(parts) - set(order))} have no mask")
        self.order = tuple(order)

    def __call__(self, student: StudentOutput, signal: Any, mask: Any = None, weights: Any = None) -> Tensor:
        """The sum. Raises `DistillError` without masks."""
        if mask is None:
            raise DistillError("parts with masks of their own need masks")
        masks = {name: mask[:, self.order.index(name)] for name in self.named}
        return self.with_parts(student, signal, masks, weights)[0]


def counted(
    shape: torch.Size, device: torch.device, mask: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Places `[N]` of the elements that count, in the flattened `shape`, and their weights `[N]` (1 without `weights`).

    Raises `DistillError` for masks and weights of another shape, masks that are not boolean and negative weights.
    """
    for name, tensor in (("mask", mask), ("weights", weights)):
        if tensor is not None and tensor.shape != shape:
            raise DistillError(f"{name} must have the elements' shape {list(shape)}, got {list(tensor.shape)}")
    if mask is not None and mask.dtype != torch.bool:
        raise DistillError(f"mask must be boolean, got {mask.dtype}")
    if weights is not None and not ((weights >= 0) & weights.isfinite()).all():
        raise DistillError("weights must be finite and not negative")
    count = math.prod(shape)
    if mask is None and weights is None:
        return torch.arange(count, device=device), torch.ones((), device=device).expand(count)
    every = torch.ones(shape, dtype=torch.bool, device=device)
    chosen = (every if mask is None else mask) & (every if weights is None else weights != 0)
    rows = chosen.flatten().nonzero().squeeze(-1)
    return rows, (every if weights is None else weights.detach()).flatten()[rows]


def choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `DistillError` unless `value` is one of `allowed`."""
    if value not in allowed:
        raise DistillError(f"{name} must be {' or '.join(allowed)}, got {value!r}")


def positive(name: str, value: float) -> None:
    """Raise `DistillError` unless `value` is a finite number above 0."""
    if not 0 < value < math.inf:
        raise DistillError(f"{name} must be above 0, got {value}")
