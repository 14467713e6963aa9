"""`barkour distill language`: own models and data in, a folder that transformers loads out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import barkour
from distill.core.journal import Journal
from distill.language import distil as command
from distill.language.encoding import TEMPLATE
from distill.language.options import LanguageOptions, from_file
from distill.language.students import end_tokens, pruned_layers
from distill.language.writing import answers
from distill.methods.method import METHODS, MethodOptions, find
from sim import machine
from sim.errors import InputError

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def options(home: Path, out: Path, **more) -> LanguageOptions:
    given = {
        "teacher": str(home / "teacher"), "student": str(home / "config"), "data": (home / "chats.jsonl",), "out": out,
        "steps": 6, "rounds": 2, "length": 32, "learning_rate": 1e-2, "warmup": 0,
    }  # fmt: skip
    writes = "new_tokens" in find(more.get("method", "kd")).uses(MethodOptions())
    return LanguageOptions(**{**given, **({"new_tokens": 4} if writes else {}), **more})


# --- the whole way --------------------------------------------------------------------------------------------------


def needs(method: str, home: Path) -> dict:
    """What a method must be given beside a teacher, a student and one file."""
    return {
        "ddk": {"data": (home / "chats.jsonl", home / "more.jsonl")},
        "capacity_gap": {"teacher": None, "candidates": (str(home / "teacher"), str(home / "config"))},
        "universal_ner": {"data": (home / "spans.jsonl",), "length": 64, "negatives": 1},
        "step_by_step": {"data": (home / "reasons.jsonl",)},
        "frontier_synthetic": {"data": (home / "thought.jsonl",)},
        "nesycd": {"data": (home / "reasons.jsonl",), "length": 40},
        "alm": {"tokenizer": str(home / "teacher")},
        "miniplm": {"reference": str(home / "reference"), "keep": 0.25},
    }.get(method, {})  # fmt: skip


def noted(monkeypatch) -> set[str]:
    """Which of the methods' settings their own code asks for from now on."""
    read: set[str] = set()

    def getting(settings: MethodOptions, name: str):
        code = sys._getframe(1).f_code
        if "methods" in Path(code.co_filename).parts and code.co_name != "__post_init__":
            read.add(name)
        return object.__getattribute__(settings, name)

    monkeypatch.setattr(MethodOptions, "__getattribute__", getting)
    return read


@pytest.mark.parametrize("method", METHODS)
def test_every_method_leaves_a_folder_that_transformers_loads(method, home, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "MEASURED", 8)
    read = noted(monkeypatch)
    if method != "kd":  # drawing takes longer than such a run, and is the same for all
        monkeypatch.setattr(Journal, "plot", lambda journal, title: None)
    out, more = tmp_path / "student", needs(method, home)
    found = command.distil(options(home, out, method=method, **more))
    assert read >= set(find(method).reads), "it asks for what it says that it reads"
    assert found["data"]["examples"] == (69 if method == "ddk" else 60) and sum(found["data"]["dropped"].values()) == 1
    assert found["teacher"] == str(home / "teacher")
    if method == "miniplm":
        assert found["data"]["chosen"] == {"chats": 14} and found["data"]["rows"] < 57, "a quarter of 57"
    if method == "self_distillation":
        assert found["perplexity"]["generation 3"] == found["perplexity"]["end"] != found["perplexity"]["generation 1"]
    if method == "first":
        assert 0 < found["found"]["level"] <= 1 and found["found"]["error_after"] <= found["found"]["error_before"] + 1
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert model.config.num_hidden_layers == 1 and tokenizer.chat_template == TEMPLATE
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    asked = [{"role": "user", "content": "one"}]
    prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    assert model.generate(**prompt, max_new_tokens=2).shape[1] > prompt["input_ids"].shape[1]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["perplexity"]["end"] == pytest.approx(found["perplexity"]["end"]) and summary["method"] == method
    domains = list(summary["evaluation"]["domains"].values())
    models = domains[0]
    if len(domains) == 1:  # over several it is a mean by tokens
        assert models["student"]["perplexity"] == pytest.approx(found["perplexity"]["end"], rel=1e-3)
    assert 0 <= models["student"]["exact_match"] <= 1 and 0 <= models["student"]["calibration_error"] <= 1
    card = (out / "README.md").read_text()
    assert f"{models['student']['perplexity']:.4g}" in card and "vLLM" in card
    assert summary["vllm"] == found["vllm"] and summary["vllm"]["known"] == "own" and not summary["vllm"]["problems"]
    assert (
        all(digest in card for digest in found["data"]["files"].values())
        and f"--method {method}" in card
        or (method == "kd")
    )
    assert method != "kd" or (out / "curve.png").stat().st_size > 1000


