"""Span taggers: answers that are read or refused, rows and spans there and back, the loss as its formula, worlds."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedTokenizerFast

from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.language.models import Shape
from distill.language.span_tagger import Asked, SpanTagger, encoder_of, spans_of, tagged_rows
from distill.language.spans import NO_FIELD, NO_JSON, NOT_FOUND, located, overlap, records, runs, split
from distill.language.text import END, PAD
from distill.language.text import words as word_tokens
from distill.methods.ade_extraction.drug_world import DrugWorld, answer, truth
from distill.methods.ade_extraction.experiment import tagger
from distill.methods.ade_extraction.method import labelled, pairs_of, parts
from distill.methods.kept import load, save
from distill.methods.universal_ner.experiment import question
from distill.methods.universal_ner.type_world import TypeWorld

SHAPE = Shape(12, 16, 1, 2, kind="encoder", context=16)
WORDS = ("a b c d", "e b f", "b b")


def encode(words: Any) -> Any:
    return ["abcdefgh".index(w) + 1 for w in words], list(range(len(words)))


def rows() -> Any:
    asked = [Asked(text.split(), [(1, 2)], [(0, 1)] if i == 0 else []) for i, text in enumerate(WORDS)]
    return tagged_rows(asked, encode, 6)


def test_what_cannot_be_read_or_found_is_counted():
    words, rejects = split("Aspirin caused a mild rash."), Counter[str]()
    said = 'Sure: [{"drug": "aspirin", "event": "mild rash"}, {"drug": "x", "event": "rash"}, {"drug": 3}, 7]'
    assert pairs_of(words, said, rejects) == {((0, 1), (3, 5))}
    assert rejects == {NOT_FOUND: 1, NO_FIELD: 2}
    assert records("none", ("drug",), rejects) == records("[1,", ("drug",), rejects) == [] and rejects[NO_JSON] == 2
    asked = labelled(words, [(0, 1), (4, 5)], said, Counter())
    assert [one.spans for one in asked] == [[(3, 5)], []]  # a drug without an event stays, as a negative
    assert located(["a", "b", "a", "b"], ["A", "b"]) == [(0, 2), (2, 4)] and located(["a"], []) == []


def test_scores_by_hand():
    truth_ = [{("d", (0, 2)), ("d", (4, 6))}, set()]
    said = [{("d", (0, 2)), ("d", (5, 6)), ("e", (4, 6))}, {("d", (1, 2))}]
    strict, lenient = overlap(truth_, said), overlap(truth_, said, lenient=True)
    assert strict == {"precision": 1 / 4, "recall": 1 / 2, "f1": 2 / 6}
    assert lenient == {"precision": 2 / 4, "recall": 2 / 2, "f1": 4 / 6}
    assert overlap([set()], [set()])["f1"] == 0.0 and runs([True, True, False, True]) == [(0, 2), (3, 4)]


def test_the_loss_is_the_binary_cross_entropy_of_the_head():
    torch.manual_seed(0)
    student = SpanTagger(SHAPE.config().to_dict()).double().eval()
    learner, objective, teacher, _ = parts(student, rows())
    batch = {name: torch.from_numpy(np.asarray(values)) for name, values in rows().items()}
    signal: Any = teacher.label(batch)
    found = objective(learner.outputs(student, batch), signal, batch["mask"]).item()
    states = student.encoder(input_ids=batch["tokens"], attention_mask=(batch["tokens"] != 0).long()).last_hidden_state
    total, count = 0.0, 0
    for i in range(3):
        asked = states[i][batch["about"][i]].mean(0)
        for t in range(6):
            if batch["mask"][i, t]:
                score = student.head.weight[0] @ torch.cat([states[i, t], asked]) + student.head.bias[0]
                total += F.binary_cross_entropy_with_logits(score, batch["tag"][i, t].double()).item()
                count += 1
    assert count == 9 and found == pytest.approx(total / count, rel=1e-6)


def test_gradients_of_the_head_are_right():
    torch.manual_seed(0)
    student = SpanTagger(SHAPE.config().to_dict()).double().eval()
    _, objective, teacher, _ = parts(student, rows())
    batch = {name: torch.from_numpy(np.asarray(values)) for name, values in rows().items()}
    signal: Any = teacher.label(batch)
    learner = parts(student, rows())[0]

    def loss(weight: torch.Tensor) -> torch.Tensor:
        called = torch.func.functional_call(student, {"head.weight": weight}, (batch["tokens"], batch["about"]))
        output = learner.outputs(lambda *_: called, batch)  # pyright: ignore[reportArgumentType]
        return objective(output, signal, batch["mask"])

    assert torch.autograd.gradcheck(loss, [student.head.weight.detach().clone().requires_grad_()])


def test_a_tagger_learns_keeps_and_finds_again(tmp_path):
    student = tagger(SHAPE, 1)
    fit(*parts(student, rows()), tmp_path / "run", steps=60, batch=3, seed=0, learning_rate=1e-2)
    assert spans_of(student, rows()) == [[(0, 1)], [], []]
    save(student, tmp_path / "student")
    again: Any = load(tmp_path / "student")
    assert spans_of(again, rows()) == [[(0, 1)], [], []]


def test_words_of_several_tokens_are_one_word_and_weights_are_taken_over():
    tokens = word_tokens(["a b c"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens.tokenizer, pad_token=PAD, eos_token=END)
    found = tagged_rows([Asked(["a", "b c", "b"], [(0, 1)], [(1, 2)])], encoder_of(tokenizer), 6, tokens.pad)
    assert found["word"].tolist() == [[0, 1, 1, 2, -1, -1]] and found["tag"].tolist() == [[0, 1, 1, 0, 0, 0]]
    assert found["mask"].tolist() == [[True, True, False, True, False, False]]
    torch.manual_seed(0)
    model = AutoModel.from_config(SHAPE.config()).eval()
    student = SpanTagger.of(model, 0).eval()
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(student.encoder(input_ids=ids).last_hidden_state, model(input_ids=ids).last_hidden_state)
    for asked in ([Asked(["a"] * 9, [(0, 1)])], [Asked(["a"], [])]):
        with pytest.raises(DistillError):
            tagged_rows(asked, encode, 6)


def test_each_labelling_model_errs_as_it_says():
    world = DrugWorld(np.random.default_rng(0))
    sentences = world.draw(np.random.default_rng(1), 500, test=True)
    scores = {}
    for noise in ("none", "independent", "systematic", "mixed"):
        said = [answer(s, noise, np.random.default_rng(i)) for i, s in enumerate(sentences)]
        found = [pairs_of(s.words, text, Counter()) for s, text in zip(sentences, said, strict=True)]
        scores[noise] = overlap(truth(sentences), found)["f1"]
        if noise == "systematic":
            assert said == [answer(s, noise, np.random.default_rng(99)) for s in sentences]
    assert scores["none"] == 1.0 and all(0.6 < scores[n] < 0.95 for n in ("independent", "systematic", "mixed"))


def test_no_made_up_word_is_one_of_a_types_name():
    for seed in range(100):
        numbers = TypeWorld(np.random.default_rng(seed)).vocabulary.values()
        assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_unseen_types_are_in_no_training_text_and_their_words_are():
    world = TypeWorld(np.random.default_rng(0))
    trained = world.draw(np.random.default_rng(1), 400)
    met = {kind for passage in trained for kind in passage.entities}
    assert not met & world.unseen and {w for k in world.unseen for w in k.split()} <= {
        w for k in met for w in k.split()
    }
    tested = {kind for passage in world.draw(np.random.default_rng(2), 400, test=True) for kind in passage.entities}
    assert world.unseen <= tested
    passage = next(p for p in trained if p.entities)
    kind, spans = next(iter(passage.entities.items()))
    asked = question(passage, kind)
    assert [asked.words[a:b] for a, b in asked.spans] == [list(passage.words[a:b]) for a, b in spans]
    noisy = world.annotated(trained, np.random.default_rng(3))
    counts = [sum(len(s) for p in part for s in p.entities.values()) for part in (trained, noisy)]
    assert 0.7 < counts[1] / counts[0] < 0.9
