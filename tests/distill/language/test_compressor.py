"""`barkour distill compressor`: tasks with demonstrations of one's own in, a folder that transformers loads out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from barkour import main
from distill.language import compressor as command
from distill.language.own_options import CompressorOptions
from sim.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def tasks(home: Path) -> Path:
    """Tasks whose answer only the demonstrations tell, one row without a completion, one that is too long."""
    rows = [{"demonstrations": [WORDS[i % 3]] * 3, "prompt": "ten", "completion": WORDS[i % 3]} for i in range(40)]
    more = [{**rows[0], "completion": None}, {**rows[0], "demonstrations": " ".join(WORDS * 4)}]
    path = home / "tasks.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows + more))
    (home / "plain.txt").write_text(" ".join(WORDS * 12))
    frozen: Any = AutoModelForCausalLM.from_pretrained(home / "teacher")
    with torch.no_grad():
        for tensor in frozen.parameters():  # random weights of transformers' size say the same after anything
            tensor.mul_(8 if tensor.ndim > 1 else 1)
    frozen.save_pretrained(home / "frozen")
    AutoTokenizer.from_pretrained(home / "teacher").save_pretrained(home / "frozen")
    return path


def options(home: Path, out: Path, **changed: Any) -> CompressorOptions:
    given: dict[str, Any] = {
        "teacher": str(home / "frozen"), "student": str(home / "config"), "data": (home / "tasks.jsonl",),
        "out": out, "vectors": 2, "shown": 20, "length": 8, "steps": 60, "batch": 8, "rounds": 2, "warmup": 2,
        "learning_rate": 0.02, "weight": 0.1,
    }  # fmt: skip
    return CompressorOptions(**{**given, **changed})


def test_vectors_tell_a_frozen_model_the_task_and_the_folder_makes_the_same_ones(home, tasks, tmp_path):
    asked = options(home, tmp_path / "out")
    found = command.distil(asked)
    assert found.figures is not None and found.data["dropped"] == {"a field is empty or missing": 1, command.LONG: 1}
    assert found.figures["end"]["nats"] < found.figures["start"]["nats"] - 0.5
    task = command.prepare(asked)
    loaded: Any = AutoModel.from_pretrained(tmp_path / "out")
    shown = torch.tensor([[5, 6, 7]])
    assert loaded(shown, shown > 0).shape == (1, 2, 32)
    task.module.load_state_dict(loaded.state_dict())
    assert task.figures() == pytest.approx(found.figures["end"], abs=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "MEND" in card and all(digest in card for digest in found.data["files"].values())
    assert main(["distill", "card", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").read_text() == card


def test_a_run_that_was_stopped_in_either_stage_goes_on_bit_for_bit(home, tasks, tmp_path, monkeypatch):
    given: dict[str, Any] = {"general": (home / "plain.txt",), "steps": 4}
    whole = command.distil(options(home, tmp_path / "whole", **given))
    assert whole.steps == 8 and whole.data["pieces"] > 1
    measure, calls = command._measured, []

    def stopping(*arguments: Any) -> dict[str, float]:
        calls.append(0)
        if len(calls) in (3, 6):  # the start is measured first, then each of two rounds of two stages
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(command, "_measured", stopping)
    out, again = tmp_path / "cut", None
    for resume in (False, True, True):
        again = command.distil(options(home, out, resume=resume, **given))
    assert again is not None and not again["interrupted"] and len(calls) > 6
    assert again["figures"] == whole["figures"] and again["measured"] == whole["measured"]


def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(home, tasks, tmp_path):
    cases = [
        ({"teacher": ""}, "--teacher"), ({"student": str(home / "gone")}, "gone"), ({"shown": 2}, "longer"),
        ({"shown": 60}, "reads 64"), ({"data": (home / "chats.jsonl",)}, "demonstrations"),
        ({"general": (home / "chats.jsonl",)}, "plain text"),
    ]  # fmt: skip
    for changed, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            command.distil(options(home, tmp_path / "out", **changed))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_the_front_door_checks_and_writes_nothing(home, tasks, tmp_path, capsys):
    line = f"distill compressor --teacher {home / 'teacher'} --student {home / 'config'} --data {tasks} --vectors 2"
    line += f" --shown 20 --length 8 --out {tmp_path / 'out'} --dry-run --json"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "mend" and found["data"]["held_out"] == 4 and not (tmp_path / "out").exists()
    assert main([*line.split(), "--steps", "3", "--epochs", "2"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
