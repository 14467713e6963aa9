"""What the law of the capacity gap says, asked of curves of student loss over teacher size; the same in every domain.

An arm `START WIDTH` holds the `losses` of one student after every teacher, its `size` and the sizes of the `teachers`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.methods.claims import Claim, Power
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
    }  # fmt: skip


def _best_smaller(losses: np.ndarray) -> np.ndarray:
    """Of losses `[seeds, S, T]`, each seed's best teacher but the largest on all other seeds, `[seeds, S, 1]`."""
    others = losses.sum(0) - losses if len(losses) > 1 else losses
    return others[..., :-1].argmin(-1)[..., None]


@dataclass(frozen=True)
class PastTheBest:
    """A figure: the loss after the largest teacher less that after the best smaller one, mean over students.

    Below 0 where the largest is the best. Each seed's best smaller teacher is chosen on all other seeds: the least of
    several noisy losses of one curve is too low.
    """

    widths: tuple[int, ...]
    start: str

    def __call__(self, results: Results) -> np.ndarray:
        """`[seeds]`."""
        losses = curves(results, self.widths, self.start)[2]
        return (losses[..., -1] - np.take_along_axis(losses, _best_smaller(losses), -1)[..., 0]).mean(-1)


@dataclass(frozen=True)
class BeyondTheBest:
    """A figure: the mean loss after all teachers beyond the best smaller one less the loss after that, mean over
    students; the best is chosen as in `PastTheBest`, which looks at one end of the curve alone, and so is noisier."""

    widths: tuple[int, ...]
    start: str

    def __call__(self, results: Results) -> np.ndarray:
        """`[seeds]`."""
        losses = curves(results, self.widths, self.start)[2]
        best = _best_smaller(losses)
        beyond = np.arange(losses.shape[-1]) > best
        mean = (losses * beyond).sum(-1) / beyond.sum(-1)
        return (mean - np.take_along_axis(losses, best, -1)[..., 0]).mean(-1)


@dataclass(frozen=True)
class Growth:
    """A figure: the slope of the logarithm of the best teacher's size over that of the student's; 1 in proportion."""

    widths: tuple[int, ...]
    start: str

    def __call__(self, results: Results) -> np.ndarray:
        """`[seeds]`."""
        students, teachers, losses = curves(results, self.widths, self.start)
        best = np.log([[optimum(teachers, curve) for curve in seed] for seed in losses])
        sizes = np.log(students) - np.log(students).mean()
        return (best - best[:, :1]) @ sizes / (sizes @ sizes)  # of equal sizes exactly 0


def claims(widths: Sequence[int], start: str, loss: Power, slope: Power, *, every: bool = False) -> tuple[Claim, Claim]:
    """That there is a best teacher, and that it grows with the student, with the power of each; `every` teacher beyond
    the best counts, or the largest alone."""
    kind, last = (BeyondTheBest, "those beyond it") if every else (PastTheBest, "the largest teacher")
    return (
        Claim(
            "gap", "Teachers beyond the best size make a student of one size worse", kind(tuple(widths), start), loss,
            unit=f"loss after {last} less after the best smaller",
        ),
        Claim(
            "growth", "The best teacher grows with the student",
            Growth(tuple(widths), start), slope, unit="slope of the log of the best teacher over that of the student",
        ),
    )  # fmt: skip


def checks(results: Results, widths: Sequence[int], start: str) -> list[Check]:
    """Interior minima, a best teacher that grows, along a line; reported beside the claims."""
    found, role = law(results, widths, start), "reported"
    best = ", ".join(f"{b / 1000:.0f}k ({r:.1f}x)" for b, r in zip(found["best"], found["ratio"], strict=True))
    low, high = found["slope"]
    inside, of = sum(found["interior"]), len(widths)
    most = 3 * inside >= 2 * of
    line = f"{start}: a line tells a left-out student's best teacher better than a constant"
    points = np.array([row["teacher quality"]["points"] for row in results.rows.values()]).mean(0)
    text = ", ".join(f"{teacher:.3f} -> {student:.3f}" for teacher, student in points)
    better = bool(np.all(np.diff(points[:, 1]) < 0))
    return [
        Check(f"{start}: the largest teacher is worse than the best for {inside} of {of} students", most, role),
        Check(f"{start}: best teachers {best}; slope over students [{low:.2f}, {high:.2f}] above 0", low > 0, role),
        Check(line, found["line"] > 0, role),
        Check(f"one teacher size, longer and longer trained, teacher -> student loss: {text}", better, role),
    ]
