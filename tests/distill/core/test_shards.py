"""Shards: what goes in comes out, whole episodes or nothing, and damage is found."""

import json

import numpy as np
import pytest

from distill.core.errors import DistillError
from distill.core.shards import Shards


def rows(count: int, start: float = 0.0) -> dict[str, np.ndarray]:
    values = start + np.arange(count, dtype=np.float32)
    return {"frames": np.stack([values, -values], 1), "skill": np.full(count, 2, np.uint8)}


def filled(folder, counts=((3, 4), (5,))) -> Shards:
    shards = Shards(folder)
    for k, episodes in enumerate(counts):
        shards.append(rows(sum(episodes), 100 * k), episodes, {"domain": "ab"[k % 2], "beta": 1.0 - k})
    return shards


def test_a_reopened_folder_holds_what_was_written(tmp_path):
    filled(tmp_path)
    shards = Shards(tmp_path)
    assert [s.episodes for s in shards.shards] == [(3, 4), (5,)] and shards.rows == 12
    for k, shard in enumerate(shards.shards):
        for name, values in rows(shard.rows, 100 * k).items():
            found = shards.array(shard, name)
            assert found.dtype == values.dtype and (found == values).all()
            assert isinstance(found, np.memmap) and not found.flags.writeable
    assert list(shards.verify()) == []


def test_what_is_forgotten_is_gone_but_still_counted(tmp_path):
    shards = Shards(tmp_path)
    for round_ in range(3):
        shards.append(rows(4, 10 * round_), (4,), {"domain": "a", "round": round_})
    before = shards.card(row_seconds=1.0)
    shards.forget(before=2)
    for found in (shards, Shards(tmp_path)):
        assert len(found) == 3 and found.rows == 12 and list(found.verify()) == []
        assert found.card(row_seconds=1.0) == before
        assert (found.array(found.shards[2], "frames") == rows(4, 20)["frames"]).all()
        with pytest.raises(DistillError, match="forgotten"):
            found.array(found.shards[0], "frames")
    assert sorted(path.name for path in tmp_path.glob("shard_*")) == ["shard_00002"]
    shards.forget(before=2)  # nothing left to do
    shards.keep(2)
    assert len(Shards(tmp_path)) == 2 and not list(tmp_path.glob("shard_*"))


def test_the_data_card_counts_episodes_hours_and_domains(tmp_path):
    card = filled(tmp_path).card(row_seconds=1800.0)
    assert (card["episodes"], card["rows"], card["hours"], card["on_policy_rows"]) == (3, 12, 6.0, 5)
    assert {name: d["episodes"] for name, d in card["domains"].items()} == {"a": 2, "b": 1}
    assert json.loads((tmp_path / "card.json").read_text()) == card


@pytest.mark.parametrize("keep_bytes", [0, 10, -4])
def test_a_shard_that_is_cut_off_is_refused_on_opening(tmp_path, keep_bytes):
    filled(tmp_path)
    path = tmp_path / "shard_00001" / "frames.npy"
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(DistillError, match="shard_00001/frames.npy"):
        Shards(tmp_path)


def test_a_changed_byte_is_found_by_verify(tmp_path):
    shards = filled(tmp_path)
    path = tmp_path / "shard_00000" / "skill.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    (problem,) = shards.verify()
    assert "shard_00000/skill.npy" in problem and "corrupt" in problem


def test_a_shard_that_never_reached_the_index_is_replaced(tmp_path):
    shards = filled(tmp_path)
    left_over = tmp_path / "shard_00002"
    left_over.mkdir()
    (left_over / "frames.npy").write_bytes(b"half")
    shards.append(rows(2), (2,), {"domain": "a"})
    assert Shards(tmp_path).rows == 14 and list(shards.verify()) == []


def test_going_back_may_be_cut_off_anywhere(tmp_path, monkeypatch):
    """Killed before the first file is gone, or after: the folder opens."""

    def killed(*_, **__):
        raise KeyboardInterrupt

    shards = filled(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("distill.core.shards.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            shards.keep(1)
    assert Shards(tmp_path).rows == 7
    with monkeypatch.context() as patch:
        patch.setattr("distill.core.shards.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            Shards(tmp_path).keep(0)
    reopened = Shards(tmp_path)
    assert reopened.rows == 7
    reopened.append(rows(2), (2,), {"domain": "a"})  # where the dropped one's files still are
    assert Shards(tmp_path).rows == 9 and list(reopened.verify()) == []


def test_going_back_drops_the_newest_shards_for_good(tmp_path):
    shards = filled(tmp_path)
    shards.keep(1)
    assert Shards(tmp_path).rows == 7 and not (tmp_path / "shard_00001").exists()


@pytest.mark.parametrize(
    "fields, episodes, message",
    [
        (rows(4), (3,), "3 rows"),
        ({**rows(4), "more": np.zeros(5)}, (4,), "4 rows"),
        ({"frames": np.array([1.0, np.nan])}, (2,), "'frames' holds values that are not finite"),
        (rows(2), (2, 0), "cannot hold"),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_leave_nothing(tmp_path, fields, episodes, message):
    shards = filled(tmp_path)
    with pytest.raises(DistillError, match=message):
        shards.append(fields, episodes, {})
    assert len(Shards(tmp_path)) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "shards": []}'])
def test_a_damaged_index_is_one_sentence(tmp_path, text):
    filled(tmp_path)
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(DistillError, match="index.json"):
        Shards(tmp_path)
