"""`barkour robot add`: from somebody's MJCF or URDF of a quadruped to a folder that describes it for this project.

What the file says is taken over: masses, joints, ranges, armature, friction, limits. What it cannot say is worked out
from its kinematics (which leg stands where, which way angles count, a standing and a folded pose), from its dynamics
(gains that hold it up) or set to a value that the folder calls a guess.
"""

import itertools
import math
import os
import re
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from policies.evaluation.measure import RobotMeasured, at_rest, standing
from policies.evaluation.model_trial import try_out
from policies.evaluation.options import RobotAddOptions
from sim.errors import InputError, first_line
from sim.folders import alone, replacing
from sim.reading import check_file, read_text
from sim.robots.description import NAME, Fall, Leg, Robot, Spread, derived_gains, find_robot, robot_folders
from sim.robots.footprint import Footprint

LARGEST = 1 << 26
"""Bytes of a model, at most."""
LARGEST_PART = 1 << 32
"""The same of a mesh or a picture that it refers to."""
LEG_JOINTS = ("abduction", "hip", "knee")
ALONG = 0.8
"""Cosine up to which a joint's axis counts as lying along x or y."""
STANDING, FOLDED = 0.75, 0.5
"""Distance from hip to foot in the standing and in the folded pose, as a share of the straight leg's."""
FREQUENCIES = np.arange(6.0, 16.0)
"""Of the servos' springs on the armature, Hz: the first that holds the robot up with at most `SAG` is taken."""
SAG = 0.12
"""rad."""
ARMATURE, TORQUE, SPEED, FRICTION, DAMPING = 0.01, 25.0, 25.0, 0.1, 0.05
"""Where the file says nothing: kg m2, N m, rad/s, N m, N m s/rad."""
TRIES = 41
"""Angles of hip and of knee that are tried for a pose."""
KNEES_BACK = 0.01
"""A pose with the knee ahead of the hip is taken only where none with it behind is as near, by this cost."""
FOOT_SITE = 1.2
"""Radius of the site that measures a foot's touch, in foot radii."""
SHANK = 0.7
"""Radius of a shank's capsule, in foot radii."""
BELIEVED = {
    "weighs": (0.2, 1000.0, "kg"), "stands": (0.03, 3.0, "m high"), "has feet of": (0.002, 0.3, "m"),
    "has torques of": (0.01, 1000.0, "N m"), "has joint speeds of": (0.1, 300.0, "rad/s"),
    "has armatures of": (1e-7, 10.0, "kg m2"), "has joint friction of": (1e-6, 100.0, "N m"),
    "has joint damping of": (1e-6, 100.0, "N m s/rad"), "has joints at": (-4 * math.pi, 4 * math.pi, "rad"),
    "has joint ranges of": (0.05, 8 * math.pi, "rad"), "has feet at": (0.01, 2.0, "m"), "reaches": (0.01, 4.0, "m"),
}  # fmt: skip
"""What a quadruped may be, from a toy to a horse: what lies outside is a slip of a digit or of a unit."""


@dataclass(frozen=True, kw_only=True)
class RobotAdded(RobotMeasured):
    """A robot that was added, as measured afterwards."""

    folder: str
    guessed: list[str]
    """What the file does not say and was set to a usual value: look it up."""


@dataclass
class _Leg:
    """A leg as it is found in a model."""

    joints: list[Any]
    """Abduction, hip and knee, from the body down."""
    corner: str = ""
    name: str = ""
    foot: np.ndarray = field(default_factory=lambda: np.zeros(3))
    """In the frame of the shank's body, m."""
    radius: float = 0.0
    pose: np.ndarray = field(default_factory=lambda: np.zeros(3))
    folded: np.ndarray = field(default_factory=lambda: np.zeros(3))
    extension: tuple[float, float] = (1.0, 2.0)
    forward: float = 1.0


