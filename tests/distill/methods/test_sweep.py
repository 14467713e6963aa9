"""A sweep says how long it will take, keeps to a small budget of hours, and goes on where it was stopped."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from distill.methods import command, sweep
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe
from distill.methods.measured import Measured, Run
from distill.methods.options import ExperimentOptions, SweepOptions
from sim.errors import InputError

RAN: list[tuple[str, int]] = []
"""Arms that were run: recipe, seed."""


def arm(trial, shared, one):
    RAN.append((trial.folder.parent.name, trial.seed))
    return {"score": float(trial.rng().normal(one.about == "better", 0.01))}


def cheap(name: str) -> Recipe:
    return Recipe(
        name=name, title="t", source="none", place=Place("labelling", "fine-tuning", "text"), signals=("text",),
        data="none", claim="one is better", falsified="it is worse", arms={"a": Arm("better"), "b": Arm("worse")},
        metric="score", seeds=4, arm=arm,
        claims=(Claim("gain", "one is better", Difference("a", "b"), Power(0.5, 0.2, (900, 901))),),
    )  # fmt: skip


@pytest.fixture
def two(monkeypatch):
    """Two cheap recipes, which are all that there are; what a seed of them takes has not been measured."""
    RAN.clear()
    recipes = {name: cheap(name) for name in ("first_one", "second_one")}
    monkeypatch.setattr(sweep, "find", recipes.__getitem__)
    monkeypatch.setattr(sweep, "NAMES", tuple(recipes))
    monkeypatch.setattr(sweep, "read", lambda name: Measured())
    return recipes


def swept(folder, hours, **options):
    said = io.StringIO()
    asked = ExperimentOptions(out=folder, workers=1, **options)
    found = sweep.sweep((), asked, Console(file=said, width=200), hours)
    return found, [line for line in said.getvalue().splitlines() if line.startswith("sweep: ")]


def test_a_small_budget_has_a_seed_of_each_and_more_where_the_hours_allow(two, tmp_path):
    least, told = swept(tmp_path / "least", 0.0)
    assert [result["seeds"] for result in least["recipes"]] == [[0], [0]]
    assert set(least["verdicts"].values()) == {"undecided"}, "one seed proves nothing"
    assert least["estimate"] == {"seconds": 0.0, "unknown": ["first_one", "second_one"]}
    assert len(told) == 3, "a line before anything is run, and one after each recipe"
    whole, _ = swept(tmp_path / "whole", 1.0)
    assert [result["seeds"] for result in whole["recipes"]] == [[0, 1, 2, 3]] * 2
    assert set(whole["verdicts"].values()) == {"supported"}
    assert json.loads((tmp_path / "whole" / "sweep.json").read_text())["verdicts"] == whole["verdicts"]


def test_a_sweep_that_was_stopped_goes_on_and_knows_what_is_left(two, tmp_path, monkeypatch):
    def stopped(trial, shared, one):
        if trial.seed == 2 and trial.folder.parent.name == "second_one":
            raise KeyboardInterrupt
        return arm(trial, shared, one)

    recipes = {name: replace(recipe, arm=stopped) for name, recipe in two.items()}
    monkeypatch.setattr(sweep, "find", recipes.__getitem__)
    with pytest.raises(KeyboardInterrupt):
        swept(tmp_path, None)
    monkeypatch.setattr(sweep, "find", two.__getitem__)
    RAN.clear()
    found, _ = swept(tmp_path, None)
    assert [("second_one", seed) for seed in (2, 2, 3, 3)] == RAN, "what is finished stays"
    assert found["estimate"]["unknown"] == [] and found["estimate"]["seconds"] >= 0
    again, _ = swept(tmp_path, None)
    assert again["estimate"] == {"seconds": 0.0, "unknown": []} and again["verdicts"] == found["verdicts"]


def test_the_estimate_is_of_measured_seconds_within_the_hours(two, tmp_path, monkeypatch):
    run = Run(preset="small", domain="language", rule="a", pilot=True, seeds=(900,), figures={}, seconds=600.0)
    monkeypatch.setattr(sweep, "read", lambda name: Measured(runs=(run,) if name == "first_one" else ()))
    asked = ExperimentOptions(out=tmp_path, workers=2)
    parts = [sweep.Part(recipe, asked) for recipe in two.values()]
    assert sweep.estimate(parts, None) == {"seconds": 1200.0, "unknown": ["second_one"]}, "two seeds at the same time"
    hour = sweep.estimate(parts, 1.0)  # half of it for each
    assert hour == {"seconds": 1200.0, "unknown": ["second_one"]}
    assert sweep.estimate(parts, 0.4)["seconds"] == 600.0 and sweep.estimate(parts, 0.01)["seconds"] == 600.0
    half = [replace(part, asked=replace(asked, budget=0.5)) for part in parts]
    assert sweep.estimate(half, None)["seconds"] == 600.0, "half of the steps"


def test_hours_are_the_clocks_and_no_worker_is_left_without_a_seed(two, tmp_path, monkeypatch):
    run = Run(preset="small", domain="language", rule="a", pilot=True, seeds=(900,), figures={}, seconds=600.0)
    monkeypatch.setattr(sweep, "read", lambda name: Measured(runs=(run,)))
    by_workers = {
        workers: sweep.Part(two["first_one"], ExperimentOptions(out=tmp_path, workers=workers)) for workers in (1, 3)
    }
    assert [by_workers[1].affordable(share) for share in (0.0, 1199.0, 1200.0, 1e6)] == [1, 1, 2, 4]
    assert [by_workers[3].affordable(share) for share in (0.0, 1199.0, 1200.0, 1e6)] == [3, 3, 4, 4]
    assert by_workers[1].clock(4) == 2400.0 and by_workers[3].clock(4) == 1200.0 and by_workers[3].clock(3) == 600.0


def test_what_the_first_recipes_do_not_use_is_the_later_ones(two, tmp_path, monkeypatch):
    seconds = {"first_one": 1.0, "second_one": 1000.0}
    monkeypatch.setattr(sweep, "read", lambda name: Measured(runs=(
        Run(preset="small", domain="language", rule="a", pilot=True, seeds=(900,), figures={}, seconds=seconds[name]),
    )))  # fmt: skip
    parts = [sweep.Part(recipe, ExperimentOptions(out=tmp_path, workers=1)) for recipe in two.values()]
    assert sweep.estimate(parts, 3100 / 3600) == {"seconds": 3004.0, "unknown": []}, "half of it would be one seed"


def test_what_is_left_is_told_of_the_hours_that_were_not_spent(two, tmp_path, monkeypatch):
    run = Run(preset="small", domain="language", rule="a", pilot=True, seeds=(900,), figures={}, seconds=600.0)
    monkeypatch.setattr(sweep, "read", lambda name: Measured(runs=(run,)))
    spent = {"first_one": 5, "second_one": 1}
    monkeypatch.setattr(sweep, "_run", lambda part, share, console: {
        "name": part.recipe.name, "seeds": [*range(spent[part.recipe.name])], "seconds": 1.0, "verdict": "null",
    })  # fmt: skip
    monkeypatch.setattr(sweep, "table", lambda found: "")
    _, told = swept(tmp_path, 0.5)
    assert "about 0.2 h left" in told[1], "of one seed: the five of the first recipe left no more"


def test_the_command_takes_the_word_and_numbers(two, tmp_path):
    found = command.sweep(SweepOptions(names=("first_one",), out=tmp_path, workers=1, budget="small"))
    assert found["recipes"][0]["seeds"] == [0, 1, 2, 3] and found["recipes"][0]["budget"] == 1.0
    for hours, seeds in ((0.0, [0]), (1.0, [0, 1, 2, 3])):
        asked = SweepOptions(names=("second_one",), out=tmp_path, workers=1, budget="small", hours=hours)
        assert command.sweep(asked)["recipes"][0]["seeds"] == seeds
    wrong_ones = ({"budget": "large"}, {"budget": 0.0}, {"budget": "small", "seeds": 3}, {"hours": 2.0},
                  {"budget": "small", "hours": -1.0})  # fmt: skip
    for wrong in wrong_ones:
        with pytest.raises(InputError):
            SweepOptions(**wrong)


def test_a_sweep_in_which_a_recipe_failed_is_not_done_as_asked(two, tmp_path, capsys):
    (tmp_path / "first_one").mkdir()
    (tmp_path / "first_one" / "options.json").write_text("[]")
    found = command.sweep(SweepOptions(out=tmp_path, workers=1))
    said = capsys.readouterr().err.splitlines()
    failed, next_one = (next(i for i, line in enumerate(said) if text in line) for text in ("options.json", "1 of 2"))
    assert failed < next_one, "why is said at once, not hours later"
    assert found.status == 1 and "first_one" in found.failure and found["verdicts"]["first_one"] == "failed"
    assert set(found["verdicts"].values()) - {"failed"}, "the other one was run all the same"
