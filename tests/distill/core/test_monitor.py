"""Early stopping, the signs of teacher hacking, and the schedules of a run."""

import pytest

from distill.core.errors import DistillError
from distill.core.monitor import Monitor, rise_after_best
from distill.core.schedules import Beta, WarmupCosine


def watched(proxy, golden, **options) -> Monitor:
    watch = Monitor(**options)
    for p, g in zip(proxy, golden, strict=True):
        watch.add(p, g)
    return watch


def test_hacking_is_a_falling_proxy_with_a_falling_golden_metric():
    assert watched([3, 2, 1.5, 1.2], [0.1, 0.8, 0.6, 0.5]).hacking
    assert not watched([3, 2, 1.5, 1.2], [0.1, 0.8, 0.6, 0.9]).hacking, "it recovered"
    assert not watched([3, 2, 2.5, 2.6], [0.1, 0.8, 0.6, 0.5]).hacking, "both got worse: that is over-fitting"
    assert not watched([3, 2, 1.5], [0.1, 0.8, 0.6]).hacking, "once may be noise"
    assert not watched([3, 2, 1.5, 1.2], [0.1, 0.8, 0.79, 0.79], tolerance=0.02).hacking


def test_a_run_stops_after_patience_rounds_without_a_better_one():
    golden = [0.1, 0.5, 0.4, 0.3]
    assert not watched([1] * 3, golden[:3], patience=2).stop
    assert watched([1] * 4, golden, patience=2).stop
    assert not watched([1] * 4, golden, patience=0).stop


def test_the_best_round_is_the_first_of_equals():
    watch = watched([1, 1, 1], [0.5, 0.9, 0.9])
    assert watch.best == 1 and not watch.improved
    watch.add(1, 0.95)
    assert watch.best == 3 and watch.improved
    copy = Monitor()
    copy.restore(watch.state())
    assert copy.best == 3


def test_numbers_that_are_none_are_refused():
    with pytest.raises(DistillError, match="must be numbers"):
        Monitor().add(float("nan"), 1.0)
    with pytest.raises(DistillError, match="positive"):
        rise_after_best([1.0, -1.0])


def test_the_rise_after_the_best_point():
    assert rise_after_best([3.0, 2.0, 2.5]) == pytest.approx(0.25)
    assert rise_after_best([3.0, 2.0, 1.0]) == 0.0


def test_beta_falls_to_its_least():
    beta = Beta(1.0, 0.5, least=0.2)
    assert [beta.at(k) for k in range(4)] == [1.0, 0.5, 0.25, 0.2]
    with pytest.raises(DistillError, match="beta must fall"):
        Beta(0.5, 0.5, least=0.6)


def test_the_learning_rate_rises_then_falls():
    schedule = WarmupCosine(1.0, steps=110, warmup=10, last=0.1)
    rates = [schedule.at(step) for step in range(111)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == pytest.approx(1.0) and rates[110] == pytest.approx(0.1)
    assert all(a <= b for a, b in zip(rates[:10], rates[1:11], strict=True))
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert schedule.at(500) == pytest.approx(0.1)
