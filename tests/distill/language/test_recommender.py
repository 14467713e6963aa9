"""`barkour distill recommender`: a model and patients of one's own in, a folder that is asked and measured out."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from barkour import main
from distill.core.errors import DistillError
from distill.core.teachers import digest_of
from distill.language import recommender as command
from distill.language.models import Shape, build
from distill.language.own_options import RecommenderOptions
from distill.language.recommender import Recommender, _kept, distil, figures_of
from distill.language.text import bpe
from distill.language.visits import Patient, Visit, Vocabulary, described, naming, patient_of, read_patients
from distill.methods.kept import save
from distill.methods.leader.method import PatientReader
from sim.errors import InputError

pytestmark = pytest.mark.usefixtures("no_pictures")

NAMES = {
    f"D{i}": f"{organ} {what}"
    for i, (organ, what) in enumerate((o, w) for o in ("heart", "lung") for w in ("pain", "burn", "stone"))
}


def visit(rng: np.random.Generator) -> dict[str, Any]:
    """A diagnosis, and a medication for each word of its name."""
    code = str(rng.choice(list(NAMES)))
    return {
        "diagnoses": [code],
        "procedures": ["P1"] * int(rng.integers(2)),
        "medications": [f"M-{w}" for w in NAMES[code].split()],
    }


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small causal model, patients of one to three visits with profiles, names, a pair that should not be given."""
    folder, rng = tmp_path_factory.mktemp("home"), np.random.default_rng(0)

    def rows(count: int) -> list[Any]:
        return [
            {"visits": [visit(rng) for _ in range(1 + i % 3)], "profile": {"insurance": str(rng.choice(["a", "b"]))}}
            for i in range(count)
        ]

    more = rows(10)
    for row in more[:8]:
        row["visits"][-1]["medications"] = None
    more[8]["visits"] = []
    more[9]["visits"][0]["diagnoses"] = [None]
    write(folder / "rows.jsonl", rows(90) + more)
    write(folder / "test.jsonl", rows(40))
    write(folder / "names.jsonl", [{"code": code, "name": name} for code, name in NAMES.items()])
    (folder / "pairs.csv").write_text("first,second\nM-heart,M-lung\nM-heart,other\n")
    (folder / "other.jsonl").write_text('{"text": "a", "label": "b"}\n')
    tokens = bpe([*NAMES.values(), "Earlier visits: 1. Diagnoses: Medications:"], 330)
    save(build(Shape(tokens.size, 32, 1, 2, context=128)), folder / "teacher", tokens)
    return folder


def options(home: Path, out: Path, **changed: Any) -> RecommenderOptions:
    given: dict[str, Any] = {
        "teacher": str(home / "teacher"), "data": (home / "rows.jsonl",), "test": home / "test.jsonl", "out": out,
        "names": home / "names.jsonl", "interactions": home / "pairs.csv", "width": 16, "heads": 2, "length": 96,
        "steps": 60, "batch": 16, "rounds": 2, "warmup": 2, "learning_rate": 0.01, "teacher_epochs": 1.0,
        "teacher_learning_rate": 0.01, "align": 0.01,
    }  # fmt: skip
    return RecommenderOptions(**{**given, **changed})


def test_what_a_teacher_said_is_asked_again_where_a_bit_of_it_changed(tmp_path: Path) -> None:
    path, found = tmp_path / "states.safetensors", {"states": torch.ones(4, 3), "logits": torch.zeros(4, 2, 2)}
    save_file(found, path, {"sha256": digest_of("texts", found)})
    assert _kept(path, "texts") is not None and _kept(path, "other texts") is None
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert _kept(path, "texts") is None


