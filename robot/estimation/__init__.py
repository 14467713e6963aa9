"""How far a robot that goes by its own senses is off."""
