"""What `barkour inspect` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from sim.options import Options


@dataclass(frozen=True)
class InspectOptions(Options):
    """Check a bundle and show what it says about itself."""

    file: Path
    """the bundle FILE.onnx"""
    robot: str | None = None
    """name or folder of its robot, where that is not known by its name"""
