"""Ways that a robot is to follow: planned motions as a navigator asks for them, in place of velocities at random.

A walker that has only followed random velocities answers late by as much as its gait's phase happens to leave it, and a
navigator cannot foresee that. On a way it is asked for the velocity a lag ahead, corrected by how far it is off, as
`policies.navigation.navigator` asks; what pays is the velocity that the way has now. `policies.learning.ways` plans
them.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.observation import Preview
from sim.planar import to_body, to_world, wrap
from sim.reading import read_arrays
from sim.tasks.draws import Drawn

DRAWS = (("way", 4),)
"""What a way draws; see `sim.tasks.draws`."""
SHARE = 0.75
"""Of the commands on flat ground are ways."""
LEAD, TURN_LEAD = 0.2, 0.1
"""s that velocity and yaw rate are asked for ahead of time: about a walker's lags."""
GAIN, TURN_GAIN = 2.2, 3.0
"""1/s: velocity per metre off the way, yaw rate per radian; the navigator's."""
RATES = (0.8, 1.2)
"""How fast a way is gone along, as a share of its plan's."""
LONGER = 2.0
"""s that a way is followed beyond a drawn command's life."""
WAITS = 0.3
"""m off its place on the way at which the way waits for a robot."""
LEFT = 1.5
"""s before a way's end until which it may be begun."""
POLES = 4
"""Weave poles that stand around a robot at a time: the nearest of its way."""
NOWHERE = 500.0
"""m from the world's middle, in x, at which poles stand that are not there."""
NUMBERS = 7
"""Of `TaskState.way`: whether there is one, which, the time along it (s), its rate, and the pose (x, y, yaw) that its
own frame has in the world."""


