"""`barkour distill tagger` and `encoder`: models and data of one's own in, a folder that loads again out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, BertConfig, PreTrainedTokenizerFast

from barkour import main
from distill.core.errors import DistillError
from distill.language.encoder import distil as distil_encoder
from distill.language.own_options import EncoderOptions, TaggerOptions
from distill.language.tagger import Tagger, read_answers
from distill.language.tagger import distil as distil_tagger
from distill.language.text import END, PAD, words
from sim import machine
from sim.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

DRUGS, EVENTS, FILL = ["aspirin", "codeine"], ["rash", "nausea", "fever"], ["then", "had", "a", "mild"]


def sentence(rng: np.random.Generator) -> dict[str, Any]:
    """A drug that caused an event, and another event that it is given for."""
    drug, event = str(rng.choice(DRUGS)), str(rng.choice(EVENTS))
    told = f"{drug} for fever then caused {event} {rng.choice(FILL)}"
    said = json.dumps([{"medicine": drug, "effect": event}])
    return {"text": told, "mentions": [drug], "answer": f"Here it is: {said}"}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of an encoder, a masked language model, answers and plain text."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)
    rows = [sentence(rng) for _ in range(120)]
    tokens = words([row["text"] for row in rows])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens.tokenizer, pad_token=PAD, eos_token=END, unk_token="<unk>"
    )
    config: Any = BertConfig
    config = config(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    config.save_pretrained(folder / "config")
    AutoModelForMaskedLM.from_config(config).save_pretrained(folder / "teacher")
    for name in ("config", "teacher"):
        tokenizer.save_pretrained(folder / name)
    more = [{"text": "codeine for fever", "mentions": ["aspirin"], "answer": "[]"},
            {"text": "codeine for fever", "mentions": ["codeine"], "answer": "none"}]  # fmt: skip
    write(folder / "rows.jsonl", rows + more)
    write(folder / "test.jsonl", [sentence(rng) for _ in range(30)])
    (folder / "text.txt").write_text(" ".join(row["text"] for row in rows))
    return folder


def tagger_options(home: Path, out: Path, **changed: Any) -> TaggerOptions:
    given: dict[str, Any] = {
        "student": str(home / "config"), "data": (home / "rows.jsonl",), "test": home / "test.jsonl", "out": out,
        "about": "medicine", "finds": "effect", "steps": 150, "batch": 16, "length": 16, "rounds": 2,
        "learning_rate": 0.01,
    }  # fmt: skip
    return TaggerOptions(**{**given, **changed})


def test_a_tagger_learns_from_answers_and_is_asked_from_its_folder(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "tagger"
    found = distil_tagger(tagger_options(home, out))
    assert found.figures is not None and found.measured_on == "test"
    assert found.figures["end"]["f1"] > found.figures["start"]["f1"] + 0.3
    assert found.data["dropped"] == {"not in the text": 1, "no JSON": 1}
    ask = Tagger(out)
    assert ask("codeine for fever then caused nausea had", "codeine") == ["nausea"]
    assert ask("codeine for fever", "aspirin") == []
    with pytest.raises(InputError, match="--resume"):
        distil_tagger(tagger_options(home, out))
    with pytest.raises(InputError, match="begun with steps"):
        distil_tagger(tagger_options(home, out, steps=3, resume=True))
    again = distil_tagger(tagger_options(home, out, resume=True))
    assert again.figures == found.figures, "a finished run stays as it is"
    head = card_of(out, found, tmp_path / "moved")
    assert head["library_name"] == "barkour" and head["base_model"] == [str(home / "config")]
    assert "ade_extraction" in head["tags"] and head["license_name"] == "to-be-filled"


def card_of(out: Path, found: Any, moved: Path) -> dict[str, Any]:
    """The head of a folder's card, which holds hashes, command and figures, and is the same when it is written anew."""
    card = (out / "README.md").read_text()
    _, head, text = card.split("---\n", 2)
    assert all(digest in text for digest in found.data["files"].values()) and "## Licence" in text
    assert all(f"| {name}, end | {value:.4g} |" in text for name, value in found.figures["end"].items())
    out.rename(moved)
    (moved / "README.md").unlink()
    assert main(["distill", "card", str(moved)]) == 0
    again = (moved / "README.md").read_text()
    assert again == card.replace(f"# {out.name}\n", f"# {moved.name}\n").replace(str(out), str(moved))
    return yaml.safe_load(head)


