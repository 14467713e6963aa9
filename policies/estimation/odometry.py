"""How a robot has moved since it was last asked, by its own senses: what poses that come late and noisy lack."""

from typing import NamedTuple

import numpy as np

from policies.estimation.filter import ContactFilter
from policies.estimation.kinematics import Array
from sim.errors import InputError
from sim.planar import to_body, wrap
from sim.robots.description import Robot


class Motion(NamedTuple):
    """Mean velocity of a base over a period; ahead and aside are seen from its heading in the middle of it."""

    forward: float
    """m/s."""
    left: float
    """m/s."""
    up: float
    """m/s."""
    around: float
    """rad/s."""


class Odometry:
    """Of one robot: readings go into `filter`, motion comes out."""

    def __init__(self, robot: Robot) -> None:
        """Raises `InputError` where the robot's legs cannot be read."""
        self.filter = ContactFilter(robot)
        self._last = self.place

    def begin(self, position: Array, orientation: Array) -> None:
        """The base is at `position` (m `[3]`) with `orientation` (w, x, y, z), at rest."""
        self.filter.begin(position, orientation)
        self._last = self.place

    def moved(self, seconds: float) -> Motion:
        """The motion since the last call, which was `seconds` ago."""
        before, now = self._last, self.place
        self._last = now
        x, y, up, turned = (now - before).tolist()
        turned = float(wrap(turned))
        ahead, left = to_body(x, y, float(before[3]) + turned / 2)
        return Motion(float(ahead) / seconds, float(left) / seconds, up / seconds, turned / seconds)

    @property
    def feet(self) -> Array:
        """Centres of the feet that stand, from the base, m `[n, 3]`: ahead and left in its heading, and up."""
        place = self.place
        x, y, z = (self.filter.feet[self.filter.standing] - place[:3]).T
        ahead, left = to_body(x, y, float(place[3]))
        return np.stack([ahead, left, z], 1)

    @property
    def place(self) -> Array:
        """x, y, z (m) and heading (rad) of the base, `[4]`, as the filter has them."""
        return np.array([*self.filter.position, self.filter.heading])


def odometry_of(robot: Robot) -> Odometry | None:
    """That of a robot; None where its legs cannot be read."""
    try:
        return Odometry(robot)
    except InputError:
        return None
