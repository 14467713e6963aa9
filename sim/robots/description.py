"""Robot description: joint order, poses, limits, gains and frames, defined once and used by everyone.

Frames: the base frame sits on the chassis, x forward, y left, z up; the world is z up. Quaternions are (w, x, y, z) and
turn base vectors into world vectors. Joint angles in rad; zero is the upper leg horizontal pointing back, knee folded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sim.errors import InputError

LEGS = ("front_left", "hind_left", "front_right", "hind_right")
"""Leg order of every per-leg and per-joint array."""

JOINTS_PER_LEG = ("abduction", "hip", "knee")


@dataclass(frozen=True, eq=False)
class Robot:
    """What a policy, a controller and the simulator must agree on about one robot.

    Arrays over joints are float32 `[12]` in `joint_names` order; arrays over feet follow `LEGS`.
    """

    name: str
    mjcf: Path
    """The robot's MJCF: bodies, joints, colliders, sensors; no actuators (they follow from the gains here)."""
    joint_names: tuple[str, ...]
    foot_names: tuple[str, ...]
    default_pose: np.ndarray
    """Joint angles of the nominal standing pose, rad; the origin of every action."""
    joint_lower: np.ndarray
    joint_upper: np.ndarray
    kp: float
    """Position gain of every joint, N m/rad."""
    kd: float
    """Velocity gain of every joint, N m s/rad."""
    torque_limit: float
    """Peak joint torque, N m."""
    velocity_limit: float
    """Joint speed at which no torque is left, rad/s."""
    action_scale: float
    """Joint-angle change for an action of 1, rad."""
    action_limit: float
    """Actions are clipped to +- this."""
    control_period: float
    """Seconds between two actions."""
    standing_height: float
    """Height of the base origin over the ground in the default pose, m."""
    foot_radius: float
    body_length: float
    """Over the standing robot's legs and head, m."""
    body_width: float

    @property
    def mirror(self) -> tuple[np.ndarray, np.ndarray]:
        """Left-right reflection of a joint vector: `q_mirrored = sign * q[index]`, both `[12]`.

        The abduction axes of left and right legs already point opposite ways, so no sign changes.
        """
        index = np.concatenate([np.arange(6, 12), np.arange(0, 6)])
        return index, np.ones(12, np.float32)


def barkour_v0() -> Robot:
    """Barkour v0 (arXiv 2305.14654 section V; joint ranges and masses from the published MJCF of the robot).

    Gains: the published model has kp 35 and kd 0.65 (plus 0.52 joint damping in its MJX form), the paper's hardware ran
    20 and 0.5; we take 35 and 1.0. Peak torque 18 N m is the MJX model's; the paper states 12 N m.
    """
    names = tuple(f"{joint}_{leg}" for leg in LEGS for joint in JOINTS_PER_LEG)
    lower = {"abduction": (-1.0472, -1.0472), "hip": (-1.22173, -1.98968), "knee": (0.0, 0.0)}
    upper = {"abduction": (1.0472, 1.0472), "hip": (3.24631, 2.46091), "knee": (2.5132, 2.5132)}
    hind = [int(leg.startswith("hind")) for leg in LEGS]
    return Robot(
        name="barkour_v0",
        mjcf=Path(__file__).with_name("barkour_v0") / "robot.xml",
        joint_names=names,
        foot_names=tuple(f"foot_{leg}" for leg in LEGS),
        default_pose=np.tile(np.array([0.0, 0.5, 1.0], np.float32), 4),
        joint_lower=np.array([lower[joint][h] for h in hind for joint in JOINTS_PER_LEG], np.float32),
        joint_upper=np.array([upper[joint][h] for h in hind for joint in JOINTS_PER_LEG], np.float32),
        kp=35.0,
        kd=1.0,
        torque_limit=18.0,
        velocity_limit=25.0,
        action_scale=0.3,
        action_limit=4.0,
        control_period=0.02,
        standing_height=0.2,
        foot_radius=0.014,
        body_length=0.70,
        body_width=0.335,
    )


def substeps_of(robot: Robot, timestep: float) -> int:
    """Physics steps of `timestep` (s) in a control step; raises `InputError` if they do not fit."""
    substeps = robot.control_period / timestep
    if abs(substeps - round(substeps)) > 1e-9:
        raise InputError(f"control period {robot.control_period} s is no multiple of {timestep} s")
    return round(substeps)


ROBOTS: dict[str, Callable[[], Robot]] = {"barkour_v0": barkour_v0}


def robot_by_name(name: str) -> Robot:
    """The description called `name`; `InputError` names the known ones otherwise."""
    if name not in ROBOTS:
        raise InputError(f"unknown robot '{name}': known are {', '.join(sorted(ROBOTS))}")
    return ROBOTS[name]()