def encoder_options(home: Path, out: Path, **changed: Any) -> EncoderOptions:
    given: dict[str, Any] = {
        "teacher": str(home / "teacher"), "data": (home / "text.txt",), "out": out, "layers": (1, 2),
        "widths": (8, 16), "ratios": (1.0, 2.0), "heads": (1, 2), "steps": 40, "batch": 8, "length": 16, "rounds": 2,
        "learning_rate": 0.01,
    }  # fmt: skip
    return EncoderOptions(**{**given, **changed})


def test_an_encoder_of_the_best_size_within_the_limits_loads_with_transformers(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "encoder"
    found = distil_encoder(encoder_options(home, out))
    assert found.figures is not None
    assert found.figures["end"]["relation loss, smallest"] < found.figures["start"]["relation loss, smallest"]
    taken = found["taken"]
    assert taken["size"]["layers"] in (1, 2) and taken["size"]["width"] in (8, 16)
    student = AutoModelForSequenceClassification.from_pretrained(out, num_labels=3)
    assert student.config.hidden_size == taken["size"]["width"]
    assert student.config.num_hidden_layers == taken["size"]["layers"]
    masked = AutoModelForMaskedLM.from_pretrained(out)
    assert masked.num_parameters() == taken["parameters"] == found.parameters["student"]
    head = card_of(out, found, tmp_path / "moved")
    assert head["pipeline_tag"] == "fill-mask" and head["base_model"] == [str(home / "teacher")]


def test_what_cannot_be_used_is_one_sentence(home: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.jsonl", [{"text": "a", "label": "b"}])
    nothing = write(tmp_path / "nothing.jsonl", [{"text": "a", "mentions": ["b"], "answer": "[]"}])
    cases = [
        (distil_tagger, tagger_options(home, tmp_path / "out", data=(other,)), "mentions"),
        (distil_tagger, tagger_options(home, tmp_path / "out", data=(nothing,)), "no mention"),
        (distil_tagger, tagger_options(home, tmp_path / "out", student=""), "--student"),
        (distil_tagger, tagger_options(home, tmp_path / "out", student=str(tmp_path)), "cannot be loaded"),
        (
            distil_tagger,
            tagger_options(home, tmp_path / "out", data=(home / "test.jsonl",), test=None, length=4),
            "longer",
        ),
        (distil_tagger, tagger_options(home, tmp_path / "out", length=64), "reads 32 at most"),
        (distil_encoder, encoder_options(home, tmp_path / "out", most_flops=1e-6), "limits"),
        (distil_encoder, encoder_options(home, tmp_path / "out", widths=(64,)), "cannot be cut"),
        (distil_encoder, encoder_options(home, tmp_path / "out", data=(home / "rows.jsonl",), teacher=""), "--teacher"),
    ]
    for call, options, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            call(options)  # type: ignore[operator]
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
    with pytest.raises(DistillError, match="no tagger|no student"):
        Tagger(home / "teacher")
    with pytest.raises(InputError, match="both"):
        TaggerOptions(about="drug", finds="drug")
    with pytest.raises(DistillError):
        read_answers([tmp_path / "gone.jsonl"], ("drug", "event"))


def test_batches_that_no_memory_holds_are_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: 1 << 23)
    with pytest.raises(InputError, match="memory"):
        distil_tagger(tagger_options(home, tmp_path / "out", batch=2**16))
    with pytest.raises(InputError, match="memory"):
        distil_encoder(encoder_options(home, tmp_path / "out", batch=2**16))
    assert not (tmp_path / "out").exists()


def test_the_front_door_reads_and_checks_and_writes_nothing(home: Path, tmp_path: Path, capsys: Any) -> None:
    line = f"distill tagger --student {home / 'config'} --data {home / 'rows.jsonl'} --length 16 --about medicine"
    line += " --finds effect"
    assert main([*line.split(), "--out", str(tmp_path / "out"), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "ade_extraction" and found["data"]["held_out"] == 12 and found["dry_run"]
    line = f"distill encoder --teacher {home / 'teacher'} --data {home / 'text.txt'} --layers 1 --widths 8 --heads 1"
    assert main([*line.split(), "--out", str(tmp_path / "out"), "--length", "16", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["method"] == "autodistil" and not (tmp_path / "out").exists()
