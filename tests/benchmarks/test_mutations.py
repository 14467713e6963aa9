"""Damaged and falsified files of every kind: read as they were meant, or refused in one line."""

import os
from pathlib import Path

import pytest

from benchmarks import mutations
from benchmarks.mutations import FAULTS, KINDS, Kind, outcomes
from sim.errors import InputError

FILES = int(os.environ.get("BARKOUR_MUTATIONS", "88"))
"""Four of each kind, the first of what `python -m benchmarks.mutations --seed 1 --files 5000` reads."""


def test_no_changed_file_ends_in_anything_but_its_meaning_or_one_line():
    found = list(outcomes(range(FILES), seed=1))
    assert [each for each in found if each.outcome in FAULTS] == []
    # a bench that refuses everything, or changes nothing, would find no fault either
    assert sum(each.outcome == "refused" for each in found) > FILES / 3
    assert sum(each.outcome in ("same", "accepted") for each in found) > FILES / 20


def test_the_bench_sees_every_fault(tmp_path, monkeypatch):
    def make(folder: Path) -> None:
        (folder / "file").write_text("sound")

    said: list[Exception | None] = [None]

    def read(folder: Path) -> str:
        if (folder / "file").read_text() == "sound":
            return "sound"
        if said[0] is not None:
            raise said[0]
        return "nonsense"

    def outcome() -> str:
        return mutations.Reader(tmp_path, seed=3).one(0).outcome

    kind = Kind("made", ("file",), make, read, lambda found, sound: "" if found == sound else "other", words=("score",))
    monkeypatch.setattr(mutations, "KINDS", (kind,))
    monkeypatch.setattr(mutations, "changed", lambda rng, data, kind: b"falsified")
    cases = [(None, "nonsense"), (KeyError("a"), "traceback"), (InputError(""), "lines")]
    for error, wanted in cases:
        said[0] = error
        assert outcome() == wanted
    said[0] = InputError("one line")
    for status, err, wanted in [(2, "barkour: no\n", "refused"), (1, "no\n", "status"), (2, "a\nb\n", "lines")]:
        monkeypatch.setattr(mutations, "door", lambda words, status=status, err=err: (status, "", err))
        assert outcome() == wanted


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_sound_file_is_accepted(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("BARKOUR_ROBOTS", "")  # a robot that is added is known from then on
    kind.make(tmp_path)
    found = kind.read(tmp_path)
    assert kind.wrong(found, found) == ""
