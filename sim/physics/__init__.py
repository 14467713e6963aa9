"""Physics engines behind one interface: MuJoCo C on threads (`cpu`) and MJX on an accelerator (`mjx`)."""