def test_a_student_learns_the_data_and_what_the_teacher_learned(home, tmp_path):
    kinds = {"labels": str(home / "teacher"), "kd": str(home / "config")}
    taught = command.distil(options(home, tmp_path / "a", method="labels", student=kinds["labels"], steps=40))
    assert taught["perplexity"]["end"] < 0.1 * taught["perplexity"]["start"]
    more = {"teacher": str(tmp_path / "a"), "student": kinds["kd"], "alpha": 1.0, "steps": 40}
    found = command.distil(options(home, tmp_path / "b", **more))
    assert found["agreement"] > 0.8 and found["perplexity"]["end"] < 0.1 * found["perplexity"]["start"]


def test_a_run_that_was_stopped_goes_on_bit_for_bit(home, tmp_path, monkeypatch):
    whole = command.distil(options(home, tmp_path / "whole", method="gkd"))
    measure, calls = command.nats_per_token, []

    def stopping(*arguments):
        calls.append(0)
        if len(calls) == 3:  # the start, the first round, the second
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(command, "nats_per_token", stopping)
    cut = command.distil(options(home, tmp_path / "cut", method="gkd"))
    assert cut["interrupted"] and not (tmp_path / "cut" / "model.safetensors").exists()
    with pytest.raises(InputError, match="--resume"):
        command.distil(options(home, tmp_path / "cut", method="gkd"))
    with pytest.raises(InputError, match="begun with seed"):
        command.distil(options(home, tmp_path / "cut", method="gkd", resume=True, seed=5))
    again = command.distil(options(home, tmp_path / "cut", method="gkd", resume=True))
    assert again["perplexity"] == whole["perplexity"] and again["measured"] == whole["measured"]
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(weights[1][name], tensor) for name, tensor in weights[0].items())


def test_plans_and_dry_runs_write_nothing(home, tmp_path):
    found = command.distil(options(home, tmp_path / "x", dry_run=True))
    assert found["data"]["rows"] > 0 and found["parameters"]["teacher"] > found["parameters"]["student"]
    plan = command.distil(options(home, tmp_path / "x", plan=True, steps=1000))
    assert plan["minutes"] == pytest.approx(plan["seconds_per_step"] * 1000 / 60) and plan["minutes"] > 0
    assert plan["tokens"] > 1000 and plan["peak_gb"] > 0 and not (tmp_path / "x").exists()


def test_several_paths_are_domains_that_are_drawn_from_by_their_size(home, tmp_path):
    (tmp_path / "more.jsonl").write_text("\n".join(json.dumps({"text": f"{word} two"}) for word in WORDS))
    run = command.prepare(options(home, tmp_path / "x", data=(home / "chats.jsonl", tmp_path / "more.jsonl")))
    distiller, _ = command.loop(run, tmp_path / "run", quiet=True)
    weights = distiller.mixture.as_dict()
    sizes = {domain.name: domain.learned for domain in run.domains}
    assert weights == pytest.approx({name: size / sum(sizes.values()) for name, size in sizes.items()})


