"""Students, teachers and experience of language in the core's loop."""

import numpy as np
import pytest
import torch

from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import WeightedSum
from distill.core.objectives.divergences import CrossEntropy, ForwardKL, JensenShannon, ReverseKL, TopKKL
from distill.core.shards import Shards
from distill.core.signals import TopKLogits
from distill.core.tables import FixedDomain, RowSampler
from distill.core.teachers import RecordedLogits, Teachers
from distill.language.collect import Generated, RecordedTopK, labelled
from distill.language.evaluate import divergence, nats_per_token
from distill.language.models import Shape, build, causal
from distill.language.packing import chunks
from distill.language.student import ChunkedStudent, CompactTopK, ModelStudent, Next, TopKCache, dense, projected, top_k
from distill.language.text import byte_level, characters
from distill.language.window import WindowModel

SHAPE = Shape(12, 16, 1, 2)
READ = causal(12)


def rows(count: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    return chunks(np.random.default_rng(seed).integers(0, 12, count * 8 + 1), 8)


def test_a_student_learns_its_text(tmp_path):
    text = chunks([3, 5, 7, 2] * 60, 8)
    student = ModelStudent(build(SHAPE, 1), READ)
    before = nats_per_token(student.module, READ, text)
    summary = fit(
        student, CrossEntropy(), Next(), [FixedDomain("text", text)], tmp_path / "run", steps=60, batch=8, seed=0,
        rounds=3, learning_rate=2e-2,
        evaluate=lambda s: {"golden": -nats_per_token(s.module, READ, text)},
    )  # fmt: skip
    assert nats_per_token(student.module, READ, text) < 0.2 < 1.5 < before
    assert [m["step"] for m in summary["measured"]] == [20, 40, 60]
    assert not (tmp_path / "run").exists()


def test_chunked_logits_give_the_same_loss_and_gradient():
    model = build(Shape(16, 16, 1, 2), 1)  # four ids of padding
    batch = {name: torch.from_numpy(values[:6]) for name, values in rows().items()}
    signal = Next().label(batch)
    losses, gradients = [], []
    for student in (ModelStudent(model, READ), ChunkedStudent(model, 12)):
        model.zero_grad()
        loss = CrossEntropy(chunk_size=60)(student.outputs(model, batch), signal, batch["mask"])
        loss.backward()
        losses.append(loss.item())
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters()})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    for name, wanted in gradients[0].items():
        assert torch.allclose(gradients[1][name], wanted, atol=1e-6)


def test_a_projected_teacher_says_what_its_logits_say():
    teacher, model = build(Shape(16, 24, 1, 2), 9), build(SHAPE, 1)
    batch = {name: torch.from_numpy(values[:6]) for name, values in rows().items()}
    student = ChunkedStudent(model, 12).outputs(model, batch)
    found = [JensenShannon()(student, t.label(batch)) for t in (projected(teacher, 12), dense(teacher, READ))]
    torch.testing.assert_close(*found)
    with pytest.raises(DistillError, match="not for files"):
        projected(teacher, 12).label(batch).tensors()
    biased = build(SHAPE, 2)
    biased.lm_head.bias = torch.nn.Parameter(torch.linspace(-3, 3, 12))
    assert torch.allclose(projected(biased, 12).label(batch).logits, READ(biased, batch), atol=1e-6)


def test_recorded_logits_and_a_live_teacher_teach_alike(tmp_path):
    teacher, table, found = build(SHAPE, 9), rows(), []
    with torch.no_grad():
        logits = READ(teacher, {"tokens": torch.from_numpy(table["tokens"])}).numpy()
    for labels in (dense(teacher, READ), RecordedLogits()):
        student = ModelStudent(build(SHAPE, 1), READ)
        source = FixedDomain("text", {**table, "logits": logits})
        fit(student, ForwardKL(), labels, [source], tmp_path / "run", steps=10, batch=8, seed=0)
        found.append(student.module.lm_head.weight.detach().clone())
    assert torch.allclose(*found, atol=1e-6)


def test_labels_and_teacher_are_weighed_together(tmp_path):
    teacher, student = build(SHAPE, 9), ModelStudent(build(SHAPE, 1), READ)
    objective = WeightedSum({"labels": (0.0, CrossEntropy()), "teacher": (1.0, ForwardKL())})
    before = divergence(teacher, student.module, READ, rows())
    teachers = Teachers({"labels": Next(), "teacher": dense(teacher, READ)})
    fit(
        student,
        objective,
        teachers,
        [FixedDomain("text", rows())],
        tmp_path / "run",
        steps=60,
        batch=16,
        seed=0,
        learning_rate=2e-2,
    )
    assert divergence(teacher, student.module, READ, rows()) < 0.3 * before


