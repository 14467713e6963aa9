"""What the monitors cost in a control step: with all of them on against all off, step by step, in one run.

    barkour onboard --randomize --seed 7 --record run.mcap
    python -m robot.bench.ticks run.mcap

Two controllers take the recorded steps in turn, now the one first, now the other, each with its own policy. Processor
time of the thread is counted, so that other programs do not matter much; the ratio of the quantiles is the figure.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from rich.console import Console
from rich.table import Table

from robot.loop.controller import Controller
from robot.loop.motion import Motion
from robot.loop.plausibility import PolicyAnswers
from robot.loop.recording import REQUESTS, read, snapshot_of
from robot.loop.refusals import Refusal
from robot.loop.replay import Replayed, rebuilt
from robot.loop.safety import Verdict
from robot.loop.transport import NS, Array, Request, State
from sim.errors import InputError

QUANTILES = (0.5, 0.99)


class _NoMotion(Motion):
    def see(self, *_: Any, **__: Any) -> list[Verdict]:
        return []


class _NoAnswers(PolicyAnswers):
    def see(self, *_: Any, **__: Any) -> Refusal | None:
        return None


def without_monitors(controller: Controller) -> Controller:
    """The same controller; nothing that it is told is held against anything else."""
    controller.motion = _NoMotion(controller.robot, controller.limits, controller.policy.terrain)
    controller.answers = _NoAnswers(controller.answers.moved, controller.answers.limit)
    return controller


def measure(path: Path, rounds: int) -> dict[str, Any]:
    """Processor time of a step while the policy ran, ms: `on` and `off` with `p50` and `p99`, their `ratio`s, `steps`.

    Raises:
      InputError: no recording, or one in which the policy never ran.
    """
    recording = read(path)
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds):
        pair = [rebuilt(recording, None) for _ in taken]
        without_monitors(pair[1][0])
        for k, row in enumerate(recording.steps):
            order = (0, 1) if (k + turn) % 2 else (1, 0)
            for which in order:
                seconds = _step(*pair[which], row)
                if row["state"] == State.RUNNING and pair[which][0].state == State.RUNNING:
                    taken[which].append(seconds)
    if not all(taken):
        raise InputError(f"{path}: the policy never ran in it")
    on, off = (
        {f"p{100 * q:.0f}": 1e3 * float(np.quantile(seconds, q)) for q in QUANTILES} for seconds in taken
    )  # fmt: skip
    return {"on": on, "off": off, "ratio": {name: on[name] / off[name] for name in on}, "steps": len(taken[0])}


def _step(controller: Controller, messages: Replayed, row: Array) -> float:
    """One recorded step; the thread's processor time, s."""
    messages.shown = snapshot_of(row, None)
    messages.time = int(row["now"]) + round(0.002 * NS)
    for code in cast(list[int], row["requests"][row["requests"] > 0].tolist()):
        messages.requests.append(Request(REQUESTS[code - 1]))
    began = time.thread_time()
    controller.step(int(row["now"]), float(row["late"]), float(row["took"]))
    return time.thread_time() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; exit status 2 with one line for bad input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recording", type=Path)
    parser.add_argument("--rounds", type=int, default=3, help="times that the recording is gone through")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    try:
        if not 1 <= options.rounds <= 1000:
            raise InputError("--rounds must be from 1 to 1000")
        found = measure(options.recording, options.rounds)
    except InputError as error:
        print(f"ticks: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found))
        return 0
    drawn = Table("processor time of a step, ms", "p50", "p99", title=f"{found['steps']} steps each")
    for name, what in (("on", "all monitors on"), ("off", "all off"), ("ratio", "ratio")):
        drawn.add_row(what, *(f"{found[name][key]:.3f}" for key in ("p50", "p99")))
    Console().print(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())
