"""Small models, generation, and measures, against slow and plain ways to the same numbers."""

import json
import math
import os
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import torch

from distill.core.errors import DistillError
from distill.language import places
from distill.language.evaluate import (
    accuracy,
    calibration_error,
    divergence,
    f1_scores,
    log_probs,
    macro_f1,
    nats_per_token,
)
from distill.language.generation import generate
from distill.language.labelled import Reader, classifier_of
from distill.language.models import Shape, build, causal, classifier, load, parameters, sequence_to_sequence, sharding
from distill.language.pruning import importance, pruned
from distill.language.students import open_tokenizer
from distill.language.text import published
from distill.language.window import WindowModel
from distill.methods import kept

SHAPE = Shape(20, 16, 2, 2)


def test_equal_seeds_give_equal_models_and_others_differ():
    first, second, other = build(SHAPE, 1), build(SHAPE, 1), build(SHAPE, 2)
    for mine, same in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(mine, same)
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_parameters_without_embeddings_are_those_of_the_blocks_and_norms():
    width = 16
    assert parameters(build(SHAPE), embeddings=False) == 2 * (10 * width**2 + 2 * width) + width
    assert parameters(build(SHAPE)) == parameters(build(SHAPE), embeddings=False) + 20 * width


def test_an_encoder_reads_classes_and_ignores_padding():
    model, read = build(Shape(20, 16, 1, 2, kind="encoder", classes=3)), classifier(0)
    short, long = torch.tensor([[3, 4]]), torch.tensor([[3, 4, 0, 0]])
    with torch.no_grad():
        assert torch.allclose(read(model, {"tokens": short}), read(model, {"tokens": long}), atol=1e-6)


def test_an_encoder_decoder_reads_the_next_tokens():
    model = build(Shape(20, 16, 1, 2, kind="encoder-decoder"))
    batch = {"inputs": torch.tensor([[3, 4, 0]]), "tokens": torch.tensor([[0, 5, 6]])}
    assert sequence_to_sequence(20)(model, batch).shape == (1, 2, 20)


def test_impossible_shapes_and_missing_models_are_one_sentence(tmp_path):
    with pytest.raises(DistillError, match="width 16 with 3 heads"):
        build(Shape(20, 16, 2, 3))
    with pytest.raises(DistillError, match="cannot be loaded"):
        load(str(tmp_path))


def _without(weights, word):
    return {name: weight for name, weight in weights.items() if word not in name}


@pytest.mark.parametrize("kind", ["causal", "encoder", "tagger", "masked"])
@pytest.mark.parametrize(
    "change",
    [
        lambda weights: {f"_orig_mod.{name}": weight for name, weight in weights.items()},
        lambda weights: {f"module.{name}": weight for name, weight in weights.items()},
        lambda weights: _without(weights, "attention" if any("attention" in name for name in weights) else "attn"),
        lambda weights: {name: weight * (math.nan if "1" in name else 1) for name, weight in weights.items()},
        lambda weights: {name: torch.cat([weight, weight]) for name, weight in weights.items()},
    ],
    ids=["compiled", "wrapped", "cut", "nan", "larger"],
)
def test_weights_that_would_be_random_or_nonsense_are_refused_by_their_names(kind, change, tmp_path):
    build(Shape(20, 16, 2, 2, kind=kind)).save_pretrained(tmp_path)
    assert load(tmp_path, kind)
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file, {"format": "pt"})
    with pytest.raises(DistillError, match=r"such as \S+\.|: \S+\.\S+ is") as error:
        load(tmp_path, kind)
    assert "\n" not in str(error.value)
    if kind == "encoder":
        with pytest.raises(DistillError):
            classifier_of(str(tmp_path), ["a", "b"], 0, 0)


@pytest.mark.parametrize(
    "name", ["a/b/c", "no such", "~/model", "../up", "x.gguf", "pipe", "file", "loop", "/dev/zero"]
)
def test_what_is_no_folder_and_no_name_is_refused_without_asking_the_hub(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(places, "_unreachable", lambda _: pytest.fail("the hub was asked"))
    os.mkfifo("pipe")
    Path("file").write_text("x")
    Path("loop").symlink_to("loop")
    for opened in (load, open_tokenizer, published, lambda name: Reader(name, 8)):
        with pytest.raises(DistillError) as error:
            opened(name)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"])
@pytest.mark.parametrize("how", ["pipe", "device", "folder", "link to nothing", "huge"])
def test_a_folder_with_what_would_be_read_for_ever_is_refused_at_once(name, how, tmp_path, spoil):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    path = tmp_path / name
    spoil(path, how)
    if how == "huge" and path.suffix == ".safetensors":
        places.check_place(tmp_path)
        return
    for opened in (load, open_tokenizer, published, lambda place: Reader(place, 8)):
        with pytest.raises(DistillError, match=name):
            opened(str(tmp_path))
    with pytest.raises(DistillError, match=name):
        kept.load(tmp_path)


def test_what_ends_an_answer_must_be_readable(tmp_path):
    build(SHAPE).save_pretrained(tmp_path)
    for text in ('{"eos_token_id": ', "[1]", "\0"):
        (tmp_path / "generation_config.json").write_text(text)
        with pytest.raises(DistillError, match=r"generation_config\.json"):
            load(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("n_embd", "x"), ("n_layer", None), ("n_head", [1]), ("vocab_size", -3)])
