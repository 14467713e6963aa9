"""Where to go: planner, route, path and navigator."""
