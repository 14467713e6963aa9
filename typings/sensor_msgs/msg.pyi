from array import array
from collections.abc import Sequence

from geometry_msgs.msg import Quaternion, Vector3
from std_msgs.msg import Header

class JointState:
    header: Header
    name: Sequence[str]
    position: array[float]
    velocity: array[float]
    effort: array[float]
    def __init__(self, *, name: Sequence[str] = ...) -> None: ...

class Imu:
    header: Header
    orientation: Quaternion
    orientation_covariance: list[float]
    angular_velocity_covariance: list[float]
    angular_velocity: Vector3
    linear_acceleration: Vector3
    linear_acceleration_covariance: list[float]

class Image:
    header: Header
    height: int
    width: int
    encoding: str
    is_bigendian: int
    step: int
    data: array[int]
    def __init__(
        self,
        *,
        height: int = ...,
        width: int = ...,
        encoding: str = ...,
        is_bigendian: int = ...,
        step: int = ...,
        data: array[int] = ...,
    ) -> None: ...
