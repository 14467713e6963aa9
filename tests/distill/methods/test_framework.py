"""A recipe written as the documentation says, and what the framework promises of every one."""

import fcntl
import json
import os
import pickle
import re
import shutil
import time
from dataclasses import dataclass, replace
from multiprocessing import active_children

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from distill.core.errors import DistillError
from distill.core.folders import LOCK
from distill.core.objectives.divergences import CrossEntropy
from distill.core.tables import FixedDomain
from distill.language.student import ModelStudent, Next
from distill.methods import cluster, framework
from distill.methods import run as experiments
from distill.methods.catalogue import NAMES, find
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Trial
from distill.methods.options import ExperimentOptions
from distill.methods.run import kept_arms, plan, seeds_of, summary, table
from distill.methods.statistics import Check

QUIET = Console(quiet=True)


def run(recipe, **options):
    return experiments.run(recipe, ExperimentOptions(**options), QUIET)


# --- a whole recipe: what a newcomer writes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    rows: int = 200
    steps: int = 60


@dataclass(frozen=True)
class Labels(Arm):
    shuffled: bool = False


def prepare(trial):
    x = trial.rng().standard_normal((trial.settings.rows, 4)).astype(np.float32)
    return {"x": x, "label": (x.sum(1) > 0).astype(np.int64)}


def arm(trial, rows, labels):
    if labels.shuffled:
        rows = {**rows, "label": trial.rng(1).permutation(rows["label"])}
    torch.manual_seed(trial.seed)
    student = ModelStudent(nn.Linear(4, 2), lambda module, batch: module(batch["x"]))
    options = {"steps": trial.settings.steps, "learning_rate": 0.1}
    trial.fit(student, CrossEntropy(), Next("label"), [FixedDomain("points", rows)], **options)
    test = torch.from_numpy(trial.rng(2).standard_normal((500, 4))).float()
    right = student.module(test).argmax(1) == (test.sum(1) > 0)
    return {"accuracy": right.float().mean().item()}


CLAIM = Claim(
    "gain", "True labels teach more than shuffled ones", Difference("labels", "shuffled"),
    Power(effect=0.3, spread=0.15, pilot=(900, 901, 902)),
)  # fmt: skip


RECIPE = Recipe(
    name="halves", title="Which side of a plane", source="none", place=Place("labelling", "fine-tuning", "text"),
    signals=("text",), data="points", claim="True labels teach more than shuffled ones", falsified="they teach less",
    arms={"labels": Labels("true labels"), "shuffled": Labels("control: shuffled labels", shuffled=True)},
    metric="accuracy", seeds=0,
    prepare=prepare, arm=arm, claims=(CLAIM,), presets={"small": Settings()},
)  # fmt: skip

# ------------------------------------------------------------------------------------------------------------------


def test_seeds_as_jobs_of_a_cluster_give_the_same_figures(tmp_path, monkeypatch):
    pytest.importorskip("submitit")
    with monkeypatch.context() as nowhere:
        nowhere.setenv("PATH", str(tmp_path))
        with pytest.raises(DistillError, match="Slurm"):
            run(RECIPE, out=tmp_path / "a", seeds=2, pool="slurm")
    assert not (tmp_path / "a").exists()
    made = cluster.executor
    monkeypatch.setattr(cluster, "executor", lambda *given: made(*given, kind="debug"))
    jobs = run(RECIPE, out=tmp_path / "a", seeds=2, pool="slurm")
    assert jobs["arms"] == run(RECIPE, out=tmp_path / "b", seeds=2, workers=1)["arms"]


def test_a_new_recipe_of_40_lines_runs(tmp_path):
    result = run(RECIPE, seed=4, out=tmp_path, workers=1)
    assert result["name"] == "halves" and result["verdict"] == "supported" and result["seed"] == 4
    assert result["claim"] == RECIPE.claim and result["seeds"] == [4, 5, 6, 7, 8] and result["seconds"] > 0
    labels = result["arms"]["labels"]
    assert labels["metric"] == "accuracy" and labels["n_seeds"] == 5 and labels["mean"] > 0.9
    assert labels["ci95"][0] < labels["mean"] < labels["ci95"][1]
    written = json.loads((tmp_path / "halves" / "result.json").read_text())
    assert written["verdict"] == "supported" and (tmp_path / "halves" / "result.png").stat().st_size > 1000
    assert not [p for p in (tmp_path / "halves" / "seed_4").iterdir() if p.is_dir()], "training folders are gone"