def test_a_config_of_other_types_is_one_sentence(name, value, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", name: value}))
    with pytest.raises(DistillError, match="cannot be loaded") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_a_name_is_looked_for_in_the_cache_where_the_hub_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(places, "_unreachable", lambda _: "no such host")
    with pytest.raises(DistillError, match="cannot be reached: no such host"):
        load("somebody/not-in-the-cache")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: "/cache/config.json")
    places.check_place("somebody/in-the-cache")
    assert huggingface_hub.is_offline_mode()


def test_a_model_is_read_from_a_folder(tmp_path):
    model = build(SHAPE, 3)
    model.save_pretrained(tmp_path)
    again = load(str(tmp_path))
    batch = {"tokens": torch.randint(3, 20, (2, 9))}
    with torch.no_grad():
        assert torch.equal(causal(20)(model, batch), causal(20)(again, batch))


def test_padded_vocabularies_are_cut_to_the_tokenizers_and_small_ones_refused():
    batch = {"tokens": torch.randint(3, 20, (2, 9))}
    for size in (20, 24, 32):
        assert causal(20)(build(Shape(size, 16, 1, 2)), batch).shape == (2, 8, 20)
    with pytest.raises(DistillError, match="knows 16 tokens"):
        causal(20)(build(Shape(16, 16, 1, 2)), {"tokens": torch.ones(1, 3, dtype=torch.int64)})


# --- generation -----------------------------------------------------------------------------------------------------


WINDOWS = [WindowModel(20, 3, 8, 1, scale=2.0, prefix=prefix) for prefix in (0, 2, 6)]


@pytest.mark.parametrize("model", [build(SHAPE, 1), *WINDOWS])
def test_the_cache_changes_nothing_about_the_likeliest_text(model):
    prompts = torch.randint(0, 20, (5, 4), generator=torch.Generator().manual_seed(0))
    found, mask = generate(model, prompts, 6, 20, seed=0, temperature=0)
    slow = prompts
    for _ in range(6):
        with torch.no_grad():
            slow = torch.cat([slow, model(input_ids=slow).logits[:, -1].argmax(-1, keepdim=True)], 1)
    assert torch.equal(found, slow)
    assert mask.tolist() == [[False] * 3 + [True] * 6] * 5


def test_a_prefix_is_seen_at_every_position_and_nothing_that_comes_later_is():
    model = WindowModel(20, 2, 8, 1, scale=2.0, prefix=3)
    rows = torch.arange(8)[None]
    with torch.no_grad():
        plain = model(input_ids=rows).logits
        for place in range(8):
            other = rows.clone()
            other[0, place] = 19
            changed = (model(input_ids=other).logits != plain).any(-1)[0].tolist()
            seen = range(place, 8) if place < 3 else range(place, min(place + 2, 8))
            assert changed == [t in seen for t in range(8)]


def test_sampling_follows_the_softmax_and_its_seed_alone():
    model = WindowModel(4, 1, 8, 5, scale=2.0)
    prompts = torch.zeros(20_000, 1, dtype=torch.int64)
    found, _ = generate(model, prompts, 1, 4, seed=1)
    torch.manual_seed(123)
    assert torch.equal(found, generate(model, prompts, 1, 4, seed=1)[0])
    assert not torch.equal(found, generate(model, prompts, 1, 4, seed=2)[0])
    with torch.no_grad():
        wanted = model(prompts[:1]).logits[0, -1].softmax(-1)
    shares = torch.bincount(found[:, 1], minlength=4) / len(prompts)
    assert (shares - wanted).abs().max() < 0.015


def test_after_the_end_there_is_padding_that_does_not_count():
    model = WindowModel(5, 1, 8, 5)
    tokens, mask = generate(model, torch.full((200, 2), 3), 8, 5, seed=0, end=4, pad=0)
    for row, counts in zip(tokens[:, 2:].tolist(), mask[:, 1:].tolist(), strict=True):
        last = row.index(4) if 4 in row else len(row) - 1
        assert set(row[last + 1 :]) <= {0}
        assert counts == [i <= last for i in range(8)]


def test_impossible_generation_is_one_sentence():
    model = WindowModel(5, 1, 8, 5)
    with pytest.raises(DistillError, match="cannot generate 0 tokens"):
        generate(model, torch.ones(1, 1, dtype=torch.int64), 0, 5, seed=0)
    with torch.no_grad():
        model.last.bias.fill_(float("nan"))
    with pytest.raises(DistillError, match="not finite"):
        generate(model, torch.ones(1, 1, dtype=torch.int64), 1, 5, seed=0)


