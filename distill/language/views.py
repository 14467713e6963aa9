"""Several token sequences of one example, learned from side by side: each loss reads its own view and its own mask."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, WeightedSum
from distill.core.signals import SampledLogProbs, TeacherSignal
from distill.core.teachers import Batch, LocalModel
from distill.language.models import Read


def every_view(read: Read, shared: Sequence[str] = ()) -> Read:
    """Reads logits `[B, views, T, V]` for `tokens` `[B, views, T + 1]`; all views have the `shared` fields, such as an
    image `[B, ...]`."""

    def found(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        same = {name: batch[name].repeat_interleave(tokens.shape[1], 0) for name in shared}
        return read(module, {"tokens": tokens.flatten(0, 1), **same}).unflatten(0, tokens.shape[:2])

    return found


def one_view(read: Read, view: int) -> Read:
    """Reads logits `[B, T, V]` of one of them."""
    return lambda module, batch: read(module, {"tokens": batch["tokens"][:, view]})


class NextOf:
    """The next tokens `[B, T]` of one view."""

    kind = SampledLogProbs

    def __init__(self, view: int) -> None:
        self.view = view

    def label(self, batch: Batch) -> SampledLogProbs:
        """Of `tokens` `[B, views, T + 1]`."""
        return SampledLogProbs.labels(batch["tokens"][:, self.view, 1:])

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return f"{self.view:02x}04"


class Views(WeightedSum):
    """A weighted sum in which each part looks at one view: its positions are averaged by themselves, then weighed.

    Pooled over views, long texts would drown short ones.
    """

    def __init__(self, parts: Mapping[str, tuple[float, Objective]], places: Mapping[str, tuple[int, int]]) -> None:
        """`places`: part -> its view in the logits `[B, views, T, V]` and its place in the masks `[B, masks, T]`."""
        super().__init__(parts)
        if set(places) != set(parts):
            raise DistillError(f"the parts {sorted(parts)} need a view each, got {sorted(places)}")
        self.places = dict(places)

    def __call__(
        self, student: StudentOutput, signal: Mapping[str, TeacherSignal], mask: Any = None, weights: Any = None
    ) -> Tensor:
        """The sum; `signal` by the parts' names, each `[B, T, ...]`."""
        if mask is None:
            raise DistillError("views need masks")
        logits, total = student.need("logits", self), mask.new_zeros((), dtype=student.need("logits", self).dtype)
        for name, (weight, part) in self.named.items():
            view, place = self.places[name]
            total = total + weight * part(StudentOutput(logits=logits[:, view]), signal[name], mask[:, place])
        return total


def scored(module: nn.Module, read: Read, name: str = "reference", shared: Sequence[str] = ()) -> LocalModel:
    """A model that gives its log-probability of each next token `[B, views, T]`: what preferences are measured from;
    `shared` as for `every_view`."""
    logits_of = every_view(read, shared)

    def label(model: nn.Module, batch: Batch) -> SampledLogProbs:
        tokens = batch["tokens"][..., 1:]
        found = logits_of(model, batch).float().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
        return SampledLogProbs(tokens, found)

    return LocalModel(module, label, SampledLogProbs, name)
