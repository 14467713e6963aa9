"""`barkour distill classifier`: own classifiers and labelled texts in, a folder that transformers loads out."""

import csv
import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

import barkour
from distill.core.objectives.base import StudentOutput, WeightedSum
from distill.core.signals import DenseLogits, SampledLogProbs
from distill.language import classify as command
from distill.language.labelled import classes_of, held_out_places
from distill.language.options import ClassifierOptions
from distill.language.text import END, PAD, words
from distill.methods.method import CLASSIFIERS, find
from distill.methods.pgkd.method import FewShot
from sim.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

TEXTS = {"food": ["bread", "soup", "rice", "cheese"], "sky": ["cloud", "star", "moon", "rain"], "sea": ["fish", "wave"]}
FILL = ["the", "a", "old", "new", "big", "small"]


def lines(count: int, seed: int) -> list[tuple[str, str]]:
    rng = np.random.default_rng(seed)
    kinds = rng.choice(list(TEXTS), count)
    return [(f"{rng.choice(FILL)} {rng.choice(TEXTS[kind])} {rng.choice(FILL)} {seed}", kind) for kind in kinds]


def write(path: Path, rows: list[tuple[str, str]], name: str = "label") -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", name])
        writer.writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A config of a student, a teacher whose classes stand in another order, a model that writes, and rows."""
    folder = tmp_path_factory.mktemp("home")
    tokens = words([*(text for text, _ in lines(80, 0) + lines(30, 1)), "label: text: food sky sea"])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens.tokenizer, pad_token=PAD, eos_token=END, unk_token="<unk>"
    )
    sizes: dict[str, Any] = {"vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 64}
    ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    config: Any = BertConfig
    config = config(**sizes, pad_token_id=tokenizer.pad_token_id, num_labels=3)
    config.save_pretrained(folder / "config")
    config.id2label, config.label2id = {0: "sky", 1: "food", 2: "sea"}, {"sky": 0, "food": 1, "sea": 2}
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder / "teacher")
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder / "pretrained")
    causal = LlamaConfig(**sizes, **ids, eos_token_id=tokens.end)
    AutoModelForCausalLM.from_config(causal).save_pretrained(folder / "writer")
    (folder / "general").mkdir()
    (folder / "general" / "all.txt").write_text(" ".join(text for text, _ in lines(60, 0)))
    for name in ("config", "teacher", "writer", "pretrained"):
        tokenizer.save_pretrained(folder / name)
    write(folder / "rows.csv", [*lines(80, 0), ("", "food")])
    write(folder / "test.csv", lines(30, 1), "category")
    return folder


def options(home: Path, out: Path, **more: Any) -> ClassifierOptions:
    given = {
        "student": str(home / "config"), "data": (home / "rows.csv",), "out": out, "steps": 6, "rounds": 2,
        "length": 8, "learning_rate": 1e-2, "warmup": 0, "method": "labels",
    }  # fmt: skip
    writing = {"new_tokens": 4, "texts": 6} if more.get("method") == "pgkd" else {}
    return ClassifierOptions(**{**given, **writing, **more})


NEEDS = {
    "kd": ("teacher",), "sinkd": ("teacher",), "pgkd": ("writer",), "ernie_tiny": ("teacher", "pretrained", "general"),
}  # fmt: skip


def needed(home: Path, method: str) -> dict[str, Any]:
    """What a method must be given."""
    return {name: (home / name,) if name == "general" else str(home / name) for name in NEEDS.get(method, ())}


@pytest.mark.parametrize("method", CLASSIFIERS)
def test_every_method_leaves_a_folder_that_transformers_loads(method, home, tmp_path):
    more = needed(home, method)
    out = tmp_path / "student"
    found = command.distil(options(home, out, method=method, test=home / "test.csv", **more))
    assert found["data"]["dropped"] and found["data"]["trained"] + found["data"]["held_out"] == 80
    assert found["measured_on"] == "test" and set(found["accuracy"]) >= {"start", "end"}
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert [model.config.id2label[i] for i in range(3)] == ["food", "sea", "sky"]
    texts, labels = zip(*lines(30, 1), strict=True)
    batch = tokenizer(list(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        said = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.argmax(-1).tolist()
    right = np.mean([model.config.id2label[i] == label for i, label in zip(said, labels, strict=True)])
    assert right == pytest.approx(found["accuracy"]["end"])
    summary = json.loads((out / "summary.json").read_text())
    assert summary["accuracy"] == found["accuracy"] and all(
        digest in (out / "README.md").read_text() for digest in found["data"]["files"].values()
    )
    card = (out / "README.md").read_text()
    assert barkour.main(["distill", "card", str(out)]) == 0 and (out / "README.md").read_text() == card


def test_a_student_learns_the_labels_and_then_teaches(home, tmp_path):
    taught = command.distil(options(home, tmp_path / "a", steps=80))
    assert taught["accuracy"]["end"] > 0.9 > taught["accuracy"]["start"]
    again = {"method": "kd", "teacher": str(tmp_path / "a"), "alpha": 1.0, "steps": 80}
    found = command.distil(options(home, tmp_path / "b", **again))
    assert found["accuracy"]["end"] > 0.9 and found["accuracy"]["teacher"] == taught["accuracy"]["end"]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(home, tmp_path, monkeypatch):
    given = {"method": "pgkd", "writer": str(home / "writer"), "rounds": 3}
    whole = command.distil(options(home, tmp_path / "whole", **given))
    measure, calls = command.label_nats, []

    def stopping(*arguments):
        calls.append(0)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(command, "label_nats", stopping)
    assert command.distil(options(home, tmp_path / "cut", **given))["interrupted"]
    with pytest.raises(InputError, match="--resume"):
        command.distil(options(home, tmp_path / "cut", **given))
    again = command.distil(options(home, tmp_path / "cut", resume=True, **given))
    assert again["accuracy"] == whole["accuracy"] and again["measured"] == whole["measured"]


def test_the_option_knows_the_methods_that_there_are():
    assert get_args(get_type_hints(ClassifierOptions)["method"]) == CLASSIFIERS
    assert all(find(name, CLASSIFIERS).name == name for name in CLASSIFIERS)


def test_the_teachers_classes_are_found_by_name(home, tmp_path):
    run = command.prepare(options(home, tmp_path, method="kd", teacher=str(home / "teacher")))
    batch = {name: torch.from_numpy(np.asarray(values)) for name, values in run.held_out.items()}
    with torch.no_grad():
        own = run.teacher(input_ids=batch["tokens"], attention_mask=batch["seen"].long()).logits
        assert torch.allclose(run.teacher_read(run.teacher, batch), own[:, [1, 2, 0]])


def test_the_distance_of_a_classifier_is_over_the_whole_batch():
    method = find("sinkd", CLASSIFIERS)
    assert method.class_losses is not None
    losses = method.class_losses(method.settings({"weight": 0.4, "alpha": 0.3}))
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.randn(70, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(3, (70,), generator=generator)
    signal = {"labels": SampledLogProbs.labels(labels), "kd": DenseLogits(theirs), "sinkhorn": DenseLogits(theirs)}
    found = WeightedSum(losses)(StudentOutput(logits=ours), signal).item()
    p, q = ((z / 2).softmax(-1) for z in (theirs, ours))
    costs = (q[:, None] - p[None]).abs().sum(-1)
    plan = (-costs / 0.1).exp()
    for _ in range(20):
        plan = plan / plan.sum(1, keepdim=True)
        plan = plan / plan.sum(0, keepdim=True)
    ce = -ours.log_softmax(-1)[torch.arange(70), labels].mean()
    kd = (p * (p.log() - q.log())).sum(-1).mean()
    assert found == pytest.approx((0.7 * ce + 0.3 * kd + 0.4 * (plan * costs).sum() / 70).item(), rel=1e-6)


def test_a_writer_is_asked_by_examples_and_old_texts_are_refused():
    said = [" one more\nand", " Soup now", "", " one more "]
    shown: list[str] = []

    def continued(prompts: Any, seed: int) -> list[str]:
        shown.extend(prompts)
        return said

    def rows(texts: Any, labels: Any) -> dict[str, np.ndarray]:
        return {"tokens": np.array(texts), "label": np.array(labels)}

    writer = FewShot(continued, [["bread", "soup now"], ["star"]], ["food", "sky"], frozenset({"soup now"}), rows)
    found = writer(iter([(0, 1), (0, None), (1, None), (0, None)]), np.random.default_rng(0))
    assert found["tokens"].tolist() == ["one more"] and found["label"].tolist() == [0]
    assert dict(writer.refused) == {"known already": 2, "empty": 1}
    assert all(text.endswith(("label: food\ntext:", "label: sky\ntext:")) for text in shown)
    assert "star" in shown[0] and "bread" in shown[0] and "star" not in shown[1]


def test_rows_are_held_out_from_every_class():
    labels = np.repeat([0, 1, 2], [20, 10, 1])
    held = held_out_places(labels, 0.2, 3)
    assert np.bincount(labels[held], minlength=3).tolist() == [4, 2, 0]
    assert held_out_places(np.array([0, 1]), 0.1, 0).sum() == 1
    assert classes_of(["10", "9", "10"]) == ["9", "10"] and classes_of(["b", "a", "1"]) == ["1", "a", "b"]


BAD: dict[str, dict[str, Any]] = {
    "no student": {"student": ""}, "no such student": {"student": "./nowhere"}, "no data": {"data": ()},
    "no such data": {"data": (Path("nowhere"),)}, "no teacher": {"method": "kd"}, "no writer": {"method": "pgkd"},
    "writer": {"writer": "a"}, "option": {"weight": 0.3}, "no such test": {"test": Path("nowhere")},
}  # fmt: skip


@pytest.mark.parametrize(
    "why", [*BAD, "teacher's classes", "no classifier", "one class", "fields", "foreign class", "test"]
)
def test_bad_input_is_one_line_and_leaves_nothing(why, home, tmp_path):
    more: dict[str, Any] = BAD.get(why, {})
    path = tmp_path / "rows.csv"
    if why == "teacher's classes":
        write(path, [("a", "x"), ("b", "food")] * 3)
        more = {"method": "kd", "teacher": str(home / "teacher"), "data": (path,)}
    elif why == "no classifier":
        more = {"method": "kd", "teacher": str(home / "writer")}
    elif why == "one class":
        write(path, [("a", "x"), ("b", "x")])
        more = {"data": (path,)}
    elif why == "fields":
        write(path, [("a", "x")], "colour")
        more = {"data": (path,)}
    elif why == "test":
        more = {"test": home / "rows.csv"}
    elif why == "foreign class":
        write(path, [("a", "x")])
        more = {"test": path}
    with pytest.raises(InputError) as error:
        command.distil(options(home, tmp_path / "x", dry_run=True, **more))
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "x").exists()


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_folder_with_a_model_of_something_else_is_not_written_over(name, home, tmp_path):
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match=f"{name} of something else"):
            command.distil(options(home, tmp_path, resume=resume))
    assert (tmp_path / name).read_text() == "mine" and not list(tmp_path.glob("*/*.json"))


def test_the_command_line_gives_one_object_and_the_status(home, tmp_path, capsys):
    asked = ["distill", "classifier", "--student", home / "config", "--data", home / "rows.csv", "--method", "labels"]
    asked += ["--out", tmp_path / "s", "--steps", 2, "--length", 8]
    assert barkour.main([*map(str, asked), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["classes"] == ["food", "sea", "sky"]
    assert barkour.main([*map(str, asked)]) == 2 and len(capsys.readouterr().err.splitlines()) == 1