# --- measures -------------------------------------------------------------------------------------------------------


def test_cross_entropy_counts_the_masked_tokens_alone():
    model, read = build(SHAPE, 4), causal(20)
    tokens = np.random.default_rng(0).integers(0, 20, (7, 6))
    mask = np.random.default_rng(1).random((7, 5)) < 0.5
    total, count = log_probs(model, read, {"tokens": tokens, "mask": mask}, size=3)
    with torch.no_grad():
        each = read(model, {"tokens": torch.from_numpy(tokens)}).log_softmax(-1)
    wanted = [sum(each[i, t, tokens[i, t + 1]].item() for t in range(5) if mask[i, t]) for i in range(7)]
    assert total == pytest.approx(wanted, abs=1e-4) and count.tolist() == mask.sum(1).tolist()
    assert nats_per_token(model, read, {"tokens": tokens, "mask": mask}) == pytest.approx(-sum(wanted) / mask.sum())
    with pytest.raises(DistillError, match="no token counts"):
        nats_per_token(model, read, {"tokens": tokens, "mask": np.zeros_like(mask)})


def test_the_divergence_has_a_direction_and_is_zero_for_equal_models():
    first, second, read = WindowModel(6, 2, 8, 1, 2.0), WindowModel(6, 2, 8, 2, 2.0), causal(6)
    rows = {"tokens": np.random.default_rng(0).integers(0, 6, (9, 5)), "mask": np.ones((9, 4), bool)}
    assert divergence(first, first, read, rows) == pytest.approx(0, abs=1e-6)
    forward, backward = divergence(first, second, read, rows), divergence(second, first, read, rows)
    assert forward > 0.1 and abs(forward - backward) > 1e-3
    assert divergence(first, second, read, rows, "reverse") == pytest.approx(backward)


def test_calibration_error_and_f1_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65], [0.35, 0.65]])
    labels = np.array([0, 1, 1, 1])
    assert accuracy(probabilities, labels) == 0.75
    assert calibration_error(probabilities, labels) == pytest.approx((2 * 0.45 + 2 * 0.35) / 4)
    assert f1_scores(probabilities.argmax(1), labels, 3).tolist() == pytest.approx([2 / 3, 0.8, 0.0])
    assert macro_f1(probabilities.argmax(1), labels, 3) == pytest.approx((2 / 3 + 0.8) / 2)


# --- pruning --------------------------------------------------------------------------------------------------------


def batches(count: int = 2):
    generator = torch.Generator().manual_seed(0)
    return [{"tokens": torch.randint(0, 20, (4, 9), generator=generator)} for _ in range(count)]


def test_pruning_nothing_changes_nothing():
    model = build(Shape(20, 16, 2, 2), 5)
    same = pruned(model, importance(model, batches()), Shape(20, 16, 2, 2))
    with torch.no_grad():
        assert torch.allclose(causal(20)(model, batches()[0]), causal(20)(same, batches()[0]), atol=1e-6)


def test_what_does_nothing_is_pruned_first_and_without_loss():
    model = build(Shape(20, 16, 2, 2), 5)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight[:, 8:] = 0  # the second head says nothing
            layer.mlp.down_proj.weight[:, 3] = 0
    found = importance(model, batches())
    assert (found.heads[:, 1] == 0).all() and (found.heads[:, 0] > 0).all()
    assert (found.neurons[:, 3] == 0).all() and (found.neurons > 0).sum() == 2 * 31
    small = pruned(model, found, Shape(20, 8, 2, 1, inner=16))
    assert parameters(small) < parameters(model) / 3
    with pytest.raises(DistillError, match="keeps the layers"):
        pruned(model, found, Shape(20, 8, 1, 1))


def test_a_gate_is_the_derivative_with_respect_to_a_factor_of_1():
    model = build(Shape(20, 16, 1, 2), 5)
    batch = batches(1)
    found = importance(model, batch)

    def loss(factor: float) -> float:
        changed = build(Shape(20, 16, 1, 2), 5)
        with torch.no_grad():
            changed.model.layers[0].mlp.down_proj.weight[:, 4] *= factor
            logits = causal(20)(changed, batch[0])
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[0]["tokens"][:, 1:].flatten()).item()

    slope = (loss(1.05) - loss(0.95)) / 0.1
    assert found.neurons[0, 4].item() == pytest.approx(abs(slope), rel=0.1, abs=2e-6)


# --- plans ----------------------------------------------------------------------------------------------------------


def test_a_plan_counts_a_model_of_billions_without_weights():
    shape = Shape(32000, 4096, 32, 32, 11008, 4096, tied=False)
    plan = sharding(shape, devices=8, gigabytes=80)
    assert plan["parameters"] == 6_738_415_616, "Llama 2 7B"
    assert plan["layers"] == 32 and plan["fits"] and plan["trains"]
    assert not sharding(shape, devices=1, gigabytes=8)["fits"]
    with pytest.raises(DistillError, match="devices with memory"):
        sharding(shape, devices=0, gigabytes=80)
