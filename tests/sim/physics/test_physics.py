"""The C engine on threads: against a plain MuJoCo loop, whatever the threads; delay, pushes, saving, model fields."""

import mujoco
import numpy as np
import pytest

from sim.course.scene import build
from sim.course.terrain import Block, Terrain
from sim.errors import InputError
from sim.physics.cpu import CpuPhysics
from sim.robots.description import default_robot
from sim.robots.gaits import CORNERS
from sim.tasks import randomization as randomize

ROBOT = default_robot()
SUBSTEPS = 10
WORLDS = 6


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build(ROBOT, Terrain((Block("kerb", (0.5, 0), (0.4, 3), top=0.04),)))


def start(worlds: int = WORLDS) -> tuple[np.ndarray, np.ndarray]:
    """A standing robot in every world, each a little elsewhere and moving a little."""
    rng = np.random.default_rng(0)
    qpos = np.tile(np.concatenate([[0, 0, 0.21, 1, 0, 0, 0], ROBOT.default_pose]), (worlds, 1))
    qpos[:, :2] += rng.uniform(-0.3, 0.3, (worlds, 2))
    return qpos, rng.uniform(-0.2, 0.2, (worlds, 18))


def begin(model: mujoco.MjModel, worlds: int = WORLDS, threads: int = 1) -> CpuPhysics:
    physics = CpuPhysics(model, worlds, threads)
    physics.reset(np.ones(worlds, bool), *start(worlds))
    return physics


def motion(steps: int, worlds: int = WORLDS, seed: int = 1) -> np.ndarray:
    """Joint targets `[steps, worlds, 12]` that make the robot stumble about."""
    rng = np.random.default_rng(seed)
    return ROBOT.default_pose + 0.4 * rng.uniform(-1, 1, (steps, worlds, 12))


def play(physics: CpuPhysics, targets: np.ndarray, delay: np.ndarray, previous: np.ndarray) -> None:
    for target in targets:
        physics.step(target, SUBSTEPS, previous, delay)
        previous = target


DELAYS = np.array([0, 3, 5, 7, SUBSTEPS, SUBSTEPS])


# --- stepping ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_plain_mujoco_loop_per_world(model):
    """Each world, with its own latency, equals one MjData that holds the old target for `delay` substeps."""
    physics, targets = begin(model), motion(8)
    qpos, qvel = start()
    play(physics, targets, DELAYS, qpos[:, 7:])
    for world, delay in enumerate(DELAYS):
        data = mujoco.MjData(model)
        data.qpos[:], data.qvel[:] = qpos[world], qvel[world]
        data.ctrl[:] = old = qpos[world, 7:]
        mujoco.mj_forward(model, data)
        for target in targets[:, world]:
            for substep in range(SUBSTEPS):
                data.ctrl[:] = old if substep < delay else target
                mujoco.mj_step(model, data)
            old = target
        np.testing.assert_allclose(physics.qpos[world], data.qpos, atol=1e-9)
        np.testing.assert_allclose(physics.qvel[world], data.qvel, atol=1e-7)
        np.testing.assert_allclose(physics.read().sensors[world], data.sensordata, rtol=1e-4, atol=1e-4)
        assert physics.time[world] == pytest.approx(8 * 0.02)


def test_results_do_not_depend_on_the_number_of_threads(model):
    states = []
    for threads in (1, 2, 3):
        physics = begin(model, threads=threads)
        physics.randomize(
            randomize.model_fields(model, ROBOT, randomize.draw(randomize.Ranges(), ROBOT, np.arange(WORLDS)))
        )
        play(physics, motion(30), DELAYS, start()[0][:, 7:])
        states.append(np.array(physics.batch.state))
    np.testing.assert_array_equal(states[0], states[1])
    np.testing.assert_array_equal(states[0], states[2])


