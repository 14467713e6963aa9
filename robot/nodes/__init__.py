"""The programs of a robot on ROS 2."""
