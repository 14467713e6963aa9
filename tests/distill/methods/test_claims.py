"""Power against scipy's noncentral t, Holm by hand, and verdicts that follow from one interval."""

import ast
import importlib
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from distill.core.errors import DistillError
from distill.methods.capacity_gap.law import BeyondTheBest, Growth, PastTheBest
from distill.methods.catalogue import NAMES, find
from distill.methods.claims import Claim, Difference, Power, holm, judge, p_value, plans, seeds_of, summary
from distill.methods.power import above_t, detectable, power, seeds_for
from distill.methods.results import power_line
from distill.methods.run import powered
from distill.methods.statistics import Check, Results

PLAN = Power(effect=0.5, spread=0.4, pilot=(900, 901, 902))
CLAIM = Claim("gain", "a is above b", Difference("a", "b"), PLAN)


def results(differences, first=0):
    rows = {first + i: {"a": {"m": 1.0 + d}, "b": {"m": 1.0}} for i, d in enumerate(differences)}
    return Results(rows, "m")


def exact(mean, spread, count):
    """Differences with exactly that mean and standard deviation."""
    values = np.arange(count) - (count - 1) / 2
    return mean + spread * values / values.std(ddof=1)


@pytest.mark.parametrize("freedom", [1, 2, 4, 9, 30, 200])
@pytest.mark.parametrize("shift", [0.0, 0.5, 3.0, 8.0])
def test_the_noncentral_t_is_scipys(freedom, shift):
    for bound in (-1.0, 0.0, 2.5, 6.0):
        wanted = stats.nct.sf(bound, freedom, shift) if shift else stats.t.sf(bound, freedom)
        assert above_t(bound, freedom, shift) == pytest.approx(wanted, abs=1e-7)


def test_power_and_seeds_are_those_of_the_paired_t_test():
    for effect, spread, level in ((0.5, 0.4, 0.05), (0.02, 0.05, 0.05), (0.3, 0.3, 0.025)):
        found = seeds_for(effect, spread, level)

        def wanted(n, effect=effect, spread=spread, level=level):
            return stats.nct.sf(stats.t.ppf(1 - level / 2, n - 1), n - 1, effect / spread * math.sqrt(n))

        assert wanted(found) >= 0.8 > wanted(found - 1), "the fewest seeds"
        assert power(effect, spread, found, level) == pytest.approx(wanted(found), abs=1e-6)
        assert power(detectable(spread, found, level), spread, found, level) == pytest.approx(0.8, abs=1e-6)
    assert seeds_for(1.0, 2.0) == 34, "Cohen's table for d = 0.5, two-sided 5 %, power 80 %"
    assert power(1.0, 1.0, 1) == 0 and detectable(1.0, 1) == math.inf
    with pytest.raises(DistillError, match="more than"):
        seeds_for(1e-4, 1.0)


@pytest.mark.parametrize(
    "numbers", [(0.0, 0.4, (1, 2)), (0.5, -1.0, (1, 2)), (0.5, math.nan, (1, 2)), (0.5, 0.4, (1, 1))]
)
def test_a_power_statement_needs_an_effect_a_spread_and_a_pilot(numbers):
    with pytest.raises(DistillError):
        Power(*numbers)


def test_p_values_are_scipys():
    values = np.random.default_rng(0).normal(0.3, 1.0, 12)
    assert p_value(values) == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=1e-7)
    assert p_value(np.ones(3)) == 0 and p_value(np.zeros(3)) == 1 and p_value(np.ones(1)) == 1


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [(0.5, 0.4, "supported"), (-0.5, 0.4, "contradicted"), (0.0, 0.4, "null"), (0.3, 1.0, "undecided")],
)
def test_one_interval_decides(mean, spread, verdict):
    found = judge([CLAIM], results(exact(mean, spread, 8)))[0]
    half = stats.t.ppf(0.975, 7) * spread / math.sqrt(8)
    about = found.about()
    assert summary([found]) == found.verdict == verdict
    assert (about["mean"], *about["ci"]) == pytest.approx((mean, mean - half, mean + half), abs=1e-6)
    assert about["excludes"] == (pytest.approx(mean + half, abs=1e-6) if verdict == "null" else None)
    assert bool(about["why"]) == (verdict == "undecided") and about["seeds_needed"] == PLAN.seeds() == seeds_of([CLAIM])
    json.dumps(about, allow_nan=False)