def test_a_recommender_learns_and_is_asked_and_measured_from_its_folder(
    home: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    found = distil(options(home, out))
    assert found.figures is not None and found.measured_on == "test"
    start, end = found.figures["start"], found.figures["end"]
    assert end["prauc"] > start["prauc"] + 0.2 and end["prauc"] > found["beside"]["most frequent medications"]["prauc"]
    assert {"first visit, prauc", "later visit, f1", "ddi_rate"} <= set(end) == set(found["beside"]["teacher"])
    assert found["beside"]["as prescribed"] == {"ddi_rate": 0.0}, "an organ's drug is given with no other organ's"
    assert found.data["without_labels"] == 8
    assert found.data["dropped"] == {"no visit": 1, "codes that are no texts": 1}
    recommend = Recommender(out)
    assert recommend.measure([home / "test.jsonl"]) == end
    said = recommend({"visits": [{"diagnoses": ["D4"]}]})
    assert {code for code, _ in said[:2]} == {"M-lung", "M-burn"} and said == sorted(said, key=lambda one: -one[1])
    assert (
        recommend({"visits": [{"diagnoses": ["unheard of"], "medications": ["M-x"]}], "profile": {"other": "x"}})
        is not None
    )
    with pytest.raises(InputError, match="--resume"):
        distil(options(home, out))
    assert distil(options(home, out, resume=True)).figures == found.figures, "a finished run stays as it is"
    card = (out / "README.md").read_text()
    assert "LEADER" in card and all(digest in card for digest in found.data["files"].values())
    assert main(["distill", "card", str(out)]) == 0 and (out / "README.md").read_text() == card
    assert main(["distill", "evaluate", str(out), str(home / "test.jsonl"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["figures"] == {str(home / "test.jsonl"): end}
    assert f"| prauc, on {home / 'test.jsonl'} |" in (out / "README.md").read_text()
    for words in (["gone.jsonl"], [str(home / "test.jsonl"), "--limit", "3"], [str(home / "other.jsonl")]):
        assert main(["distill", "evaluate", str(out), *words]) == 2
        (said,) = capsys.readouterr().err.splitlines()
        assert str(out) not in said, "the data are at fault, not the student"
    vocabulary = json.loads((out / "vocabulary.json").read_text())
    for bad in (
        {"threshold": "0.3"}, {"threshold": float("nan")}, {"visits": -1}, {"visits": 10**400}, {"every_visit": "no"},
        {"interactions": [["M-heart", "none"]]}, {"medications": [1, *vocabulary["medications"][1:]]},
    ):  # fmt: skip
        (out / "vocabulary.json").write_text(json.dumps({**vocabulary, **bad}))
        with pytest.raises(DistillError, match="holds no recommender"):
            Recommender(out)
    (out / "vocabulary.json").write_text(json.dumps(vocabulary))
    summary = json.loads((out / "summary.json").read_text())
    (out / "summary.json").write_text(json.dumps({**summary, "parameters": 3}))
    monkeypatch.setattr(Recommender, "measure", lambda *_: pytest.fail("measured, for a card that cannot be written"))
    assert main(["distill", "evaluate", str(out), str(home / "test.jsonl")]) == 2
    assert "cannot be described" in capsys.readouterr().err


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "model.safetensors")


@pytest.mark.parametrize("stopped", [1, 2, 3, 4])
def test_a_run_that_was_stopped_in_either_stage_goes_on_bit_for_bit(stopped, home, tmp_path, monkeypatch):
    given: dict[str, Any] = {"steps": 6, "outputs": 0.1}
    whole = distil(options(home, tmp_path / "whole", **given))
    taught, figures, calls = command.Asked.stage, command.figures_of, []

    def stop() -> None:
        calls.append(0)
        if len(calls) == stopped:  # two rounds of the teacher, then two of the student
            raise KeyboardInterrupt

    def stage(self, *rows):
        found = taught(self, *rows)
        return replace(found, judge=lambda: (stop(), found.judge())[1])

    def measured(probabilities, patients, *others):
        if len(patients) == whole.data["held_out"]:  # not those of --test
            stop()
        return figures(probabilities, patients, *others)

    monkeypatch.setattr(command.Asked, "stage", stage)
    monkeypatch.setattr(command, "figures_of", measured)
    out, asked = tmp_path / "cut", []
    assert distil(options(home, out, **given))["interrupted"]
    state = PatientReader.state
    monkeypatch.setattr(
        PatientReader, "state", lambda self, batch: (asked.append(self.training), state(self, batch))[1]
    )
    again = distil(options(home, out, resume=True, **given))
    assert not again["interrupted"] and again.figures == whole.figures and again["measured"] == whole["measured"]
    assert weights(out).keys() == weights(tmp_path / "whole").keys()
    assert all(torch.equal(values, weights(out)[name]) for name, values in weights(tmp_path / "whole").items())
    if stopped > 2:  # what the teacher said of whom is learned from was kept: only the figures at the end ask it
        assert len(asked) == -(-40 // 16) and not any(asked)


def test_a_teacher_that_stays_as_it_is_or_has_adapters_or_none_at_all(home: Path, tmp_path: Path) -> None:
    frozen = distil(options(home, tmp_path / "frozen", teacher_epochs=0.0, teacher_learning_rate=5e-5, steps=4))
    assert "teacher" not in frozen["beside"] and frozen.steps == 4
    adapted = distil(options(home, tmp_path / "adapted", lora=2, micro_batch=4, steps=4))
    assert adapted["beside"]["teacher"]["prauc"] > 0
    alone = distil(
        options(
            home, tmp_path / "alone", teacher="", names=None, length=512, features=0.0, teacher_epochs=3.0,
            teacher_learning_rate=5e-5, steps=4,
        )
    )  # fmt: skip
    assert "teacher" not in alone.parameters and alone.figures is not None


def patient(*visits: tuple[str, str, str | None], **more: Any) -> Patient:
    each = [Visit(*(tuple(codes.split()) if codes is not None else None for codes in one)) for one in visits]  # type: ignore[arg-type]
    return Patient(tuple(each), **more)


def test_codes_become_numbers_and_what_is_to_be_prescribed_is_in_no_input():
    learned = [patient(("a b", "p", "m"), ("a", "", "n")), patient(("b c", "p", "m n"), profile={"sex": "f"})]
    vocabulary = Vocabulary.of(learned, rare=2)
    assert (vocabulary.diagnoses, vocabulary.procedures, vocabulary.medications) == (("b",), ("p",), ("m", "n"))
    assert vocabulary.sizes() == {"diagnoses": 2, "procedures": 2, "drugs": 2, "profile": (2,)}
    asked = [patient(("", "", "n"), ("b x", "y p", "m"), ("x", "", "m z")), learned[1]]
    rows = vocabulary.rows(asked)
    assert rows["diagnoses"].tolist() == [[[1, 0], [1, 2], [1, 0]], [[0, 0], [0, 0], [1, 2]]]
    assert rows["procedures"].tolist() == [[[0, 0], [1, 2], [0, 0]], [[0, 0], [0, 0], [2, 0]]]
    assert rows["earlier"].tolist() == [[[2], [1]], [[0], [0]]] and rows["profile"].tolist() == [[0], [1]]
    other = [
        patient(("", "", "n"), ("b x", "y p", "m"), ("x", "", "n")),
        patient(("b c", "p", None), profile={"sex": "f"}),
    ]
    assert all(np.array_equal(values, rows[name]) for name, values in vocabulary.rows(other).items())
    called = naming({("diagnoses", "b"): "bleeding", ("", "m"): "morphine", ("procedures", "m"): "wrong"})
    for one, same in zip(asked, other, strict=True):
        assert described(one, called) == described(same, called)
    told = described(asked[0], called)
    assert "bleeding; x" in told and "morphine" in told and "wrong" not in told and told.endswith("Medications:")
    assert vocabulary.labels(asked).tolist() == [[1, 0], [1, 1]] and vocabulary.unknown(asked) == ["z"]
    again = Vocabulary.from_json(json.loads(json.dumps(vars(vocabulary))))
    assert again == vocabulary


def test_a_right_medication_that_is_not_known_counts_as_missed():
    vocabulary = Vocabulary.of([patient(("a", "", "m n"))], rare=1)
    said = np.array([[0.9, 0.1]])
    assert figures_of(said, [patient(("a", "", "m"))], vocabulary, 0.5, [])["f1"] == 1.0
    missed = figures_of(said, [patient(("a", "", "m z"))], vocabulary, 0.5, [("m", "n")])
    assert missed["f1"] == pytest.approx(2 / 3) and missed["jaccard"] == 0.5 and missed["ddi_rate"] == 0.0
    assert missed["prauc"] == pytest.approx((1 + 2 / 3) / 2)


def test_every_visit_is_an_example_of_its_own_and_a_patient_is_on_one_side(home: Path, tmp_path: Path) -> None:
    read = read_patients([home / "rows.jsonl"])
    asked = options(home, tmp_path, every_visit=True, test=None, visits=2)
    found = command._examples(asked, read)
    unknown = sum(not one.known for one in read.rows) - sum(not one.known for one in found.learned)
    assert len(found.learned) + len(found.held_out) + unknown == sum(len(one.visits) for one in read.rows)
    assert found.judged is found.held_out and all(one.known and len(one.visits) < 3 for one in found.held_out)
    ends = {id(own.visits[-1]) for own in found.learned} & {id(own.visits[-1]) for own in found.held_out}
    assert not ends and any(one.first for one in found.held_out)
    owners = {id(v): place for place, one in enumerate(read.rows) for v in one.visits}
    sides = [{owners[id(v)] for one in side for v in one.visits} for side in (found.learned, found.held_out)]
    assert not sides[0] & sides[1]


def test_what_cannot_be_used_is_one_sentence_and_leaves_nothing(home: Path, tmp_path: Path) -> None:
    one = {"visits": [{"diagnoses": ["a"], "medications": ["m"]}]}

    def data(name: str, *rows: Any) -> tuple[Path, ...]:
        return (write(tmp_path / f"{name}.jsonl", list(rows)),)

    named = write(tmp_path / "twice.jsonl", [{"code": "a", "name": "x"}, {"code": "a", "name": "y"}])
    elsewhere = write(tmp_path / "else.jsonl", [{"code": "x", "name": "y"}])
    kinds = write(tmp_path / "kinds.jsonl", [{"code": "a", "name": "x", "kind": "drug"}])
    pairs = write(tmp_path / "pairs.jsonl", [{"first": "M-heart", "second": "gone"}])
    both = {**one, "visits": one["visits"] * 2, "text": "told"}
    cases = [
        ({"teacher": ""}, "--teacher"), ({"data": ()}, "--data"), ({"heads": 3}, "--heads"),
        ({"teacher": str(home)}, "cannot be loaded"),
        ({"data": (home / "other.jsonl",)}, "wanted are visits"), ({"data": (tmp_path / "gone.jsonl",)}, "exist"),
        ({"data": data("fields", {"visits": [{"drugs": ["m"]}]})}, "visit 1: the fields are drugs"),
        ({"data": data("none", {"visits": []})}, "no visit"), ({"data": data("few", one)}, "too few"),
        ({"data": data("unknown", *[{"visits": [{"diagnoses": ["a"]}]}] * 3)}, "too few"),
        ({"data": data("nothing", *[{"visits": [{"diagnoses": ["a"], "medications": []}]}] * 3)}, "has a medication"),
        ({"data": data("plain", *[one] * 4)}, "--align needs"), ({"length": 256}, "reads 128"),
        ({"data": data("texts", *[both] * 4), "every_visit": True}, "--every-visit"),
        ({"names": elsewhere}, "no code"), ({"names": named}, "is called"),
        ({"names": kinds}, "the kind is"), ({"interactions": pairs}, "no pair"),
        ({"names": home / "rows.jsonl"}, "wanted are code, name"),
        ({"test": write(tmp_path / "nobody.jsonl", [{"visits": [{"diagnoses": ["a"]}]}])}, "are known"),
        ({"data": (home / "rows.jsonl",), "test": home / "rows.jsonl"}, "rows.jsonl"),
    ]  # fmt: skip
    for changed, about in cases:
        with pytest.raises(InputError, match=about) as raised:
            distil(options(home, tmp_path / "out", **changed))
        assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()
    for changed, about in (
        ({"student": "x"}, "--student"), ({"features": 0.0}, "--teacher has no effect"),
        ({"teacher_epochs": 0.0}, "--teacher-learning-rate"), ({"threshold": 1.5}, "--threshold"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=about):
            options(home, tmp_path / "out", **changed)
    save(build(Shape(8, 8, 1, 1)), tmp_path / "model")
    for folder in (tmp_path / "model", tmp_path / "gone"):
        with pytest.raises(DistillError, match="no recommender|no student"):
            Recommender(folder)
    with pytest.raises(DistillError, match="visit 1"):
        patient_of({"visits": [["a"]]}, "here")


def test_the_front_door_checks_and_writes_nothing(home: Path, tmp_path: Path, capsys: Any) -> None:
    line = f"distill recommender --teacher {home / 'teacher'} --data {home / 'rows.jsonl'} --length 96"
    line += f" --out {tmp_path / 'out'} --dry-run --json"
    assert main(line.split()) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "leader" and found["data"]["held_out"] == 9 and not (tmp_path / "out").exists()
    assert main([*line.split(), "--steps", "3", "--epochs", "2"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
