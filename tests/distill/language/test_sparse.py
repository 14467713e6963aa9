"""Sparse layers: upcycling changes nothing, routing and balance as plain loops, gradients, students that load again."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, MistralConfig, Qwen2Config, Qwen3Config
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.balance import LoadBalance
from distill.core.objectives.base import OwnMasks, StudentOutput
from distill.core.objectives.divergences import CrossEntropy
from distill.core.signals import SampledLogProbs
from distill.core.tables import FixedDomain
from distill.core.teachers import Teachers
from distill.language.generation import generate
from distill.language.models import Shape, build, causal, load, parameters, sharding
from distill.language.sparse import (
    Routers,
    Routing,
    SparseMLP,
    SparseShape,
    SparseStudent,
    expert_distance,
    expert_loads,
    expert_parameters,
    route,
    sparse_layers,
    upcycle,
)
from distill.language.student import Next
from distill.methods import kept

WORDS = 20
READ = causal(WORDS)
SIZE = {"vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32}  # fmt: skip


def dense(seed: int = 0):
    return build(Shape(WORDS, 16, 3, 2, context=32), seed)


def batch(rows: int = 4) -> dict[str, torch.Tensor]:
    return {"tokens": torch.randint(WORDS, (rows, 9), generator=torch.Generator().manual_seed(1))}


def apart(model) -> None:
    """Experts that differ, as they do once they have learned."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in expert_parameters(model):
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))


@pytest.mark.parametrize("config", [None, MistralConfig, Qwen2Config, Qwen3Config])
def test_an_upcycled_model_says_what_the_dense_one_said(config):
    model = dense() if config is None else load(config(**SIZE), seed=2)
    for routing, every, layers in ((Routing(), 2, [0, 2]), (Routing(3, 3), 3, [0]), (Routing(4, 1), 1, [0, 1, 2])):
        sparse = upcycle(model, routing, every, seed=5)
        assert torch.allclose(READ(sparse, batch()), READ(model, batch()), rtol=1e-6, atol=1e-6)
        assert [int(path.split(".")[-2]) for path in sparse_layers(sparse)] == layers
        assert expert_distance(sparse) == 0
    other = upcycle(model, seed=6)
    assert not torch.equal(*(sparse_layers(one)["model.layers.0.mlp"].router.weight for one in (upcycle(model), other)))


def plain_route(given: np.ndarray, top_k: int, places: int | None) -> list[dict[int, float]]:
    """Expert -> weight of each token, one after the other."""
    order = [sorted(range(len(row)), key=lambda e, row=row: -row[e])[:top_k] for row in given]
    taken, kept_ = [0] * given.shape[1], [dict[int, float]() for _ in given]
    for choice in range(top_k):
        for token, experts in enumerate(order):
            expert = experts[choice]
            if places is None or taken[expert] < places:
                kept_[token][expert] = float(given[token, expert])
            taken[expert] += 1
    return [{e: p / sum(row.values()) for e, p in row.items()} for row in kept_]