def test_a_world_does_not_depend_on_its_neighbours(model):
    together, targets = begin(model), motion(20)
    qpos, qvel = start()
    play(together, targets, DELAYS, qpos[:, 7:])
    alone = CpuPhysics(model, 1, 1)
    alone.reset(np.ones(1, bool), qpos[3:4], qvel[3:4])
    play(alone, targets[:, 3:4], DELAYS[3:4], qpos[3:4, 7:])
    np.testing.assert_array_equal(alone.batch.state[0], together.batch.state[3])


def test_a_longer_delay_answers_a_new_target_later(model):
    """The old target pulls the joints one way, the new one the other: the later it comes, the less they have turned."""
    physics = CpuPhysics(model, 5, 1)
    qpos = np.tile(start(1)[0], (5, 1))
    qpos[:, 2] = 1.0  # in the air
    physics.reset(np.ones(5, bool), qpos, np.zeros((5, 18)))
    old, new = qpos[:, 7:] - 0.3, qpos[:, 7:] + 0.3
    physics.step(new, SUBSTEPS, old, np.array([0, 4, 8, SUBSTEPS, 3 * SUBSTEPS]))
    turned = (physics.qpos[:, 7:] - qpos[:, 7:])[:, 2::3].mean(-1)  # knees
    assert (np.diff(turned[:4]) < -0.01).all()
    assert turned[0] == pytest.approx(-turned[3], rel=0.1) and turned[0] > 0.05
    assert turned[4] == turned[3]  # more than a whole step is a whole step
    np.testing.assert_array_equal(physics.ctrl[:4], new[:4])  # the new target holds from here on


def test_reset_moves_only_the_masked_worlds(model):
    physics = begin(model)
    play(physics, motion(5), DELAYS, start()[0][:, 7:])
    before = np.array(physics.batch.state)
    mask = np.array([False, True, False, False, True, False])
    qpos, qvel = start()
    physics.reset(mask, qpos, qvel)
    np.testing.assert_array_equal(physics.qpos[mask], qpos[mask])
    np.testing.assert_array_equal(physics.qvel[mask], qvel[mask])
    np.testing.assert_array_equal(physics.ctrl[mask], qpos[mask, 7:])
    assert (physics.time[mask] == 0).all()
    np.testing.assert_array_equal(physics.batch.state[~mask], before[~mask])
    physics.reset(np.zeros(WORLDS, bool), qpos, qvel)
    np.testing.assert_array_equal(physics.batch.state[~mask], before[~mask])


def test_a_reset_world_remembers_nothing_of_its_past(model):
    used, fresh, targets = begin(model), begin(model), motion(10)
    play(used, motion(15, seed=9), DELAYS, start()[0][:, 7:])
    used.reset(np.ones(WORLDS, bool), *start())
    for physics in (used, fresh):
        play(physics, targets, DELAYS, start()[0][:, 7:])
    np.testing.assert_array_equal(used.batch.state, fresh.batch.state)


def test_readings_are_float32_copies_in_the_documented_frames(model):
    physics = CpuPhysics(model, 2, 1)
    qpos, qvel = np.tile(start(1)[0], (2, 1)), np.zeros((2, 18))
    qpos[:, :3], qpos[:, 3:7] = (0, 0, 1), (np.sqrt(0.5), 0, 0, np.sqrt(0.5))  # heading along world y
    qvel[:, :6] = (0, 1.0, 0, 0, 0, 0.5)
    physics.reset(np.ones(2, bool), qpos, qvel)
    reading = physics.read()
    arrays = [reading.qpos, reading.qvel, reading.sensors]
    assert [a.shape for a in arrays] == [(2, 19), (2, 18), (2, model.nsensordata)]
    assert all(a.dtype == np.float32 for a in arrays)
    velocity = model.sensor("velocity").adr[0]
    np.testing.assert_allclose(reading.sensors[:, velocity : velocity + 3], [(1, 0, 0)] * 2, atol=1e-6)
    physics.step(qpos[:, 7:], 5, qpos[:, 7:], np.zeros(2, int))
    np.testing.assert_allclose(reading.qpos, qpos, atol=1e-6)  # an old reading does not change
    np.testing.assert_allclose(physics.read().qpos[:, :2], [(0, 0.01)] * 2, atol=2e-4)  # 1 m/s for 10 ms


