"""Rows without memory as domains of the loop, and batches of them."""

import json

import numpy as np
import pytest

from distill.core.collect import CollectionPlan
from distill.core.errors import DistillError
from distill.core.shards import Shards
from distill.core.tables import Epochs, FixedDomain, RowSampler


def test_held_out_rows_are_never_trained_on(tmp_path):
    shards = Shards(tmp_path)
    table = FixedDomain("a", {"x": np.arange(20)}, {"x": np.arange(100, 104)})
    found = table.collect(None, CollectionPlan(0, 1.0, 1, 0))
    shards.append(found.fields, found.episodes, {"domain": "a"})
    rng, draws = np.random.default_rng(0), RowSampler()
    assert set(draws.sample(shards, rng, {"a": 200})["x"].tolist()) == set(range(20))
    assert set(draws.sample(shards, rng, {"a": 200}, held_out=True)["x"].tolist()) == set(range(100, 104))
    assert not table.collect(None, CollectionPlan(1, 1.0, 1, 0)).episodes


def test_the_newest_shard_alone_is_drawn_from_where_asked(tmp_path):
    shards = Shards(tmp_path)
    for first in (0, 10):
        found = FixedDomain("a", {"x": np.arange(first, first + 3)}).collect(None, CollectionPlan(0, 1.0, 1, 0))
        shards.append(found.fields, found.episodes, {"domain": "a"})
    rng = np.random.default_rng(0)
    assert set(RowSampler().sample(shards, rng, {"a": 100})["x"].tolist()) == {0, 1, 2, 10, 11, 12}
    assert set(RowSampler(newest=True).sample(shards, rng, {"a": 100})["x"].tolist()) == {10, 11, 12}


def test_a_domain_that_holds_nothing_out_is_measured_on_what_it_trains_on(tmp_path):
    shards = Shards(tmp_path)
    found = FixedDomain("a", {"x": np.arange(4)}, measure=lambda plan: {"ratio": 1.0 + plan.round}).collect(
        None, CollectionPlan(2, 1.0, 1, 0)
    )
    assert not found.episodes and found.measured == {"ratio": 3.0}, "later rounds bring what is measured alone"
    found = FixedDomain("a", {"x": np.arange(4)}).collect(None, CollectionPlan(0, 1.0, 1, 0))
    shards.append(found.fields, found.episodes, {"domain": "a"})
    drawn = RowSampler().sample(shards, np.random.default_rng(0), {"a": 50}, held_out=True)
    assert set(drawn["x"].tolist()) == {0, 1, 2, 3}


def test_nothing_to_draw_from_is_one_sentence(tmp_path):
    with pytest.raises(DistillError, match="no rows"):
        FixedDomain("a", {})
    with pytest.raises(DistillError, match="at least one row"):
        RowSampler().sample(Shards(tmp_path), np.random.default_rng(0), {"a": 0})


def test_every_row_comes_once_before_any_comes_again_also_after_a_pause(tmp_path):
    shards = Shards(tmp_path)
    found = FixedDomain("a", {"x": np.arange(10)}, {"x": np.arange(100, 103)}).collect(
        None, CollectionPlan(0, 1.0, 1, 0)
    )
    shards.append(found.fields, found.episodes, {"domain": "a"})
    rng, sampler = np.random.default_rng(0), Epochs()
    first = sampler.sample(shards, rng, {"a": 7})["x"].tolist()
    state, later = json.loads(json.dumps(sampler.state())), np.random.default_rng(5)
    rest = sampler.sample(shards, np.random.default_rng(5), {"a": 13})["x"].tolist()
    assert sorted(first + rest[:3]) == sorted(rest[3:]) == list(range(10)) and first + rest[:3] != rest[3:]
    again = Epochs()
    again.restore(state)
    assert again.sample(shards, later, {"a": 13})["x"].tolist() == rest
    assert set(sampler.sample(shards, rng, {"a": 30}, held_out=True)["x"].tolist()) == {100, 101, 102}


def test_new_rows_begin_a_new_pass_over_the_newest_alone_where_asked(tmp_path):
    shards, rng = Shards(tmp_path), np.random.default_rng(0)
    sampler, all_of_them = Epochs(newest=True), Epochs()
    for first in (0, 10):
        found = FixedDomain("a", {"x": np.arange(first, first + 4)}).collect(None, CollectionPlan(0, 1.0, 1, 0))
        shards.append(found.fields, found.episodes, {"domain": "a"})
        drawn = sampler.sample(shards, rng, {"a": 4})["x"].tolist()
        assert sorted(drawn) == list(range(first, first + 4))
        sampler.sample(shards, rng, {"a": 2})
    assert sorted(all_of_them.sample(shards, rng, {"a": 8})["x"].tolist()) == [0, 1, 2, 3, 10, 11, 12, 13]
    with pytest.raises(DistillError, match="no row"):
        sampler.sample(shards, rng, {"b": 1})
