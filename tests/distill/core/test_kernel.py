"""Closed forms of self-distillation: published numbers, explicit loops, limits and the best weight of the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.objectives.kernel import (
    best_alpha,
    distilled_fits,
    distilled_spectrum,
    limit_fit,
    rbf_kernel,
    ridge_fit,
)

# Eleven noisy points of a sine, those of Mobahi, Farajtabar and Bartlett (arXiv 2002.05715), which Borup uses as well.
X = np.arange(11) / 10
Y = np.array(
    [
        0.38476636465198066,
        1.2333967683416893,
        1.33232242218057,
        0.69201594888895180,
        -0.29756145531871736,
        -0.24189291901377769,
        -0.7964485769175675,
        -0.9616480167034174,
        -0.49672509509916934,
        -0.3469066003991437,
        0.5589512650600734,
    ]
)
GRID = np.arange(101) / 100
TRUTH = np.sin(2 * np.pi * GRID)
GAMMA, STRENGTH = 80.0, 0.2
K, K_GRID = rbf_kernel(X, X, GAMMA), rbf_kernel(GRID, X, GAMMA)
SEEDS = st.integers(0, 2**31)


def error(coefficients: np.ndarray) -> float:
    return float(np.square(K_GRID @ coefficients - TRUTH).mean())


@pytest.mark.parametrize(
    "alpha, steps, limit",
    [
        (0.0, [0.16477, 0.15076, 0.14915, 0.15561, 0.16735, 0.18251], 0.49505),
        (0.35, [0.16477, 0.15424, 0.15089, 0.14983, 0.14954, 0.14948], 0.14959),
        (0.25, [0.16477, 0.15309, 0.14958, 0.14903, 0.14946, 0.15011], 0.15250),
    ],
)
def test_the_published_table_of_errors_to_five_decimals(alpha, steps, limit):
    errors = [error(fit) for fit in distilled_fits(K, Y, STRENGTH, [alpha] * 5)]
    assert errors == pytest.approx(steps, abs=5.1e-6)
    assert error(limit_fit(K, Y, STRENGTH, alpha)) == pytest.approx(limit, abs=5.1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.25, 0.35, 0.9, 1.0])
def test_200_steps_are_the_limit_to_1e_10(alpha):
    last = distilled_fits(K, Y, STRENGTH, [alpha] * 199)[-1]
    np.testing.assert_allclose(last, limit_fit(K, Y, STRENGTH, alpha), atol=1e-10, rtol=0)
    np.testing.assert_allclose(limit_fit(K, Y, STRENGTH, alpha), ridge_fit(K, Y, STRENGTH / alpha), atol=1e-14)


def problem(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.uniform(size=(n, 2))
    return rbf_kernel(x, x, 5.0), np.sin(6 * x[:, 0]) + 0.5 * rng.normal(size=n)


@given(SEEDS, st.floats(0.01, 10), st.lists(st.floats(0, 1), max_size=6))
@settings(max_examples=25, deadline=None)
def test_the_spectral_form_is_the_explicit_loop_to_1e_8(seed, strength, alphas):
    kernel, y = problem(seed)
    spectrum = distilled_spectrum(kernel, strength, alphas)
    explicit = distilled_fits(kernel, y, strength, alphas) @ kernel
    np.testing.assert_allclose(spectrum.predictions(y), explicit, atol=1e-8, rtol=0)


def test_the_loop_solves_the_objective_it_stands_for():
    """alpha/2 sum (f - y)^2 + (1 - alpha)/2 sum (f - y_before)^2 + lambda/2 ||f||^2 has gradient 0 at each step."""
    kernel, y = problem(3)
    fits = distilled_fits(kernel, y, 0.3, [0.4, 0.7])
    for alpha, before, fit in ((0.4, fits[0], fits[1]), (0.7, fits[1], fits[2])):
        f = kernel @ fit
        gradient = kernel @ (alpha * (f - y) + (1 - alpha) * (f - kernel @ before) + 0.3 * fit)
        np.testing.assert_allclose(gradient, 0, atol=1e-10)


@pytest.mark.parametrize("strength", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("seed", range(20))
def test_the_law_on_random_problems(seed, strength):
    kernel, y = problem(seed, n=20)
    norms = [f @ kernel @ f for f in distilled_fits(kernel, y, strength, [0.0] * 10)]
    assert all(b < a for a, b in zip(norms, norms[1:], strict=False))  # the teacher alone shrinks to the zero function
    alone = distilled_spectrum(kernel, strength, [0.0] * 3000)
    assert np.linalg.norm(alone.predictions(y)[-1]) < 1e-4 * np.linalg.norm(y)
    assert (limit_fit(kernel, y, strength, 0.0) == 0).all()
    mixed = distilled_spectrum(kernel, strength, [0.3] * 120)
    np.testing.assert_allclose(mixed.predictions(y)[-1], kernel @ ridge_fit(kernel, y, strength / 0.3), atol=1e-10)


@given(SEEDS, st.floats(0.05, 5), st.floats(0.05, 0.95))
@settings(max_examples=20, deadline=None)
def test_ratios_of_gains_grow_for_ever_without_labels_and_to_a_finite_limit_with_them(seed, strength, alpha):
    """With labels they need not grow at every step: the second step often overshoots the limit."""
    kernel, _ = problem(seed, n=20)
    alone = distilled_spectrum(kernel, strength, [0.0] * 30)
    ratios = alone.gains[:, -1] / alone.gains[:, -8]
    assert (np.diff(np.log(ratios)) > 0).all()
    np.testing.assert_allclose(np.log(ratios), np.arange(1, 32) * np.log(ratios[0]))
    mixed = distilled_spectrum(kernel, strength, [alpha] * 400)
    ratios = mixed.gains[:, -1] / mixed.gains[:, -8]
    assert (ratios >= ratios[0] * (1 - 1e-12)).all()  # sparser than the plain fit at every step
    values = mixed.values[[-1, -8]]
    limit = values / (values + strength / alpha)
    np.testing.assert_allclose(ratios[-1], limit[0] / limit[1], rtol=1e-6)


def test_the_published_best_alphas_of_the_sine():
    """Each step's teacher is the fit of the step before with its own (clipped) best alpha."""
    raws, errors = [], []
    labels_only = ridge_fit(K, Y, STRENGTH)
    before = labels_only
    for _ in range(5):
        teacher_only = ridge_fit(K, K @ before, STRENGTH)
        best = best_alpha(K_GRID @ labels_only, K_GRID @ teacher_only, TRUTH)
        before = best.value * labels_only + (1 - best.value) * teacher_only
        raws.append(best.raw)
        errors.append(error(before))
    assert raws == pytest.approx([-0.62, 0.135, 0.334, 0.336, 0.336], abs=6e-3)
    assert errors[:3] == pytest.approx([0.15076, 0.14876, 0.14916], abs=5.1e-6)


