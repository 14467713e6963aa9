"""Robots that speak Unitree's messages over DDS, and a simulated one that does."""
