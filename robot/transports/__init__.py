"""How the loop meets the outside: simulated hardware in its own process, or ROS 2."""