def test_the_command_line_gives_one_object_and_the_status(home, tmp_path, monkeypatch, capsys):
    words = ["--teacher", home / "teacher", "--student", home / "config", "--data", home / "chats.jsonl"]
    words = ["distill", "language", *words, "--out", tmp_path / "s", "--steps", 2, "--length", 32, "--json"]
    assert barkour.main([*map(str, words)]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2
    assert barkour.main([*map(str, words)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert barkour.main([*map(str, words[:-1]), "--resume"]) == 0, "a run that is done is done again from its end"
    shown = capsys.readouterr().out
    assert str(tmp_path / "s") in shown and "1, a field is empty or missing" in shown


def test_a_file_of_options_is_the_options(home, tmp_path):
    lines = [
        f"teacher: {home / 'teacher'}", f"student: {home / 'config'}", f"data: {home / 'chats.jsonl'}",
        f"out: {tmp_path / 'x'}", "learning_rate: 2e-4", "steps: 3", "length: 32", "no_pack: true",
    ]  # fmt: skip
    path = tmp_path / "run.yaml"
    path.write_text("\n".join(lines))
    found = from_file(LanguageOptions(config=path, resume=True))
    assert found == LanguageOptions(
        teacher=str(home / "teacher"), student=str(home / "config"), data=(home / "chats.jsonl",), out=tmp_path / "x",
        learning_rate=2e-4, steps=3, length=32, no_pack=True, resume=True,
    )  # fmt: skip
    for bad in ("nonsense: 1", "steps: many", "steps: true", "method: none", "seed: -1", "resume: true", "steps: 4",
                "temperature: '1_0'", "temperature: '\u0663'", "temperature: ' 1.5'", "temperature: 010"):  # fmt: skip
        path.write_text("\n".join([*lines, bad]))
        with pytest.raises(InputError) as error:
            from_file(LanguageOptions(config=path))
        assert len(str(error.value).splitlines()) == 1
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="--batch"):
        from_file(LanguageOptions(config=path, batch=3))


def test_weights_and_limits_decide_what_is_drawn(home, tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([{"text": f"{word} two"} for word in WORDS]).save_to_disk(tmp_path / "saved")
    data = (home / "chats.jsonl", tmp_path / "saved")
    more = {"data": data, "weights": (1.0, 3.0), "limit": 7, "dry_run": True}
    run = command.prepare(options(home, tmp_path / "x", **more))
    assert [domain.examples for domain in run.domains] == [7, 7]
    assert run.material.sizes.tolist() == [0.25, 0.75]
    with pytest.raises(InputError, match="weights"):
        command.distil(options(home, tmp_path / "x", **{**more, "weights": (1.0,)}))


# --- its parts ------------------------------------------------------------------------------------------------------


def test_layers_are_left_out_and_the_others_are_the_teachers(home):
    teacher = AutoModelForCausalLM.from_pretrained(home / "teacher", dtype=torch.float32)
    small = pruned_layers(teacher, "prune:layers=2")
    ours, theirs = small.state_dict(), teacher.state_dict()
    for name in ("self_attn.q_proj.weight", "mlp.down_proj.weight"):
        assert torch.equal(ours[f"model.layers.1.{name}"], theirs[f"model.layers.2.{name}"])
    whole = pruned_layers(teacher, "prune:layers=3")
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        assert torch.equal(whole(tokens).logits, teacher(tokens).logits)


def test_students_are_cut_narrower_by_what_matters_on_the_data(home, tmp_path):
    run = command.prepare(options(home, tmp_path / "x", student="prune:layers=2,width=24,inner=40"))
    config = run.student.config
    assert (config.num_hidden_layers, config.hidden_size, config.intermediate_size) == (2, 24, 40)
    assert config.num_key_value_heads == 2 and config.head_dim == 8, "heads that share keys stay"
    whole = command.prepare(options(home, tmp_path / "x", student="prune:width=32")).student
    tokens = torch.arange(5)[None]
    with torch.no_grad():
        torch.testing.assert_close(whole(tokens).logits, run.teacher(tokens).logits)


def test_answers_do_not_depend_on_the_prompts_beside_them(home):
    model = AutoModelForCausalLM.from_pretrained(home / "teacher", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(home / "teacher")
    prompts = [[5, 6, 7, 8, 9], [10], [11, 12]]
    rest = (6, len(tokenizer), end_tokens(model, tokenizer), tokenizer.pad_token_id, 3, 0.0)
    alone = [answers(model, [prompt], *rest)[0] for prompt in prompts]
    state = torch.get_rng_state()
    assert answers(model, prompts, *rest) == alone and torch.equal(torch.get_rng_state(), state)
    drawn = [answers(model, prompts, *rest[:4], seed, 1.0) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_written_is_drawn_from_the_models_own_distribution(home):
    model = AutoModelForCausalLM.from_pretrained(home / "teacher", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(home / "teacher")
    model.generation_config.top_k, model.generation_config.repetition_penalty = 1, 5.0
    with torch.no_grad():
        model.lm_head.weight.mul_(20)
        wanted = model(torch.tensor([[5, 6]])).logits[0, -1, : len(tokenizer)].softmax(-1).numpy()
    found = answers(model, [[5, 6]] * 3000, 1, len(tokenizer), [tokenizer.eos_token_id], tokenizer.pad_token_id, 0)
    counts = np.bincount([text[0] for text in found], minlength=len(wanted)) / 3000
    assert np.abs(counts - wanted).sum() < 2 * np.sqrt(len(wanted) / 3000) and (counts > 0).sum() > 5
    assert model.generation_config.top_k == 1


def test_the_option_knows_the_methods_that_there_are():
    named = get_args(get_type_hints(LanguageOptions)["method"])
    assert named == METHODS


def test_methods_say_what_they_need():
    alone = ("labels", "step_by_step", "self_distillation", "universal_ner", "nesycd", "frontier_synthetic")
    for name in METHODS:
        method = find(name)
        assert method.name == name and method.needs_teacher(MethodOptions()) == (name not in alone)
    assert not find("kd").needs_teacher(MethodOptions(alpha=0.0))


# --- what goes wrong ------------------------------------------------------------------------------------------------


def damaged(home: Path, to: Path) -> str:
    """The teacher with keys as `torch.compile` leaves them."""
    to.mkdir()
    for file in (home / "teacher").iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    tensors = load_file(to / "model.safetensors")
    save_file({f"_orig_mod.{n}": t for n, t in tensors.items()}, to / "model.safetensors", {"format": "pt"})
    return str(to)


BAD = {
    "no teacher": {"teacher": None}, "no such teacher": {"teacher": "./nowhere"}, "no data": {"data": ()},
    "no such data": {"data": (Path("nowhere"),)}, "no such student": {"student": "./nowhere"},
    "layers": {"student": "prune:layers=9"}, "spec": {"student": "prune:depth=9"},
    "width": {"student": "prune:width=40"}, "shared heads": {"student": "prune:heads=2"},
    "a width that heads do not divide": {"student": "prune:width=30"},
    "context": {"length": 65}, "student": {"student": ""},
    "room": {"method": "gkd", "new_tokens": 32}, "option": {"beta": 0.3}, "candidates": {"candidates": ("a",)},
    "one domain": {"method": "ddk"}, "no rationale": {"method": "step_by_step"},
    "no reference": {"method": "miniplm"}, "reference": {"reference": "a"},
    "data twice": {"data": (Path(__file__).parent, Path(__file__).parent / ".." / "language")},
}  # fmt: skip


@pytest.mark.parametrize("why", [*BAD, "weights", "more weights", "cut file", "tokenizer", "config"])
def test_bad_input_is_one_line_and_leaves_nothing(why, home, tmp_path):
    more = BAD.get(why, {})
    if why in ("weights", "cut file"):
        more = {"teacher": damaged(home, tmp_path / "t")}
        if why == "cut file":
            path = tmp_path / "t" / "model.safetensors"
            path.write_bytes(path.read_bytes()[:500])
    elif why == "more weights":
        more = {"teacher": damaged(home, tmp_path / "t")}
        path = tmp_path / "t" / "model.safetensors"
        own = load_file(home / "teacher" / "model.safetensors")
        save_file({**own, "lm_head.lora_A.weight": torch.zeros(2, 2)}, path, {"format": "pt"})
    elif why == "tokenizer":
        more = {"student": damaged(home, tmp_path / "t")}
        text = (tmp_path / "t" / "tokenizer.json").read_text()
        (tmp_path / "t" / "tokenizer.json").write_text(text.replace('"one"', '"uno"').replace('"on"', '"un"'))
    elif why == "config":
        (tmp_path / "c.json").write_text('{"model_type": "nothing"}')
        more = {"student": str(tmp_path / "c.json")}
    for dry_run in (True, False):
        with pytest.raises(InputError) as error:
            command.distil(options(home, tmp_path / "new" / "x", dry_run=dry_run, **more))
        assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_a_folder_with_a_model_of_something_else_is_not_written_over(name, home, tmp_path):
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(InputError, match=f"{name} of something else"):
            command.distil(options(home, tmp_path, resume=resume))
    assert (tmp_path / name).read_text() == "mine" and not list(tmp_path.glob("*/*.json"))


def test_plans_of_several_processes_are_refused_at_once(home, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="one process"):
        command.distil(options(home, tmp_path / "x", plan=True))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("more", [{}, {"dry_run": True}, {"no_pack": True}, {"method": "gkd"}], ids=str)
def test_a_batch_that_no_memory_holds_is_refused_before_anything_is_written(more, home, tmp_path, monkeypatch):
    """In place of an end in the middle of the work; in pieces it is taken."""
    monkeypatch.setattr(machine, "memory", lambda: 1 << 23)
    with pytest.raises(InputError, match="memory"):
        command.distil(options(home, tmp_path / "x", batch=2**16, **more))
    assert not (tmp_path / "x").exists()
    command.distil(options(home, tmp_path / "x", batch=2**16, micro_batch=8, **{**more, "dry_run": True}))


def test_a_batch_in_pieces_with_checkpointed_gradients_is_the_batch(home, tmp_path):
    whole = command.distil(options(home, tmp_path / "a", method="labels"))
    more = {"micro_batch": 3, "gradient_checkpointing": True}
    found = command.distil(options(home, tmp_path / "b", method="labels", **more))
    assert found["perplexity"]["end"] == pytest.approx(whole["perplexity"]["end"], rel=1e-4)
    assert found["logits"] == {"student": "in chunks", "teacher": "in chunks"}


def test_adapters_alone_are_trained_and_merged_at_the_end(home, tmp_path):
    pytest.importorskip("peft")
    more = {"student": str(home / "teacher"), "method": "labels", "lora": 2}
    found = command.distil(options(home, tmp_path / "a", **more))
    assert found["parameters"]["trained"] < 0.5 * found["parameters"]["student"]
    assert found["perplexity"]["end"] < found["perplexity"]["start"]
    plain, first = (load_file(folder / "model.safetensors") for folder in (tmp_path / "a", home / "teacher"))
    assert plain.keys() == first.keys()
    changed = {name for name, tensor in plain.items() if not torch.equal(tensor, first[name])}
    assert changed and all("proj" in name for name in changed)


def test_the_front_door_opens_without_torch():
    code = "import sys, barkour; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_models_of_other_families_are_cut_and_read_too(tmp_path):
    config = AutoConfig.for_model("gpt2", vocab_size=50, n_embd=16, n_layer=4, n_head=2, n_positions=32)
    teacher = AutoModelForCausalLM.from_config(config).eval()
    small = pruned_layers(teacher, "prune:layers=2")
    assert torch.equal(small.transformer.h[1].mlp.c_fc.weight, teacher.transformer.h[3].mlp.c_fc.weight)


def test_the_card_is_written_anew_from_what_the_folder_knows(home, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Journal, "plot", lambda journal, title: None)
    command.distil(options(home, tmp_path / "student", steps=2))
    before = (tmp_path / "student" / "README.md").read_text()
    moved = (tmp_path / "student").rename(tmp_path / "moved")
    (moved / "README.md").unlink()
    assert barkour.main(["distill", "card", str(moved)]) == 0
    after = (moved / "README.md").read_text()
    assert after == before.replace("# student", "# moved").replace(str(tmp_path / "student"), str(moved))
    capsys.readouterr()
    for bad in (tmp_path / "nothing", home):
        assert barkour.main(["distill", "card", str(bad)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    summary = moved / "summary.json"
    said = json.loads(summary.read_text())
    summary.unlink()
    os.mkfifo(summary)
    assert barkour.main(["distill", "card", str(moved)]) == 2  # at once: nobody will write to a pipe
    summary.unlink()
    changes = ({"method": ["kd"]}, {"data": []}, {"perplexity": 1}, {"parameters": "x"}, {"teachers": 3})
    for text in ("[" * 100_000, *(json.dumps({**said, **change}) for change in changes)):
        summary.write_text(text)
        capsys.readouterr()
        assert barkour.main(["distill", "card", str(moved)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
