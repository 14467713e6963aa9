"""Generated sources follow their rules; folders are read by their form."""

import json

import numpy as np
import pytest

from distill.core.errors import DistillError
from distill.language.data import GENERATED, read_folder, source, sources
from distill.language.tasks import Unigrams, flipped


@pytest.mark.parametrize("name", [*GENERATED, "python"])
def test_sources_have_the_asked_size_and_their_seed_decides(name):
    text = source(name, 500, 3)
    assert 500 <= len(text) < 700
    assert text == source(name, 500, 3) != source(name, 500, 4)


def test_generated_rules_hold():
    for line in source("arithmetic", 2000, 0).split():
        left, right = line.split("=")
        assert sum(map(int, left.split("+"))) == int(right)
    for line in source("copying", 2000, 0).split():
        assert line.split(">")[0] == line.split(">")[1]
    for line in source("chains", 2000, 0).split():
        step, digits = int(line[1]), [int(d) for d in line[3:]]
        assert all((a + step) % 10 == b for a, b in zip(digits, digits[1:], strict=False))
    for line in source("brackets", 2000, 0).split():
        while "()" in line or "[]" in line:
            line = line.replace("()", "").replace("[]", "")
        assert not line


def test_sources_are_independent_and_unknown_or_none_are_refused():
    found = sources({"prose": 300, "noise": 300}, 1)
    assert found["prose"] != sources({"prose": 300}, 2)["prose"]
    with pytest.raises(DistillError, match="no source 'poetry'"):
        source("poetry", 10, 0)
    with pytest.raises(DistillError, match="at least one"):
        sources({}, 0)


def test_a_folder_is_read_by_the_form_of_its_files(tmp_path):
    (tmp_path / "plays").mkdir()
    (tmp_path / "plays" / "one.txt").write_text("All:\nSpeak, speak.\n")
    (tmp_path / "train.jsonl").write_text(json.dumps({"question": "1+1?", "answer": "#### 2"}) + "\n")
    (tmp_path / "test.csv").write_text('text,category\n"Where, please, is my card?",card_arrival\n')
    (tmp_path / "dev.txt").write_text("In\tO\nRome\tB-city\n\nHe\tO\n")
    (tmp_path / "task.json").write_text(json.dumps({"canary": "x", "examples": [{"input": "a", "target": "b"}]}))
    (tmp_path / "names.json").write_text(json.dumps(["a", "b"]))
    corpus = read_folder(tmp_path)
    assert corpus.texts == {"plays/one": ["All:\nSpeak, speak.\n"]}
    assert corpus.pairs == {"train": [("1+1?", "#### 2")], "task": [("a", "b")]}
    assert corpus.labelled == {"test": [("Where, please, is my card?", "card_arrival")]}
    assert corpus.tagged == {"dev": [(["In", "Rome"], ["O", "B-city"]), (["He"], ["O"])]}
    assert corpus.domains()["train"] == "1+1?\n#### 2"


def test_bad_folders_are_one_sentence(tmp_path):
    with pytest.raises(DistillError, match="does not exist"):
        read_folder(tmp_path / "none")
    with pytest.raises(DistillError, match="holds no text"):
        read_folder(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"question": 1\n')
    with pytest.raises(DistillError, match="bad.jsonl, line 1"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    "rows",
    [
        "5", '{"examples": 5}', '[{"input": 5, "target": "b"}]', '[{"input": "a", "target": ["b"]}]',
        '[{"input": "a", "input": "c", "target": "b"}]', "[" * 100_000,
    ],
)  # fmt: skip
def test_json_without_pairs_of_texts_is_one_sentence(rows, tmp_path):
    (tmp_path / "task.json").write_text(rows)
    with pytest.raises(DistillError):
        read_folder(tmp_path)


def test_the_posterior_of_a_task_is_calibrated_and_flips_are_counted():
    task, rng = Unigrams(classes=5, words=30, length=6), np.random.default_rng(0)
    tokens, labels = task.draw(rng, 20_000)
    posterior = task.posterior(tokens)
    sure = posterior.max(1)
    right = posterior.argmax(1) == labels
    assert tokens.min() == 1 and tokens.max() <= 30 and posterior.sum(1) == pytest.approx(1)
    assert right.mean() == pytest.approx(sure.mean(), abs=0.01)
    assert (flipped(labels, 5, 0.2, rng) != labels).mean() == pytest.approx(0.2, abs=0.01)


def test_rows_are_read_as_their_writers_meant(tmp_path):
    rows = [
        {"text": "one\u2028line"}, {"prompt": "a", "completion": "b"}, {"question": "c", "answer": None},
        {"messages": [{"role": "user", "content": "d"}, {"role": "assistant", "content": "e"}]},
    ]  # fmt: skip
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "a.jsonl").write_text("\ufeff" + lines, encoding="utf-8")
    (tmp_path / "b.txt").write_text("\ufeffA tab\tin prose is no tag.\nAnd so on.", encoding="utf-8")
    (tmp_path / "c.csv").write_text("\ufefftext,category\nwhere is it,card\nshort\n", encoding="utf-8")
    found = read_folder(tmp_path)
    assert found.texts == {"a": ["one\u2028line"], "b": ["A tab\tin prose is no tag.\nAnd so on."]}
    assert found.pairs == {"a": [("a", "b"), ("d", "e")]} and found.labelled == {"c": [("where is it", "card")]}
    assert not found.tagged
