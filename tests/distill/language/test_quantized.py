"""A teacher in few bits: it says nearly the same, takes less memory, and what cannot be done with it is refused."""

import importlib.util

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, MambaConfig

from distill.core.errors import DistillError
from distill.language import distil as command
from distill.language import quantized
from distill.language.models import load, packs, parameters
from distill.language.options import LanguageOptions
from distill.language.quantized import open_teacher
from sim.errors import InputError


@pytest.fixture(scope="module")
def wide(home, tmp_path_factory) -> str:
    """A teacher with rows of 64 weights, which 4 bits take on a processor."""
    folder = tmp_path_factory.mktemp("wide")
    config = AutoConfig.from_pretrained(home / "teacher")
    config.hidden_size, config.head_dim = 64, 16
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(home / "teacher").save_pretrained(folder)
    return str(folder)


def options(home, teacher: str, out, **more) -> LanguageOptions:
    given = {
        "teacher": teacher, "student": str(home / "config"), "data": (home / "chats.jsonl",), "out": out, "steps": 6,
        "rounds": 2, "length": 32, "learning_rate": 1e-2, "warmup": 0,
    }  # fmt: skip
    return LanguageOptions(**{**given, **more})


def test_a_teacher_in_few_bits_says_nearly_the_same(home, wide, tmp_path, no_pictures, capfd):
    whole = command.distil(options(home, wide, tmp_path / "whole"))
    size = whole["evaluation"]["megabytes"]["teacher"]
    for bits, share, apart in (("bf16", 0.5, 0.005), ("int8", 0.4, 0.005), ("nf4", 0.3, 0.05)):
        found = command.distil(options(home, wide, tmp_path / bits, teacher_precision=bits))
        assert found["evaluation"]["megabytes"]["teacher"] <= share * size, bits
        assert found["parameters"] == whole["parameters"] and found["data"]["packed"] and whole["data"]["packed"]
        assert found["logits"] == {"student": "in chunks", "teacher": "in chunks"}
        assert found["perplexity"]["teacher"] == pytest.approx(whole["perplexity"]["teacher"], rel=apart)
        assert found["perplexity"]["teacher"] != whole["perplexity"]["teacher"]
        assert found["perplexity"]["end"] == pytest.approx(whole["perplexity"]["end"], rel=5 * apart)
        weights = load_file(tmp_path / bits / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
        assert f"kept in {bits}" in (tmp_path / bits / "README.md").read_text()
        assert "cast" not in capfd.readouterr().err
    with pytest.raises(InputError, match="begun with teacher_precision nf4"):
        command.distil(options(home, wide, tmp_path / "nf4", teacher_precision="int8", resume=True))


def test_students_are_cut_from_half_precision_and_not_from_fewer_bits(home, wide, tmp_path, no_pictures):
    for spec in ("prune:layers=1", "prune:inner=32"):
        found = command.distil(
            options(home, wide, tmp_path / spec[6:], student=spec, teacher_precision="bf16", steps=1, rounds=1)
        )
        assert found["parameters"]["student"] < found["parameters"]["teacher"]
        weights = load_file(tmp_path / spec[6:] / "model.safetensors")
        assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    with pytest.raises(InputError, match="whole weights"):
        command.distil(options(home, wide, tmp_path / "no", student="prune:layers=1", teacher_precision="int8"))
    assert not (tmp_path / "no").exists()


def test_what_cannot_be_is_one_line(home, tmp_path, monkeypatch):
    narrow = str(home / "teacher")

    def of_no_form(**_):  # as on some processors, where a row has fewer than 64 weights
        raise RuntimeError("shape '[32, 0]' is invalid\nfor input of size 16")

    monkeypatch.setattr(quantized, "load", lambda *_, **__: of_no_form)
    with pytest.raises(DistillError) as refused:
        open_teacher(narrow, "nf4")
    assert "\n" not in str(refused.value) and narrow in str(refused.value)
    for more in ({"teacher": None, "method": "labels"}, {"teacher_url": "http://127.0.0.1:9/v1"}):
        with pytest.raises(InputError, match="teacher-precision"):
            options(home, **{"teacher": narrow, "out": tmp_path / "out", "teacher_precision": "bf16", **more})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"barkour\[quantized\]"):
        command.distil(options(home, narrow, tmp_path / "out", teacher_precision="int8"))
    assert not (tmp_path / "out").exists()


def test_models_that_mix_what_shares_a_row_are_found_in_any_precision(wide):
    torch.manual_seed(0)
    mamba = load(MambaConfig(vocab_size=300, hidden_size=64, num_hidden_layers=2, state_size=8))
    for model in (load(wide), open_teacher(wide, "bf16"), open_teacher(wide, "int8"), open_teacher(wide, "nf4")):
        assert packs(model, 256)
    assert not packs(mamba, 256) and not packs(mamba.bfloat16(), 256)


def test_numbers_that_stand_packed_are_counted(wide):
    counts = {bits: parameters(open_teacher(wide, bits)) for bits in ("float32", "bf16", "int8", "nf4")}
    assert len(set(counts.values())) == 1, counts
