"""AutoDistil: relations as their formula, students that share weights, costs, a choice that loads again."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.relations import RelationMatching, relations
from distill.core.signals import HiddenStates
from distill.language.models import Shape, build
from distill.language.supernet import Size, Space, SuperNet, Tapped, cost, extract
from distill.methods.autodistil.method import (
    SPACES,
    Sandwich,
    Scored,
    chosen,
    distil,
    parts,
    relation_loss,
    scored,
    tapped,
    whole_size,
)  # fmt: skip

SPACE = Space((2, 3), (12, 20), (2.0, 3.0), (2, 5))


def teacher(seed: int = 0) -> Any:
    return build(Shape(30, 24, 4, 6, 96, 32, kind="masked"), seed)


def rows(count: int = 6, length: int = 7) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.arange(length) < rng.integers(3, length + 1, count)[:, None]
    return {"tokens": np.where(mask, rng.integers(2, 30, (count, length)), 0), "mask": mask}


def batch(found: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in found.items()}


def by_hand(states: torch.Tensor, heads: int, seen: list[int]) -> torch.Tensor:
    """`[heads, n, n]` of the seen positions of one text `[T, D]`."""
    d = states.shape[-1] // heads
    found = []
    for k in range(heads):
        a = states[seen][:, k * d : (k + 1) * d]
        e = torch.exp(a @ a.T / math.sqrt(d))
        found.append(e / e.sum(1, keepdim=True))
    return torch.stack(found)


def test_the_loss_is_its_formula_over_what_is_seen_and_drops_what_is_left_over():
    generator = torch.Generator().manual_seed(0)
    data = batch(rows(3))
    ours = [torch.randn(3, 7, width, generator=generator, dtype=torch.float64) for width in (10, 10, 10, 7, 7, 7)]
    theirs = [torch.randn(3, 7, 24, generator=generator, dtype=torch.float64) for _ in range(3)]
    found = RelationMatching(3)(StudentOutput(hidden=tuple(ours)), HiddenStates(tuple(theirs)), data["mask"]).item()
    total, places = 0.0, 0
    for b in range(3):
        seen = data["mask"][b].nonzero().squeeze(-1).tolist()
        places += len(seen)
        for i, states in enumerate(ours):
            gap = by_hand(states[b], 3, seen) - by_hand(theirs[i % 3][b], 3, seen)
            total += float(gap.square().mean(dim=(0, 2)).sum())
    assert found == pytest.approx(total / places, rel=1e-6)
    garbage = [torch.where(data["mask"][..., None], s, torch.full_like(s, 1e3)) for s in ours]
    again = RelationMatching(3)(StudentOutput(hidden=tuple(garbage)), HiddenStates(tuple(theirs)), data["mask"]).item()
    assert again == pytest.approx(found, rel=1e-9)
    assert torch.equal(relations(ours[0], 2, causal=True).triu(1), torch.zeros(3, 2, 7, 7, dtype=torch.float64))


def test_gradients_of_relations_are_right_and_misfits_refused():
    generator = torch.Generator().manual_seed(1)
    states = [torch.randn(2, 4, 6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    signal = HiddenStates(tuple(torch.randn(2, 4, 8, generator=generator, dtype=torch.float64) for _ in range(3)))
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    objective = RelationMatching(2)
    assert torch.autograd.gradcheck(lambda *s: objective(StudentOutput(hidden=s), signal, mask), states)
    for bad in (states[:2], [s[:, :3] for s in states]):
        with pytest.raises(DistillError):
            objective(StudentOutput(hidden=tuple(bad)), signal)
    with pytest.raises(DistillError):
        relations(states[0], 7)
    with pytest.raises(DistillError):
        RelationMatching(0)


def test_a_model_cut_to_its_own_size_is_the_model():
    model, data = teacher(), batch(rows())
    inputs = {"input_ids": data["tokens"], "attention_mask": data["mask"].long()}
    same = extract(model, whole_size(model))
    with torch.no_grad():
        assert torch.allclose(same(**inputs).logits, model(**inputs).logits, atol=1e-6)
    for bad in (Size(5, 24, 4.0, 6), Size(4, 24, 4.0, 7), Size(2, 20, 5.0, 2)):
        with pytest.raises(DistillError):
            extract(model, bad)
    for other in (build(Shape(30, 8, 1, 2)), build(Shape(30, 8, 1, 2, kind="encoder"))):
        with pytest.raises(DistillError):
            extract(other, Size(1, 4, 2.0, 1))
    with pytest.raises(DistillError):
        Tapped(build(Shape(30, 8, 1, 2)))


def test_sizes_share_weights_and_layers_are_spread():
    net, data = SuperNet.of(teacher(), SPACE).eval(), batch(rows())
    small = SPACE.smallest
    with torch.no_grad():
        before = net.one(data["tokens"], data["mask"], small)
        own = net.extract(small)
        apart = own(input_ids=data["tokens"], attention_mask=data["mask"].long()).logits
        assert torch.allclose(before[0], apart, atol=1e-6)
        assert all(torch.equal(a, b) for a, b in zip(before[1], tapped(own, data), strict=True))
        assert [s.shape[-1] for s in before[1]] == [2 * 4] * 3
        deep = net.model.bert.encoder.layer
        assert torch.equal(own.bert.encoder.layer[1].output.dense.weight, deep[1].output.dense.weight[:12, :24])
        deep[2].output.dense.weight.add_(1)  # of three layers, two keep the first and the second
        assert torch.equal(net.one(data["tokens"], data["mask"], small)[0], before[0])
        deep[1].output.dense.bias[12:].add_(1)
        assert torch.equal(net.one(data["tokens"], data["mask"], small)[0], before[0])
        deep[1].output.dense.bias[:12].add_(torch.arange(12.0))
        assert not torch.allclose(net.one(data["tokens"], data["mask"], small)[0], before[0])


def test_gradients_of_all_sizes_add_up_in_the_shared_weights():
    net, data = SuperNet.of(teacher(), SPACE).double().eval(), batch(rows())
    giver, objective = parts(teacher().double(), net, rows())[2], RelationMatching(6)
    signal: Any = giver.label(data)
    weight = net.model.bert.encoder.layer[0].attention.self.query.weight

    def gradient(sizes: list[Size]) -> torch.Tensor:
        states = tuple(s for size in net(data["tokens"], data["mask"], sizes) for s in size)
        return torch.autograd.grad(objective(StudentOutput(hidden=states), signal, data["mask"]), weight)[0]

    both = [SPACE.smallest, SPACE.largest]
    assert torch.allclose(gradient(both), gradient(both[:1]) + gradient(both[1:]), atol=1e-12)
    assert not gradient([SPACE.smallest])[8:].any() and gradient([SPACE.largest])[8:].any()


def test_a_sandwich_has_its_ends_and_the_same_sizes_again():
    net = SuperNet.of(teacher(), SPACE)
    learner, data = Sandwich(net, 3), batch(rows())
    assert learner.sizes(5)[:2] == [SPACE.smallest, SPACE.largest] and len(learner.sizes(5)) == 4
    assert learner.sizes(5) == Sandwich(net, 3).sizes(5)
    assert len({tuple(learner.sizes(step)) for step in range(20)}) > 5
    assert len(Sandwich(net, ends=False, random=4).sizes(0)) == 4
    net.eval()
    learner.outputs(net, data)
    assert int(net.drawn) == 0
    net.train()
    assert len(learner.outputs(net, data).hidden or ()) == 12 and int(net.drawn) == 1


def test_costs_are_those_of_the_model_that_is_built():
    config = teacher().config
    for size in (SPACE.smallest, Size(3, 20, 3.0, 5)):
        made = extract(teacher(), size)
        assert cost(config, size).parameters == sum(p.numel() for p in made.parameters())
    found = cost(config, Size(3, 20, 3.0, 5), 10).flops
    layer = 10 * (3 * 20 * 20 + 20 * 20 + 2 * 20 * 60) + 2 * 10 * 10 * 20
    assert found == 3 * layer
    bert = Shape(30522, 768, 12, 12, 3072, kind="masked").config()
    assert cost(bert, Size(12, 768, 4.0, 12)).flops == pytest.approx(11.2e9, rel=0.01), "the paper's, of the teacher"
    assert [len(space) for space in SPACES.values()] == [256] * 3
    with pytest.raises(DistillError):
        Space((), (1,), (1.0,), (1,))


def test_the_choice_keeps_to_its_limits():
    net, model = SuperNet.of(teacher(), SPACE), teacher()
    found = scored(net, model, rows(), [SPACE.smallest, SPACE.largest])
    assert found[0].loss == pytest.approx(relation_loss(net.extract(SPACE.smallest), model, rows()), rel=1e-5)
    assert chosen(found, flops=found[0].cost.flops).size == SPACE.smallest
    better = [Scored(one.size, float(i), one.cost) for i, one in enumerate(reversed(found))]
    assert chosen(better).size == SPACE.largest
    with pytest.raises(DistillError):
        chosen(found, parameters=1)


def test_what_is_found_learned_and_loads_again(tmp_path: Path):
    model, text = teacher(), rows(40)
    before = SuperNet.of(model, SPACE).eval()
    net = distil(model, SPACE, text, tmp_path / "run", steps=25, batch=8, learning_rate=3e-3, warmup=0)
    assert relation_loss(net, model, text, SPACE.largest) < relation_loss(before, model, text, SPACE.largest)
    student, data = net.extract(SPACE.smallest), batch(text)
    student.save_pretrained(tmp_path / "student")
    inputs = {"input_ids": data["tokens"], "attention_mask": data["mask"].long()}
    again = AutoModelForMaskedLM.from_pretrained(tmp_path / "student")
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, student(**inputs).logits)
    for_a_task = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student", num_labels=5)
    assert for_a_task(**inputs).logits.shape == (40, 5)
    assert torch.equal(for_a_task.base_model.encoder.layer[0].attention.self.query.weight,
                       student.bert.encoder.layer[0].attention.self.query.weight)  # fmt: skip
    with pytest.raises(DistillError):
        distil(model, SPACE, {"tokens": text["tokens"]}, tmp_path / "bad", steps=1, batch=2)
