"""ERNIE-Tiny: each stage's loss is its formula, projections live on, scores are attention's own."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, GPT2Config, LlamaConfig

from distill.core.errors import DistillError
from distill.core.objectives.base import RowsAndTokens, StudentOutput
from distill.core.signals import Attention, DenseLogits, HiddenStates, SampledLogProbs
from distill.core.tables import FixedDomain
from distill.language.inner import inner, padded, with_scores
from distill.language.masking import masked_rows
from distill.language.models import Shape, build
from distill.methods.ernie_tiny.method import METHOD, STAGES, losses, passes
from distill.methods.ernie_tiny.topic_world import FIRST, Topics
from distill.methods.method import ClassMaterial, MethodOptions

SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 30}
MINE = METHOD.settings({})
FAMILIES: dict[str, Any] = {
    "bert": cast("Any", BertConfig)(**SIZES, num_attention_heads=2),
    "llama": LlamaConfig(**SIZES, num_attention_heads=4, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=30, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_softmax_of_scores_is_the_attention_and_logits_stay(family):
    torch.manual_seed(0)
    kind = AutoModel if family == "bert" else AutoModelForCausalLM
    model = kind.from_config(FAMILIES[family]).eval()
    inputs = padded()({"tokens": torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]])})
    with torch.no_grad():
        before = model(**inputs)[0]
        model.set_attn_implementation("eager")
        shares = model(**inputs, output_attentions=True).attentions
        found = inner(with_scores(model), inputs)
        after = model(**inputs)[0]
    assert torch.allclose(before, after, atol=1e-6) and found.hidden is not None and len(found.hidden) == 3
    assert found.attention is not None
    for ours, theirs in zip(found.attention, shares, strict=True):
        assert torch.allclose(ours.softmax(-1), theirs, atol=1e-6)
        assert (ours[1, :, :3, 3:] == -torch.inf).all() and ours[1, :, 2, :3].isfinite().all()


def material() -> ClassMaterial:
    rng = np.random.default_rng(0)
    tokens = rng.integers(2, 20, (6, 5))
    tokens[::2, 3:] = 0
    rows = {"tokens": tokens, "mask": tokens != 0}
    shapes = (Shape(20, 8, 1, 2, kind="encoder", classes=3), *[Shape(20, 12, 2, 3, kind="encoder", classes=3)] * 2)
    models: Any = [build(shape, seed).double() for seed, shape in enumerate(shapes)]
    task = [FixedDomain("task", {**rows, "label": rng.integers(3, size=6)})]
    student, teacher, pretrained = models
    return ClassMaterial(student, teacher, pretrained, padded(), task, [FixedDomain("general", rows)])


@pytest.mark.parametrize("name", STAGES)
def test_the_loss_of_a_stage_is_its_formula(name):
    given = material()
    stages = {one.name: one.stage for one in passes(given, MethodOptions(temperature=1.7))}
    assert [*stages] == ["GD", "GED", "TAD", "TSD"]
    stage = stages[name]
    stage.objective.learned().double()
    domain = stage.collectors[0]
    assert isinstance(domain, FixedDomain) and domain.name == ("general" if name in ("GD", "GED") else "task")
    batch = {key: torch.from_numpy(np.asarray(values)) for key, values in domain.rows.items()}
    signal: Any = stage.teacher.label(batch)
    found = stage.objective(stage.student.outputs(given.student, batch), signal, batch["mask"]).item()

    teacher, mask = given.pretrained if name == "GD" else given.teacher, batch["mask"]
    with torch.no_grad():
        ours, theirs = (
            model(**padded()(batch), output_hidden_states=True, output_attentions=True)
            for model in (given.student, teacher)
        )
    w = next(iter(stage.objective.parameters())).detach()
    wanted = 0.0
    for mine, other in ((0, 0), (1, 2)):
        apart = (ours.hidden_states[mine] @ w.T - theirs.hidden_states[other]).square().mean(-1)
        wanted += apart[mask].mean().item()
    s, t = ours.attentions[0].mean(1), theirs.attentions[1].mean(1)  # head counts differ
    rows = [
        (s[b, i, :n] - t[b, i, :n]).square().mean() for b in range(6) for n in [int(mask[b].sum())] for i in range(n)
    ]
    wanted += torch.stack(rows).mean().item()
    if name == "TSD":
        p, q = (theirs.logits / 1.7).softmax(-1), (ours.logits / 1.7).log_softmax(-1)
        wanted += (p * (p.log() - q)).sum(-1).mean().item() + F.cross_entropy(ours.logits, batch["label"]).item()
    assert found == pytest.approx(wanted, rel=1e-6)


def test_gradients_of_the_last_stage_are_right():
    parts = losses((1, 4), (2, 6), MethodOptions())
    objective = RowsAndTokens(parts, ("soft", "labels"))
    objective.learned().double()
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    signal = {
        "attention": Attention(tuple(normal(2, 2, 3, 3) for _ in range(2)), scores=True),
        "hidden": HiddenStates(tuple(normal(2, 3, 6) for _ in range(3))), "soft": DenseLogits(normal(2, 3)),
        "labels": SampledLogProbs.labels(torch.tensor([0, 2])),
    }  # fmt: skip
    mask = torch.tensor([[True, True, False], [True, True, True]])

    def loss(first: Any, last: Any, scores: Any, logits: Any) -> torch.Tensor:
        return objective(StudentOutput(logits, (first, last), (scores,)), signal, mask)

    inputs = [normal(*shape).requires_grad_() for shape in ((2, 3, 4), (2, 3, 4), (2, 2, 3, 3), (2, 3))]
    assert torch.autograd.gradcheck(loss, inputs)


def test_all_stages_learn_one_projection():
    stages = [one.stage for one in passes(material(), MethodOptions())]
    learned = [list(stage.objective.parameters()) for stage in stages]
    assert all(len(found) == 1 and found[0] is learned[0][0] for found in learned)
    assert sum(one.share for one in passes(material(), MethodOptions())) == pytest.approx(1)


def test_a_stage_without_its_teacher_or_text_is_refused():
    given = material()
    lacks: list[dict[str, Any]] = [{"pretrained": None}, {"general": []}]
    for lacking in lacks:
        with pytest.raises(DistillError, match="the stage GD needs"):
            passes(replace(given, **lacking), MINE)
    three = build(Shape(20, 12, 3, 3, kind="encoder"))
    with pytest.raises(DistillError, match="cannot be shared out evenly"):
        passes(replace(given, teacher=three, pretrained=three, student=build(Shape(20, 8, 2, 2, kind="encoder"))), MINE)


def test_hidden_words_are_a_share_of_the_words_and_their_truth_stands_beside():
    tokens, _ = Topics().draw(np.random.default_rng(0), 400)
    tokens[:, 8:] = 0
    rows = masked_rows(tokens, 1, FIRST, np.random.default_rng(1))
    mask, words = rows["mask"], tokens >= FIRST
    assert (rows["target"] == tokens).all() and not (mask & ~words).any() and mask.any(1).all()
    assert 0.13 < mask.sum() / words.sum() < 0.3
    assert (rows["tokens"][~mask] == tokens[~mask]).all()
    assert 0.75 < (rows["tokens"][mask] == 1).mean() < 0.85
    with pytest.raises(DistillError):
        masked_rows(np.zeros((2, 3), int), 1, FIRST, np.random.default_rng(0))


def test_half_of_a_topics_words_never_occur_in_the_other_style():
    world = Topics()
    texts = [world.draw(np.random.default_rng(style), 300, style)[0] for style in (0, 1)]
    own = [set(np.unique(t[t >= FIRST + world.common])) for t in texts]
    assert not own[0] & own[1] and len(own[0] | own[1]) == world.topics * world.words
