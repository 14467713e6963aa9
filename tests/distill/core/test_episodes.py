"""Episodes from worlds side by side."""

import numpy as np

from distill.core.episodes import EpisodeRecorder


def recorded(fresh: list[list[int]], alive: list[list[int]]) -> tuple[dict, list[int]]:
    """Rows of `[steps][worlds]` flags whose field says world and step."""
    recorder = EpisodeRecorder()
    for step, (begins, counts) in enumerate(zip(fresh, alive, strict=True)):
        value = np.array([100 * world + step for world in range(len(begins))], np.float32)
        recorder.add(np.array(begins, bool), np.array(counts, bool), frames=value[:, None])
    return recorder.episodes()


def test_worlds_are_laid_one_after_the_other():
    fields, episodes = recorded([[1, 1], [0, 0], [0, 0]], [[1, 1]] * 3)
    assert fields["frames"][:, 0].tolist() == [0, 1, 2, 100, 101, 102] and episodes == [3, 3]


def test_a_restart_in_the_middle_begins_an_episode():
    fields, episodes = recorded([[1, 1], [0, 1], [0, 0]], [[1, 1]] * 3)
    assert fields["frames"][:, 0].tolist() == [0, 1, 2, 100, 101, 102] and episodes == [3, 1, 2]


def test_steps_that_do_not_count_are_left_out_and_part_episodes():
    fields, episodes = recorded([[1, 1], [0, 0], [0, 0], [0, 0]], [[1, 1], [1, 0], [0, 1], [0, 1]])
    assert fields["frames"][:, 0].tolist() == [0, 1, 100, 102, 103] and episodes == [2, 1, 2]


def test_a_world_that_never_counts_gives_no_episode():
    fields, episodes = recorded([[1, 1], [0, 0]], [[0, 1], [0, 1]])
    assert fields["frames"][:, 0].tolist() == [100, 101] and episodes == [2]
