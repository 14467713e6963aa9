"""Several teachers: each example is learned from the one that a column of the data names."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.divergences import ForwardKL
from distill.language import distil as command
from distill.language import teaching
from distill.language.models import Shape, build, causal
from distill.language.options import LanguageOptions
from distill.language.several import Several, named, projected_of_each
from distill.language.student import dense, projected
from sim.errors import InputError

V = 30


@pytest.fixture
def teachers() -> Several:
    return Several([build(Shape(V, 16, 1, 2), 1), build(Shape(V, 24, 2, 2), 2)])  # widths may differ


def test_each_row_is_its_own_teachers(teachers):
    generator = torch.Generator().manual_seed(0)
    batch = {"tokens": torch.randint(0, V, (5, 9), generator=generator), "teacher": torch.tensor([1, 0, 1, 1, 0])}
    mask = torch.rand(5, 8, generator=generator) < 0.7
    whole = dense(teachers, causal(V)).label(batch).logits
    for i, model in enumerate(teachers.models):
        own = batch["teacher"] == i
        torch.testing.assert_close(whole[own], causal(V)(model, {"tokens": batch["tokens"][own]}))
    scalings = [projected(model, V).label({"tokens": batch["tokens"]}).scaling for model in teachers.models]
    signal = projected_of_each(teachers, V, scalings).label(batch)
    student = torch.randn(5, 8, V, generator=generator)
    losses = [
        ForwardKL(chunk_size=60)(StudentOutput(logits=student), s, mask)
        for s in (signal, dense(teachers, causal(V)).label(batch))
    ]
    torch.testing.assert_close(*losses)
    one = {"tokens": batch["tokens"], "teacher": torch.ones(5, dtype=torch.int64)}
    alone = [
        signal.label(one).logits for signal in (projected_of_each(teachers, V, scalings), dense(teachers, causal(V)))
    ]
    torch.testing.assert_close(*alone)
    with pytest.raises(DistillError):
        dense(teachers, causal(V)).label({"tokens": batch["tokens"]})


def options(home: Path, out: Path, data: Path, **more) -> LanguageOptions:
    given = {
        "teachers": (f"good={home / 'teacher'}", f"odd={home / 'reference'}"), "student": str(home / "config"),
        "data": (data,), "out": out, "steps": 4, "rounds": 2, "length": 32, "learning_rate": 1e-2,
        "warmup": 0, "route": "whose",
    }  # fmt: skip
    return LanguageOptions(**{**given, **more})


def test_a_column_of_the_data_decides_who_teaches(home, tmp_path, monkeypatch):
    monkeypatch.setattr(Journal, "plot", lambda journal, title: None)
    monkeypatch.setattr(command, "MEASURED", 4)
    rows = [json.loads(line) for line in (home / "chats.jsonl").read_text().splitlines()]
    data = tmp_path / "rows.jsonl"

    def write(whose) -> None:
        data.write_text("\n".join(json.dumps({**row, **whose(i)}) for i, row in enumerate(rows)))

    write(lambda i: {"whose": ("good", "odd")[i % 2]} if i else {})
    run = command.prepare(options(home, tmp_path / "x", data))
    packed = run.domains[0].rows
    assert run.packed and set(packed["teacher"]) == {0, 1} and sum(run.domains[0].dropped.values()) == 2
    found = command.distil(options(home, tmp_path / "own", data, method="gkd", new_tokens=4))
    assert found.perplexity is not None and found.perplexity["end"] != found.perplexity["start"]
    assert (tmp_path / "own" / "README.md").read_text().count("(odd)")

    write(lambda i: {"whose": "odd"})  # one of two, as if it were alone
    command.distil(options(home, tmp_path / "a", data))
    alone = {"teachers": (), "teacher": str(home / "reference"), "route": "teacher"}
    command.distil(options(home, tmp_path / "b", data, **alone))
    ours, theirs = (AutoModelForCausalLM.from_pretrained(tmp_path / name).state_dict() for name in ("a", "b"))
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-4, rtol=0)

    write(lambda i: {"whose": "nobody"})
    for bad in (
        {}, {"teachers": ("good=x",)}, {"teachers": ("a", "b")}, {"teacher": str(home / "teacher")},
        {"method": "labels"}, {"method": "sequence_kd"}, {"teacher_top_k": 4}, {"route": "where"},
    ):  # fmt: skip
        with pytest.raises(InputError) as error:
            command.distil(options(home, tmp_path / "c", data, **bad))
        assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "c").exists()


def test_names_of_teachers():
    assert named(()) == {} and named(("a=x", "b=y=z")) == {"a": "x", "b": "y=z"}
    assert teaching.places("d", ["b", "a"], ["a", "b"]) == [1, 0]
    with pytest.raises(DistillError):
        named(("a=x", "a=y"))
