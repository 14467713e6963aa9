"""Scores of sequences and choices by them, against slow sums, sorts and the figures of the papers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL
from distill.core.objectives.scores import (
    difference_scores,
    hard_negatives,
    matched_steps,
    sequence_log_probs,
    sequence_sums,
    top_fraction,
)
from distill.core.signals import DenseLogits

torch.set_num_threads(1)


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_log_probabilities_are_summed_over_the_tokens_that_count():
    logits, tokens = normal(3, 5, 7, seed=0), torch.arange(15).reshape(3, 5) % 7
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    dirty = logits.masked_fill(~mask[..., None], torch.nan)
    totals, counts = sequence_log_probs(StudentOutput(logits=dirty), tokens, mask)
    expected = [
        sum(logits[b, t].log_softmax(-1)[tokens[b, t]].item() for t in range(5) if mask[b, t]) for b in range(3)
    ]
    assert totals.tolist() == pytest.approx(expected, abs=1e-12) and counts.tolist() == [5, 2, 0]
    hidden, head = normal(3, 5, 4, seed=1), normal(7, 4, seed=2)
    through, _ = sequence_log_probs(StudentOutput(hidden=(hidden,), lm_head=head), tokens, mask)
    torch.testing.assert_close(through, sequence_log_probs(StudentOutput(logits=hidden @ head.T), tokens, mask)[0])


def test_token_kls_add_up_along_sequences():
    teacher, student = normal(3, 5, 7, seed=0), normal(3, 5, 7, seed=1).requires_grad_()
    totals, counts = sequence_sums(ForwardKL(), StudentOutput(logits=student), DenseLogits(teacher))
    p, q = teacher.log_softmax(-1), student.log_softmax(-1)
    torch.testing.assert_close(totals, (p.exp() * (p - q)).sum((1, 2)).detach())
    assert counts.tolist() == [5, 5, 5] and not totals.requires_grad
    with pytest.raises(DistillError, match=r"shape \[B, T\], got \[5\]"):
        sequence_sums(ForwardKL(), StudentOutput(logits=student[0]), DenseLogits(teacher[0]))


def test_the_score_is_a_difference_and_equals_that_of_mean_losses_at_equal_length():
    teacher, reference = np.array([-10.0, -40.0, -20.0]), np.array([-30.0, -41.0, -12.0])
    assert difference_scores(teacher, reference).tolist() == [20.0, 1.0, -8.0]
    lengths = np.array([10, 10, 10])
    losses = -reference / 10 - -teacher / 10
    np.testing.assert_allclose(difference_scores(teacher, reference, lengths), losses)
    assert difference_scores(teacher, reference, np.array([20, 1, 8])).tolist() == [1.0, 1.0, -1.0]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.floats(0.01, 1), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_kept_are_the_highest_in_corpus_order_without_the_excluded(scores, keep, seed):
    values = np.array(scores, float)
    exclude = np.random.default_rng(seed).random(len(values)) < 0.3
    if exclude.all():
        exclude[0] = False
    dirty = np.where(exclude, np.nan, values)  # never read
    kept = top_fraction(dirty, keep, exclude)
    free = [i for i in range(len(values)) if not exclude[i]]
    slow = sorted(sorted(free, key=lambda i: (-values[i], i))[: math.floor(keep * len(free) + 0.5)])
    assert kept.tolist() == slow
    if keep == 1:
        assert kept.tolist() == free
    rest = sorted(set(free) - set(kept.tolist()))
    assert not len(kept) or not rest or values[kept].min() >= values[rest].max()


def test_steps_for_equal_compute_are_those_of_the_paper():
    """25K, 45K and 65K of 100K steps for students of 200M, 500M and 1.2B under a teacher of 1.8B, rounded."""
    steps = [matched_steps(100_000, size, 1.8e9) for size in (2e8, 5e8, 1.2e9)]
    assert [round(s / 5000) * 5 for s in steps] == [25, 45, 65]
    assert matched_steps(100, 1, 2, "minillm") == round(300 / 8)


def test_hard_negatives_are_confident_mistakes_in_order():
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.4, 0.6], [0.95, 0.05], [0.3, 0.7]])
    labels = np.array([1, 0, 1, 0, 0])
    assert hard_negatives(probabilities, labels, 2).tolist() == [0, 1]
    assert hard_negatives(probabilities, labels, 9).tolist() == [0, 1, 4]
    assert hard_negatives(probabilities, labels, 0).tolist() == []


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: difference_scores(np.zeros(3), np.zeros(2)), "3 scores of the teacher and 2 of the reference"),
        (lambda: difference_scores(np.array([np.nan]), np.zeros(1)), "must be finite, but 1 are not"),
        (lambda: difference_scores(np.zeros(2), np.zeros(2), np.array([0, 1])), "length above 0"),
        (lambda: top_fraction(np.zeros(3), 0.0), "share to keep must be above 0 and at most 1, got 0.0"),
        (lambda: top_fraction(np.array([0.0, np.inf]), 0.5), "scores must be finite, but 1 are not"),
        (lambda: top_fraction(np.zeros(2), 0.5, np.ones(2, bool)), "every sequence is excluded"),
        (lambda: top_fraction(np.zeros(2), 0.5, np.ones(2)), "exclude must be 2 booleans, got float64"),
        (lambda: matched_steps(10, 1, 1, "sft"), "method must be kd or minillm, got 'sft'"),
        (lambda: matched_steps(0, 1, 1), "steps and sizes must be above 0"),
        (lambda: hard_negatives(np.zeros((2, 3)), np.zeros(3), 1), r"do not fit: \[2, 3\], \[3\]"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(DistillError, match=words):
        call()
