"""A student from recordings alone beside behavioural cloning in simulation (arXiv 2305.14654, appendix D).

    python -m benchmarks.from_recordings --out runs/from_recordings

Makes recordings of the onboard loop with the shipped generalist, in physics that are not those of evaluation (an
elliptic friction cone, contacts twice as stiff, 1 ms steps, 0.8 of the torque), trains one student from these files
alone and one by behavioural cloning of the specialists in simulation on as many control steps, and lets both run the
official course in evaluation physics. What is finished is kept; called again, it goes on.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from distill.core.checkpoints import write_json
from distill.locomotion.options import Options, is_run
from distill.locomotion.recipe import distil
from policies.evaluation.evaluate import evaluate
from policies.evaluation.options import EvaluateOptions
from robot.options import OnboardOptions
from robot.transports.simulation import onboard_in_simulation
from sim.envs.variation import Variation
from sim.errors import InputError

OTHER = Variation(cone="elliptic", stiffness=2.0, torque=0.8)
"""The physics of the recordings, in 1 ms steps."""
DOMAINS = 4
"""On which behavioural cloning in simulation collects: the course and three grounds."""
FIGURES = ("score_mean", "finished_rate", "all_obstacles_rate", "fell_rate", "touched_rate", "time_s_median")


def recordings(folder: Path, count: int, console: Console) -> list[dict[str, Any]]:
    """`count` recordings, those that are missing made now; what the referee said of each run."""
    folder.mkdir(parents=True, exist_ok=True)
    said = []
    for seed in range(count):
        file, report = folder / f"{seed}.mcap", folder / f"{seed}.json"
        if not report.is_file():
            file.unlink(missing_ok=True)
            found = onboard_in_simulation(
                OnboardOptions(seed=seed, randomize=True, record=file), lambda text: None, OTHER
            )
            write_json(report, {name: found[name] for name in ("score", "time_s", "finished")})
            console.print(f"recording {seed + 1} of {count}: score {found['score']:.3f}")
        said.append(json.loads(report.read_text()))
    return said


def student(options: Options) -> dict[str, Any]:
    """The student of a run, which goes on or is made; what its summary says."""
    if not (options.run / "summary.json").is_file() or not (options.run / "generalist.onnx").is_file():
        distil(replace(options, resume=is_run(options.run)))
    return json.loads((options.run / "summary.json").read_text())


def compare(out: Path, count: int, steps: int, runs: int, seed: int, console: Console) -> dict[str, Any]:
    """All of it; the figures, also written to `summary.json`."""
    logs = recordings(out / "recordings", count, console)
    fit = Options(first_steps=steps, batch=128)
    from_logs = student(replace(fit, recordings=out / "recordings", run=out / "from_recordings"))
    rows = int(from_logs["card"]["rows"])
    student(replace(fit, rounds=0, first_rows=max(rows // DOMAINS, 1), score_runs=8, run=out / "in_simulation"))
    found: dict[str, Any] = {
        "recordings": count, "recorded_score_mean": sum(run["score"] for run in logs) / count, "rows": rows,
        "physics_of_the_recordings": OTHER.words, "steps": steps, "runs": runs, "seed": seed,
    }  # fmt: skip
    for name in ("from_recordings", "in_simulation"):
        policy = str(out / name / "generalist.onnx")
        result = evaluate(EvaluateOptions(policy, randomize=True, runs=runs, seed=seed))
        found[name] = {figure: result[figure] for figure in FIGURES}
    write_json(out / "summary.json", found)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/from_recordings"))
    parser.add_argument("--recordings", type=int, default=60, help="recordings to learn from")
    parser.add_argument("--steps", type=int, default=2500, help="optimiser steps of each student")
    parser.add_argument("--runs", type=int, default=50, help="runs that measure each student")
    parser.add_argument("--seed", type=int, default=77, help="of these runs")
    asked = parser.parse_args(arguments)
    if min(asked.recordings, asked.steps, asked.runs) < 1:
        parser.error("--recordings, --steps and --runs must be at least 1")
    console = Console(stderr=True)
    try:
        print(json.dumps(compare(asked.out, asked.recordings, asked.steps, asked.runs, asked.seed, console), indent=2))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
