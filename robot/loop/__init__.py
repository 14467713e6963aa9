"""The control loop and all that it needs on a robot: clock, safety, policy, recording and replay."""
