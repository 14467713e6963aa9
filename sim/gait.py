"""The gait clock: an open-loop stepping motion that is added to the policy's joint targets.

A policy that starts from a stepping robot learns to walk in a tenth of the samples; at deployment the clock is part of
the controller and travels in the policy bundle. Pure functions over numpy or jax.numpy (`xp`).
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sim.errors import InputError


@dataclass(frozen=True)
class Gait:
    """A trot (diagonal legs together) or another fixed phase pattern."""

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

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready fields."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Gait":
        """Inverse of `to_dict`; unknown or missing keys raise `InputError`."""
        if set(fields) != set(cls.__dataclass_fields__):
            raise InputError(f"gait needs the keys {sorted(cls.__dataclass_fields__)}, got {sorted(fields)}")
        offsets = fields["phase_offsets"]
        if not isinstance(offsets, (list, tuple)) or len(offsets) != 4:
            raise InputError(f"gait needs four phase_offsets, got {offsets!r}")
        for key in ("frequency", "frequency_per_speed", "push", "lift_per_relief", "most_relief", "standing_speed"):
            if not _finite(fields[key]):
                raise InputError(f"gait needs a number for '{key}', got {fields[key]!r}")
        if not all(map(_finite, offsets)):
            raise InputError(f"gait needs four numbers in 'phase_offsets', got {offsets!r}")
        return cls(**{**fields, "phase_offsets": tuple(offsets)})


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def moving(xp: Any, gait: Gait, command: Any) -> Any:
    """1.0 where the command `[..., 3]` (m/s, m/s, rad/s) asks for motion, else 0.0, `[...]`."""
    size = xp.abs(command).sum(-1)
    return (size > gait.standing_speed).astype(xp.float32)


def advance(xp: Any, gait: Gait, phase: Any, command: Any, dt: float) -> Any:
    """Next phase in cycles, [0, 1). `phase` `[...]`, `command` `[..., 3]`; a resting clock goes back to 0."""
    speed = xp.sqrt(command[..., 0] ** 2 + command[..., 1] ** 2)
    frequency = gait.frequency + gait.frequency_per_speed * xp.maximum(speed - 1.0, 0.0)
    following = (phase + frequency * dt) % 1.0
    return (following * moving(xp, gait, command)).astype(xp.float32)


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
    fold = gait.lift_per_relief * xp.minimum(relief, gait.most_relief)[..., None]
    extension = gait.push * xp.maximum(_wave(xp, gait, phase), 0.0) - fold * swing(xp, gait, phase)
    extension = extension * moving(xp, gait, command)[..., None]
    legs = xp.stack([xp.zeros_like(extension), extension, 2 * extension], -1)
    return legs.reshape(*legs.shape[:-2], 12).astype(xp.float32)


def _wave(xp: Any, gait: Gait, phase: Any) -> Any:
    legs = (phase[..., None] + xp.asarray(gait.phase_offsets, dtype=xp.float32)) % 1.0
    return xp.sin(2 * np.pi * legs)
