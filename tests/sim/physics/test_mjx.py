"""MJX against the C engine: the same motion, the same randomisation, the same environment; and as a Brax environment.

Solvers are given enough iterations to converge: stopped early, as in training, each stops somewhere else, and after a
second the robots of the two engines are about 1 cm apart.
"""

import json
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest
from brax import envs
from brax.envs.wrappers import training

from sim import gait, observation
from sim.course.description import official
from sim.course.scene import SolverOptions, build, course_model, foot_geoms
from sim.course.terrain import Block, Terrain
from sim.envs.batched import BatchedEnv, DivergedError
from sim.envs.brax_env import NAME, BraxWalk
from sim.envs.mjx_batched import MjxBatchedEnv
from sim.errors import InputError
from sim.physics.cpu import CpuPhysics
from sim.physics.mjx import AWAY, Engine, FootGround, MjxPhysics
from sim.robots.description import default_robot
from sim.tasks import randomization as randomize
from sim.tasks.events import Pushes
from sim.tasks.task import Task

ROBOT = default_robot()
CONVERGED = SolverOptions(timestep=0.002, iterations=50, ls_iterations=50)
COARSE = SolverOptions(timestep=0.004, iterations=20, ls_iterations=20)
WORLDS = 6
TASK = Task(pushes=Pushes(speed=0.0))


def standing(worlds: int = WORLDS) -> tuple[np.ndarray, np.ndarray]:
    """Every world in the same state, a little above the floor."""
    qpos = np.array([0, 0, ROBOT.standing_height + 0.01, 1, 0, 0, 0, *ROBOT.default_pose])
    return np.tile(qpos, (worlds, 1)), np.zeros((worlds, 18))


def trot(steps: int) -> np.ndarray:
    """Joint targets `[steps, WORLDS, 12]` of a robot that trots by its clock alone, rad."""
    phase, command = np.zeros(WORLDS, np.float32), np.tile(np.array([0.5, 0, 0], np.float32), (WORLDS, 1))
    clock, action, relief = gait.Gait(), np.zeros((WORLDS, 12), np.float32), np.zeros(WORLDS, np.float32)
    targets = []
    for _ in range(steps):
        targets.append(observation.joint_targets(np, ROBOT, clock, action, phase, command, relief))
        phase = gait.advance(np, clock, phase, command, ROBOT.control_period)
    return np.stack(targets)


# --- both engines -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model() -> mujoco.MjModel:
    return build(ROBOT, Terrain(), collision="feet", options=CONVERGED)


@pytest.fixture(scope="module")
def drawn(model) -> tuple[randomize.Draw, dict[str, np.ndarray]]:
    """Random physics in every world but the first."""
    draw = randomize.draw(randomize.Ranges(), ROBOT, np.arange(WORLDS))
    fields = randomize.model_fields(model, ROBOT, draw)
    for name, values in fields.items():
        values[0] = getattr(model, name)
    return draw, fields


@pytest.fixture(scope="module")
def engines(model, drawn) -> dict[str, Any]:
    """Both engines after the same call of `randomize`."""
    both = {"cpu": CpuPhysics(model, WORLDS, 2), "mjx": MjxPhysics(model, WORLDS)}
    for physics in both.values():
        physics.randomize(drawn[1])
    return both


@pytest.fixture(scope="module")
def second(engines, drawn) -> dict[str, list]:
    """One second of open-loop trot from the same state on both engines: readings after the reset and each step."""
    delay = drawn[0].delay(CONVERGED.timestep)
    readings = {}
    for name, physics in engines.items():
        qpos, qvel = standing()
        physics.reset(np.ones(WORLDS, bool), qpos, qvel)
        readings[name], previous = [physics.read()], qpos[:, 7:]
        for targets in trot(50):
            physics.step(targets, 10, previous, delay)
            readings[name].append(physics.read())
            previous = targets
    return readings


def test_both_engines_move_alike_for_a_second(second):
    """Measured over all worlds and steps: 2 um of the base, 0.014 mrad, 0.12 mm/s; about 15 times that is allowed."""
    for cpu, mjx in zip(second["cpu"], second["mjx"], strict=True):
        np.testing.assert_allclose(mjx.qpos[:, :3], cpu.qpos[:, :3], atol=3e-5)
        np.testing.assert_allclose(mjx.qpos[:, 3:], cpu.qpos[:, 3:], atol=2e-4)
        np.testing.assert_allclose(mjx.qvel[:, :6], cpu.qvel[:, :6], atol=2e-3)
        np.testing.assert_allclose(mjx.qvel[:, 6:], cpu.qvel[:, 6:], atol=1e-2)
    assert np.abs(second["cpu"][-1].qpos[:, :2]).max() > 0.01  # it did move


