"""What a gait clock is, as data: how the legs of a robot move in turn. `sim.gait` turns it into joint angles."""

from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from sim.errors import InputError

CORNERS = ("front_left", "hind_left", "front_right", "hind_right")
"""Where the legs of a quadruped stand. A gait's phases are given in this order, whatever the robot's own is."""


@dataclass(frozen=True)
class LegPair:
    """What the front or the hind legs do besides the common motion; all rad. Signs are those of a leg that is extended
    and swings forward, whichever way the robot's own joints count (`Leg`)."""

    push: float = 0.0
    """Extension in mid-stance, times the leg's `extension` at hip and knee."""
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
    phase_offsets: tuple[float, ...] = (0.0, 0.5, 0.5, 0.0)
    """Phase of each leg in cycles, in the order of `CORNERS`."""
    push: float = 0.32
    """How far stance legs extend in mid-stance, rad: hip and knee turn by `push` times the leg's `extension`."""
    lift_per_relief: float = 2.5
    """How far swing legs fold in mid-swing, rad for each metre of `relief` around the robot."""
    most_relief: float = 0.12
    """Relief above this counts as this, m."""
    standing_speed: float = 0.05
    """Below this command (m/s and rad/s together) the clock rests and the robot stands."""
    front: LegPair = LegPair()
    hind: LegPair = LegPair()
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
    """The policy itself turns the clock: its last action is added to `frequency`, Hz. Nothing else moves it."""
    scale: float = 1.0
    """Actions move joint targets by this many times the robot's action scale."""

    @cached_property
    def moves_joints(self) -> bool:
        """Whether the clock itself moves a joint anywhere in its cycle: that of a policy which drives it need not."""
        pairs = [getattr(pair, item.name) for pair in (self.front, self.hind) for item in fields(pair)]
        return any(np.any(value) for value in (self.push, self.lift_per_relief, *pairs))

    def actions(self, joints: int) -> int:
        """Numbers that a policy with this clock puts out: one per joint and, if it drives the clock, its frequency."""
        return joints + 1 if self.driven else joints

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
        for key, count in (("phase_offsets", len(CORNERS)), ("frequency_range", 2)):
            if key in values:
                values[key] = _numbers(key, values[key], count)
        for key in ("front", "hind"):
            if key in values:
                values[key] = _pair(key, values[key])
        for key in known - {"name", "phase_offsets", "frequency_range", "front", "hind", "driven"}:
            if key in values and not _finite(values[key]):
                raise InputError(f"gait needs a number for '{key}', got {values[key]!r}")
        if not isinstance(values["name"], str) or type(values.get("driven", False)) is not bool:
            raise InputError("gait needs a text for 'name', and true or false for 'driven'")
        gait = cls(**values)
        gait.check()
        return gait

    def check(self) -> None:
        """Raises `InputError` where a number is none that legs can follow (`SENSIBLE`, `PAIR`)."""
        given = {name: getattr(self, name) for name in SENSIBLE}
        for i, name in enumerate(CORNERS):
            given[f"phase_offsets of {name}"] = self.phase_offsets[i]
        for pair in ("front", "hind"):
            given |= {f"{name} of {pair}": value for name, value in asdict(getattr(self, pair)).items()}
        for name, value in given.items():
            low, high = SENSIBLE.get(name, (0.0, 1.0) if name.startswith("phase_offsets") else PAIR)
            if not low <= value <= high:
                raise InputError(f"gait has {value:g} for '{name}', which is not within {low:g} and {high:g}")
        low, high = self.frequency_range
        if not 0.0 < low <= high <= FASTEST:
            raise InputError(f"gait has {low:g}, {high:g} for 'frequency_range': up to {FASTEST:g} Hz, lowest first")


FASTEST = 10.0
"""No leg steps more often, Hz."""
SENSIBLE: dict[str, tuple[float, float]] = {
    "frequency": (0.1, FASTEST),
    "frequency_per_speed": (0.0, 5.0),
    "push": (-1.6, 1.6),  # a quarter turn
    "lift_per_relief": (0.0, 20.0),
    "most_relief": (0.0, 0.5),
    "standing_speed": (0.0, 0.5),
    "stride": (0.0, 5.0),
    "lock_gain": (0.0, 20.0),
    "lock_range": (0.0, 0.9),
    "lock_phase": (0.0, 1.0),
    "scale": (0.1, 10.0),
}
"""What the numbers of a gait lie within, in their units."""
PAIR = (-3.2, 3.2)
"""The same for those of a `LegPair`: half a turn, rad, and cycles."""
ADDED = {"front", "hind", "stride", "frequency_range", "lock_gain", "lock_range", "lock_phase", "driven", "scale"}
"""Keys that files written before they existed may lack."""


def _finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9


def _numbers(key: str, values: Any, count: int) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple)) or len(values) != count or not all(map(_finite, values)):
        raise InputError(f"gait needs {count} numbers in '{key}', got {values!r}")
    return tuple(values)


def _pair(key: str, values: Any) -> LegPair:
    names = {f.name for f in fields(LegPair)}
    if not isinstance(values, dict) or set(values) != names or not all(map(_finite, values.values())):
        raise InputError(f"gait needs numbers for {sorted(names)} in '{key}', got {values!r}")
    return LegPair(**values)


DRIVEN = Gait(name="driven", push=0.0, lift_per_relief=0.0, driven=True, scale=1.5)
"""The clock of a policy that steps by itself: nothing is added to its joint targets."""
