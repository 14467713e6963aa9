"""The losses are those of TRL's trainers, special ends included, and so is every step of a training."""

import copy
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from distill.core.loop import Distiller, LoopConfig
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import JensenShannon
from distill.core.objectives.f_divergences import generalised_jsd
from distill.core.signals import DenseLogits
from distill.core.tables import FixedDomain
from distill.language import throughput
from distill.language.models import Shape, build
from distill.language.student import ChunkedStudent, projected
from distill.language.throughput import PROMPT, Arm

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


V, LENGTH, BATCH, STEPS, RATE = 64, 31, 2, 4, 1e-2


class InOrder:
    """Batches one after the other, as all three trainings see them."""

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self.rows, self.at = rows, 0

    def sample(self, shards: Any, rng: Any, counts: Any, held_out: bool = False) -> dict[str, torch.Tensor]:
        first = 0 if held_out else BATCH * self.at
        self.at += not held_out
        return {name: torch.from_numpy(values[first : first + BATCH]) for name, values in self.rows.items()}


def of_this_project(teacher: Any, student: Any, rows: dict[str, np.ndarray], folder: Path) -> list[float]:
    config = LoopConfig(
        rounds=0, first_steps=STEPS, batch=BATCH, learning_rate=RATE, last_learning_rate=RATE, warmup=0,
        weight_decay=0.0, held_out=1, light=True,
    )  # fmt: skip
    loop = Distiller(
        ChunkedStudent(student, V), JensenShannon(), projected(teacher, V), [FixedDomain("x", rows)], InOrder(rows),
        folder, config, console=Console(quiet=True),
    )  # fmt: skip
    losses: list[float] = []
    step = loop._step
    loop._step = lambda: losses.append(step()) or losses[-1]  # type: ignore[method-assign]
    loop.run()
    return losses


def by_hand(teacher: Any, student: Any, rows: dict[str, np.ndarray]) -> list[float]:
    optimizer = torch.optim.AdamW(student.parameters(), lr=RATE, weight_decay=0.0, betas=(0.9, 0.98))
    losses: list[float] = []
    for first in range(0, BATCH * STEPS, BATCH):
        tokens, mask = (torch.from_numpy(rows[name][first : first + BATCH]) for name in ("tokens", "mask"))
        with torch.no_grad():
            p = teacher(tokens[:, :-1]).logits.softmax(-1)
        q = student(tokens[:, :-1]).logits.softmax(-1)
        m = (p + q) / 2
        each = ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1)) / 2
        loss = each[mask].mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def of_trl(teacher: Any, student: Any, rows: dict[str, np.ndarray], folder: Path) -> list[float]:
    """Its stable trainer, given the texts where it would write them."""
    from datasets import Dataset
    from trl.trainer.distillation_config import DistillationConfig
    from trl.trainer.distillation_trainer import DistillationTrainer

    losses: list[float] = []

    class Noting(throughput._from_data(DistillationTrainer, rows["tokens"])):
        def compute_loss(self, *inputs: Any, **more: Any) -> torch.Tensor:
            loss = super().compute_loss(*inputs, **more)
            losses.append(loss.item())
            return loss

    shared = throughput._trl_options(Arm("trl", V, LENGTH, STEPS, batch=BATCH), str(folder))
    shared |= {"max_steps": STEPS, "learning_rate": RATE, "weight_decay": 0.0, "adam_beta2": 0.98}
    options: Any = DistillationConfig(
        **shared, lr_scheduler_type="constant", shuffle_dataset=False, top_k=0,
        max_completion_length=LENGTH + 1 - PROMPT,
    )  # fmt: skip
    trainer: Any = Noting
    prompts = [" ".join(map(throughput._word, row[:PROMPT])) for row in rows["tokens"]]
    trainer(
        model=student, teacher_model=teacher, args=options, processing_class=throughput._words(V),
        train_dataset=Dataset.from_dict({"prompt": prompts}),
    ).train()  # fmt: skip
    return losses


def test_every_step_of_a_training_has_the_loss_of_trl_and_of_a_plain_loop(tmp_path):
    pytest.importorskip("datasets", reason="the bench extra is not installed")
    teacher, student = build(Shape(V, 24, 2, 2), 1), build(Shape(V, 16, 1, 2), 2)
    tokens = np.random.default_rng(0).integers(3, V, (BATCH * STEPS, LENGTH + 1))
    mask = np.zeros((len(tokens), LENGTH), bool)
    mask[:, PROMPT - 1 :] = True
    rows = {"tokens": tokens, "mask": mask}
    ours = of_this_project(teacher, copy.deepcopy(student), rows, tmp_path / "ours")
    plain = by_hand(teacher, copy.deepcopy(student), rows)
    theirs = of_trl(teacher, copy.deepcopy(student), rows, tmp_path / "trl")
    assert len(ours) == len(plain) == len(theirs) == STEPS and len(set(ours)) == STEPS
    np.testing.assert_allclose(ours, plain, rtol=0, atol=1e-6)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
