"""Real sentences as vectors, and the experiments that learn from them, on a tiny encoder and tables made here."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from transformers import BertConfig, BertModel, BertTokenizerFast

from distill.core.errors import DistillError
from distill.language.data import read_folder
from distill.methods import catalogue
from distill.methods import run as experiments
from distill.methods.framework import Trial
from distill.methods.kept import load
from distill.methods.labs import feature_lab
from distill.methods.labs.feature_lab import Sentences, few_classes, labelled, vectors, word_counts
from distill.methods.options import ExperimentOptions

CLASSES = ("cash", "card", "loan", "rate")
WORDS = [*CLASSES, "my", "the", "where", "is"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A folder with a random BERT of two layers and its tokenizer."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    sizes: Any = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=5 + len(WORDS), max_position_embeddings=66, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Labelled tables of four classes, each with a word of its own."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for split, count in (("train", 30), ("test", 12)):
        rows = [
            f"{' '.join(rng.permutation([name, *rng.choice(WORDS[4:], 3)]))} {i},{name}"
            for name in CLASSES
            for i in range(count)
        ]
        (folder / f"{split}.csv").write_text("\n".join(["text,category", *rows]))
    return folder


def test_a_vector_is_the_mean_of_the_last_states_whatever_stands_beside_it(encoder):
    texts = ["where is my card", "cash", "the rate is the rate is the rate"]
    found = vectors(texts, encoder, size=2)
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    for text, vector in zip(texts, found, strict=True):
        assert vectors([text], encoder)[0] == pytest.approx(vector, abs=1e-5), "padding counts for nothing"
    with pytest.raises(DistillError, match="cannot be loaded"):
        vectors(["a"], encoder + "/none")


def test_vectors_are_kept_for_the_next_seed(encoder, data, tmp_path, monkeypatch):
    trial = Trial(0, tmp_path / "recipe" / "seed_0", corpus=read_folder(data))
    train, test, names = labelled(trial, encoder, most=(10, 5))
    assert names == sorted(CLASSES) and np.bincount(train.label).tolist() == [10] * 4 and len(test.label) == 20
    monkeypatch.setattr(feature_lab, "vectors", None)
    again = labelled(Trial(1, tmp_path / "recipe" / "seed_1", corpus=read_folder(data)), encoder, most=(10, 5))
    assert (again[0].x == train.x).all() and (again[1].label == test.label).all()
    with pytest.raises(DistillError, match="splits train and test"):
        labelled(Trial(0, tmp_path), encoder)


def test_fewer_classes_are_numbered_alike_in_both_sets():
    sets = [Sentences(np.repeat(np.arange(4.0), n)[:, None], np.repeat(np.arange(4), n)) for n in (3, 2)]
    train, test = few_classes(sets, 2, np.random.default_rng(1))
    assert [len(train.label), len(test.label)] == [6, 4] and set(train.label) == set(test.label) == {0, 1}
    assert {(x, c) for x, c in zip(train.x[:, 0], train.label, strict=True)} == {
        (x, c) for x, c in zip(test.x[:, 0], test.label, strict=True)
    }
    with pytest.raises(DistillError, match="5 classes"):
        few_classes(sets, 5, np.random.default_rng(0))


def test_words_are_counted():
    assert word_counts(np.array([[1, 2, 2, 2]]), 4).tolist() == [[0, 0.5, 1.5, 0]]


@pytest.mark.parametrize("name", [name for name in catalogue.NAMES if "real-small" in catalogue.find(name).presets])
def test_an_experiment_runs_on_real_sentences(name, encoder, data, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_lab, "located", lambda published: encoder)
    recipe = catalogue.find(name)
    few = replace(recipe.presets["real-small"], classes=4)
    recipe = replace(recipe, presets={**recipe.presets, "real-small": few})
    options = ExperimentOptions(
        out=tmp_path, preset="real-small", data=data, seeds=1, seed=1, budget=0.02, workers=1, save=True
    )
    result = experiments.run(recipe, options, Console(quiet=True))
    json.dumps(result, allow_nan=False)
    assert result["out"].endswith(f"{name}_real-small") and result["claims"][0]["verdict"] == "undecided"
    students = list((tmp_path / f"{name}_real-small").rglob("model.safetensors"))
    assert {path.relative_to(tmp_path).parts[3] for path in students} == {a.replace(" ", "_") for a in result["arms"]}
    assert all(sum(p.numel() for p in load(path.parent).parameters()) > 10 for path in students)
