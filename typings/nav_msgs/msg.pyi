from geometry_msgs.msg import PoseWithCovariance, TwistWithCovariance
from std_msgs.msg import Header

class Odometry:
    header: Header
    child_frame_id: str
    pose: PoseWithCovariance
    twist: TwistWithCovariance
    def __init__(self, *, child_frame_id: str = ...) -> None: ...
