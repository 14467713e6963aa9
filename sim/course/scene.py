"""From a robot and a terrain to a MuJoCo model: the one place where physics scenes are built."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np

from sim.course.description import Course, Pole
from sim.course.terrain import Piece, Ramp, Terrain
from sim.errors import InputError, check_utf8, first_line
from sim.robots.description import Robot

DECK = 0.05
"""Thickness of a ramp's deck, m."""


@dataclass(frozen=True)
class SolverOptions:
    """Time step and constraint solver of a scene."""

    timestep: float = 0.002
    iterations: int = 4
    ls_iterations: int = 8
    solref: tuple[float, float] = (0.008, 1.0)
    """Contact time constant (s) and damping ratio: stiff enough that a foot does not sink by its own radius."""
    cone: Literal["pyramidal", "elliptic"] = "pyramidal"
    """Shape of the friction cone. A pyramid has only 1 / (|cos a| + |sin a|) of its friction at an angle a to the
    contact's axes, which lie along the world's: on a ramp that points between them, feet slide that would hold."""


EVALUATION = SolverOptions(cone="elliptic")
"""What runs are judged on: 2 ms steps, friction the same in every direction."""
TRAINING = SolverOptions(timestep=0.004, iterations=2, ls_iterations=4)
"""What policies learn on: 4 ms steps, a lighter solver."""


MOST_CONTACTS = 32
"""Contacts of a robot with all of its world at one time; the deepest are taken. Thrown about it had 22 at most."""


def _rotation_quat(yaw: float, pitch: float = 0.0) -> np.ndarray:
    """Quaternion (w, x, y, z) that turns by `yaw` about z after pitching the +x axis up by `pitch`."""
    quat, about_y, about_z = np.zeros(4), np.zeros(4), np.zeros(4)
    mujoco.mju_axisAngle2Quat(about_y, np.array([0.0, 1.0, 0.0]), -pitch)
    mujoco.mju_axisAngle2Quat(about_z, np.array([0.0, 0.0, 1.0]), yaw)
    mujoco.mju_mulQuat(quat, about_z, about_y)
    return quat


POLES_ALONE = 2
"""Bit of MuJoCo's contact types: parts of the robot that in training touch nothing but poles."""
WAITING = 500.0
"""m from the world's middle, in x, at which moving poles stand until they are placed."""
DECK_PRIORITY = 2
"""MuJoCo's contact priority of decks: above the feet's."""


def _add_piece(world: mujoco.MjsBody, piece: Piece, rgba: Sequence[float]) -> None:
    """Adds a terrain piece as one box geom whose upper face is the piece's surface."""
    if isinstance(piece, Ramp):
        pitch = piece.pitch
        length = piece.size[0] / np.cos(pitch)
        middle = np.array([*piece.center, (piece.z_start + piece.z_end) / 2])
        normal = np.array([-np.sin(pitch) * np.cos(piece.yaw), -np.sin(pitch) * np.sin(piece.yaw), np.cos(pitch)])
        pos, half = middle - normal * DECK / 2, [length / 2, piece.size[1] / 2, DECK / 2]
        quat = _rotation_quat(piece.yaw, pitch)
    else:
        pos = [*piece.center, (piece.top + piece.bottom) / 2]
        half = [piece.size[0] / 2, piece.size[1] / 2, (piece.top - piece.bottom) / 2]
        quat = _rotation_quat(piece.yaw)
    world.add_geom(
        name=piece.name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=pos, size=half, quat=quat, rgba=rgba,
        contype=0, conaffinity=1, group=0, priority=DECK_PRIORITY if isinstance(piece, Ramp) and piece.deck else 0,
    )  # fmt: skip


