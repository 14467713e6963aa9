"""The table of all methods: from declarations and measured figures alone, and as the page has it."""

import json
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from barkour import parse
from distill.core.errors import DistillError
from distill.methods import measured, standing
from distill.methods import run as experiments
from distill.methods.catalogue import NAMES, find
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe
from distill.methods.measured import FILE, Run, keep, read
from distill.methods.method import CLASSIFIERS, METHODS
from distill.methods.options import ExperimentOptions
from distill.methods.statistics import Check

ROOT = Path(__file__).resolve().parents[3]


def arm(trial, shared, one):
    return {"score": float(trial.rng().normal(1.0 if one.about == "better" else 0.0, 0.01))}


def rule(results):
    return [Check(f"{len(results.seeds)} seeds", True, "precondition")]


RECIPE = Recipe(
    name="made_up", title="t", source="none", place=Place("labelling", "fine-tuning", "text"), signals=("text",),
    data="none", claim="one is better", falsified="it is worse", arms={"a": Arm("better"), "b": Arm("worse")},
    metric="score", seeds=3, arm=arm, rule=rule,
    claims=(Claim("gain", "one is better", Difference("a", "b"), Power(0.5, 0.2, (900, 901))),),
)  # fmt: skip


@pytest.fixture
def made_up(monkeypatch, tmp_path):
    """A folder of a finished run of `RECIPE`, which is found by its name."""

    def finished(**options):
        asked = ExperimentOptions(out=tmp_path / "runs", workers=1, **options)
        return experiments.run(RECIPE, asked, Console(quiet=True))

    monkeypatch.setattr(measured, "find", lambda name: {"made_up": RECIPE}[name])
    return finished


@pytest.mark.parametrize("name", standing.PAGES)
def test_a_page_has_the_part_that_declarations_and_figures_make(name):
    page = (ROOT / "docs" / name).read_text()
    assert standing.written(page, standing.PAGES[name]()) == page, "write it anew: python -m distill.methods.standing"


def test_the_catalogue_has_all_22_by_every_axis_with_what_they_declare():
    found = standing.catalogue()
    assert [one["name"] for one in found["recipes"]] == list(NAMES) and len(NAMES) == 22
    for axis in ("algorithm", "skill", "vertical"):
        groups = found[f"by_{axis}"]
        assert sorted(name for group in groups.values() for name in group) == list(NAMES)
        assert all(one["name"] in groups[one[axis]] for one in found["recipes"])
    for one in found["recipes"]:
        recipe = find(one["name"])
        assert {name: one[name] for name in recipe.about()} == recipe.about()
        assert one["needs"] == recipe.needs and one["costs"] == recipe.costs and one["access"] == recipe.place.access
        for key in ("title", "source", "signals", "data", "claim", "falsified", "needs", "costs", "own_models"):
            assert one[key], f"{one['name']} says nothing of {key}"
        assert one["showed"]["verdict"] == standing.best(one["name"]).verdict
        assert one["seconds"] is None or one["seconds"] > 0
    json.dumps(found, allow_nan=False)
    lines = standing.catalogue_text().splitlines()
    assert all(sum(line.startswith(f"| `{name}` |") for line in lines) == 1 for name in NAMES)


def test_every_method_has_a_row_and_every_row_a_command_that_is_understood():
    rows = standing.rows()
    assert [row[0].split("`")[1] for row in rows] == list(NAMES) and len(rows) == 22
    assert all(len(row) == len(standing.HEAD) and all(row) and "|" not in "".join(row) for row in rows)
    said = {each for row in rows for cell in row[-2:] for each in cell.split("`")[1::2]}
    for module, _, name in (each.rpartition(".") for each in said if " " not in each):
        assert callable(getattr(import_module(module), name))
    for kind, names in (("language", METHODS), ("classifier", CLASSIFIERS)):
        begin = f"barkour distill {kind} --method "
        assert {each.removeprefix(begin) for each in said if each.startswith(begin)} == {*names} & {*NAMES}
    runs = {each.removeprefix("barkour recipe run ") for each in said if each.startswith("barkour recipe run ")}
    assert {each.split()[0] for each in runs} == {*NAMES}
    for words in {each.partition(" ")[2]: each.split() for each in runs}.values():  # one of each kind
        assert parse(["recipe", "run", *words]).name == "recipe run"


def test_what_is_kept_is_of_the_declared_claims_and_pilots_give_the_declared_spread():
    whole = []
    for name in NAMES:
        for run in read(name).runs:
            recipe = find(name).on(run.domain, run.preset)
            assert run.figures and set(run.figures) <= {claim.name for claim in recipe.claims}
            for claim in run.measured(recipe):
                pilots = set(claim.power.pilot)
                assert run.pilot or not pilots & set(run.seeds), f"{name}: pilot seeds among those that judge"
                if run.pilot and set(run.seeds) == pilots:
                    assert claim.power.spread == pytest.approx(np.std(run.figures[claim.name], ddof=1), rel=0.2)
            whole += [name] * run.whole(recipe)
    assert "self_distillation" in whole


