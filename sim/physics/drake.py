"""Drake as a second opinion: the scenes that MuJoCo simulates, in an engine that shares no line of code with it.

A policy that walks only in the simulator it was trained in has learned that simulator. Here the bodies, joints, servos
and colliders of a compiled scene are put into a Drake `MultibodyPlant` by hand, so that nothing is lost on the way
(Drake's MJCF parser passes over dry friction and collision filters): same masses, same inertias, same motor law at the
same instants. What differs is what no two engines agree on: how contact, friction and joint stops are solved.

For evaluation only: worlds are stepped one after the other.
Importing this module needs Drake (`pip install 'barkour[sim2sim]'`).
"""

import logging
import math
from typing import Any, NamedTuple

import mujoco
import numpy as np
from pydrake.geometry import (
    AddContactMaterial,
    Box,
    Capsule,
    CollisionFilterDeclaration,
    Cylinder,
    GeometryId,
    GeometryInstance,
    GeometrySet,
    HalfSpace,
    ProximityProperties,
    Sphere,
)
from pydrake.math import RigidTransform, RotationMatrix
from pydrake.multibody.plant import AddMultibodyPlant, CoulombFriction, MultibodyPlantConfig
from pydrake.multibody.tree import (
    FixedOffsetFrame,
    PdControllerGains,
    RevoluteJoint,
    RotationalInertia,
    SpatialInertia,
    UnitInertia,
)
from pydrake.systems.analysis import Simulator
from pydrake.systems.framework import DiagramBuilder

from sim.errors import InputError
from sim.physics.base import PhysicsReading
from sim.physics.motor import servo_torque

GRIP = 1e9
"""Friction of one side of a contact. Drake takes the harmonic mean 2 a b / (a + b), which is 2 b where a is vast: so
the other side decides alone."""
STICTION_SPEED = 1e-3
"""Speed up to which dry friction of a joint grows to its full value, rad/s."""
FIELDS = (
    "geom_friction", "body_mass", "body_inertia", "body_ipos", "dof_frictionloss", "dof_damping",
    "actuator_gainprm", "actuator_biasprm", "actuator_forcerange",
)  # fmt: skip
"""Model fields that can differ from world to world."""

logging.getLogger("drake").addFilter(lambda record: "half spaces" not in record.getMessage())
# a floor that soft bodies could not touch is no reason for a warning: there are none


class Contact(NamedTuple):
    """How contacts give way: a linear spring with a linear damper beside it."""

    stiffness: float
    """N/m."""
    relaxation: float
    """Damping over stiffness, s."""


def contact_of(model: mujoco.MjModel) -> Contact:
    """The contact that yields as the model's own do.

    MuJoCo's contacts are springs of a time constant t and damping ratio z (`geom_solref`), whatever stands on them. A
    quarter of the robot's weight, m, on such a spring has k = m / (t z)^2 and b = 2 m / t, so b / k = 2 t z^2.

    Drake's default is a Hunt-Crossley damper instead. It damps with the depth, so one that is right for a standing
    robot takes all the speed out of a running one: with it Barkour v0's climber made 1.7 of 2 m/s.
    """
    robot = model.body_rootid == model.jnt_bodyid[0]
    constant, ratio = (float(v) for v in model.geom_solref[0])
    quarter = float(model.body_mass[robot].sum()) / 4
    return Contact(quarter / (constant * ratio) ** 2, 2 * constant * ratio**2)


