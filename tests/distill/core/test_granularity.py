"""Corrected samples, DAC-KL and span correlation, against slow references; masks, gradients, limits and refusals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput, WeightedSum
from distill.core.objectives.divergences import ForwardKL
from distill.core.objectives.granularity import (
    NO_ERROR,
    DistributionAdaptiveKL,
    SpanCorrelation,
    error_positions,
    fixed_spans,
    span_pairs,
)
from distill.core.signals import DenseLogits, Text

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(objective, teacher, student, mask=None, weights=None) -> torch.Tensor:
    return objective(StudentOutput(logits=student), DenseLogits(teacher), mask, weights)


def dac(head=4, **values) -> DistributionAdaptiveKL:
    objective = DistributionAdaptiveKL(head=head, hidden=6, **values)
    objective.learned().double()
    return objective


# Sequence level


@given(SEEDS)
@settings(max_examples=30, deadline=None)
def test_the_error_is_the_largest_kl_among_differing_tokens_of_the_answer(seed):
    kl, generator = normal(4, 6, seed=seed).abs(), torch.Generator().manual_seed(seed)
    ours, theirs = (torch.randint(2, (4, 6), generator=generator) for _ in range(2))
    mask = torch.rand(4, 6, generator=generator) > 0.4
    found = error_positions(kl.masked_fill(~mask, torch.nan), ours, theirs, mask).tolist()
    for b in range(4):
        wrong = [t for t in range(6) if mask[b, t] and ours[b, t] != theirs[b, t]]
        assert found[b] == (max(wrong, key=lambda t, b=b: kl[b, t]) if wrong else NO_ERROR)
    with pytest.raises(DistillError, match="must have one shape"):
        error_positions(kl, ours, theirs[:2], mask)


# DAC-KL


def by_hand(objective, teacher, student) -> torch.Tensor:
    """Position by position, in plain probabilities, with torch's own quantile."""
    values = []
    for z_t, z_s in zip(teacher, student, strict=True):
        p, q = z_t.softmax(-1), z_s.softmax(-1)
        with torch.no_grad():
            places = sorted(range(len(p)), key=lambda c: -p[c].item())[: objective.head]
            entropies = torch.stack([-(p * p.log()).sum(), -(q * q.log()).sum()])
            inputs = torch.cat([p[places], q[places], entropies])
        out = objective.learned()(inputs).sigmoid()
        upper, lower = out[0], out[0] * out[1]
        low, high = torch.quantile(p, lower), torch.quantile(p, upper)
        m = ((p - low) / objective.softness).sigmoid() * ((high - p) / objective.softness).sigmoid()
        best = p.argmax()
        if objective.target:
            rest = [c for c in range(len(p)) if c != best]
            pv, qv = (torch.cat([m[rest] * x[rest], x[best][None]]) for x in (p, q))
        else:
            pv, qv = m * p, m * q
        pv, qv = pv / pv.sum(), qv / qv.sum()
        values.append((pv * (pv / qv).log()).sum())
    return torch.stack(values).mean()


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("softness", [0.02, 0.3])
def test_dac_kl_is_the_formula_with_gradients_for_student_and_network(target, softness):
    objective = dac(target=target, softness=softness)
    with torch.no_grad():  # away from its start, so that positions differ
        for i, parameter in enumerate(objective.parameters()):
            parameter.add_(0.5 * normal(*parameter.shape, seed=i))
    teacher, student = 2 * normal(5, 7, seed=10), (2 * normal(5, 7, seed=11)).requires_grad_()
    inputs = [student, *objective.parameters()]
    value, expected = loss(objective, teacher, student), by_hand(objective, teacher, student)
    torch.testing.assert_close(value, expected)
    gradients = torch.autograd.grad(value, inputs)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, inputs))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


def test_dac_kl_passes_finite_differences_where_the_network_does_not_look_at_the_student():
    objective = dac(softness=0.2)
    first = next(iter(objective.parameters()))
    with torch.no_grad():
        first[:, 4:8] = 0  # the student's probabilities
        first[:, 9] = 0  # and entropy
    teacher, hidden, head = normal(5, 7, seed=0), normal(5, 3, seed=1), normal(7, 3, seed=2)

    def value(h, w, *_):
        return objective(StudentOutput(hidden=(h,), lm_head=w), DenseLogits(teacher))

    inputs = (hidden.requires_grad_(), head.requires_grad_(), *objective.parameters())
    assert torch.autograd.gradcheck(value, inputs, fast_mode=True)


