"""Parts that single recipes bring along."""

from typing import Any

import numpy as np
import pytest
import torch

from distill.core.collect import CollectionPlan
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import CrossEntropy
from distill.core.signals import TopKLogits
from distill.language.tasks import Unigrams
from distill.language.views import NextOf, Views
from distill.methods.catalogue import find
from distill.methods.first.experiment import at_temperature
from distill.methods.framework import Trial
from distill.methods.pgkd.experiment import Settings, guided
from distill.methods.pgkd.few_labels import FewLabels
from distill.methods.pgkd.method import near
from distill.methods.step_by_step.weighed_world import EXPLAIN, NO, PAD, PREDICT, YES, World, rows


def test_a_temperature_scales_the_heads_logits():
    head = TopKLogits(torch.tensor([[0.6, 0.3]]).log(), torch.tensor([[2, 0]]), torch.tensor([0.1]).log())
    found = at_temperature(head, 0.5)
    wanted = torch.tensor([0.6, 0.3]).sqrt()
    assert torch.allclose(found.log_probs.exp()[0], wanted / wanted.sum()) and found.tail.item() == -torch.inf


def test_each_task_is_averaged_by_itself():
    logits = torch.randn(2, 2, 4, 5, generator=torch.Generator().manual_seed(1))
    tokens = torch.randint(0, 5, (2, 2, 5), generator=torch.Generator().manual_seed(2))
    mask = torch.zeros(2, 2, 4, dtype=torch.bool)
    mask[:, 0, :1], mask[:, 1] = True, True
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 2), tokens[..., 1:].flatten(), reduction="none"
    ).reshape(mask.shape)
    wanted = 0.5 * losses[:, 0][mask[:, 0]].mean() + 0.5 * losses[:, 1][mask[:, 1]].mean()
    parts = {"label": (0.5, CrossEntropy()), "rationale": (0.5, CrossEntropy())}
    signals = {"label": NextOf(0).label({"tokens": tokens}), "rationale": NextOf(1).label({"tokens": tokens})}
    views = Views(parts, {"label": (0, 0), "rationale": (1, 1)})
    found = views(StudentOutput(logits=logits), signals, mask)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)


def test_questions_of_the_world_are_answered_by_their_rationales():
    world = World(np.random.default_rng(3), entities=60, test=50, train=200)
    asked = {tuple(sorted(pair)) for pair in world.test.tolist()}
    assert len(world.train) == 200 and not asked & {tuple(sorted(pair)) for pair in world.train.tolist()}
    for pair in world.test:
        a, b = world.rationale(pair)[2], world.rationale(pair)[5]
        assert world.label(pair) == [YES if a > b else NO] and a != b
    row = rows([world.prompt(world.test[0], PREDICT)], [world.label(world.test[0])])
    assert row["tokens"][0, 0] == PREDICT != EXPLAIN and row["mask"].sum() == 2 and row["tokens"][0, -1] == PAD


def test_the_report_asks_for_what_is_missing_and_the_teacher_answers(tmp_path):
    lab = FewLabels(Trial(0, tmp_path, Settings(classes=5, words=60, noise=0.0)))
    arm: Any = find("pgkd").arms["report"]
    collector = guided(lab, arm)
    labels = collector.validation["label"]
    perfect = np.eye(5)[labels]
    blind = perfect.copy()
    blind[labels == 2] = np.eye(5)[0]  # class 2 is never found
    found = {"validation": blind, "labelled": np.eye(5)[collector.labelled["label"]]}
    shares = collector.shares(found, np.random.default_rng(0))
    assert (labels == 2).any()
    assert shares.argmax() == 2 and collector.confused(found)[0] == (2, 0)
    assert near(2, collector.confused(found), np.random.default_rng(0)) == 0
    first = collector.collect(None, CollectionPlan(0, 1.0, 0, 0))
    assert len(first.episodes) == len(collector.labelled["label"])
    texts = np.stack([lab.writer.write(3, np.random.default_rng(i)) for i in range(200)])
    posterior = lab.writer.log_words[:, 1:]
    guessed = np.array([[posterior[c][text[text > 0] - 1].sum() for c in range(5)] for text in texts]).argmax(1)
    assert (guessed == 3).mean() > 0.8


def test_labels_are_skewed_and_capped_and_no_class_lacks_a_validation_text(tmp_path):
    lab = FewLabels(Trial(0, tmp_path, Settings()))
    labelled, told = (np.bincount(part["label"], minlength=40) for part in lab.sets)
    assert labelled.std() > 4 and labelled.max() <= 25 and told.min() >= 1
    rows = [{tuple(text) for text in part["tokens"]} for part in lab.sets]
    assert len(rows[0] & rows[1]) < 3, "random texts may be the same, places are not"


def test_the_permuted_report_has_the_same_figures_for_other_classes(tmp_path):
    lab = FewLabels(Trial(0, tmp_path, Settings(classes=5, words=60, noise=0.0)))
    arms = find("pgkd").arms
    report, permuted = (guided(lab, arms[name]) for name in ("report", "permuted report"))  # type: ignore[arg-type]
    labels = report.validation["label"]
    blind = np.eye(5)[labels]
    blind[labels == 2] = np.eye(5)[0]
    found = {"validation": blind, "labelled": np.eye(5)[report.labelled["label"]]}
    told = [collector.shares(found, np.random.default_rng(3)) for collector in (report, permuted)]
    assert sorted(told[0]) == pytest.approx(sorted(told[1])) and told[0].argmax() == 2 != told[1].argmax()


def test_classes_may_differ_in_difficulty():
    even, uneven = (Unigrams(6, seed=1, uneven=value).log_words().std(1) for value in (0.0, 0.5))
    assert uneven.std() > 2 * even.std()
