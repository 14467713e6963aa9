"""Weights & Biases is told what TensorBoard is, by one run that goes on after a stop."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.language import distil as command
from distill.language.options import LanguageOptions
from distill.language.tracking import Tracked
from sim.errors import InputError


class Project:
    """Stands for the package: keeps what it is sent."""

    Error = type("Error", (Exception,), {})

    def __init__(self) -> None:
        self.begun: list[dict] = []
        self.sent: list[tuple[int, dict]] = []
        self.ends: list[int] = []
        self.summary: dict = {}

    def init(self, **given) -> SimpleNamespace:
        if "/" in given["project"]:
            raise self.Error("no such project\nand more")
        self.begun.append(given)
        log = lambda values, step: self.sent.append((step, values))  # noqa: E731
        return SimpleNamespace(log=log, summary=self.summary, finish=lambda exit_code: self.ends.append(exit_code))


@pytest.fixture
def wandb(monkeypatch) -> Project:
    project = Project()
    monkeypatch.setitem(sys.modules, "wandb", project)
    return project


def options(home: Path, out: Path, **more) -> LanguageOptions:
    return LanguageOptions(
        teacher=str(home / "teacher"), student=str(home / "config"), data=(home / "chats.jsonl",), out=out,
        steps=4, rounds=2, length=32, **more,
    )  # fmt: skip


def test_wandb_is_sent_what_is_logged_and_the_figures_of_the_whole(home, tmp_path, wandb, monkeypatch):
    monkeypatch.setattr(Journal, "plot", lambda journal, title: None)
    found = command.distil(options(home, tmp_path / "s", wandb="own", method="self_distillation", generations=2))
    assert wandb.ends == [0] and wandb.begun[0]["project"] == "own" and wandb.begun[0]["config"]["steps"] == 4
    steps = [step for step, values in wandb.sent if "fit/loss" in values]
    assert steps == [2, 4, 6, 8], "the second generation goes on where the first ended"
    logged = Journal(tmp_path / "s" / "run" / "generation_2").rows("round")[-1]
    last = [values for step, values in wandb.sent if step == 8 and "round/golden" in values][0]
    assert last["round/golden"] == pytest.approx(logged["golden"], rel=1e-5)
    assert wandb.summary["perplexity/end"] == found["perplexity"]["end"]


def test_the_same_run_goes_on(tmp_path, wandb):
    for interrupted in (True, False):
        Tracked("own", tmp_path, "student", {}).finish({}, interrupted)
    first, second = wandb.begun
    assert first["id"] == second["id"] and second["resume"] == "allow" and wandb.ends == [1, 0]


@pytest.mark.parametrize("how", ["pipe", "folder", "empty", b"\xff\xfe", b"../other", b"0123456789abcdef" * 1000])
def test_an_id_that_is_none_is_one_line(how, tmp_path, wandb, spoil):
    if isinstance(how, bytes):
        (tmp_path / "wandb_id").write_bytes(how)
    else:
        spoil(tmp_path / "wandb_id", how)
    with pytest.raises(DistillError, match="wandb_id"):
        Tracked("own", tmp_path, "student", {})
    assert not wandb.begun


@pytest.mark.parametrize("why", ["not installed", "refused"])
def test_wandb_that_cannot_be_used_is_one_line_and_begins_no_run(why, home, tmp_path, wandb, monkeypatch):
    if why == "not installed":
        monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError) as error:
        command.distil(options(home, tmp_path / "s", wandb="not/one"))
    assert len(str(error.value).splitlines()) == 1 and not (tmp_path / "s" / "run" / "options.json").exists()
