"""The likelihood of pieces of text against a plain sum, its gradient, and what must not count."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.likelihood import SpanLikelihood
from distill.core.signals import SpanLogProbs

ENDS = torch.tensor([[1, 1, -1, 3, 5, 5], [0, 3, 3, 3, -1, 5]])


def example(dtype=torch.float64, seed=0):
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 6, 5, generator=rng, dtype=dtype)
    tokens = torch.randint(0, 5, (2, 6), generator=rng)
    return logits, SpanLogProbs(tokens, ENDS, -3 * torch.rand(2, 6, generator=rng, dtype=dtype))


def by_hand(logits, signal, t, mask=None):
    """Piece by piece, token by token."""
    total = 0.0
    for row in range(2):
        for end in range(6):
            inside = [i for i in range(6) if int(signal.ends[row, i]) == end]
            if not inside or (mask is not None and not all(bool(mask[row, i]) for i in inside)):
                continue
            log_q = sum(float(logits[row, i].log_softmax(-1)[signal.tokens[row, i]]) for i in inside)
            p, q = math.exp(float(signal.log_probs[row, end]) / t), math.exp(log_q / t)
            total += t * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    return total / (12 if mask is None else int(mask.sum()))


@pytest.mark.parametrize("temperature", [1.0, 7.0, 100.0])
@pytest.mark.parametrize("chunk", [None, 5])
def test_it_is_the_divergence_of_each_piece_over_the_tokens(temperature, chunk):
    logits, signal = example()
    loss = SpanLikelihood(temperature=temperature, chunk_size=chunk)
    found = loss(StudentOutput(logits=logits), signal)
    assert float(found) == pytest.approx(by_hand(logits, signal, temperature), abs=1e-9)
    head, states = torch.randn(5, 3, dtype=torch.float64), torch.randn(2, 6, 3, dtype=torch.float64)
    made = loss(StudentOutput(hidden=(states,), lm_head=head), signal)
    assert float(made) == pytest.approx(by_hand(states @ head.T, signal, temperature), abs=1e-9)


def test_pieces_that_are_masked_in_part_do_not_count_and_garbage_there_is_not_read():
    logits, signal = example()
    mask = torch.tensor([[True, False, True, True, True, True], [True, True, True, True, True, True]])
    loss = SpanLikelihood(temperature=2.0)
    assert float(loss(StudentOutput(logits=logits), signal, mask)) == pytest.approx(by_hand(logits, signal, 2.0, mask))
    spoilt = logits.clone()
    spoilt[0, 1] = torch.nan
    spoilt.requires_grad_()
    found = loss(StudentOutput(logits=spoilt), signal, mask)
    found.backward()
    assert found.item() == pytest.approx(by_hand(logits, signal, 2.0, mask)) and spoilt.grad.isfinite().all()
    assert (spoilt.grad[0, :3] == 0).all(), "of the piece that is cut, and of the token that is in none"


def test_a_student_that_is_its_teacher_has_neither_loss_nor_gradient():
    logits, signal = example()
    each = logits.log_softmax(-1).gather(-1, signal.tokens[..., None])[..., 0]
    own = torch.zeros_like(each)
    for row, end in ((0, 1), (0, 3), (0, 5), (1, 0), (1, 3), (1, 5)):
        own[row, end] = each[row][ENDS[row] == end].sum()
    logits.requires_grad_()
    loss = SpanLikelihood()(StudentOutput(logits=logits), SpanLogProbs(signal.tokens, ENDS, own))
    loss.backward()
    assert abs(loss.item()) < 1e-12 and float(logits.grad.abs().max()) < 1e-12


@pytest.mark.parametrize("temperature", [1.0, 100.0])
def test_its_gradient_is_that_of_the_numbers(temperature):
    logits, signal = example()
    loss = SpanLikelihood(temperature=temperature)
    assert gradcheck(lambda x: loss(StudentOutput(logits=x), signal), logits.requires_grad_(), atol=1e-6)


def test_certain_pieces_stay_finite():
    logits, signal = example(torch.float32)
    sure = torch.full_like(logits, -1e4).scatter(-1, signal.tokens[..., None], 1e4).requires_grad_()
    for log_probs in (torch.zeros(2, 6), torch.full((2, 6), -200.0)):
        loss = SpanLikelihood()(StudentOutput(logits=sure), SpanLogProbs(signal.tokens, ENDS, log_probs))
        (gradient,) = torch.autograd.grad(loss, sure)
        assert loss.isfinite() and gradient.isfinite().all()


@pytest.mark.parametrize("why", ["behind", "before", "nan", "positive", "shape"])
def test_spans_that_cannot_be_are_refused(why):
    _, signal = example()
    ends, log_probs = ENDS.clone(), signal.log_probs.clone()
    if why in ("behind", "before"):
        ends[0, 3] = 6 if why == "behind" else 1
    elif why == "nan":
        log_probs[1, 2] = torch.nan
    elif why == "positive":
        log_probs[1, 0] = 0.5
    else:
        log_probs = log_probs[:, :5]
    with pytest.raises(DistillError):
        SpanLogProbs(signal.tokens, ends, log_probs)
