"""What acts: the 50 Hz control loop, its safety, transports and simulated hardware."""
