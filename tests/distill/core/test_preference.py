"""DPO and KTO on pairs: by their formulas, gradients, what is refused; and a model that learns what is better."""

import copy
import math

import numpy as np
import pytest
import torch

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.preference import DirectPreference, PairedKto, Preference
from distill.core.signals import SampledLogProbs
from distill.core.tables import FixedDomain
from distill.language.evaluate import over
from distill.language.models import Shape, build, causal
from distill.language.student import ModelStudent
from distill.language.views import every_view, scored

BOTH: list[Preference] = [DirectPreference(0.3), PairedKto(0.3), PairedKto(0.3, through=False)]


def pairs(seed: int = 0) -> tuple[torch.Tensor, SampledLogProbs, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64)
    tokens = torch.randint(5, (4, 2, 3), generator=generator)
    reference = torch.randn(4, 2, 3, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    mask = torch.rand(4, 2, 3, generator=generator) < 0.7
    return logits, SampledLogProbs(tokens, reference.gather(-1, tokens[..., None]).squeeze(-1)), mask


@pytest.mark.parametrize("objective", BOTH)
def test_the_loss_is_its_formula(objective):
    logits, signal, mask = pairs()
    z, y, m = logits.numpy(), signal.tokens.numpy(), mask.numpy()
    log_p = z - np.log(np.exp(z).sum(-1, keepdims=True))
    d = [[sum(log_p[b, k, t, y[b, k, t]] - signal.log_probs[b, k, t].item() for t in range(3) if m[b, k, t])
          for k in (0, 1)] for b in range(4)]  # fmt: skip
    means = [max(0.0, sum(pair[k] for pair in d) / 4) for k in (0, 1)]
    if isinstance(objective, DirectPreference):
        wanted = [math.log(1 + math.exp(-0.3 * (better - worse))) for better, worse in d]
    else:
        wanted = [
            1 - 1 / (1 + math.exp(-0.3 * x)) for better, worse in d for x in (better - means[1], means[0] - worse)
        ]
    found = objective(StudentOutput(logits=logits), signal, mask).item()
    assert found == pytest.approx(sum(wanted) / len(wanted), rel=1e-6)
    first = torch.tensor([1.0, 0.0, 0.0, 0.0])
    if isinstance(objective, DirectPreference):
        alone = objective(StudentOutput(logits=logits), signal, mask, first).item()
        assert alone == pytest.approx(wanted[0], rel=1e-6)


@pytest.mark.parametrize("objective", BOTH[:2])
def test_gradients_are_right_and_masked_tokens_have_none(objective):
    logits, signal, mask = pairs(1)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: objective(StudentOutput(logits=z), signal, mask), [logits])
    objective(StudentOutput(logits=logits), signal, mask).backward()
    assert logits.grad is not None and not logits.grad[~mask].any() and logits.grad[mask].any()


def test_a_student_equal_to_its_reference_has_the_loss_of_a_coin():
    logits, signal, mask = pairs()
    own = logits.log_softmax(-1).gather(-1, signal.tokens[..., None]).squeeze(-1)
    same, student = SampledLogProbs(signal.tokens, own), StudentOutput(logits=logits)
    assert DirectPreference()(student, same, mask).item() == pytest.approx(math.log(2))
    assert PairedKto()(student, same, mask).item() == pytest.approx(0.5)


def test_what_does_not_fit_is_refused():
    logits, signal, mask = pairs()
    for given in ((logits[:, :1], mask), (logits, None), (logits, mask[:, :1]), (logits, mask.long())):
        with pytest.raises(DistillError):
            DirectPreference()(StudentOutput(logits=given[0]), signal, given[1])
    with pytest.raises(DistillError):
        DirectPreference(0.0)
    with pytest.raises(DistillError):
        DirectPreference()(StudentOutput(logits=logits), signal, mask, torch.ones(2))


def test_the_better_answer_becomes_likelier(tmp_path):
    model, read = build(Shape(6, 8, 1, 2), 0), causal(6)
    tokens = np.array([[[1, 2, 3], [1, 2, 4]], [[2, 1, 4], [2, 1, 3]]])
    mask = np.broadcast_to(np.array([False, True]), (2, 2, 2)).copy()
    teacher = scored(copy.deepcopy(model), read)
    student = ModelStudent(model, every_view(read))
    rows = {"tokens": tokens, "mask": mask}

    def gap() -> np.ndarray:
        found = over(model, rows, lambda b: scored(model, read).label(b).log_probs).numpy()[..., 1]
        return found[:, 0] - found[:, 1]

    before, table = gap(), [FixedDomain("pairs", rows)]
    fit(student, DirectPreference(1.0), teacher, table, tmp_path, steps=25, batch=4, seed=0, learning_rate=1e-2)
    assert (gap() > before + 0.5).all()