def robot_spec(robot: Robot) -> mujoco.MjSpec:
    """The robot alone, as an editable spec, with position servos of the description's gains and torque limits, and
    sensors: `orientation`, `gyro`, `accelerometer` and `velocity` at the IMU, one `foot_*` touch force (N) a leg.

    Raises:
      InputError: a model that cannot be read, or that is not as the description says.
    """
    check_utf8(robot.mjcf, "the robot model")
    try:
        spec = mujoco.MjSpec.from_file(str(robot.mjcf))
    except ValueError as error:
        raise InputError(f"cannot read the robot model {robot.mjcf}: {error}") from error
    spec.modelname = robot.name
    _check_model(spec, robot)
    for name, kp, kd, limit in zip(robot.joint_names, robot.kp, robot.kd, robot.torque_limit.tolist(), strict=True):
        actuator = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        actuator.set_to_position(kp=kp, kv=kd)
        actuator.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
        actuator.forcerange = [-limit, limit]
    site, kinds = mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtSensor
    for name, kind in (
        ("orientation", kinds.mjSENS_FRAMEQUAT), ("gyro", kinds.mjSENS_GYRO),
        ("accelerometer", kinds.mjSENS_ACCELEROMETER), ("velocity", kinds.mjSENS_VELOCIMETER),
    ):  # fmt: skip
        spec.add_sensor(name=name, type=kind, objtype=site, objname=robot.imu_site)
    for leg in robot.legs:
        spec.add_sensor(name=foot_sensor(leg.corner), type=kinds.mjSENS_TOUCH, objtype=site, objname=leg.foot)
    return spec


def foot_sensor(corner: str) -> str:
    """Name of the touch sensor of a leg's foot."""
    return f"foot_{corner}"


def _check_model(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Raises `InputError` where a robot's model lacks what its description names, or orders its joints otherwise."""
    joints = [joint.name for joint in spec.joints if joint.type != mujoco.mjtJoint.mjJNT_FREE]
    if joints != list(robot.joint_names):
        raise InputError(
            f"the model {robot.mjcf} has the joints {', '.join(joints)}, the description of {robot.name} "
            f"{', '.join(robot.joint_names)}: they must be the same in the same order"
        )
    for i, joint in enumerate(j for j in spec.joints if j.type != mujoco.mjtJoint.mjJNT_FREE):
        damping, friction = np.ravel(joint.damping)[0], joint.frictionloss
        for what, found, said in (
            ("lower limit", joint.range[0], robot.joint_lower[i]),
            ("upper limit", joint.range[1], robot.joint_upper[i]),
            ("armature", joint.armature, robot.armature[i]),
            ("damping", damping, robot.joint_damping[i]),
            ("dry friction", friction, robot.joint_friction[i]),
        ):
            if not np.isclose(found, said, rtol=1e-3, atol=1e-6):
                raise InputError(
                    f"the model {robot.mjcf} gives joint {joint.name} the {what} {found:g}, the description of "
                    f"{robot.name} {said:g}: they must be the same"
                )
    if spec.sensors or spec.actuators:
        raise InputError(
            f"the model {robot.mjcf} must have no actuators and no sensors: they follow from the description"
        )
    feet = [leg.foot for leg in robot.legs]
    wanted = {
        "body": ({body.name for body in spec.bodies}, [robot.base_body]),
        "geom": ({g.name for g in spec.geoms}, [*robot.trunk_geoms, *feet, *(leg.shank for leg in robot.legs)]),
        "site": ({site.name for site in spec.sites}, [robot.imu_site, *feet]),
    }
    for kind, (found, names) in wanted.items():
        for name in names:
            if name not in found:
                raise InputError(
                    f"the model {robot.mjcf} has no {kind} '{name}', which the description of {robot.name} names"
                )


def build(
    robot: Robot,
    terrain: Terrain,
    *,
    poles: Sequence[Pole] = (),
    boards: Sequence[Piece] = (),
    collision: Literal["full", "feet"] = "full",
    options: SolverOptions = EVALUATION,
    moving_poles: int = 0,
) -> mujoco.MjModel:
    """Compiles floor, terrain, poles, board and robot into one model.

    Args:
      boards: pieces whose touch by any part of the robot is reported, by contact sensors `board`, `board 2` and so on.
      collision: "full" lets trunk and legs touch the world; "feet" only feet and shanks (for training).
      moving_poles: weave poles whose places are each world's own (`mocap_pos`); all parts of the robot touch them.

    Sensors: those of `robot_spec`, the moving poles' and the boards' (number of contacts), and the contacts of each of
    the robot's `trunk_geoms`, under its name, where they collide.
    """
    spec = robot_spec(robot)
    option = spec.option
    option.timestep, option.iterations, option.ls_iterations = (
        options.timestep,
        options.iterations,
        options.ls_iterations,
    )
    cones = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}
    option.solver, option.cone = mujoco.mjtSolver.mjSOL_NEWTON, cones[options.cone]
    option.integrator = mujoco.mjtIntegrator.mjINT_EULER
    # A world whose numbers explode must be seen to, not silently begin again.
    option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP | mujoco.mjtDisableBit.mjDSBL_AUTORESET
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960

    world = spec.worldbody
    world.add_light(pos=[2.5, -2.5, 6], dir=[0, 0, -1], type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL)
    world.add_geom(
        name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[0, 0, 0.05], rgba=[0.35, 0.4, 0.45, 1],
        contype=0, conaffinity=1,
    )  # fmt: skip
    for piece in terrain.pieces:
        _add_piece(world, piece, (0.55, 0.5, 0.4, 1))
    for board in boards:
        _add_piece(world, board, (0.9, 0.3, 0.2, 1))
    for i, pole in enumerate(poles):
        world.add_geom(
            name=f"pole {i + 1}", type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[pole.radius, 0, 0],
            fromto=[pole.x, pole.y, 0, pole.x, pole.y, pole.height], contype=0, conaffinity=1,
            rgba=(0.95, 0.5, 0.1, 1) if i % 2 == 0 else (0.2, 0.7, 0.3, 1),
        )  # fmt: skip
    low = {part for leg in robot.legs for part in (leg.foot, leg.shank)}
    for geom in spec.geoms:
        geom.solref = options.solref
        if collision == "feet" and geom.contype and geom.name not in low:
            geom.contype = POLES_ALONE if moving_poles else 0
    for k in range(moving_poles):
        name = moving_pole(k)
        body = world.add_body(name=name, mocap=True, pos=[WAITING, k, 0.0])
        body.add_geom(
            name=name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, size=[Pole.radius, 0, 0], solref=options.solref,
            fromto=[0, 0, 0, 0, 0, Pole.height], contype=0, conaffinity=1 | POLES_ALONE,
        )  # fmt: skip
        _contact_sensor(spec, name, robot, geom=name)
    for name, board in zip(board_sensors(len(boards)), boards, strict=True):
        _contact_sensor(spec, name, robot, geom=board.name)
    if collision == "full":
        for part in robot.trunk_geoms:
            spec.add_sensor(
                name=part, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=part,
                intprm=[1, 0, 1],
            )  # fmt: skip
        # read by MJX alone, whose solver else has a row for every contact that any two geoms could have
        spec.add_numeric(name="max_contact_points", data=[float(MOST_CONTACTS)])
    try:
        return spec.compile()
    except ValueError as error:
        raise InputError(f"cannot build the scene: {first_line(error)}") from error


