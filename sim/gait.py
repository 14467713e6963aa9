"""The gait clock: an open-loop stepping motion that is added to the policy's joint targets.

A policy that starts from a stepping robot learns to walk in a tenth of the samples; at deployment the clock is part of
the controller and travels in the policy bundle. A clock may also time its strides like a long jumper in the run-up:
where a board is seen ahead, it runs a little faster or slower so that the robot passes the board's middle in a given
phase, with every foot in the air over the board (`stride_lock`). Pure functions over numpy or jax.numpy (`xp`).
"""

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from sim.errors import InputError


@dataclass(frozen=True)
class Pair:
    """What the front or the hind legs do besides the common motion; all rad. Larger angles are longer legs."""

    push: float = 0.0
    """Extension in mid-stance: the hip opens by it, the knee by twice as much."""
    fold: float = 0.0
    """Flexion in mid-swing, the same way."""
    swing: float = 0.0
    """Amplitude of the hip's swing to and fro."""
    swing_phase: float = 0.0
    """By how many cycles it runs ahead of the leg's own phase."""
    hip: float = 0.0
    """Constant offset of the hip."""
    knee: float = 0.0
    """Constant offset of the knee."""


@dataclass(frozen=True)
class Gait:
    """A trot (diagonal legs together), a bound (front legs together, hind legs together) or another phase pattern."""

    name: str = "trot"
    frequency: float = 2.5
    """Steps of one leg per second at low speed, Hz."""
    frequency_per_speed: float = 0.5
    """Added Hz for each m/s of commanded planar speed above 1 m/s."""
    phase_offsets: tuple[float, float, float, float] = (0.0, 0.5, 0.5, 0.0)
    """Phase of each leg in cycles, leg order front left, hind left, front right, hind right."""
    push: float = 0.32
    """How far stance legs extend in mid-stance, rad: the hip opens by `push`, the knee by twice as much."""
    lift_per_relief: float = 2.5
    """How far swing legs fold in mid-swing, rad at the hip for each metre of `relief` around the robot."""
    most_relief: float = 0.12
    """Relief above this counts as this, m."""
    standing_speed: float = 0.05
    """Below this command (m/s and rad/s together) the clock rests and the robot stands."""
    front: Pair = Pair()
    hind: Pair = Pair()
    stride: float = 0.0
    """Metres of ground per cycle: the clock turns at commanded speed / `stride`, and `frequency` does not count."""
    frequency_range: tuple[float, float] = (2.3, 3.0)
    """Limits of that frequency, Hz."""
    lock_gain: float = 0.0
    """Relative change of the frequency for a phase error of one cycle at the board; 0 never times strides."""
    lock_range: float = 0.25
    """Largest relative change."""
    lock_phase: float = 0.0
    """Phase in which the base is to pass the middle of a board, cycles."""
    driven: bool = False
    """The policy itself turns the clock: its 13th action is added to `frequency`, Hz. Nothing else moves it."""
    scale: float = 1.0
    """Actions move joint targets by this many times the robot's action scale."""

    @property
    def actions(self) -> int:
        """Numbers that a policy with this clock puts out: one per joint and, if it drives the clock, its frequency."""
        return 13 if self.driven else 12

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields; those of `DRIVEN` only where the clock is driven."""
        fields = asdict(self)
        return fields if self.driven else {name: fields[name] for name in fields if name not in ("driven", "scale")}

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Gait":
        """Inverse of `to_dict`. Keys of `ADDED` may be missing and are then neutral; others raise `InputError`."""
        known = set(cls.__dataclass_fields__)
        if not known - ADDED <= set(fields) <= known:
            raise InputError(f"gait needs the keys {sorted(known)}, got {sorted(fields)}")
        values = dict(fields)
        for key, count in (("phase_offsets", 4), ("frequency_range", 2)):
            if key in values:
                values[key] = _numbers(key, values[key], count)
        for key in ("front", "hind"):
            if key in values:
                values[key] = _pair(key, values[key])
        for key in known - {"name", "phase_offsets", "frequency_range", "front", "hind"}:
            if key in values and not _finite(values[key]):
                raise InputError(f"gait needs a number for '{key}', got {values[key]!r}")
        return cls(**values)


ADDED = {"front", "hind", "stride", "frequency_range", "lock_gain", "lock_range", "lock_phase", "driven", "scale"}
"""Keys that files written before they existed may lack."""

BOUND = Gait(
    name="bound",
    phase_offsets=(0.0, 0.505, 0.0, 0.505),
    push=0.0,
    lift_per_relief=0.0,
    front=Pair(push=0.408, fold=0.328, swing=0.322, swing_phase=0.385, hip=-0.082, knee=0.153),
    hind=Pair(push=0.364, fold=0.241, swing=0.224, swing_phase=0.703, hip=-0.155, knee=0.44),
    stride=0.76,
    frequency_range=(2.3, 3.0),
    lock_gain=4.0,
    lock_range=0.3,
    lock_phase=0.6,
)
"""The jumper's clock, from `python -m sim.envs.gait_search --seed 3 --population 224`: 4 m in 3 s without a policy. In
`lock_phase` both pairs' prints lie equally far before and behind the base, measured on that run at 1.9 m/s."""


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _numbers(key: str, values: Any, count: int) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != count or not all(map(_finite, values)):
        words = {2: "two", 4: "four"}[count]
        raise InputError(f"gait needs {words} numbers in '{key}', got {values!r}")
    return tuple(values)


