"""Self-distillation of kernel ridge regression in closed form: what theory says that a student of students becomes.

Borup and Andersen, arXiv 2102.13088. `kernel` is the matrix K `[n, n]` of the training inputs, `strength` the ridge
penalty lambda. A step fits targets m as c = (K + lambda I)^-1 m; the fit predicts k(x)^T c at x, and S m with
S = K (K + lambda I)^-1 at the training inputs. Step 1 fits the labels y, step t fits alpha y + (1 - alpha) y_(t-1),
where y_(t-1) are the predictions of the step before. **alpha is the weight of the labels**: 1 is the plain fit, 0 the
teacher alone. All in float64.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from distill.core.errors import DistillError


def rbf_kernel(a: np.ndarray, b: np.ndarray, gamma: float) -> np.ndarray:
    """exp(-gamma ||a_i - b_j||^2), `[n, m]`, of points `[n, d]` and `[m, d]`, or `[n]` and `[m]` on a line."""
    a, b = (np.asarray(x, float).reshape(len(x), -1) for x in (a, b))
    return np.exp(-gamma * np.square(a[:, None] - b[None]).sum(-1))


def ridge_fit(kernel: np.ndarray, targets: np.ndarray, strength: float) -> np.ndarray:
    """Coefficients (K + lambda I)^-1 m, `[n]`, of targets `[n]`; predictions at x are `k(x)^T coefficients`."""
    kernel, targets = _checked(kernel, targets, strength)
    return np.linalg.solve(kernel + strength * np.eye(len(kernel)), targets)


def distilled_fits(kernel: np.ndarray, labels: np.ndarray, strength: float, alphas: Sequence[float]) -> np.ndarray:
    """Coefficients `[1 + len(alphas), n]` of every step, one after the other; `alphas` are those of steps 2, 3, ..."""
    fits = [ridge_fit(kernel, labels, strength)]
    for alpha in alphas:
        _share(alpha)
        targets = alpha * np.asarray(labels, float) + (1 - alpha) * (kernel @ fits[-1])
        fits.append(ridge_fit(kernel, targets, strength))
    return np.stack(fits)


@dataclass(frozen=True)
class Spectrum:
    """The same steps in the kernel's eigenbasis: y_t = V B_t V^T y, one decomposition for all of them."""

    vectors: np.ndarray
    """V `[n, n]`, a column for each eigenvalue."""
    values: np.ndarray
    """Eigenvalues D `[n]`, ascending."""
    gains: np.ndarray
    """The diagonals of B_t, `[1 + len(alphas), n]`: what is left of each direction of the labels."""

    def predictions(self, labels: np.ndarray) -> np.ndarray:
        """y_t `[1 + len(alphas), n]` at the training inputs."""
        return (self.gains * (self.vectors.T @ np.asarray(labels, float))) @ self.vectors.T


def distilled_spectrum(kernel: np.ndarray, strength: float, alphas: Sequence[float]) -> Spectrum:
    """B_1 = A, B_t = A ((1 - alpha) B_(t-1) + alpha I) with A = D (D + lambda I)^-1."""
    kernel, _ = _checked(kernel, np.zeros(len(kernel)), strength)
    values, vectors = np.linalg.eigh(kernel)
    values = np.maximum(values, 0)  # a kernel has no negative ones, rounding does
    shrink = values / (values + strength)
    gains = [shrink]
    for alpha in alphas:
        _share(alpha)
        gains.append(shrink * ((1 - alpha) * gains[-1] + alpha))
    return Spectrum(vectors, values, np.stack(gains))


def limit_fit(kernel: np.ndarray, labels: np.ndarray, strength: float, alpha: float) -> np.ndarray:
    """Coefficients `[n]` after infinitely many steps: the plain fit with the penalty lambda / alpha; 0 for alpha = 0.

    Steps come near it by a factor (1 - alpha) max(A) each.
    """
    _share(alpha)
    return ridge_fit(kernel, labels, strength / alpha) if alpha else np.zeros(len(kernel))


@dataclass(frozen=True)
class BestAlpha:
    """The weight of the labels with the least squared error on held-out data."""

    raw: float
    """The minimum over all numbers; below 0 where the step before is already too regular."""
    value: float
    """The same, clipped to [0, 1]."""


def best_alpha(labels_only: np.ndarray, teacher_only: np.ndarray, held_out: np.ndarray) -> BestAlpha:
    """Closed form of the best alpha of one step, from predictions at the same held-out inputs, of equal shapes.

    `labels_only` a: of the fit to the labels alone (alpha = 1). `teacher_only` b: of the fit to the teacher alone
    (alpha = 0). The step's prediction is alpha a + (1 - alpha) b, exactly for ridge regression and nearly for networks,
    so alpha = <b - a, b - y> / ||b - a||^2. Where a = b, every alpha is as good, and it is 1.
    """
    a, b, y = (np.asarray(x, float) for x in (labels_only, teacher_only, held_out))
    if not a.shape == b.shape == y.shape:
        raise DistillError(f"predictions and held-out values must have one shape, got {a.shape}, {b.shape}, {y.shape}")
    apart = np.square(b - a).sum()
    raw = float(((b - a) * (b - y)).sum() / apart) if apart > 0 else 1.0
    return BestAlpha(raw, min(max(raw, 0.0), 1.0))


def _checked(kernel: np.ndarray, targets: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    kernel, targets = np.asarray(kernel, float), np.asarray(targets, float)
    if kernel.ndim != 2 or kernel.shape != (len(targets), len(targets)):
        raise DistillError(f"a kernel of {len(targets)} targets must be square, got the shape {list(kernel.shape)}")
    if not 0 < strength < np.inf:
        raise DistillError(f"the ridge strength must be above 0, got {strength}")
    return kernel, targets


def _share(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise DistillError(f"alpha, the weight of the labels, must be from 0 to 1, got {alpha}")
