"""Windows of context out of episodes: what a generalist saw in its last control steps, and its teacher's actions."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.shards import Shard, Shards

HELD_OUT_EVERY = 20
"""Every so many episodes one is never trained on."""


class Windows:
    """Samples windows of `context` consecutive rows; before an episode's first row stands that row again, as in a
    history that has just been filled."""

    def __init__(
        self, context: int, last_only: bool = False, share: float = 1.0, also: Sequence[str] = (), newest: bool = False
    ) -> None:
        """`last_only` gives only the newest step's action; `share` trains on that part of the episodes alone; `also`
        are further fields of the newest step, `[B, 1, ...]`; `newest` draws from the newest round's experience alone.
        """
        self.context, self.last_only, self.share = context, last_only, share
        self.also, self.newest = tuple(also), newest
        self._known: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """`frames` `[B, T, frame]` oldest first, `heights` `[B, T, n]`, `action` `[B, T, J + 1]` (`[B, 1, J + 1]` with
        `last_only`), and `also`.

        Raises:
          DistillError: a domain has a single episode, so that there is none to train on or none that is held out.
        """
        round_ = shards.shards[-1].about["round"] if self.newest else None
        usable = [s for s in shards.shards if s.files and (not self.newest or s.about["round"] == round_)]
        parts = [
            self._rows(shards, rng, [s for s in usable if s.about["domain"] == domain], count, held_out)
            for domain, count in counts.items()
            if count
        ]
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if self.last_only:
            joined["action"] = joined["action"][:, -1:]
        return {name: torch.from_numpy(values) for name, values in joined.items()}

    def _rows(
        self, shards: Shards, rng: np.random.Generator, own: list[Shard], count: int, held_out: bool
    ) -> dict[str, np.ndarray]:
        usable = [self._of(shard)[2 if held_out else 1] for shard in own]
        sizes = np.array([len(rows) for rows in usable])
        if not sizes.sum():
            raise DistillError(
                "one episode alone cannot be learned from, as another is never trained on: ask for more rows"
            )
        each = rng.multinomial(count, sizes / sizes.sum())
        found: dict[str, list[np.ndarray]] = {name: [] for name in ("frames", "heights", "action", *self.also)}
        for shard, rows, n in zip(own, usable, each, strict=True):
            if n:
                last = np.sort(rows[rng.integers(0, len(rows), n)])
                first = self._of(shard)[0][last]
                window = np.maximum(last[:, None] + np.arange(1 - self.context, 1), first[:, None])
                for name, values in found.items():
                    places = window[:, -1:] if name in self.also else window
                    values.append(shards.array(shard, name)[places].astype(np.float32))
        return {name: np.concatenate(values) for name, values in found.items()}

    def _of(self, shard: Shard) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """First row of each row's episode, the rows to train on, the rows held out."""
        if shard.name not in self._known:
            lengths = np.array(shard.episodes)
            starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
            number = np.repeat(np.arange(len(lengths)), lengths)
            held = number % HELD_OUT_EVERY == HELD_OUT_EVERY // 2
            if len(lengths) <= HELD_OUT_EVERY // 2:  # few episodes: the last, unless it is the only one
                held = (number == len(lengths) - 1) & (len(lengths) > 1)
            kept = ~held & ((number % 100 < 100 * self.share) | (number == 0))
            self._known[shard.name] = starts[number], np.flatnonzero(kept), np.flatnonzero(held)
        return self._known[shard.name]
