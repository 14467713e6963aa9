"""What `robot.transports.ros2` uses of this package, typed: ROS generates it without types."""
