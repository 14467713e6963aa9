"""LEADER: the loss as its formula, no look at the drugs to prescribe, sets and measures by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.contrast import Contrast, SameRow
from distill.core.signals import SampledLogProbs
from distill.language.models import Shape, build
from distill.methods.kept import load, save
from distill.methods.leader.measures import average_precision, clash_rate, recommended, set_scores
from distill.methods.leader.method import PatientReader, VisitRecommender, losses, parts, standardised, taught
from distill.methods.leader.patients import CODES, DRUGS, FIELDS, PROCEDURES, Clinic

SIZES: dict[str, Any] = {"diagnoses": CODES, "procedures": PROCEDURES, "drugs": DRUGS, "profile": FIELDS, "width": 8}


def student(seed: int = 0) -> VisitRecommender:
    torch.manual_seed(seed)
    return VisitRecommender(**SIZES).eval()


def rows(count: int = 6) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    found = Clinic(rng).draw(rng, count)
    more = {"states": rng.standard_normal((count, 5)), "logits": rng.standard_normal((count, DRUGS, 2))}
    known = np.repeat((np.arange(count) < count - 2)[:, None], DRUGS, 1)
    return {name: v for name, v in found.items() if name not in ("text", "visits")} | more | {"mask": known}


def tensors(given: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(np.asarray(values)) for name, values in given.items()}


def test_the_loss_is_its_formula():
    model, given = student().double(), rows()
    chosen = losses(16, 5, features=0.4, align=0.1, outputs=0.2)
    learner, objective, teacher, _ = parts(model, given, chosen)
    objective.learned().double()
    batch = tensors(given)
    signal: Any = teacher.label(batch)
    found = objective(learner.outputs(model, batch), signal, batch["mask"]).item()
    with torch.no_grad():
        said = model(batch)
        z, y = said["logits"], batch["label"].double()
        wanted = F.binary_cross_entropy_with_logits(z[:4], y[:4]).item()
        w = next(iter(objective.parameters()))
        wanted += 0.4 * F.mse_loss(said["middle"] @ w.T, batch["states"]).item()
        e = model.set_of("drugs", batch["label"] * torch.arange(1, DRUGS + 1))
        s = F.cosine_similarity(said["profile"][:, None], e[None], dim=-1).T
        own = torch.arange(len(s))
        both = [F.cross_entropy(x, own, reduction="none") for x in (s, s.T)]
        wanted += 0.1 * (both[0] + both[1])[:4].mean().item()  # nobody knows what the last two were given
        p, q = (torch.sigmoid(x / 2) for x in (batch["logits"][..., 1] - batch["logits"][..., 0], z))
        p, q = p.float().double(), q  # the recorded logits are read in float32
        kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
        wanted += 0.2 * 4 * kl.mean().item()
    assert found == pytest.approx(wanted, rel=1e-6)


def test_gradients_of_the_contrast_are_right_and_bad_partners_refused():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(4, 3, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    partners = SampledLogProbs.labels(torch.tensor([1, 0, 3, 2]))
    assert torch.autograd.gradcheck(
        lambda a, b: Contrast(temperature=0.5)(StudentOutput(hidden=(a, b)), partners), views
    )
    for bad in (torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1])):
        with pytest.raises(DistillError):
            Contrast()(StudentOutput(hidden=tuple(views)), SampledLogProbs.labels(bad))
    same = Contrast()(StudentOutput(hidden=(views[0], views[0])), SameRow().label({"x": views[0]}))
    assert 0 < same.item() < Contrast()(StudentOutput(hidden=(views[0], views[0])), partners).item()


def test_what_is_to_be_prescribed_is_never_seen_and_order_in_a_set_is_nothing():
    model, batch = student(), tensors(rows())
    with torch.no_grad():
        before = model(batch)["logits"]
        turned = {**batch, "label": 1 - batch["label"], "diagnoses": batch["diagnoses"].flip(-1)}
        assert torch.allclose(model(turned)["logits"], before, atol=1e-5)
        other = {**batch, "profile": (batch["profile"] + 1) % 3}
        assert not torch.allclose(model(other)["logits"], before, atol=1e-5)
    assert before.isfinite().all()


def test_a_recommender_learns_and_loads_again(tmp_path):
    given, model = rows(24), student()
    how: dict[str, Any] = {"batch": 12, "seed": 0, "learning_rate": 1e-2}
    before = average_precision(model(tensors(given))["logits"].detach().numpy(), given["label"])
    fit(*parts(model, given, losses(16, 5, align=0.1)), tmp_path / "run", steps=25, **how)
    after = model(tensors(given))["logits"].detach()
    assert average_precision(after.numpy(), given["label"]) > before + 0.05
    save(model, tmp_path / "student")
    again: Any = load(tmp_path / "student")
    assert torch.equal(again(tensors(given))["logits"], after)


def test_measures_by_hand():
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    assert average_precision(np.array([[0.9, 0.8, 0.1], [0, 0, 0]]), labels) == pytest.approx((1 + 2 / 3) / 2)
    chosen = np.array([[True, True, False], [False, False, False]])
    assert set_scores(chosen, labels) == {"jaccard": pytest.approx((1 / 3 + 1) / 2), "f1": pytest.approx(0.75)}
    clinic = Clinic(np.random.default_rng(0))
    a, b = np.argwhere(clinic.clashes)[0]
    picked = np.zeros((1, DRUGS), bool)
    picked[0, [a, b]] = True
    assert clash_rate(picked, clinic.clashes) == 1.0 and clash_rate(np.zeros((1, DRUGS), bool), clinic.clashes) == 0.0
    three = np.array([[True, True, True], [True, True, False]])
    assert clash_rate(three, np.eye(3, k=-1, dtype=bool)) == pytest.approx(3 / 4), "pairs are counted once, each way"
    said = recommended(
        np.array([[0.9, 0.8, 0.1], [0.1, 0.7, 0.2]]),
        np.array([[1, 0, 0], [0, 0, 1]]),
        0.5,
        first=np.array([True, False]),
    )
    assert said["first visit, f1"] == pytest.approx(2 / 3) and said["later visit, f1"] == 0.0
    assert said["prauc"] == pytest.approx((1 + 1 / 2) / 2) and said["jaccard"] == pytest.approx(1 / 4)
    drawn = clinic.draw(np.random.default_rng(1), 300)
    assert 0.5 < (drawn["visits"] == 1).mean() < 0.7
    assert not drawn["earlier"][drawn["visits"] == 1].any() and drawn["diagnoses"][:, -1].any(1).all()


@pytest.mark.parametrize("kind", ["causal", "encoder"])
def test_a_reader_takes_the_last_token_of_causal_models_and_the_mean_of_others_and_no_padding(kind):
    model = build(Shape(20, 16, 1, 2, context=16, kind=kind)).base_model
    torch.manual_seed(0)
    reader = PatientReader(model, 3).eval()
    tokens, seen = (
        torch.tensor([[3, 4, 5, 0, 0, 0], [3, 4, 5, 6, 7, 0]]),
        torch.arange(6)[None] < torch.tensor([[3], [5]]),
    )
    with torch.no_grad():
        found = reader.state({"tokens": tokens, "seen": seen})
        for row, count in enumerate((3, 5)):
            alone = model(input_ids=tokens[row : row + 1, :count]).last_hidden_state[0]
            wanted = alone.mean(0) if kind == "encoder" else alone[-1]
            torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-5)
        said = reader({"tokens": tokens, "seen": seen})
        assert torch.equal(said, found @ reader.head.weight.T)


def test_a_teacher_learns_from_the_binary_cross_entropy_of_every_drug():
    torch.manual_seed(0)
    model, label = torch.nn.Linear(4, 3), torch.tensor([[1, 0, 1], [0, 0, 0]])
    batch = {"x": torch.randn(2, 4), "label": label}
    learner, objective, teacher, _ = taught(
        model, lambda m, b: m(b["x"]), {name: v.numpy() for name, v in batch.items()}
    )
    signal: Any = teacher.label(batch)
    wanted = F.binary_cross_entropy_with_logits(model(batch["x"]), label.float())
    torch.testing.assert_close(objective(learner.outputs(model, batch), signal), wanted, rtol=1e-6, atol=1e-6)
    even = standardised(np.array([[1.0, 5.0], [3.0, 5.0]]))
    assert np.allclose(even, [[-1, 0], [1, 0]], atol=1e-5) and even.dtype == np.float32
