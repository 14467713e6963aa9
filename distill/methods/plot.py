"""A recipe's arms side by side: every seed a dot, mean and 95 % interval over them."""

from pathlib import Path
from typing import Any

from distill.core.checkpoints import save_figure
from distill.methods.statistics import Results


def plot(result: dict[str, Any], results: Results, path: Path) -> Path:
    """Draws the main measure of all arms."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    arms = list(result["arms"])
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(arms)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for place, arm in enumerate(arms):
        values, found = results.values(arm), result["arms"][arm]
        axes.plot(values, [place] * len(values), "o", color="0.7", markersize=4)
        if found["ci95"]:
            axes.plot(found["ci95"], [place, place], "C0-", linewidth=2)
        axes.plot([found["mean"]], [place], "C0D")
    axes.set(xlabel=result["metric"], title=f"{result['name']}: {result['verdict']}")
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    save_figure(figure, path)
    return path
