"""What `barkour score` is asked for."""

from dataclasses import dataclass
from pathlib import Path

from sim.options import Options


@dataclass(frozen=True)
class ScoreOptions(Options):
    """Score a pose log (CSV of time s, x m, y m) as the official scorer does."""

    log: Path
    """file of lines time,x,y"""
    touched_jump: bool = False
    """the robot touched the broad jump's board"""
    course: str = "official"
    """as for run"""
    whole_seconds: bool = False
    """count only whole seconds over the allotted time, as the paper's text does"""
