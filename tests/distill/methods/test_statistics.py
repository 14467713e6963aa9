"""Intervals against published quantiles, verdicts by their rule."""

import math

import pytest

from distill.core.errors import DistillError
from distill.methods.statistics import Check, Interval, Results, quantile_t, verdict


@pytest.mark.parametrize(
    ("freedom", "wanted"),
    [(1, 12.706205), (2, 4.302653), (4, 2.776445), (9, 2.262157), (30, 2.042272), (500, 1.964720)],
)
def test_students_t_is_that_of_the_tables(freedom, wanted):
    assert quantile_t(freedom) == pytest.approx(wanted, abs=2e-6)


def test_an_interval_is_that_of_the_textbook():
    found = Interval.of([1.0, 2.0, 3.0])
    half = 4.302653 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, 2 - half, 2 + half))
    assert Interval.of([1.0]).low == -math.inf and not Interval.of([1.0]).positive
    assert Interval.of([1.0, 1.1, 1.2]).positive and Interval.of([-1.0, -1.1]).mean < 0
    with pytest.raises(DistillError, match="finite values"):
        Interval.of([1.0, float("nan")])


def test_the_verdict_follows_its_rule():
    yes, no = Check("a", True), Check("b", False)
    assert verdict([yes]) == "supported" and verdict([yes, no]) == "null"
    assert verdict([yes, Check("c", True, "falsifies")]) == "contradicted"
    assert verdict([yes, Check("c", False, "falsifies"), Check("d", False, "reported")]) == "supported"
    with pytest.raises(DistillError, match="at least one required"):
        verdict([Check("d", True, "reported")])


def test_arms_are_paired_by_seed():
    rows = {
        2: {"a": {"m": 10.0}, "b": {"m": 11.0}},
        1: {"a": {"m": 1.0}, "b": {"m": 2.01}},
        3: {"a": {"m": 5}, "b": {"m": 6}},
    }
    results = Results(rows, "m")
    assert results.seeds == [1, 2, 3] and results.values("a").tolist() == [1, 10, 5]
    assert results.lower("a", "b").holds and results.higher("b", "a").holds and not results.lower("b", "a").holds
    assert not results.mean("a").positive, "unpaired, the seeds hide the difference"
    with pytest.raises(DistillError, match="no 'c' for the arm 'c'"):
        results.values("c")
