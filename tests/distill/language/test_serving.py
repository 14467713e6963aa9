"""What is said of vLLM from a student's folder alone."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from distill.language.encoding import TEMPLATE
from distill.language.serving import OWN, THROUGH_TRANSFORMERS, sentence, servable

SMALL = dict(vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


def folder_of(home, out, kind: str = "llama", **more):
    """A model with random weights, as a run saves its student."""
    tokenizer = AutoTokenizer.from_pretrained(home / "teacher")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(out)
    config = AutoConfig.for_model(kind, **{**SMALL, **more}, pad_token_id=0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(out)
    return out


def changed(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_lists_are_of_classes_and_do_not_overlap():
    assert not OWN & THROUGH_TRANSFORMERS and {"LlamaForCausalLM", "Qwen3ForCausalLM", "GPT2LMHeadModel"} <= OWN
    assert len(OWN) > 100 and all(name.isidentifier() for name in OWN | THROUGH_TRANSFORMERS)


@pytest.mark.parametrize(
    ("kind", "known", "more"),
    [
        ("llama", "own", {}), ("gpt2", "own", {"n_embd": 16}), ("olmo", "transformers", {}),
        ("helium", "perhaps", {"head_dim": 8}), ("rwkv", "no", {"num_hidden_layers": 2}),
    ],
)  # fmt: skip
def test_architectures_are_looked_up(kind, known, more, home, tmp_path):
    found = servable(folder_of(home, tmp_path, kind, **more))
    assert found["known"] == known and found["problems"] == [], found
    assert found["architecture"] in sentence(found) and len(sentence(found).splitlines()) == 1


@pytest.mark.parametrize("tied", [True, False])
def test_an_output_layer_is_its_own_or_the_embeddings(tied, home, tmp_path):
    folder = folder_of(home, tmp_path, tie_word_embeddings=tied)
    assert servable(folder)["problems"] == []
    changed(folder / "config.json", tie_word_embeddings=not tied)
    assert len(servable(folder)["problems"]) == 1
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}, folder / "model.safetensors")
    assert servable(folder)["problems"] == []


def test_what_is_missing_or_damaged_is_said(home, tmp_path):
    def broken(name, how):
        folder = folder_of(home, tmp_path / name)
        how(folder)
        found = servable(folder)
        assert found["problems"] and all(len(problem.splitlines()) == 1 for problem in found["problems"]), name
        return found

    broken("no config", lambda folder: (folder / "config.json").unlink())
    broken("no weights", lambda folder: (folder / "model.safetensors").unlink())
    broken("cut weights", lambda folder: (folder / "model.safetensors").write_bytes(b"abc"))
    broken("no tokenizer", lambda folder: (folder / "tokenizer.json").write_text("{"))
    broken("no template", lambda folder: (folder / "chat_template.jinja").unlink())
    broken("template", lambda folder: (folder / "chat_template.jinja").write_text("{{ messages[0].nothing.at }}"))
    broken("format", lambda folder: changed(folder / "config.json", dtype="float64"))
    broken("half", lambda folder: changed(folder / "config.json", dtype="float16", model_type="gemma2"))
    broken("vocabulary", lambda folder: changed(folder / "config.json", vocab_size=10))
    found = broken("architecture", lambda folder: changed(folder / "config.json", architectures=None))
    assert found["known"] == "no"
