"""The paper's ablations of the Locomotion-Transformer on a reduced budget, behavioural cloning alone, seeds in pairs.

    python -m benchmarks.ablations --data RUN/data --out runs/ablations

Against a base of width 64 with two layers: an MLP of equal size, contexts of 1, 5 and 30 steps, a tenth and a hundredth
of the data, three other sizes. Every arm sees the same number of windows of the same shards in the same order (of seed
and share of the data), and is then scored over the same randomised runs of the official course. The paper (arXiv
2305.14654, section IV-B and its ablations) says: the Transformer beats a larger MLP, longer contexts and bigger models
are better, 10 % of the data do as well as all, 1 % fails. Finished arms are kept, so the command can be stopped and
called again.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

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
from policies.transformer import TransformerConfig
from sim.course.description import official
from sim.errors import InputError

BASE = TransformerConfig(width=64, layers=2)


@dataclass(frozen=True)
class Arm:
    """One variant."""

    config: TransformerConfig = BASE
    share: float = 1.0
    """Part of the episodes that it may train on."""


ARMS = {
    "base": Arm(),
    "mlp of equal size": Arm(replace(BASE, kind="mlp", hidden=(120, 96))),
    "context 1": Arm(replace(BASE, context=1)),
    "context 5": Arm(replace(BASE, context=5)),
    "context 30": Arm(replace(BASE, context=30)),
    "10 % of the data": Arm(share=0.1),
    "1 % of the data": Arm(share=0.01),
    "width 32, 1 layer": Arm(replace(BASE, width=32, layers=1)),
    "width 96, 3 layers": Arm(replace(BASE, width=96, layers=3)),
    "width 128, 3 layers": Arm(replace(BASE, width=128, layers=3)),
}
CLAIMS = (
    ("the Transformer beats an MLP", "base", "mlp of equal size"),
    ("15 steps of context beat 5", "base", "context 5"),
    ("15 steps of context beat 1", "base", "context 1"),
    ("30 steps of context beat 15", "context 30", "base"),
    ("all of the data beat 1 %", "base", "1 % of the data"),
    ("10 % of the data do as well as all", "10 % of the data", "base"),
    ("a bigger model is better", "width 128, 3 layers", "width 32, 1 layer"),
)
"""Claim, the arm that should score higher, the other. "As well" means: not lower by more than the noise."""


def train(
    arm: Arm, shards: Shards, seed: int, steps: int, batch: int, precision: str = "no"
) -> tuple[TransformerStudent, float]:
    """A student of one arm and its loss on held-out episodes (of the newest step, so that contexts compare).

    `precision` "bf16" trains in mixed precision; the loss is measured without."""
    student = TransformerStudent(arm.config, seed)
    student.begin(shards)
    windows = Windows(arm.config.context, arm.config.kind == "mlp", arm.share)
    objective, teacher = SquaredError(), RecordedActions()
    domains = sorted({shard.about["domain"] for shard in shards.shards})
    counts = dict.fromkeys(domains, batch // len(domains))
    schedule = WarmupCosine(1e-3, steps, warmup=min(50, steps // 4))
    optimizer = torch.optim.AdamW(student.module.parameters(), weight_decay=0.01, betas=(0.9, 0.98))
    rng = np.random.default_rng(seed)
    student.module.train()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = schedule.at(step)
        batch_ = windows.sample(shards, rng, counts)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = objective(student.outputs(student.module, batch_), teacher.label(batch_))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.module.parameters(), 1.0)
        optimizer.step()
    student.module.eval()
    newest = Windows(arm.config.context, last_only=True)
    with torch.no_grad():
        held = newest.sample(shards, np.random.default_rng(7), dict.fromkeys(domains, 256), held_out=True)
        found = student.module.newest(held["frames"], held["heights"][:, -1])
        error = float((found - held["action"][:, 0]).square().sum(-1).mean())
    return student, error


def run(
    data: Path, out: Path, seeds: int, steps: int, batch: int, runs: int, names: Sequence[str], precision: str = "no"
) -> dict[str, Any]:
    """Runs what is missing in `out/results.json`; see the module. Seeds go round first, so that a stop leaves pairs."""
    shards = Shards(data)
    first = {s.name for s in shards.shards if s.about.get("round") == 0}
    shards.shards = [s for s in shards.shards if s.name in first]
    if not shards.shards:
        raise InputError(f"{data} holds no shards: `barkour distill locomotion --run RUN` makes RUN/data")
    out.mkdir(parents=True, exist_ok=True)
    file = out / "results.json"
    budget = {"steps": steps, "batch": batch, "runs": runs, "rows": shards.rows, "precision": precision}
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"budget": budget, "arms": {}}
    if found["budget"] != budget:
        raise InputError(f"{file} was made with {found['budget']}, not {budget}: choose another --out")
    teachers, console = load_skills("specialists"), Console(stderr=True)
    for seed in range(seeds):
        for name in names:
            done = found["arms"].setdefault(name, {})
            if str(seed) in done:
                continue
            began = time.perf_counter()
            student, error = train(ARMS[name], shards, seed, steps, batch, precision)
            scored = course_score(teachers, official(), runs, 4000 + seed)(student)
            done[str(seed)] = {"error": error, "parameters": student.module.size, **scored}
            file.write_text(json.dumps(found, indent=1) + "\n")
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
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--precision", default="no", choices=("no", "bf16"))
    parser.add_argument("--arms", dest="names", nargs="*", default=list(ARMS), choices=list(ARMS))
    options = parser.parse_args(arguments)
    try:
        found = run(**vars(options))
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