def test_both_engines_feel_alike(second):
    """Measured: quaternion 7e-6, gyro 0.14 mrad/s; touch 0.003 N in 99 of 100 steps, 0.11 N at the worst touchdown."""
    for cpu, mjx in zip(second["cpu"], second["mjx"], strict=True):
        np.testing.assert_allclose(mjx.sensors[:, :4], cpu.sensors[:, :4], atol=1e-4)
        np.testing.assert_allclose(mjx.sensors[:, 4:7], cpu.sensors[:, 4:7], atol=2e-3)
    touch = {name: np.stack([reading.sensors[:, 13:17] for reading in rows]) for name, rows in second.items()}
    assert np.quantile(np.abs(touch["mjx"] - touch["cpu"]), 0.99) < 0.05
    assert touch["mjx"].max() > 20.0


def test_randomisation_makes_the_same_worlds_differ_alike(second):
    """All worlds start alike and get the same targets: what differs is their own physics, and it does so equally."""
    for rows in second.values():
        apart = np.abs(rows[-1].qpos[1:] - rows[-1].qpos[0]).max(1)
        assert (apart > 0.01).all()


def test_fields_and_what_follows_from_them_are_those_of_the_c_engine(engines, drawn, model):
    fields = engines["mjx"].fields
    for name, values in drawn[1].items():
        np.testing.assert_allclose(fields[name], values, rtol=1e-6)
    heavier = fields["body_subtreemass"][:, model.body("chassis").id]
    np.testing.assert_allclose(heavier, drawn[1]["body_mass"].sum(1), rtol=1e-5)
    np.testing.assert_allclose(fields["dof_invweight0"][0], model.dof_invweight0, rtol=1e-5)
    assert (np.ptp(fields["dof_invweight0"], axis=0)[:3] > 0).all()


def test_reset_moves_only_the_masked_worlds(engines, second):
    mjx = engines["mjx"]
    before = mjx.read()
    mask = np.arange(WORLDS) == 2
    qpos, qvel = standing()
    mjx.reset(np.zeros(WORLDS, bool), qpos, qvel)
    mjx.reset(mask, qpos, qvel)
    after = mjx.read()
    np.testing.assert_array_equal(after.qpos[~mask], before.qpos[~mask])
    np.testing.assert_array_equal(after.sensors[~mask], before.sensors[~mask])
    np.testing.assert_allclose(after.qpos[mask], qpos[mask], rtol=1e-6)


def test_a_push_and_a_shift_move_the_base_and_nothing_else(engines, second):
    mjx = engines["mjx"]
    before = mjx.read()
    offset = np.arange(2 * WORLDS, dtype=np.float32).reshape(WORLDS, 2)
    mjx.shift(offset)
    mjx.push(-offset)
    after = mjx.read()
    np.testing.assert_allclose(after.qpos[:, :2] - before.qpos[:, :2], offset, atol=1e-5)
    np.testing.assert_allclose(after.qvel[:, :2] - before.qvel[:, :2], -offset, atol=1e-5)
    np.testing.assert_array_equal(after.qpos[:, 2:], before.qpos[:, 2:])
    np.testing.assert_array_equal(after.qvel[:, 2:], before.qvel[:, 2:])


def test_restoring_physics_continues_bit_for_bit(engines, second):
    mjx = engines["mjx"]
    saved = mjx.save()
    futures = []
    for _ in range(2):
        mjx.restore(saved)
        for targets in trot(3):
            mjx.step(targets, 10, targets, np.zeros(WORLDS, int))
        futures.append(mjx.read())
    for a, b in zip(*futures, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="saved physics 'qpos'"):
        mjx.restore({**saved, "qpos": saved["qpos"][1:]})
    with pytest.raises(InputError, match="'sensors' is missing"):
        mjx.restore({name: value for name, value in saved.items() if name != "sensors"})


# --- what MJX cannot do -----------------------------------------------------------------------------------------------


def test_fields_that_mjx_cannot_vary_are_refused(engines):
    mjx = engines["mjx"]
    with pytest.raises(InputError, match="needs shape"):
        mjx.randomize({"body_mass": np.ones((WORLDS, 3))})
    for name in ("geom_type", "no_such_field"):
        with pytest.raises(InputError, match=f"'{name}'"):
            mjx.randomize({name: np.ones((WORLDS, 3))})


