"""SinKD: the public formula in direct form, its checked properties, small epsilon, groups, classes and weights."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL
from distill.core.objectives.f_divergences import TotalVariation
from distill.core.objectives.sinkhorn import SinkhornDistance, transport_plan
from distill.core.signals import DenseLogits, Text

torch.set_num_threads(1)

SEEDS = st.integers(0, 2**31)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def loss(objective, teacher, student, mask=None, weights=None) -> torch.Tensor:
    return objective(StudentOutput(logits=student), DenseLogits(teacher), mask, weights)


def direct(student, teacher, temperature=2.0, epsilon=0.1, iterations=20) -> torch.Tensor:
    """Loops and plain exponentials: the summed loss."""
    p, q = (student / temperature).softmax(-1), (teacher / temperature).softmax(-1)
    n = len(p)
    costs = torch.stack([torch.stack([(p[i] - q[j]).abs().sum() for j in range(n)]) for i in range(n)])
    plan = torch.exp(-costs / epsilon)
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    return (plan * costs).sum()


@given(SEEDS, st.integers(1, 7), st.integers(2, 6), st.sampled_from([0.1, 0.3, 1.0]), st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_n_times_the_loss_is_the_direct_form_and_so_is_its_gradient(seed, n, classes, epsilon, iterations):
    teacher, student = 2 * normal(n, classes, seed=seed), 2 * normal(n, classes, seed=seed + 1)
    values, gradients = [], []
    objective = SinkhornDistance(epsilon=epsilon, iterations=iterations)
    for f in (lambda s: n * loss(objective, teacher, s), lambda s: direct(s, teacher, 2.0, epsilon, iterations)):
        leaf = student.clone().requires_grad_()
        value = f(leaf)
        value.backward()
        values.append(value.detach())
        gradients.append(leaf.grad)
    torch.testing.assert_close(*values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*gradients, rtol=1e-8, atol=1e-11)


def test_the_plan_sums_to_n_and_its_columns_to_1():
    plan = transport_plan(2 * normal(3, 6, 6, seed=0).abs(), 0.3, 50)
    torch.testing.assert_close(plan.sum(-2), torch.ones(3, 6, dtype=torch.float64))
    torch.testing.assert_close(plan.sum(-1), torch.ones(3, 6, dtype=torch.float64), atol=1e-3, rtol=0)


@pytest.mark.parametrize("epsilon", [1e-2, 1e-4, 1e-8])
def test_small_epsilons_are_finite_in_float32_where_the_direct_form_is_not(epsilon):
    """For epsilon -> 0 the plan is the best matching of the samples."""
    student = 6 * normal(5, 5, seed=0).float()
    order = torch.tensor([3, 0, 4, 1, 2])
    teacher = student[order] + 0.01 * normal(5, 5, seed=1).float()
    leaf = student.clone().requires_grad_()
    value = loss(SinkhornDistance(epsilon=epsilon), teacher, leaf)
    value.backward()
    matched = loss(SinkhornDistance(group=1), teacher[order.argsort()], student)
    torch.testing.assert_close(value.detach(), matched, rtol=1e-4, atol=1e-6)
    assert leaf.grad is not None and leaf.grad.isfinite().all()
    if epsilon < 1e-6:
        assert not direct(student, teacher, epsilon=epsilon).isfinite()


@given(SEEDS, st.integers(2, 8))
@settings(max_examples=20, deadline=None)
def test_one_sample_costs_twice_the_total_variation(seed, classes):
    teacher, student = normal(1, classes, seed=seed), normal(1, classes, seed=seed + 1)
    twice = 2 * loss(TotalVariation(temperature=2.0), teacher, student)
    torch.testing.assert_close(loss(SinkhornDistance(), teacher, student), twice)


def test_the_sample_wise_variant_is_the_mean_of_single_samples():
    teacher, student = normal(7, 4, seed=0), normal(7, 4, seed=1)
    singles = [loss(SinkhornDistance(), teacher[i : i + 1], student[i : i + 1]) for i in range(7)]
    value = loss(SinkhornDistance(group=1), teacher, student)
    torch.testing.assert_close(value, torch.stack(singles).mean())
    torch.testing.assert_close(value, 2 * loss(TotalVariation(temperature=2.0), teacher, student))


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_shuffled_students_cost_the_same(seed):
    teacher, student = 3 * normal(16, 10, seed=seed), 3 * normal(16, 10, seed=seed + 1)
    shuffled = student[torch.randperm(16, generator=torch.Generator().manual_seed(seed))]
    torch.testing.assert_close(
        loss(SinkhornDistance(), teacher, student), loss(SinkhornDistance(), teacher, shuffled), rtol=1e-7, atol=1e-9
    )


def test_the_kl_explodes_where_the_distance_sees_no_shuffling():
    teacher = 3 * normal(16, 10, seed=0)
    student = teacher + 0.05 * normal(16, 10, seed=1)
    shuffled = student.roll(1, 0)
    torch.testing.assert_close(
        loss(SinkhornDistance(), teacher, student), loss(SinkhornDistance(), teacher, shuffled), rtol=1e-6, atol=1e-9
    )
    assert loss(ForwardKL(), teacher, shuffled) > 100 * loss(ForwardKL(), teacher, student)


def test_at_equality_it_is_above_0_for_few_classes_and_0_for_many():
    """0.060 for two classes, 0.037 for three, 0.001 for ten were published for N = 16, of other random logits."""
    values = []
    for classes in (2, 3, 10, 1000):
        draws = [normal(16, classes, seed=seed) * 3 for seed in range(20)]
        values.append(torch.stack([loss(SinkhornDistance(), x, x) for x in draws]).mean().item())
    assert values[0] > values[1] > values[2] > values[3] and values[0] == pytest.approx(0.06, abs=0.03)
    assert values[2] < 0.01 and values[3] < 5e-4  # "0" to the three decimals given


def test_for_many_classes_it_degenerates_to_the_sample_wise_distance():
    teacher = 3 * normal(16, 1000, seed=0)
    student = teacher + 0.1 * normal(16, 1000, seed=1)
    batch, single = (loss(SinkhornDistance(group=g), teacher, student) for g in (None, 1))
    torch.testing.assert_close(batch, single, rtol=1e-3, atol=0)


def test_disjoint_supports_cost_2():
    teacher, student = torch.tensor([[9e3, 0.0]] * 3), torch.tensor([[0.0, 9e3]] * 3)
    assert loss(SinkhornDistance(), teacher, student) == pytest.approx(2.0)


def test_groups_are_batches_of_their_own_and_the_last_may_be_smaller():
    teacher, student = normal(7, 3, seed=0), normal(7, 3, seed=1)
    parts = [3 * loss(SinkhornDistance(), teacher[a:b], student[a:b]) for a, b in ((0, 3), (3, 6))]
    last = loss(SinkhornDistance(), teacher[6:], student[6:])
    torch.testing.assert_close(loss(SinkhornDistance(group=3), teacher, student), (sum(parts) + last) / 7)


def test_chosen_classes_are_normalised_over_themselves():
    teacher, student = normal(5, 9, seed=0), normal(5, 9, seed=1)
    some = loss(SinkhornDistance(classes=(7, 2)), teacher, student)
    torch.testing.assert_close(some, loss(SinkhornDistance(), teacher[:, [7, 2]], student[:, [7, 2]]))


def test_a_mask_makes_the_batch_and_weights_weigh_rows():
    teacher, student = normal(3, 4, 5, seed=0), normal(3, 4, 5, seed=1)
    mask = normal(3, 4, seed=2) > -0.3
    dirty = student.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    value = loss(SinkhornDistance(), teacher, dirty, mask)
    torch.testing.assert_close(value, loss(SinkhornDistance(), teacher[mask], student[mask]))
    value.backward()
    assert dirty.grad is not None and dirty.grad[mask].isfinite().all() and not dirty.grad[~mask].any()
    weights = normal(12, seed=3).abs() + 0.1
    flat = teacher.flatten(0, 1), student.flatten(0, 1)
    rows = SinkhornDistance().token_losses(flat[1], DenseLogits(flat[0]))
    expected = (rows * weights).sum() / weights.sum()
    torch.testing.assert_close(loss(SinkhornDistance(), *flat, None, weights), expected)


def test_where_nothing_counts_the_loss_is_0_with_gradients_of_0():
    for group in (None, 1, 3):
        student = torch.full((2, 3, 4), torch.nan, requires_grad=True)
        value = loss(SinkhornDistance(group=group), torch.zeros(2, 3, 4), student, torch.zeros(2, 3, dtype=torch.bool))
        value.backward()
        assert value == 0 and student.grad is not None and not student.grad.any()


@pytest.mark.parametrize("group", [None, 1, 3])
def test_gradients_are_those_of_finite_differences_also_through_a_head(group):
    teacher, hidden, head = normal(5, 4, seed=0), normal(5, 3, seed=1), normal(4, 3, seed=2)

    def value(h, w):
        return SinkhornDistance(group=group)(StudentOutput(hidden=(h,), lm_head=w), DenseLogits(teacher))

    assert torch.autograd.gradcheck(value, (hidden.requires_grad_(), head.requires_grad_()))
    torch.testing.assert_close(value(hidden, head), loss(SinkhornDistance(group=group), teacher, hidden @ head.T))


def test_the_gradient_passes_through_the_plan_too():
    teacher, student = normal(5, 3, seed=0), normal(5, 3, seed=1).requires_grad_()
    (through,) = torch.autograd.grad(5 * loss(SinkhornDistance(), teacher, student), student)
    costs = torch.cdist((student / 2).softmax(-1), (teacher / 2).softmax(-1), p=1)
    (fixed,) = torch.autograd.grad((transport_plan(costs, 0.1, 20).detach() * costs).sum(), student)
    assert (through - fixed).abs().max() > 1e-3


@pytest.mark.parametrize(
    "values, words",
    [
        ({"epsilon": 0.0}, "epsilon must be above 0, got 0.0"),
        ({"temperature": -1.0}, "temperature must be above 0"),
        ({"iterations": 0}, "iterations must be at least 1, got 0"),
        ({"group": 0}, "group must be at least 1, got 0"),
        ({"classes": (1, 1)}, r"classes must be different token ids, got \[1, 1\]"),
        ({"classes": ()}, "classes must be different token ids"),
    ],
)
def test_impossible_settings_are_refused(values, words):
    with pytest.raises(DistillError, match=words):
        SinkhornDistance(**values)


def test_signals_that_do_not_fit_are_refused():
    with pytest.raises(DistillError, match="SinkhornDistance takes dense logits, got text"):
        SinkhornDistance()(StudentOutput(logits=torch.zeros(2, 3)), Text(("a", "b")))
    with pytest.raises(DistillError, match="the student's vocabulary has 4 tokens, the teacher's 3"):
        loss(SinkhornDistance(), torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(DistillError, match=r"classes must lie in the vocabulary of 3, got \[3\]"):
        loss(SinkhornDistance(classes=(3,)), torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(DistillError, match="needs the student's logits"):
        SinkhornDistance()(StudentOutput(), DenseLogits(torch.zeros(2, 3)))
