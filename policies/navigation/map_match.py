"""How far poses are off the course's map, from the ground that the feet stand on. It runs onboard.

Poses of odometry drift, and nothing in them tells of it. Where the map is sloped, the ground does: a foot that stands
higher than the map says is further up the slope. What a slope does not tell of (a drift across it, any drift on the
flat) stays unknown; level ground tells of the height alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from policies.estimation.odometry import Odometry

Ground = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Height of the map (m) at x, y (m), vectorised."""


@dataclass(frozen=True)
class MatchTuning:
    """The filter's numbers, each with its unit and reason."""

    drift: float = 0.03
    """m by which poses come to be off per root of a metre of way: 9 cm after 9 m, as 1 % of the way is."""
    rise: float = 0.01
    """The same of their height."""
    noise: float = 0.05
    """m by which feet and map differ otherwise, in a control step: poses' heights, joints, feet that slip. More than in
    any one step, since neighbouring steps are off alike. By hand."""
    reach: float = 0.04
    """m around a foot in which the map must be a plane: edges tell of nothing reliably."""
    bent: float = 0.005
    """m off a plane at which it is an edge."""
    strange: float = 0.15
    """m between a foot and the map from which it is not learned from."""
    steep: float = 0.8
    """Slope from which a wall is no ground."""


class MapMatch:
    """Of one robot. Once a control period `see`; `offset` is what is to be taken off its poses."""

    def __init__(self, ground: Ground, foot_radius: float, tuning: MatchTuning = MatchTuning()) -> None:
        """`foot_radius` in m."""
        self.ground, self.radius, self.tuning = ground, foot_radius, tuning
        self.reset()

    def reset(self) -> None:
        """Poses are right here and now."""
        self.offset = np.zeros(3)
        """x, y and z (m) of a pose less the truth."""
        self.covariance = np.zeros((3, 3))
        self._last: np.ndarray | None = None

    def see(self, place: np.ndarray, feet: np.ndarray) -> None:
        """Takes in where feet stand.

        Args:
          place: x, y, z (m) and heading (rad) of the base by its poses, `[4]`.
          feet: centres of the feet that stand, from the base, m `[n, 3]`: ahead and left in its heading, and up.
        """
        tuning = self.tuning
        way = 0.0 if self._last is None else float(np.linalg.norm(place[:2] - self._last))
        self._last = np.array(place[:2])
        self.covariance += way * np.diag([tuning.drift**2, tuning.drift**2, tuning.rise**2])
        if not len(feet):
            return
        c, s = np.cos(place[3]), np.sin(place[3])
        here = place[:3] - self.offset
        x = here[0] + c * feet[:, 0] - s * feet[:, 1]
        y = here[1] + s * feet[:, 0] + c * feet[:, 1]
        height, slope, plane = self._map(x, y)
        missed = here[2] + feet[:, 2] - self.radius * np.sqrt(1 + (slope**2).sum(1)) - height
        good = plane & (np.abs(missed) < tuning.strange) & ((slope**2).sum(1) < tuning.steep**2)
        if not good.any():
            return
        # An offset that is larger by e puts the robot lower by e_z, and the map under it by slope . e_xy.
        watch = np.array([*(-slope[good].mean(0)), 1.0])
        known = self.covariance @ watch
        gain = known / (watch @ known + tuning.noise**2)
        self.offset = self.offset + gain * float(missed[good].mean())
        self.covariance = self.covariance - np.outer(gain, known)

    def _map(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Height under points `[n]`, slope along x and y `[n, 2]`, and whether the map is a plane around them."""
        r = self.tuning.reach
        around = np.array([[0.0, 0.0], [r, 0.0], [-r, 0.0], [0.0, r], [0.0, -r]])
        z = self.ground(x[:, None] + around[:, 0], y[:, None] + around[:, 1])
        slope = np.stack([z[:, 1] - z[:, 2], z[:, 3] - z[:, 4]], 1) / (2 * r)
        bent = np.abs(np.stack([z[:, 1] + z[:, 2], z[:, 3] + z[:, 4]], 1) / 2 - z[:, :1]).max(1)
        return z[:, 0], slope, bent < self.tuning.bent


class OwnPlace:
    """Where a robot is by its own senses and the map, without anything that sees it."""

    def __init__(self, odometry: Odometry, match: MapMatch) -> None:
        self.odometry, self.match = odometry, match

    def see(self) -> None:
        """Holds what the robot reckons against the map. To be called once a control period."""
        self.match.see(self.odometry.place, self.odometry.feet)

    @property
    def place(self) -> np.ndarray:
        """x, y, z (m) and heading (rad) now, `[4]`."""
        return self.odometry.place - np.append(self.match.offset, 0.0)
