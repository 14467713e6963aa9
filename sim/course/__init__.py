"""The course: obstacles, gates, files, generator, terrain, scene and score."""
