"""Divergences over a teacher's K tokens and one bucket: the whole one where K is everything, never more than it."""

import pytest
import torch

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.buckets import Bucketed, bucketed
from distill.core.objectives.divergences import CrossEntropy, ForwardKL, JensenShannon, ReverseKL, TopKKL
from distill.core.objectives.sinkhorn import SinkhornDistance
from distill.core.signals import DenseLogits, TopKLogits

TEACHER, STUDENT = 2 * torch.randn(2, 3, 4, 9, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("whole", [ForwardKL(), ReverseKL(temperature=2.0), JensenShannon(0.3, temperature=0.5)])
def test_buckets_lose_only_how_the_rest_is_shared_out(whole):
    full = whole(StudentOutput(logits=STUDENT), DenseLogits(TEACHER))
    found = [
        Bucketed(whole)(StudentOutput(logits=STUDENT), TopKLogits.from_logits(TEACHER, k, whole.temperature))
        for k in (1, 3, 8, 9)
    ]
    assert 0 < found[0] < found[1] < found[2] + 1e-6
    torch.testing.assert_close(found[2:], [full, full])


def test_both_kls_are_those_of_the_objective_that_has_them_alone():
    signal = TopKLogits.from_logits(TEACHER, 3)
    for whole, direction in ((ForwardKL(), "forward"), (ReverseKL(), "reverse")):
        ours, theirs = (o(StudentOutput(logits=STUDENT), signal) for o in (Bucketed(whole), TopKKL(direction)))
        torch.testing.assert_close(ours, theirs)


def test_what_needs_all_logits_or_another_temperature_is_refused():
    assert bucketed(CrossEntropy()) == CrossEntropy() and bucketed(ForwardKL()) == Bucketed(ForwardKL())
    with pytest.raises(DistillError):
        bucketed(SinkhornDistance())
    with pytest.raises(DistillError):
        Bucketed(ForwardKL(temperature=2.0))(StudentOutput(logits=STUDENT), TopKLogits.from_logits(TEACHER, 3))
