"""Total variation, symmetric, alpha and adaptive KL, the register, GKD's family, the survey's values and mode law."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL, JensenShannon, ReverseKL
from distill.core.objectives.f_divergences import (
    DIVERGENCES,
    AdaptiveKL,
    AlphaDivergence,
    SymmetricKL,
    TotalVariation,
    divergence,
    generalised_jsd,
    token_values,
)
from distill.core.objectives.probabilities import ProbabilityMSE
from distill.core.signals import DenseLogits, SampledLogProbs, Text

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)
NEW = [TotalVariation, SymmetricKL, AlphaDivergence, AdaptiveKL]
P, Q = (0.7, 0.2, 0.1), (0.2, 0.5, 0.3)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def loss(objective, teacher, student, mask=None, weights=None) -> torch.Tensor:
    return objective(StudentOutput(logits=student), DenseLogits(teacher), mask, weights)


@pytest.mark.parametrize(
    "name, values, expected",
    [
        ("forward-kl", {}, 0.58381),
        ("reverse-kl", {}, 0.53718),
        ("jensen-shannon", {}, 0.13292),
        ("jensen-shannon", {"beta": 0.1}, 0.05100),
        ("jensen-shannon", {"beta": 0.9}, 0.04786),
        ("skew-forward-kl", {}, 0.44689),
        ("skew-reverse-kl", {}, 0.42742),
        ("total-variation", {}, 0.5),
        ("symmetric-kl", {}, 0.1 * 0.58381 + 0.9 * 0.53718),
    ],
)
def test_values_of_the_survey(name, values, expected):
    assert loss(divergence(name, **values), logs(*P), logs(*Q)).item() == pytest.approx(expected, abs=6e-6)
    small = loss(divergence("jensen-shannon", beta=1e-4), logs(*P), logs(*Q)) / 1e-4
    assert small.item() == pytest.approx(0.5837, abs=5e-5)


def test_values_worked_by_hand():
    affinity = sum(math.sqrt(p * q) for p, q in zip(P, Q, strict=True))
    assert loss(AlphaDivergence(), logs(*P), logs(*Q)).item() == pytest.approx(4 * (1 - affinity), abs=1e-12)
    third = sum(p ** (1 / 3) * q ** (2 / 3) for p, q in zip(P, Q, strict=True))
    value = loss(AlphaDivergence(alpha=1 / 3), logs(*P), logs(*Q)).item()
    assert value == pytest.approx((third - 1) / (1 / 3 * -2 / 3), abs=1e-12)
    # the head is the first token alone: gaps 0.5 in it and 0.3 + 0.2 outside, so both directions weigh the same
    forward, reverse = loss(ForwardKL(), logs(*P), logs(*Q)), loss(ReverseKL(), logs(*P), logs(*Q))
    torch.testing.assert_close(loss(AdaptiveKL(), logs(*P), logs(*Q)), (forward + reverse) / 2)
    # a head of 0.8 takes the second token too: gaps 0.8 and 0.2
    torch.testing.assert_close(loss(AdaptiveKL(head=0.8), logs(*P), logs(*Q)), 0.8 * forward + 0.2 * reverse)


def gkd_reference(student: torch.Tensor, teacher: torch.Tensor, beta: float, temperature: float) -> torch.Tensor:
    """The generalised JSD of GKD's code as a formula, from kl_div of torch; mean over positions ("batchmean")."""
    log_q, log_p = (student / temperature).log_softmax(-1), (teacher / temperature).log_softmax(-1)
    if beta == 0:
        values = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    elif beta == 1:
        values = F.kl_div(log_p, log_q, reduction="none", log_target=True)
    else:
        log_m = (beta * log_p.exp() + (1 - beta) * log_q.exp()).log()
        to_p, to_q = (F.kl_div(log_m, x, reduction="none", log_target=True) for x in (log_p, log_q))
        values = beta * to_p + (1 - beta) * to_q
    return values.sum() / values[..., 0].numel()


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.73, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gkds_generalised_jsd_to_1e_6(beta, temperature, dtype):
    teacher, student = (3 * normal(4, 6, 50, seed=s).to(dtype) for s in (0, 1))
    mask = normal(4, 6, seed=2) > 0
    for chosen in (None, mask):
        p, q = (teacher, student) if chosen is None else (teacher[chosen], student[chosen])
        expected = gkd_reference(q, p, beta, temperature)
        value = loss(generalised_jsd(beta, temperature=temperature), teacher, student, chosen)
        assert abs(value - expected) <= 1e-6 * max(1, abs(expected))


def test_torchs_kl_in_both_directions_to_1e_6():
    teacher, student = (2 * normal(64, 500, seed=s).float() for s in (0, 1))
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    forward, reverse = (F.kl_div(b, a, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p)))
    assert abs(loss(ForwardKL(), teacher, student) - forward) <= 1e-6 * forward
    assert abs(loss(ReverseKL(), teacher, student) - reverse) <= 1e-6 * reverse


