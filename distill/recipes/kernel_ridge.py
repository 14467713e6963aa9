"""Self-distillation of kernel ridge regression in closed form (Borup and Andersen, arXiv 2102.13088).

With the kernel matrix K = V D V^T, ridge strength `ridge` and A = D / (D + ridge), the fit after t steps is
V B_t V^T y, B_1 = A, B_{t+1} = A ((1 - alpha) B_t + alpha), where alpha is the weight on the ground truth.
"""

from collections.abc import Sequence

import numpy as np

from distill.core.errors import DistillError

TOY_X = np.arange(11) / 10
TOY_Y = np.array([
    0.38476636465198066, 1.2333967683416893, 1.33232242218057, 0.6920159488889518, -0.29756145531871736,
    -0.24189291901377769, -0.7964485769175675, -0.9616480167034174, -0.49672509509916934, -0.3469066003991437,
    0.5589512650600734,
])  # fmt: skip
"""Noisy points of sin(2 pi x) that the paper's toy example takes from Mobahi et al. (arXiv 2002.05715)."""


def rbf(first: np.ndarray, second: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma (x - x')^2), `[N, M]` of points `[N]` and `[M]`."""
    return np.exp(-gamma * np.square(first[:, None] - second[None]))


class KernelRidge:
    """One fixed kernel and ridge strength, fitted again and again to mixtures of truth and its own fit."""

    def __init__(self, kernel: np.ndarray, ridge: float) -> None:
        """`kernel` `[n, n]`, symmetric and positive semi-definite; raises `DistillError` for a ridge not above 0."""
        if not ridge > 0:
            raise DistillError(f"the ridge strength must be above 0, got {ridge}")
        self.ridge = ridge
        eigenvalues, self.vectors = np.linalg.eigh((kernel + kernel.T) / 2)
        self.eigenvalues = np.maximum(eigenvalues, 0)
        self.shrink = self.eigenvalues / (self.eigenvalues + ridge)
        """A's diagonal."""

    def factors(self, alphas: Sequence[float]) -> list[np.ndarray]:
        """B_1, B_2, ...: diagonals `[n]`; `alphas[t]` mixes the targets of step t + 2."""
        found = [self.shrink]
        for alpha in alphas:
            found.append(self.shrink * ((1 - alpha) * found[-1] + alpha))
        return found

    def limit(self, alpha: float) -> np.ndarray:
        """B after infinitely many steps: the ridge fit of strength ridge / alpha, 0 for alpha = 0."""
        return alpha * self.eigenvalues / (alpha * self.eigenvalues + self.ridge)

    def fitted(self, factor: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Values `[n]` at the training points, of the targets `[n]`."""
        return self.vectors @ (factor * (self.vectors.T @ targets))

    def predict(self, kernel: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Values `[m]` at points of which `kernel` `[m, n]` is the kernel with the training points, after one fit."""
        return kernel @ (self.vectors @ ((self.vectors.T @ targets) / (self.eigenvalues + self.ridge)))

    def steps(self, targets: np.ndarray, alphas: Sequence[float]) -> list[np.ndarray]:
        """The targets of each step `[n]`, made by explicit refitting; the first are `targets` themselves."""
        found, fit = [targets], self.fitted(self.shrink, targets)
        for alpha in alphas:
            found.append(alpha * targets + (1 - alpha) * fit)
            fit = self.fitted(self.shrink, found[-1])
        return found


def best_alpha(truth_only: np.ndarray, teacher_only: np.ndarray, held_out: np.ndarray) -> float:
    """The weight on the truth with the least squared error of alpha a + (1 - alpha) b on held-out targets.

    a is what a fit to the truth alone predicts, b a fit to the teacher alone. Not clipped: below 0 the first fit was
    regularised too much. 1 where a and b agree.
    """
    gap = teacher_only - truth_only
    size = float((gap**2).sum())
    return float((gap * (teacher_only - held_out)).sum()) / size if size > 0 else 1.0


def toy(alpha: float | None, steps: int, ridge: float = 0.2, gamma: float = 80.0) -> tuple[list[float], list[float]]:
    """The paper's toy example: mean squared error against the noiseless sine after each step, and the alphas used.

    With `alpha` None each step takes the best one against the sine, clipped to [0, 1]; those given are before clipping.
    """
    model = KernelRidge(rbf(TOY_X, TOY_X, gamma), ridge)
    grid = np.linspace(0, 1, 101)
    sine, kernel = np.sin(2 * np.pi * grid), rbf(grid, TOY_X, gamma)
    first = model.predict(kernel, TOY_Y)
    errors, alphas, targets = [float(np.square(first - sine).mean())], [], TOY_Y
    for _ in range(steps - 1):
        fit = model.fitted(model.shrink, targets)
        found = best_alpha(first, model.predict(kernel, fit), sine) if alpha is None else alpha
        alphas.append(found)
        used = float(np.clip(found, 0, 1))
        targets = used * TOY_Y + (1 - used) * fit
        errors.append(float(np.square(model.predict(kernel, targets) - sine).mean()))
    return errors, alphas


def toy_limit(alpha: float, ridge: float = 0.2, gamma: float = 80.0) -> float:
    """The toy's error after infinitely many steps."""
    grid = np.linspace(0, 1, 101)
    sine = np.sin(2 * np.pi * grid)
    if alpha == 0:
        return float(np.square(sine).mean())
    model = KernelRidge(rbf(TOY_X, TOY_X, gamma), ridge / alpha)
    return float(np.square(model.predict(rbf(grid, TOY_X, gamma), TOY_Y) - sine).mean())
