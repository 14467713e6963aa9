"""Changed physics of a run: latency beyond a control period, friction, contacts, torque; and the engine's name."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from sim.course.scene import EVALUATION, build
from sim.course.terrain import Terrain
from sim.envs.variation import Variation
from sim.envs.worlds import SimulatedRobots, flat
from sim.errors import InputError
from sim.robots.description import default_robot

ROBOT = default_robot()


def robots(variation: Variation, seeds: tuple[int, ...] = (1, 2), randomize: bool = False) -> SimulatedRobots:
    model = build(ROBOT, Terrain(), options=variation.solver)
    out = SimulatedRobots(ROBOT, model, seeds, variation=variation, threads=1, randomize=randomize)
    out.place(*(np.zeros(len(seeds)) for _ in range(3)), flat)
    return out


@pytest.mark.parametrize("extra", [0.0, 0.01, 0.02, 0.034, 0.04])
def test_what_drives_the_joints_is_as_old_as_the_latency(extra, monkeypatch):
    """Target k, asked for at the start of period k, drives from the latency later on, in every physics step."""
    world = robots(Variation(latency=extra))
    seen: list[np.ndarray] = []
    step = world.physics.step

    def told(targets, substeps, previous, delay):
        seen.append(np.where((delay > 0)[:, None], previous, targets)[:, 0])
        step(targets, substeps, previous, delay)

    monkeypatch.setattr(world.physics, "step", told)
    before, dt = float(world.targets[0, 0]), EVALUATION.timestep
    offsets = [0.001 * (k + 1) for k in range(6)]
    for offset in offsets:
        world.apply(np.tile(ROBOT.default_pose + np.float32(offset), (2, 1)))
    latency = ROBOT.control_period + extra
    for i, values in enumerate(seen):
        asked = int(np.floor((i * dt - latency) / ROBOT.control_period + 1e-9))
        expected = before if asked < 0 else float(ROBOT.default_pose[0]) + offsets[asked]
        np.testing.assert_allclose(values, expected, atol=1e-6, err_msg=f"physics step {i}")


def test_worlds_of_different_latency_keep_their_own(monkeypatch):
    mixed = robots(Variation(latency=0.03), seeds=(1, 2, 3), randomize=True)
    assert len(set(mixed.delay.tolist())) > 1
    alone = robots(Variation(latency=0.03), seeds=(2,), randomize=True)
    for world in (mixed, alone):
        for k in range(5):
            world.apply(np.tile(ROBOT.default_pose + np.float32(0.05 * (-1) ** k), (world.worlds, 1)))
    np.testing.assert_array_equal(mixed.physics.qpos[1], alone.physics.qpos[0])


def test_friction_torque_contacts_and_steps_are_as_asked():
    world = robots(Variation(friction=0.4, torque=0.8, stiffness=4.0, timestep=0.001, cone="pyramidal"))
    feet = [world.model.geom(leg.foot).id for leg in ROBOT.legs]
    np.testing.assert_allclose(np.array(world.physics.batch.expand("geom_friction"))[:, feet, 0], 0.4)  # type: ignore[attr-defined]
    assert world.torque_limit == pytest.approx(0.8 * ROBOT.peak_torque)
    assert world.substeps == round(ROBOT.control_period / 0.001)
    assert world.model.geom_solref[0, 0] == pytest.approx(EVALUATION.solref[0] / 2)
    assert world.model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    assert (world.delay == round(ROBOT.control_period / 0.001)).all()


def test_nothing_changed_is_what_runs_are_judged_in():
    assert Variation().solver == EVALUATION
    words = [Variation().words, Variation(friction=0.4).words, Variation("drake").words]
    assert len(set(words)) == 3


@pytest.mark.parametrize("wrong", [{"timestep": 0.0}, {"stiffness": -1.0}, {"torque": float("nan")}])
def test_impossible_values_are_refused(wrong):
    with pytest.raises(InputError):
        replace(Variation(), **wrong)
