"""Two policies over the same worlds: what one has over the other, world by world.

    python -m benchmarks.paired generalist specialists --runs 100 --seed 5

Both run every world (same physics, same start, same pushes and noise), so the difference of their scores has far less
noise than either score.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from policies.evaluation.comparison import compare
from policies.evaluation.evaluate import evaluate
from policies.evaluation.options import EvaluateOptions
from sim.errors import InputError

FIGURES = (
    ("score_mean", "mean score", 1.0, "{:.3f}"),
    ("all_obstacles_rate", "all five obstacles", 100.0, "{:.0f} %"),
    ("finished_rate", "finished", 100.0, "{:.0f} %"),
    ("fell_rate", "falls", 100.0, "{:.0f} %"),
    ("touched_rate", "board touched", 100.0, "{:.0f} %"),
    ("time_s_median", "median time", 1.0, "{:.2f} s"),
    ("time_s_best", "best time", 1.0, "{:.2f} s"),
    ("score_best", "best score", 1.0, "{:.3f}"),
)


def paired(policies: tuple[str, str], **conditions: Any) -> dict[str, Any]:
    """Evaluates both with the same `conditions` of `policies.evaluation.evaluate.evaluate` and compares them.

    Returns:
      `policies` (name -> figures), what `policies.evaluation.comparison.compare` says of them, and
      `target_jump_rad` (name -> largest change of a joint target in a control step:
      median and largest over the worlds, and the largest in the step of a change of skill).
    """
    found = {name: evaluate(EvaluateOptions(name, randomize=True, **conditions)) for name in policies}
    first, second = (found[name] for name in policies)
    jumps = {}
    for name, result in found.items():
        peak = np.array([world["target_jump_rad"] for world in result["worlds"]])
        switches = [switch["jump_rad_peak"] for switch in result["switches"].values()]
        jumps[name] = {"median": float(np.median(peak)), "peak": float(peak.max())}
        jumps[name]["switch_peak"] = max(switches, default=0.0)
    return {
        "policies": {name: {key: result[key] for key, *_ in FIGURES} for name, result in found.items()},
        "runs": len(first["worlds"]),
        **compare(first, second),
        "target_jump_rad": jumps,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("first")
    parser.add_argument("second")
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--course", default="official")
    parser.add_argument("--torque-limit", type=float, default=None)
    parser.add_argument("--json", action="store_true")
    options = vars(parser.parse_args(arguments))
    policies, as_json = (options.pop("first"), options.pop("second")), options.pop("json")
    try:
        found = paired(policies, **options)
    except InputError as error:
        print(f"paired: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps(found))
        return 0
    shown = Table("", *policies)
    for key, title, factor, form in FIGURES:
        values = [found["policies"][name][key] for name in policies]
        shown.add_row(title, *("-" if value is None else form.format(factor * value) for value in values))
    steps = ("median", "target step, median"), ("peak", "peak"), ("switch_peak", "peak at a change of skill")
    for key, title in steps:
        shown.add_row(title, *(f"{found['target_jump_rad'][name][key]:.2f} rad" for name in policies))
    console = Console()
    console.print(shown)
    low, high = found["ci95"]
    console.print(f"score difference {found['score_difference']:+.3f} [{low:+.3f}, {high:+.3f}]", highlight=False)
    if found["time_ratio"] is not None:
        console.print(f"time ratio over the worlds that both finished {found['time_ratio']:.3f}", highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
