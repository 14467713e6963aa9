"""Terrain on the robot: the map gives what simulation gives, a measured grid takes its place where it knows."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from policies.skills.library import load_skills
from policies.transformer import generalist_layout
from robot.loop.onboard_policy import OnboardPolicy
from robot.loop.terrain import GridPlace, TerrainHeights
from robot.loop.transport import NEVER, NS, Snapshot
from sim import observation as obs
from sim.course.description import official
from sim.errors import InputError
from sim.robots.description import default_robot

ROBOT, COURSE, LAYOUT = default_robot(), official(), generalist_layout(12)
POSE = np.array([COURSE.start[0], COURSE.start[1], 0.38, 0.3])


def test_the_map_gives_what_the_simulation_gives():
    seen = TerrainHeights(ROBOT, COURSE).heights(LAYOUT, Snapshot(pose=POSE), 0)
    wanted = obs.terrain_heights(np, ROBOT, LAYOUT, COURSE.height, POSE[None, :2], POSE[3:], POSE[2:3], pits=COURSE.pit)
    np.testing.assert_array_equal(seen, wanted.astype(np.float32))
    assert np.ptp(seen) > 0.1, "the start table has edges"


def test_an_unknown_pose_means_flat_ground():
    seen = TerrainHeights(ROBOT, COURSE).heights(LAYOUT, Snapshot(pose=POSE), 0, known=False)
    assert seen.shape == (1, LAYOUT.height_size) and not seen.any()


def test_a_robot_without_a_course_walks_on_flat_ground():
    pose = np.array([10.0, -3.0, ROBOT.standing_height, 1.0])
    assert not TerrainHeights(ROBOT, None).heights(LAYOUT, Snapshot(pose=pose), 0).any()


@pytest.mark.parametrize("yaw", [0.0, 0.7, -2.5])
def test_a_measured_step_is_seen_where_it_is(yaw):
    place = GridPlace(resolution=0.05, front=1.0, left=0.5)
    grid = np.zeros((41, 21), np.float32)  # 1 m ahead to 1 m behind, 0.5 m to both sides
    grid[:14] = 0.1  # everything further ahead than 0.33 m is a step of 0.1 m
    pose = np.array([2.0, -1.0, ROBOT.standing_height, yaw])
    snapshot = Snapshot(pose=pose, heights=grid, heights_time=0)
    walker = obs.Layout(12, grids=(obs.around(),))
    seen = TerrainHeights(ROBOT, None, place).heights(walker, snapshot, 0)[0].reshape(len(obs.around().x), -1)
    wanted = np.where(np.array(obs.around().x) > 0.33, 0.1 * obs.HEIGHT_SCALE, 0.0)
    np.testing.assert_allclose(seen, wanted[:, None] * np.ones(seen.shape), atol=1e-5)


def test_cells_that_are_not_known_and_grids_that_are_old_fall_back_to_the_map():
    grid = np.full((60, 30), np.nan, np.float32)
    plain = TerrainHeights(ROBOT, COURSE).heights(LAYOUT, Snapshot(pose=POSE), 0)
    unknown = TerrainHeights(ROBOT, COURSE).heights(LAYOUT, Snapshot(pose=POSE, heights=grid, heights_time=0), 0)
    np.testing.assert_array_equal(unknown, plain)
    high = np.full((200, 200), 3.0, np.float32)
    old = Snapshot(pose=POSE, heights=high, heights_time=0)
    np.testing.assert_array_equal(TerrainHeights(ROBOT, COURSE).heights(LAYOUT, old, NS), plain)
    assert (TerrainHeights(ROBOT, COURSE).heights(LAYOUT, old, 0) != plain).any()


def test_ground_below_the_base():
    terrain = TerrainHeights(ROBOT, COURSE)
    assert terrain.below(Snapshot(pose=POSE)) == pytest.approx(COURSE.height(POSE[:1], POSE[1:2])[0])
    assert Snapshot().pose_time == NEVER


def test_a_policy_that_sees_what_comes_is_refused_on_a_robot():
    """No message tells a robot's loop the motion ahead: one that guessed would drive it otherwise than it learned."""
    skills = load_skills("generalist")
    bundle = skills.bundles[0]
    seeing = SimpleNamespace(path=bundle.path, layout=replace(bundle.layout, preview=obs.Preview((0.2, 0.4))))
    with pytest.raises(InputError, match=bundle.path.name):
        OnboardPolicy(replace(skills, bundles=(seeing,)), TerrainHeights(skills.robot, official()))
    OnboardPolicy(skills, TerrainHeights(skills.robot, official()))