# --- pushes and shifts ------------------------------------------------------------------------------------------------


def test_a_push_adds_planar_velocity_and_a_shift_moves_the_base_and_nothing_else(model):
    physics = begin(model)
    play(physics, motion(3), DELAYS, start()[0][:, 7:])
    rng = np.random.default_rng(3)
    for change, field in ((physics.push, physics.qvel), (physics.shift, physics.qpos)):
        before = np.array(physics.batch.state)
        planar, rest = np.array(field[:, :2]), np.array(field[:, 2:])
        by = rng.uniform(-1, 1, (WORLDS, 2))
        by[2] = 0
        change(by)
        np.testing.assert_allclose(field[:, :2], planar + by, atol=1e-12)
        np.testing.assert_array_equal(field[:, 2:], rest)
        assert ((physics.batch.state != before).sum(-1) == [2, 2, 0, 2, 2, 2]).all()


# --- saving -----------------------------------------------------------------------------------------------------------


def test_restoring_continues_bit_for_bit_in_another_engine(model):
    fields = randomize.model_fields(model, ROBOT, randomize.draw(randomize.Ranges(), ROBOT, np.arange(WORLDS)))
    first, second = begin(model), CpuPhysics(model, WORLDS, 2)
    for physics in (first, second):
        physics.randomize(fields)
    play(first, motion(12), DELAYS, start()[0][:, 7:])
    saved = {name: np.array(value) for name, value in first.save().items()}
    at_save = np.array(first.batch.state)
    later = motion(12, seed=5)
    play(first, later, DELAYS, motion(12)[-1])
    second.restore(saved)
    np.testing.assert_array_equal(second.batch.state, at_save)
    play(second, later, DELAYS, motion(12)[-1])
    np.testing.assert_array_equal(first.batch.state, second.batch.state)
    np.testing.assert_array_equal(first.read().sensors, second.read().sensors)
    assert np.abs(first.qpos - at_save[:, 1:20]).max() > 0.01  # it was a real continuation


def test_a_save_is_a_copy(model):
    physics = begin(model)
    saved = physics.save()["state"]
    copy = saved.copy()
    play(physics, motion(2), DELAYS, start()[0][:, 7:])
    np.testing.assert_array_equal(saved, copy)


def test_states_of_another_size_are_refused(model):
    saved = begin(model).save()
    with pytest.raises(InputError, match="saved physics has shape"):
        CpuPhysics(model, 3, 1).restore(saved)


# --- model fields -----------------------------------------------------------------------------------------------------


TOUCHED = {
    "geom_friction", "body_mass", "body_inertia", "body_ipos", "dof_frictionloss", "dof_damping", "actuator_gainprm",
    "actuator_biasprm", "actuator_forcerange",
}  # fmt: skip
DERIVED = {
    "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "dof_length", "bvh_aabb", "actuator_acc0",
    "actuator_length0", "tendon_length0", "tendon_invweight0", "cam_poscom0", "light_poscom0",
}  # fmt: skip
"""Constants that `mj_setConst` computes from masses, inertias and centres of mass."""


