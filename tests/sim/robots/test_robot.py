"""Our robot model against the Barkour v0 model that the mujoco-mjx wheel carries, and against its description."""

from importlib.metadata import files
from pathlib import Path

import mujoco
import numpy as np
import pytest

from sim.course.scene import build, foot_forces, robot_spec
from sim.course.terrain import Terrain
from sim.errors import InputError
from sim.robots.description import default_robot, robot_by_name
from sim.robots.gaits import CORNERS

ROBOT = default_robot()


def published_file() -> Path:
    """`barkour_v0_mjx.xml` with its meshes, in the installed mujoco-mjx."""
    found = [f for f in files("mujoco-mjx") or () if f.name == "barkour_v0_mjx.xml"]
    assert found, "the installed mujoco-mjx carries no Barkour v0"
    return Path(str(found[0].locate()))


class Model:
    """A compiled robot with lookups by joint name, so that two models of different order can be compared."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.m, self.d = model, mujoco.MjData(model)
        self.joints = [model.joint(name).id for name in ROBOT.joint_names]
        self.qpos = [int(model.jnt_qposadr[j]) for j in self.joints]
        self.dofs = [*range(6), *(int(model.jnt_dofadr[j]) for j in self.joints)]
        self.bodies = [model.body("chassis").id, *(int(model.jnt_bodyid[j]) for j in self.joints)]

    def place(self, base: np.ndarray, angles: np.ndarray) -> None:
        """Base pose `[7]` and joint angles `[12]` in the description's order."""
        self.d.qpos[:7], self.d.qpos[self.qpos] = base, angles
        self.d.qvel[:] = 0
        mujoco.mj_forward(self.m, self.d)

    def feet(self) -> np.ndarray:
        """Centres of the four foot spheres, `[4, 3]`."""
        out = []
        for leg in CORNERS:
            body = self.m.jnt_bodyid[self.m.joint(f"knee_{leg}").id]
            spheres = [
                g
                for g in range(self.m.ngeom)
                if self.m.geom_bodyid[g] == body and self.m.geom_type[g] == mujoco.mjtGeom.mjGEOM_SPHERE
            ]
            assert len(spheres) == 1
            out.append(self.d.geom_xpos[spheres[0]])
        return np.array(out)

    def inertias(self) -> np.ndarray:
        """Inertia matrices of all bodies about their centres of mass, in the world's axes, `[13, 3, 3]`."""
        turned = [self.d.ximat[b].reshape(3, 3) for b in self.bodies]
        return np.array([r @ np.diag(self.m.body_inertia[b]) @ r.T for b, r in zip(self.bodies, turned, strict=True)])

    def mass_matrix(self) -> np.ndarray:
        """Joint-space inertia, rows and columns in the description's order, `[18, 18]`."""
        full = np.zeros((self.m.nv, self.m.nv))
        mujoco.mj_fullM(self.m, self.d, full)
        return full[np.ix_(self.dofs, self.dofs)]


@pytest.fixture(scope="module")
def ours() -> Model:
    return Model(mujoco.MjModel.from_xml_path(str(ROBOT.mjcf)))


@pytest.fixture(scope="module")
def published() -> Model:
    return Model(mujoco.MjModel.from_xml_path(str(published_file())))


LEVEL = np.array([0, 0, 0, 1.0, 0, 0, 0])


