"""Several teachers of one student: a column of the data says which of them each example is learned from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.signals import LogitScaling, ProjectedLogits, RoutedLogits
from distill.core.teachers import Batch, LocalModel
from distill.language.output_layer import states_and_head

WHICH = "teacher"
"""The field of rows `[N]` that says whose they are, by place among the teachers."""


def named(given: Sequence[str]) -> dict[str, str]:
    """Name -> model of `NAME=MODEL` each. Raises `DistillError` for others, for one alone and for a name twice."""
    found: dict[str, str] = {}
    for each in given:
        name, equal, model = each.partition("=")
        if not (equal and name.strip() and model.strip()) or name.strip() in found:
            raise DistillError(f"several teachers are given as NAME=MODEL with a name each, got '{each}'")
        found[name.strip()] = model.strip()
    if len(found) == 1:
        raise DistillError("one teacher needs no name: give --teacher MODEL")
    return found


class Several(nn.Module):
    """Causal models of one tokenizer."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return next(self.parameters()).device

    def each(self, batch: Mapping[str, Tensor], read: Callable[[nn.Module, Mapping[str, Tensor]], Tensor]) -> Tensor:
        """`read(model, rows)` of each model for its rows of the batch, put together in their order.

        Raises:
          DistillError: rows that do not say whose they are.
        """
        parts = [(places, read(model, rows)) for model, places, rows in self.shares(batch)]
        found = parts[0][1].new_empty((len(batch["tokens"]), *parts[0][1].shape[1:]))
        for places, values in parts:
            found[places] = values
        return found

    def shares(self, batch: Mapping[str, Tensor]) -> list[tuple[Any, Tensor, dict[str, Tensor]]]:
        """Each model that has rows in the batch: with their places `[n]`, and the rows."""
        if WHICH not in batch:
            raise DistillError(f"several teachers need rows that say whose they are, as '{WHICH}'")
        found: list[tuple[Any, Tensor, dict[str, Tensor]]] = []
        for i, model in enumerate(self.models):
            places = (batch[WHICH] == i).nonzero().squeeze(-1)
            if len(places):
                found.append((model, places, {n: v[places] for n, v in batch.items() if n != WHICH}))
        return found


def projected_of_each(teachers: Several, vocabulary: int, scalings: Sequence[LogitScaling]) -> LocalModel:
    """Each row's own teacher, whose logits never exist as a whole; see `student.projected`."""

    def label(module: nn.Module, batch: Batch) -> RoutedLogits:
        assert isinstance(module, Several)
        count, length = batch["tokens"][:, 1:].shape
        which = torch.zeros(count, length, dtype=torch.int64, device=batch["tokens"].device)
        place = torch.zeros_like(which)
        parts: list[ProjectedLogits] = []
        known = list(module.models)
        for model, places, rows in module.shares(batch):
            states, head = states_and_head(model, rows)
            which[places] = len(parts)
            place[places] = torch.arange(len(places) * length, device=which.device).reshape(-1, length)
            parts.append(ProjectedLogits(states.flatten(0, 1), head[:vocabulary], scalings[known.index(model)]))
        return RoutedLogits.of(parts, which, place)

    return LocalModel(teachers, label, RoutedLogits, f"of {len(scalings)} projected to {vocabulary}")
