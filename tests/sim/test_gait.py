"""The gait clock: period, rest, which legs swing together, what it adds to the joints, and numpy against jax."""

from dataclasses import replace

import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import gait as clocks
from sim.errors import InputError
from sim.robots.description import default_robot
from sim.robots.gaits import CORNERS, Gait

ROBOT = default_robot()
TROT = Gait()
DT = 0.02
WALK = np.array([0.5, 0.0, 0.0], np.float32)


def trace(gait: Gait, command: np.ndarray, steps: int) -> np.ndarray:
    phases, phase = [], np.zeros(())
    for _ in range(steps):
        phase = clocks.advance(np, gait, phase, command, DT)
        phases.append(float(phase))
    return np.array(phases)


@pytest.mark.parametrize(
    "command, frequency",
    [
        ((0.5, 0, 0), 2.5),
        ((1.0, 0, 0), 2.5),
        ((-2.0, 0, 0), 3.0),
        ((0, 0, 1.7), 2.5),
        ((1.2, 1.6, 0), 3.0),  # planar speed 2 m/s
    ],
)
def test_the_clock_turns_at_the_frequency_of_the_commanded_speed(command, frequency):
    phases = trace(TROT, np.array(command, np.float32), 500)  # 10 s
    wraps = int((np.diff(phases) < 0).sum())
    assert wraps + phases[-1] == pytest.approx(10 * frequency, abs=0.01)
    assert ((phases >= 0) & (phases < 1)).all()


@pytest.mark.parametrize(
    "command, moves", [((0, 0, 0), 0), ((0.02, -0.02, 0), 0), ((0.03, 0, -0.03), 1), ((0, -1, 0), 1)]
)
def test_the_clock_rests_when_no_motion_is_asked_for(command, moves):
    command = np.array(command, np.float32)
    assert clocks.moving(np, TROT, command) == moves
    phase = clocks.advance(np, TROT, np.float32(0.3), command, DT)
    assert phase == pytest.approx(0.35 if moves else 0.0)  # 0.3 + 2.5 Hz x 0.02 s
    seen = clocks.clock(np, TROT, np.float32(0.25), command)
    np.testing.assert_allclose(seen, (1.0, 0.0) if moves else (0.0, 0.0), atol=1e-6)
    offsets = clocks.joint_offset(np, ROBOT, TROT, np.float32(0.25), command, np.float32(0.05))
    assert np.abs(offsets).max() == pytest.approx(2 * TROT.push if moves else 0.0)


def test_a_trot_swings_diagonal_legs_together_and_always_stands_on_the_other_pair():
    phases = np.linspace(0, 1, 200, endpoint=False)
    swing = dict(zip(CORNERS, clocks.swing(np, ROBOT, TROT, phases).T, strict=True))
    np.testing.assert_allclose(swing["front_left"], swing["hind_right"], atol=1e-6)
    np.testing.assert_allclose(swing["front_right"], swing["hind_left"], atol=1e-6)
    assert np.abs(swing["front_left"] * swing["front_right"]).max() < 1e-6
    assert swing["front_left"].max() == pytest.approx(1.0, abs=1e-3)
    assert (swing["front_left"] > 1e-6).mean() == pytest.approx(0.5, abs=0.02) and swing["front_left"].min() == 0


def test_a_leg_stands_in_the_first_half_of_its_own_cycle_and_swings_in_the_second():
    offsets = (0.75, 0.25, 0.25, 0.25)
    for leg in range(4):
        only = replace(TROT, phase_offsets=tuple(np.roll(offsets, leg)))
        np.testing.assert_allclose(clocks.swing(np, ROBOT, only, np.zeros(())), np.eye(4)[leg], atol=1e-6)


@pytest.mark.parametrize("relief, fold", [(0.0, 0.0), (0.04, 0.1), (0.12, 0.3), (0.5, 0.3)])
def test_stance_legs_extend_and_swing_legs_fold_by_the_relief_up_to_a_limit(relief, fold):
    offset = clocks.joint_offset(
        np, ROBOT, TROT, np.array(0.25, np.float32), WALK, np.array(relief, np.float32)
    ).reshape(4, 3)
    stance, swing = [0, 0.32, 0.64], [0, -fold, -2 * fold]
    np.testing.assert_allclose(offset, [stance, swing, swing, stance], atol=1e-6)
    later = clocks.joint_offset(
        np, ROBOT, TROT, np.array(0.75, np.float32), WALK, np.array(relief, np.float32)
    ).reshape(4, 3)
    np.testing.assert_allclose(later, [swing, stance, stance, swing], atol=1e-6)


def test_extending_lowers_the_foot_and_folding_raises_it_nearly_straight():
    """By the kinematics of the robot's model, for every leg of the standing robot."""
    robot = default_robot()
    model = mujoco.MjModel.from_xml_path(str(robot.mjcf))
    data = mujoco.MjData(model)

    def feet(offset: np.ndarray) -> np.ndarray:
        data.qpos[:7], data.qpos[7:] = (0, 0, 1, 1, 0, 0, 0), robot.default_pose + offset
        mujoco.mj_kinematics(model, data)
        return np.array([data.geom(f"foot_{leg}").xpos for leg in CORNERS])

    offset = clocks.joint_offset(np, ROBOT, TROT, np.array(0.25, np.float32), WALK, np.array(0.1, np.float32))
    moved = feet(offset) - feet(np.zeros(12))
    for leg, name in enumerate(CORNERS):
        down = name in ("front_left", "hind_right")
        assert 0.02 < abs(moved[leg, 2]) < 0.12 and (moved[leg, 2] < 0) == down, name
        assert np.abs(moved[leg, :2]).max() < 0.3 * abs(moved[leg, 2]), name


def test_gaits_survive_json_and_refuse_other_keys():
    gait = Gait(name="pace", phase_offsets=(0.0, 0.0, 0.5, 0.5), push=0.1)
    assert Gait.from_dict({**gait.to_dict(), "phase_offsets": list(gait.phase_offsets)}) == gait
    with pytest.raises(InputError, match="needs the keys"):
        Gait.from_dict({**gait.to_dict(), "speed": 1})
    with pytest.raises(InputError, match="needs the keys"):
        Gait.from_dict({k: v for k, v in gait.to_dict().items() if k != "push"})


def moved(xp, gait, phase, command, relief):
    return clocks.joint_offset(xp, ROBOT, gait, phase, command, relief)


@settings(max_examples=30, deadline=None)
@given(
    phase=st.floats(0, 1, exclude_max=True, width=32),
    command=st.tuples(*[st.floats(-2, 2, width=16) for _ in range(3)]),
)
def test_numpy_and_jax_agree(phase, command):
    command = np.array(command, np.float32)
    a = [np.full((2, 3), phase, np.float32), np.broadcast_to(command, (2, 3, 3))]
    relief = np.linspace(0, 0.2, 6, dtype=np.float32).reshape(2, 3)
    b = [jnp.asarray(x) for x in a]
    for function, more in ((clocks.clock, ()), (moved, (relief,))):
        here, there = function(np, TROT, *a, *more), function(jnp, TROT, *b, *map(jnp.asarray, more))
        assert here.dtype == there.dtype == np.float32 and here.shape == there.shape
        np.testing.assert_allclose(here, there, atol=1e-5)
    here, there = clocks.advance(np, TROT, *a, DT), clocks.advance(jnp, TROT, *b, DT)
    turned = np.abs(here - np.asarray(there))
    assert np.minimum(turned, 1 - turned).max() < 1e-5  # 0 and 1 are one phase
