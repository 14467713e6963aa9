"""Poses held against the map by the feet that stand: over ramps, on the flat, at edges."""

import numpy as np
import pytest

from policies.navigation.map_match import MapMatch
from sim.course.terrain import Block, Ramp, Terrain

RADIUS, HEIGHT = 0.02, 0.25
STANCE = np.array([[0.2, 0.1], [-0.2, -0.1]])
"""Feet that stand, ahead and left of the base, m."""
FRAME = Terrain((Ramp("up", (2.0, 0.0), (1.0, 2.0), 0.0, 0.58), Ramp("down", (3.0, 0.0), (1.0, 2.0), 0.58, 0.0)))
"""An A-frame along x, up from 1.5 to 2.5 m and down to 3.5 m."""


def walked(terrain: Terrain, drift, yaw: float = 0.0, seconds: float = 6.0, noise: float = 0.01) -> np.ndarray:
    """x, y, z (m) by which a robot's place is off at the end of a walk of 4 m along x with heading `yaw`, whose poses
    are off by `drift` (m) by then."""
    rng, match, steps = np.random.default_rng(1), MapMatch(terrain.height, RADIUS), int(50 * seconds)
    c, s = np.cos(yaw), np.sin(yaw)
    now = np.zeros(3)
    for k in range(steps):
        share = k / steps
        x, y = 4.0 * share, 0.0
        feet = np.array([x, y]) + STANCE @ np.array([[c, s], [-s, c]])
        ahead, behind = (terrain.height(feet[:, 0] + step, feet[:, 1]) for step in (1e-3, -1e-3))
        lean = (ahead - behind) / 2e-3
        ground = terrain.height(feet[:, 0], feet[:, 1]) + RADIUS * np.sqrt(1 + lean**2)
        z = float(terrain.height(np.array([x]), np.array([y]))[0]) + HEIGHT
        pose = np.array([x, y, z]) + share * np.array(drift) + noise * rng.standard_normal(3)
        soles = np.column_stack([STANCE, ground - z + 0.005 * rng.standard_normal(2)])
        match.see(np.array([*pose, yaw]), soles)
        now = share * np.array(drift) - match.offset
    return now


@pytest.mark.parametrize("yaw", [0.0, 2.0])
@pytest.mark.parametrize("drift", [(0.12, 0.0, 0.0), (-0.1, 0.08, 0.03)])
def test_a_ramp_tells_of_the_drift_along_it(drift, yaw):
    off = walked(FRAME, drift, yaw)
    assert abs(off[0]) < abs(drift[0]) / 2.5
    assert off[1] == pytest.approx(drift[1], abs=0.02), "nothing tells of a drift across it"
    assert abs(off[2]) < 0.015


def test_level_ground_tells_of_the_height_alone():
    off = walked(Terrain(), (0.1, -0.05, 0.08))
    np.testing.assert_allclose(off[:2], [0.1, -0.05], atol=1e-3)
    assert abs(off[2]) < 0.02


def test_true_poses_stay_as_they_are():
    assert np.abs(walked(FRAME, (0.0, 0.0, 0.0))).max() < 0.015


def test_edges_and_walls_are_not_learned_from():
    steps = Terrain(tuple(Block(f"{k}", (1.0 + 0.15 * k, 0.0), (0.05, 4.0), 0.1) for k in range(20)))
    match = MapMatch(steps.height, RADIUS)
    for k in range(200):
        match.see(np.array([1.0 + 0.01 * k, 0.0, HEIGHT, 0.0]), np.array([[0.0, 0.0, RADIUS - HEIGHT]]))
    assert np.abs(match.offset[:2]).max() < 0.01


def test_feet_that_cannot_be_there_are_not_learned_from():
    match = MapMatch(FRAME.height, RADIUS)
    for k in range(100):
        match.see(np.array([0.01 * k, 0.0, HEIGHT, 0.0]), np.array([[0.0, 0.0, -1.0]]))
        match.see(np.array([0.01 * k, 0.0, HEIGHT, 0.0]), np.zeros((0, 3)))
    np.testing.assert_array_equal(match.offset, 0.0)
