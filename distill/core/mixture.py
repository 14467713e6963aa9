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

    def __init__(self, names: Sequence[str], smoothing: float = 0.5, ratio_clip: float = 3.0) -> None:
        """`smoothing` is the paper's alpha: the share that follows the factors; the rest is spread evenly.

        `ratio_clip` bounds the cost ratios: a student that has not begun to learn would take everything.
        """
        if not names or len(set(names)) != len(names):
            raise DistillError(f"a mixture needs domains of different names, got {list(names)}")
        if not 0.0 <= smoothing <= 1.0:
            raise DistillError(f"the smoothing of a mixture must be from 0 to 1, got {smoothing}")
        self.names, self.smoothing, self.ratio_clip = tuple(names), smoothing, ratio_clip
        self.weights = np.full(len(names), 1.0 / len(names))
        self.drawn = np.zeros(len(names), np.int64)
        """Rows that were drawn from each domain so far."""
        self._begun = False

    def update(self, ratios: Mapping[str, float]) -> dict[str, float]:
        """Moves the weights by student-to-teacher cost ratios; the first call begins from them (equation 1)."""
        if set(ratios) != set(self.names):
            raise DistillError(f"a mixture of {list(self.names)} cannot be updated with ratios of {sorted(ratios)}")
        values = np.array([ratios[name] for name in self.names], float)
        if not (np.isfinite(values).all() and (values > 0).all()):
            raise DistillError(f"cost ratios must be positive numbers, got {dict(ratios)}")
        tilt = np.exp(np.minimum(values, self.ratio_clip))
        factor = (self.weights if self._begun else 1.0) * tilt
        factor = factor / factor.sum()
        self.weights = self.smoothing * factor + (1 - self.smoothing) / len(self.names)
        self._begun = True
        return self.as_dict()

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
        return {"weights": self.weights.tolist(), "drawn": self.drawn.tolist(), "begun": self._begun}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state` was called."""
        self.weights, self.drawn = np.array(state["weights"], float), np.array(state["drawn"], np.int64)
        self._begun = bool(state["begun"])