@pytest.mark.parametrize("places", [None, 3])
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_tokens_go_where_a_plain_loop_sends_them(top_k, places):
    given = torch.rand(12, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    experts, weights = route(given, top_k, places)
    found = [
        {int(e): float(w) for e, w in zip(*row, strict=True) if w > 0} for row in zip(experts, weights, strict=True)
    ]
    wanted = plain_route(given.numpy(), top_k, places)
    assert [sorted(row) for row in found] == [sorted(row) for row in wanted]
    assert all(row[e] == pytest.approx(w, rel=1e-6) for row, other in zip(found, wanted, strict=True)
               for e, w in other.items())  # fmt: skip
    if places is not None and top_k > 1:
        assert any(len(row) < top_k for row in wanted), "a bound that drops nothing tests nothing"


@pytest.mark.parametrize("capacity", [0.0, 0.8])
def test_a_sparse_layer_is_the_weighted_sum_of_experts_and_its_gradients_are_right(capacity):
    torch.manual_seed(0)
    part = nn.Sequential(nn.Linear(4, 6), nn.SiLU(), nn.Linear(6, 4))
    layer = SparseMLP(part, 4, Routing(3, 2, capacity)).double().train()
    apart(nn.ModuleList([layer]))
    hidden = torch.randn(2, 5, 4, dtype=torch.float64)
    with torch.no_grad():
        flat = hidden.flatten(0, 1)
        sent = plain_route((flat @ layer.router.weight.T).softmax(-1).numpy(), 2, layer.routing.places(10))
        wanted = torch.stack([
            sum((w * layer.experts[e](x) for e, w in row.items()), torch.zeros_like(x))
            for x, row in zip(flat, sent, strict=True)
        ])  # fmt: skip
    assert torch.allclose(layer(hidden).flatten(0, 1), wanted, rtol=1e-6, atol=1e-12)
    assert torch.autograd.gradcheck(layer, [hidden.clone().requires_grad_()])
    weight = layer.router.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda w: torch.func.functional_call(layer, {"router.weight": w}, (hidden,)), [weight]
    )
    if capacity:
        everything = layer.eval()(hidden)
        assert not torch.allclose(everything.flatten(0, 1), wanted), "nothing is dropped where nobody learns"


def test_a_router_of_one_choice_learns_all_the_same():
    given = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    _, weights = route(given.softmax(-1), 1)
    (weights[:, 0] * torch.arange(6.0)).sum().backward()
    assert torch.equal(weights, torch.ones_like(weights)) and given.grad is not None and given.grad[1:].abs().min() > 0


def balance_of(logits: list[torch.Tensor], mask=None, weights=None, top_k: int = 2) -> torch.Tensor:
    student = StudentOutput(router=tuple(layer.softmax(-1) for layer in logits))
    return LoadBalance(top_k)(student, SampledLogProbs.labels(torch.zeros(logits[0].shape[:-1]).long()), mask, weights)