def test_a_null_excludes_the_effect_worth_finding_and_the_same_figures_may_be_too_few_for_a_larger_claim():
    seen = results(exact(0.1, 0.4, 8))
    assert judge([CLAIM], seen)[0].verdict == "null"
    smaller = replace(CLAIM, power=replace(PLAN, effect=0.2))
    found = judge([smaller], seen)[0].about()
    assert found["verdict"] == "undecided" and found["seeds_needed_seen"] == seeds_for(0.2, 0.4) > 8


def test_pilots_and_failed_preconditions_give_no_verdict():
    strong = exact(1.0, 0.1, 4)
    assert judge([CLAIM], results(strong))[0].verdict == "supported"
    assert judge([CLAIM], results(strong, first=899))[0].verdict == "undecided", "seeds 900 to 902 are the pilot's"
    failed = Check("the teacher is good enough", False, "precondition")
    assert judge([CLAIM], results(strong), [failed])[0].verdict == "undecided"
    assert judge([CLAIM], results(strong), [Check("an aside", False, "reported")])[0].verdict == "supported"


def test_holm_steps_down_and_stops():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx({"a": 0.05 / 3, "c": 0.025, "b": 0.025})
    assert holm({"a": 0.001, "b": 0.04, "c": 0.02}) == pytest.approx({"a": 0.05 / 3, "c": 0.025, "b": 0.05})
    assert holm({"a": 0.04}) == {"a": 0.05}


def test_several_claims_are_corrected_for_each_other_and_a_mechanism_is_judged_by_itself():
    t = stats.t.ppf(1 - 0.035 / 2, 7) / math.sqrt(8)  # p = 0.035: enough for one claim alone, not for the first of two
    one = replace(CLAIM, name="one", figure=Difference("a", "b"))
    two = replace(CLAIM, name="two", figure=Difference("b", "b"))
    seen = results(exact(0.4 * t, 0.4, 8))
    assert judge([one], seen)[0].verdict == "supported"
    both = judge([one, two], seen)
    assert both[0].verdict != "supported" and both[0].interval.low < 0 and both[0].level == pytest.approx(0.025)
    apart = judge([one, replace(two, role="mechanism")], seen)
    assert apart[0].verdict == "supported" and apart[1].verdict == "null"
    assert plans([one, two], 8)[0]["seeds_needed"] > plans([one], 8)[0]["seeds_needed"]


def test_a_figure_is_one_finite_number_a_seed():
    for figure in (lambda found: np.ones(2), lambda found: np.full(8, np.nan)):
        with pytest.raises(DistillError, match="one finite number a seed"):
            judge([replace(CLAIM, figure=figure)], results(exact(0, 1, 8)))


@pytest.mark.parametrize("name", NAMES)
def test_every_experiment_has_the_power_that_is_asked_for(name):
    recipe = find(name)
    for on in (recipe.on(domain, preset) for domain in recipe.domains for preset in recipe.presets or ("small",)):
        assert on.claims, f"{name} has no figure that decides"
        for plan in plans(on.claims, on.seeds):
            assert plan["power"] >= 0.8 if plan["pilot"] else plan["power"] is plan["seeds_needed"] is None


@pytest.mark.parametrize("name", [name for name in NAMES if find(name).claims])
def test_beside_claims_no_check_stands_that_would_decide_without_them(name):
    tree = ast.parse(Path(importlib.import_module(f"distill.methods.{name}.experiment").__file__ or "").read_text())
    rule = next((node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "rule"), None)
    said = [node.value for node in ast.walk(rule) if isinstance(node, ast.Constant)] if rule else []
    assert "falsifies" not in said and "required" not in said


