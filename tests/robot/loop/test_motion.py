"""Each monitor of the robot's motion by itself: quiet while everything agrees, and there when something does not."""

import math
from dataclasses import replace

import numpy as np
import pytest

from robot.loop.motion import (
    CommandsAgree,
    CommandsAnswer,
    DrivesObey,
    FeetOnGround,
    GridUnderFeet,
    HeadingAgainstTurn,
    Motion,
    PoseAgainstMotion,
    PoseHops,
    ReadingsInTime,
    Stance,
    turn_of,
)
from robot.loop.refusals import Code
from robot.loop.safety import Action, Limits
from robot.loop.terrain import TerrainHeights
from robot.loop.transport import NS, Snapshot
from sim.robots.description import robot_by_name
from sim.robots.kinematics import Feet

ROBOT, LIMITS = robot_by_name("barkour_v0"), Limits()
POSE = np.asarray(ROBOT.default_pose, float)
STANDING = Feet.of(ROBOT).places(POSE)
PERIOD = 0.02


def snapshot(**changes) -> Snapshot:
    seen = Snapshot.blank(ROBOT.joints)
    seen.position = POSE.copy()
    for name, value in changes.items():
        setattr(seen, name, value)
    return seen


def walking(k: int, *, speed: float = 1.0, yaw: float = 0.0, slip: float = 0.0) -> Stance:
    """A trot in step `k`: diagonal pairs stand in turn, each for five steps, while the other pair swings."""
    seconds = PERIOD * k
    along = np.zeros(4)
    up = np.zeros(4)
    for leg in range(4):
        phase = (k + 5 * (leg in (1, 2))) % 10
        along[leg] = speed * (1 - slip) * PERIOD * (2.5 - phase if phase < 5 else phase - 7.5)
        up[leg] = 0.0 if phase <= 5 else 0.05
    feet = STANDING + np.stack([along, 0 * along, up], 1)
    feet = feet @ turn_of(np.array([1.0, 0.0, 0.0, 0.0]), yaw).T
    place = speed * seconds * np.array([math.cos(yaw), math.sin(yaw)])
    height = ROBOT.foot_radius - STANDING[:, 2].min()
    return Stance(np.array([*place, height, yaw]), yaw, feet, np.array([speed, 0.0, 0.0]),
                  np.array([speed, 0.0, 0.0]), PERIOD)  # fmt: skip


def first(monitor, change=lambda k, stance: stance, steps: int = 150, begin: int = 60, **walk):
    """In which step after `begin`, when `change` sets in, the monitor speaks; None if never."""
    for k in range(steps):
        stance = walking(k, **walk)
        if monitor.see(change(k - begin, stance) if k >= begin else stance) is not None:
            return k - begin
    return None


def moved(stance: Stance, pose) -> Stance:
    return Stance(np.asarray(pose, float), stance.attitude_yaw, stance.feet, stance.told, stance.command, PERIOD)


@pytest.mark.parametrize("yaw", [0.0, 2.5])
@pytest.mark.parametrize("slip", [0.0, 0.4, -0.4])
def test_a_walk_on_slipping_feet_agrees_with_its_pose(yaw, slip):
    assert first(PoseAgainstMotion(LIMITS.pose_differs), yaw=yaw, slip=slip) is None
    assert first(HeadingAgainstTurn(LIMITS.heading_differs), yaw=yaw) is None
    assert first(PoseHops(LIMITS.pose_hops), yaw=yaw) is None


def test_a_pose_that_stays_runs_off_or_is_turned_does_not():
    kept: list[np.ndarray] = []

    def stays(k, stance):
        kept.append(stance.pose)
        return moved(stance, kept[0])

    steps = LIMITS.pose_differs / PERIOD
    told = first(PoseAgainstMotion(LIMITS.pose_differs), stays)
    assert told is not None and told <= steps + 5
    off = first(
        PoseAgainstMotion(LIMITS.pose_differs), lambda k, s: moved(s, s.pose + [0.0, 2.0 * PERIOD * k, 0.0, 0.0])
    )
    assert off is not None and off <= steps / 2 + 5


def test_a_robot_that_slides_down_a_ramp_agrees_with_its_pose_and_a_place_that_runs_off_there_does_not():
    def sliding(tilt, speed):
        return lambda k, s: replace(moved(s, s.pose - [speed * PERIOD * k, 0.0, 0.0, 0.0]), tilt=tilt)

    slid, steep = 1.05, 0.55  # m/s back, rad
    assert first(PoseAgainstMotion(LIMITS.pose_differs), sliding(0.1, slid)) is not None
    assert first(PoseAgainstMotion(LIMITS.pose_differs), sliding(steep, slid)) is None
    assert first(PoseAgainstMotion(LIMITS.pose_differs), sliding(steep, 2.0 * slid)) is not None