def test_a_finished_run_is_kept_and_judged_again_as_it_was(made_up, tmp_path):
    result = made_up(seed=5, seeds=4)
    path = keep(Path(result["out"]), "abc", tmp_path)
    assert path == tmp_path / "made_up" / FILE and not list(path.parent.glob("*.partial"))
    (run,) = read("made_up", tmp_path).runs
    assert run.seeds == (5, 6, 7, 8) and not run.pilot and run.rule == "abc" and run.seconds >= 0
    (judged,) = run.judged(RECIPE)
    (claim,) = result["claims"]
    assert judged.verdict == claim["verdict"] == "supported" and judged.about()["power"] == claim["power"]
    assert judged.interval.mean == pytest.approx(claim["mean"], rel=1e-5)
    assert [judged.interval.low, judged.interval.high] == pytest.approx(claim["ci"], rel=1e-5)
    more = made_up(seed=5, seeds=5)
    assert keep(Path(more["out"]), "abc", tmp_path) == path
    assert [run.seeds for run in read("made_up", tmp_path).runs] == [(5, 6, 7, 8, 9)], "kept in place of the first"


def test_pilot_seeds_are_kept_apart_and_judge_nothing(made_up, tmp_path):
    made_up(seed=5, seeds=3)
    result = made_up(seed=900, seeds=2)
    keep(Path(result["out"]), "abc", tmp_path)
    pilot, run = read("made_up", tmp_path).runs
    assert pilot.pilot and pilot.seeds == (900, 901) and not pilot.whole(RECIPE)
    assert run.seeds == (5, 6, 7) and run.whole(RECIPE)
    assert pilot.judged(RECIPE)[0].verdict == "undecided"
    assert keep(Path(result["out"]), "abc", tmp_path / "all", pilot=True)
    assert [run.seeds for run in read("made_up", tmp_path / "all").runs if run.pilot] == [(5, 6, 7, 900, 901)]


def test_runs_that_prove_nothing_are_not_kept(made_up, tmp_path):
    with pytest.raises(DistillError, match="no experiment"):
        keep(tmp_path, "abc", tmp_path)
    result = made_up(seeds=3, budget=0.5)
    with pytest.raises(DistillError, match="50%"):
        keep(Path(result["out"]), "abc", tmp_path)


def run_of(values, **changed):
    given = {"preset": "small", "domain": "language", "rule": "abc", "pilot": False, "seeds": tuple(range(len(values)))}
    return Run(**{**given, "figures": {"gain": tuple(values)}, **changed})


@pytest.mark.parametrize(
    "values, verdict",
    [((1.0, 1.1, 0.9), "supported"), ((-1.0, -1.1, -0.9), "contradicted"), ((0.1, -0.1, 0.0), "null"),
     ((3.0, -3.0, 0.1), "undecided")],
)  # fmt: skip
def test_the_verdict_follows_from_the_figures(values, verdict):
    variant = standing.Variant(RECIPE, "language", "small", measured.Measured(runs=(run_of(values),)))
    assert variant.verdict == verdict and verdict in variant.showed
    assert variant.figure.startswith("a less b: ") and "3 of 3" in standing.row(variant)


def test_too_few_seeds_and_a_failed_precondition_give_no_verdict():
    few = standing.Variant(RECIPE, "language", "small", measured.Measured(runs=(run_of((1.0, 1.1)),)))
    assert few.run is None and few.verdict == "not run"
    failed = run_of((1.0, 1.1, 0.9), checks=({"text": "off", "holds": False, "role": "precondition"},))
    variant = standing.Variant(RECIPE, "language", "small", measured.Measured(runs=(failed,)))
    assert variant.verdict == "undecided"
    pilot = replace(failed, pilot=True)
    variant = standing.Variant(RECIPE, "language", "small", measured.Measured(runs=(pilot,)))
    assert variant.verdict == "not run" and "off" in variant.showed and "+1" in variant.figure


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"runs": [1]}', '{"runs": [{"seeds": [1]}]}',
             json.dumps({"runs": [{"preset": "small", "domain": "language", "rule": "a", "pilot": False,
                                   "seeds": [1, 2], "figures": {"gain": [1.0]}}]})],
)  # fmt: skip
def test_a_file_of_something_else_is_one_sentence(tmp_path, text):
    (tmp_path / "made_up").mkdir()
    (tmp_path / "made_up" / FILE).write_text(text)
    with pytest.raises(DistillError) as raised:
        read("made_up", tmp_path)
    assert "\n" not in str(raised.value)


def test_bad_input_is_one_line_and_status_2(tmp_path, capsys):
    pages = [tmp_path / name for name in standing.PAGES]
    for arguments in (["--docs", tmp_path], ["--keep", tmp_path, "--docs", tmp_path],
                      ["--keep", tmp_path, "--rule", "abc", "--docs", tmp_path]):  # fmt: skip
        assert standing.main([str(word) for word in arguments]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    for page in pages:
        page.write_text("no marks")
    assert standing.main(["--docs", str(tmp_path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1 and pages[0].read_text() == "no marks"
    for page in pages:
        page.write_text(f"before\n{standing.BEGIN}\nold\n{standing.END}\nafter\n")
    assert standing.main(["--docs", str(tmp_path)]) == 0
    for page, part in zip(pages, standing.PAGES.values(), strict=True):
        assert page.read_text() == f"before\n{standing.BEGIN}\n{part()}\n{standing.END}\nafter\n"
