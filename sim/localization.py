"""Where a robot believes it is: noise, delay, rate, drift and dropouts between its true pose and what it is told.

Motion capture, cameras and odometry all have some of these. With the defaults nothing is changed and nothing is drawn.
"""

from collections import deque
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Self

import numpy as np

from sim.errors import InputError
from sim.options import Range, flag, range_of
from sim.planar import wrap

PoseNoise = Annotated[float, Range(0, 1)]
"""Standard deviation, m."""
YawNoise = Annotated[float, Range(0, 1)]
"""Standard deviation, rad."""
PoseDelay = Annotated[float, Range(0, 2)]
"""s."""
PoseRate = Annotated[float, Range(0, 1000)]
"""Hz; 0: as often as there is anything new."""
PoseDrift = Annotated[float, Range(0, 1)]
"""Share of the way gone."""
PoseDropouts = Annotated[float, Range(0, 0.9)]
"""Share of the time."""
OWN_ODOMETRY = "own odometry"
"""In words, for conditions: no poses at all; IMU, joints, feet and the map."""
DROPOUT = 0.1
"""A dropout lasts so long on average, s."""


@dataclass(frozen=True)
class PoseErrors:
    """How wrong, late and rare poses are."""

    noise: PoseNoise = 0.0
    """Of x, y and z each, in every pose anew."""
    yaw_noise: YawNoise = 0.0
    """Of the heading, in every pose anew."""
    delay: PoseDelay = 0.0
    """From when a pose was true to when it is known."""
    rate: PoseRate = 0.0
    drift: PoseDrift = 0.0
    """The place is off by this share of the way gone so far, in a direction of the map that is drawn for each run."""
    dropouts: PoseDropouts = 0.0
    """Poses that never come, in dropouts of `DROPOUT` on average."""

    def __post_init__(self) -> None:
        for field in fields(self):
            allowed, value = range_of(PoseErrors.__annotations__[field.name]), getattr(self, field.name)
            if allowed is None or value not in allowed:
                raise InputError(f"{flag(f'pose_{field.name}')} must be a number from {allowed}, got {value}")

    @classmethod
    def of(cls, options: Any) -> Self:
        """From the options `pose_noise`, `pose_yaw_noise`, `pose_delay`, `pose_rate`, `pose_drift`, `pose_dropouts`."""
        return cls(**{field.name: getattr(options, f"pose_{field.name}") for field in fields(cls)})

    def __bool__(self) -> bool:
        """Whether anything is wrong with the poses at all."""
        return self != PoseErrors()

    def at_most(self, rate: float) -> Self:
        """The same where a pose comes at most `rate` times a second, Hz; no errors stay none."""
        return replace(self, rate=min(self.rate or rate, rate)) if self else self

    def options(self) -> dict[str, float]:
        """The options that say it, without those at their defaults."""
        return {f"pose_{f.name}": getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}

    def words(self) -> str:
        """In words, for conditions."""
        if not self:
            return "true pose"
        said = [
            f"noise {self.noise:g} m" if self.noise else "",
            f"{self.yaw_noise:g} rad" if self.yaw_noise else "",
            f"{self.delay:g} s late" if self.delay else "",
            f"{self.rate:g} Hz" if self.rate else "",
            f"drift {100 * self.drift:g} % of the way" if self.drift else "",
            f"{100 * self.dropouts:g} % dropouts" if self.dropouts else "",
        ]
        return "pose with " + ", ".join(filter(None, said))


def check_kinds(errors: PoseErrors, own_odometry: bool) -> None:
    """Raises `InputError` where poses have errors, and there are none: a robot goes by one kind or the other."""
    if own_odometry and errors:
        raise InputError("--own-odometry has the errors of its own: leave out the others of the pose")


POSE = tuple(f"pose_{field.name}" for field in fields(PoseErrors))
"""The options that say how wrong poses are."""


class Localization:
    """The poses that `len(seeds)` robots are told; what one is told depends on its own seed and motion alone."""

    def __init__(self, errors: PoseErrors, seeds: np.ndarray, true: np.ndarray) -> None:
        """The robots stand at `true` `[worlds, 4]`: x, y, z (m) and heading (rad), and know it but for the noise."""
        self.errors, n = errors, len(true)
        self._streams = [np.random.default_rng([0x10CA, int(seed)]) for seed in seeds]
        angle = 2 * np.pi * np.array([rng.random() for rng in self._streams])
        self._off = np.stack([np.cos(angle), np.sin(angle)], 1)
        self._way, self._last = np.zeros(n), np.array(true[:, :2])
        self._lost = np.zeros(n, bool)
        self._next = 1 / errors.rate if errors.rate else 0.0
        self._before: float | None = None
        self._coming: deque[tuple[float, np.ndarray, np.ndarray]] = deque()
        self.pose = self._measured(true)[0]
        """The newest pose that each robot knows, as `true` `[worlds, 4]`."""
        self.stamp = np.zeros(n)
        """When it was true, s `[worlds]`."""
        self.arrived = np.ones(n, bool)
        """Which robots were told a pose in the last `look`, `[worlds]`."""

    def look(self, time: float, true: np.ndarray) -> None:
        """Call whenever time has passed, at most a control period: the robots are at `true` `[worlds, 4]` at `time`, s.

        A pose is measured at the first call at or after its time and known from the first one at or after its arrival.
        """
        self._way += np.linalg.norm(true[:, :2] - self._last, axis=1)
        self._last = np.array(true[:, :2])
        if time >= self._next - 1e-9:
            period = 1 / self.errors.rate if self.errors.rate else 0.0
            self._next = max(self._next + period, time - period + 1e-6) if period else time
            self._coming.append((time, *self._measured(true, time)))
        self.arrived = np.zeros(len(true), bool)
        while self._coming and time >= self._coming[0][0] + self.errors.delay - 1e-9:
            stamp, pose, lost = self._coming.popleft()
            told = ~lost
            self.pose = np.where(told[:, None], pose, self.pose)
            self.stamp = np.where(told, stamp, self.stamp)
            self.arrived |= told

    def _measured(self, true: np.ndarray, time: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Poses with their errors `[worlds, 4]`, and which of them are lost `[worlds]`.

        Every pose takes five numbers of its robot's stream, whatever errors there are: runs with other errors share
        their chance.
        """
        errors = self.errors
        drawn = np.array([(*rng.standard_normal(4), rng.random()) for rng in self._streams])
        pose = np.array(true)
        pose[:, :3] += errors.noise * drawn[:, :3]
        pose[:, :2] += (errors.drift * self._way)[:, None] * self._off
        pose[:, 3] = wrap(pose[:, 3] + errors.yaw_noise * drawn[:, 3])
        if errors.dropouts and self._before is not None:
            end = min((time - self._before) / DROPOUT, 1.0)
            begin = min(end * errors.dropouts / (1 - errors.dropouts), 1.0)
            self._lost = np.where(self._lost, drawn[:, 4] >= end, drawn[:, 4] < begin)
        self._before = time
        return pose, np.array(self._lost)
