"""The clock that a policy drives itself, stamped frames, and actions from joint targets."""

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import gait as clocks
from sim import observation as obs
from sim.gait import DRIVEN_RANGE
from sim.observation import Layout
from sim.robots.barkour_v0 import BOUND
from sim.robots.description import default_robot
from sim.robots.gaits import DRIVEN, Gait, LegPair

ROBOT = default_robot()
WALKING = np.array([[1.0, 0.0, 0.0]], np.float32)


@given(st.floats(-10, 10), st.floats(0, 0.99))
def test_a_driven_clock_turns_as_the_policy_says_within_limits(drive, phase):
    following = clocks.advance(np, DRIVEN, np.array([phase]), WALKING, 0.02, drive=np.array([drive]))
    turned = (following[0] - phase + 0.5) % 1.0 - 0.5
    assert turned / 0.02 == pytest.approx(np.clip(DRIVEN.frequency + drive, *DRIVEN_RANGE), abs=1e-3)


@pytest.mark.parametrize("gait", [Gait(), BOUND])
def test_a_clock_that_is_not_driven_ignores_the_drive(gait):
    phase, board = np.array([0.3], np.float32), np.array([1.0], np.float32)
    plain = clocks.advance(np, gait, phase, WALKING, 0.02, board)
    assert plain == clocks.advance(np, gait, phase, WALKING, 0.02, board, np.array([3.0]))
    turning = clocks.frequency(np, gait, phase, WALKING, board)
    assert plain == pytest.approx((phase + 0.02 * turning) % 1.0)


def test_a_driven_clock_adds_nothing_to_the_joints():
    offset = clocks.joint_offset(np, ROBOT, DRIVEN, np.array([0.25]), WALKING, np.array([0.1]))
    assert offset.shape == (1, 12) and not offset.any()
    several = clocks.joint_offset(np, ROBOT, DRIVEN, np.zeros((4, 1)), np.zeros((3, 3)), np.zeros(3))
    assert several.shape == (4, 3, 12) and several.dtype == np.float32 and not several.any()


@pytest.mark.parametrize(
    "name", ["push", "lift_per_relief", *(f.name for f in fields(LegPair) if f.name != "swing_phase")]
)
def test_whatever_of_a_clock_moves_joints_is_added(name):
    gait = replace(DRIVEN, **{name: 0.3} if name in ("push", "lift_per_relief") else {"hind": LegPair(**{name: 0.3})})
    phases = np.linspace(0.0, 0.9, 7)
    assert clocks.joint_offset(np, ROBOT, gait, phases, np.tile(WALKING, (7, 1)), np.full(7, 0.1)).any()


def test_only_a_driven_clock_has_a_thirteenth_action_and_new_keys():
    assert (Gait().actions(12), BOUND.actions(12), DRIVEN.actions(12)) == (12, 12, 13)
    assert not {"driven", "scale"} & set(Gait().to_dict())
    for gait in (Gait(), BOUND, DRIVEN):
        assert Gait.from_dict(gait.to_dict()) == gait


@pytest.mark.parametrize("gait", [Gait(), BOUND, DRIVEN])
def test_the_action_for_joint_targets_is_the_inverse_of_what_gives_them(gait):
    rng = np.random.default_rng(0)
    action = rng.uniform(-0.8, 0.8, (64, 12)).astype(np.float32)
    phase, steps = rng.random(64).astype(np.float32), np.full(64, 0.02, np.float32)
    command = np.tile(WALKING, (64, 1))
    targets = obs.joint_targets(np, ROBOT, gait, action, phase, command, steps)
    inside = (targets > ROBOT.joint_lower + 1e-4) & (targets < ROBOT.joint_upper - 1e-4)
    back = obs.action_for(np, ROBOT, gait, targets, phase, command, steps)
    assert inside.mean() > 0.8 and np.abs(back - action)[inside].max() < 1e-4


def test_stamped_frames_carry_command_and_clock_of_their_step():
    layout = Layout(12, frames=(0, 1), stamped=True)
    assert layout.frame_size == 47 and layout.size == 94
    newest = obs.stamp(np, layout, np.zeros((1, 42)), np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0]]))
    assert newest[0, 42:].tolist() == [1, 2, 3, 4, 5]
    history = obs.push(np, obs.fill(np, newest, layout.history), newest + 1)
    seen = obs.observe(np, layout, history, np.full((1, 3), 99.0), np.full((1, 2), 99.0), np.zeros((1, 0)))
    assert seen[0, 42:47].tolist() == [2, 3, 4, 5, 6] and seen[0, 89:].tolist() == [1, 2, 3, 4, 5]


def test_stamped_layouts_and_longer_contexts_survive_json():
    for layout in (Layout(12, frames=tuple(range(30)), stamped=True), Layout(12, stamped=True, clock=False)):
        assert Layout.from_dict(layout.to_dict()) == layout
    assert Layout(12, frames=tuple(range(30))).history == 30 and Layout(12).history == 15
    assert "stamped" not in Layout(12).to_dict()
