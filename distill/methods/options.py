"""What `barkour recipe` is asked for. Light to import: shown without PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from sim.errors import InputError
from sim.options import Budget, Options, Range, Seed

NAMES = {"positional": True, "metavar": "[NAME ...]"}
SMALL = ("small", "real-small")
"""Presets for a computer's cores: seeds side by side, each with one thread."""


@dataclass(frozen=True)
class ListOptions(Options):
    """List the recipes by algorithm, skill and vertical."""


@dataclass(frozen=True)
class ShowOptions(Options):
    """Show a recipe: its claim, what would refute it, its arms, signals, data and real scale."""

    name: str
    """of the recipe"""
    domain: str = ""
    """another field for recipes that have one, such as the robot's"""
    preset: str = "small"
    """real-small: on real data, for recipes that have it"""


@dataclass(frozen=True)
class ExperimentOptions(Options):
    """How the experiment of a recipe is run."""

    seed: Seed | None = None
    """first seed; without it that of the first ones in a row that no claim has as its pilot's, which give no verdict"""
    seeds: Annotated[int, Range(0, 1000)] = 0
    """how many seeds; 0: as many as the recipe's verdict asks for"""
    out: Path = Path("runs/recipes")
    """folder of results, one below it for each recipe; finished arms there are kept"""
    data: Path | None = None
    """folder of real text in place of what is generated"""
    preset: str = "small"
    """sizes of models and data; real-small: on real data of --data, for recipes that have it"""
    domain: str = ""
    """another field for recipes that have one, such as the robot's"""
    robot: str = ""
    """with --domain robot: the name of the robot whose walker is learned from; without it barkour_v0"""
    budget: Budget = 1.0
    """share of the recipe's steps; less than 1 tries the code and proves nothing"""
    save: bool = False
    """keep the students of every arm and seed in the recipe's folder, as folders that load again"""
    workers: Annotated[int, Range(0, 256)] = 0
    """processes, or with --pool slurm jobs at the same time; 0: one a core, or all jobs"""
    pool: Literal["local", "slurm"] = "local"
    """where seeds are computed: in processes here, or each as a job of a Slurm cluster whose machines see --out (extra
    cluster)"""
    slurm: tuple[str, ...] = ()
    """of the jobs, as NAME=VALUE each: partition=long timeout_min=600 mem_gb=8, or what else sbatch takes"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.preset not in SMALL:
            why = f"with --preset {self.preset}: its seeds run one after the other"
            self.refuse(("workers", "pool"), why)
        if self.domain != "robot":
            self.refuse(("robot",), "without --domain robot")
        if self.pool == "local":
            self.refuse(("slurm",), "without --pool slurm")


@dataclass(frozen=True)
class PlannedOptions(ExperimentOptions):
    """An experiment, or what it would take."""

    plan: bool = False
    """show configs, shapes and sharding at real scale in place of a run"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan:
            run = ("seed", "seeds", "out", "data", "preset", "robot", "budget", "save", "workers", "pool")
            self.refuse(run, "with --plan")


@dataclass(frozen=True, kw_only=True)
class RecipeRunOptions(PlannedOptions):
    """Run a recipe's experiment, or what is left of it, and judge its claim."""

    name: str
    """of the recipe"""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(PlannedOptions):
    """Run several recipes one after the other, and merge their verdicts."""

    names: tuple[str, ...] = field(default=(), metadata=NAMES)
    """of the recipes; all without one"""
    budget: Budget | Literal["small"] = 1.0  # pyright: ignore[reportIncompatibleVariableOverride] (a word more)
    """share of each recipe's steps, less than 1 proves nothing; small: all steps, of as many seeds as --hours
    allow, of each recipe at least as many as are computed at the same time"""
    hours: Annotated[float, Range(0.0, 10_000.0)] | None = None
    """of the clock, which --budget small is to keep to; 4 without"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget == "small":
            self.refuse(("seeds",), "with --budget small, which says how many")
        else:
            self.refuse(("hours",), "without --budget small")
        if len(set(self.names)) < len(self.names):
            raise InputError(f"a recipe is named twice: {', '.join(self.names)}")
        if self.plan and not self.names:
            raise InputError("--plan needs the recipes' names")