@given(SEEDS, st.floats(0.1, 15), st.sampled_from(NEW))
@settings(max_examples=50, deadline=None)
def test_they_are_positive_unless_the_distributions_are_equal(seed, scale, kind):
    teacher, student = scale * normal(1, 8, seed=seed), scale * normal(1, 8, seed=seed + 1)
    if (teacher.softmax(-1) - student.softmax(-1)).abs().max() > 1e-3:
        assert loss(kind(), teacher, student) > 1e-9
    assert loss(kind(), teacher, teacher + 5.0).abs() < 1e-9


@given(SEEDS, st.floats(0.02, 0.98))
@settings(max_examples=25, deadline=None)
def test_bounds_and_symmetries(seed, alpha):
    p, q = 4 * normal(3, 6, seed=seed), 4 * normal(3, 6, seed=seed + 1)
    total, forward = loss(TotalVariation(), p, q), loss(ForwardKL(), p, q)
    assert 0 <= total <= 1
    each = token_values(TotalVariation(), p, q) ** 2 * 2  # Pinsker, position by position
    assert (each <= token_values(ForwardKL(), p, q) + 1e-12).all() and forward >= 0
    torch.testing.assert_close(total, loss(TotalVariation(), q, p))
    torch.testing.assert_close(loss(AlphaDivergence(alpha=alpha), p, q), loss(AlphaDivergence(alpha=1 - alpha), q, p))
    assert loss(AlphaDivergence(alpha=alpha), p, q) <= 1 / (alpha * (1 - alpha))


def test_limits_are_the_plain_divergences():
    p, q = normal(3, 8, seed=0), normal(3, 8, seed=1)
    forward, reverse = loss(ForwardKL(), p, q), loss(ReverseKL(), p, q)
    torch.testing.assert_close(loss(AlphaDivergence(alpha=1 - 1e-6), p, q), forward, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(AlphaDivergence(alpha=1e-6), p, q), reverse, rtol=1e-4, atol=0)
    torch.testing.assert_close(loss(SymmetricKL(weight=0.0), p, q), forward)
    torch.testing.assert_close(loss(SymmetricKL(weight=1.0), p, q), reverse)


def test_the_adaptive_weight_follows_where_the_student_misses():
    """A student wrong in the head only is taught forwards, in the tail only backwards."""
    teacher = logs(0.4, 0.4, 0.1, 0.1)
    for student, objective in (
        (logs(0.6, 0.2, 0.1, 0.1), ForwardKL()),
        (logs(0.4, 0.4, 0.19, 0.01), ReverseKL()),
    ):
        torch.testing.assert_close(loss(AdaptiveKL(head=0.7), teacher, student), loss(objective, teacher, student))


@pytest.mark.parametrize("kind", NEW)
def test_gradients_chunks_and_masks(kind):
    teacher, student = 2 * normal(3, 4, 7, seed=0), 2 * normal(3, 4, 7, seed=1)
    mask = normal(3, 4, seed=2) > -0.3
    objective = kind(chunk_size=14)
    torch.testing.assert_close(loss(objective, teacher, student, mask), loss(kind(), teacher[mask], student[mask]))
    dirty = student.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    loss(objective, teacher, dirty, mask).backward()
    assert dirty.grad is not None and dirty.grad.isfinite().all() and not dirty.grad[~mask].any()
    if kind is not AdaptiveKL:  # its weight is held fixed
        leaf = student.requires_grad_()
        assert torch.autograd.gradcheck(lambda s: loss(objective, teacher, s, mask), leaf, fast_mode=True)


def test_the_adaptive_weight_has_no_gradient():
    teacher, student = 2 * normal(5, 7, seed=0), (2 * normal(5, 7, seed=1)).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(AdaptiveKL(), teacher, student), student)
    p, q = teacher.softmax(-1), student.detach().softmax(-1)
    weights = []
    for i in range(5):
        order = p[i].argsort(descending=True).tolist()
        head, reached = [], 0.0
        while reached < 0.5:
            head.append(order[len(head)])
            reached += p[i, head[-1]].item()
        gap = (p[i] - q[i]).abs()
        weights.append(gap[head].sum() / gap.sum())
    w = torch.stack(weights)
    forward, reverse = token_values(ForwardKL(), teacher, student), token_values(ReverseKL(), teacher, student)
    (expected,) = torch.autograd.grad((w * forward + (1 - w) * reverse).mean(), student)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("kind", NEW)
def test_tokens_ruled_out_by_the_teacher_give_finite_losses_and_gradients(kind):
    teacher = normal(5, 6, seed=0).masked_fill(torch.tensor([0, 1, 0, 0, 1, 0], dtype=torch.bool), -torch.inf)
    student = normal(5, 6, seed=1).requires_grad_()
    value = loss(kind(), teacher, student)
    value.backward()
    assert value.isfinite() and value > 0 and student.grad is not None and student.grad.isfinite().all()


