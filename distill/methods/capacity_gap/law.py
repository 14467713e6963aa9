"""What the law of the capacity gap says, asked of curves of student loss over teacher size; the same in every domain.

An arm `START WIDTH` holds the `losses` of one student after every teacher, its `size` and the sizes of the `teachers`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from distill.methods.statistics import Check, Results


def optimum(sizes: np.ndarray, losses: np.ndarray) -> float:
    """The teacher size of least loss: the vertex of a parabola in log size through the least and its neighbours, or the
    end of the grid where the least lies there."""
    best = int(losses.argmin())
    if best in (0, len(losses) - 1):
        return float(sizes[best])
    a, b, _ = np.polyfit(np.log(sizes[best - 1 : best + 2]), losses[best - 1 : best + 2], 2)
    return float(np.exp(-b / (2 * a)))


def curves(results: Results, widths: Sequence[int], start: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Student sizes `[S]`, teacher sizes `[T]`, losses `[seeds, S, T]`."""
    arms = [f"{start} {width}" for width in widths]
    row = results.rows[results.seeds[0]]
    losses = np.array([[row[arm]["losses"] for arm in arms] for row in results.rows.values()])
    return np.array([row[arm]["size"] for arm in arms]), np.array(row[arms[0]]["teachers"]), losses


def law(results: Results, widths: Sequence[int], start: str) -> dict[str, Any]:
    """Interior minima, best teachers, their growth over bootstrap samples of the seeds, line or constant."""
    students, teachers, losses = curves(results, widths, start)
    interior = []
    for k in range(len(students)):
        gap = losses[:, k, -1] - losses[:, k, losses[:, k].mean(0).argmin()]
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else np.inf
        interior.append(bool(gap.mean() > 2 * error))
    best = np.array([optimum(teachers, curve) for curve in losses.mean(0)])
    rng = np.random.default_rng(0)
    slopes = []
    for _ in range(500):
        sample = losses[rng.integers(len(losses), size=len(losses))].mean(0)
        slopes.append(np.polyfit(students, [optimum(teachers, curve) for curve in sample], 1)[0])
    left_out = [np.arange(len(students)) != k for k in range(len(students))]
    line = [np.polyval(np.polyfit(students[m], best[m], 1), students[~m])[0] - best[~m][0] for m in left_out]
    constant = [best[m].mean() - best[~m][0] for m in left_out]
    return {
        "interior": interior, "best": best, "ratio": best / students,
        "slope": (float(np.percentile(slopes, 2.5)), float(np.percentile(slopes, 97.5))),
        "line": float(np.square(line).sum() < np.square(constant).sum()),
        "largest": losses.mean(0).argmin(-1) == len(teachers) - 1,
    }  # fmt: skip


def checks(results: Results, widths: Sequence[int], starts: Sequence[str], judged: str) -> list[Check]:
    """Interior minima, a best teacher that grows, along a line: required of the start `judged`, reported of others."""
    found = [check for start in starts for check in _of(results, widths, start, start == judged)]
    points = np.array([row["teacher quality"]["points"] for row in results.rows.values()]).mean(0)
    text = ", ".join(f"{teacher:.3f} -> {student:.3f}" for teacher, student in points)
    better = bool(np.all(np.diff(points[:, 1]) < 0))
    return [
        *found,
        Check(f"one teacher size, longer and longer trained, teacher -> student loss: {text}", better, "reported"),
    ]


def _of(results: Results, widths: Sequence[int], start: str, judged: bool) -> list[Check]:
    found, role = law(results, widths, start), "required" if judged else "reported"
    best = ", ".join(f"{b / 1000:.0f}k ({r:.1f}x)" for b, r in zip(found["best"], found["ratio"], strict=True))
    low, high = found["slope"]
    inside, of = sum(found["interior"]), len(widths)
    line = f"{start}: a line tells a left-out student's best teacher better than a constant"
    checks = [
        Check(f"{start}: the largest teacher is worse than the best for {inside} of {of} students", inside >= 2, role),
        Check(f"{start}: best teachers {best}; slope over students [{low:.2f}, {high:.2f}] above 0", low > 0, role),
        Check(line, found["line"] > 0, role),
    ]
    if judged:
        always = f"{start}: the largest teacher is best for every student"
        shrinks = f"{start}: the best teacher shrinks as students grow: slope below 0"
        checks += [
            Check(always, found["largest"].all(), "falsifies"),
            Check(shrinks, high < 0, "falsifies"),
        ]
    return checks
