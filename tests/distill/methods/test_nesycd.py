"""NesyCD: three tasks and their weights, knowledge that is found, shuffled and kept, lessons from mistakes alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModel, PreTrainedTokenizerFast

from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.signals import SampledLogProbs
from distill.language.examples import Chat, Pair, Text, read_examples
from distill.language.knowledge import Entry, KnowledgeBase, mean_embedder, words
from distill.language.models import Shape, build, causal
from distill.language.text import END, PAD
from distill.language.text import words as word_tokens
from distill.methods.method import Material, TextDomain, Writing
from distill.methods.nesycd.method import METHOD, TASKS, informed, lessons, recalled, views
from distill.methods.nesycd.operator_world import OperatorWorld, counts
from distill.methods.tasks import a_view_each


def test_the_loss_is_the_weighed_sum_of_three_means():
    rng, views_ = np.random.default_rng(0), []
    for _ in TASKS:
        mask = rng.random((4, 5)) < 0.5
        mask[:, 0] = True
        views_.append({"tokens": rng.integers(9, size=(4, 6)), "mask": mask})
    model = build(Shape(9, 8, 1, 2), 1).double()
    domain = TextDomain("a", views_[0], views_[0], views=views_[1:], held_out_views=views_[1:])
    options = METHOD.settings({"weight": 0.3})
    stage = METHOD.build(Material(model, None, causal(9), [domain], Writing(5, 3, 9, [0], 0)), options)
    brought = stage.collectors[0].collect(None, CollectionPlan(0, 1.0, 4, 3)).fields
    batch = {key: torch.from_numpy(np.asarray(brought[key]))[:4] for key in ("tokens", "mask")}
    signal: Any = stage.teacher.label(batch)
    found = stage.objective(stage.student.outputs(model, batch), signal, batch["mask"]).item()
    wanted = 0.0
    for weight, view in zip((1.0, 0.3, 0.3), views_, strict=True):
        tokens, mask = torch.from_numpy(view["tokens"]), torch.from_numpy(view["mask"])
        with torch.no_grad():
            logits = model(input_ids=tokens[:, :-1]).logits
        wanted += weight * F.cross_entropy(logits[mask], tokens[:, 1:][mask]).item()
    assert found == pytest.approx(wanted, rel=1e-6)


def test_gradients_of_the_three_tasks_are_right():
    objective, _ = a_view_each(METHOD.losses(METHOD.settings({})), TASKS)
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    mask = torch.rand(2, 3, 4, generator=generator) < 0.7
    signal = {t: SampledLogProbs.labels(torch.randint(5, (2, 4), generator=generator)) for t in TASKS}
    assert torch.autograd.gradcheck(lambda z: objective(StudentOutput(logits=z), signal, mask), [logits])


def test_an_example_becomes_three_tasks_with_knowledge_where_there_is_some():
    found = views(Pair("q", "y", "c", "k"))
    assert found == [Pair("k\nq", "c y"), Pair("answer: k\nq", "y"), Pair("q", "c y")]
    assert views(Pair("q", "y", "c")) == [Pair("q", "c y"), Pair("answer: q", "y"), Pair("q", "c y")]
    said = {"system": "s", "user": "q", "assistant": "y"}
    turns = tuple({"role": role, "content": text} for role, text in said.items())
    chats: Any = views(Chat(turns, rationale="c", knowledge="k"))
    assert [chat.messages[1]["content"] for chat in chats] == ["k\nq", "answer: k\nq", "q"]
    assert [chat.messages[2]["content"] for chat in chats] == ["c y", "y", "c y"]
    assert views(Pair("q", "y")) is None and views(Text("t")) is None


def test_rows_bring_their_knowledge(tmp_path: Path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "q", "completion": "y", "rationale": "c", "knowledge": "k"}\n'
                    '{"question": "q", "answer": "y", "knowledge": "k"}\n')  # fmt: skip
    pair, chat = read_examples(path).examples
    assert isinstance(pair, Pair) and isinstance(chat, Chat) and pair.knowledge == chat.knowledge == "k"
    assert [entry.question for entry in KnowledgeBase.of([pair, chat]).entries] == ["q", "q"]


ENTRIES = [Entry("what is a zug of seven", "zug adds"), Entry("what is a fip of seven", "fip takes"), Entry("x", "no")]


def test_the_rare_word_decides_what_is_found():
    base = KnowledgeBase(ENTRIES)
    hits = base.find(["a FIP, of 9?", "zug", "nothing known"], 2)
    assert [hit[0].entry.knowledge for hit in hits[:2]] == ["fip takes", "zug adds"] and hits[2] == []
    assert hits[0][0].score > hits[0][1].score > 0
    n, k1, b = 3, 1.5, 0.75  # Lucene's formula, the library's default
    lengths = [len(words(entry.question)) for entry in ENTRIES]
    idf = np.log(1 + (n - 1 + 0.5) / (1 + 0.5))
    wanted = idf / (1 + k1 * (1 - b + b * lengths[0] / np.mean(lengths)))
    assert hits[1][0].score == pytest.approx(wanted, rel=1e-5)
    assert recalled(base, ["zug"]) == ["zug adds\nzug"] and recalled(base, ["unheard"]) == ["unheard"]
    assert informed("q") == "q"


def test_vectors_find_too_and_the_mean_is_over_what_is_there():
    tokens = word_tokens(["a b c d"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens.tokenizer, pad_token=PAD, eos_token=END)
    model = AutoModel.from_config(Shape(tokens.size, 16, 1, 2, kind="encoder").config())
    embed = mean_embedder(model, tokenizer)
    vectors = embed(["a b", "c", "a b"])
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6) and np.allclose(vectors[0], vectors[2], atol=1e-6)
    assert np.allclose(embed(["c"])[0], vectors[1], atol=1e-6)
    base = KnowledgeBase([Entry("a b", "1"), Entry("c", "2")], embed)
    assert [hits[0].entry.knowledge for hits in base.find(["c", "a b"])] == ["2", "1"]


def test_a_shuffled_base_has_the_same_texts_and_none_in_its_place(tmp_path: Path):
    base = KnowledgeBase([Entry(f"q{i}", f"k{i}") for i in range(7)])
    mixed = base.shuffled(np.random.default_rng(0))
    pairs = list(zip(base.entries, mixed.entries, strict=True))
    assert all(a.question == b.question and a.knowledge != b.knowledge for a, b in pairs)
    assert sorted(a.knowledge for a, _ in pairs) == sorted(b.knowledge for _, b in pairs)
    base.save(tmp_path / "base.jsonl")
    assert KnowledgeBase.load(tmp_path / "base.jsonl").entries == base.entries
    for content in ("[1]", '{"question": "q", "knowledge": null}', '{"question": {"a": 1}, "knowledge": "k"}'):
        (tmp_path / "bad.jsonl").write_text(content + "\n")
        with pytest.raises(DistillError):
            KnowledgeBase.load(tmp_path / "bad.jsonl")
    with pytest.raises(DistillError):
        KnowledgeBase([Entry("?", "k")])


def test_only_mistakes_are_written_about():
    wrote: list[tuple[int, str]] = []

    def write(i: int, text: str) -> str:
        wrote.append((i, text))
        return f"about {i}"

    found = lessons(["a", "b", "c"], lambda texts: [t.upper() for t in texts], lambda i, text: text != "B", write)
    assert found == ["", "about 1", ""] and wrote == [(1, "B")]


def test_the_world_has_the_tail_that_it_is_asked_for():
    world = OperatorWorld(np.random.default_rng(0), 400, 1.7)
    seen = counts(world.draw(np.random.default_rng(1), 4000))
    assert 250 < sum(seen[each] <= 3 for each in range(400)) < 350
    pair = world.pair((7, [0, 1]), "k")
    value = 7
    for each in (0, 1):
        kind, n = world.rules[each]
        value = {"adds": value + n, "takes": value - n, "turns": n - value}[kind] % 10
    told = world.knowledge([3, 0])
    assert [each for each in range(400) if world.states(told, each)] == [0, 3]
    assert not world.states(f"x{told}", 3) and world.states(f"{told}\nx to 3", 0)
    assert pair.completion == f"is {value}" and pair.rationale.endswith(f"gives {value}") and pair.knowledge == "k"
    known = set(" ".join(world.text).split())
    assert set(f"{pair.prompt} {pair.completion} {pair.rationale} {world.knowledge([0, 1])}".split()) <= known


def test_practice_has_rules_of_its_own_that_give_its_answers():
    world = OperatorWorld(np.random.default_rng(0), 40, 1.7)
    before = dict(world.rules)
    pairs = world.practice(np.random.default_rng(1), 300)
    assert world.rules == before
    drawn: set[str] = set()
    for pair in pairs:
        rules = [rule.split() for rule in pair.knowledge.split(" . ")]
        told = {name: (kind, int(number)) for name, kind, number, *_ in rules}
        names, first = pair.prompt.split(" to ")
        value = int(first)
        for name in names.split(" then "):
            kind, n = told[name]
            value = {"adds": value + n, "takes": value - n, "turns": n - value}[kind] % 10
        assert pair.completion == f"is {value}" and len(told) in (2, 3)
        drawn |= {f"{name} {told[name]}" for name in told}
    assert len(drawn) > 3 * len(world.names)  # not one rule a name