def random_poses(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Base poses anywhere and joint angles inside the published ranges."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        quat = rng.standard_normal(4)
        base = np.concatenate([rng.uniform(-2, 2, 3), quat / np.linalg.norm(quat)])
        out.append((base, rng.uniform(ROBOT.joint_lower, ROBOT.joint_upper)))
    return out


# --- against the published model --------------------------------------------------------------------------------------


def test_masses_are_the_published_ones(ours, published):
    np.testing.assert_allclose(ours.m.body_mass[ours.bodies], published.m.body_mass[published.bodies], rtol=1e-6)
    assert ours.m.body_subtreemass[0] == pytest.approx(published.m.body_subtreemass[0], rel=1e-6)
    assert ours.m.body_subtreemass[0] == pytest.approx(11.487, abs=1e-3)
    assert ours.m.nbody == published.m.nbody == 14  # no mass hides in another body


def test_inertias_and_centres_of_mass_are_the_published_ones(ours, published):
    for model in (ours, published):
        model.place(LEVEL, np.zeros(12))
    np.testing.assert_allclose(ours.d.xipos[ours.bodies], published.d.xipos[published.bodies], atol=1e-7)
    np.testing.assert_allclose(ours.inertias(), published.inertias(), atol=2e-9)


def test_body_frames_are_parallel_to_the_chassis_at_zero(ours):
    ours.place(LEVEL, np.zeros(12))
    for body in ours.bodies:
        np.testing.assert_allclose(ours.d.xmat[body].reshape(3, 3), np.eye(3), atol=1e-12)


def test_joint_axes_ranges_and_armature_are_the_published_ones(ours, published):
    for model in (ours, published):
        model.place(LEVEL, np.zeros(12))
    np.testing.assert_allclose(ours.d.xaxis[ours.joints], published.d.xaxis[published.joints], atol=1e-6)
    np.testing.assert_allclose(ours.d.xanchor[ours.joints], published.d.xanchor[published.joints], atol=1e-7)
    np.testing.assert_array_equal(ours.m.jnt_range[ours.joints], published.m.jnt_range[published.joints])
    assert ours.m.jnt_limited[ours.joints].all()
    np.testing.assert_array_equal(ours.m.dof_armature[ours.dofs], published.m.dof_armature[published.dofs])


def test_feet_and_joints_are_where_the_published_ones_are_at_100_poses(ours, published):
    for base, angles in random_poses(100, seed=0):
        ours.place(base, angles)
        published.place(base, angles)
        np.testing.assert_allclose(ours.feet(), published.feet(), atol=1e-6)
        np.testing.assert_allclose(ours.d.xpos[ours.bodies], published.d.xpos[published.bodies], atol=1e-6)
        np.testing.assert_allclose(ours.d.xipos[ours.bodies], published.d.xipos[published.bodies], atol=1e-6)
        np.testing.assert_allclose(ours.d.xaxis[ours.joints], published.d.xaxis[published.joints], atol=5e-6)


def test_the_mass_matrix_is_the_published_one_at_20_poses(ours, published):
    for base, angles in random_poses(20, seed=1):
        ours.place(base, angles)
        published.place(base, angles)
        theirs = published.mass_matrix()
        np.testing.assert_allclose(ours.mass_matrix(), theirs, rtol=1e-5, atol=1e-6)
        assert np.linalg.eigvalsh(theirs).min() > 0


def test_feet_have_the_published_size(ours, published):
    for leg in CORNERS:
        here = ours.m.geom(f"foot_{leg}")
        body = published.m.jnt_bodyid[published.m.joint(f"knee_{leg}").id]
        there = [g for g in range(published.m.ngeom) if published.m.geom_bodyid[g] == body]
        sphere = [g for g in there if published.m.geom_type[g] == mujoco.mjtGeom.mjGEOM_SPHERE][0]
        assert here.size[0] == published.m.geom_size[sphere, 0] == ROBOT.foot_radius


# --- against the description ------------------------------------------------------------------------------------------


def test_description_and_model_agree_on_joints():
    assert ROBOT.joint_names == tuple(f"{joint}_{leg}" for leg in CORNERS for joint in ("abduction", "hip", "knee"))
    model = robot_spec(ROBOT).compile()
    assert tuple(model.joint(j).name for j in range(1, model.njnt)) == ROBOT.joint_names
    np.testing.assert_allclose(model.jnt_range[1:, 0], ROBOT.joint_lower, atol=1e-6)
    np.testing.assert_allclose(model.jnt_range[1:, 1], ROBOT.joint_upper, atol=1e-6)
    assert ((ROBOT.joint_lower < ROBOT.default_pose) & (ROBOT.default_pose < ROBOT.joint_upper)).all()
    assert tuple(model.actuator(a).name for a in range(model.nu)) == ROBOT.joint_names
    assert model.actuator_trnid[:, 0].tolist() == list(range(1, 13))


def test_servos_pull_with_the_gains_and_never_beyond_the_torque_limit():
    model = robot_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    rng = np.random.default_rng(2)
    data.qpos[7:] = ROBOT.default_pose
    data.qvel[6:] = rng.uniform(-2, 2, 12)
    for size in (0.05, 3.0):
        data.ctrl[:] = ROBOT.default_pose + size * rng.uniform(-1, 1, 12)
        mujoco.mj_forward(model, data)
        wanted = 35.0 * (data.ctrl - ROBOT.default_pose) - 1.0 * data.qvel[6:]
        np.testing.assert_allclose(data.actuator_force, np.clip(wanted, -18, 18), rtol=1e-6)
    assert (np.abs(wanted) > 18).any()


def test_mirroring_the_joints_mirrors_the_feet(ours):
    left_right = [2, 3, 0, 1]
    assert [CORNERS[i].split("_")[0] for i in left_right] == [corner.split("_")[0] for corner in CORNERS]
    index = ROBOT.leg_joints[left_right].ravel()  # abduction axes point opposite ways, so no sign changes
    for _, angles in random_poses(20, seed=3):
        ours.place(LEVEL, angles)
        feet = ours.feet()
        ours.place(LEVEL, angles[index])
        # the published left and right shanks differ by 3 mm
        np.testing.assert_allclose(ours.feet()[left_right], feet * (1, -1, 1), atol=5e-3)


def test_unknown_robots_are_refused_with_the_known_names():
    with pytest.raises(InputError, match="unknown robot 'spot'.*barkour_v0.*--robot.*BARKOUR_ROBOTS"):
        robot_by_name("spot")


# --- sensors and contact ----------------------------------------------------------------------------------------------


def sensor(model: mujoco.MjModel, data: mujoco.MjData, name: str) -> np.ndarray:
    adr, dim = model.sensor(name).adr[0], model.sensor(name).dim[0]
    return data.sensordata[adr : adr + dim]


def rotation(quat: np.ndarray) -> np.ndarray:
    """World from base, from the textbook formula."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_the_imu_rides_on_the_chassis():
    model = robot_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    assert model.site_bodyid[model.site("imu").id] == model.body("chassis").id
    rng = np.random.default_rng(4)
    for base, angles in random_poses(5, seed=4):
        data.qpos[:7], data.qpos[7:] = base, angles
        data.qvel[:] = 0
        data.qvel[:6] = rng.uniform(-1, 1, 6)
        mujoco.mj_forward(model, data)
        turn = rotation(base[3:])
        quat = sensor(model, data, "orientation")
        np.testing.assert_allclose(quat * np.sign(quat @ base[3:]), base[3:], atol=1e-9)
        np.testing.assert_allclose(sensor(model, data, "gyro"), data.qvel[3:6], atol=1e-9)
        np.testing.assert_allclose(sensor(model, data, "velocity"), turn.T @ data.qvel[:3], atol=1e-9)


def test_the_accelerometer_reads_nothing_in_free_fall_and_gravity_when_held():
    model = robot_spec(ROBOT).compile()
    data = mujoco.MjData(model)
    for base, _ in random_poses(5, seed=5):
        mujoco.mj_resetData(model, data)
        data.qpos[:7], data.qpos[7:] = base, ROBOT.default_pose
        data.ctrl[:] = ROBOT.default_pose
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(sensor(model, data, "accelerometer"), 0, atol=1e-6)
        data.xfrc_applied[:, 2] = 9.81 * model.body_mass  # every body held against its own weight
        mujoco.mj_forward(model, data)
        up = rotation(base[3:]).T @ np.array([0, 0, 9.81])
        np.testing.assert_allclose(sensor(model, data, "accelerometer"), up, atol=1e-6)


def test_soles_touch_the_ground_in_the_default_pose_at_the_standing_height(ours):
    ours.place(np.array([0, 0, ROBOT.standing_height, 1, 0, 0, 0]), ROBOT.default_pose)
    np.testing.assert_allclose(ours.feet()[:, 2] - ROBOT.foot_radius, 0, atol=2e-3)


def test_feet_carry_the_weight_of_the_standing_robot():
    model = build(ROBOT, Terrain())
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:] = (0, 0, 0.22, 1, 0, 0, 0), ROBOT.default_pose
    data.ctrl[:] = ROBOT.default_pose
    for _ in range(1000):
        mujoco.mj_step(model, data)
    forces = data.sensordata[foot_forces(model, ROBOT)]
    assert forces.sum() == pytest.approx(11.487 * 9.81, rel=0.02)
    assert (forces > 10).all()
    assert np.abs(data.qvel).max() < 0.02
    assert 0.16 < data.qpos[2] < ROBOT.standing_height  # the servos give way under the weight, a little


@pytest.mark.parametrize("leg", range(4))
def test_each_foot_has_its_own_touch_sensor_at_its_place_in_the_readings(leg):
    """One leg reaches down (knee opened), the others are folded: only that foot's sensor responds."""
    model = build(ROBOT, Terrain())
    data = mujoco.MjData(model)
    angles = np.tile([0.0, 0.0, 0.1], 4)
    angles[3 * leg + 1 : 3 * leg + 3] = (0.5, 1.4)
    data.qpos[:7], data.qpos[7:], data.ctrl[:] = (0, 0, 1, 1, 0, 0, 0), angles, angles
    mujoco.mj_forward(model, data)
    feet = np.array([data.geom(f"foot_{name}").xpos for name in CORNERS])
    others = np.delete(feet[:, 2], leg)
    assert feet[leg, 2] < others.min() - 0.05
    data.qpos[2] -= feet[leg, 2] - ROBOT.foot_radius + 0.001
    mujoco.mj_forward(model, data)
    readings = data.sensordata[foot_forces(model, ROBOT)]
    assert readings[leg] > 1
    assert np.delete(readings, leg).tolist() == [0, 0, 0]


def test_every_part_of_the_robot_can_touch_the_world_and_none_touches_another_part():
    model = build(ROBOT, Terrain())
    trunk = model.body("chassis").id
    for part in ["chassis", *(f"{p}_{leg}" for leg in CORNERS for p in ("thigh", "shank"))]:
        body = model.body(part).id
        assert any(model.geom_bodyid[g] == body and model.geom_contype[g] for g in range(model.ngeom)), part
    on_robot = model.geom_bodyid >= trunk
    assert not model.geom_conaffinity[on_robot].any()
    assert model.geom_conaffinity[~on_robot].all()


def test_training_scenes_let_only_shanks_and_feet_touch():
    model = build(ROBOT, Terrain(), collision="feet")
    touching = {model.geom(g).name for g in range(model.ngeom) if model.geom_contype[g] and model.geom_bodyid[g]}
    assert touching == {f"{part}_{leg}" for part in ("foot", "shank") for leg in CORNERS}