def test_dry_friction_cannot_appear_in_smooth_joints(model):
    engine = Engine(model)
    with pytest.raises(InputError, match="dry friction"):
        engine.expand({"dof_frictionloss": np.full((1, 18), 0.1)}, 1)


def test_scenes_beyond_mjx_are_refused_in_one_sentence(model):
    with pytest.raises(InputError, match="at least 1 world"):
        MjxPhysics(model, 0)
    with pytest.raises(InputError, match="pairs of geoms"):
        MjxPhysics(build(ROBOT, TASK.ground.land.terrain, collision="feet"), 1)
    with pytest.raises(InputError, match="MJX cannot run this scene|pairs of geoms"):
        MjxPhysics(course_model(official(), ROBOT), 1)


def test_cylinders_are_refused_by_name():
    robot = mujoco.MjSpec()
    robot.worldbody.add_geom(name="pillar", type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[0.1, 1, 0])
    ball = robot.worldbody.add_body(pos=[1, 0, 0])
    ball.add_freejoint()
    ball.add_geom(type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.1, 0, 0])
    with pytest.raises(InputError, match="'pillar' is a cylinder"):
        Engine(robot.compile())


# --- the ground under each foot ---------------------------------------------------------------------------------------


def test_each_foot_is_given_the_boxes_that_make_its_ground():
    """Within a foot's travel of a control step, the listed boxes alone give the height of the whole terrain."""
    ground = FootGround(ROBOT, TASK.ground.land.terrain, COARSE)
    pieces = TASK.ground.land.terrain.pieces
    rng = np.random.default_rng(0)
    origins = TASK.ground.land.origins.reshape(-1, 2)
    feet = np.repeat(origins, 20, 0) + rng.uniform(-3.2, 3.2, (20 * len(origins), 2))
    angle = rng.uniform(0, 2 * np.pi, (8, len(feet)))
    there = feet + 0.13 * np.stack([np.cos(angle), np.sin(angle)], -1)
    whole = TASK.ground.land.terrain.height(there[..., 0], there[..., 1])
    assert (whole > 0).mean() > 0.3
    for i, boxes in enumerate(ground.near(np, feet)):
        here = Terrain(tuple(pieces[box] for box in boxes if box < len(pieces)))
        np.testing.assert_allclose(here.height(there[:, i, 0], there[:, i, 1]), whole[:, i], atol=1e-9)


def test_far_from_everything_the_boxes_wait_below_the_floor():
    terrain = Terrain((Block("kerb", (0, 0), (0.4, 0.4), top=0.1),))
    ground = FootGround(ROBOT, terrain, COARSE)
    engine = Engine(ground.model)
    feet = jnp.asarray([[0.0, 0.0], [0.3, 0.0], [2.0, 0.0], [-500.0, 500.0]])
    placed = ground.place(engine.base, feet).geom_pos[ground.slot_geoms].reshape(4, -1, 3)
    assert placed[0, 0].tolist() == placed[1, 0].tolist() == pytest.approx([0, 0, 0.05])
    assert (np.asarray(placed)[2:, :, 2] == -AWAY).all() and (np.asarray(placed)[:2, 1:, 2] == -AWAY).all()


def test_feet_start_where_the_standing_robot_has_them():
    ground = FootGround(ROBOT, Terrain(), COARSE)
    model, data = ground.model, mujoco.MjData(ground.model)
    data.qpos[:] = standing(1)[0][0]
    data.qpos[:2], data.qpos[3], data.qpos[6] = (3.0, -2.0), np.cos(0.6), np.sin(0.6)
    mujoco.mj_kinematics(model, data)
    feet = ground.start_feet(np, np.array(data.qpos))
    np.testing.assert_allclose(feet, data.geom_xpos[foot_geoms(model, ROBOT), :2], atol=1e-5)


# --- the batched environment ------------------------------------------------------------------------------------------

ENV_WORLDS = 24


@pytest.fixture(scope="module")
def env() -> MjxBatchedEnv:
    return MjxBatchedEnv(TASK, ENV_WORLDS, seed=5, options=COARSE)


