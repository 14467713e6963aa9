"""What is planned: a body, what it may do, and where it has to go."""

from dataclasses import dataclass, field

import numpy as np

from sim.course.description import Gate, Pole
from sim.planar import to_body
from sim.robots.footprint import Footprint


@dataclass(frozen=True)
class Body:
    """The robot seen from above: a rectangle around its base, m."""

    front: float
    rear: float
    half_width: float

    @classmethod
    def of(cls, footprint: Footprint) -> "Body":
        """A standing robot's."""
        return cls(footprint.front, footprint.rear, footprint.half_width)

    def distance(self, pose: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Signed distance `[..., P]` from the rectangle at `pose [..., 3]` to `points [P, 2]`; negative inside."""
        dx, dy = points[:, 0] - pose[..., 0, None], points[:, 1] - pose[..., 1, None]
        x, y = to_body(dx, dy, pose[..., 2, None])
        ox, oy = np.maximum(x - self.front, -self.rear - x), np.abs(y) - self.half_width
        return np.hypot(np.maximum(ox, 0), np.maximum(oy, 0)) + np.minimum(np.maximum(ox, oy), 0)


@dataclass(frozen=True)
class Envelope:
    """Speeds (m/s, rad/s, body frame) and accelerations (m/s^2, rad/s^2) that a plan may use.

    The defaults are a careful walker's, for a problem that is solved on its own; a route brings those of its `Paces`.
    """

    forward: tuple[float, float] = (-1.0, 1.4)
    sideways: float = 0.75
    yaw: float = 1.3
    acceleration: float = 2.2
    yaw_acceleration: float = 5.0


@dataclass(frozen=True, eq=False)
class Problem:
    """From a pose through gates to a pose. Poses are (x, y, yaw); velocities in the world, m/s."""

    start: np.ndarray
    end: np.ndarray
    body: Body
    gates: tuple[Gate, ...] = ()
    poles: tuple[Pole, ...] = ()
    start_velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    end_velocity: np.ndarray | None = None
    """None leaves it free."""
    section_weights: tuple[float, ...] = ()
    """How much the time of each section counts (one more than gates); 1 where not given."""
    envelope: Envelope = Envelope()
    margin: float = 0.05
    """Free space between the body and a pole, m."""
    margins: tuple[float, ...] = ()
    """The same for the first poles one by one; `margin` for the others."""
    gate_margin: float = 0.2
    """Distance of a crossing from a gate's ends, m: at 0.1 a robot that follows 0.2 s late missed gates with an open
    end, which the fastest ways cut. By hand."""
    gate_share: float = 0.4
    """The same as a share of the gate's width, at most: narrow gates keep a part to cross. By hand."""
    knots: int = 12
    """Per section. By hand."""