def test_a_claim_without_a_pilot_says_so_and_is_not_decided():
    waiting = replace(CLAIM, power=Power(0.5))
    found = judge([waiting], results(exact(1.0, 0.1, 8)))[0].about()
    assert found["verdict"] == "undecided" and found["why"]
    assert found["power"] is found["spread"] is found["seeds_needed"] is None and found["effect"] == 0.5
    assert "0.5" in power_line(found) and "0.5" in powered(found)
    with pytest.raises(DistillError, match="pilot"):
        seeds_of([CLAIM, waiting])
    with pytest.raises(DistillError, match="spread"):
        Power(0.5, pilot=(1, 2))


def test_the_best_teacher_is_chosen_on_other_seeds_and_its_growth_is_a_slope_of_logarithms():
    flat = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])

    def of(curves, sizes=(10, 20)):
        rows = {
            seed: {
                f"random {width}": {"losses": list(curve), "size": size, "teachers": [100, 200, 400]}
                for width, size, curve in zip((1, 2), sizes, both, strict=True)
            }
            for seed, both in enumerate(curves)
        }
        return Results(rows, "loss")

    noise = of(np.stack([flat, flat], 1))
    assert PastTheBest((1, 2), "random")(noise).mean() <= 0, "the least of noise is no gap"
    rising = of(np.tile([[1.0, 0.5, 0.25], [1.0, 0.5, 0.0]], (3, 1, 1)))
    assert PastTheBest((1, 2), "random")(rising) == pytest.approx([-0.375] * 3), "the largest is the best"
    real = of(np.tile([[1.0, 0.0, 1.0], [1.0, 0.5, 2.0]], (3, 1, 1)))
    assert PastTheBest((1, 2), "random")(real) == pytest.approx([1.25] * 3)
    for seen, largest in ((rising, -0.375), (real, 1.25)):
        beyond = BeyondTheBest((1, 2), "random")(seen)
        assert beyond == pytest.approx([largest] * 3), "one teacher alone is beyond the best"
    early = of(np.tile([[0.0, 1.0, 2.0], [1.0, 0.5, 2.0]], (3, 1, 1)))
    assert BeyondTheBest((1, 2), "random")(early) == pytest.approx([(1.5 + 1.5) / 2] * 3), "both beyond the first count"
    assert BeyondTheBest((1, 2), "random")(noise).mean() <= 0
    moved = of(np.tile([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]], (3, 1, 1)))
    assert Growth((1, 2), "random")(moved) == pytest.approx([2.0] * 3), "four times the teacher for twice the student"


@pytest.mark.parametrize("name", [name for name in NAMES if find(name).claims])
def test_the_figures_of_every_experiment_are_of_its_own_arms_and_point_the_claims_way(name):
    recipe = find(name)
    for on in (recipe.on(domain, preset) for domain in recipe.domains for preset in recipe.presets or ("small",)):
        for claim in on.claims:
            if isinstance(claim.figure, Difference):
                apart = dict.fromkeys(on.arms, 1.0) | {claim.figure.first: 3.0, claim.figure.second: 2.0}
                rows = {
                    seed: {arm: {claim.figure.metric or on.metric: value} for arm, value in apart.items()}
                    for seed in range(3)
                }
                assert set(apart) == set(on.arms) and (claim.figure(Results(rows, on.metric)) == 1).all()


def test_no_power_is_told_as_certain():
    for found, said in ((0.9991, ">99%"), (0.8123, "81%"), (0.994, "99%")):
        about = {"power": found, "effect": 0.5, "spread": 0.1, "pilot": [1, 2], "seeds": 9, "seeds_needed": 7}
        assert powered(about) == f"{said} for 0.5" and power_line(about).endswith(f"9 have {said}")