def test_balance_is_its_closed_form_and_that_of_transformers():
    even = torch.full((1, 4, 4), -40.0).diagonal_scatter(torch.zeros(1, 4), dim1=1, dim2=2)
    assert balance_of([even], top_k=1).item() == pytest.approx(1.0, rel=1e-6)
    one = torch.tensor([40.0, 0, 0, 0]).expand(1, 5, 4)
    assert balance_of([one], top_k=1).item() == pytest.approx(4.0, rel=1e-6)
    logits = [torch.randn(2, 7, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    mask = torch.rand(2, 7, generator=torch.Generator().manual_seed(9)) < 0.7
    for given in (None, mask):
        wanted = sum(load_balancing_loss_func((layer.flatten(0, 1),), 4, 2, given) / 2 for layer in logits)
        assert balance_of(logits, given).item() == pytest.approx(float(wanted), rel=1e-6)
    broken = [torch.where(mask[..., None], layer, torch.nan) for layer in logits]
    assert balance_of(broken, mask).item() == pytest.approx(balance_of(logits, mask).item())
    assert balance_of(logits, torch.zeros_like(mask)).item() == 0
    weights = torch.zeros(2, 7).index_fill(1, torch.tensor([2]), 3.0)
    assert balance_of(logits, weights=weights).item() == pytest.approx(balance_of([z[:, 2:3] for z in logits]).item())


def test_balance_has_right_gradients():
    logits = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: balance_of([z, 2 * z]), [logits])


def test_experts_come_apart_and_the_student_loads_again_and_writes(tmp_path):
    model = upcycle(dense(), seed=1)
    rows = {"tokens": batch(16)["tokens"].numpy(), "mask": np.ones((16, 2, 8), bool)}
    objective = OwnMasks({"labels": (1.0, CrossEntropy()), "balance": (0.01, LoadBalance())}, ("labels", "balance"))
    teachers = Teachers({name: Next() for name in ("labels", "balance")})
    student, before = SparseStudent(model, READ), [p.detach().clone() for p in expert_parameters(model)]
    summary = fit(student, objective, teachers, [FixedDomain("rows", rows)], tmp_path / "run", steps=12, batch=8,
                  seed=0, rounds=2, learning_rate=1e-2)  # fmt: skip
    first, last = (round_["proxy"] for round_ in (summary["measured"][0], summary["measured"][-1]))
    assert last < first and expert_distance(model) > 0
    assert all(not torch.equal(old, new) for old, new in zip(before, expert_parameters(model), strict=True))
    loads = expert_loads(model, READ, batch(), torch.ones(4, 8, dtype=torch.bool))
    assert len(loads) == 2 and all(load_.sum().item() == pytest.approx(1) for load_ in loads)
    kept.save(model, tmp_path / "student")
    for again in (kept.load(tmp_path / "student"), AutoModelForCausalLM.from_pretrained(tmp_path / "student").eval()):
        assert torch.equal(READ(again, batch()), READ(model, batch()))
    tokens, _ = generate(again, batch()["tokens"], 3, WORDS, seed=0, temperature=0.0)
    step = batch()["tokens"]
    for _ in range(3):
        with torch.no_grad():
            step = torch.cat([step, again(input_ids=step).logits[:, -1:].argmax(-1)], 1)
    assert torch.equal(tokens, step), "cached writing says what reading says"


def test_a_shape_builds_what_upcycling_makes_and_its_memory_is_planned():
    shape = SparseShape(WORDS, 16, 3, 2, context=32)
    made, wanted = build(shape), upcycle(dense())
    assert type(made) is type(wanted) and {n: p.shape for n, p in made.named_parameters()} == {
        n: p.shape for n, p in wanted.named_parameters()
    }
    plan = sharding(shape, 1, 1.0)
    assert plan["parameters"] == parameters(wanted) and plan["layers"] >= 3 and plan["fits"]


def test_mixed_precision_computes_and_learns():
    model, rows = upcycle(dense(), seed=1), batch()
    wide = READ(model, rows)
    with torch.autocast("cpu", torch.bfloat16):
        found = SparseStudent(model, READ).outputs(model, rows)
    assert found.logits is not None and found.router is not None and found.router[0].dtype == torch.float32
    assert (found.logits.float() - wide).abs().max() < 0.1 * wide.abs().max()
    found.logits.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in expert_parameters(model))
    narrow = upcycle(dense().bfloat16(), seed=1)
    assert READ(narrow, rows).dtype == torch.bfloat16 and all(p.dtype == torch.bfloat16 for p in narrow.parameters())


def test_a_run_that_was_cut_off_knows_its_student_again():
    model = upcycle(dense(), seed=1)
    assert torch.equal(READ(pickle.loads(pickle.dumps(model)), batch()), READ(model, batch()))


def test_what_routers_say_is_read_once_and_leaves_no_hooks():
    model = upcycle(dense(), Routing(3, 2))
    found = SparseStudent(model, READ).outputs(model, batch())
    assert found.router is not None and [list(layer.shape) for layer in found.router] == [[4, 8, 3]] * 2
    assert all(not layer.router._forward_hooks for layer in sparse_layers(model).values())


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Routing(2, 3),
        lambda: Routing(1, 1),
        lambda: Routing(capacity=-1.0),
        lambda: upcycle(dense(), every=0),
        lambda: upcycle(upcycle(dense())),
        lambda: upcycle(nn.Linear(2, 2)),
        lambda: Routers(dense()),
        lambda: SparseStudent(dense(), READ),
        lambda: LoadBalance(0),
        lambda: balance_of([torch.zeros(1, 2, 3)], top_k=4),
        lambda: balance_of([torch.zeros(1, 2, 3), torch.zeros(1, 4, 3)]),
        lambda: LoadBalance()(StudentOutput(), SampledLogProbs.labels(torch.zeros(1, 2).long())),
    ],
)
def test_what_does_not_fit_is_refused(wrong):
    with pytest.raises(DistillError):
        wrong()
