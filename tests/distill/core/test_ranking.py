"""Preference losses against slow sums, their limits and their gradients."""

import itertools
import math

import pytest
import torch

from distill.core.errors import DistillError
from distill.core.objectives.ranking import dpo_loss, pro_loss, reward_loss, rrhf_loss

torch.set_num_threads(1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_reward_and_dpo_losses_are_logistic_in_the_margin():
    a, b, c, d = (3 * normal(6, seed=s) for s in range(4))
    slow = [math.log1p(math.exp(-(x - y))) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    assert reward_loss(a, b).item() == pytest.approx(sum(slow) / 6)
    torch.testing.assert_close(dpo_loss(a, b, c, d, beta=0.3), reward_loss(0.3 * (a - c), 0.3 * (b - d)))
    torch.testing.assert_close(dpo_loss(a, b, a, b), torch.tensor(math.log(2), dtype=torch.float64))


def test_rrhf_sums_what_worse_answers_are_likelier_than_better_ones():
    p, r = normal(3, 4, seed=0), torch.tensor([[1.0, 2, 3, 4], [4, 3, 3, 1], [2, 2, 2, 2]])
    slow = [
        sum(max(0.0, (p[b, i] - p[b, j]).item()) for i, j in itertools.permutations(range(4), 2) if r[b, i] < r[b, j])
        for b in range(3)
    ]
    assert rrhf_loss(p, r).item() == pytest.approx(sum(slow) / 3) and slow[2] == 0


def test_pro_is_the_likelihood_of_the_order_and_sums_to_1_over_all_orders():
    p = normal(1, 4, seed=0)
    slow = -sum(math.log(math.exp(p[0, k]) / sum(math.exp(x) for x in p[0, k:].tolist())) for k in range(4))
    assert pro_loss(p).item() == pytest.approx(slow)
    total = sum(math.exp(-pro_loss(p[:, list(order)]).item()) for order in itertools.permutations(range(4)))
    assert total == pytest.approx(1)
    torch.testing.assert_close(pro_loss(p[:, :2]), reward_loss(p[:, 0], p[:, 1]))


def test_gradients_are_those_of_finite_differences():
    a, b = normal(5, seed=0).requires_grad_(), normal(5, seed=1).requires_grad_()
    reference = normal(5, seed=2)
    assert torch.autograd.gradcheck(lambda x, y: dpo_loss(x, y, reference, reference), (a, b))
    p, r = normal(3, 4, seed=3).requires_grad_(), normal(3, 4, seed=4)
    assert torch.autograd.gradcheck(lambda x: rrhf_loss(x, r) + pro_loss(x), p)


@pytest.mark.parametrize(
    "call",
    [
        lambda: reward_loss(torch.zeros(2), torch.zeros(3)),
        lambda: rrhf_loss(torch.zeros(2), torch.zeros(2)),
        lambda: pro_loss(torch.zeros(0, 3)),
    ],
)
def test_what_does_not_fit_is_refused(call):
    with pytest.raises(DistillError, match="a ranking needs values of one shape"):
        call()
    with pytest.raises(DistillError, match="beta must be above 0, got 0"):
        dpo_loss(*[torch.zeros(2)] * 4, beta=0)