def test_finished_arms_are_kept_and_the_rest_goes_on(tmp_path):
    def broken(trial, rows, labels):
        if trial.seed == 1 and labels.shuffled:
            raise KeyboardInterrupt
        return arm(trial, rows, labels)

    with pytest.raises(KeyboardInterrupt):
        run(replace(RECIPE, arm=broken), out=tmp_path, seeds=3, workers=1)
    done = []

    def counted(trial, rows, labels):
        done.append((trial.seed, trial.doing))
        return arm(trial, rows, labels)

    resumed = run(replace(RECIPE, arm=counted), out=tmp_path, seeds=3, workers=1)
    assert done == [(1, "shuffled"), (2, "labels"), (2, "shuffled")]
    whole = run(RECIPE, out=tmp_path / "whole", seeds=3, workers=1)
    assert {a: f["mean"] for a, f in resumed["arms"].items()} == {a: f["mean"] for a, f in whole["arms"].items()}


class Stopped(Exception):
    """Where a run is killed."""


def sharing(trial, shared, labels):
    """Arms share a first student that whichever comes first trains, with fewer steps."""

    def fitted(steps, evaluate=None):
        torch.manual_seed(trial.seed)
        student = ModelStudent(nn.Linear(4, 2), lambda module, batch: module(batch["x"]))
        domain = [FixedDomain("points", shared["rows"])]
        trial.fit(student, CrossEntropy(), Next("label"), domain, steps=steps, evaluate=evaluate)
        return student

    if "first" not in shared:
        shared["first"] = fitted(8)
    student = fitted(10, trial.settings if labels.shuffled else None)
    return {"accuracy": (student.module.weight.sum() + shared["first"].module.weight.sum()).item()}


def killed(student):
    raise Stopped


def test_a_run_killed_in_a_later_arm_goes_on_though_arms_share_what_the_first_of_them_makes(tmp_path):
    shared = lambda trial: {"rows": prepare(replace(trial, settings=Settings()))}  # noqa: E731
    recipe = replace(RECIPE, arm=sharing, prepare=shared, seeds=1)
    stopped = replace(recipe, presets={"small": killed})
    with pytest.raises(Stopped):
        run(stopped, out=tmp_path, workers=1)
    assert list((tmp_path / "halves" / "seed_0").glob("shuffled_1/checkpoint")), "the kill left something behind"
    resumed = run(replace(recipe, presets={"small": None}), out=tmp_path, workers=1)
    whole = run(replace(recipe, presets={"small": None}), out=tmp_path / "whole", workers=1)
    assert {a: f["mean"] for a, f in resumed["arms"].items()} == {a: f["mean"] for a, f in whole["arms"].items()}
    assert {p.name for p in (tmp_path / "halves" / "seed_0").iterdir()} == {"arms.json"}


def test_one_folder_is_run_in_once(tmp_path):
    (tmp_path / "halves").mkdir()
    with (tmp_path / "halves" / LOCK).open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DistillError):
            run(RECIPE, out=tmp_path, seeds=1, workers=1)


def later(trial, shared, wanted):
    """An arm that passes on what those it needs measured, and one more."""
    return {"accuracy": 1.0 + sum(trial.measured(need)["accuracy"] for need in wanted.needs)}


def test_arms_run_after_those_they_need_whatever_order_they_are_listed_in(tmp_path):
    arms = {"c": Arm("", needs=("b", "a")), "b": Arm("", needs=("a",)), "a": Arm(""), "d": Arm("")}
    recipe = replace(RECIPE, arms=arms, arm=later, claims=(), seeds=1, rule=lambda results: [Check("ran", True)])
    assert recipe.order() == ["a", "b", "c", "d"]
    found = run(recipe, out=tmp_path, seeds=1, workers=1)["arms"]
    assert {name: arm["mean"] for name, arm in found.items()} == {"a": 1, "b": 2, "c": 4, "d": 1}
    assert list(found) == list(arms), "listed as the recipe lists them"