def _pair(key: str, values: Any) -> Pair:
    names = {f.name for f in fields(Pair)}
    if not isinstance(values, dict) or set(values) != names or not all(map(_finite, values.values())):
        raise InputError(f"gait needs numbers for {sorted(names)} in '{key}', got {values!r}")
    return Pair(**values)


def moving(xp: Any, gait: Gait, command: Any) -> Any:
    """1.0 where the command `[..., 3]` (m/s, m/s, rad/s) asks for motion, else 0.0, `[...]`."""
    size = xp.abs(command).sum(-1)
    return (size > gait.standing_speed).astype(xp.float32)


DRIVEN = Gait(name="driven", push=0.0, lift_per_relief=0.0, driven=True, scale=1.5)
"""The clock of a policy that steps by itself: nothing is added to its joint targets."""

DRIVEN_RANGE = 0.5, 6.0
"""Limits of a driven clock, Hz."""


def advance(xp: Any, gait: Gait, phase: Any, command: Any, dt: float, board: Any = None, drive: Any = None) -> Any:
    """Next phase in cycles, [0, 1). `phase` `[...]`, `command` `[..., 3]`; a resting clock goes back to 0.

    `board` and `drive` as in `frequency`.
    """
    following = (phase + frequency(xp, gait, phase, command, board, drive) * dt) % 1.0
    return (following * moving(xp, gait, command)).astype(xp.float32)


def frequency(xp: Any, gait: Gait, phase: Any, command: Any, board: Any = None, drive: Any = None) -> Any:
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


def stride_lock(xp: Any, gait: Gait, phase: Any, frequency: Any, speed: Any, board: Any) -> Any:
    """Relative change of the clock's frequency, `[...]`, that makes up `stride_error`."""
    error = stride_error(xp, gait, phase, frequency, speed, board)
    return xp.clip(gait.lock_gain * error, -gait.lock_range, gait.lock_range)


def stride_error(xp: Any, gait: Gait, phase: Any, frequency: Any, speed: Any, board: Any) -> Any:
    """Cycles, -0.5 to 0.5 `[...]`, that the clock is behind one that brings the base over a board in `lock_phase`.

    With strides of the commanded speed over the frequency, the phase at distance d before the middle must be
    `lock_phase` - d / stride; the shorter way round. 0 where no board is seen (`board` infinite or NaN).
    """
    seen = xp.isfinite(board)
    wanted = gait.lock_phase - xp.where(seen, board, 0.0) / (xp.maximum(speed, 0.3) / frequency)
    return xp.where(seen, shorter_way(wanted - phase), 0.0)


def shorter_way(cycles: Any) -> Any:
    """A difference of two phases the shorter way round, -0.5 to 0.5 cycles."""
    return (cycles + 0.5) % 1.0 - 0.5


def clock(xp: Any, gait: Gait, phase: Any, command: Any) -> Any:
    """What the policy sees of the clock: sine and cosine of the phase, both 0 at rest, `[..., 2]`."""
    angle = 2 * np.pi * phase
    return xp.stack([xp.sin(angle), xp.cos(angle)], -1).astype(xp.float32) * moving(xp, gait, command)[..., None]


def swing(xp: Any, gait: Gait, phase: Any) -> Any:
    """Each leg's swing, 0 in stance, up to 1 in mid-swing, `[..., 4]`: stance is a leg's first half cycle."""
    return xp.maximum(-_wave(xp, gait, phase), 0.0)


def joint_offset(xp: Any, gait: Gait, phase: Any, command: Any, relief: Any) -> Any:
    """Joint-angle offsets of the clock, rad, `[..., 12]`: stance legs extend, swing legs fold over uneven ground.

    `relief` `[...]` is the height of the steps around the robot, m (`sim.observation.relief`). The knee turns twice as
    far as the hip, so that feet move straight down and up; larger angles are longer legs.
    """

    def legs(name: str) -> Any:  # leg order: front left, hind left, front right, hind right
        return _stacked(xp, [getattr(pair, name) for pair in (gait.front, gait.hind) * 2])

    wave = _wave(xp, gait, phase)
    fold = gait.lift_per_relief * xp.minimum(relief, gait.most_relief)[..., None] + legs("fold")
    extension = (gait.push + legs("push")) * xp.maximum(wave, 0.0) - fold * xp.maximum(-wave, 0.0)
    hip, knee = extension + legs("hip"), 2 * extension + legs("knee")
    if np.any(gait.front.swing) or np.any(gait.hind.swing):
        hip = hip + legs("swing") * _wave(xp, gait, phase, legs("swing_phase"))
    rest = moving(xp, gait, command)[..., None]
    joints = xp.stack([xp.zeros_like(hip), hip * rest, knee * rest], -1)
    return joints.reshape(*joints.shape[:-2], 12).astype(xp.float32)


def _wave(xp: Any, gait: Gait, phase: Any, ahead: Any = 0.0) -> Any:
    legs = (phase[..., None] + _stacked(xp, gait.phase_offsets) + ahead) % 1.0
    return xp.sin(2 * np.pi * legs)


def _stacked(xp: Any, values: Any) -> Any:
    """One value per leg, `[4]`, or `[N, 4]` where a search tries many gaits at once (values are then `[N]`)."""
    return xp.stack([xp.asarray(value, dtype=xp.float32) for value in values], -1)
