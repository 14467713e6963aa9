"""The paper's ablations of the Locomotion-Transformer on a reduced budget, behavioural cloning alone, seeds in pairs.

    python -m benchmarks.ablations --data RUN/data --out runs/ablations

Against a base of width 64 with two layers (`--width`, `--layers`): an MLP of equal size, contexts of 1, 5 and 30 steps,
a tenth and a hundredth of the data, three other sizes. Every arm sees the same number of windows of the same shards in
the same order (of seed and share of the data), and is then scored over the same randomised runs of the official course.
The shards are the run's first round, which its teachers drove alone, or those of all of its rounds, which show what a
student gets into (`--rounds all`): cloning the first alone teaches hardly any arm the course. The paper (arXiv
2305.14654, section IV-B and its ablations) says: the Transformer beats a larger MLP, longer contexts and bigger models
are better, 10 % of the data do as well as all, 1 % fails. Finished arms are kept, so the command can be stopped and
called again.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from distill.core.checkpoints import write_text
from distill.core.errors import DistillError
from distill.core.objectives.actions import SquaredError
from distill.core.schedules import WarmupCosine
from distill.core.shards import Shards
from distill.core.teachers import RecordedActions
from distill.locomotion.course import course_score
from distill.locomotion.experience import Windows
from distill.locomotion.student import TransformerStudent
from distill.methods.statistics import Interval
from policies.skills.library import load_skills
from policies.transformer import LocomotionTransformer, TransformerConfig
from sim.course.description import official
from sim.errors import InputError

BASE = TransformerConfig(width=64, layers=2)
BASE_ARM, MLP = "base", "mlp of equal size"


@dataclass(frozen=True)
class Arm:
    """One variant."""

    config: TransformerConfig = BASE
    share: float = 1.0
    """Part of the episodes that it may train on."""


def arms(base: TransformerConfig = BASE) -> dict[str, Arm]:
    """Name -> variant; all but the sizes named by their numbers differ from `base` in one thing."""
    sizes = ((32, 1), (96, 3), (128, 3))
    return {
        BASE_ARM: Arm(base),
        MLP: Arm(mlp_of_equal_size(base)),
        **{f"context {n}": Arm(replace(base, context=n)) for n in (1, 5, 30)},
        **{f"{share:.0%} of the data".replace("%", " %"): Arm(base, share) for share in (0.1, 0.01)},
        **{
            f"width {width}, {layers} layer{'s' * (layers > 1)}": Arm(replace(base, width=width, layers=layers))
            for width, layers in sizes
        },
    }


def mlp_of_equal_size(base: TransformerConfig) -> TransformerConfig:
    """Two hidden layers, the second of four fifths of the first, with as many parameters as `base` or just fewer."""
    goal = LocomotionTransformer(base).size
    low, high = 1, goal
    while high - low > 1:
        middle = (low + high) // 2
        hidden = (middle, max(1, 4 * middle // 5))
        with torch.device("meta"):
            size = LocomotionTransformer(replace(base, kind="mlp", hidden=hidden)).size
        low, high = (middle, high) if size <= goal else (low, middle)
    return replace(base, kind="mlp", hidden=(low, max(1, 4 * low // 5)))


CLAIMS = (
    ("the Transformer beats an MLP", "base", "mlp of equal size"),
    ("15 steps of context beat 5", BASE_ARM, "context 5"),
    ("15 steps of context beat 1", "base", "context 1"),
    ("30 steps of context beat 15", "context 30", "base"),
    ("all of the data beat 1 %", "base", "1 % of the data"),
    ("10 % of the data do as well as all", "10 % of the data", "base"),
    ("a bigger model is better", "width 128, 3 layers", "width 32, 1 layer"),
)
"""Claim, the arm that should score higher, the other. "As well" means: not lower by more than the noise."""
BUDGET = ("rounds", "width", "layers", "steps", "batch", "learning_rate", "runs", "precision")
"""Options that all figures of one file have alike."""
SMALLEST_BATCH = 16
"""A window of every domain, and some."""


def train(
    arm: Arm, shards: Shards, seed: int, budget: dict[str, Any], advance: Callable[[], object] = lambda: None
) -> tuple[TransformerStudent, float]:
    """A student of one arm and its loss on held-out episodes (of the newest step, so that contexts compare).

    `budget` has `steps`, `batch`, `learning_rate` and `precision`, of which "bf16" trains in mixed precision (the loss
    is measured without); `advance` is called after every step."""
    student = TransformerStudent(arm.config, seed)
    student.begin(shards)
    windows = Windows(arm.config.context, arm.config.kind == "mlp", arm.share)
    objective, teacher = SquaredError(), RecordedActions()
    domains = sorted({shard.about["domain"] for shard in shards.shards})
    steps, each = int(budget["steps"]), int(budget["batch"]) // len(domains)
    counts = dict.fromkeys(domains, each)
    schedule = WarmupCosine(budget["learning_rate"], steps, warmup=min(50, steps // 4))
    optimizer = torch.optim.AdamW(student.module.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    student.module.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = schedule.at(step)
        batch_ = windows.sample(shards, rng, counts)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget["precision"] == "bf16"):
            loss = objective(student.outputs(student.module, batch_), teacher.label(batch_))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.module.parameters(), 1.0)
        optimizer.step()
        advance()
    student.module.eval()
    newest = Windows(arm.config.context, last_only=True)
    with torch.no_grad():
        held = newest.sample(shards, np.random.default_rng(7), dict.fromkeys(domains, 256), held_out=True)
        found = student.module.newest(held["frames"], held["heights"][:, -1])
        error = float((found - held["action"][:, 0]).square().sum(-1).mean())
    return student, error


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Runs what is missing in `out/results.json`; see the module. Seeds go round first, so that a stop leaves pairs."""
    shards = Shards(options.data)
    if options.rounds == "first":
        first = {s.name for s in shards.shards if s.about.get("round") == 0}
        shards.shards = [s for s in shards.shards if s.name in first]
    if not shards.shards:
        raise InputError(f"{options.data} holds no shards: `barkour distill locomotion --run RUN` makes RUN/data")
    base = replace(BASE, width=options.width, layers=options.layers)
    known = arms(base)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "results.json"
    budget = {name: getattr(options, name) for name in BUDGET} | {"rows": shards.rows}
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"budget": budget, "arms": {}}
    if found["budget"] != budget:
        raise InputError(f"{file} was made with {found['budget']}, not {budget}: choose another --out")
    teachers, console = load_skills("specialists"), Console(stderr=True)
    missing = [
        (seed, name)
        for seed in range(options.seeds)
        for name in options.names
        if str(seed) not in found["arms"].setdefault(name, {})
    ]
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        for seed, name in missing:
            began = time.perf_counter()
            task = progress.add_task(f"seed {seed} {name}", total=budget["steps"])
            student, error = train(known[name], shards, seed, budget, partial(progress.advance, task))
            scored = course_score(teachers, official(), options.runs, 4000 + seed)(student)
            found["arms"][name][str(seed)] = {"error": error, "parameters": student.module.size, **scored}
            write_text(file, json.dumps(found, indent=1) + "\n")
            progress.remove_task(task)
            console.print(
                f"seed {seed} {name}: held-out {error:.3f}, score {scored['golden']:.3f} "
                f"({time.perf_counter() - began:.0f} s)",
                highlight=False,
            )
    return found