def course_model(course: Course, robot: Robot, options: SolverOptions = EVALUATION) -> mujoco.MjModel:
    """The scene of a course as it is evaluated: full-body collision, board with a contact sensor."""
    return build(robot, course.terrain(), poles=course.poles, boards=course.board_pieces(), options=options)


def board_sensors(boards: int) -> list[str]:
    """Names of the contact sensors of so many boards, in running order."""
    return ["board", *(f"board {number}" for number in range(2, boards + 1))][:boards]


def moving_pole(k: int) -> str:
    """Name of a moving pole, its geom and its contact sensor."""
    return f"moving pole {k + 1}"


def _contact_sensor(spec: mujoco.MjSpec, name: str, robot: Robot, geom: str) -> None:
    """A sensor that counts contacts between `geom` and any part of the robot."""
    spec.add_sensor(
        name=name, type=mujoco.mjtSensor.mjSENS_CONTACT, objtype=mujoco.mjtObj.mjOBJ_GEOM, objname=geom,
        reftype=mujoco.mjtObj.mjOBJ_XBODY, refname=robot.base_body, intprm=[1, 0, 1],
    )  # fmt: skip


def deck_geoms(model: mujoco.MjModel) -> np.ndarray:
    """Geom ids of the surfaces whose own friction counts."""
    return np.flatnonzero(model.geom_priority == DECK_PRIORITY)


def foot_geoms(model: mujoco.MjModel, robot: Robot) -> np.ndarray:
    """Geom ids of the feet, `[legs]`."""
    return leg_geoms(model, robot, ("foot",))


def leg_geoms(model: mujoco.MjModel, robot: Robot, parts: Sequence[str]) -> np.ndarray:
    """Geom ids of leg parts ("foot", "shank"), part after part, each in leg order, `[parts * legs]`."""
    return np.array([model.geom(getattr(leg, part)).id for part in parts for leg in robot.legs])


def foot_forces(model: mujoco.MjModel, robot: Robot) -> np.ndarray:
    """Where the feet's touch forces stand in `sensordata`, `[legs]`."""
    return np.array([model.sensor(foot_sensor(leg.corner)).adr[0] for leg in robot.legs])
