"""Damaged and falsified files of every kind: read as they were meant, or refused in one line."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from benchmarks import mutations
from benchmarks.mutations import FAULTS, KINDS, Kind, outcomes, same, unwritten
from sim.errors import InputError
from sim.robots.description import default_robot

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


@dataclass(frozen=True)
class Said:
    """What a reader made of a file."""

    steps: int = 4
    rate: float = 0.5
    name: str = "plain"
    path: str = ""


@pytest.mark.parametrize(
    ("found", "alike"),
    [
        (Said(), True), (Said(path="elsewhere"), True), (Said(steps=5), False), (Said(name="Plain"), False),
        ({"a": [1, "x"]}, False), ([Said(), 1.0], False),
    ],
)  # fmt: skip
def test_what_was_read_is_the_same_but_for_where_it_stood(found, alike):
    assert same(found, Said()) is alike


def test_values_of_another_kind_are_not_the_same():
    """True is 1 and 1 is 1.0 for Python, and they are not for who wrote them."""
    for one, other in [(1, True), (1, 1.0), ("1", 1), ([1], (1, 2)), ({"a": 1, "b": 2}, {"b": 2, "a": 1})]:
        assert not same(one, other) and same(one, one) and same(other, other)
    zeros = np.zeros(3, np.float32)
    assert same(zeros, zeros.copy()) and not same(zeros, -zeros) and not same(zeros, [0.0] * 3)
    assert same({"a": 1, "folder": "x"}, {"a": 1, "folder": "y"})


@pytest.mark.parametrize(
    ("found", "text", "stands"),
    [
        (Said(steps=9), "steps: 9", True), (Said(steps=9), "steps: 0x9", False), (Said(steps=9), "steps: 1_9", False),
        (Said(rate=1e3), "rate: 1e3", True), (Said(rate=90.0), "rate: 1:30", False), (Said(rate=9.0), "9,5", True),
        (Said(name="other"), "name: other", True), (Said(name="2026-11-28"), "name: 28.11.2026", False),
        ({"on": True}, "on: TRUE", True), ({"on": True}, "on: 1", False), ({"x": 1.0}, '{"x": true}', False),
        ({"x": float("inf")}, '{"x": Infinity}', True), ({"x": float("inf")}, '{"x": 1e400}', True),
        ({"x": float("nan")}, '{"x": NaN}', True), ({"x": float("nan")}, '{"x": 0}', False),
        ({"x": 10**400}, f'{{"x": 1{"0" * 400}}}', True), ({"x": 10**400}, '{"x": 1e400}', False),
        (["9" * 5000], f'"{"9" * 5000}"', True),
        (["a\ufffdb"], "a\ufffdb", True), (['say "no"'], '"say ""no"""', True), (["a b"], "a\n  b", True),
    ],
)  # fmt: skip
def test_only_what_stands_in_a_file_may_be_read(found, text, stands):
    assert (unwritten(found, {"x": 0, "on": None}, text.encode()) == "") is stands


def test_what_the_sound_file_says_and_defaults_need_not_stand_there():
    assert unwritten(Said(steps=7), Said(steps=7), b"") == ""
    assert unwritten([Said()], [], b"") == "", "defaults of a dataclass"
    assert unwritten(["a\ufffdb"], [], b"a\xffb"), "what is no character was made one"


@pytest.mark.parametrize(
    "change",
    [
        {"joint_lower": default_robot().joint_upper}, {"joint_upper": default_robot().joint_upper + 99.0},
        {"joint_names": ("",) * 12}, {"torque_limit": np.zeros(12)}, {"kp": np.full(12, 1e30)},
        {"default_pose": np.full(12, 9.0)}, {"standing_height": 77.0}, {"foot_radius": -0.02},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_a_description_that_is_no_robots_is_seen(change):
    robot = default_robot()
    measures, masses, driven = {"mass_kg": 12.0}, np.ones(13), sorted(robot.joint_names)
    assert mutations._sound_robot((measures, robot, masses, driven), None) == ""
    changed = {name: value for name, value in vars(robot).items()} | change
    odd = object.__new__(type(robot))
    odd.__dict__.update(changed)  # past its own checks: the bench's are looked at here
    assert mutations._sound_robot((measures, odd, masses, driven), None)
    for wrong in ((measures, robot, masses * 0, driven), (measures, robot, masses, driven[1:])):
        assert mutations._sound_robot(wrong, None)
    assert mutations._sound_robot(({"mass_kg": 1e9}, robot, masses, driven), None)
