"""How much of each batch comes from which domain: weights that follow where the student lags its teacher.

DDK (arXiv 2407.16154, equations 1 and 2): a domain's factor grows with the ratio of the student's cost to the teacher's
there, smoothly from interval to interval, and no domain falls below a floor. The paper's costs are perplexities; here
any positive cost serves, for example the teacher's return over the student's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distill.core.errors import DistillError


class Mixture:
    """Weights over named domains, and batches that are split by them."""

    def __init__(
        self, names: Sequence[str], smoothing: float = 0.5, ratio_clip: float = 3.0, memory: bool = True
    ) -> None:
        """`smoothing` is the paper's alpha: the share that follows the factors; the rest is spread evenly.

        `ratio_clip` bounds the cost ratios: a student that has not begun to learn would take everything. Without
        `memory` every update begins anew (equation 1), as in the paper's ablation of the smoothing.
        """
        if not names or len(set(names)) != len(names):
            raise DistillError(f"a mixture needs domains of different names, got {list(names)}")
        if not 0.0 <= smoothing <= 1.0:
            raise DistillError(f"the smoothing of a mixture must be from 0 to 1, got {smoothing}")
        self.names, self.smoothing, self.ratio_clip = tuple(names), smoothing, ratio_clip
        self.weights = np.full(len(names), 1.0 / len(names))
        self.drawn = np.zeros(len(names), np.int64)
        """Rows that were drawn from each domain so far."""
        self.memory = memory
        self._before = np.full(len(names), 1.0 / len(names))
        """The factors before the next update, which multiplies them."""

    def begin(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Takes the ratios before training as the factors that the first update multiplies (equation 1).

        The first data are drawn evenly all the same (algorithm 1), so the weights stay as they are.
        """
        tilt = self._tilt(ratios)
        self._before = tilt / tilt.sum()
        return self.as_dict()

    def update(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Moves the weights by student-to-teacher cost ratios (equation 2).

        Without a `begin` the first call starts from equal factors.
        """
        factor = (self._before if self.memory else 1.0) * self._tilt(ratios)
        factor = factor / factor.sum()
        self.weights = self.smoothing * factor + (1 - self.smoothing) / len(self.names)
        self._before = self.weights
        return self.as_dict()

    def _tilt(self, ratios: Mapping[str, float]) -> np.ndarray:
        if set(ratios) != set(self.names):
            raise DistillError(f"a mixture of {list(self.names)} cannot be updated with ratios of {sorted(ratios)}")
        values = np.array([ratios[name] for name in self.names], float)
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise DistillError(f"cost ratios must be positive numbers, got {dict(ratios)}")
        return np.exp(np.minimum(values, self.ratio_clip))

    def counts(self, rng: np.random.Generator, size: int) -> dict[str, int]:
        """How many of `size` rows each domain gives."""
        counts = rng.multinomial(size, self.weights / self.weights.sum())
        self.drawn += counts
        return dict(zip(self.names, counts.tolist(), strict=True))

    def as_dict(self) -> dict[str, float]:
        """Domain -> weight."""
        return {name: float(w) for name, w in zip(self.names, self.weights, strict=True)}

    def state(self) -> dict[str, Any]:
        """JSON-ready; see `restore`."""
        return {"weights": self.weights.tolist(), "drawn": self.drawn.tolist(), "before": self._before.tolist()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was called."""
        self.weights, self.drawn = np.array(state["weights"], float), np.array(state["drawn"], np.int64)
        self._before = np.array(state.get("before", state["weights"]), float)