@pytest.mark.parametrize("top_p", [0.3, 0.95, 1.0])
def test_the_fixed_mask_takes_the_likeliest_tokens_up_to_top_p_and_learns_nothing(top_p):
    teacher, student = 2 * normal(5, 7, seed=0), 2 * normal(5, 7, seed=1)
    objective = DistributionAdaptiveKL(top_p=top_p)
    expected, masses = [], []
    for p, q in zip(teacher.softmax(-1), student.softmax(-1), strict=True):
        chosen, reached = [], 0.0
        for c in p.argsort(descending=True).tolist():
            if reached < top_p:
                chosen.append(c)
                reached += p[c].item()
        pv, qv = p[chosen] / p[chosen].sum(), q[chosen] / q[chosen].sum()
        expected.append((pv * (pv / qv).log()).sum())
        masses.append(p[chosen].sum())
    torch.testing.assert_close(loss(objective, teacher, student), torch.stack(expected).mean())
    kept = objective.kept_mass(StudentOutput(logits=student), DenseLogits(teacher))
    assert kept == pytest.approx(torch.stack(masses).mean().item()) and not list(objective.parameters())
    if top_p == 1.0:
        torch.testing.assert_close(loss(objective, teacher, student), loss(ForwardKL(), teacher, student))


@given(SEEDS, st.floats(0.01, 1), st.booleans())
@settings(max_examples=30, deadline=None)
def test_dac_kl_is_never_negative_and_0_at_equality_and_keeps_a_share(seed, softness, target):
    objective = dac(softness=softness, target=target)
    teacher, student = 3 * normal(4, 8, seed=seed), 3 * normal(4, 8, seed=seed + 1)
    assert loss(objective, teacher, student) >= -1e-12
    assert loss(objective, teacher, teacher + 3).abs() < 1e-12
    kept = objective.kept_mass(StudentOutput(logits=student), DenseLogits(teacher))
    assert 0 < kept <= 1
    if target:
        assert kept >= teacher.softmax(-1).amax(-1).mean().item() - 1e-12


def test_a_wide_softness_is_the_plain_kl():
    teacher, student = normal(4, 8, seed=0), normal(4, 8, seed=1)
    plain = loss(ForwardKL(), teacher, student)
    torch.testing.assert_close(loss(dac(softness=1e6, target=False), teacher, student), plain, rtol=1e-4, atol=0)