@pytest.mark.parametrize(
    "arms",
    [{"a": Arm("", needs=("b",))}, {"a": Arm("", needs=("b",)), "b": Arm("", needs=("a",))}],
    ids=["missing", "circle"],
)
def test_arms_that_cannot_be_ordered_are_no_recipe(arms):
    with pytest.raises(DistillError, match="'a'|a -> b -> a"):
        replace(RECIPE, arms=arms)


def test_an_arm_reads_of_others_only_what_it_says_that_it_needs(tmp_path):
    def arm(trial, shared, wanted):
        return {"accuracy": 1.0 if trial.doing == "a" else trial.measured("a")["accuracy"]}

    recipe = replace(RECIPE, arms={"a": Arm(""), "b": Arm("")}, arm=arm)
    with pytest.raises(DistillError, match="'b' reads 'a'"):
        run(recipe, out=tmp_path, seeds=1, workers=1)
    with pytest.raises(DistillError, match="reads 'a'"):
        Trial(0, tmp_path, finished={"a": {}}).measured("a")


def test_every_recipe_travels_to_another_process():
    for name in NAMES:
        recipe = find(name)
        for domain in recipe.domains:
            again = pickle.loads(pickle.dumps(recipe.on(domain)))
            assert again.order() == recipe.on(domain).order() and again.about() == recipe.on(domain).about()


def test_seeds_side_by_side_give_the_same_result(tmp_path):
    recipe = replace(find("teacher_hacking"), seeds=2, least_budget=0.003)
    alone = run(recipe, out=tmp_path / "a", budget=0.003, workers=1)
    together = run(recipe, out=tmp_path / "b", budget=0.003, workers=2)
    assert {a: f["mean"] for a, f in alone["arms"].items()} == {a: f["mean"] for a, f in together["arms"].items()}


def begins(trial):
    (trial.folder / "begun").touch()
    time.sleep(20)
    (trial.folder / "done").touch()


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_does_not_wait_for_the_arms_at_work(tmp_path, monkeypatch):
    def asked(*_, **__):
        while len(list(tmp_path.rglob("begun"))) < 2:
            time.sleep(0.1)
        raise KeyboardInterrupt

    before = active_children()
    monkeypatch.setattr(experiments, "wait", asked)
    with pytest.raises(KeyboardInterrupt):
        run(replace(RECIPE, prepare=begins), out=tmp_path, seeds=2, workers=2)
    assert not list(tmp_path.rglob("done")) and set(active_children()) <= set(before)


def test_a_budget_is_refused_before_any_work(tmp_path):
    prepared = []
    recipe = replace(RECIPE, least_budget=0.2, prepare=lambda trial: prepared.append(trial) or prepare(trial))
    for budget in (1e-9, 0.199):
        with pytest.raises(DistillError, match="0.2"):
            run(recipe, out=tmp_path / "runs", seeds=1, budget=budget, workers=1)
    assert not prepared and not (tmp_path / "runs").exists()
    run(recipe, out=tmp_path / "runs", seeds=1, budget=0.2, workers=1)
    assert prepared


@pytest.mark.parametrize("how", ["pipe", "device", "folder", "huge", "empty", b"\xff\xfe"])
def test_what_says_how_a_fit_was_called_is_a_line_or_nothing(how, tmp_path, spoil):
    path = tmp_path / "labels_1.0.call"
    path.write_text("a digest")
    assert framework._said(path) == "a digest"
    path.unlink()
    if isinstance(how, bytes):
        path.write_bytes(how)
    else:
        spoil(path, how)
    assert framework._said(path) == ""