def arrays_of(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    values = {name: getattr(model, name) for name in dir(model) if not name.startswith("_")}
    return {name: np.array(value) for name, value in values.items() if isinstance(value, np.ndarray)}


def test_randomising_gives_each_world_its_own_fields_and_only_those(model):
    drawn = randomize.draw(randomize.Ranges(), ROBOT, np.arange(WORLDS))
    physics = begin(model)
    physics.randomize(randomize.model_fields(model, ROBOT, drawn))
    usual = arrays_of(model)
    trunk, foot = model.body("chassis").id, model.geom("foot_front_right").id
    for world in range(WORLDS):
        own = physics.batch.get_model(world)
        changed = {name for name, value in arrays_of(own).items() if not np.array_equal(value, usual[name])}
        assert changed >= TOUCHED
        assert changed <= TOUCHED | DERIVED, changed - TOUCHED - DERIVED
        assert own.body_mass[trunk] == pytest.approx(4.48878 + float(drawn.trunk_mass[world]), rel=1e-6)
        assert own.geom_friction[foot, 0] == pytest.approx(float(drawn.friction[world]), rel=1e-6)
        np.testing.assert_allclose(own.actuator_gainprm[:, 0], 35.0 * drawn.gain[world], rtol=1e-6)
        assert own.body_subtreemass[0] == pytest.approx(own.body_mass.sum())  # derived constants follow
    assert model.body_mass[trunk] == pytest.approx(4.48878)  # the shared model is untouched


def test_randomised_worlds_move_like_models_compiled_with_those_values(model):
    drawn = randomize.draw(randomize.Ranges(), ROBOT, np.arange(WORLDS))
    physics, targets = begin(model), motion(6)
    physics.randomize(randomize.model_fields(model, ROBOT, drawn))
    qpos, qvel = start()
    physics.reset(np.ones(WORLDS, bool), qpos, qvel)
    play(physics, targets, np.zeros(WORLDS, int), qpos[:, 7:])
    for world in (0, WORLDS - 1):
        own = build(ROBOT, Terrain((Block("kerb", (0.5, 0), (0.4, 3), top=0.04),)))
        trunk = own.body("chassis").id
        mass = own.body_mass[trunk] + drawn.trunk_mass[world]
        own.body_inertia[trunk] *= mass / own.body_mass[trunk] * drawn.trunk_inertia[world]
        own.body_mass[trunk] = mass
        own.body_ipos[trunk] += drawn.trunk_com[world]
        for leg in CORNERS:
            for part in ("housing", "thigh", "shank"):
                body = own.body(f"{part}_{leg}").id
                own.body_mass[body] *= drawn.leg_mass[world]
                own.body_inertia[body] *= drawn.leg_mass[world]
            own.geom_friction[own.geom(f"foot_{leg}").id, 0] = drawn.friction[world]
        own.dof_damping[6:], own.dof_frictionloss[6:] = drawn.joint_damping[world], drawn.joint_friction[world]
        for i, gain in enumerate(drawn.gain[world]):
            own.actuator_gainprm[i, 0] = 35.0 * gain
            own.actuator_biasprm[i, 1:3] = (-35.0 * gain, -1.0 * gain)
        own.actuator_forcerange[:] = 18 * drawn.strength[world] * np.array([-1, 1])
        data = mujoco.MjData(own)
        mujoco.mj_setConst(own, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos[world], qvel[world], qpos[world, 7:]
        mujoco.mj_forward(own, data)
        for target in targets[:, world]:
            data.ctrl[:] = target
            for _ in range(SUBSTEPS):
                mujoco.mj_step(own, data)
        # the draw is float32 and contact amplifies its rounding; without any one field this is 1e-3 and more
        np.testing.assert_allclose(physics.qpos[world], data.qpos, atol=2e-5)


def test_fields_of_a_wrong_shape_are_refused(model):
    with pytest.raises(InputError, match="model field body_mass needs shape"):
        begin(model).randomize({"body_mass": np.ones((2, 3))})


def test_an_engine_without_worlds_is_refused(model):
    with pytest.raises(InputError, match="at least 1 world"):
        CpuPhysics(model, 0)


# --- broken numbers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field, entry, value", [("qpos", 2, np.nan), ("qvel", 7, np.nan), ("qvel", 3, 1e12)])
def test_a_diverged_world_stays_visible(model, field, entry, value, tmp_path, monkeypatch):
    """MuJoCo puts a world with a broken state back to its origin and goes on: nobody could tell that it diverged."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its log where it runs
    physics = begin(model)
    getattr(physics, field)[4, entry] = value
    qpos = start()[0]
    physics.step(qpos[:, 7:], SUBSTEPS, qpos[:, 7:], np.zeros(WORLDS, int))
    reading = physics.read()
    broken = ~(np.isfinite(reading.qpos).all(-1) & np.isfinite(reading.qvel).all(-1))
    assert broken.tolist() == [False, False, False, False, True, False]
