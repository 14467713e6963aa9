from std_msgs.msg import Header

class Vector3:
    x: float
    y: float
    z: float

class Point:
    x: float
    y: float
    z: float

class Quaternion:
    x: float
    y: float
    z: float
    w: float

class Pose:
    position: Point
    orientation: Quaternion

class PoseWithCovariance:
    pose: Pose

class Twist:
    linear: Vector3
    angular: Vector3

class TwistWithCovariance:
    twist: Twist

class TwistStamped:
    header: Header
    twist: Twist