def test_a_heading_that_turns_alone_is_known_at_once():
    assert first(HeadingAgainstTurn(0.7), lambda k, s: moved(s, s.pose + [0, 0, 0, 1.5])) == 0
    assert first(HeadingAgainstTurn(0.7), lambda k, s: moved(s, s.pose + [0, 0, 0, 0.02 * k])) is None
    assert first(HeadingAgainstTurn(0.7), lambda k, s: moved(s, s.pose + [0, 0, 0, 2 * math.pi])) is None


def test_a_pose_that_hops_is_known_and_one_hop_is_none():
    hop = [0.0, 0.3, 0.0, 0.0]
    assert first(PoseHops(2), lambda k, s: moved(s, s.pose + np.array(hop) * (k % 2))) == 3
    assert first(PoseHops(2), lambda k, s: moved(s, s.pose + hop)) is None


def test_feet_tell_how_high_and_how_level_the_base_is():
    def told(pose, lean=(0.0, 0.0), ground=lambda feet: np.zeros(4), tilt=0.0, looks=30):
        monitor, said = FeetOnGround(LIMITS.feet_height, LIMITS.feet_lean, ROBOT), set()
        for k in range(looks):
            stance = walking(k)
            leaned = stance.feet @ turn_of(np.array([1.0, 0.5 * lean[0], 0.5 * lean[1], 0.0])).T
            leaned = Stance(stance.pose + pose, 0.0, leaned, stance.told, stance.command, PERIOD, tilt)
            below = ground(leaned.feet)
            said |= {refusal.code for refusal in monitor.see(leaned, below, below, STANDING)}
        return said

    assert told([0, 0, 0, 0]) == set() == told([0, 0, 0.1, 0])
    assert told([0, 0, 0.4, 0]) == {Code.FEET_HEIGHT} == told([0, 0, -0.4, 0])
    for lean in ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)):
        assert Code.FEET_LEAN in told([0, 0, 0, 0], lean)
        reared = 1.1 * FeetOnGround.REARS
        assert Code.FEET_LEAN not in told([0, 0, 0, 0], lean, tilt=reared, looks=FeetOnGround.WINDOW + 5)
        assert Code.FEET_LEAN in told([0, 0, 0, 0], lean, tilt=reared, looks=FeetOnGround.WINDOW + FeetOnGround.LASTS)
        slope = np.array([lean[1], -lean[0]])  # a ramp that leans as the robot does
        ramp = told([0, 0, 0, 0], lean, lambda feet, slope=slope: -np.tan(slope[0]) * feet[:, 0] - np.tan(slope[1])
                    * feet[:, 1])  # fmt: skip
        assert Code.FEET_LEAN not in ramp


@pytest.mark.parametrize("leg", range(4))
def test_a_robot_that_hangs_on_a_pole_by_one_foot_does_not_lean_by_it(leg):
    """It is tilted and three feet stand; of a level robot a foot that never stands is a lean, as all four then lie in
    no plane by fault of the attitude or the map."""

    def told(tilt: float, feet: tuple[int, ...]) -> set[Code]:
        monitor, said = FeetOnGround(LIMITS.feet_height, LIMITS.feet_lean, ROBOT), set()
        for k in range(FeetOnGround.WINDOW + 3 * FeetOnGround.LASTS):
            stance = walking(k)
            places = stance.feet.copy()
            places[list(feet), 2] += 0.3
            hung = Stance(stance.pose, 0.0, places, stance.told, stance.command, PERIOD, tilt)
            said |= {refusal.code for refusal in monitor.see(hung, np.zeros(4), np.zeros(4), STANDING)}
        return said

    reared = 1.1 * FeetOnGround.REARS
    assert Code.FEET_LEAN not in told(reared, (leg,)) and Code.FEET_LEAN in told(0.0, (leg,))
    sides = [k for k in range(4) if ROBOT.legs[k].corner.endswith("left") == ROBOT.legs[leg].corner.endswith("left")]
    assert Code.FEET_LEAN in told(reared, tuple(sides)), "a side that never stands lies in a plane with the other"


def drives(change, steps: int = 40, efforts=True):
    """The step in which the monitor speaks of joints that swing by their targets; `change(torque)` is what is given."""
    monitor, phase = DrivesObey(LIMITS.drive_differs, ROBOT), np.arange(ROBOT.joints)
    before = POSE
    for k in range(steps):
        position = POSE + 0.1 * np.sin(15 * PERIOD * k + phase)
        velocity = 1.5 * np.cos(15 * PERIOD * k + phase)
        torque = np.clip(ROBOT.kp * (before - position) - ROBOT.kd * velocity, -ROBOT.torque_limit, ROBOT.torque_limit)
        effort = change(torque.copy()) if efforts else np.full(ROBOT.joints, np.nan)
        seen = snapshot(position=position, velocity=velocity, effort=effort, joints_time=k)
        if monitor.see(before, seen) is not None:
            return k
        before = POSE + 0.5 * np.sin(15 * PERIOD * (k + 1) + phase)
    return None


