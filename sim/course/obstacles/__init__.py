"""The kinds of obstacles, one module each; importing this package registers them."""

from sim.course.obstacles.a_frame import AFrame, AFrameObstacle, ramps
from sim.course.obstacles.base import KINDS, Gate, Obstacle, kind_of
from sim.course.obstacles.broad_jump import BERTH, Board, BroadJump
from sim.course.obstacles.tables import EndTable, StartTable, Table
from sim.course.obstacles.weave_poles import Pole, WeavePoles

__all__ = [
    "BERTH", "KINDS", "AFrame", "AFrameObstacle", "Board", "BroadJump", "EndTable", "Gate", "Obstacle", "Pole",
    "StartTable", "Table", "WeavePoles", "kind_of", "ramps",
]  # fmt: skip
