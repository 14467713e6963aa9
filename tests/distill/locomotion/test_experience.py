"""Windows of context from episodes."""

import numpy as np
import pytest
import torch

from distill.core.errors import DistillError
from distill.core.shards import Shards
from distill.locomotion.experience import HELD_OUT_EVERY, Windows


def filled(folder, episodes=(40, 3, 25) * 10) -> Shards:
    shards = Shards(folder)
    for domain in ("course", "walk"):
        rows = sum(episodes)
        number = np.repeat(np.arange(len(episodes)), episodes).astype(np.float32)
        step = np.concatenate([np.arange(n) for n in episodes]).astype(np.float32)
        label = np.full(rows, float(domain == "walk"), np.float32)
        fields = {"frames": np.stack([number, step, label], 1), "heights": np.stack([step], 1).astype(np.float16)}
        shards.append({**fields, "action": np.stack([number, step], 1)}, list(episodes), {"domain": domain})
    return shards


def test_windows_are_consecutive_and_filled_with_the_first_row(tmp_path):
    batch = Windows(15).sample(filled(tmp_path), np.random.default_rng(0), {"course": 150, "walk": 50})
    frames = batch["frames"]
    assert frames.shape == (200, 15, 3) and batch["heights"].dtype == torch.float32
    number, step = frames[..., 0], frames[..., 1]
    assert (number == number[:, :1]).all(), "a window never spans two episodes"
    wanted = torch.clamp(step[:, -1:] + torch.arange(-14, 1), min=0)
    assert torch.equal(step, wanted)
    assert torch.equal(batch["action"], frames[..., :2]) and torch.equal(batch["heights"][..., 0], step)
    assert frames[:150, :, 2].sum() == 0 and frames[150:, :, 2].mean() == 1


def test_held_out_episodes_are_never_trained_on(tmp_path):
    shards, windows, rng = filled(tmp_path), Windows(4), np.random.default_rng(0)
    seen, held = (
        set(windows.sample(shards, rng, {"course": 3000}, held_out)["frames"][:, 0, 0].tolist())
        for held_out in (False, True)
    )
    assert held and not seen & held and len(seen | held) == 30
    assert held == {float(HELD_OUT_EVERY // 2)}


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_a_share_of_the_data_is_that_share_of_the_episodes(tmp_path, share):
    shards = filled(tmp_path, (10,) * 200)
    seen = Windows(4, share=share).sample(shards, np.random.default_rng(0), {"walk": 20_000})["frames"][:, 0, 0]
    assert len(seen.unique()) == pytest.approx(200 * share * 0.95, abs=1 + 6 * share)


def test_the_newest_step_alone(tmp_path):
    batch = Windows(5, last_only=True).sample(filled(tmp_path), np.random.default_rng(0), {"walk": 8})
    assert batch["action"].shape == (8, 1, 2) and torch.equal(batch["action"][:, 0], batch["frames"][:, -1, :2])


def test_equal_seeds_give_equal_batches(tmp_path):
    shards = filled(tmp_path)
    first, second = (Windows(15).sample(shards, np.random.default_rng(4), {"course": 30, "walk": 3}) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_further_fields_of_the_newest_step_and_the_newest_round_alone(tmp_path):
    shards = Shards(tmp_path)
    for round_ in (0, 1):
        rows = np.arange(60, dtype=np.float32)[:, None] + 100 * round_
        fields = {"frames": rows, "heights": rows.astype(np.float16), "action": rows, "worth": rows[:, 0]}
        shards.append(fields, [20, 20, 20], {"domain": "course", "round": round_})
    rng = np.random.default_rng(0)
    batch = Windows(4, also=("worth",), newest=True).sample(shards, rng, {"course": 50})
    assert batch["worth"].shape == (50, 1) and torch.equal(batch["worth"], batch["frames"][:, -1])
    assert batch["worth"].min() >= 100
    every = Windows(4, also=("worth",)).sample(shards, rng, {"course": 200})["worth"]
    assert every.min() < 100 <= every.max()
    shards.forget(before=1)
    assert Windows(4, also=("worth",)).sample(shards, rng, {"course": 200})["worth"].min() >= 100


def test_a_single_episode_cannot_be_learned_from(tmp_path):
    shards = filled(tmp_path, (40,))
    with pytest.raises(DistillError, match="one episode alone"):
        Windows(4).sample(shards, np.random.default_rng(0), {"course": 5}, held_out=True)
