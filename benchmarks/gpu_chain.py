"""The whole chain on a borrowed machine with a GPU: specialists side by side, then the generalist, in calls of minutes.

    python -m benchmarks.gpu_chain --out runs/chain --robot unitree_go2 --minutes 9

Each call goes on where the last one stopped, and stops in time: what runs is asked to save after `--minutes`. Nothing
is fetched from a network. Physics runs on the CPU's cores, shared by the skills, and the updates on the GPU that JAX
finds (`--backend mjx` has both on the GPU). `OUT/chain.json` says after each call what is done and how fast it went.
Finished specialists are copied to where `--policy specialists` looks for the robot's, because the distillation reads
them there. Exit status 0 when all is done, 3 when another call is needed.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from policies.bundle.shipped import bundle_file, folder_of
from sim.errors import InputError
from sim.machine import machine
from sim.options import Options, Range
from sim.robots.description import DEFAULT, find_robot

SKILLS = ("walk", "climb", "jump")
SAVING = 40.0
"""A program that was asked to stop has this long to save, s."""
MORE = 3
"""Exit status where another call is needed."""


@dataclass(frozen=True)
class Chain(Options):
    """Train specialists side by side and distil them, in calls of minutes."""

    out: Path
    """folder of the chain, kept from call to call"""
    robot: str = DEFAULT
    """a robot's name; another robot than the default one begins with that one's shipped policies, rewritten"""
    minutes: Annotated[float, Range(0.2, 10_000)] = 9.0
    """of this call, saving included"""
    backend: str = "cpu"
    steps: Annotated[int, Range(1, 10**10)] | None = None
    """environment steps of each skill; without it as `barkour train`"""
    worlds: Annotated[int, Range(6, 2**17)] = 540
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    skills: tuple[str, ...] = SKILLS
    """which specialists are trained"""
    stop_after: str = "generalist"
    """`specialists` or `generalist`"""
    distil: tuple[str, ...] = ("--rounds", "4", "--first-steps", "2500", "--steps", "800", "--precision", "bf16")
    """options of `barkour distill locomotion`"""


def command_of(options: Chain, skill: str, threads: int) -> list[str] | None:
    """The command that trains a skill or goes on with it; None where it is finished or what it starts from is not."""
    folder = options.out / skill
    if (folder / f"{skill}.onnx").is_file():
        return None
    words = [sys.executable, "-m", "barkour", "train", skill, "--out", str(folder), "--worlds", str(options.worlds)]
    words += ["--seed", str(options.seed), "--threads", str(threads), "--backend", options.backend, "--json"]
    words += ["--steps", str(options.steps)] if options.steps else []
    if options.robot != DEFAULT:
        words += ["--robot", options.robot, "--start-from", os.path.relpath(folder_of(DEFAULT) / skill)]
    elif skill == "climb":
        if not (options.out / "walk" / "walk.onnx").is_file():
            return None
        words += ["--start-from", str(options.out / "walk" / "start")]
    return words + (["--resume"] if any((folder / "checkpoints").glob("step_*")) else [])


def specialists(options: Chain, until: float) -> bool:
    """Trains all that can be trained at once, until `until` (monotonic, s). Returns whether all are finished."""
    while True:
        able = {skill: command_of(options, skill, 1) for skill in options.skills}
        waiting = [skill for skill, words in able.items() if words]
        if not waiting or time.monotonic() > until:
            break
        threads = max(1, round(1.4 * len(os.sched_getaffinity(0)) / len(waiting)))  # they do not all step at once
        commands = {skill: command_of(options, skill, threads) or [] for skill in waiting}
        if not together(commands, options.out, until, share=1 / len(waiting)):
            return False
    return all((options.out / skill / f"{skill}.onnx").is_file() for skill in options.skills)


def together(commands: dict[str, list[str]], out: Path, until: float, share: float) -> bool:
    """Runs programs side by side until one is done or the time is up, and then asks all to save.

    Each may take `share` of the GPU's memory. Returns whether all that ended did so without a fault.
    """
    out.mkdir(parents=True, exist_ok=True)
    surroundings = os.environ | {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{0.8 * share:.2f}", "OPENBLAS_NUM_THREADS": "1"}
    running = {}
    for name, words in commands.items():
        log = (out / f"{name}.log").open("a")
        running[name] = subprocess.Popen(words, stdout=log, stderr=log, env=surroundings)  # noqa: S603
        log.close()
    while time.monotonic() < until - SAVING and all(process.poll() is None for process in running.values()):
        time.sleep(0.5)
    for process in running.values():
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
    good = True
    for name, process in running.items():
        try:
            status = process.wait(SAVING)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        if status not in (0, 130, -signal.SIGTERM):  # the last: before it had begun
            last = (out / f"{name}.log").read_text(errors="replace").splitlines()[-1:]
            print(f"gpu_chain: {name} ended with {status}: {''.join(last)}", file=sys.stderr)
            good = False
    return good


def generalist(options: Chain, until: float) -> bool:
    """Distils the specialists. Returns whether the bundle is there."""
    for skill in options.skills:
        where = bundle_file(skill, options.robot)
        where.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.out / skill / f"{skill}.onnx", where)
    run, file = options.out / "generalist", options.out / "generalist.onnx"
    if file.is_file():
        return True
    words = [sys.executable, "-m", "barkour", "distill", "locomotion", "--run", str(run), "--out", str(file), "--json"]
    words += ["--robot", options.robot] if options.robot != DEFAULT else []
    words += [*options.distil, *(["--resume"] if run.is_dir() else [])]
    if time.monotonic() < until:
        together({"generalist": words}, options.out, until, share=1.0)
    return file.is_file()


def progress(options: Chain) -> dict[str, object]:
    """What the runs' own logs say: steps, minutes of training, last rates and errors of each skill."""
    said: dict[str, object] = {}
    for skill in options.skills:
        log = options.out / skill / "log.jsonl"
        rows = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
        if rows:
            tail = rows[-20:]
            names = (
                "steps_per_second",
                "update_share",
                "velocity_error",
                "falls_per_10s",
                "level",
                "clean_rate",
                "width",
            )
            said[skill] = {"steps": rows[-1]["steps"], "minutes": rows[-1]["seconds"] / 60} | {
                name: sum(row[name] for row in tail) / len(tail) for name in names if all(name in row for row in tail)
            }
    return said


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    try:
        options = tyro.cli(Chain, args=arguments)
        find_robot(options.robot)
        unknown = set(options.skills) - set(SKILLS)
        if unknown or options.stop_after not in ("specialists", "generalist"):
            raise InputError(f"unknown skill or stage: {', '.join(sorted(unknown)) or options.stop_after}")
        options.out.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        until = began + 60 * options.minutes
        done = specialists(options, until)
        if done and options.stop_after == "generalist":
            done = generalist(options, until)
    except (InputError, OSError) as error:
        print(f"gpu_chain: {error}", file=sys.stderr)
        return 2
    kept = options.out / "chain.json"
    calls = json.loads(kept.read_text())["calls"] if kept.is_file() else []
    calls.append({"minutes": (time.monotonic() - began) / 60, "progress": progress(options), "machine": machine()})
    kept.write_text(json.dumps({"done": done, "calls": calls}, indent=2) + "\n")
    print(json.dumps({"done": done, **calls[-1]}, indent=2))
    return 0 if done else MORE


if __name__ == "__main__":
    sys.exit(main())
