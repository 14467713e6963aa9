"""Tasks of lm-eval: with a stand-in for the package, and with the package itself where it is installed."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import barkour
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.language import distil as command
from distill.language import harness
from distill.language.options import LanguageOptions
from sim.errors import InputError


def options(home, out, **more) -> LanguageOptions:
    given = {
        "teacher": str(home / "teacher"), "student": str(home / "config"), "data": (home / "chats.jsonl",), "out": out,
        "steps": 2, "rounds": 1, "length": 32, "warmup": 0,
    }  # fmt: skip
    return LanguageOptions(**{**given, **more})


@pytest.fixture
def package(monkeypatch):
    """Knows two tasks, and says of a model how many layers it has; fails where its `fails` is set."""
    monkeypatch.setattr(command, "MEASURED", 4)
    monkeypatch.setattr(Journal, "plot", lambda journal, title: None)
    known = SimpleNamespace(fails=False, asked=[])

    def simple_evaluate(model, tasks, task_manager, limit, **how):
        known.asked.append((tasks, limit))
        if known.fails:
            raise RuntimeError("no\nroute")
        print("what belongs on standard error")
        layers = float(model.pretrained.config.num_hidden_layers)
        return {
            "results": {t: {"alias": t, "acc,none": layers, "acc_stderr,none": 0.5, "f1,strict": 1.0} for t in tasks},
            "n-samples": {t: {"original": 9, "effective": limit or 9} for t in tasks},
        }

    modules = {
        "lm_eval": {"simple_evaluate": simple_evaluate, "__version__": "9"}, "lm_eval.models": {},
        "lm_eval.tasks": {"TaskManager": lambda **about: SimpleNamespace(all_tasks=["sums", "words"])},
        "lm_eval.models.huggingface": {"HFLM": lambda **given: SimpleNamespace(**given)},
    }  # fmt: skip
    for name, values in modules.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
    return known


def test_figures_of_tasks_are_in_summary_and_card(package, home, tmp_path, capsys):
    out = tmp_path / "s"
    found = command.distil(options(home, out, lm_eval=("sums",), lm_eval_limit=5))
    assert found.lm_eval is not None and found.lm_eval["tasks"]["sums"]["acc"] == {
        "student": {"value": 1.0, "error": 0.5}, "teacher": {"value": 3.0, "error": 0.5}
    }  # fmt: skip
    card = (out / "README.md").read_text()
    assert "| sums: acc, 5 of 9 examples | 1 +- 0.5 | 3 +- 0.5 |" in card and "f1 (strict)" in card
    capsys.readouterr()
    assert barkour.main(["distill", "evaluate", str(out), "words", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["lm_eval"]["tasks"]) == {"words"}, "nothing else on standard output"
    known = json.loads((out / "summary.json").read_text())["lm_eval"]
    assert set(known["tasks"]) == {"sums", "words"} and known["examples"] == {"sums": [5, 9], "words": [9, 9]}
    assert "| words: acc, 9 of 9 examples | 1" in (out / "README.md").read_text()
    assert barkour.main(["distill", "card", str(out)]) == 0 and "words: acc" in (out / "README.md").read_text()
    package.fails = True
    capsys.readouterr()
    for bad in ([str(out), "words"], [str(out), "nothing"], [str(out)], [str(home), "words"]):
        assert barkour.main(["distill", "evaluate", *bad]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert json.loads((out / "summary.json").read_text())["lm_eval"] == known


def test_a_task_that_fails_leaves_the_student(package, home, tmp_path):
    package.fails = True
    with pytest.raises(InputError) as error:
        command.distil(options(home, tmp_path / "s", lm_eval=("sums,words",)))
    assert len(str(error.value).splitlines()) == 1 and package.asked[0][0] == ["sums", "words"]
    assert json.loads((tmp_path / "s" / "summary.json").read_text())["perplexity"]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "s").config.num_hidden_layers == 1


@pytest.mark.parametrize("bad", [("nothing",), ("sums", "sums"), ("sums,",), ("nowhere/own.yaml",)])
def test_tasks_that_there_are_not_are_refused_before_training(bad, package, home, tmp_path):
    with pytest.raises(InputError) as error:
        command.distil(options(home, tmp_path / "s", lm_eval=bad))
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "s").exists() and not package.asked


def test_without_the_package_the_extra_is_named(home, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(InputError, match="barkour\\[lm-eval\\]"):
        command.distil(options(home, tmp_path / "s", lm_eval=("sums",)))
    assert not (tmp_path / "s").exists()


def test_older_figures_of_another_version_are_dropped():
    new = {"tasks": {"b": {}}, "examples": {}, "version": "2"}
    assert harness.together({"tasks": {"a": {}}, "examples": {}, "version": "1"}, new) == new
    assert set(harness.together({"tasks": {"a": {}}, "examples": {}, "version": "2"}, new)["tasks"]) == {"a", "b"}


def test_the_harness_itself_asks_the_model_that_it_is_given(home, tmp_path, monkeypatch):
    pytest.importorskip("lm_eval")
    import datasets.config

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"question": "one two three", "label": i % 2} for i in range(3)] + [{"question": "five six", "label": 1}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "counting", "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
        "test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": ["four", "seven"], "doc_to_target": "label",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}], "metadata": {"version": 1},
    }  # fmt: skip
    (tmp_path / "counting.yaml").write_text(json.dumps(task))
    tokenizer = AutoTokenizer.from_pretrained(home / "teacher")
    models = {n: AutoModelForCausalLM.from_pretrained(home / n).eval() for n in ("teacher", "reference")}
    told = harness.asked([str(tmp_path / "counting.yaml")], models, tokenizer, 0)

    @torch.no_grad()
    def said(model, text: str, more: str) -> float:
        begun, whole = (tokenizer(t, add_special_tokens=False)["input_ids"] for t in (text, f"{text} {more}"))
        logits = model(torch.tensor([whole])).logits[0].log_softmax(-1)
        return sum(logits[i - 1, whole[i]].item() for i in range(len(begun), len(whole)))

    for name, model in models.items():
        seven = [said(model, row["question"], "seven") > said(model, row["question"], "four") for row in rows]
        right = [found == bool(row["label"]) for found, row in zip(seven, rows, strict=True)]
        assert told["tasks"]["counting"]["acc"][name]["value"] == pytest.approx(sum(right) / len(rows))
    assert told["examples"] == {"counting": [4, 4]}
    with pytest.raises(DistillError):
        harness.open_tasks([str(tmp_path / "nothing.yaml")])
