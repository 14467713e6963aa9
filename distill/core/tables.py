"""Rows that need no memory: a data set as a domain of the loop, what was made of rows, and batches drawn from them.

A row is one example, an episode of length 1: arrays of one shape each, such as `tokens` `[T + 1]` and `mask` `[T]`, or
`x` `[features]` and `label` `[]`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.shards import Shard, Shards

Rows = Mapping[str, np.ndarray]
"""Arrays of one data set, one row an example."""
HELD_OUT_FIELD = "held_out"
"""The field that says of each row whether it is never trained on."""


class FixedDomain:
    """A domain of rows that are there from the start; later rounds bring nothing new."""

    def __init__(
        self,
        name: str,
        rows: Rows,
        held_out: Rows | None = None,
        measure: Callable[[CollectionPlan], Mapping[str, float]] | None = None,
    ) -> None:
        """`measure` is asked in every round, for `ratio` or `gain` of the mixture, see `core.collect.Experience`."""
        if not rows or not len(next(iter(rows.values()))):
            raise DistillError(f"the domain '{name}' has no rows")
        self.name, self.rows, self.held_out, self.measure = name, rows, held_out, measure

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """All rows in the first round, none later."""
        measured = dict(self.measure(plan)) if self.measure else {}
        if plan.round:
            return Experience({}, [], measured)
        return experience(self.rows, self.held_out, measured)


def experience(rows: Rows, held_out: Rows | None = None, measured: Mapping[str, float] | None = None) -> Experience:
    """Rows as what a collector brings, of which those in `held_out` are never trained on."""
    count = len(next(iter(rows.values())))
    fields = {name: np.asarray(values) for name, values in rows.items()}
    flags = np.zeros(count, bool)
    if held_out is not None:
        fields = {name: np.concatenate([values, np.asarray(held_out[name])]) for name, values in fields.items()}
        flags = np.arange(len(next(iter(fields.values())))) >= count
    return Experience({**fields, HELD_OUT_FIELD: flags}, [1] * len(flags), measured or {})


class RowSampler:
    """Rows of each domain, drawn with replacement: small sets come round again and again."""

    def __init__(self, newest: bool = False) -> None:
        """`newest` draws from each domain's last shard alone: a buffer that every round renews."""
        self.newest = newest
        self._known: dict[tuple[str, str, bool], np.ndarray] = {}

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """The rows' fields, domain after domain. A domain without rows that are held out gives trained ones."""
        parts: list[dict[str, np.ndarray]] = []
        for domain, count in counts.items():
            if count:
                own = [s for s in shards.shards if s.about["domain"] == domain]
                parts += self._rows(shards, rng, own[-1:] if self.newest else own, count, held_out)
        if not parts:
            raise DistillError("a batch needs at least one row")
        return {
            name: torch.as_tensor(np.concatenate([part[name] for part in parts]))
            for name in parts[0]
        }  # fmt: skip

    def _rows(
        self, shards: Shards, rng: np.random.Generator, own: list[Shard], count: int, held_out: bool
    ) -> list[dict[str, np.ndarray]]:
        usable = [self._places(shards, shard, held_out) for shard in own]
        if held_out and not sum(map(len, usable)):
            usable = [self._places(shards, shard, False) for shard in own]
        sizes = np.array([len(places) for places in usable])
        each = rng.multinomial(count, sizes / sizes.sum())
        found: list[dict[str, np.ndarray]] = []
        for shard, places, n in zip(own, usable, each, strict=True):
            if n:
                rows = places[rng.integers(0, len(places), n)]
                found.append({name: shards.array(shard, name)[rows] for name in shard.files if name != HELD_OUT_FIELD})
        return found

    def _places(self, shards: Shards, shard: Shard, held_out: bool) -> np.ndarray:
        key = (str(shards.folder), shard.name, held_out)
        if key not in self._known:
            self._known[key] = np.flatnonzero(shards.array(shard, HELD_OUT_FIELD) == held_out)
        return self._known[key]


class Epochs(RowSampler):
    """Every row of a domain once before any comes again, in an order that is drawn anew for each pass.

    Rows that are held out are drawn as `Draws` does.
    """

    def __init__(self, newest: bool = False) -> None:
        super().__init__(newest)
        self._passes: dict[str, tuple[int, int, str]] = {}
        """Domain -> seed of the order, rows of it that were given, the newest shard that it is over."""

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """As `RowSampler.sample`."""
        if held_out:
            return super().sample(shards, rng, counts, held_out)
        parts: list[dict[str, np.ndarray]] = []
        for domain, count in counts.items():
            own = [s for s in shards.shards if s.about["domain"] == domain]
            own = own[-1:] if self.newest else own
            usable = [self._places(shards, shard, False) for shard in own]
            ends = np.cumsum([len(places) for places in usable])
            for place in self._next(domain, rng, count, own[-1].name if own else "", int(ends[-1]) if own else 0):
                which = int(np.searchsorted(ends, place, side="right"))
                row = usable[which][place - ends[which]]
                shard = own[which]
                parts.append({n: shards.array(shard, n)[row] for n in shard.files if n != HELD_OUT_FIELD})
        if not parts:
            raise DistillError("a batch needs at least one row")
        return {name: torch.as_tensor(np.stack([part[name] for part in parts])) for name in parts[0]}

    def _next(self, domain: str, rng: np.random.Generator, count: int, shard: str, total: int) -> list[int]:
        if count and not total:
            raise DistillError(f"the domain '{domain}' has no row to train on")
        found: list[int] = []
        while len(found) < count:
            seed, at, over = self._passes.get(domain, (0, 0, ""))
            if over != shard or at == total:  # the first pass, one over new rows too, or the next one
                seed, at = int(rng.integers(2**31, size=1)[0]), 0
            order: np.ndarray = np.random.default_rng(seed).permutation(total)
            part: list[int] = order[at : at + count - len(found)].tolist()
            found += part
            self._passes[domain] = seed, at + len(part), shard
        return found

    def state(self) -> dict[str, Any]:
        """JSON-ready; see `restore`."""
        return {"passes": self._passes}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was called."""
        self._passes = {
            name: (int(seed), int(at), str(over)) for name, (seed, at, over) in state.get("passes", {}).items()
        }