class DrakeWorld:
    """One plant: the scene of a MuJoCo model, with a memory of the last step's contacts."""

    def __init__(self, model: mujoco.MjModel, fields: dict[str, np.ndarray], contact: Contact) -> None:
        """`fields` are this world's own values of model fields (`FIELDS`), in the model's shapes."""
        self.model, self.fields = model, fields
        self.timestep = float(model.opt.timestep)
        builder: Any = DiagramBuilder()
        config = MultibodyPlantConfig(
            time_step=self.timestep, contact_model="point", discrete_contact_approximation="sap",
            use_sampled_output_ports=True,
        )  # fmt: skip
        self.plant: Any  # Drake's stubs know no shapes of arrays
        self.scene: Any
        self.plant, self.scene = AddMultibodyPlant(config, builder)
        self.geoms: dict[GeometryId, int] = {}
        """Collider -> the geom of the model that it stands for."""
        self._add_bodies()
        self._add_colliders(contact)
        self.plant.mutable_gravity_field().set_gravity_vector(np.array(model.opt.gravity))
        self.plant.Finalize()
        self.diagram = builder.Build()
        self.simulator = Simulator(self.diagram)
        self.context = self.plant.GetMyMutableContextFromRoot(self.simulator.get_mutable_context())
        count = self.plant.num_actuators()
        self._torque: Any = self.plant.get_actuation_input_port().FixValue(self.context, np.zeros(count))
        rest = self.plant.get_desired_state_input_port(self.plant.GetModelInstanceByName("DefaultModelInstance"))
        rest.FixValue(self.context, np.zeros(rest.size()))
        self._zeros = np.zeros(count - model.nu)
        self._results = self.plant.get_contact_results_output_port()
        self.step_count = 0

    def _value(self, name: str) -> np.ndarray:
        return self.fields[name] if name in self.fields else getattr(self.model, name)

    def _add_bodies(self) -> None:
        """Bodies, joints with their stops, damping and rotors, one motor a joint, and one brake where friction is."""
        model, plant = self.model, self.plant
        mass, inertia, com = (self._value(n) for n in ("body_mass", "body_inertia", "body_ipos"))
        bodies: list[Any] = [plant.world_body()]
        joints: list[Any] = []
        for i in range(1, model.nbody):
            turn = _rotation(model.body_iquat[i]).matrix()
            moment = turn @ np.diag(inertia[i]) @ turn.T / mass[i]
            about = RotationalInertia(
                moment[0, 0], moment[1, 1], moment[2, 2], moment[0, 1], moment[0, 2], moment[1, 2]
            )
            unit = UnitInertia(about).ShiftFromCenterOfMass(com[i])
            body = plant.AddRigidBody(model.body(i).name, SpatialInertia(mass[i], com[i], unit))
            bodies.append(body)
            if model.body_jntnum[i] != 1:
                raise InputError(f"body '{model.body(i).name}' has {model.body_jntnum[i]} joints, Drake takes one each")
            joint = int(model.body_jntadr[i])
            if model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
                continue
            if model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_HINGE or model.jnt_pos[joint].any():
                raise InputError(f"joint '{model.joint(joint).name}' is no hinge at its body's origin")
            parent = bodies[model.body_parentid[i]].body_frame()
            pose = RigidTransform(_rotation(model.body_quat[i]), model.body_pos[i])
            place = plant.AddFrame(FixedOffsetFrame(f"{model.body(i).name} at", parent, pose))
            dof = int(model.jnt_dofadr[joint])
            low, high = model.jnt_range[joint] if model.jnt_limited[joint] else (-math.inf, math.inf)
            joints.append(
                plant.AddJoint(
                    RevoluteJoint(
                        model.joint(joint).name, place, body.body_frame(), model.jnt_axis[joint],
                        low, high, float(self._value("dof_damping")[dof]),
                    )
                )
            )  # fmt: skip
        armature, loss = model.dof_armature[6:], self._value("dof_frictionloss")[6:]
        names = [joint.name() for joint in joints]
        order = [model.joint(int(model.actuator_trnid[k, 0])).name for k in range(model.nu)]
        if names != order:
            raise InputError("Drake needs one actuator a joint, in the order of the joints")
        last = {joint.name(): plant.AddJointActuator(f"{joint.name()} motor", joint) for joint in joints}
        for joint, friction in zip(joints, loss, strict=True):
            if friction > 0:
                # Drake has no dry friction in joints. A brake that asks for rest and is limited in its torque is dry
                # friction, and its solver takes it implicitly, as MuJoCo's takes `frictionloss`
                brake = plant.AddJointActuator(f"{joint.name()} friction", joint, float(friction))
                brake.set_controller_gains(PdControllerGains(p=0.0, d=float(friction) / STICTION_SPEED))
                last[joint.name()] = brake
        for actuator, rotor in zip(last.values(), armature, strict=True):
            # a joint's rotor is that of its last actuator, so no other may have one
            actuator.set_default_rotor_inertia(float(rotor))
            actuator.set_default_gear_ratio(1.0)
        self._bodies = bodies

    def _add_colliders(self, contact: Contact) -> None:
        """Colliders of the robot, and of the world once for every kind of the robot's.

        Friction of a contact is the value of the geom with the higher priority, and of equals the larger one, as in
        MuJoCo. Drake knows one value a collider. So all of the robot's colliders grip without limit, and for each
        kind of them (priority and friction) the world's stand there again with the friction that this kind meets.
        """
        model = self.model
        friction = self._value("geom_friction")[:, 0]
        kinds: dict[tuple[int, float], list[int]] = {}
        ground: list[int] = []
        for g in range(model.ngeom):
            if model.geom_bodyid[g] == 0:
                if model.geom_contype[g] or model.geom_conaffinity[g]:
                    ground.append(g)
            elif model.geom_contype[g] or model.geom_conaffinity[g]:
                kinds.setdefault((int(model.geom_priority[g]), float(friction[g])), []).append(g)
        robot_sets: list[list[GeometryId]] = []
        world_sets: list[list[GeometryId]] = []
        for number, ((priority, own), members) in enumerate(kinds.items()):
            robot_sets.append([self._collider(g, GRIP, contact, "") for g in members])
            mine: list[GeometryId] = []
            for g in ground:
                if not any(_touch(model, g, m) for m in members):
                    continue
                theirs, rank = float(friction[g]), int(model.geom_priority[g])
                met = max(own, theirs) if rank == priority else own if priority > rank else theirs
                mine.append(self._collider(g, met / 2, contact, f" {number}"))
            world_sets.append(mine)
        filters = self.scene.collision_filter_manager()
        every = GeometrySet([one for ids in robot_sets for one in ids])
        filters.Apply(CollisionFilterDeclaration().ExcludeWithin(every))  # a robot's parts pass through each other
        for i, robot in enumerate(robot_sets):
            for k, world in enumerate(world_sets):
                if i != k and robot and world:
                    between = CollisionFilterDeclaration().ExcludeBetween(GeometrySet(robot), GeometrySet(world))
                    filters.Apply(between)

    def _collider(self, g: int, friction: float, contact: Contact, suffix: str) -> GeometryId:
        model = self.model
        kinds, size = mujoco.mjtGeom, [float(v) for v in model.geom_size[g]]
        kind = int(model.geom_type[g])
        if kind == kinds.mjGEOM_PLANE:
            shape: Any = HalfSpace()
        elif kind == kinds.mjGEOM_BOX:
            shape = Box(*(2 * v for v in size))
        elif kind == kinds.mjGEOM_SPHERE:
            shape = Sphere(size[0])
        elif kind == kinds.mjGEOM_CAPSULE:
            shape = Capsule(size[0], 2 * size[1])
        elif kind == kinds.mjGEOM_CYLINDER:
            shape = Cylinder(size[0], 2 * size[1])
        else:
            raise InputError(f"geom '{model.geom(g).name}' has a shape that Drake is not given here")
        properties = ProximityProperties()
        # two equal springs in a row are half as stiff and relax in the sum of their times
        AddContactMaterial(
            properties, point_stiffness=2 * contact.stiffness, friction=CoulombFriction(friction, friction)
        )  # fmt: skip
        properties.AddProperty("material", "relaxation_time", contact.relaxation / 2)
        pose = RigidTransform(_rotation(model.geom_quat[g]), model.geom_pos[g])
        instance = GeometryInstance(pose, shape, f"{g}{suffix}")
        instance.set_proximity_properties(properties)
        found = self.plant.RegisterCollisionGeometry(
            self._bodies[model.geom_bodyid[g]], pose, shape, instance.name(), properties
        )
        self.geoms[found] = g
        return found

    # --- motion -------------------------------------------------------------------------------------------------------

    def set_state(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Puts the robot into a state, as MuJoCo counts it, at time 0."""
        self.set_motion(qpos, qvel)
        self.simulator.get_mutable_context().SetTime(0.0)
        self.step_count = 0
        self.simulator.Initialize()

    def set_motion(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Changes the state and nothing else."""
        self.plant.SetPositionsAndVelocities(self.context, to_drake(qpos, qvel))

    def advance(self, torque: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One physics step under `torque` `[J]` (N m); the new qpos and qvel as MuJoCo counts them.

        Raises:
          RuntimeError: Drake's solver found no answer.
        """
        self._torque.GetMutableData().get_mutable_value().SetFromVector(np.concatenate([torque, self._zeros]))
        self.step_count += 1
        self.simulator.AdvanceTo(self.step_count * self.timestep)
        return from_drake(self.plant.GetPositionsAndVelocities(self.context), self.model.nq)

    def contacts(self) -> list[tuple[int, int, float]]:
        """Contacts of the last step: two geoms of the model and the normal force between them, N."""
        results: Any = self._results.Eval(self.context)
        found = []
        for k in range(results.num_point_pair_contacts()):
            info = results.point_pair_contact_info(k)
            pair = info.point_pair()
            force = abs(float(np.dot(info.contact_force(), pair.nhat_BA_W)))
            found.append((self.geoms[pair.id_A], self.geoms[pair.id_B], force))
        return found


def _touch(model: mujoco.MjModel, a: int, b: int) -> bool:
    """Whether two geoms may collide, by their bits."""
    return bool(model.geom_contype[a] & model.geom_conaffinity[b] or model.geom_contype[b] & model.geom_conaffinity[a])


def _rotation(quat: np.ndarray) -> Any:
    matrix = np.zeros(9)
    mujoco.mju_quat2Mat(matrix, np.asarray(quat, float))
    return RotationMatrix(matrix.reshape(3, 3))


def to_drake(qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
    """MuJoCo's state of a robot as Drake orders it: attitude before place, and angular velocity in the world."""
    quat = qpos[3:7] / np.linalg.norm(qpos[3:7])
    spin = np.zeros(3)
    mujoco.mju_rotVecQuat(spin, np.asarray(qvel[3:6], float), quat)
    return np.concatenate([quat, qpos[:3], qpos[7:], spin, qvel[:3], qvel[6:]])


def from_drake(state: np.ndarray, nq: int) -> tuple[np.ndarray, np.ndarray]:
    """Inverse of `to_drake`: qpos `[nq]` and qvel `[nq - 1]`."""
    q, v = state[:nq], state[nq:]
    back, spin = np.array([q[0], -q[1], -q[2], -q[3]]), np.zeros(3)
    mujoco.mju_rotVecQuat(spin, v[:3], back)
    return np.concatenate([q[4:7], q[:4], q[7:]]), np.concatenate([v[3:6], spin, v[6:]])


class DrakePhysics:
    """Worlds of one scene in Drake, stepped one after the other; the twin of `CpuPhysics`.

    Sensors are one step old as MuJoCo's are. Contact sensors count contacts, touch sensors sum normal forces.
    """

    def __init__(self, model: mujoco.MjModel, worlds: int) -> None:
        if worlds < 1:
            raise InputError(f"physics needs at least 1 world, got {worlds}")
        self.model, self.worlds = model, worlds
        self.timestep = float(model.opt.timestep)
        self.contact = contact_of(model)
        self.qpos, self.qvel = np.tile(model.qpos0, (worlds, 1)), np.zeros((worlds, model.nv))
        self.sensordata = np.zeros((worlds, model.nsensordata))
        self.force = np.zeros((worlds, model.nu))
        """Torque of each motor in the last step, N m."""
        self.idle = np.zeros(worlds, bool)
        """Worlds that stand still."""
        self._touching, self._moving = _sensors_of(model)
        self._fields: dict[str, np.ndarray] = {}
        self._motors: tuple[np.ndarray, np.ndarray] | None = None
        self._plants: list[DrakeWorld] | None = None

    @property
    def plants(self) -> list[DrakeWorld]:
        """One plant a world, built when first needed: fields are fixed from then on."""
        if self._plants is None:
            self._plants = [
                DrakeWorld(self.model, {name: values[i] for name, values in self._fields.items()}, self.contact)
                for i in range(self.worlds)
            ]
            self.reset(np.ones(self.worlds, bool), self.qpos, self.qvel)
        return self._plants

    def randomize(self, fields: dict[str, np.ndarray]) -> None:
        """See `Physics.randomize`; once, before the worlds move."""
        if self._plants is not None:
            raise InputError("Drake's worlds cannot change after their first step")
        for name, values in fields.items():
            own = np.shape(getattr(self.model, name))
            if name not in FIELDS:
                raise InputError(f"Drake cannot give model field '{name}' per-world values")
            if (self.worlds, *own) != np.shape(values):
                raise InputError(f"model field {name} needs shape {(self.worlds, *own)}, got {np.shape(values)}")
            self._fields[name] = np.array(values, float)

    def motors(self, peak: np.ndarray, no_load_speed: np.ndarray) -> None:
        """See `Physics.motors`."""
        self._motors = np.array(peak, float), np.array(no_load_speed, float)

    def reset(self, mask: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """See `Physics.reset`."""
        for i in np.flatnonzero(mask).tolist():
            self.qpos[i], self.qvel[i] = qpos[i], qvel[i]
            self.sensordata[i], self.force[i] = 0.0, 0.0
            self.plants[i].set_state(self.qpos[i], self.qvel[i])
        self._sense(np.zeros((self.worlds, 6)))

    def step(self, targets: np.ndarray, substeps: int, previous: np.ndarray, delay: np.ndarray) -> None:
        """See `Physics.step`. Where the solver finds no answer, the world's state becomes NaN."""
        for k in range(substeps):
            wanted = np.where((np.asarray(delay) > k)[:, None], previous, targets)
            gain, bias, limit = (self._value(f"actuator_{name}") for name in ("gainprm", "biasprm", "forcerange"))
            q, v = self.qpos[:, 7:], self.qvel[:, 6:]
            self.force[:] = servo_torque(gain, bias, limit, wanted, q, v, self._motors)
            before = np.array(self.qvel[:, :6])
            for i, plant in enumerate(self.plants):
                if self.idle[i]:
                    continue
                try:
                    self.qpos[i], self.qvel[i] = plant.advance(self.force[i])
                    self._touch(i, plant.contacts())
                except RuntimeError:
                    self.qpos[i], self.qvel[i] = np.nan, np.nan
            self._sense((self.qvel[:, :6] - before) / self.timestep)

    def _value(self, name: str) -> np.ndarray:
        own = self._fields.get(name)
        return np.asarray(getattr(self.model, name))[None] if own is None else own

    def _touch(self, i: int, contacts: list[tuple[int, int, float]]) -> None:
        """Fills in what the contact sensors of a world say."""
        data = self.sensordata[i]
        for sensor in self._touching:
            hits = [force for a, b, force in contacts if a in sensor.geoms or b in sensor.geoms]
            data[sensor.at] = sum(hits) if sensor.sums else len(hits)

    def _sense(self, change: np.ndarray) -> None:
        """Fills in the motion sensors from the states; `change` is d qvel / dt of the bases `[worlds, 6]`."""
        turn = _matrices(self.qpos[:, 3:7])  # base to world
        spin = self.qvel[:, 3:6]
        for sensor in self._moving:
            end = sensor.at + 3
            if sensor.kind == mujoco.mjtSensor.mjSENS_FRAMEQUAT:
                self.sensordata[:, sensor.at : sensor.at + 4] = _product(self.qpos[:, 3:7], sensor.quat)
                continue
            if sensor.kind == mujoco.mjtSensor.mjSENS_GYRO:
                felt = spin
            elif sensor.kind == mujoco.mjtSensor.mjSENS_VELOCIMETER:
                felt = np.einsum("wji,wj->wi", turn, self.qvel[:, :3]) + _cross(spin, sensor.arm)
            else:
                felt = np.einsum("wji,wj->wi", turn, change[:, :3] - self.model.opt.gravity)
                felt = felt + _cross(change[:, 3:], sensor.arm) + _cross(spin, _cross(spin, sensor.arm))
            self.sensordata[:, sensor.at : end] = felt @ sensor.mount

    def read(self) -> PhysicsReading:
        """See `Physics.read`."""
        return PhysicsReading(*(np.array(a, np.float32) for a in (self.qpos, self.qvel, self.sensordata)))

    def shift(self, offset: np.ndarray) -> None:
        """Moves the base of each world by `offset` `[worlds, 2]` (m) without touching anything else."""
        self.qpos[:, :2] += offset
        self._moved()

    def rest(self, worlds: np.ndarray) -> None:
        """See `WholePhysics.rest`."""
        self.idle = np.array(worlds, bool)

    def push(self, velocity: np.ndarray) -> None:
        """Adds `velocity` `[worlds, 2]` (m/s, world frame) to the base: a kick."""
        self.qvel[:, :2] += velocity
        self._moved()

    def _moved(self) -> None:
        for i, plant in enumerate(self.plants):
            if np.isfinite(self.qpos[i]).all():
                plant.set_motion(self.qpos[i], self.qvel[i])


class _Touch(NamedTuple):
    """A sensor of contacts."""

    at: int
    """Where it stands in `sensordata`."""
    geoms: frozenset[int]
    """Geoms whose contacts it hears of."""
    sums: bool
    """Their normal forces (N), not how many they are."""


class _Motion(NamedTuple):
    """A sensor at a site of the base."""

    kind: int
    at: int
    arm: np.ndarray
    """From the base's origin to the site, m, in the base's axes."""
    quat: np.ndarray
    """Of the site in the base, w, x, y, z."""
    mount: np.ndarray
    """The same as a matrix `[3, 3]`."""


def _sensors_of(model: mujoco.MjModel) -> tuple[list[_Touch], list[_Motion]]:
    kinds = mujoco.mjtSensor
    touching, moving = list[_Touch](), list[_Motion]()
    base = int(model.jnt_bodyid[0])
    for i in range(model.nsensor):
        kind, at, which = (int(v) for v in (model.sensor_type[i], model.sensor_adr[i], model.sensor_objid[i]))
        if kind == kinds.mjSENS_TOUCH:
            reach, here = model.site_size[which, 0], model.site_pos[which]
            there = model.geom_bodyid == model.site_bodyid[which]
            near = np.linalg.norm(model.geom_pos - here, axis=1) < reach
            touching.append(_Touch(at, frozenset(np.flatnonzero(there & near).tolist()), True))
        elif kind == kinds.mjSENS_CONTACT:
            touching.append(_Touch(at, frozenset([which]), False))
        elif model.site_bodyid[which] == base:
            quat = np.array(model.site_quat[which])
            moving.append(_Motion(kind, at, np.array(model.site_pos[which]), quat, _rotation(quat).matrix()))
        else:
            raise InputError(f"sensor '{model.sensor(i).name}' is not on the robot's base")
    return touching, moving


def _matrices(quat: np.ndarray) -> np.ndarray:
    """Rotation matrices `[N, 3, 3]` of quaternions w, x, y, z `[N, 4]`."""
    w, x, y, z = quat.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), -1, 0)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Vector products of `a` `[N, 3]` with `b` `[3]` or `[N, 3]`; numpy's own takes ten times as long for few rows."""
    x, y, z = a.T
    u, v, w = b.T
    return np.stack([y * w - z * v, z * u - x * w, x * v - y * u], -1)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Quaternion products of `a` `[N, 4]` with one `b` `[4]`."""
    w, x, y, z = a.T
    p, q, r, s = b
    return np.stack([
        w * p - x * q - y * r - z * s, w * q + x * p + y * s - z * r,
        w * r - x * s + y * p + z * q, w * s + x * r - y * q + z * p,
    ], -1)  # fmt: skip
