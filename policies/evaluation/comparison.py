"""Two policies over the same worlds: what one has over the other, world by world.

Same physics, start, pushes and noise in both, so the difference of their scores has far less noise than either score.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

Z95 = 1.96


def confidence95(values: np.ndarray) -> list[float]:
    """Normal 95 % confidence interval of the mean, [low, high]; a single value has none wider than itself."""
    half = Z95 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return [float(values.mean()) - half, float(values.mean()) + half]


def share95(count: int, of: int) -> list[float]:
    """Wilson's 95 % confidence interval of a share, [low, high] (Wilson, JASA 22, 1927, 209): also of none or all."""
    share, z2 = count / of, Z95**2
    middle, half = share + z2 / (2 * of), Z95 * (share * (1 - share) / of + z2 / (4 * of**2)) ** 0.5
    return [max((middle - half) / (1 + z2 / of), 0.0), min((middle + half) / (1 + z2 / of), 1.0)]


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """What evaluation `first` has over `second`, both over the same worlds in the same order, JSON-ready.

    Returns:
      `score_difference` (mean of first less second) with its `ci95`; `better`, `equal` and `worse`: in how many worlds
      the first scored so; `time_ratio`: median of first over second in the worlds that both finished, None without one.
    """
    pairs = list(zip(first["worlds"], second["worlds"], strict=True))
    difference = np.array([a["score"] - b["score"] for a, b in pairs])
    both = [(a["time_s"], b["time_s"]) for a, b in pairs if a["finished"] and b["finished"]]
    return {
        "score_difference": float(difference.mean()),
        "ci95": confidence95(difference),
        "better": int((difference > 0).sum()),
        "equal": int((difference == 0).sum()),
        "worse": int((difference < 0).sum()),
        "time_ratio": float(np.median([a / b for a, b in both])) if both else None,
    }
