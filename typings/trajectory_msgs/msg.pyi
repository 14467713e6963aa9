from array import array
from collections.abc import Sequence

from builtin_interfaces.msg import Duration
from std_msgs.msg import Header

class JointTrajectoryPoint:
    positions: array[float]
    velocities: array[float]
    time_from_start: Duration
    def __init__(self, *, velocities: array[float] = ...) -> None: ...

class JointTrajectory:
    header: Header
    joint_names: Sequence[str]
    points: Sequence[JointTrajectoryPoint]
    def __init__(self, *, joint_names: Sequence[str] = ..., points: Sequence[JointTrajectoryPoint] = ...) -> None: ...
