"""Drake against MuJoCo: the same masses, the same motion in the air, the same friction, a policy that walks."""

import mujoco
import numpy as np
import pytest

pytest.importorskip("pydrake", reason="needs the sim2sim extra")

from policies.bundle.reader import Bundle, FixedBatch, Policy
from policies.bundle.shipped import bundle_file
from sim.course.description import official
from sim.course.scene import build, course_model, deck_geoms
from sim.course.terrain import Ramp, Terrain
from sim.envs.variation import Variation
from sim.envs.worlds import SimulatedRobots, flat
from sim.errors import InputError
from sim.physics.cpu import CpuPhysics
from sim.physics.drake import DrakePhysics, from_drake, to_drake
from sim.robots.description import Robot, robot_by_name
from sim.tasks import randomization as randomize

ROBOTS = ("barkour_v0", "unitree_go2")
SUBSTEPS = 10
ALL = np.ones(1, bool)
NOW = np.zeros(1, int)


@pytest.fixture(scope="module", params=ROBOTS)
def robot(request) -> Robot:
    return robot_by_name(request.param)


def poses(robot: Robot, model: mujoco.MjModel, count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Any attitude, any joint angles, any speeds."""
    rng = np.random.default_rng(3)
    out = []
    for _ in range(count):
        quat = rng.normal(size=4)
        joints = rng.uniform(robot.joint_lower, robot.joint_upper)
        qpos = np.concatenate([rng.normal(size=3), quat / np.linalg.norm(quat), joints])
        out.append((qpos, rng.normal(size=model.nv)))
    return out


def in_mujoco_terms(qpos: np.ndarray, nv: int) -> np.ndarray:
    """The matrix that makes Drake's speeds of MuJoCo's: angular velocity in the world first."""
    turn = np.zeros(9)
    mujoco.mju_quat2Mat(turn, qpos[3:7])
    out = np.eye(nv)
    out[:6, :6] = 0.0
    out[:3, 3:6], out[3:6, :3] = turn.reshape(3, 3), np.eye(3)
    return out


def test_mass_matrix_and_gravity_are_mujocos_at_random_poses(robot):
    """Of every world, with what was drawn for it: masses, inertias, centres of mass, rotors."""
    model = build(robot, Terrain())
    drawn = randomize.draw(randomize.Ranges(), robot, np.array([5]))
    fields = randomize.model_fields(model, robot, drawn)
    drake = DrakePhysics(model, 1)
    drake.randomize(fields)
    for name in ("body_mass", "body_inertia", "body_ipos"):
        getattr(model, name)[:] = fields[name][0]
    mujoco.mj_setConst(model, mujoco.MjData(model))
    data, world = mujoco.MjData(model), drake.plants[0]
    for qpos, _ in poses(robot, model, 8):
        data.qpos[:], data.qvel[:] = qpos, 0.0
        mujoco.mj_forward(model, data)
        theirs = np.zeros((model.nv, model.nv))
        mujoco.mj_fullM(model, data, theirs)
        world.set_motion(qpos, np.zeros(model.nv))
        terms = in_mujoco_terms(qpos, model.nv)
        ours = terms.T @ world.plant.CalcMassMatrix(world.context) @ terms
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
        weight = -terms.T @ world.plant.CalcGravityGeneralizedForces(world.context)
        np.testing.assert_allclose(weight, data.qfrc_bias, atol=1e-5)


def test_a_state_survives_the_way_to_drake_and_back(robot):
    model = build(robot, Terrain())
    for qpos, qvel in poses(robot, model, 4):
        back = from_drake(to_drake(qpos, qvel), model.nq)
        np.testing.assert_allclose(back[0], qpos, atol=1e-12)
        np.testing.assert_allclose(back[1], qvel, atol=1e-12)


@pytest.mark.parametrize("friction", [0.0, None], ids=["without dry friction", "with it"])
def test_a_limp_leg_swings_as_in_mujoco(robot, friction):
    """In the air, without torque: inertia, rotors, damping and dry friction of the joints alone decide."""
    model = build(robot, Terrain())
    model.actuator_gainprm[:], model.actuator_biasprm[:] = 0.0, 0.0
    if friction is not None:
        model.dof_frictionloss[:] = friction
    qpos = np.array([0.0, 0.0, 3.0, 1.0, 0.0, 0.0, 0.0, *robot.default_pose])[None]
    qvel = np.zeros((1, model.nv))
    qvel[0, 6 + robot.leg_joints[0]] = [0.5, -1.0, 2.0]
    ends = []
    for physics in (CpuPhysics(model, 1, 1), DrakePhysics(model, 1)):
        physics.reset(ALL, qpos, qvel)
        physics.step(qpos[:, 7:], 100, qpos[:, 7:], NOW)
        ends.append((np.array(physics.qpos[0]), np.array(physics.qvel[0])))
    moved = np.abs(ends[0][0] - qpos[0])[7:].max()
    assert moved > 0.05
    np.testing.assert_allclose(ends[1][0], ends[0][0], atol=0.04 * moved)
    still = np.setdiff1d(np.arange(robot.joints), robot.leg_joints[0])
    if friction is None:  # the base turns a little against the leg; stuck joints go with it in both
        assert np.abs(ends[1][1][6:][still]).max() < 0.05 and np.abs(ends[0][1][6:][still]).max() < 0.05


def test_sensors_are_mujocos_while_a_robot_stands(robot):
    model = build(robot, Terrain())
    qpos = np.array([0, 0, robot.standing_height + 0.005, 1, 0, 0, 0, *robot.default_pose])[None]
    seen = []
    for physics in (CpuPhysics(model, 1, 1), DrakePhysics(model, 1)):
        physics.reset(ALL, qpos, np.zeros((1, model.nv)))
        for _ in range(50):
            physics.step(qpos[:, 7:], SUBSTEPS, qpos[:, 7:], NOW)
        seen.append((np.array(physics.sensordata[0]), float(physics.qpos[0, 2])))
    (theirs, height), (ours, own) = seen
    assert own == pytest.approx(height, abs=0.01)
    for name, away in (("orientation", 0.01), ("gyro", 0.02), ("accelerometer", 0.2), ("velocity", 0.01)):
        at = int(model.sensor(name).adr[0])
        size = int(model.sensor(name).dim[0])
        np.testing.assert_allclose(ours[at : at + size], theirs[at : at + size], atol=away, err_msg=name)
    feet = [i for i in range(model.nsensor) if model.sensor(i).type[0] == mujoco.mjtSensor.mjSENS_TOUCH]
    at = np.array([int(model.sensor(i).adr[0]) for i in feet])
    np.testing.assert_allclose(ours[at], theirs[at], rtol=0.1)
    assert ours[at].sum() == pytest.approx(9.81 * model.body_subtreemass[1], rel=0.03)


@pytest.mark.parametrize(("mu", "slides"), [(0.7, False), (0.45, True)])
def test_friction_of_a_deck_is_the_decks_own(mu, slides):
    """A slope of 30 degrees holds feet above 0.58, whatever the feet's own friction; the trunk is held too."""
    robot = robot_by_name("barkour_v0")
    deck = Ramp("deck", (0.0, 0.0), (4.0, 2.0), z_start=0.0, z_end=4.0 * np.tan(np.pi / 6), deck=True)
    model = build(robot, Terrain((deck,)))
    model.geom_friction[deck_geoms(model), 0] = mu
    tilt = np.array([np.cos(np.pi / 12), 0.0, -np.sin(np.pi / 12), 0.0])
    up = np.array([-0.5, 0.0, np.cos(np.pi / 6)])
    middle = np.array([0.0, 0.0, 2.0 * np.tan(np.pi / 6)]) + up * 0.1
    physics = DrakePhysics(model, 1)
    qpos = np.concatenate([middle, tilt, robot.folded_pose])[None]
    physics.reset(ALL, qpos, np.zeros((1, model.nv)))
    for _ in range(40):
        physics.step(qpos[:, 7:], SUBSTEPS, qpos[:, 7:], NOW)
    gone = abs(float(physics.qvel[0, 0]))
    assert (gone > 0.3) == slides, gone


def test_a_robots_parts_pass_through_each_other_and_touch_the_world():
    robot = robot_by_name("barkour_v0")
    physics = DrakePhysics(build(robot, Terrain()), 1)
    qpos = np.array([0, 0, 1.0, 1, 0, 0, 0, *robot.folded_pose])[None]
    physics.reset(ALL, qpos, np.zeros((1, physics.model.nv)))
    physics.step(qpos[:, 7:], 1, qpos[:, 7:], NOW)
    assert not physics.plants[0].contacts()
    down = np.array([0, 0, 0.05, 0, 1, 0, 0, *robot.folded_pose])[None]  # on its back
    physics.reset(ALL, down, np.zeros((1, physics.model.nv)))
    physics.step(down[:, 7:], 2, down[:, 7:], NOW)
    at = [int(physics.model.sensor(part).adr[0]) for part in robot.trunk_geoms]
    assert physics.sensordata[0, at].any()


def test_motors_lose_torque_with_speed_and_worlds_differ():
    robot = robot_by_name("barkour_v0")
    model = build(robot, Terrain())
    physics = DrakePhysics(model, 2)
    peak, speed = np.full((2, robot.joints), 5.0), np.full((2, robot.joints), 20.0)
    peak[1] = 2.0
    physics.motors(peak, speed)
    qpos = np.tile([0, 0, 2.0, 1, 0, 0, 0, *robot.default_pose], (2, 1))
    qvel = np.zeros((2, model.nv))
    qvel[:, 6] = 20.0
    physics.reset(np.ones(2, bool), qpos, qvel)
    physics.step(qpos[:, 7:] + 1.0, 1, qpos[:, 7:], np.zeros(2, int))
    assert physics.force[0, 1] == 5.0 and physics.force[1, 1] == 2.0
    assert abs(physics.force[0, 0]) < 1e-9, "no driving torque at the no-load speed"


def test_what_drake_is_not_given_is_said():
    robot = robot_by_name("barkour_v0")
    physics = DrakePhysics(build(robot, Terrain()), 1)
    with pytest.raises(InputError, match="geom_size"):
        physics.randomize({"geom_size": physics.model.geom_size[None]})
    with pytest.raises(InputError, match="shape"):
        physics.randomize({"body_mass": physics.model.body_mass})
    physics.step(robot.default_pose[None], 1, robot.default_pose[None], NOW)
    with pytest.raises(InputError, match="first step"):
        physics.randomize({"body_mass": physics.model.body_mass[None]})


def test_a_course_is_built_whole():
    """Every geom of the course that touches anything stands in Drake, once for each kind of the robot's colliders."""
    robot = robot_by_name("barkour_v0")
    model = course_model(official(), robot)
    world = DrakePhysics(model, 1).plants[0]
    ids = list(world.geoms.values())
    touching = np.flatnonzero(model.geom_contype | model.geom_conaffinity)
    assert set(ids) == set(touching.tolist())
    assert all(ids.count(g) == (2 if model.geom_bodyid[g] == 0 else 1) for g in touching)


def walk(robot: Robot, engine: str, seconds: float, command: tuple[float, float, float]) -> tuple[float, bool]:
    """Mean error of the planar velocity over the second half (m/s), and whether the robot fell."""
    variation = Variation(engine)  # type: ignore[arg-type]
    robots = SimulatedRobots(robot, build(robot, Terrain(), options=variation.solver), [1], variation=variation)
    robots.place(*(np.zeros(1) for _ in range(3)), flat)
    policy = Policy(FixedBatch(Bundle.load(bundle_file("walk", robot.name))), 1)  # type: ignore[arg-type]
    asked, fallen, errors = np.array([command], np.float32), False, []
    count = round(seconds / robot.control_period)
    for k in range(count):
        robots.step(lambda sensors, heights: policy.step(sensors, asked, heights(policy.bundle.layout)))
        fallen |= bool(robots.fallen()[0])
        if k >= count // 2:
            errors.append(np.linalg.norm(robots.velocity[0, :2] - asked[0, :2]))
    return float(np.mean(errors)), fallen


def test_a_walker_walks_in_drake_as_in_mujoco(robot):
    command = (1.0, 0.0, 0.3)
    theirs, fell = walk(robot, "cpu", 5.0, command)
    ours, fell_too = walk(robot, "drake", 5.0, command)
    assert not fell and not fell_too
    assert ours < 1.6 * theirs + 0.02
