"""The bench that kills runs: what it counts as a fault, and that it goes on where it was ended."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.kills import Kind, campaign, kept, total
from sim.errors import InputError

COUNTS = """
import subprocess, sys, time
from pathlib import Path
out, how = Path(sys.argv[1]), sys.argv[2]
out.mkdir(parents=True, exist_ok=True)
kept, log, starts = out / "kept", out / "log", out / "starts"
begun = int(starts.read_text()) if starts.exists() else 0
starts.write_text(str(begun + 1))
now = 0 if how == "forgets" else int(kept.read_text()) if kept.exists() else 0
stops = {0: 5, 1: 2 if how == "forgets" else 7}.get(begun, 0) if out.name == "run" else 0
if how == "orphan":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
for n in range(now + 1, 9):
    log.write_text(str(n))
    if how != "rarely" or n == 8:
        kept.write_text(str(n))
    if n == stops:
        time.sleep(60)
time.sleep(0.4)
(out / "end").write_text("other" if how == "otherwise" and now else "end")
"""
"""Counts to eight, goes on where it was ended, and waits there for its first two kills; or does what it must not."""


BUSY = """
import sys, time
from pathlib import Path
out = Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
with Path(sys.argv[2]).open("a+") as starts:
    starts.write(".")
    starts.seek(0)
    begun = len(starts.read())
time.sleep(2.5 if begun < 3 else 0.5)
sys.exit(3 if begun > 20 else 0)
"""
"""Runs slowly twice, as on a busy computer, and fast then; after twenty times it fails."""


class Late:
    """Kills when a run has come to where it waits."""

    share = 0.95

    def uniform(self, low: float, high: float) -> float:
        return self.share


@pytest.fixture(autouse=True)
def late(monkeypatch):
    monkeypatch.setattr(kills.random, "Random", lambda seed: Late())
    monkeypatch.setattr(kills, "ORPHANS", 0.3)


def number(file: Path) -> int:
    return int(file.read_text() or 0) if file.exists() else 0


def made(how: str) -> Kind:
    return Kind(
        lambda where, out: [str(out), how], lambda out: (out / "end").read_text(),
        lambda out: (number(out / "kept"), f"{number(out / 'kept')}"),
        lost=lambda out: number(out / "log") - number(out / "kept"), program=(sys.executable, "-c", COUNTS),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("how", "seen"),
    [("well", ""), ("forgets", "fell"), ("rarely", "lost"), ("orphan", "orphans"), ("otherwise", "equal")],
)
def test_every_fault_is_counted_and_no_other(how, seen):
    found = total(campaign(how, made(how), 2, seed=1))
    assert found["kills"] == 2 == sum(found["struck"].values())
    for name in ("fell", "lost", "orphans"):
        assert (found[name] > 0) == (name == seen), found
    assert (found["equal"] < found["runs"]) == (seen == "equal"), found


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_computer_that_became_fast_is_noticed(goes_on, monkeypatch):
    monkeypatch.setattr(Late, "share", 0.6)
    busy = Kind(
        lambda where, out: [str(out), str(where / "starts")], lambda out: "", lambda out: (0, ""),
        program=(sys.executable, "-c", BUSY), goes_on=goes_on,
    )  # fmt: skip
    assert total(campaign("busy", busy, 1, seed=0))["kills"] == 1


def test_a_bench_that_was_ended_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(kills, "EACH", 2)
    keep = tmp_path / "kills.jsonl"
    first = campaign("well", made("well"), 2, seed=4, keep=keep)
    keep.write_text(keep.read_text() + '{"kind": "we')
    more = campaign("well", made("well"), 4, seed=4, keep=keep)
    assert more[: len(first)] == first and total(more)["kills"] == 4
    assert [run.number for run in kept(keep, "well", 4)] == list(range(len(more)))
    assert kept(keep, "well", 5) == kept(keep, "train", 4) == []
    monkeypatch.setattr(kills, "finished", lambda *_: pytest.fail("nothing is left to do"))
    assert campaign("well", made("well"), 4, seed=4, keep=keep) == more
    keep.write_text('{"mine": 1}\n')
    with pytest.raises(InputError):
        campaign("well", made("well"), 2, seed=4, keep=keep)


def test_a_run_that_comes_to_no_end_is_named():
    with pytest.raises(InputError, match="status 3"):
        campaign("ill", replace(made("well"), program=(sys.executable, "-c", "import sys; sys.exit(3)")), 1, seed=0)


def test_what_training_lost_is_what_was_logged_beyond_its_newest_checkpoint(tmp_path):
    assert kills.iterations(tmp_path)[0] == -1 and kills.iterations_lost(tmp_path) == 0
    (tmp_path / "checkpoints" / "step_000000000576").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step_000000000576" / "state.json").write_text("{}")
    (tmp_path / "checkpoints" / "step_000000000864").mkdir()  # not whole
    rows = [json.dumps({"steps": steps}) + "\n" for steps in (288, 576, 864)]
    (tmp_path / "log.jsonl").write_text("".join(rows) + '{"steps": 1152')
    assert kills.iterations(tmp_path) == (576, "2 iterations")
    assert kills.iterations_lost(tmp_path) == 1 and kills.logged(tmp_path) == [288, 576, 864]


@pytest.mark.parametrize("name", kills.KINDS)
def test_every_kinds_command_is_one_of_the_front_door(name, tmp_path):
    import barkour

    (tmp_path / "run").mkdir()
    call = barkour.parse([*kills.KINDS[name].words(tmp_path, tmp_path / "run"), "--json"])
    assert call.json and call.name.split()[0] in ("distill", "recipe", "train", "ros")
