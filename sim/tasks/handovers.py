"""Episodes that begin as another skill handed the robot over: states recorded from runs of a course.

A jumper that has only learned to start from rest or from a drawn speed stumbles in its first bound behind a walker:
legs, tilt and clock are then anywhere. Here a share of the episodes begins in such states, with the joint targets
fading and the clock being set as they are in a run (`sim.handover`). `policies.learning.handovers` records them.
"""

from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from sim import observation as obs
from sim.arrays import Array, Namespace
from sim.errors import InputError
from sim.reading import read_arrays
from sim.robots.description import Robot
from sim.tasks.draws import Drawn

SHARE = 0.5
"""Of the episodes begin in a recorded state."""


class Handovers(NamedTuple):
    """N recorded moments in which a jumper takes a robot over, in the frame of the board ahead: x along the way, y to
    its left, origin in the middle of the board's near edge."""

    place: np.ndarray
    """x, y of the base, and its height over the ground, m `[N, 3]`."""
    orientation: np.ndarray
    """Unit quaternion (w, x, y, z), board from base, `[N, 4]`."""
    joints: np.ndarray
    """rad `[N, J]`."""
    velocity: np.ndarray
    """Of the base in the board's frame (m/s), about its own axes (rad/s), of the joints (rad/s): `[N, 6 + J]`."""
    history: np.ndarray
    """Frames, the newest first: `[N, HISTORY, frame_size]`, as `sim.observation.frame` makes them."""
    targets: np.ndarray
    """Joint targets of the step before, rad `[N, J]`."""
    phase: np.ndarray
    """Of the clock in the new skill's first step, cycles `[N]`."""
    speed: np.ndarray
    """Commanded, m/s `[N]`."""

    @property
    def count(self) -> int:
        """N."""
        return len(self.phase)

    def save(self, file: Path) -> None:
        """Writes them as arrays by name."""
        with file.open("wb") as stream:
            np.savez_compressed(stream, **self._asdict())

    @classmethod
    def load(cls, file: Path, robot: Robot) -> Self:
        """What `save` wrote.

        Raises:
          InputError: no such file, or not hand-overs of this robot.
        """
        made = cls(**read_arrays(file, cls._fields, "the hand-overs"))
        made.check(robot, str(file))
        return made

    def check(self, robot: Robot, name: str) -> None:
        """Raises `InputError` where these are not finite hand-overs of `robot`."""
        n, j = self.count, robot.joints
        shapes = ((3,), (4,), (j,), (6 + j,), (obs.HISTORY, obs.frame_size(j)), (j,), (), ())
        fit = all(value.shape == (n, *shape) for value, shape in zip(self, shapes, strict=True))
        if not n or not fit or not all(np.isfinite(value).all() for value in self):
            raise InputError(f"{name} holds no hand-overs of the robot {robot.name}")

    def drawn(self, xp: Namespace, chance: Drawn) -> tuple[Array, "Handovers"]:
        """Which worlds begin in a recorded state, bool `[...]`, and a recorded state for each of them."""
        index = xp.minimum((chance.handed_state * self.count).astype(xp.int32), self.count - 1)
        return chance.handed < SHARE, Handovers(*(xp.asarray(value)[index] for value in self))
