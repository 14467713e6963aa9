"""The search for a bound, and the phase in which it leaves the ground free."""

import numpy as np
import pytest

from sim.envs.gait_search import BOUNDS, Search, gaits_of, lock_phase, search
from sim.gait import shorter_way
from sim.robots.description import find_robot


@pytest.mark.parametrize("name", ["barkour_v0", "unitree_go2"])
def test_described_bounds_lock_where_prints_are_furthest_from_the_base(name):
    robot = find_robot(name)
    phases, free = zip(*(lock_phase(robot.bound, robot, speed, n=8) for speed in (1.6, 1.9)), strict=True)
    assert all(abs(shorter_way(phase - robot.bound.lock_phase)) <= 0.1 for phase in phases)
    assert min(free) > 0.3


def test_a_clock_begun_elsewhere_in_its_cycle_locks_that_much_later():
    """Phases of all legs a quarter of a cycle on: the same motion, named by phases a quarter of a cycle back."""
    from dataclasses import replace

    robot = find_robot("barkour_v0")
    shifted = replace(robot.bound, phase_offsets=tuple((p + 0.25) % 1.0 for p in robot.bound.phase_offsets))
    one, other = (lock_phase(gait, robot, 1.9, n=8)[0] for gait in (robot.bound, shifted))
    assert abs(shorter_way(one - 0.25 - other)) <= 0.1


def test_a_search_stays_in_its_bounds_and_measures_the_phase():
    gait, worth = search(Search(population=4, elite=2, iterations=1, trials=1, seconds=0.4))
    assert np.isfinite(worth) and 0.0 < gait.lock_phase < 1.0
    assert BOUNDS[0][0] <= gait.front.push <= BOUNDS[1][0]
    assert gaits_of(BOUNDS[0], Search()).front.push == BOUNDS[0][0]
