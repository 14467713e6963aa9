"""Watching a run: early stopping, and the warning signs of teacher hacking.

A student can get closer to its teacher and further from what the teacher was for (arXiv 2502.02671): the proxy, its
distance to the teacher on experience that it is not trained on, still falls while the golden metric, here any score of
the task itself, gets worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distill.core.errors import DistillError


@dataclass
class Monitor:
    """Golden metric (higher is better) and proxy (lower is better) after every round."""

    patience: int = 0
    """Rounds without a better golden metric after which a run stops; 0 never stops."""
    tolerance: float = 0.0
    """A golden metric that is worse by no more than this is not counted as worse: the noise of its measurement."""
    proxy: list[float] = field(default_factory=list[float])
    golden: list[float] = field(default_factory=list[float])

    def add(self, proxy: float, golden: float) -> None:
        """What was measured after one more round."""
        if not np.isfinite([proxy, golden]).all():
            raise DistillError(f"proxy {proxy} and golden metric {golden} must be numbers")
        self.proxy.append(float(proxy))
        self.golden.append(float(golden))

    @property
    def best(self) -> int:
        """The round with the best golden metric (the first of equals), -1 before any."""
        return int(np.argmax(self.golden)) if self.golden else -1

    @property
    def improved(self) -> bool:
        """Whether the newest round is the best."""
        return bool(self.golden) and self.best == len(self.golden) - 1

    @property
    def stop(self) -> bool:
        """Whether `patience` rounds brought nothing better."""
        return self.patience > 0 and len(self.golden) - 1 - self.best >= self.patience

    @property
    def hacking(self) -> bool:
        """Whether, since the best round, the proxy fell and the golden metric rose no more: twice in a row worse by
        more than `tolerance`."""
        if len(self.golden) - 1 - self.best < 2:
            return False
        worse = all(g < self.golden[self.best] - self.tolerance for g in self.golden[-2:])
        return worse and self.proxy[-1] < self.proxy[self.best]

    def state(self) -> dict[str, Any]:
        """JSON-ready; see `restore`."""
        return {"proxy": self.proxy, "golden": self.golden}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was called."""
        self.proxy, self.golden = list(state["proxy"]), list(state["golden"])


def rise_after_best(golden_cost: Sequence[float]) -> float:
    """(last - least) / least of a golden cost (lower is better) over a run: the size of a U shape, 0 without one."""
    values = np.asarray(golden_cost, float)
    if not len(values) or not (np.isfinite(values).all() and (values > 0).all()):
        raise DistillError(f"a golden cost must be positive numbers, got {list(golden_cost)}")
    return float((values[-1] - values.min()) / values.min())
