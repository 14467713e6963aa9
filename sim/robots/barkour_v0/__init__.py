"""Barkour v0, the quadruped of arXiv 2305.14654: 11.5 kg, twelve joints, four legs.

Zero angles are upper legs horizontal and pointing back with the knees folded; larger angles are longer legs.
"""

from pathlib import Path

import numpy as np

from sim.robots.description import Drives, Fall, Leg, Robot, Spread
from sim.robots.footprint import Footprint
from sim.robots.gaits import CORNERS, Gait, LegPair

JOINTS = ("abduction", "hip", "knee")

BOUND = Gait(
    name="bound",
    phase_offsets=(0.0, 0.505, 0.0, 0.505),
    push=0.0,
    lift_per_relief=0.0,
    front=LegPair(push=0.408, fold=0.328, swing=0.322, swing_phase=0.385, hip=-0.082, knee=0.153),
    hind=LegPair(push=0.364, fold=0.241, swing=0.224, swing_phase=0.703, hip=-0.155, knee=0.44),
    stride=0.76,
    frequency_range=(2.3, 3.0),
    lock_gain=4.0,
    lock_range=0.3,
    lock_phase=0.6,
)
"""The jumper's clock, from `python -m sim.envs.gait_search --seed 3 --population 224`: 4 m in 3 s without a policy. In
`lock_phase` both pairs' prints lie equally far before and behind the base, measured on that run at 1.9 m/s."""


def robot() -> Robot:
    """Barkour v0 (arXiv 2305.14654 section V; joint ranges and masses from the published MJCF of the robot).

    Gains: the published model has kp 35 and kd 0.65 (plus 0.52 joint damping in its MJX form), the paper's hardware ran
    20 and 0.5; we take 35 and 1.0, a spring of 9.0 Hz at 0.81 of critical damping on the motor's own inertia. Peak
    torque 18 N m is the MJX model's; the paper states 12 N m.
    """
    names = tuple(f"{joint}_{corner}" for corner in CORNERS for joint in JOINTS)
    lower = {"abduction": (-1.0472, -1.0472), "hip": (-1.22173, -1.98968), "knee": (0.0, 0.0)}
    upper = {"abduction": (1.0472, 1.0472), "hip": (3.24631, 2.46091), "knee": (2.5132, 2.5132)}
    hind = [int(corner.startswith("hind")) for corner in CORNERS]
    pose = np.tile(np.array([0.0, 0.5, 1.0], np.float32), len(CORNERS))
    return Robot(
        name="barkour_v0",
        mjcf=Path(__file__).with_name("robot.xml"),
        joint_names=names,
        legs=tuple(
            Leg(
                corner,
                abduction=f"abduction_{corner}",
                hip=f"hip_{corner}",
                knee=f"knee_{corner}",
                foot=f"foot_{corner}",
                shank=f"shank_{corner}",
            )
            for corner in CORNERS
        ),
        default_pose=pose,
        folded_pose=0.2 * pose,
        joint_lower=np.array([lower[joint][h] for h in hind for joint in JOINTS]),
        joint_upper=np.array([upper[joint][h] for h in hind for joint in JOINTS]),
        kp=np.array(35.0),
        kd=np.array(1.0),
        torque_limit=np.array(18.0),
        no_load_speed=np.array(25.0),
        action_scale=np.array(0.3),
        armature=np.array(0.01090125),
        joint_friction=np.array(0.1334),
        joint_damping=np.array(0.0239),
        action_limit=4.0,
        control_period=0.02,
        standing_height=0.2,
        foot_radius=0.014,
        knee_radius=0.03,
        # the mesh's bounding box reaches 0.27 m ahead and 0.43 m to the rear when it stands
        footprint=Footprint(front=0.25, rear=0.42, half_width=0.18, stepping=(0.04, 0.03, 0.01), stance=(0.2, 0.15)),
        fall=Fall(clearance=0.08, learning_clearance=0.07, low=0.17),
        spread=Spread(
            trunk_mass=(-0.5, 1.0), joint_friction=(0.05, 0.25), joint_damping=(0.01, 0.06), no_load_speed=(22.0, 28.0)
        ),
        drives=Drives(watchdog=0.1, then="damp"),
        base_body="chassis",
        trunk_geoms=("trunk", "head"),
        bound=BOUND,
    )
