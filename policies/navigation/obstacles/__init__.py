"""How a robot is led over each kind of obstacle, one module each; importing this package registers them."""

from policies.navigation.obstacles import a_frame, broad_jump, tables, weave_poles
from policies.navigation.obstacles.base import RouteRequest, way_over

__all__ = ["RouteRequest", "a_frame", "broad_jump", "tables", "way_over", "weave_poles"]
