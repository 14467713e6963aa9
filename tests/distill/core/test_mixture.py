"""The mixture of domains: DDK's equations by hand, its bounds, and the counts that it draws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill.core.errors import DistillError
from distill.core.mixture import Mixture

NAMES = ("walk", "climb", "jump")


def test_two_intervals_by_hand():
    mixture = Mixture(NAMES, smoothing=0.5)
    first = np.exp([1.0, 1.2, 2.0])
    first = 0.5 * first / first.sum() + 0.5 / 3
    assert list(mixture.update(dict(zip(NAMES, (1.0, 1.2, 2.0), strict=True))).values()) == pytest.approx(first)
    second = first * np.exp([1.5, 1.0, 1.0])
    second = 0.5 * second / second.sum() + 0.5 / 3
    assert list(mixture.update(dict(zip(NAMES, (1.5, 1.0, 1.0), strict=True))).values()) == pytest.approx(second)


@given(st.lists(st.floats(0.01, 50.0), min_size=3, max_size=3), st.floats(0.0, 1.0))
def test_weights_sum_to_one_and_keep_the_floor(ratios, smoothing):
    mixture = Mixture(NAMES, smoothing)
    for _ in range(3):
        weights = mixture.update(dict(zip(NAMES, ratios, strict=True)))
        assert sum(weights.values()) == pytest.approx(1.0)
        assert min(weights.values()) >= (1 - smoothing) / 3 - 1e-12


@given(st.floats(0.1, 3.0))
def test_equal_ratios_and_no_smoothing_both_give_equal_shares(ratio):
    assert Mixture(NAMES).update(dict.fromkeys(NAMES, ratio)) == pytest.approx(dict.fromkeys(NAMES, 1 / 3))
    even = Mixture(NAMES, smoothing=0.0).update(dict(zip(NAMES, (0.5, 1.0, 3.0), strict=True)))
    assert even == pytest.approx(dict.fromkeys(NAMES, 1 / 3))


def test_the_lagging_domain_gains():
    weights = Mixture(NAMES).update({"walk": 1.0, "climb": 1.0, "jump": 1.6})
    assert weights["jump"] > 1 / 3 > weights["walk"] == weights["climb"]


def test_batches_follow_the_weights_and_are_counted():
    mixture, rng = Mixture(NAMES), np.random.default_rng(0)
    mixture.update({"walk": 0.2, "climb": 0.2, "jump": 3.0})
    total = {name: 0 for name in NAMES}
    for _ in range(200):
        counts = mixture.counts(rng, 50)
        assert sum(counts.values()) == 50
        total = {name: total[name] + counts[name] for name in NAMES}
    assert list(total.values()) == mixture.drawn.tolist()
    assert np.array(list(total.values())) / 10_000 == pytest.approx(mixture.weights, abs=0.02)


def test_a_restored_mixture_goes_on_the_same():
    one, other = Mixture(NAMES), Mixture(NAMES)
    one.update({"walk": 1.0, "climb": 2.0, "jump": 1.0})
    other.restore(one.state())
    ratios = {"walk": 1.3, "climb": 1.0, "jump": 1.1}
    assert one.update(ratios) == other.update(ratios)


@pytest.mark.parametrize("ratios", [{"walk": 1.0}, dict.fromkeys(NAMES, -1.0), dict.fromkeys(NAMES, float("nan"))])
def test_ratios_that_make_no_sense_are_refused(ratios):
    with pytest.raises(DistillError):
        Mixture(NAMES).update(ratios)
    for names in ((), ("a", "a")):
        with pytest.raises(DistillError, match="different names"):
            Mixture(names)
