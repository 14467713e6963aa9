"""Unitree Go2: 15 kg, twelve joints, four legs, joints in the order of the motors in Unitree's messages.

Zero angles are straight legs. A larger hip angle (axis +x) moves a left foot out and a right foot in, a larger thigh
angle (axis +y) swings the leg to the rear, and a calf angle nearer to zero opens the knee.
"""

from pathlib import Path

import numpy as np

from sim.robots.description import Drives, Fall, Leg, Robot, Spread, derived_gains
from sim.robots.footprint import Footprint
from sim.robots.gaits import CORNERS, Gait, LegPair

LEGS = {"FR": "front_right", "FL": "front_left", "RR": "hind_right", "RL": "hind_left"}
"""Unitree's name of each leg, in its motors' order (unitree_sdk2_python, unitree_legged_const.py) -> its corner."""
JOINTS = ("hip", "thigh", "calf")
"""Unitree's names: its hip spreads the leg, its thigh swings it, its calf is the knee."""
KNEE_REDUCTION = 45.43 / 23.7
"""Of the linkage from motor to calf: all motors are alike, and the URDF's limits of torque and speed of thigh and calf
have this ratio both (45.43 to 23.7 N m, 30.1 to 15.7 rad/s)."""
MOTOR_TORQUE, MOTOR_SPEED = 23.7, 30.1
"""Of a motor behind its gear, N m and rad/s (URDF)."""

LAG = 0.498
BOUND = Gait(
    name="bound",
    phase_offsets=tuple(LAG if corner.startswith("hind") else 0.0 for corner in CORNERS),
    push=0.0,
    lift_per_relief=0.0,
    front=LegPair(push=0.403, fold=0.339, swing=0.214, swing_phase=0.438, hip=-0.153, knee=-0.02),
    hind=LegPair(push=0.364, fold=0.229, swing=0.567, swing_phase=0.647, hip=-0.176, knee=0.342),
    stride=0.76,
    frequency_range=(2.3, 3.0),
    lock_gain=4.0,
    lock_range=0.3,
    lock_phase=0.775,
)
"""A jumper's clock, from `python -m sim.envs.gait_search --robot unitree_go2 --seed 0 --population 96 --elite 16
--iterations 18`: the worst of 32 starts makes 3.1 m in 3 s without a policy. In `lock_phase` prints lie furthest
before and behind the base (`sim.envs.gait_search.lock_phase`: 0.41 m are free at 1.9 m/s; 0.46 m of Barkour v0)."""


def robot() -> Robot:
    """The Unitree Go2 (frames, inertias, ranges, limits of its URDF in unitree_ros, go2_description).

    Armature: 0.01 kg m2, as both published MJCFs have it, and 0.02 at the calf, as mjlab's model of the robot: its
    rotor turns faster. Dry friction 0.2 N m and viscous damping 0.1 N m s/rad as in unitree_mujoco (Menagerie has 2).
    Gains: springs of 9 Hz, critically damped on the armature: kp 32 and kd 1.1, at the calf 64 and 2.3. Published
    policies for this robot run 20 to 40 N m/rad at the hips.
    """
    names = tuple(f"{leg}_{joint}_joint" for leg in LEGS for joint in JOINTS)
    lower = {"front": (-1.0472, -1.5708, -2.7227), "hind": (-1.0472, -0.5236, -2.7227)}
    upper = {"front": (1.0472, 3.4907, -0.83776), "hind": (1.0472, 4.5379, -0.83776)}
    ends = [corner.split("_")[0] for corner in LEGS.values()]
    armature = np.array([0.01, 0.01, 0.02])
    torque = np.array([MOTOR_TORQUE, MOTOR_TORQUE, MOTOR_TORQUE * KNEE_REDUCTION])
    gains = [derived_gains(a, t, frequency=9.0, damping=1.0) for a, t in zip(armature, torque, strict=True)]
    return Robot(
        name="unitree_go2",
        mjcf=Path(__file__).with_name("robot.xml"),
        joint_names=names,
        legs=tuple(
            Leg(
                corner,
                abduction=f"{leg}_hip_joint",
                hip=f"{leg}_thigh_joint",
                knee=f"{leg}_calf_joint",
                foot=f"{leg}_foot",
                shank=f"{leg}_calf",
                extension=(-1.0, 2.0),
                forward=-1.0,
            )
            for leg, corner in LEGS.items()
        ),
        default_pose=np.tile(np.array([0.0, 0.8, -1.6], np.float32), len(LEGS)),
        folded_pose=np.tile(np.array([0.0, 1.36, -2.65], np.float32), len(LEGS)),
        joint_lower=np.array([lower[end] for end in ends]).ravel(),
        joint_upper=np.array([upper[end] for end in ends]).ravel(),
        kp=np.tile([g.kp for g in gains], len(LEGS)),
        kd=np.tile([g.kd for g in gains], len(LEGS)),
        torque_limit=np.tile(torque, len(LEGS)),
        no_load_speed=np.tile([MOTOR_SPEED, MOTOR_SPEED, MOTOR_SPEED / KNEE_REDUCTION], len(LEGS)),
        action_scale=np.array(0.3),
        armature=np.tile(armature, len(LEGS)),
        joint_friction=np.array(0.2),
        joint_damping=np.array(0.1),
        action_limit=4.0,
        control_period=0.02,
        standing_height=0.3,
        foot_radius=0.022,
        knee_radius=0.02,
        # as `barkour robot measure unitree_go2` finds the colliders: head, hind knees, hips
        footprint=Footprint(front=0.34, rear=0.36, half_width=0.173, stepping=(0.03, 0.04, 0.01), stance=(0.24, 0.16)),
        fall=Fall(clearance=0.12, learning_clearance=0.11, low=0.25),
        spread=Spread(
            trunk_mass=(-0.5, 2.0), joint_friction=(0.1, 0.35), joint_damping=(0.03, 0.3), no_load_speed=(27.0, 32.0)
        ),
        drives=Drives(watchdog=0.1, then="damp"),
        base_body="base",
        trunk_geoms=("trunk", "head", "chin"),
        bound=BOUND,
    )
