"""What a robot is: joints, legs, poses, gains, limits, names and outline, given once and asked for by everyone.

Each robot is a folder: its model `robot.xml` (MJCF) and a module whose `robot()` returns a `Robot`. Those of this
package are known by name; others lie in the folders that the environment variable `BARKOUR_ROBOTS` lists.

Frames: the base frame sits on the trunk, x forward, y left, z up; the world is z up. Quaternions are (w, x, y, z) and
turn base vectors into world vectors. Joint angles in rad, counted as the robot's model counts them.
"""

import importlib
import importlib.util
import os
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sim.errors import InputError
from sim.robots.footprint import Footprint
from sim.robots.gaits import CORNERS, Gait

DEFAULT = "barkour_v0"
"""The robot of whoever names none."""
NAME = re.compile(r"[a-z][a-z0-9_]*")
"""What a robot may be called."""
VARIABLE = "BARKOUR_ROBOTS"
"""Environment variable with folders that hold robots' folders, as PATH lists folders."""


@dataclass(frozen=True)
class Leg:
    """One leg of a quadruped: where it stands, its joints, and its parts in the model."""

    corner: str
    """One of `CORNERS`."""
    abduction: str
    """Joint that spreads the leg."""
    hip: str
    """Joint that swings it."""
    knee: str
    foot: str
    """Geom of the foot, a sphere, and the site that measures its touch."""
    shank: str
    """Geom of the shank, a capsule from the knee to the foot."""
    extension: tuple[float, float] = (1.0, 2.0)
    """Change of hip and knee angle that lengthens the standing leg and keeps the foot below the hip, in any unit. With
    thigh and shank of equal length the knee turns twice as far as the hip."""
    forward: float = 1.0
    """1 where a larger hip angle swings the leg forward, -1 where a smaller one does."""

    @property
    def front(self) -> bool:
        """Whether it is a front leg."""
        return self.corner.startswith("front")


@dataclass(frozen=True)
class Fall:
    """When this robot counts as fallen; heights are the base's over the ground, m."""

    clearance: float
    """A robot whose base stays below this is down."""
    upright: float = 0.2
    """Cosine of the tilt below which it is down (78 degrees: a 30-degree ramp and a stumble count as standing)."""
    learning_clearance: float = 0.0
    """In training an episode ends below this..."""
    learning_upright: float = 0.5
    """... and below this cosine of the tilt."""
    low: float = 0.0
    """A base lower than this is penalised in training."""


@dataclass(frozen=True)
class Drives:
    """What the drives do of themselves."""

    watchdog: float = 0.1
    """Seconds without a command after which they act; infinite where they never do."""
    then: str = "damp"
    """What they do then: "damp" (brake the joints) or "hold" (go on holding the last targets)."""


@dataclass(frozen=True)
class Spread:
    """How much robots of this kind differ from one another: (least, most). `sim.tasks.randomization` draws from it."""

    trunk_mass: tuple[float, float]
    """Added to the trunk, kg."""
    joint_friction: tuple[float, float]
    """Dry friction of the joint that has most, N m."""
    joint_damping: tuple[float, float]
    """Viscous damping of the joint that has most, N m s/rad."""
    no_load_speed: tuple[float, float]
    """Speed of the fastest joint at which no driving torque is left, rad/s."""