def test_results_of_other_options_are_refused(tmp_path):
    run(RECIPE, out=tmp_path, seeds=1, workers=1)
    with pytest.raises(DistillError, match="begun with budget 1.0, not 0.5"):
        run(RECIPE, out=tmp_path, seeds=1, budget=0.5, workers=1)
    with pytest.raises(DistillError, match="begun with settings"):
        other = replace(RECIPE, presets={"small": Settings(steps=61)})
        run(other, out=tmp_path, seeds=1, workers=1)
    path = tmp_path / "halves" / "seed_0" / "arms.json"
    whole = path.read_text()
    endless = re.sub(r'("seconds": )[0-9.]+', r"\g<1>" + "9" * 400, whole)
    other = json.dumps({"labels": {"measures": {"error": 10**400}, "seconds": 1}})
    for content in (whole[:20], endless, other):
        path.write_text(content)
        with pytest.raises(DistillError, match="is damaged"):
            run(RECIPE, out=tmp_path, seeds=1, workers=1)


def a(change):
    """What `change` makes of the first arm of a seed's results, as a file."""

    def made(whole: str) -> str:
        arms = json.loads(whole)
        change(next(iter(arms.values())))
        return json.dumps(arms)

    return made


@pytest.mark.parametrize(
    "spoilt",
    [
        a(lambda arm: arm["measures"].update(accuracy="0.1")), a(lambda arm: arm["measures"].update(accuracy=True)),
        a(lambda arm: arm["measures"].update(accuracy=[1, 2])), a(lambda arm: arm["measures"].pop("accuracy")),
        a(lambda arm: arm.update(seconds="5")), a(lambda arm: arm["measures"].update(accuracy=1.7e308)),
        lambda whole: whole.replace('"accuracy"', '"accuracy": 0.5, "accuracy"', 1), None,
    ],
)  # fmt: skip
def test_results_that_no_run_wrote_are_refused(tmp_path, spoilt):
    run(RECIPE, out=tmp_path, seeds=2, workers=1)
    path = tmp_path / "halves" / "seed_0" / "arms.json"
    whole = path.read_text()
    path.unlink()
    if spoilt is None:
        os.mkfifo(path)
    else:
        path.write_text(spoilt(whole))
    with pytest.raises(DistillError):
        run(RECIPE, out=tmp_path, seeds=2, workers=1)


def test_folders_that_only_look_like_a_seeds_are_passed_over(tmp_path):
    run(RECIPE, out=tmp_path, seeds=1, workers=1)
    folder = tmp_path / "halves"
    for name in ("seed_", "seed_x", "seed_-1", "seed_00", "seed_1_0", "seed_\u0663"):
        shutil.copytree(folder / "seed_0", folder / name)
    assert list(kept_arms(RECIPE, folder)) == [0]


def test_arms_that_a_recipe_has_no_longer_do_not_make_a_seed_unfinished(tmp_path):
    run(RECIPE, out=tmp_path, seeds=1, workers=1)
    path = tmp_path / "halves" / "seed_0" / "arms.json"
    arms = json.loads(path.read_text())
    path.write_text(json.dumps({"earlier": {"measures": {}, "seconds": 1.0}, **arms}))
    assert kept_arms(RECIPE, tmp_path / "halves") == {0: arms}


@pytest.mark.parametrize("name", ["result.json", "result.png", "result.partial", "seed_0/arms.partial"])
def test_a_folder_in_place_of_a_file_is_refused_before_any_arm_runs(tmp_path, name):
    ran = []
    recipe = replace(RECIPE, prepare=lambda trial: ran.append(trial) or prepare(trial))
    (tmp_path / "halves" / name).mkdir(parents=True)
    with pytest.raises(DistillError, match="is a folder"):
        run(recipe, out=tmp_path, seeds=1, workers=1)
    assert not ran


