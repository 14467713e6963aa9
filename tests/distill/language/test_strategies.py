"""`barkour distill strategies`: chat models and personas in, a library beside the unchanged student out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from barkour import main
from distill.language import strategies as command
from distill.language.own_options import StrategiesOptions
from distill.methods.strategy_teaching.method import Library
from sim.errors import InputError

RIGHT = "I am sorry, it comes tomorrow."


@pytest.fixture(scope="module")
def chat(home: Path) -> Path:
    """A model that reads dialogues of some length."""
    config: Any = AutoConfig.from_pretrained(home / "config")
    config.max_position_embeddings = 4096
    torch.manual_seed(1)
    AutoModelForCausalLM.from_config(config).save_pretrained(home / "chat")
    AutoTokenizer.from_pretrained(home / "teacher").save_pretrained(home / "chat")
    return home / "chat"


def options(home: Path, out: Path, **changed: Any) -> StrategiesOptions:
    given: dict[str, Any] = {
        "student": str(home / "teacher"), "teacher": str(home / "teacher"), "judge": str(home / "reference"),
        "data": (personas(home),), "out": out, "turns": 2, "passes": 2, "calls": 40, "new_tokens": 4,
    }  # fmt: skip
    return StrategiesOptions(**{**given, **changed})


def personas(home: Path) -> Path:
    path = home / "personas.jsonl"
    path.write_text("".join(json.dumps({"text": f"customer {i} whose parcel is late"}) + "\n" for i in range(5)))
    return path


def scripted(asked: list[str]):
    """Roles that follow a script: the student is right once a strategy tells it to be, which the judge sees."""

    def student(messages):
        asked.append("student")
        return RIGHT if "- apologise" in messages[0]["content"] else "No."

    def teacher(messages):
        asked.append("teacher")
        question = messages[-1]["content"]
        if "Name the situation" in question:
            return "a parcel is late"
        return "apologise and say when it comes" if "imperative line" in question else RIGHT

    def judge(messages):
        asked.append("judge")
        question = messages[-1]["content"]
        if "Which is better" not in question:
            return "My parcel is late."
        good = [f"{name}: {RIGHT}" in question for name in "AB"]
        return "equal" if good[0] == good[1] else "AB"[good.index(True)]

    return lambda *_: {"student": student, "teacher": teacher, "judge": judge}


def test_a_library_that_helps_stands_beside_a_student_that_is_as_it_was(home, tmp_path, monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(command, "voices", scripted(asked))
    out = tmp_path / "out"
    found = command.distil(options(home, out))
    assert found.figures == {"start": {command.FIGURE: 0.0}, "end": {command.FIGURE: 1.0}}
    library = Library.load(out / command.LIBRARY)
    assert library.strategies(["My parcel is late."]) == [["apologise and say when it comes"]]
    before, after = (AutoModelForCausalLM.from_pretrained(path).state_dict() for path in (home / "teacher", out))
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert AutoTokenizer.from_pretrained(out)("one") == AutoTokenizer.from_pretrained(home / "teacher")("one")
    card = (out / "README.md").read_text()
    assert "strategy_teaching" in card and all(digest in card for digest in found.data["files"].values())
    assert main(["distill", "card", str(out)]) == 0 and (out / "README.md").read_text() == card
    more = command.distil(options(home, tmp_path / "more", library=out / command.LIBRARY))
    assert more.figures is not None and more.figures["start"] == {command.FIGURE: 1.0}


def test_a_run_that_was_stopped_asks_nothing_twice_and_ends_alike(home, tmp_path, monkeypatch):
    whole: list[str] = []
    monkeypatch.setattr(command, "voices", scripted(whole))
    wanted = command.distil(options(home, tmp_path / "whole"))
    parts: list[str] = []
    roles = {role: _stopped(speak, parts, len(whole) // 2) for role, speak in scripted(parts)().items()}
    monkeypatch.setattr(command, "voices", lambda *_: roles)
    assert command.distil(options(home, tmp_path / "cut"))["interrupted"]
    with pytest.raises(InputError, match="--resume"):
        command.distil(options(home, tmp_path / "cut"))
    found = command.distil(options(home, tmp_path / "cut", resume=True))
    assert [who for who in parts if who != "stopped"] == whole
    assert found.figures == wanted.figures and found["taught"] == wanted["taught"]


def _stopped(speak, parts: list[str], place: int):
    def asked(messages):
        if len(parts) == place:
            parts.append("stopped")
            raise KeyboardInterrupt
        return speak(messages)

    return asked


def test_models_of_transformers_play_all_roles(home, chat, tmp_path):
    roles = dict.fromkeys(("student", "teacher", "judge"), str(chat))
    found = command.distil(options(home, tmp_path / "out", turns=1, **roles))
    assert found.figures is not None and set(found.figures["end"]) == {command.FIGURE}
    assert (tmp_path / "out" / command.LIBRARY).is_file()
    with pytest.raises(InputError, match="reads 64 at most"):
        command.distil(options(home, tmp_path / "short"))


def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(home, tmp_path, capsys):
    cases = [
        ({"judge": ""}, "--judge"), ({"teacher": str(home / "gone")}, "gone"),
        ({"data": (home / "chats.jsonl",)}, "few"), ({"library": home / "chats.jsonl"}, "no library"),
        ({"student": str(home / "gone")}, "gone"),
        ({"teacher_url": "http://127.0.0.1:9/v1"}, "127.0.0.1:9"),
    ]  # fmt: skip
    for changed, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            command.distil(options(home, tmp_path / "out", **changed))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
    line = f"distill strategies --student {home / 'teacher'} --teacher {home / 'teacher'} --judge {home / 'reference'}"
    line += f" --data {personas(home)} --out {tmp_path / 'out'} --dry-run --json"
    assert main(line.split()) == 0
    assert json.loads(capsys.readouterr().out)["data"]["held_out"] == 1 and not (tmp_path / "out").exists()
    for more in ("--key NAME", "--calls 3", "--judge-url nowhere"):
        assert main([*line.split(), *more.split()]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
