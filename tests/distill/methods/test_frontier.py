"""Answers without thoughts: what is read, what is refused, and answers made as wrong as others."""

import json
from collections import Counter

import numpy as np
import pytest

from distill.core.errors import DistillError
from distill.language.examples import Chat, Pair, Text
from distill.methods.framework import Trial
from distill.methods.frontier_synthetic import experiment
from distill.methods.frontier_synthetic.experiment import DIRECT, STEPS, Lab, Settings
from distill.methods.frontier_synthetic.method import METHOD, stripped, target


def test_the_answer_is_read_out_of_what_the_teacher_wrote():
    rejects: Counter[str] = Counter()
    assert target('Here: {"reason": "2 and 2", "answer": 4} ok', rejects) == "4"
    assert target('{"reason": "r", "answer": "a"}', rejects, "reason and answer") == "r a"
    for bad in ("none", "{1", '{"answer": "a"}', '{"reason": " ", "answer": "a"}', '{"reason": "r", "answer": true}'):
        assert target(bad, rejects) is None
    assert sum(rejects.values()) == 5


def test_rows_that_cannot_be_read_are_none_and_too_many_stop_the_run():
    rng, options = np.random.default_rng(0), METHOD.settings({})
    good, bad = json.dumps({"reason": "r", "answer": "a"}), "nothing"
    turns = ({"role": "user", "content": "q"}, {"role": "assistant", "content": good})
    found = stripped([Pair("p", good), Chat(turns), Pair("q", good), Pair("p", bad)], rng, options)
    assert found[0] == Pair("p", "a") and isinstance(found[1], Chat) and found[3] is None
    assert found[1].messages == (turns[0], {"role": "assistant", "content": "a"})
    with pytest.raises(DistillError, match="1 can be read"):
        stripped([Pair("p", good), Pair("p", bad), Text("t")], rng, options)


def test_an_answer_that_ends_as_it_should_is_right(tmp_path, monkeypatch):
    sizes = {"teacher_questions": 12, "teacher_steps": 1, "weak_steps": 1, "questions": 20, "test": 4, "more": 4}
    lab = Lab(Trial(0, tmp_path, Settings(**sizes)))
    known = {tuple(lab.tokens.encode(q)): y for q, y in map(lab.direct, lab.asked)}
    known |= {tuple(lab.tokens.encode(f"{STEPS} {q}")): y for q, y in map(lab.steps, lab.asked)}

    def written(model, prompts, *rest, **options):
        return [[*lab.tokens.encode(known[tuple(prompt)]), lab.tokens.end] for prompt in prompts]

    monkeypatch.setattr(experiment, "answers", written)
    assert lab.right(lab.said(lab.teacher, [lab.direct(q)[0] for q in lab.asked])[0], lab.asked).all()
    assert lab.right(lab.annotated(lab.asked, STEPS), lab.asked).all()


def test_worsened_answers_are_as_wrong_as_the_weaker_ones(tmp_path):
    sizes = {"teacher_questions": 12, "teacher_steps": 1, "weak_steps": 1, "questions": 60, "test": 4, "more": 4}
    lab = Lab(Trial(0, tmp_path, Settings(**sizes)))
    true = [lab.direct(q)[1] for q in lab.asked]
    weak = ["is even" if i % 2 else text for i, text in enumerate(true)]
    lab.answers = {STEPS: list(true), DIRECT: weak}
    wrong = (lab.right(weak, lab.asked) == 0).sum()
    for kind in ("flipped", "confused"):
        found = lab.worsened(kind)
        missed = [text for text, truth in zip(found, true, strict=True) if text != truth]
        assert len(missed) == wrong > 10
        if kind == "confused":
            known = {t for t, w in zip(true, weak, strict=True) if t != w}
            pairs = zip(found, true, strict=True)
            assert all(text == "is even" for text, truth in pairs if text != truth and truth in known)
    assert not {q for q, _ in map(lab.direct, lab.asked)} & {q for q, _ in map(lab.direct, lab.test)}