@dataclass(frozen=True, eq=False)
class Robot:
    """What a policy, a controller and the simulator must agree on about one robot.

    Arrays over joints are `[J]` in `joint_names` order; arrays over legs and feet follow `legs`. A number given for an
    array over joints holds for every joint.
    """

    name: str
    mjcf: Path
    """The robot's MJCF: bodies, joints in the order of `joint_names`, colliders; no actuators and no sensors of ours
    (they follow from what stands here)."""
    joint_names: tuple[str, ...]
    legs: tuple[Leg, ...]
    default_pose: np.ndarray
    """Joint angles of the nominal standing pose, rad, float32; the origin of every action."""
    folded_pose: np.ndarray
    """Joint angles with the feet drawn in below the hips, from which a robot that lies can rise, rad, float32."""
    joint_lower: np.ndarray
    joint_upper: np.ndarray
    kp: np.ndarray
    """Position gains, N m/rad."""
    kd: np.ndarray
    """Velocity gains, N m s/rad."""
    torque_limit: np.ndarray
    """Peak torques, N m."""
    no_load_speed: np.ndarray
    """Speeds at which no driving torque is left, rad/s (`sim.physics.motor`)."""
    action_scale: np.ndarray
    """Change of the joint target for an action of 1, rad."""
    armature: np.ndarray
    """Rotor inertia as the joint feels it, kg m2."""
    joint_friction: np.ndarray
    """Dry friction, N m."""
    joint_damping: np.ndarray
    """Viscous damping, N m s/rad."""
    action_limit: float
    """Actions are clipped to +- this."""
    control_period: float
    """Seconds between two actions."""
    standing_height: float
    """Height of the base origin over the ground in the default pose, m."""
    foot_radius: float
    knee_radius: float
    """Of the collider around the knee, m."""
    footprint: Footprint
    fall: Fall
    spread: Spread
    drives: Drives = Drives()
    base_body: str = "trunk"
    """Body that carries the free joint."""
    trunk_geoms: tuple[str, ...] = ("trunk",)
    """Colliders that touch the ground only when the robot has gone down."""
    imu_site: str = "imu"
    """Site of the IMU: its axes are the base frame's."""
    trot: Gait = Gait()
    """Clock of the skills that walk."""
    bound: Gait | None = None
    """Clock of the skill that jumps; `python -m sim.envs.gait_search` finds one."""

    def __post_init__(self) -> None:
        joints = len(self.joint_names)
        for name in PER_JOINT:
            kind = np.float32 if name in ANGLES else np.float64
            values = np.asarray(getattr(self, name), kind)
            if values.ndim == 0:
                values = np.full(joints, values, kind)
            if values.shape != (joints,) or not np.isfinite(values).all():
                raise InputError(f"the robot {self.name} needs {joints} finite numbers for '{name}', got {values}")
            if name in POSITIVE and not (values > 0).all():
                raise InputError(f"the robot {self.name} needs numbers above 0 for '{name}', got {values.tolist()}")
            values.setflags(write=False)
            object.__setattr__(self, name, values)
        known = [name for leg in self.legs for name in (leg.abduction, leg.hip, leg.knee)]
        if sorted(known) != sorted(self.joint_names):
            raise InputError(f"the legs of {self.name} must have each of its joints once: {', '.join(known)}")
        if sorted(leg.corner for leg in self.legs) != sorted(CORNERS):
            raise InputError(f"the robot {self.name} needs one leg at each of {', '.join(CORNERS)}")
        if not (self.joint_lower < self.joint_upper).all():
            raise InputError(f"the joint ranges of {self.name} must be (lower, upper)")
        for name in ("default_pose", "folded_pose"):
            pose = getattr(self, name)
            if not ((pose >= self.joint_lower) & (pose <= self.joint_upper)).all():
                raise InputError(f"the {name} of {self.name} lies outside the joint ranges")

    @property
    def joints(self) -> int:
        """Number of actuated joints, J."""
        return len(self.joint_names)

    @property
    def peak_torque(self) -> float:
        """Of the strongest joint, N m."""
        return float(self.torque_limit.max())

    @cached_property
    def leg_joints(self) -> np.ndarray:
        """Index of each leg's abduction, hip and knee among the joints, int `[legs, 3]`."""
        index = {name: i for i, name in enumerate(self.joint_names)}
        return np.array([[index[name] for name in (leg.abduction, leg.hip, leg.knee)] for leg in self.legs])

    @cached_property
    def leg_of_joint(self) -> np.ndarray:
        """Index of the leg that each joint belongs to, int `[J]`."""
        legs = np.zeros(self.joints, int)
        for leg, joints in enumerate(self.leg_joints):
            legs[joints] = leg
        return legs

    @cached_property
    def from_legs(self) -> np.ndarray | None:
        """Where each joint stands in a list of the legs' joints, leg after leg; None where that is their order."""
        where = np.argsort(self.leg_joints.ravel())
        return None if (where == np.arange(self.joints)).all() else where

    @cached_property
    def leg_signs(self) -> np.ndarray:
        """Which way the legs' angles count, float32 `[4, legs]`: hip and knee for a longer leg, hip for one that swings
        forward, knee for one that opens."""
        rows = [(*leg.extension, leg.forward, np.sign(leg.extension[1])) for leg in self.legs]
        return np.array(rows, np.float32).T.copy()


