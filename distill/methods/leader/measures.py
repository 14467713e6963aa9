"""How good recommended sets are: PRAUC, Jaccard, F1, and how often two that should not be are given together."""

import numpy as np


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """PRAUC: mean over patients `[N, M]` that have a drug of the area under precision over recall."""
    order = np.argsort(-scores, 1, kind="stable")
    hits = np.take_along_axis(labels, order, 1)
    precision = hits.cumsum(1) / np.arange(1, labels.shape[1] + 1)
    some = labels.sum(1) > 0
    if not some.any():
        return 0.0
    return float(((precision * hits).sum(1)[some] / labels.sum(1)[some]).mean())


def set_scores(chosen: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean `jaccard` and `f1` of sets `[N, M]`; two empty ones agree."""
    both, either = (chosen & (labels > 0)).sum(1), (chosen | (labels > 0)).sum(1)
    sizes = chosen.sum(1) + labels.sum(1)
    jaccard, f1 = (
        np.where(either, both / np.maximum(either, 1), 1.0),
        np.where(sizes, 2 * both / np.maximum(sizes, 1), 1.0),
    )
    return {"jaccard": float(jaccard.mean()), "f1": float(f1.mean())}


def clash_rate(chosen: np.ndarray, clashes: np.ndarray) -> float:
    """DDI rate: share of all pairs that are given together, `chosen` `[N, M]` booleans, that should not be, `clashes`
    `[M, M]` booleans, each pair above or below the diagonal or in both places."""
    pairs = chosen.astype(float).T @ chosen.astype(float)
    upper = np.triu(pairs, 1)
    return float((upper * (clashes | clashes.T)).sum() / max(upper.sum(), 1.0))


def recommended(probabilities: np.ndarray, labels: np.ndarray, level: float, first: np.ndarray) -> dict[str, float]:
    """`prauc`, `jaccard` and `f1` of patients `[N, M]`, to whom what is likelier than `level` is given; and of those
    at a `first` visit `[N]` and of the others, where there are both."""
    groups = {"": np.ones(len(first), bool)}
    if first.any() and not first.all():
        groups |= {"first visit, ": first, "later visit, ": ~first}
    return {
        f"{group}{name}": value
        for group, m in groups.items()
        for name, value in {
            "prauc": average_precision(probabilities[m], labels[m]),
            **set_scores(probabilities[m] > level, labels[m]),
        }.items()
    }
