"""FIRST: trustworthy maximisation by hand, its matching with and without a bucket, smoothing, and the search for c."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import TopKKL
from distill.core.objectives.topk import TopKCrossEntropy, kept_mass, smoothed, trustworthy, two_pass_search
from distill.core.signals import DenseLogits, TopKLogits

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head(*probabilities: float, tail: float = 0.0) -> TopKLogits:
    log_probs = torch.tensor(probabilities, dtype=torch.float64).log()[None]
    return TopKLogits(
        log_probs, torch.arange(len(probabilities))[None], torch.tensor([tail], dtype=torch.float64).log()
    )


def test_the_five_probabilities_are_divided_by_the_scale():
    p = (0.6, 0.2, 0.1, 0.05, 0.03)
    scaled = trustworthy(head(*p, tail=0.02), 0.4)
    terms = [math.exp(x / 0.4) for x in p]
    assert scaled.log_probs.exp()[0].tolist() == pytest.approx([x / sum(terms) for x in terms], abs=1e-12)
    assert scaled.tail.item() == -math.inf and torch.equal(scaled.indices, head(*p, tail=0.02).indices)


@given(SEEDS, st.integers(2, 6), st.floats(0.02, 1), st.floats(1.01, 5))
@settings(max_examples=30, deadline=None)
def test_a_larger_scale_is_a_flatter_head_in_the_same_order(seed, k, scale, factor):
    signal = TopKLogits.from_logits(3 * normal(4, 9, seed=seed), k)
    sharp, flat = trustworthy(signal, scale).log_probs, trustworthy(signal, factor * scale).log_probs
    assert ((sharp.exp() * sharp).sum(-1) >= (flat.exp() * flat).sum(-1) - 1e-9).all()  # entropy
    assert (sharp.diff(dim=-1) <= 1e-12).all()
    uniform = trustworthy(signal, 1e6).log_probs
    torch.testing.assert_close(uniform, torch.full_like(uniform, -math.log(k)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("tail", ["bucket", "drop"])
def test_the_cross_entropy_is_the_slow_sum_over_head_and_rest(tail):
    teacher, student = 2 * normal(5, 9, seed=0), (2 * normal(5, 9, seed=1)).requires_grad_()
    signal = TopKLogits.from_logits(teacher, 3)
    expected = []
    for i in range(5):
        p, q = teacher[i].softmax(-1), student[i].softmax(-1)
        ids = signal.indices[i].tolist()
        ps, qs = [p[j] for j in ids], [q[j] for j in ids]
        if tail == "bucket":
            ps, qs = [*ps, 1 - sum(ps)], [*qs, 1 - sum(qs)]
        ps, qs = [x / sum(ps) for x in ps], [x / sum(qs) for x in qs]
        expected.append(-sum(x * y.log() for x, y in zip(ps, qs, strict=True)))
    value = TopKCrossEntropy(tail=tail)(StudentOutput(logits=student), signal)
    torch.testing.assert_close(value, torch.stack(expected).mean())
    kl = TopKKL(tail=tail)(StudentOutput(logits=student), signal)
    (a,), (b,) = torch.autograd.grad(value, student), torch.autograd.grad(kl, student)
    torch.testing.assert_close(a, b)
    leaf = student.detach().requires_grad_()
    objective = TopKCrossEntropy(tail=tail, chunk_size=18)
    assert torch.autograd.gradcheck(lambda s: objective(StudentOutput(logits=s), signal), leaf, fast_mode=True)


def test_first_with_a_bucket_is_minus_log_q_of_the_head_more_than_without():
    """With a target of 0 for the rest, KL of the buckets = KL of the heads - log(student's head mass)."""
    teacher, student = 2 * normal(6, 9, seed=0), 2 * normal(6, 9, seed=1)
    signal = trustworthy(TopKLogits.from_logits(teacher, 5), 0.4)
    output = StudentOutput(logits=student)
    mass = student.softmax(-1).gather(-1, signal.indices).sum(-1)
    expected = TopKKL(tail="drop")(output, signal) - mass.log().mean()
    torch.testing.assert_close(TopKKL()(output, signal), expected)


def test_masks_and_nothing_that_counts():
    signal = trustworthy(TopKLogits.from_logits(normal(2, 3, 7, seed=0), 4), 0.4)
    student = torch.full((2, 3, 7), torch.nan, requires_grad=True)
    value = TopKCrossEntropy()(StudentOutput(logits=student), signal, torch.zeros(2, 3, dtype=torch.bool))
    value.backward()
    assert value == 0 and student.grad is not None and not student.grad.any()
    with pytest.raises(DistillError, match="TopKCrossEntropy takes top-k logits, got dense logits"):
        TopKCrossEntropy()(StudentOutput(logits=student), DenseLogits(normal(2, 3, 7, seed=0)))


def test_smoothing_moves_a_share_of_the_first_to_the_others():
    made = smoothed(head(0.7, 0.1, 0.08, 0.06, 0.04, tail=0.02), 0.1)
    assert made.log_probs.exp()[0].tolist() == pytest.approx([0.63, 0.1175, 0.0975, 0.0775, 0.0575], abs=1e-12)
    assert made.tail.exp().item() == pytest.approx(0.02) and kept_mass(made).item() == pytest.approx(0.98)


def test_the_search_finds_the_minimum_to_two_hundredths_in_two_passes():
    asked: list[float] = []

    def measure(scale: float) -> float:
        asked.append(scale)
        return abs(scale - 0.463)

    assert two_pass_search(measure) == 0.46
    assert asked[:10] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0] and len(asked) == len(set(asked)) == 18
    assert two_pass_search(lambda scale: scale) == 0.02 and two_pass_search(lambda scale: -scale) == 1.0
    assert two_pass_search(lambda scale: math.nan if scale < 0.5 else scale) == 0.5
    with pytest.raises(DistillError, match="no scale has a finite calibration error"):
        two_pass_search(lambda _: math.nan)


def test_impossible_settings_are_refused():
    with pytest.raises(DistillError, match="scale must be above 0, got 0"):
        trustworthy(head(0.5, 0.5), 0)
    with pytest.raises(DistillError, match="among 2 tokens or more, got 0.1 among 1"):
        smoothed(head(0.5, tail=0.5))
    with pytest.raises(DistillError, match="a cross-entropy has the direction forward, got 'reverse'"):
        TopKCrossEntropy(direction="reverse")
