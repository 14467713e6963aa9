"""Recorded hand-overs: what a run of a course gives, and a training run that begins in them."""

from dataclasses import replace

import numpy as np
import pytest

from policies.learning import handovers
from policies.learning.options import TrainOptions
from policies.learning.train import Run
from policies.skills.library import load_skills
from sim import observation as obs
from sim.course.generator import short
from sim.errors import InputError
from sim.tasks.handovers import Handovers


@pytest.fixture(scope="module")
def found() -> Handovers:
    """Those of two runs over one board."""
    some = handovers._on(short(["jump"], 3), load_skills(), handovers.Setting("", 2), 5, 1)
    assert len(some) == 2, "every run comes to the board"
    return Handovers(*(np.stack(values).astype(np.float32) for values in zip(*some, strict=True)))


def test_a_recorded_robot_stands_before_the_board_and_moves_towards_it(found):
    robot = load_skills().robot
    found.check(robot, "these")
    assert (found.place[:, 0] > -2.5).all() and (found.place[:, 0] < -0.8).all()
    assert (np.abs(found.place[:, 1]) < 0.4).all() and (np.abs(obs.yaw_of(np, found.orientation)) < 0.8).all()
    assert (found.place[:, 2] > robot.fall.low).all() and (found.place[:, 2] < 1.5 * robot.standing_height).all()
    np.testing.assert_allclose(np.linalg.norm(found.orientation, axis=1), 1.0, atol=1e-5)
    assert (found.velocity[:, 0] > 0).all() and (found.speed > 0.3).all()


def test_its_memory_is_of_the_same_moment(found):
    robot = load_skills().robot
    parts = obs.frame_slices(robot.joints)
    frame = found.history[:, 0]
    np.testing.assert_allclose(frame[:, parts["joint_offset"]], found.joints - robot.default_pose, atol=0.12)
    gravity = obs.projected_gravity(np, found.orientation)
    np.testing.assert_allclose(frame[:, parts["projected_gravity"]], gravity, atol=0.2)
    rates = 0.25 * found.velocity[:, 3:6]
    np.testing.assert_allclose(frame[:, parts["angular_velocity"]], rates, atol=0.25)
    assert np.abs(found.targets - found.joints).max() < 1.5


def test_a_training_run_keeps_its_hand_overs_and_goes_on_with_them(found, tmp_path, monkeypatch):
    monkeypatch.setattr(handovers, "record", lambda *arguments: found)
    options = TrainOptions("jump", worlds=24, out=tmp_path / "run", seed=3, handovers="specialists")
    run = Run(options)
    assert (run.env.state.handed_age == 0).any() and "--handovers specialists" in run.command()
    run.iterate()
    run.save()
    straight = run.iterate()
    monkeypatch.delattr(handovers, "record")  # they are in the run's folder
    again = Run(replace(options, resume=True)).iterate()
    assert straight["reward"] == again["reward"]
    with pytest.raises(InputError):
        Run(replace(options, resume=True, handovers=""))


def test_worlds_begin_at_the_level_that_is_asked_for(tmp_path):
    options = TrainOptions("jump", worlds=24, out=tmp_path / "run", level=3.5)
    run = Run(options)
    assert (run.env.state.level == 3.5).all() and "--level 3.5" in run.command()
    run.save()
    Run(replace(options, resume=True))
    with pytest.raises(InputError):
        Run(replace(options, resume=True, level=None))


def test_a_policy_without_a_jumper_of_its_own_hands_nothing_over():
    with pytest.raises(InputError):
        handovers.record(load_skills("generalist"), say=lambda text: None)


def test_they_come_from_strong_and_weak_robots_and_from_nominal_ones(monkeypatch):
    runs = []

    class Worlds:
        def __init__(self, course, skills, seeds, *, randomize, torque_limit, threads):
            runs.append((course.name, len(seeds), randomize, torque_limit))
            self.policy, self.robots = handovers.PolicyRunner(skills, 1), self
            self.worlds = 0

    monkeypatch.setattr(handovers, "CourseWorlds", Worlds)
    with pytest.raises(InputError, match="in no run"):
        handovers.record(load_skills("specialists"), say=lambda text: None)
    name, weak = runs[0][0], 2 / 3 * load_skills("specialists").robot.peak_torque
    assert (name, 32, False, None) in runs and (name, 32, True, weak) in runs
    assert sum(count for _, count, *_ in runs) == 368 and len({course for course, *_ in runs}) == 14


def test_they_are_for_jumping():
    with pytest.raises(InputError):
        TrainOptions("walk", handovers="specialists")
