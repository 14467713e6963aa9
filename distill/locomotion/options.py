"""What `barkour distill locomotion` is asked for. Light to import: the front door shows it without PyTorch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from sim import options
from sim.errors import InputError
from sim.options import Range, Seed, Threads, Torque

OPTIONS = "options.json"
"""Where a run keeps the options it was begun with."""
SIMULATED = (
    "teachers", "rounds", "first_rows", "rows", "steps", "beta_decay", "smoothing", "between", "anywhere", "weak",
    "nominal", "score_runs", "patience", "threads",
)  # fmt: skip
"""Options that say how experience is made and students are scored."""
FINE_TUNED = ("tuned", "exploration", "failure_seconds", "near_teachers")
"""Options of fine-tuning."""
IMITATED = ("beta_decay", "smoothing", "between", "anywhere", "average")
"""Options of imitation."""
Rows = Annotated[int, Range(1, 10**8)]
Steps = Annotated[int, Range(1, 10**7)]
Share = Annotated[float, Range(0, 1)]


def is_run(path: Path) -> bool:
    """Whether a folder holds a run of this recipe."""
    return (path / OPTIONS).is_file()


@dataclass(frozen=True)
class Options(options.Options):
    """Distil the walk, climb and jump specialists into one Locomotion-Transformer."""

    teachers: str = "specialists"
    """specialists, or a bundle FILE.onnx that walks, climbs and jumps"""
    robot: str | None = None
    """as for run"""
    recordings: Path | None = None
    """folder with recordings *.mcap of runs to learn from alone, in place of teachers and simulator"""
    out: Path | None = None
    """the bundle FILE.onnx to write; generalist.onnx in the run's folder without it"""
    run: Path = Path("runs/generalist")
    """folder of the run: data, checkpoints, curve, summary"""
    resume: bool = False
    """continue the run in --run"""
    force: bool = False
    """replace an existing bundle"""
    start_from: Path | None = None
    """bundle FILE.onnx of an earlier student whose parameters to begin with; --context may be shorter than its own"""
    seed: Seed = 0
    """of parameters, data and batches"""
    rounds: Annotated[int, Range(0, 1000)] = 8
    """rounds in which the student drives, after one of behavioural cloning"""
    first_rows: Rows = 150_000
    """control steps that each domain (course, walk, climb, jump) collects at first"""
    rows: Rows = 40_000
    """control steps that each domain collects in every later round"""
    first_steps: Steps = 2500
    """optimiser steps of the first round"""
    steps: Steps = 500
    """optimiser steps of every later round"""
    batch: Annotated[int, Range(1, 2**16)] = 192
    """windows in a batch"""
    learning_rate: Annotated[float, Range(0, 1, above=True)] = 1e-3
    """largest, after the warm-up"""
    average: Annotated[float, Range(0, 0.99999)] = 0.0
    """decay, per optimiser step, of a moving average of the student's parameters that drives and is kept; 0: none"""
    beta_decay: Share = 0.3
    """the specialists drive this share of round 1, its square of round 2, and so on"""
    smoothing: Share = 0.5
    """how far the mixture of domains follows where the student lags; 0: equal shares"""
    width: Annotated[int, Range(1, 4096)] | None = None
    """of the Transformer, a multiple of its 4 heads; without it that of --start-from, or 128"""
    layers: Annotated[int, Range(1, 64)] | None = None
    """of the Transformer; without it those of --start-from, or 3"""
    context: Annotated[int, Range(1, 60)] | None = None
    """control steps that the student sees; without it those of --start-from, or 15"""
    target_step: Annotated[float, Range(0, 10)] = 0.0
    """largest change of a joint target that the student makes in a control step, rad; 0: as it likes"""
    courses: tuple[str, ...] = ("official",)
    """courses on which experience is collected"""
    between: Annotated[int, Range(0, 1000)] = 0
    """courses of every two obstacles that are a domain of their own, for the hand-overs; 0: no such domain"""
    anywhere: bool = False
    """pieces of the courses from anywhere on their ways are a domain of their own, for every phase of the gait"""
    weak: Torque | None = None
    """peak torque of the motors, N m, in as many runs of courses, the short ones too, as have the robot's own"""
    nominal: bool = False
    """as many runs of courses again without randomisation, where latency is the longest that is drawn"""
    score_runs: Annotated[int, Range(1, 100_000)] = 32
    """runs of the first course that score the student after each round"""
    keep: Literal["best", "last"] = "best"
    """the round whose student is exported: scores of few runs differ by chance, and averages by little"""
    patience: Annotated[int, Range(0, 10_000)] = 0
    """stop after so many rounds without a better score; 0: never"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """of the arithmetic in training: float32, or mixed"""
    fine_tune: bool = False
    """train the student of --start-from on by PPO on whole courses, with the course's score as return"""
    tuned: Literal["head", "all"] = "head"
    """what is fine-tuned: the last layer, or every layer, which takes far more experience"""
    exploration: Annotated[float, Range(0, 1, above=True)] = 0.1
    """standard deviation of its actions while it is fine-tuned, in action units"""
    failure_seconds: Annotated[float, Range(0, 100)] = 4.0
    """what a failed obstacle costs in its return; the official score's is 10"""
    near_teachers: Annotated[float, Range(0, 100)] = 1e-3
    """weight of how far it is from its teachers' actions (a KL divergence) in fine-tuning"""
    threads: Threads = 0
    """physics threads; 0 takes every core"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.recordings is not None:
            self.refuse((*SIMULATED, "fine_tune"), "with --recordings")
        if not self.fine_tune:
            self.refuse(FINE_TUNED, "without --fine-tune")
        else:
            self.refuse(IMITATED, "with --fine-tune")
            if self.start_from is None:
                raise InputError("--fine-tune needs --start-from, the student that is to be fine-tuned")
