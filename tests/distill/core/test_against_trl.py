"""The losses are those of TRL's GKD trainer, its special ends included."""

import os

import pytest
import torch

from distill.core.objectives.base import StudentOutput
from distill.core.objectives.f_divergences import generalised_jsd
from distill.core.signals import DenseLogits

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
gkd = pytest.importorskip("trl.experimental.gkd", reason="the bench extra is not installed")


@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_generalised_jensen_shannon_divergence_and_its_gradient_are_trls(beta, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    teacher, student = 3 * torch.randn(2, 3, 5, 40, generator=generator)
    labels = torch.where(torch.rand(3, 5, generator=generator) < 0.7, 1, -100)
    found = []
    for ours in (True, False):
        leaf = student.clone().requires_grad_()
        if ours:
            objective = generalised_jsd(beta, temperature=temperature, chunk_size=80)
            value = objective(StudentOutput(logits=leaf), DenseLogits(teacher), labels != -100)
        else:
            value = gkd.GKDTrainer.generalized_jsd_loss(leaf, teacher, labels, beta, temperature)
        value.backward()
        found.append((value.detach(), leaf.grad))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)
