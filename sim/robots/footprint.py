"""A robot's outline from above: what a route keeps clear of poles and tables. Routes are planned for it alone."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Footprint:
    """The standing robot seen from above, m from the base's origin."""

    front: float
    """Reach of the body's rectangle ahead, to the rear and to each side."""
    rear: float
    half_width: float
    stepping: tuple[float, float, float]
    """How much further feet reach ahead, to the rear and to each side when it walks."""
    stance: tuple[float, float]
    """Half the distance between front and hind feet and between left and right feet, with some room."""

    @property
    def reach(self) -> tuple[float, float, float]:
        """Ahead, to the rear and to each side of a walking robot."""
        ahead, behind, aside = self.stepping
        return round(self.front + ahead, 6), round(self.rear + behind, 6), round(self.half_width + aside, 6)

    @property
    def corners(self) -> tuple[tuple[float, float], ...]:
        """The corners of `stance`, (x, y): under them the ground is looked at before a robot is put there."""
        x, y = self.stance
        return ((x, y), (x, -y), (-x, y), (-x, -y))