def add(options: RobotAddOptions) -> RobotAdded:
    """Writes the folder and measures what stands in it.

    Raises:
      InputError: a file that cannot be read, no quadruped with three joints a leg, a name or folder that is taken.
    """
    folder = options.robots / options.name
    known = robot_folders()
    taken = os.path.realpath(known.get(options.name, folder)) != os.path.realpath(folder)
    if taken or not NAME.fullmatch(options.name):
        others = ", ".join(sorted(known))
        raise InputError(f"a robot's name is lower case, digits and _, and none that is known: {others}")
    if folder.exists() and not options.force:
        raise InputError(f"{folder} exists: add --force to replace its description")
    try_out(options.model)
    spec, speeds = read(options.model)
    guessed: list[str] = []
    base, legs = _legs(spec)
    _tidy(spec, base)
    _feet(spec, legs)
    model = _compiled(spec, options.model)
    for leg in legs:
        _poses(model, leg)
    robot = _described(spec, model, base, legs, options.name, speeds, guessed)
    _check(robot, model, base, options.model)
    _name_parts(spec, base, legs)
    _carry(spec, robot)
    _compiled(spec, options.model)
    with tempfile.TemporaryDirectory() as place:  # the folder is made for what is a robot
        trial = Path(place) / "robot.xml"
        trial.write_text(spec.to_xml(), encoding="utf-8")
        robot = replace(_held_up(replace(robot, mjcf=trial)), mjcf=folder / "robot.xml")
    _check(robot, model, base, options.model)
    with alone(folder, "writes a description"):
        if not options.force and any(os.path.lexists(folder / name) for name in ("robot.xml", "__init__.py")):
            raise InputError(f"{folder} was written meanwhile: add --force to replace its description")
        try:
            with replacing(folder / "robot.xml") as model_file, replacing(folder / "__init__.py") as source:
                model_file.write_text(spec.to_xml(), encoding="utf-8")
                source.write_text(_source(robot, str(options.model), guessed), encoding="utf-8")
        except OSError as error:
            raise InputError(f"cannot write to {folder}: {error.strerror}") from error
    robot = find_robot(str(folder))
    return RobotAdded.of({"robot": robot.name, **at_rest(robot), "folder": str(folder), "guessed": guessed})


def _compiled(spec: mujoco.MjSpec, file: Path) -> mujoco.MjModel:
    """The model with our parts in it; `InputError` where MuJoCo does not take it: a name is there twice, for one."""
    try:
        return spec.compile()
    except (ValueError, mujoco.FatalError) as error:
        raise InputError(f"the model {file} cannot be used: {' '.join(str(error).split())}") from error


def _check(robot: Robot, model: mujoco.MjModel, base: Any, file: Path) -> None:
    """Raises `InputError` where what was taken from a file describes no robot."""
    joints, lower, upper = robot.joint_names, robot.joint_lower, robot.joint_upper
    found: list[tuple[str, Any]] = [
        ("weighs", model.body_subtreemass[model.body(base.name).id]), ("stands", robot.standing_height),
        ("has feet of", robot.foot_radius), ("has torques of", robot.torque_limit),
        ("has joint speeds of", robot.no_load_speed), ("has armatures of", robot.armature),
        ("has joint friction of", robot.joint_friction), ("has joint damping of", robot.joint_damping),
        ("has joints at", [lower, upper]), ("has joint ranges of", upper - lower),
        ("has feet at", robot.footprint.stance), ("reaches", robot.footprint.reach),
    ]  # fmt: skip
    for words, values in found:
        low, high, unit = BELIEVED[words]
        for value in np.ravel(np.asarray(values, float)).tolist():
            if not low <= value <= high:
                raise InputError(
                    f"{file} is no quadruped's: it {words} {value:.4g} {unit}, believed are {low:.4g} to {high:.4g}"
                )
    light = [model.body(k).name for k in range(1, model.nbody) if not (model.body_mass[k] > 0 or _fixed(model, k))]
    if light:
        raise InputError(f"{file} is no quadruped's: its body '{light[0]}' moves and has no mass")
    if len(set(joints)) != len(joints):
        raise InputError(f"{file} has two joints of one name")