def test_drives_that_give_what_is_asked_or_a_little_less_obey():
    assert drives(lambda torque: torque) is None and drives(lambda torque: 0.6 * torque) is None
    assert drives(lambda torque: 0 * torque, efforts=False) is None
    assert drives(lambda torque: 0 * torque) is None, "a driver that does not know the torques"


@pytest.mark.parametrize("joint", [0, 4, 11])
@pytest.mark.parametrize("share", [0.0, -1.0])
def test_one_drive_that_does_not_obey_is_known(joint, share):
    def wrong(torque):
        torque[joint] *= share
        return torque

    told = drives(wrong)
    assert told is not None and told < 25


def test_old_readings_say_nothing_of_new_targets():
    monitor = DrivesObey(LIMITS.drive_differs, ROBOT)
    for k in range(20):
        seen = snapshot(effort=np.full(ROBOT.joints, 1e-3), joints_time=min(k, 5))
        assert monitor.see(POSE + (0.6 if k > 5 else 0.0), seen) is None


def test_targets_of_two_joints_that_are_exchanged_are_known():
    assert drives(lambda torque: torque[[*range(5), 8, 6, 7, 5, *range(9, 12)]]) is not None


def test_readings_that_come_in_every_step_are_in_time_and_every_second_are_not():
    def told(every):
        monitor = ReadingsInTime(2)
        for k in range(30):
            time = k // every * every
            if monitor.see(snapshot(joints_time=time, imu_time=k)) is not None:
                return k
        return None

    assert told(1) is None and told(2) == 5 and told(3) is not None and told(4) < 6


def test_a_command_that_stays_is_stuck_where_a_navigator_steers():
    same = np.array([1.0, 0.0, 0.1])

    def stuck(k, stance):
        return Stance(stance.pose, 0.0, stance.feet, same, stance.command, PERIOD, told_at=1 + k)

    def lives(k, stance):
        return Stance(stance.pose, 0.0, stance.feet, same + 1e-9 * k, stance.command, PERIOD, told_at=1 + k)

    def silent(k, stance):
        """None for 0.6 s, while the robot goes 0.6 m, then the next: that is late, and its age says so."""
        return replace(stuck(0, stance) if k < 30 else lives(k, stance), told_at=1 if k < 30 else 1 + k)

    assert first(CommandsAnswer(0.0), stuck) is None
    monitor = CommandsAnswer(0.3)
    alive = first(monitor, lives, begin=0)
    assert alive is None
    assert first(CommandsAnswer(0.3), stuck, begin=0) in (16, 15)
    assert first(CommandsAnswer(0.3), silent, begin=0) is None


def test_commands_that_jump_to_and_fro_are_of_two():
    def told(commands):
        monitor = CommandsAgree(3)
        return [monitor.see(np.array(c)) is not None for c in commands]

    one, other = [1.2, 0.0, 0.0], [-0.5, 0.0, 1.0]
    assert told([one, other] * 4) == [False] * 4 + [True] * 4
    assert not any(told([one] * 10 + [other] * 10 + [one] * 10))


def test_a_grid_is_held_against_feet_that_stand_on_it_and_against_the_body():
    above_map = np.array([0.0, 0.01, 0.3, 0.2, 0.2])
    assert GridUnderFeet(0.2).see(above_map, np.array([0.02, 0.0, 0.7, 0.7, 0.2])) is None
    assert GridUnderFeet(0.2).see(above_map, np.array([0.4, 0.0, 0.3, 0.2, 0.2])) is not None
    assert GridUnderFeet(0.2).see(above_map, np.array([np.nan] * 4 + [-0.1])) is not None
    assert GridUnderFeet(0.2).see(above_map, np.full(5, np.nan)) is None


def test_what_is_wrong_with_a_drive_damps_and_with_the_pose_brakes():
    motion = Motion(ROBOT, LIMITS.of(ROBOT), TerrainHeights(ROBOT, None))
    height = ROBOT.foot_radius - float(STANDING[:, 2].min())
    said: dict[Code, Action] = {}
    for k in range(60):
        seen = snapshot(effort=np.full(ROBOT.joints, 15.0 * (k > 50)), joints_time=k, imu_time=k,
                        pose=np.array([0.0, 0.0, height, 1.5 * (k > 40)]))  # fmt: skip
        for verdict in motion.see(NS + round(k * PERIOD * NS), seen, POSE, np.zeros(3), True):
            said[verdict.code] = verdict.action
    assert said == {Code.HEADING_DISAGREES: Action.STOP, Code.DRIVE: Action.DAMP}
    motion.reset()
    assert motion.see(NS, snapshot(joints_time=99, imu_time=99), POSE, np.zeros(3), True) == []