@pytest.fixture(scope="module")
def twin(env) -> BatchedEnv:
    """The same worlds on the C engine, walking about on their patches; no command changes, no episode ends."""
    cpu = BatchedEnv(TASK, ENV_WORLDS, seed=5, options=COARSE)
    shanks = [cpu.physics.model.geom(i).name.startswith("shank") for i in range(cpu.physics.model.ngeom)]
    contype = np.where(shanks, 0, cpu.physics.model.geom_contype)  # MJX collides feet alone
    cpu.physics.randomize({"geom_contype": np.repeat(contype[None], ENV_WORLDS, 0)})
    forever = np.full(ENV_WORLDS, 1e4, np.float32)
    cpu.state = cpu.state._replace(command_life=forever, steps=np.zeros(ENV_WORLDS, np.float32))
    for action in actions(10, seed=1):
        cpu.step(action)
    return cpu


def actions(steps: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.3, (steps, ENV_WORLDS, 12)).astype(np.float32)


def carry_over(cpu: BatchedEnv, mjx: MjxBatchedEnv) -> None:
    """Puts the C engine's worlds into the MJX environment."""
    arrays, values = mjx.save()
    arrays |= {f"task.{name}": np.asarray(value) for name, value in cpu.state._asdict().items()}
    arrays |= {
        "physics.qpos": np.asarray(cpu.physics.qpos, np.float32),
        "physics.qvel": np.asarray(cpu.physics.qvel, np.float32),
        "physics.warmstart": np.asarray(cpu.physics.warmstart, np.float32),
        "physics.sensors": np.asarray(cpu.physics.sensordata, np.float32),
        "feet": np.asarray(cpu.geom_xpos[:, cpu.feet, :2], np.float32),
        "kind": cpu.kind,
    }
    single = {name: a.astype(np.float32) if a.dtype == np.float64 else a for name, a in arrays.items()}
    mjx.restore({name: a.astype(np.int32) if a.dtype == np.int64 else a for name, a in single.items()}, values)


def test_both_environments_draw_the_same_worlds(env, twin):
    np.testing.assert_array_equal(env.kind, twin.kind)
    np.testing.assert_array_equal(env.drawn.friction, twin.drawn.friction)


def test_both_environments_observe_and_move_alike_on_every_ground(env, twin):
    """Measured after ten steps: all 24 worlds within 0.03 mm or mrad; an edge hit by a hair may set a few apart."""
    carry_over(twin, env)
    for mjx, cpu in zip(env.observe(), twin.observe(), strict=True):
        np.testing.assert_allclose(mjx, cpu, atol=2e-4)
    whole = np.ones(ENV_WORLDS, bool)
    for action in actions(10):
        cpu, mjx = twin.step(action), env.step(action)
        whole &= (cpu.fallen + mjx.fallen) == 0
        apart = np.abs(np.asarray(env.world.physics.qpos) - twin.physics.qpos).max(1)
        rewards = np.abs(mjx.reward - cpu.reward)
    assert set(twin.kind[whole]) == set(range(len(TASK.ground.kinds)))
    assert np.quantile(apart[whole], 0.85) < 3e-4
    assert np.quantile(rewards[whole], 0.85) < 1e-4


def test_a_step_has_the_contract_of_the_cpu_environment(env, twin):
    action = actions(1)[0]
    here, there = env.step(action), twin.step(action)
    for name, value in there._asdict().items():
        other = getattr(here, name)
        if isinstance(value, dict):
            assert {k: np.shape(v) for k, v in other.items()} == {k: np.shape(v) for k, v in value.items()}
        else:
            assert (other.shape, other.dtype) == (value.shape, np.float32), name
    assert env.state.level.shape == env.kind.shape == (ENV_WORLDS,)


def test_restoring_the_environment_continues_bit_for_bit(env):
    arrays, values = env.save()
    values = json.loads(json.dumps(values))
    arrays = {name: np.array(array) for name, array in arrays.items()}
    futures = []
    for _ in range(2):
        env.restore(arrays, values)
        futures.append([env.step(action) for action in actions(4)])
    for a, b in zip(*futures, strict=True):
        jax.tree.map(np.testing.assert_array_equal, a, b)
    with pytest.raises(InputError, match="saved MJX worlds"):
        env.restore({**arrays, "physics.qpos": arrays["physics.qpos"][:3]}, values)