def _fixed(model: mujoco.MjModel, body: int) -> bool:
    """Whether a body is fixed to the one that carries it."""
    return model.body_jntnum[body] == 0


# --- reading ----------------------------------------------------------------------------------------------------------


def _parsed(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(read_text(file, LARGEST, "the model"))
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(f"cannot read the model {file}: {first_line(error)}") from error


def read(file: Path) -> tuple[mujoco.MjSpec, dict[str, float]]:
    """An editable model without meshes, pictures, grounds of heights, actuators and sensors, and the joints' speeds as
    far as the file has them. Raises `InputError` where it cannot be read."""
    root = _parsed(file)
    for element in root.iter():
        for name, value in element.attrib.items():  # MuJoCo warns of one in a file of its own, and goes on
            if not all(map(_believed, value.split())):
                raise InputError(f"{file}: '{name}' of <{element.tag[:40]}> is not finite, or too large: {value[:40]}")
    _check_parts(root, file, {file})
    speeds: dict[str, float] = {}
    try:
        if root.tag == "robot":
            for link in root.iter("link"):
                for part in [p for p in link if p.tag == "visual" or p.find("geometry/mesh") is not None]:
                    link.remove(part)
            for joint in root.iter("joint"):
                limit = joint.find("limit")
                if limit is not None and float(limit.get("velocity", 0)) > 0:
                    speeds[str(joint.get("name"))] = float(limit.get("velocity", 0))
            for old in root.findall("mujoco"):
                root.remove(old)
            compiler = ElementTree.SubElement(ElementTree.SubElement(root, "mujoco"), "compiler")
            compiler.set("fusestatic", "false")
            compiler.set("balanceinertia", "true")
            spec = mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))
            first = spec.worldbody.first_body()
            if first is not None and first.first_joint() is None:
                first.add_freejoint()
        elif root.tag == "mujoco":
            spec = mujoco.MjSpec.from_file(str(file))
        else:
            raise InputError(f"{file} is neither a MJCF nor a URDF: its first element is <{root.tag[:40]}>")
        for geom in [g for g in spec.geoms if g.type == mujoco.mjtGeom.mjGEOM_MESH]:
            body = geom.parent
            if not (body.explicitinertial or body.name == "world"):
                raise InputError(f"the body '{body.name}' of {file} has its mass from a mesh: give it an <inertial>")
            spec.delete(geom)
        for geom in [g for g in spec.geoms if g.type == mujoco.mjtGeom.mjGEOM_HFIELD]:
            spec.delete(geom)
        for material in spec.materials:
            material.textures = [""] * len(material.textures)
        looks = (spec.skins, spec.textures, spec.hfields)
        for things in (spec.meshes, *looks, spec.actuators, spec.sensors, spec.keys, spec.excludes, spec.tendons):
            for thing in list(things):
                _remember_torque(thing, speeds, spec)
                spec.delete(thing)
        spec.compile()
    except (ValueError, TypeError) as error:
        raise InputError(f"cannot read the model {file}: {first_line(error)}") from error
    return spec, speeds


def _check_parts(root: ElementTree.Element, file: Path, known: set[Path]) -> None:
    """Raises `InputError` where a model refers to what is no regular file, or too large: MuJoCo would wait for a pipe.
    What is not there, and what is included twice, MuJoCo says itself."""
    compilers = [element for element in root.iter("compiler")]
    named = [element.get(name, "") for element in compilers for name in ("assetdir", "meshdir", "texturedir")]
    folders = [file.parent / name for name in ("", *named)]
    for element in root.iter():
        for name, value in element.attrib.items():
            if not name.startswith("file"):
                continue
            for part in {folder / value for folder in folders} - known:
                if os.path.lexists(part):
                    check_file(part, LARGEST if element.tag == "include" else LARGEST_PART, "the model's")
                    if element.tag == "include":
                        known.add(part)
                        _check_parts(_parsed(part), part, known)