def verdicts(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """Each claim by course score, and by held-out error: where a reduced budget leaves every score near the floor, the
    error still tells arms apart. Paired differences (better arm less the other; errors the other way round) with their
    95 % intervals over seeds by Student's t (None for one seed), and a word for each."""
    rows = []
    for claim, better, other in CLAIMS:
        pairs = sorted(set(arms.get(better, {})) & set(arms.get(other, {})))
        if not pairs:
            continue
        row: dict[str, Any] = {"claim": claim, "seeds": len(pairs)}
        for measure, sign in (("golden", 1.0), ("error", -1.0)):
            difference = sign * np.array([arms[better][s][measure] - arms[other][s][measure] for s in pairs])
            found = Interval.of(difference)
            if len(pairs) < 2:
                word = "one seed alone"
            elif "as well" in claim:
                word = "disagrees" if found.negative else "agrees"
            else:
                word = "agrees" if found.positive else "disagrees" if found.negative else "undecided"
            interval = [found.low, found.high] if len(pairs) > 1 else None
            row[measure] = {"difference": found.mean, "ci95": interval, "verdict": word}
        rows.append(row)
    return rows


def plot(arms: dict[str, Any], path: Path) -> None:
    """Score of every arm, a dot a seed, a bar for the mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(arms)
    for k, name in enumerate(names):
        scores = [seed["golden"] for seed in arms[name].values()]
        axes.barh(k, np.mean(scores), color="C0" if name == "base" else "0.75")
        axes.plot(scores, [k] * len(scores), "k.", ms=5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set(xlabel="course score, mean of randomised runs", title="Ablations: behavioural cloning, reduced budget")
    figure.savefig(path, dpi=110)


def table(arms: dict[str, Any]) -> Table:
    """Arms with means over seeds."""
    shown = Table("arm", "parameters", "held-out error", "score", "seeds")
    for name, seeds in arms.items():
        values = list(seeds.values())
        shown.add_row(
            name, f"{values[0]['parameters']:,}", f"{np.mean([v['error'] for v in values]):.3f}",
            f"{np.mean([v['golden'] for v in values]):.3f}", str(len(values)),
        )  # fmt: skip
    return shown


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("runs/generalist/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--rounds", default="first", choices=("first", "all"), help="whose experience is cloned")
    parser.add_argument("--width", type=int, default=BASE.width, help="of the base")
    parser.add_argument("--layers", type=int, default=BASE.layers, help="of the base")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--arms", dest="names", nargs="*", default=list(arms()), choices=list(arms()))
    options = parser.parse_args(arguments)
    try:
        least = min(options.seeds, options.steps, options.runs)
        if least < 1 or options.batch < SMALLEST_BATCH or not 0.0 < options.learning_rate < 1.0:
            raise InputError(
                f"--seeds, --steps and --runs must be at least 1, --batch at least {SMALLEST_BATCH}, "
                "--learning-rate between 0 and 1"
            )
        found = run(options)
    except (InputError, DistillError) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 2
    found["verdicts"] = verdicts(found["arms"])
    plot(found["arms"], options.out / "ablations.png")
    (options.out / "ablations.json").write_text(json.dumps(found, indent=1) + "\n")
    console = Console()
    console.print(table(found["arms"]))
    for row in found["verdicts"]:
        for measure, word in (("golden", "score"), ("error", "held-out error")):
            values = row[measure]
            interval = "" if values["ci95"] is None else " [{:+.3f}, {:+.3f}]".format(*values["ci95"])
            console.print(
                f"{row['claim']} ({word}): {values['difference']:+.3f}{interval}, "
                f"{row['seeds']} seeds: {values['verdict']}",
                highlight=False,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