# --- top-k ----------------------------------------------------------------------------------------------------------


def test_compact_top_k_comes_back_from_disk_as_it_was_said(tmp_path):
    cache = TopKCache(top_k(build(SHAPE, 2), READ, 4), tmp_path, characters(["abc"]))
    batch = {"tokens": torch.from_numpy(rows()["tokens"])}
    first, again = cache.label(batch), cache.label(batch)
    assert isinstance(first, TopKLogits) and (cache.hits, cache.misses) == (1, 1)
    for name in ("log_probs", "indices", "tail"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    exact = TopKLogits.from_logits(READ(build(SHAPE, 2), batch), 4)
    assert (first.log_probs - exact.log_probs).abs().max() < 2e-3
    assert torch.equal(first.indices, exact.indices)


def test_a_cache_is_compact_and_reused_by_the_next_student(tmp_path):
    table, tokens = rows(256), byte_level()
    teacher = top_k(build(SHAPE, 2), READ, 3)
    first = TopKCache(teacher, tmp_path, tokens)
    found = labelled(table, first)
    assert first.bytes_per_token() < 3 * 6 + 2 + 3, "the rest is the files' heads"
    second = TopKCache(teacher, tmp_path, tokens)
    again = labelled(table, second)
    assert second.misses == 0 and second.hits == first.misses == 4
    for name, values in found.items():
        assert np.array_equal(values, again[name])


def test_a_student_learns_from_recorded_top_k(tmp_path):
    teacher, student = build(SHAPE, 2), ModelStudent(build(SHAPE, 1), READ)
    source = FixedDomain("text", labelled(rows(), top_k(teacher, READ, 6)))
    before = divergence(teacher, student.module, READ, rows())
    fit(student, TopKKL(), RecordedTopK(), [source], tmp_path / "run", steps=60, batch=16, seed=0, learning_rate=2e-2)
    assert divergence(teacher, student.module, READ, rows()) < 0.4 * before


def test_caches_of_others_and_too_large_k_are_refused(tmp_path):
    teacher, tokens = top_k(build(SHAPE, 2), READ, 3), characters(["abc"])
    TopKCache(teacher, tmp_path, tokens)
    with pytest.raises(DistillError, match="another tokenizer"):
        TopKCache(teacher, tmp_path, characters(["abcd"]))
    with pytest.raises(DistillError, match="another teacher"):
        TopKCache(top_k(build(SHAPE, 3), READ, 3), tmp_path, tokens)
    with pytest.raises(DistillError, match="vocabulary of 12, got 13"):
        top_k(build(SHAPE, 2), READ, 13).label({"tokens": torch.ones(1, 3, dtype=torch.int64)})


def test_a_damaged_file_of_the_cache_is_made_again(tmp_path):
    cache = TopKCache(top_k(build(SHAPE, 2), READ, 3), tmp_path, characters(["abc"]))
    batch = {"tokens": torch.from_numpy(rows()["tokens"])}
    wanted = cache.label(batch)
    path = cache.path(batch)
    path.write_bytes(path.read_bytes()[:-4] + b"oops")
    assert torch.equal(cache.label(batch).log_probs, wanted.log_probs) and cache.misses == 2


def test_compact_top_k_refuses_other_names():
    with pytest.raises(DistillError, match="stored otherwise"):
        CompactTopK.from_tensors({"log_probs": torch.zeros(1, 1)})


# --- experience -----------------------------------------------------------------------------------------------------


def test_teacher_and_student_write_their_shares():
    teacher, student = WindowModel(6, 1, 4, 1), WindowModel(6, 1, 4, 2)
    with torch.no_grad():
        teacher.last.bias[:], student.last.bias[:] = torch.eye(6)[4] * 99, torch.eye(6)[5] * 99
    prompts = np.zeros((3, 2), np.int64)
    found = Generated("text", prompts, teacher, student, 3, 6).collect(None, CollectionPlan(0, 0.25, 8, 0))
    written = found.fields["tokens"][:, 2:]
    assert (written == 4).all(1).sum() == 2 and (written == 5).all(1).sum() == 6
    assert found.fields["mask"].tolist() == [[False, True, True, True]] * 8


def test_on_policy_distillation_renews_its_texts_and_learns(tmp_path):
    teacher, model = WindowModel(6, 2, 16, 1, 3.0), WindowModel(6, 2, 16, 2)
    read, prompts = causal(6), np.random.default_rng(0).integers(0, 6, (16, 2))
    test = Generated("test", prompts, teacher, model, 6, 6).collect(None, CollectionPlan(0, 1.0, 64, 5)).fields
    before = divergence(teacher, model, read, test)
    summary = fit(
        ModelStudent(model, read), ReverseKL(), dense(teacher, read),
        [Generated("text", prompts, teacher, model, 6, 6)], tmp_path / "run", steps=90, batch=16, seed=0, rounds=3,
        rows=64, beta=0.0, sampler=RowSampler(newest=True), learning_rate=1e-2, keep=True,
    )  # fmt: skip
    assert divergence(teacher, model, read, test) < 0.5 * before
    shards = Shards(tmp_path / "run" / "data")
    assert len(shards) == summary["rounds"] == 3 and {s.about["beta"] for s in shards.shards} == {0.0}


def test_a_domain_without_prompts_is_one_sentence():
    with pytest.raises(DistillError, match="no prompts"):
        Generated("a", np.zeros((0, 2), np.int64), None, None, 1, 5)


def test_a_loss_that_is_not_finite_is_one_sentence(tmp_path):
    student = ModelStudent(build(SHAPE, 1), READ)
    with torch.no_grad():
        student.module.model.norm.weight.fill_(float("nan"))
    with pytest.raises(DistillError, match="loss is nan"):
        fit(student, CrossEntropy(), Next(), [FixedDomain("a", rows())], tmp_path / "run", steps=3, batch=4, seed=0)


# --- what a cache is of ----------------------------------------------------------------------------------------------


def configured(**more):
    from transformers import AutoModelForCausalLM, GPT2Config

    torch.manual_seed(0)
    sizes = {"vocab_size": 12, "n_embd": 16, "n_layer": 1, "n_head": 2, "bos_token_id": 0, "eos_token_id": 1}
    return AutoModelForCausalLM.from_config(GPT2Config(**sizes, **more)).eval()


def test_a_cache_is_of_a_config_and_a_precision_too(tmp_path):
    first = top_k(configured(), READ, 3)
    TopKCache(first, tmp_path, byte_level())
    with pytest.raises(DistillError, match="another teacher"):  # the same weights, attention scaled otherwise
        TopKCache(top_k(configured(scale_attn_by_inverse_layer_idx=True), READ, 3), tmp_path, byte_level())
    assert first.fingerprint() == top_k(configured(), READ, 3).fingerprint()
    plain = first.fingerprint()
    with torch.autocast("cpu", torch.bfloat16):
        assert first.fingerprint() != plain
    assert first.fingerprint() == plain


def test_rotary_frequencies_that_follow_the_length_are_no_change_of_the_teacher():
    from transformers import AutoModelForCausalLM, LlamaConfig

    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = LlamaConfig(vocab_size=12, max_position_embeddings=8, rope_parameters=rope, **sizes)
    teacher = dense(AutoModelForCausalLM.from_config(config).eval(), READ)
    before = teacher.fingerprint()
    short = {"tokens": torch.arange(7)[None]}
    first = teacher.label(short).logits
    teacher.label({"tokens": torch.arange(24)[None] % 12})
    assert torch.equal(teacher.label(short).logits, first) and teacher.fingerprint() == before


@pytest.mark.parametrize(("k", "ruled_out"), [(12, 0), (6, 6), (8, 6)])
def test_top_k_of_everything_that_is_possible_is_trained_on(tmp_path, k, ruled_out):
    teacher, student = build(SHAPE, 2), build(SHAPE, 1)

    def read(module, batch):
        logits = READ(module, batch).clone()
        logits[..., 12 - ruled_out :] = -torch.inf
        return logits

    table = labelled(rows(), top_k(teacher, read, k))
    batch = {name: torch.from_numpy(values) for name, values in table.items()}
    exact = TopKLogits.from_logits(read(teacher, batch), k)
    recorded = RecordedTopK().label(batch)
    assert torch.equal(recorded.tail.isneginf(), exact.tail.isneginf())
    student = ModelStudent(student, READ)
    for direction in ("forward", "reverse"):
        found = [TopKKL(direction=direction)(student.outputs(student.module, batch), s) for s in (recorded, exact)]
        assert found[0].item() == pytest.approx(found[1].item(), rel=1e-2)
    fit(student, TopKKL(), RecordedTopK(), [FixedDomain("a", table)], tmp_path / "run", steps=2, batch=8, seed=0)