def _believed(word: str) -> bool:
    """Whether a word of an attribute is no number, or one that a model may hold."""
    try:
        return abs(float(word)) < 1e10
    except ValueError:
        return True


def _remember_torque(thing: Any, speeds: dict[str, float], spec: mujoco.MjSpec) -> None:
    """An actuator's largest force, kept at its joint before the actuator goes."""
    if not isinstance(thing, mujoco.MjsActuator) or thing.trntype != mujoco.mjtTrn.mjTRN_JOINT:
        return
    joint = spec.joint(thing.target)
    plain = thing.gaintype == mujoco.mjtGain.mjGAIN_FIXED and thing.biastype == mujoco.mjtBias.mjBIAS_NONE
    force = (
        max(thing.forcerange)
        if max(thing.forcerange) > 0
        else (max(thing.ctrlrange) * thing.gainprm[0] if plain else 0.0)
    )
    force *= abs(thing.gear[0])
    if joint is not None and force > 0:
        joint.actfrcrange = [-force, force]


# --- what stands where ------------------------------------------------------------------------------------------------


def _legs(spec: mujoco.MjSpec) -> tuple[Any, list[_Leg]]:
    """The body that carries the free joint, and its legs in the model's order."""
    free = [j.parent for j in spec.joints if j.type == mujoco.mjtJoint.mjJNT_FREE]
    if len(free) != 1 or free[0].parent.name != "world":
        raise InputError(f"a robot has one free joint, on a body of the world itself; this model has {len(free)}")
    base = free[0]
    chains = [chain for body in base.bodies for chain in _chains(body)]
    chains = [chain for chain in chains if chain]
    if not base.name:
        raise InputError("the body with the free joint needs a name")
    if nameless := [joint.parent.name for chain in chains for joint in chain if not joint.name.strip()]:
        raise InputError(f"every joint of a leg needs a name; one on the body '{nameless[0]}' has none")
    if len(chains) != 4 or any(len(chain) != len(LEG_JOINTS) for chain in chains):
        found = ", ".join(str(len(chain)) for chain in chains) or "none"
        raise InputError(f"four legs of three hinges each are needed; this model has chains of {found} joints")
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:7] = (0, 0, 0, 1, 0, 0, 0)
    mujoco.mj_kinematics(model, data)
    legs = []
    for chain in chains:
        names = [joint.name for joint in chain]
        for name, axis, along in zip(names, (0, 1, 1), "xyy", strict=True):
            if abs(data.joint(name).xaxis[axis]) < ALONG:
                raise InputError(f"the joint '{name}' must turn about {along}: a leg is spread about x, swung about y")
        x, y = data.joint(names[1]).xanchor[:2]
        legs.append(_Leg(chain, corner=f"{'front' if x > 0 else 'hind'}_{'left' if y > 0 else 'right'}"))
    corners = [leg.corner for leg in legs]
    if len(set(corners)) != len(corners):
        raise InputError(f"one leg at each corner is needed, x ahead and y to the left; found {', '.join(corners)}")
    return base, legs


def _chains(body: Any) -> list[list[Any]]:
    """The hinges from a body down to each of its ends."""
    own = list(body.joints)
    if any(joint.type != mujoco.mjtJoint.mjJNT_HINGE for joint in own):
        raise InputError(f"the joints of '{body.name}' must be hinges")
    below = [chain for child in body.bodies for chain in _chains(child)]
    moving = [chain for chain in below if chain]
    return [own + chain for chain in moving] or [own]


