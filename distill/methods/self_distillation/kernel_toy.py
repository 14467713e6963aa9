"""The exact part of self-distillation: the paper's toy table, and its laws on random problems (arXiv 2102.13088)."""

import numpy as np

from distill.core.objectives.kernel import best_alpha, distilled_fits, distilled_spectrum, limit_fit, rbf_kernel

TABLE = {
    0.0: (0.16477, 0.15076, 0.14915, 0.15561, 0.16735, 0.18251, 0.49505),
    0.35: (0.16477, 0.15424, 0.15089, 0.14983, 0.14954, 0.14948, 0.14959),
}
"""Toy errors after steps 1 to 6 and in the limit, by alpha; the repository's 0.25 column is 0.35."""
TOY_X = np.arange(11) / 10
TOY_Y = np.array([
    0.38476636465198066, 1.2333967683416893, 1.33232242218057, 0.6920159488889518, -0.29756145531871736,
    -0.24189291901377769, -0.7964485769175675, -0.9616480167034174, -0.49672509509916934, -0.3469066003991437,
    0.5589512650600734,
])  # fmt: skip
"""Noisy points of sin(2 pi x) that the paper's toy takes from Mobahi et al. (arXiv 2002.05715)."""
GRID_X = np.linspace(0, 1, 101)
SINE = np.sin(2 * np.pi * GRID_X)


def toy(alpha: float | None, steps: int) -> tuple[list[float], list[float]]:
    """The paper's toy example: mean squared error against the noiseless sine after each step, and the alphas used.

    With `alpha` None each step takes the best one against the sine; those given are before clipping to [0, 1].
    """
    kernel, to_grid = rbf_kernel(TOY_X, TOY_X, 80.0), rbf_kernel(GRID_X, TOY_X, 80.0)
    used: list[float] = []
    raw: list[float] = []
    for _ in range(steps - 1):
        found = distilled_fits(kernel, TOY_Y, 0.2, [*used, 0.0])
        best = best_alpha(to_grid @ found[0], to_grid @ found[-1], SINE)
        raw.append(best.raw if alpha is None else alpha)
        used.append(best.value if alpha is None else alpha)
    fits = distilled_fits(kernel, TOY_Y, 0.2, used)
    return np.square(fits @ to_grid.T - SINE).mean(1).tolist(), raw


def toy_limit(alpha: float) -> float:
    """The toy's error after infinitely many steps."""
    fit = limit_fit(rbf_kernel(TOY_X, TOY_X, 80.0), TOY_Y, 0.2, alpha)
    return float(np.square(rbf_kernel(GRID_X, TOY_X, 80.0) @ fit - SINE).mean())


def laws(problems: int = 20, points: int = 40) -> dict[str, float]:
    """The paper's laws on random problems: largest deviations, which must be rounding only.

    `norm` is by how much alpha = 0 ever grew, `limit` the distance of 2000 steps from the ridge fit of strength
    ridge / alpha, `spectral` that of explicit steps from the closed form, `grid` by how much a grid of 101 alphas ever
    beat the closed best one.
    """
    worst: dict[str, float] = dict.fromkeys(("norm", "limit", "spectral", "grid"), 0.0)
    for seed in range(problems):
        rng = np.random.default_rng([seed, 8])
        x = np.sort(rng.random(points))
        clean = np.sin(2 * np.pi * x)
        y = clean + 0.4 * rng.standard_normal(points)
        kernel, ridge, alpha = rbf_kernel(x, x, 80.0), float(10 ** rng.uniform(-1.5, 0.5)), float(rng.uniform(0.2, 0.9))
        norms = np.linalg.norm(distilled_spectrum(kernel, ridge, [0.0] * 30).predictions(y), axis=1)
        spectrum = distilled_spectrum(kernel, ridge, [alpha] * 2000).predictions(y)
        explicit = kernel @ distilled_fits(kernel, y, ridge, [alpha] * 4)[-1]
        truth, teacher = (kernel @ fit for fit in distilled_fits(kernel, y, ridge, [0.0]))
        errors = [np.square(a * truth + (1 - a) * teacher - clean).mean() for a in np.linspace(0, 1, 101)]
        best = best_alpha(truth, teacher, clean).value
        least = np.square(best * truth + (1 - best) * teacher - clean).mean()
        found = {
            "norm": np.diff(norms).max(),
            "limit": np.abs(spectrum[-1] - kernel @ limit_fit(kernel, y, ridge, alpha)).max(),
            "spectral": np.abs(explicit - spectrum[4]).max(), "grid": least - min(errors),
        }  # fmt: skip
        worst = {name: max(worst[name], float(value)) for name, value in found.items()}
    return worst