PER_JOINT = (
    "default_pose", "folded_pose", "joint_lower", "joint_upper", "kp", "kd", "torque_limit", "no_load_speed",
    "action_scale", "armature", "joint_friction", "joint_damping",
)  # fmt: skip
ANGLES = ("default_pose", "folded_pose", "joint_lower", "joint_upper")
POSITIVE = ("kp", "kd", "torque_limit", "no_load_speed", "action_scale", "armature")


@dataclass(frozen=True)
class Gains:
    """Servo gains and action scale that follow from the inertia which a motor moves."""

    kp: float
    """N m/rad."""
    kd: float
    """N m s/rad."""
    action_scale: float
    """rad."""


def derived_gains(inertia: float, torque_limit: float, frequency: float = 10.0, damping: float = 2.0) -> Gains:
    """Gains that make a joint of `inertia` (kg m2: its armature) a spring of `frequency` (Hz) with a `damping` ratio,
    and the action scale for which an action of 1 asks for a quarter of the peak torque (N m) at rest.

    The rule of BeyondMimic (arXiv 2508.08241, appendix) and mjlab: stiff where the motor is strong, and an action means
    as much at every joint.
    """
    omega = 2 * np.pi * frequency
    kp = float(inertia * omega**2)
    return Gains(kp, float(2 * damping * inertia * omega), 0.25 * torque_limit / kp)


def substeps_of(robot: Robot, timestep: float) -> int:
    """Physics steps of `timestep` (s) in a control step; raises `InputError` if they do not fit."""
    substeps = robot.control_period / timestep
    if abs(substeps - round(substeps)) > 1e-9:
        raise InputError(f"control period {robot.control_period} s is no multiple of {timestep} s")
    return round(substeps)


# --- known robots ----------------------------------------------------------------------------------------------------


def robot_folders() -> dict[str, Path]:
    """Name -> folder of every known robot: this package's own, then those in the folders of `BARKOUR_ROBOTS`."""
    places = [Path(__file__).parent, *(Path(p) for p in os.environ.get(VARIABLE, "").split(os.pathsep) if p)]
    found: dict[str, Path] = {}
    for place in places:
        for folder in sorted(place.iterdir()) if place.is_dir() else []:
            if (folder / "__init__.py").is_file() and _named(folder.name):
                found.setdefault(folder.name, folder)
    return found


def robot_by_name(name: str) -> Robot:
    """The description called `name`; `InputError` names the known ones otherwise."""
    known = robot_folders()
    if name not in known:
        raise InputError(
            f"unknown robot '{name[:60]}': known are {', '.join(sorted(known))}; the folder of another one is given as "
            "--robot, or the folder above it in BARKOUR_ROBOTS"
        )
    return _described(known[name])


def default_robot() -> Robot:
    """The robot of whoever names none."""
    return robot_by_name(DEFAULT)


def find_robot(name_or_folder: str) -> Robot:
    """A robot by name, or by its folder, which is made known under its name to this process and its children."""
    folder = Path(name_or_folder)
    if name_or_folder in robot_folders() or not (folder / "__init__.py").is_file():
        return robot_by_name(name_or_folder)
    folder = Path(os.path.realpath(folder))
    known = robot_folders().get(folder.name)
    if known is not None and os.path.realpath(known) != str(folder):
        raise InputError(f"there is a robot called {folder.name} in {known.parent} already: rename {folder}")
    if known is None:
        listed = os.environ.get(VARIABLE, "")
        os.environ[VARIABLE] = os.pathsep.join(filter(None, (listed, str(folder.parent))))
    return robot_by_name(folder.name)


def _named(name: str) -> bool:
    return NAME.fullmatch(name) is not None


def _described(folder: Path) -> Robot:
    """What the module of a robot's folder says."""
    if folder.parent == Path(__file__).parent:
        module = importlib.import_module(f"sim.robots.{folder.name}")
    else:
        title = f"barkour_robot_{folder.name}"
        module = sys.modules.get(title)
        if module is None or Path(str(module.__file__)).parent != folder:
            spec = importlib.util.spec_from_file_location(title, folder / "__init__.py")
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except Exception as error:  # whatever another's file does
                raise InputError(f"the robot in {folder} cannot be read: {type(error).__name__}: {error}") from error
            sys.modules[title] = module
    try:
        robot = module.robot()
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"the robot in {folder} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(robot, Robot) or robot.name != folder.name:
        raise InputError(f"the module in {folder} must have a function robot() that returns the Robot '{folder.name}'")
    return robot