def _tidy(spec: mujoco.MjSpec, base: Any) -> None:
    """Colliders as this project's scenes expect them, inertias as they are now."""
    model = spec.compile()
    for body in spec.bodies:
        if body.name != "world" and not body.explicitinertial:
            here = model.body(body.name)
            body.mass, body.ipos, body.iquat = float(here.mass[0]), here.ipos, here.iquat
            body.inertia, body.explicitinertial = here.inertia, True
    for body in list(spec.worldbody.bodies):
        if body.name != base.name:
            spec.delete(body)
    for thing in [*spec.worldbody.geoms, *spec.lights, *spec.cameras]:
        spec.delete(thing)
    for geom in [g for g in spec.geoms if not (g.contype or g.conaffinity)]:
        spec.delete(geom)  # seen, not touched
    for geom in spec.geoms:
        geom.density, geom.mass = 0.0, math.nan
        geom.contype, geom.conaffinity, geom.condim, geom.priority, geom.margin = 1, 0, 3, 0, 0.0
        geom.friction = [0.8, 0.02, 0.01]
    base.pos, base.quat = [0.0, 0.0, 0.4], [1.0, 0.0, 0.0, 0.0]


def _feet(spec: mujoco.MjSpec, legs: list[_Leg]) -> None:
    """Where each leg's foot is: the sphere farthest from the knee, on the shank or on what is fixed to it."""
    model = spec.compile()
    data = mujoco.MjData(model)
    data.qpos[:7] = (0, 0, 0, 1, 0, 0, 0)
    mujoco.mj_kinematics(model, data)
    for leg in legs:
        shank = leg.joints[2].parent
        bodies, spheres = [shank], []
        while bodies:
            body = bodies.pop()
            bodies += list(body.bodies)
            spheres += [g for g in body.geoms if g.type == mujoco.mjtGeom.mjGEOM_SPHERE]
        knee = data.joint(leg.joints[2].name).xanchor
        frame = data.body(shank.name)

        def place(geom: Any) -> np.ndarray:
            body = data.body(geom.parent.name)
            return body.xpos + body.xmat.reshape(3, 3) @ geom.pos

        if not spheres:
            raise InputError(f"the leg of '{leg.joints[2].name}' has no sphere for a foot among its colliders")
        foot = max(spheres, key=lambda geom: float(np.linalg.norm(place(geom) - knee)))
        leg.foot = frame.xmat.reshape(3, 3).T @ (place(foot) - frame.xpos)
        leg.radius = float(foot.size[0])
        bodies = [shank]
        while bodies:  # one capsule and one sphere take the place of the shank's colliders
            body = bodies.pop()
            bodies += list(body.bodies)
            for geom in list(body.geoms):
                spec.delete(geom)


def _poses(model: mujoco.MjModel, leg: _Leg) -> None:
    """A standing and a folded pose of a leg, and which way its angles count."""
    data = mujoco.MjData(model)
    names = [joint.name for joint in leg.joints]
    where = [int(model.joint(name).qposadr[0]) for name in names]
    shank = model.body(model.jnt_bodyid[model.joint(names[2]).id]).name
    spread, lower, upper = 0.0, np.zeros(3), np.zeros(3)
    for i, name in enumerate(names):
        limited = bool(model.jnt_limited[model.joint(name).id])
        lower[i], upper[i] = model.joint(name).range if limited else (-math.pi, math.pi)
    spread = float(np.clip(0.0, lower[0], upper[0]))

    def reach(hip: float, knee: float) -> np.ndarray:
        data.qpos[:7], data.qpos[where] = (0, 0, 0, 1, 0, 0, 0), (spread, hip, knee)
        mujoco.mj_kinematics(model, data)
        body = data.body(shank)
        foot = body.xpos + body.xmat.reshape(3, 3) @ leg.foot
        return (foot - data.joint(names[1]).xanchor)[[0, 2]]

    hips, knees = (np.linspace(lower[i], upper[i], TRIES) for i in (1, 2))
    points = np.array([[reach(h, k) for k in knees] for h in hips])
    ahead = np.array([_knee_ahead(data, model, names, where, spread, h, knees[0]) for h in hips])[:, None]
    length = np.linalg.norm(points, axis=-1).max()

    def best(share: float) -> np.ndarray:
        cost = (points[..., 0] / length) ** 2 + (points[..., 1] / length + share) ** 2
        i, j = np.unravel_index(int((cost + KNEES_BACK * (ahead > 0)).argmin()), cost.shape)
        found = np.array([hips[i], knees[j]])
        for _ in range(20):  # to the point itself, as far as the ranges go
            off = reach(*found) - np.array([0.0, -share * length])
            step = np.linalg.lstsq(_slope(reach, found), -off, rcond=None)[0]
            found = np.clip(found + np.clip(step, -0.1, 0.1), lower[1:], upper[1:])
        return found

    standing, folded = best(STANDING), best(FOLDED)
    slope = _slope(reach, standing)
    longer = np.linalg.lstsq(slope, np.array([0.0, -1.0]), rcond=None)[0]
    longer = longer / max(abs(longer[0]), 1e-3)
    leg.pose, leg.folded = np.array([spread, *standing]), np.array([spread, *folded])
    leg.extension = (round(float(longer[0]), 3), round(float(longer[1]), 3))
    leg.forward = float(np.sign(slope[0, 0]))