class Ways(NamedTuple):
    """N planned motions in control periods, each in a frame of its own."""

    pose: np.ndarray
    """x, y (m) and unwrapped heading (rad), `[N, T, 3]`."""
    velocity: np.ndarray
    """Of these, m/s and rad/s `[N, T, 3]`, in that frame too."""
    steps: np.ndarray
    """How many of the T belong to each, `[N]`; the last pose is then kept, at rest."""
    poles: np.ndarray
    """x, y (m) of the weave poles that stand by each, `[N, P, 2]` in its frame; `NOWHERE` for those that are missing"""

    @classmethod
    def of(cls, poses: list[np.ndarray], period: float, poles: list[np.ndarray] | None = None) -> Self:
        """From poses `[T_i, 3]` every `period` s and the poles `[P_i, 2]` by each, and their mirror images."""
        both = [*poses, *(pose * [1, -1, -1] for pose in poses)]
        poles = poles or [np.zeros((0, 2)) for _ in poses]
        standing = np.full((len(both), max(POLES, *map(len, poles)), 2), [NOWHERE, 0.0], np.float32)
        for row, places in zip(standing, [*poles, *(places * [1, -1] for places in poles)], strict=True):
            row[: len(places)] = places
        longest = max(map(len, both)) + 1
        pose = np.stack([np.pad(p, ((0, longest - len(p)), (0, 0)), "edge") for p in both])
        velocity = np.gradient(pose, period, axis=1)
        steps = np.array([len(p) for p in both], np.float32)
        return cls(pose.astype(np.float32), velocity.astype(np.float32), steps, standing)

    def save(self, file: Path) -> None:
        """Writes them as arrays by name."""
        with file.open("wb") as stream:
            np.savez_compressed(stream, **self._asdict())

    @classmethod
    def load(cls, file: Path) -> Self:
        """What `save` wrote.

        Raises:
          InputError: no such file, or not ways.
        """
        arrays = read_arrays(file, cls._fields[:-1], "the planned ways", cls._fields[-1:])
        without = np.full((len(arrays["steps"]), POLES, 2), [NOWHERE, 0.0], np.float32)  # before they had poles
        made = cls(**{"poles": without, **arrays})
        n, t = made.pose.shape[:2] if made.pose.ndim == 3 else (0, 0)
        fit = made.pose.shape == made.velocity.shape == (n, t, 3) and made.steps.shape == (n,)
        fit &= made.poles.ndim == 3 and made.poles.shape[::2] == (n, 2) and made.poles.shape[1] >= POLES
        if not fit or (made.steps < 1).any() or (made.steps > t).any():
            raise InputError(f"{file} holds no planned ways")
        return made

    def drawn(self, xp: Namespace, chance: Drawn, place: Array, yaw: Array, here: Array, period: float) -> Array:
        """`TaskState.way` `[..., 7]` of robots that begin one at `place` `[..., 2]` (m), heading `yaw` (rad); zeros
        where `here` (bool `[...]`) there are none, and for the share that follow no way."""
        u = chance.way
        index = xp.minimum((u[..., 1] * len(self.steps)).astype(xp.int32), len(self.steps) - 1)
        last = xp.maximum(xp.asarray(self.steps)[index] * period - LEFT, 0.0)
        time, rate = u[..., 2] * last, RATES[0] + u[..., 3] * (RATES[1] - RATES[0])
        start = self._at(xp, self.pose, index, time / period)
        turned = yaw - start[..., 2]
        x, y = to_world(start[..., 0], start[..., 1], turned, xp)
        way = xp.stack([xp.ones_like(time), index, time, rate, place[..., 0] - x, place[..., 1] - y, turned], -1)
        return xp.where((here & (u[..., 0] < SHARE))[..., None], way, 0.0).astype(xp.float32)

    def onward(self, xp: Namespace, way: Array, place: Array, period: float) -> Array:
        """The ways `[..., 7]` a control period on; they wait for a robot that is far off."""
        off = self._reference(xp, way, period)[..., :2] - place
        waits = (off**2).sum(-1) > WAITS**2
        time = way[..., 2] + xp.where(waits, 0.0, way[..., 3] * period)
        return xp.concatenate([way[..., :2], time[..., None], way[..., 3:]], -1).astype(xp.float32)

    def velocity_of(
        self, xp: Namespace, way: Array, place: Array, yaw: Array, period: float, lead: float = 0.0, turn: float = 0.0
    ) -> Array:
        """What a robot at `place`, heading `yaw`, is to do, m/s, m/s and rad/s `[..., 3]` in its heading frame.

        The way's velocity `lead` s, its yaw rate `turn` s later, and what brings a robot that is off back.
        """
        reference = self._reference(xp, way, period)
        ahead, around = (self._rate(xp, way, period, later) for later in (lead, turn))
        off = reference[..., :2] - place
        x, y = ahead[..., 0] + GAIN * off[..., 0], ahead[..., 1] + GAIN * off[..., 1]
        left = wrap(reference[..., 2] - yaw)
        return xp.stack([*to_body(x, y, yaw, xp), around[..., 2] + TURN_GAIN * left], -1).astype(xp.float32)

    def standing(self, xp: Namespace, way: Array, place: Array) -> Array:
        """Where the `POLES` poles of its way that are nearest to a robot at `place` `[..., 2]` stand, m
        `[..., POLES, 2]` in the world; `NOWHERE` for one that follows no way."""
        own = xp.asarray(self.poles)[way[..., 1].astype(xp.int32)]
        x, y = to_world(own[..., 0], own[..., 1], way[..., 6:], xp)
        places = xp.stack([x + way[..., 4:5], y + way[..., 5:6]], -1)
        there = (way[..., :1] > 0) & (own[..., 0] < NOWHERE)
        places = xp.where(there[..., None], places, xp.asarray([NOWHERE, 0.0], dtype=xp.float32))
        order = xp.argsort(((places - place[..., None, :]) ** 2).sum(-1), -1)[..., :POLES, None]
        return xp.take_along_axis(places, order, -2).astype(xp.float32)

    def preview(self, xp: Namespace, preview: Preview, way: Array, place: Array, yaw: Array, period: float) -> Array:
        """What a robot at `place`, heading `yaw`, sees of its way's next moments, `[..., len(preview.seconds), 3]`."""
        pose = xp.concatenate([place, xp.asarray(yaw)[..., None]], -1)
        planned = self._rate if preview.of == "velocity" else self._reference
        rows = [preview.moment(xp, later, planned(xp, way, period, later), pose) for later in preview.seconds]
        return xp.stack(rows, -2).astype(xp.float32)

    def _reference(self, xp: Namespace, way: Array, period: float, later: float = 0.0) -> Array:
        """Where the ways are `later` s ahead, in the world `[..., 3]`."""
        when = (way[..., 2] + later * way[..., 3]) / period
        own = self._at(xp, self.pose, way[..., 1].astype(xp.int32), when)
        x, y = to_world(own[..., 0], own[..., 1], way[..., 6], xp)
        return xp.stack([x + way[..., 4], y + way[..., 5], own[..., 2] + way[..., 6]], -1)

    def _rate(self, xp: Namespace, way: Array, period: float, later: float) -> Array:
        """Velocity and yaw rate of the ways `later` s ahead, in the world `[..., 3]`."""
        rate = way[..., 3:4]
        when = (way[..., 2] + later * way[..., 3]) / period
        own = self._at(xp, self.velocity, way[..., 1].astype(xp.int32), when) * rate
        return xp.stack([*to_world(own[..., 0], own[..., 1], way[..., 6], xp), own[..., 2]], -1)

    def _at(self, xp: Namespace, table: np.ndarray, index: Array, step: Array) -> Array:
        """Between two entries of a table `[N, T, 3]`, `[..., 3]`."""
        step = xp.clip(step, 0.0, table.shape[1] - 1.001)
        low = step.astype(xp.int32)
        part = (step - low)[..., None]
        rows = xp.asarray(table)
        return rows[index, low] * (1 - part) + rows[index, low + 1] * part