def test_fallen_worlds_begin_again_one_level_down(env):
    arrays, values = env.save()
    fallen = np.arange(ENV_WORLDS) == 4
    qpos, level = np.array(arrays["physics.qpos"]), np.full(ENV_WORLDS, 3, np.float32)
    qpos[fallen, 3:7] = (0.0, 1.0, 0.0, 0.0)  # on its back
    env.restore({**arrays, "physics.qpos": qpos, "task.level": level}, values)
    out = env.step(actions(1)[0])
    assert out.fallen[fallen] == 1 and env.state.level[fallen] == 2
    assert env.state.steps[fallen] == 0 and np.asarray(env.world.physics.qpos)[fallen, 3:7] != pytest.approx(
        qpos[4, 3:7]
    )
    np.testing.assert_allclose(env.observe()[0][fallen], out.observation[fallen], atol=1e-5)
    assert (np.asarray(env.state.steps)[out.fallen == 0] > 0).all()


def test_a_broken_action_is_named_with_its_world(env):
    arrays, values = env.save()
    action = actions(1)[0]
    action[7, 3] = np.nan
    with pytest.raises(DivergedError, match="'action'") as caught:
        env.step(action)
    assert caught.value.worlds.tolist() == [7]
    env.restore(arrays, values)


def test_a_control_period_that_is_no_multiple_of_the_physics_step_is_refused():
    with pytest.raises(InputError, match="multiple"):
        MjxBatchedEnv(TASK, 1, options=SolverOptions(timestep=0.003))


# --- Brax -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def brax_runs() -> tuple[BraxWalk, list]:
    """Six steps in four randomised worlds under Brax's own wrappers, episodes of five steps."""
    env: Any = envs.get_environment(NAME)
    keys = jax.random.split(jax.random.PRNGKey(0), 4)
    draw = env.randomization()
    wrapped = training.wrap(env, episode_length=5, randomization_fn=lambda model: draw(model, keys))
    step = jax.jit(wrapped.step)
    states = [jax.jit(wrapped.reset)(keys)]
    for _ in range(6):
        states.append(step(states[-1], 0.1 * jnp.ones((4, 12))))
    return env, jax.device_get(states)


def test_brax_wrappers_drive_the_walk(brax_runs):
    env, states = brax_runs
    for state in states:
        assert {name: value.shape[1:] for name, value in state.obs.items()} == env.observation_size
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.obs))
        assert state.reward.shape == state.done.shape == (4,)
    assert np.isfinite(states[3].reward).all() and states[3].reward.max() > 0
    assert {"velocity_error", "yaw_error", "reward/linear_tracking"} <= set(states[3].metrics)


def test_brax_episodes_end_and_begin_again(brax_runs):
    _, states = brax_runs
    ended, following = states[5], states[6]
    assert (ended.done == 1).all() and (ended.info["truncation"] == 1).all()
    np.testing.assert_array_equal(ended.obs["state"], states[0].obs["state"])
    assert (following.info["steps"] == 1).all() and (following.pipeline_state.task.steps == 1).all()


def test_brax_randomisation_gives_each_world_its_own_model(brax_runs):
    env, _ = brax_runs
    batched, axes = env.randomization()(env.sys, jax.random.split(jax.random.PRNGKey(3), 4))
    assert len(np.unique(batched.geom_friction[:, env.dynamics.ground.feet[0], 0])) == 4
    assert axes.geom_friction == 0 and axes.geom_solref is None
    again, _ = env.randomization()(env.sys, jax.random.split(jax.random.PRNGKey(3), 4))
    np.testing.assert_array_equal(batched.body_mass, again.body_mass)


def test_a_single_brax_world_keeps_its_shapes(brax_runs):
    """`step` gives back what it was given: the same tree of shapes and types, so that it can be scanned over."""
    env, _ = brax_runs
    before = jax.eval_shape(env.reset, jax.random.PRNGKey(0))
    after = jax.eval_shape(env.step, before, jax.ShapeDtypeStruct((12,), jnp.float32))
    shapes = [jax.tree.map(lambda x: (x.shape, str(x.dtype)), tree) for tree in (before, after)]
    assert shapes[0] == shapes[1]


def test_braxs_evaluation_can_scan_over_the_walk(brax_runs):
    env, _ = brax_runs
    wrapped = training.EvalWrapper(training.wrap(env, episode_length=5))

    def episode(keys: jax.Array) -> Any:
        def step(state: Any, _: Any) -> tuple[Any, None]:
            return wrapped.step(state, jnp.zeros((2, 12))), None

        return jax.lax.scan(step, wrapped.reset(keys), None, length=3)[0]

    final: Any = jax.eval_shape(episode, jax.random.split(jax.random.PRNGKey(0), 2))
    assert final.info["eval_metrics"].episode_metrics["velocity_error"].shape == (2,)
