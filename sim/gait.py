"""The gait clock: an open-loop stepping motion that is added to the policy's joint targets.

A policy that starts from a stepping robot learns to walk in a tenth of the samples; at deployment the clock is part of
the controller and travels in the policy bundle. A clock may also time its strides like a long jumper in the run-up:
where a board is seen ahead, it runs a little faster or slower so that the robot passes the board's middle in a given
phase, with every foot in the air over the board (`stride_lock`). Pure functions over numpy or jax.numpy (`xp`).
"""

import numpy as np

from sim.arrays import Array, Namespace
from sim.robots.description import Robot
from sim.robots.gaits import CORNERS, Gait


def moving(xp: Namespace, gait: Gait, command: Array) -> Array:
    """1.0 where the command `[..., 3]` (m/s, m/s, rad/s) asks for motion, else 0.0, `[...]`."""
    size = xp.abs(command).sum(-1)
    return (size > gait.standing_speed).astype(xp.float32)


DRIVEN_RANGE = 0.5, 6.0
"""Limits of a driven clock, Hz."""


def advance(
    xp: Namespace, gait: Gait, phase: Array, command: Array, dt: float, board: Array = None, drive: Array = None
) -> Array:
    """Next phase in cycles, [0, 1). `phase` `[...]`, `command` `[..., 3]`; a resting clock goes back to 0.

    `board` and `drive` as in `frequency`.
    """
    following = (phase + frequency(xp, gait, phase, command, board, drive) * dt) % 1.0
    return (following * moving(xp, gait, command)).astype(xp.float32)


def frequency(
    xp: Namespace, gait: Gait, phase: Array, command: Array, board: Array = None, drive: Array = None
) -> Array:
    """How fast the clock turns, Hz `[...]`.

    `board` `[...]` is the distance to the middle of the board ahead, m (`sim.observation.board_ahead`); `drive` `[...]`
    what the policy adds where it drives the clock, Hz.
    """
    if gait.driven:
        return xp.clip(gait.frequency + (0.0 if drive is None else drive), *DRIVEN_RANGE)
    speed = xp.sqrt(command[..., 0] ** 2 + command[..., 1] ** 2)
    if gait.stride:
        turning = xp.clip(speed / gait.stride, *gait.frequency_range)
    else:
        turning = gait.frequency + gait.frequency_per_speed * xp.maximum(speed - 1.0, 0.0)
    if gait.lock_gain and board is not None:
        turning = turning * (1.0 + stride_lock(xp, gait, phase, turning, speed, board))
    return turning


def stride_lock(xp: Namespace, gait: Gait, phase: Array, frequency: Array, speed: Array, board: Array) -> Array:
    """Relative change of the clock's frequency, `[...]`, that makes up `stride_error`."""
    error = stride_error(xp, gait, phase, frequency, speed, board)
    return xp.clip(gait.lock_gain * error, -gait.lock_range, gait.lock_range)


def stride_error(xp: Namespace, gait: Gait, phase: Array, frequency: Array, speed: Array, board: Array) -> Array:
    """Cycles, -0.5 to 0.5 `[...]`, that the clock is behind one that brings the base over a board in `lock_phase`.

    With strides of the commanded speed over the frequency, the phase at distance d before the middle must be
    `lock_phase` - d / stride; the shorter way round. 0 where no board is seen (`board` infinite or NaN).
    """
    seen = xp.isfinite(board)
    wanted = gait.lock_phase - xp.where(seen, board, 0.0) / (xp.maximum(speed, 0.3) / frequency)
    return xp.where(seen, shorter_way(wanted - phase), 0.0)


def shorter_way(cycles: Array) -> Array:
    """A difference of two phases the shorter way round, -0.5 to 0.5 cycles."""
    return (cycles + 0.5) % 1.0 - 0.5


def clock(xp: Namespace, gait: Gait, phase: Array, command: Array) -> Array:
    """What the policy sees of the clock: sine and cosine of the phase, both 0 at rest, `[..., 2]`."""
    angle = 2 * np.pi * phase
    return xp.stack([xp.sin(angle), xp.cos(angle)], -1).astype(xp.float32) * moving(xp, gait, command)[..., None]


def swing(xp: Namespace, robot: Robot, gait: Gait, phase: Array) -> Array:
    """Each leg's swing, 0 in stance, up to 1 in mid-swing, `[..., legs]`: stance is a leg's first half cycle."""
    return xp.maximum(-_wave(xp, robot, gait, phase), 0.0)


def joint_offset(xp: Namespace, robot: Robot, gait: Gait, phase: Array, command: Array, relief: Array) -> Array:
    """Joint-angle offsets of the clock, rad, `[..., J]`: stance legs extend, swing legs fold over uneven ground.

    `relief` `[...]` is the height of the steps around the robot, m (`sim.observation.relief`). Hip and knee turn by
    each leg's `extension`, so that feet move straight down and up.
    """
    if not gait.moves_joints:
        shape = np.broadcast_shapes(np.shape(phase), np.shape(command)[:-1], np.shape(relief))
        return xp.zeros((*shape, robot.joints), xp.float32)

    def legs(name: str) -> Array:
        return _stacked(xp, [getattr(gait.front if leg.front else gait.hind, name) for leg in robot.legs])

    long_hip, long_knee, forward, open_knee = (xp.asarray(row) for row in robot.leg_signs)
    wave = _wave(xp, robot, gait, phase)
    fold = gait.lift_per_relief * xp.minimum(relief, gait.most_relief)[..., None] + legs("fold")
    extension = (gait.push + legs("push")) * xp.maximum(wave, 0.0) - fold * xp.maximum(-wave, 0.0)
    hip, knee = long_hip * extension + forward * legs("hip"), long_knee * extension + open_knee * legs("knee")
    if np.any(gait.front.swing) or np.any(gait.hind.swing):
        hip = hip + forward * legs("swing") * _wave(xp, robot, gait, phase, legs("swing_phase"))
    rest = moving(xp, gait, command)[..., None]
    joints = xp.stack([xp.zeros_like(hip), hip * rest, knee * rest], -1)
    joints = joints.reshape(*joints.shape[:-2], robot.joints)
    if robot.from_legs is not None:
        joints = joints[..., robot.from_legs]
    return joints.astype(xp.float32)


def _wave(xp: Namespace, robot: Robot, gait: Gait, phase: Array, ahead: Array = 0.0) -> Array:
    offsets = [gait.phase_offsets[CORNERS.index(leg.corner)] for leg in robot.legs]
    return xp.sin(2 * np.pi * ((phase[..., None] + _stacked(xp, offsets) + ahead) % 1.0))


def _stacked(xp: Namespace, values: Array) -> Array:
    """One value per leg, `[legs]`, or `[N, legs]` where a search tries many gaits at once (values are then `[N]`)."""
    if all(isinstance(value, float | int) for value in values):  # of one gait: in every control step
        return xp.asarray(np.array(values, np.float32))
    return xp.stack([xp.asarray(value, dtype=xp.float32) for value in values], -1)
