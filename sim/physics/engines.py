"""Engines by name. Light to import: command lines name them."""

from typing import Literal

Engine = Literal["cpu", "drake", "mjx"]
"""MuJoCo's C engine, Drake, or MuJoCo's JAX engine."""
WORDS: dict[Engine, str] = {"cpu": "MuJoCo C engine", "drake": "Drake", "mjx": "MJX"}
