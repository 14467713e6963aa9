"""Training environments: one definition of each task, run on either physics engine."""