def test_values_of_every_token_are_0_at_masked_ones_and_average_to_the_loss():
    teacher, student = normal(3, 4, 7, seed=0), normal(3, 4, 7, seed=1)
    mask = normal(3, 4, seed=2) > 0
    values = token_values(JensenShannon(), teacher, student.masked_fill(~mask[..., None], torch.nan), mask)
    assert values.shape == (3, 4) and not values[~mask].any() and (values[mask] > 0).all()
    torch.testing.assert_close(values.sum() / mask.sum(), loss(JensenShannon(), teacher, student, mask))
    with pytest.raises(DistillError, match=r"mask must have the elements' shape \[3, 4\], got \[3\]"):
        token_values(ForwardKL(), teacher, student, mask[:, 0])


def test_the_survey_s_mode_law():
    """One discretised normal fitted to two: forward directions cover both modes, the others take the bigger one."""
    grid = torch.linspace(-6, 6, 241, dtype=torch.float64)

    def density(mean, std):
        return torch.exp(-((grid - mean) ** 2) / (2 * std**2)) / std

    def floored(values):
        p = values / values.sum(-1, keepdim=True)
        p = p.clamp(min=1e-12)
        return (p / p.sum(-1, keepdim=True)).log()

    teacher = floored(0.6 * density(-2.0, 0.6) + 0.4 * density(2.5, 0.6))
    means, stds = torch.arange(-40, 41) / 10, torch.arange(3, 41) / 10
    candidates = torch.stack([floored(density(m, s)) for m in means for s in stds])
    expected = {"forward-kl": (-0.2, 2.4), "skew-forward-kl": (-0.2, 2.4)}
    for name in ("forward-kl", "skew-forward-kl", "reverse-kl", "jensen-shannon", "skew-reverse-kl"):
        best = divergence(name).between(teacher.expand_as(candidates), candidates).argmin().item()
        found = means[best // len(stds)].item(), stds[best % len(stds)].item()
        assert found == pytest.approx(expected.get(name, (-2.0, 0.6)), abs=1e-6), name


def test_unknown_names_and_settings_are_refused():
    with pytest.raises(DistillError, match="divergence must be forward-kl or .* or adaptive-kl, got 'kl'"):
        divergence("kl")
    with pytest.raises(DistillError, match="setting of jensen-shannon must be .*beta, got 'alpha'"):
        divergence("jensen-shannon", alpha=0.1)
    with pytest.raises(DistillError, match="beta must be from 0 to 1, got 1.5"):
        generalised_jsd(1.5)
    with pytest.raises(DistillError, match="weight must be from 0 to 1, got -1"):
        SymmetricKL(weight=-1)
    with pytest.raises(DistillError, match="alpha must lie between 0 and 1, got 1.0; at the ends"):
        AlphaDivergence(alpha=1.0)
    with pytest.raises(DistillError, match="head must lie between 0 and 1, got 0"):
        AdaptiveKL(head=0)
    for name in DIVERGENCES:
        with pytest.raises(DistillError, match=f"{DIVERGENCES[name].__name__} takes dense logits or .*, got text"):
            divergence(name)(StudentOutput(logits=torch.zeros(1, 3)), Text(("a",)))


# Squared error of probabilities


def test_squared_errors_are_those_of_torch_for_teachers_and_labels():
    teacher, student = 2 * normal(3, 4, 7, seed=0), 2 * normal(3, 4, 7, seed=1)
    expected = F.mse_loss(student.softmax(-1), teacher.softmax(-1))
    torch.testing.assert_close(loss(ProbabilityMSE(), teacher, student), expected)
    tokens = teacher.argmin(-1)
    value = ProbabilityMSE()(StudentOutput(logits=student), SampledLogProbs.labels(tokens))
    one_hot = F.one_hot(tokens, 7).double()
    torch.testing.assert_close(value, F.mse_loss(student.softmax(-1), one_hot))
    assert loss(ProbabilityMSE(), teacher, teacher + 3) < 1e-15


def test_squared_errors_have_right_gradients_masks_and_refusals():
    teacher, student, mask = normal(3, 4, 7, seed=0), normal(3, 4, 7, seed=1), normal(3, 4, seed=2) > 0
    labels = SampledLogProbs.labels(teacher.argmax(-1))
    for signal in (DenseLogits(teacher), labels):
        objective = ProbabilityMSE(chunk_size=14)
        assert torch.autograd.gradcheck(
            lambda s, g=signal, o=objective: o(StudentOutput(logits=s), g, mask),
            student.requires_grad_(),
            fast_mode=True,
        )
        nothing = torch.full((3, 4, 7), torch.nan, requires_grad=True)
        value = objective(StudentOutput(logits=nothing), signal, torch.zeros(3, 4, dtype=torch.bool))
        value.backward()
        assert value == 0 and nothing.grad is not None and not nothing.grad.any()
    with pytest.raises(DistillError, match="takes dense logits or sampled log-probabilities, got text"):
        ProbabilityMSE()(StudentOutput(logits=student), Text(("a",)))
    with pytest.raises(DistillError, match="token ids must lie in the student's vocabulary of 2"):
        ProbabilityMSE()(StudentOutput(logits=student[..., :2]), labels)
    with pytest.raises(DistillError, match="the student's vocabulary has 2 tokens, the teacher's 7"):
        loss(ProbabilityMSE(), teacher, student[..., :2])
