"""One control tick of a policy bundle at 50 Hz on one core: checks, observation, inference, joint targets.

    python -m benchmarks.tick models/generalist.onnx
    python -m benchmarks.tick before.onnx models/generalist.onnx      # two of one robot beside each other

Arms take turns in one run, each paced at 50 Hz as on a robot: onnxruntime as the bundle runs it (one thread, no
spinning), onnxruntime with its defaults, and the same network in eager PyTorch (one thread, and its default); of
several bundles, each as it runs. A CPU share is processor time over wall time, a ratio that of the medians of a tick to
the first arm's.
"""

import argparse
import copy
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from distill.locomotion.student import TorchBundle
from policies.bundle.reader import Bundle, Policy
from policies.bundle.runtime import onnxruntime
from policies.transformer import LocomotionTransformer, TransformerConfig
from sim.course.description import official
from sim.errors import InputError
from sim.observation import Sensors

PERIOD = 0.02
BLOCK = 100
"""Ticks of one arm in a row."""
WARM_UP_CALLS = 10
"""Ticks at the start of each block that are not counted."""


def arms_of(file: Path) -> dict[str, tuple[Any, int | None]]:
    """Arm -> something with a bundle's interface, and PyTorch's threads while it runs."""
    bundle = Bundle.load(file)
    found: dict[str, tuple[Any, int | None]] = {"onnxruntime, 1 thread, no spinning": (bundle, None)}
    default = copy.copy(bundle)
    default._session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    found["onnxruntime, defaults"] = (default, None)
    network = bundle.metadata.provenance.get("network")
    if network:
        model = LocomotionTransformer(TransformerConfig.from_dict(network)).eval()
        eager = TorchBundle(model, bundle.robot, bundle.metadata.command_ranges)
        found["PyTorch eager, 1 thread"] = (eager, 1)
        found["PyTorch eager, defaults"] = (eager, torch.get_num_threads())
    return found


def tick(policy: Policy, course: Any, pose: np.ndarray, sensors: Sensors, command: np.ndarray) -> np.ndarray:
    """What the control loop does between reading sensors and writing joint targets."""
    heights = policy.heights_at(course.height, pose[None, :2], np.array([0.2]), pose[2:], course.pit)
    targets = policy.step(sensors, command, heights)
    lower, upper = policy.bundle.robot.joint_lower, policy.bundle.robot.joint_upper
    if not (np.isfinite(targets).all() and (targets >= lower).all() and (targets <= upper).all()):
        raise ValueError("joint targets out of range")
    return targets


def run(files: Sequence[Path], seconds: float) -> dict[str, Any]:
    """Times every arm for `seconds` of ticks; `arms` has p50, p99 (ms), ratio and CPU share of each.

    Raises:
      InputError: a file is no bundle, or another robot's than the first.
    """
    course, rng = official(), np.random.default_rng(0)
    arms = arms_of(files[0]) if len(files) == 1 else {str(file): (Bundle.load(file), None) for file in files}
    robot = next(iter(arms.values()))[0].robot
    if other := next((arm.robot.name for arm, _ in arms.values() if arm.robot.name != robot.name), None):
        raise InputError(f"the bundles are of two robots, {robot.name} and {other}: compare those of one")
    policies = {name: Policy(arm) for name, (arm, _) in arms.items()}
    times: dict[str, list[float]] = {name: [] for name in arms}
    busy: dict[str, list[float]] = {name: [] for name in arms}
    command = np.array([[1.0, 0.0, 0.2]], np.float32)
    threads = torch.get_num_threads()
    for block in range(max(round(seconds / PERIOD / BLOCK), 1)):
        names = list(arms)
        for name in names[block % len(names) :] + names[: block % len(names)]:
            torch.set_num_threads(arms[name][1] or threads)
            started, used = time.perf_counter(), time.process_time()
            for k in range(BLOCK):
                sensors = Sensors(
                    np.array([[1.0, 0.0, 0.0, 0.0]], np.float32), 0.1 * rng.standard_normal((1, 3)).astype(np.float32),
                    (robot.default_pose + 0.1 * rng.standard_normal((1, robot.joints))).astype(np.float32),
                    rng.standard_normal((1, robot.joints)).astype(np.float32),
                )  # fmt: skip
                pose = np.array([0.5 + 0.02 * k, -0.4, 0.1])
                began = time.perf_counter()
                tick(policies[name], course, pose, sensors, command)
                if k >= WARM_UP_CALLS:
                    times[name].append(time.perf_counter() - began)
                time.sleep(max(started + (k + 1) * PERIOD - time.perf_counter(), 0.0))
            busy[name].append((time.process_time() - used) / (time.perf_counter() - started))
    torch.set_num_threads(threads)
    first = next(iter(arms))
    return {
        "files": [str(file) for file in files],
        "ticks": len(times[first]),
        "arms": {
            name: {
                "tick_ms_p50": 1e3 * float(np.quantile(times[name], 0.5)),
                "ratio": float(np.median(times[name]) / np.median(times[first])),
                "tick_ms_p99": 1e3 * float(np.quantile(times[name], 0.99)),
                "cpu_share": float(np.mean(busy[name])),
            }
            for name in arms
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--seconds", type=float, default=20.0, help="of ticks for each arm")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        found = run(list(dict.fromkeys(options.files)), options.seconds)
    except InputError as error:
        print(f"tick: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found))
        return 0
    shown = Table("arm", "p50 ms", "ratio", "p99 ms", "CPU share")
    for name, arm in found["arms"].items():
        figures = (f"{arm['tick_ms_p50']:.2f}", f"{arm['ratio']:.2f}", f"{arm['tick_ms_p99']:.2f}")
        shown.add_row(name, *figures, f"{100 * arm['cpu_share']:.0f} %")
    Console().print(shown)
    return 0


if __name__ == "__main__":
    sys.exit(main())
