"""The world: robot model, course, terrain, sensors, physics, environments, score."""