@given(SEEDS, st.floats(0.05, 5))
@settings(max_examples=30, deadline=None)
def test_no_alpha_of_a_grid_beats_the_closed_form(seed, strength):
    kernel, y = problem(seed)
    rng = np.random.default_rng(seed)
    held_out = y + rng.normal(size=len(y))
    a = kernel @ ridge_fit(kernel, y, strength)
    b = kernel @ ridge_fit(kernel, a, strength)
    best = best_alpha(a, b, held_out)
    assert 0 <= best.value <= 1

    def squared(alpha: float) -> float:
        fit = distilled_fits(kernel, y, strength, [alpha])[-1]
        return float(np.square(kernel @ fit - held_out).sum())

    assert min(squared(alpha) for alpha in np.linspace(0, 1, 101)) >= squared(best.value) - 1e-9


def test_equal_fits_leave_every_alpha_as_good():
    assert best_alpha(Y, Y, Y + 1).value == 1.0


def test_what_does_not_fit_is_refused():
    with pytest.raises(DistillError, match=r"kernel of 3 targets must be square, got the shape \[11, 11\]"):
        ridge_fit(K, Y[:3], 0.1)
    with pytest.raises(DistillError, match="ridge strength must be above 0, got 0"):
        ridge_fit(K, Y, 0)
    with pytest.raises(DistillError, match="alpha, the weight of the labels, must be from 0 to 1, got 1.5"):
        distilled_fits(K, Y, 0.1, [0.2, 1.5])
    with pytest.raises(DistillError, match="must have one shape"):
        best_alpha(Y, Y[:3], Y)
