"""Where a robot is by its own senses: an invariant Kalman filter over IMU, joints and feet, in numpy alone."""