def _knee_ahead(
    data: mujoco.MjData, model: mujoco.MjModel, names: list[str], where: list[int], spread: float, h: float, k: float
) -> float:
    """How far the knee is ahead of the hip, m."""
    data.qpos[where] = (spread, h, k)
    mujoco.mj_kinematics(model, data)
    return float(data.joint(names[2]).xanchor[0] - data.joint(names[1]).xanchor[0])


def _slope(reach: Any, at: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """How the foot moves (x, z) with hip and knee, `[2, 2]`."""
    columns = [(reach(*(at + d)) - reach(*(at - d))) / (2 * step) for d in step * np.eye(2)]
    return np.stack(columns, 1)


# --- writing ----------------------------------------------------------------------------------------------------------


def _described(
    spec: mujoco.MjSpec, model: mujoco.MjModel, base: Any, legs: list[_Leg], name: str, speeds: dict[str, float],
    guessed: list[str],
) -> Robot:  # fmt: skip
    """The description as far as it needs no simulation; `_held_up` finds the gains."""
    joints = [model.joint(j).name for j in range(model.njnt) if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_HINGE]
    ids = [model.joint(joint).id for joint in joints]
    dofs = [int(model.jnt_dofadr[j]) for j in ids]

    def taken(what: str, values: Any, usual: float) -> np.ndarray:
        found = np.array(values, float)
        if not (found > 0).all():
            guessed.append(what)
        return np.where(found > 0, found, usual)

    torque = [model.jnt_actfrcrange[j, 1] if model.jnt_actfrclimited[j] else 0.0 for j in ids]
    limited = model.jnt_limited[ids].astype(bool)
    pose, folded = np.zeros(len(joints)), np.zeros(len(joints))
    for leg in legs:
        for joint, angle, bent in zip(leg.joints, leg.pose, leg.folded, strict=True):
            pose[joints.index(joint.name)], folded[joints.index(joint.name)] = angle, bent
        leg.name = leg.corner
    armature = taken("armature", model.dof_armature[dofs], ARMATURE)
    friction = taken("joint_friction", model.dof_frictionloss[dofs], FRICTION)
    damping = taken("joint_damping", model.dof_damping[dofs], DAMPING)
    limits = taken("torque_limit", torque, TORQUE)
    fastest = taken("no_load_speed", [speeds.get(joint, 0.0) for joint in joints], SPEED)
    data = mujoco.MjData(model)
    data.qpos[:7], data.qpos[7:] = (0, 0, 0, 1, 0, 0, 0), pose
    mujoco.mj_kinematics(model, data)
    feet = []
    for leg in legs:
        body = data.body(leg.joints[2].parent.name)
        feet.append(body.xpos + body.xmat.reshape(3, 3) @ leg.foot)
    feet = np.array(feet)
    radius = min(leg.radius for leg in legs)
    height = round(float(-feet[:, 2].mean() + radius), 3)
    mass = float(model.body_subtreemass[model.body(base.name).id])
    ahead, aside = (np.abs(feet[:, :2]).mean(0) + (0.03, 0.015)).round(3).tolist()
    return Robot(
        name=name,
        mjcf=Path(f"{name}.xml"),
        joint_names=tuple(joints),
        legs=tuple(
            Leg(
                leg.corner, *(joint.name for joint in leg.joints), foot=f"foot_{leg.corner}",
                shank=f"shank_{leg.corner}", extension=leg.extension, forward=leg.forward,
            )
            for leg in legs
        ),  # fmt: skip
        default_pose=pose.round(4),
        folded_pose=folded.round(4),
        joint_lower=np.where(limited, model.jnt_range[ids, 0], -math.pi),
        joint_upper=np.where(limited, model.jnt_range[ids, 1], math.pi),
        kp=np.ones(len(joints)),
        kd=np.ones(len(joints)),
        torque_limit=limits,
        no_load_speed=fastest,
        action_scale=np.array(0.3),
        armature=armature,
        joint_friction=friction,
        joint_damping=damping,
        action_limit=4.0,
        control_period=0.02,
        standing_height=height,
        foot_radius=radius,
        knee_radius=round(SHANK * radius, 4),
        footprint=Footprint(0.3, 0.3, 0.2, stepping=(0.03, 0.03, 0.01), stance=(ahead, aside)),
        fall=_fall(height),
        spread=Spread(
            trunk_mass=(round(-0.03 * mass, 2), round(0.1 * mass, 2)),
            joint_friction=_around(friction), joint_damping=_around(damping),
            no_load_speed=(round(0.9 * float(fastest.max()), 1), round(1.1 * float(fastest.max()), 1)),
        ),
        base_body=base.name,
        trunk_geoms=("trunk",),
    )  # fmt: skip


def _with_gains(robot: Robot, frequency: float) -> Robot:
    pairs = zip(robot.armature.tolist(), robot.torque_limit.tolist(), strict=True)
    found = [derived_gains(inertia, torque, frequency=frequency, damping=1.0) for inertia, torque in pairs]
    kp, kd = np.array([g.kp for g in found]), np.array([g.kd for g in found])
    return replace(robot, kp=kp.round(2), kd=kd.round(3))


def _fall(height: float) -> Fall:
    return Fall(round(0.4 * height, 3), learning_clearance=round(0.36 * height, 3), low=round(0.83 * height, 3))


def _around(values: np.ndarray) -> tuple[float, float]:
    return round(0.5 * float(values.max()), 3), round(1.5 * float(values.max()), 3)


def _name_parts(spec: mujoco.MjSpec, base: Any, legs: list[_Leg]) -> None:
    """Feet, shanks, trunk and IMU under the names that the description uses; the file's own parts that have one of
    these names get another."""
    ours = re.compile("|".join([*(f"foot_{leg.corner}|shank_{leg.corner}" for leg in legs), r"trunk(_\d+)?"]))
    for kind, parts in ((mujoco.mjtObj.mjOBJ_GEOM, spec.geoms), (mujoco.mjtObj.mjOBJ_SITE, spec.sites)):
        names = {part.name for part in parts}
        for part in [part for part in parts if ours.fullmatch(part.name)]:
            free = next(name for n in itertools.count(1) if (name := f"{part.name}_own_{n}") not in names)
            for sensor in spec.sensors:
                if sensor.objtype == kind and sensor.objname == part.name:
                    sensor.objname = free
            names.add(free)
            part.name = free
    for leg in legs:
        shank = leg.joints[2].parent
        knee = np.array(leg.joints[2].pos)
        sphere, capsule = mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE
        common = {"contype": 1, "conaffinity": 0, "condim": 3, "density": 0.0, "friction": [0.8, 0.02, 0.01]}
        shank.add_geom(
            name=f"foot_{leg.corner}", type=sphere, size=[leg.radius, 0, 0], pos=leg.foot, priority=1, **common
        )
        shank.add_geom(
            name=f"shank_{leg.corner}",
            type=capsule,
            size=[SHANK * leg.radius, 0, 0],
            fromto=[*knee, *leg.foot],
            **common,
        )
        shank.add_site(name=f"foot_{leg.corner}", type=sphere, size=[FOOT_SITE * leg.radius] * 3, pos=leg.foot)
    trunk = [geom for geom in base.geoms]
    for i, geom in enumerate(trunk):
        geom.name = "trunk" if i == 0 else f"trunk_{i + 1}"
    if not trunk:
        hips = np.array([leg.joints[0].parent.pos for leg in legs])
        half = [*(np.abs(hips[:, :2]).max(0) + (0.02, 0.03)), 0.05]
        base.add_geom(
            name="trunk", type=mujoco.mjtGeom.mjGEOM_BOX, size=half, contype=1, conaffinity=0, condim=3, density=0.0
        )
    if not any(site.name == "imu" for site in spec.sites):
        base.add_site(name="imu")


def _carry(spec: mujoco.MjSpec, robot: Robot) -> None:
    """The joints' numbers as the description has them."""
    for i, name in enumerate(robot.joint_names):
        joint = spec.joint(name)
        joint.armature, joint.frictionloss = float(robot.armature[i]), float(robot.joint_friction[i])
        joint.damping = [float(robot.joint_damping[i]), 0.0, 0.0]
        joint.range = [float(robot.joint_lower[i]), float(robot.joint_upper[i])]
        joint.limited, joint.actfrclimited = mujoco.mjtLimited.mjLIMITED_TRUE, mujoco.mjtLimited.mjLIMITED_FALSE


def _held_up(robot: Robot) -> Robot:
    """The robot with the softest gains that hold it up, and with its height and outline as it then stands."""
    for frequency in FREQUENCIES:
        robot = _with_gains(robot, float(frequency))
        found = standing(robot)
        if found["upright"] > 0.99 and found["sag_rad"] <= SAG:
            break
    height = round(found["height_m"], 3)
    sides = {name: round(value + 0.005, 3) for name, value in found["outline_m"].items()}
    return replace(
        robot, standing_height=height, fall=_fall(height), footprint=replace(robot.footprint, **sides)
    )  # fmt: skip


def _source(robot: Robot, origin: str, guessed: list[str]) -> str:
    """The module that describes a robot."""

    def numbers(values: np.ndarray) -> str:
        rows = np.asarray(values, float).round(6).tolist()
        return f"np.array({rows[0]})" if len(set(rows)) == 1 else f"np.array({rows})"

    legs = "".join(f"            {leg!r},\n" for leg in robot.legs)
    arrays = "".join(
        f"        {name}={numbers(getattr(robot, name))},\n"
        for name in (
            "default_pose", "folded_pose", "joint_lower", "joint_upper", "kp", "kd", "torque_limit", "no_load_speed",
            "action_scale", "armature", "joint_friction", "joint_damping",
        )
    )  # fmt: skip
    plain = "".join(
        f"        {name}={getattr(robot, name)!r},\n"
        for name in (
            "action_limit", "control_period", "standing_height", "foot_radius", "knee_radius", "footprint", "fall",
            "spread", "drives", "base_body", "trunk_geoms", "imu_site",
        )
    )  # fmt: skip
    notes = f"Guessed, because the file does not say: {', '.join(guessed)}." if guessed else "Nothing was guessed."
    name = re.sub(r"[^\w .+-]", "_", Path(origin).name)  # whoever named the file writes no Python
    return f'''"""{robot.name}, from {name} by `barkour robot add`. {notes}

Gains are the softest springs on the armature that hold it up; poses have the feet below the hips. Look through every
number before a robot moves by them.
"""

from pathlib import Path

import numpy as np

from sim.robots.description import Drives, Fall, Leg, Robot, Spread
from sim.robots.footprint import Footprint


def robot():
    return Robot(
        name={robot.name!r},
        mjcf=Path(__file__).with_name("robot.xml"),
        joint_names={robot.joint_names!r},
        legs=(
{legs}        ),
{arrays}{plain}    )
'''
