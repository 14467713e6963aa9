"""Learning curves as one small picture."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

from sim.folders import replacing  # noqa: E402

PANELS = (
    ("reward", "reward per s"),
    ("velocity_error", "velocity error, m/s"),
    ("yaw_error", "yaw-rate error, rad/s"),
    ("falls_per_10s", "falls per 10 s"),
    ("level", "terrain level"),
    ("kl", "KL per iteration"),
)


def plot(history: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Draws the panels over millions of steps, thinly for each iteration and boldly smoothed."""
    figure, axes = plt.subplots(2, 3, figsize=(10, 5), constrained_layout=True)
    for axis, (name, label) in zip(axes.flat, PANELS, strict=True):
        rows = [(row["steps"] / 1e6, row[name]) for row in history if name in row]
        if rows:
            x, y = np.array(rows).T
            width = max(1, len(y) // 40)
            kernel = np.ones(width) / width
            axis.plot(x, y, lw=0.5, alpha=0.4, color="tab:blue")
            axis.plot(x[width - 1 :], np.convolve(y, kernel, "valid"), lw=1.6, color="tab:blue")
        axis.set_title(label, fontsize=9)
        axis.grid(alpha=0.3)
    for axis in axes[1]:
        axis.set_xlabel("million steps", fontsize=8)
    figure.suptitle(title)
    try:
        with replacing(path) as partial:
            figure.savefig(partial, dpi=80, format="png")
    finally:
        plt.close(figure)