def test_results_without_the_options_they_were_measured_with_are_refused(tmp_path):
    run(RECIPE, out=tmp_path, seeds=1, workers=1)
    options = tmp_path / "halves" / "options.json"
    whole = json.loads(options.read_text())
    for other in (
        None, "null", json.dumps(whole)[:-1] + ', "budget": 1.0}', {"budget": True}, {"save": 0}, {"robot": "go2"},
    ):  # fmt: skip
        options.unlink()
        if other is not None:
            options.write_text(other if isinstance(other, str) else json.dumps({**whole, **other}))
        with pytest.raises(DistillError, match=r"cannot be used|was begun with"):
            run(RECIPE, out=tmp_path, seeds=1, workers=1)
        options.write_text("")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_that_names_no_seed_begins_behind_its_pilot(name):
    """Pilot seeds give no verdict: with those of a pilot at 0 a run without options could decide nothing."""
    recipe = find(name)
    pilots = {seed for claim in recipe.claims for seed in claim.power.pilot}
    whole, more = (seeds_of(recipe, ExperimentOptions(seeds=seeds)) for seeds in (0, 40))
    assert len(whole) == recipe.seeds and len(more) == 40
    assert pilots.isdisjoint(whole) and pilots.isdisjoint(more), "also where more are asked for"
    assert seeds_of(recipe, ExperimentOptions(seeds=1)) == whole[:1], "fewer are the first of them"
    assert seeds_of(recipe, ExperimentOptions(seed=7, seeds=2)) == [7, 8], "what is asked for stands"


def test_one_seed_proves_nothing(tmp_path):
    result = run(RECIPE, out=tmp_path, seeds=1, workers=1)
    assert result["verdict"] == "undecided" and result["arms"]["labels"]["ci95"] is None
    assert result["claims"][0]["ci"] is None and result["claims"][0]["power"] == 0
    json.dumps(result, allow_nan=False)


def test_more_seeds_are_added_to_those_that_are_there(tmp_path):
    run(RECIPE, seed=0, out=tmp_path, seeds=2, workers=1)
    result = run(RECIPE, seed=0, out=tmp_path, seeds=3, workers=1)
    assert result["seeds"] == [0, 1, 2]
    options = json.loads((tmp_path / "halves" / "options.json").read_text())
    assert summary(RECIPE, tmp_path / "halves", [1, 2], options)["seeds"] == [1, 2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": "huge"}, "has the presets small, not 'huge'"),
        ({"domain": "robot"}, "runs on the domains language, not 'robot'"),
    ],
)
def test_unknown_options_are_one_sentence(tmp_path, options, words):
    with pytest.raises(DistillError, match=words):
        run(RECIPE, out=tmp_path, **options)


def test_data_is_checked_before_anything_runs(tmp_path):
    with pytest.raises(DistillError, match="does not exist"):
        run(RECIPE, out=tmp_path, data=tmp_path / "none")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("words")
    with pytest.raises(DistillError, match="reads no real data at all"):
        run(RECIPE, out=tmp_path, data=tmp_path / "data")
    with pytest.raises(DistillError, match="there is no recipe 'nothing'"):
        run("nothing", out=tmp_path)


def test_an_arm_that_measures_nothing_finite_is_one_sentence(tmp_path):
    with pytest.raises(DistillError, match="measured accuracy = nan"):
        run(replace(RECIPE, arm=lambda *_: {"accuracy": float("nan")}), out=tmp_path, workers=1)
    with pytest.raises(DistillError, match="elicitation must be one of"):
        Place("guessing", "fine-tuning", "text")
    with pytest.raises(DistillError, match="no preset for real scale"):
        plan(RECIPE)


def test_a_sweep_merges_and_goes_on_after_a_failure(tmp_path, monkeypatch):
    from distill.methods import sweep as module

    def find(name):
        if name == "bad":
            return replace(RECIPE, name="bad", arm=lambda *_: {})
        return RECIPE

    monkeypatch.setattr(module, "find", find)
    run(RECIPE, seed=7, seeds=1, out=tmp_path, workers=1)
    run(RECIPE, seed=900, seeds=1, out=tmp_path, workers=1)
    found = module.sweep(("bad", "halves"), ExperimentOptions(out=tmp_path, workers=1), QUIET)
    assert found["verdicts"] == {"bad": "failed", "halves": "supported"}
    assert found["recipes"][1]["seeds"] == [0, 1, 2, 3, 4, 7], "every seed of the folder but the pilot's"
    lines = (tmp_path / "sweep.md").read_text().splitlines()
    assert "failed" in lines[2] and "**supported**" in lines[3] and lines == table(found["recipes"]).splitlines()