def test_equal_seeds_make_equal_networks():
    a, b, c = (torch.cat([p.flatten() for p in dac(seed=s).parameters()]) for s in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_a_sum_hands_the_network_to_the_optimiser():
    objective = dac()
    both = WeightedSum({"dac": (1.0, objective), "kl": (1.0, ForwardKL())})
    assert len(list(both.parameters())) == len(list(objective.parameters())) == 4


# Spans

SPANS = torch.tensor([[0, 0, 1, 1, 1, -1], [-1, -1, 3, 3, 4, 4]])


def test_pairs_lie_inside_one_span_and_never_at_the_end():
    expected = torch.tensor([[1, 0, 1, 1, 0, 0], [0, 0, 1, 0, 1, 0]], dtype=torch.bool)
    assert torch.equal(span_pairs(SPANS), expected)
    mask = torch.ones_like(expected)
    mask[0, 3] = False
    expected[0, 2:4] = False
    assert torch.equal(span_pairs(SPANS, mask), expected)


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("squared", [False, True])
def test_span_correlation_is_the_slow_mean_over_pairs(normalised, squared):
    teacher, student = 2 * normal(2, 6, 5, seed=0), 2 * normal(2, 6, 5, seed=1)
    objective = SpanCorrelation(normalised=normalised, squared=squared)
    pairs, values = span_pairs(SPANS), []
    for b, i in pairs.nonzero().tolist():
        r = [z[b, i].softmax(-1) * z[b, i + 1].softmax(-1) for z in (teacher, student)]
        if normalised:
            r = [x / x.sum() for x in r]
        distance = (r[0] - r[1]).square().sum()
        values.append(distance if squared else distance.sqrt())
    torch.testing.assert_close(loss(objective, teacher, student, pairs), torch.stack(values).mean())
    assert loss(objective, teacher, teacher + 2, pairs) < 1e-12
    leaf = student.requires_grad_()
    small = SpanCorrelation(normalised=normalised, squared=squared, chunk_size=20)  # two pairs a chunk
    assert torch.autograd.gradcheck(lambda s: loss(small, teacher, s, pairs), leaf, fast_mode=True)
    torch.testing.assert_close(loss(small, teacher, student, pairs), loss(objective, teacher, student, pairs))


def test_at_equality_the_gradient_of_the_norm_is_0_and_not_nan():
    teacher = normal(1, 3, 5, seed=0)
    student = teacher.clone().requires_grad_()
    loss(SpanCorrelation(), teacher, student, span_pairs(torch.zeros(1, 3, dtype=torch.int64))).backward()
    assert student.grad is not None and student.grad.isfinite().all()


def test_fixed_spans_have_one_length_and_random_starts():
    spans = fixed_spans((50, 12), 4, seed=0)
    assert torch.equal(spans, fixed_spans((50, 12), 4, seed=0))
    assert len({tuple(row.tolist()) for row in spans}) == 4
    inner = [row.bincount()[1:-1] for row in spans]
    assert all((counts == 4).all() for counts in inner)


# Both


@pytest.mark.parametrize("objective", [dac(), dac(top_p=0.9), SpanCorrelation()], ids=["dac", "fixed", "span"])
def test_masks_weights_chunks_and_nothing_that_counts(objective):
    teacher, student = 2 * normal(2, 6, 7, seed=0), 2 * normal(2, 6, 7, seed=1)
    mask = span_pairs(SPANS)
    seen = mask | mask.roll(1, -1) if isinstance(objective, SpanCorrelation) else mask
    dirty = student.masked_fill(~seen[..., None], torch.nan).requires_grad_()
    value = loss(objective, teacher, dirty, mask)
    value.backward()
    torch.testing.assert_close(value.detach(), loss(objective, teacher, student, mask))
    assert dirty.grad is not None and dirty.grad.isfinite().all() and not dirty.grad[~seen].any()
    assert dirty.grad[seen].abs().max() > 0
    weights = normal(2, 6, seed=3).abs() + 0.1
    singles = [
        loss(objective, teacher, student, mask, torch.eye(12)[6 * b + t].reshape(2, 6))
        for b, t in mask.nonzero().tolist()
    ]
    expected = (torch.stack(singles) * weights[mask]).sum() / weights[mask].sum()
    torch.testing.assert_close(loss(objective, teacher, student, mask, weights), expected)
    nothing = torch.full_like(student, torch.nan).requires_grad_()
    empty = loss(objective, teacher, nothing, torch.zeros(2, 6, dtype=torch.bool))
    empty.backward()
    assert empty == 0 and nothing.grad is not None and not nothing.grad.any()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: DistributionAdaptiveKL(softness=0), "softness must be above 0, got 0"),
        (lambda: DistributionAdaptiveKL(head=0), "head and hidden must be at least 1"),
        (lambda: DistributionAdaptiveKL(top_p=1.5), "top_p must be above 0 and at most 1, got 1.5"),
        (lambda: loss(dac(head=9), torch.zeros(2, 4), torch.zeros(2, 4)), "head of 9 tokens .* vocabulary .* got 4"),
        (lambda: loss(dac(), torch.zeros(2, 5), torch.zeros(2, 4)), "vocabulary has 4 tokens, the teacher's 5"),
        (lambda: loss(SpanCorrelation(), torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)), "take span_pairs as the mask"),
        (lambda: loss(SpanCorrelation(), torch.zeros(4), torch.zeros(4)), r"needs sequences, logits .* \[..., T, V\]"),
        (lambda: dac()(StudentOutput(logits=torch.zeros(1, 4)), Text(("a",))), "takes dense logits, got text"),
        (lambda: SpanCorrelation()(StudentOutput(logits=torch.zeros(1, 4)), Text(("a",))), "takes dense logits"),
        (lambda: fixed_spans((2, 3), 0, 0), "length of at least 1, got 0"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(DistillError, match=words):
        call()


@pytest.mark.parametrize("make", [lambda n: dac(chunk_size=n), lambda n: SpanCorrelation(chunk_size=n)])
def test_what_is_kept_for_the_backward_pass_does_not_grow_with_the_vocabulary(make):
    hidden, head = normal(1, 64, 3, seed=0).requires_grad_(), normal(100, 3, seed=1).requires_grad_()
    signal, pairs = DenseLogits(normal(1, 64, 100, seed=2)), span_pairs(torch.zeros(1, 64, dtype=torch.int64))
    held: list[torch.Tensor] = []

    def hold(tensor: torch.Tensor) -> torch.Tensor:
        held.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(hold, lambda tensor: tensor):
        value = make(800)(StudentOutput(hidden=(hidden,), lm_head=head), signal, pairs)
    assert sum(tensor.numel() for tensor in held) < 64 * 10
    gradients = torch.autograd.grad(value, (hidden, head))
    whole = make(2**24)(StudentOutput(hidden=(hidden,), lm_head=head), signal, pairs)
    torch.testing.assert_close(gradients, torch.autograd.grad(whole, (hidden, head)))
