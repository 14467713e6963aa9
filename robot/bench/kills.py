"""How much of a recording a kill takes: a process that records at the loop's pace is killed at random moments.

python -m robot.bench.kills --kills 30
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robot.loop.recording import Recorder, read, step_row
from robot.loop.transport import NS, Mode, Output, Snapshot, State
from sim.robots.description import default_robot

SOONEST, LATEST = 0.3, 1.3
"""A kill comes so long after the first step, s."""


def record(path: Path) -> None:
    """Records steps of a standing robot every control period, with new messages in each, until it is killed."""
    robot = default_robot()
    recorder = Recorder(path, {"robot": robot.name, "joints": list(robot.joint_names)})
    output = Output(Mode.POSITION, np.array(robot.default_pose, np.float32), 0)
    due = time.monotonic_ns()
    while True:
        seen = Snapshot.blank(robot.joints)
        seen.joints_time = seen.imu_time = seen.pose_time = seen.command_time = time.monotonic_ns()
        recorder.step(step_row(time.monotonic_ns(), 0.0, 0.0, [], seen, State.RUNNING, output), seen)
        print("recorded", flush=True)
        due += round(robot.control_period * NS)
        time.sleep(max(0, due - time.monotonic_ns()) / NS)


def lost(kills: int, seed: int = 0) -> list[float]:
    """Age of the newest step that a killed process left, at each kill, s.

    Raises:
      InputError: a recording that a kill left cannot be read.
    """
    chance, found = random.Random(seed), list[float]()
    with tempfile.TemporaryDirectory() as folder:
        for kill in range(kills):
            path = Path(folder) / f"{kill}.mcap"
            command = [sys.executable, "-m", "robot.bench.kills", "--record", str(path)]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                process.stdout.readline()
                time.sleep(chance.uniform(SOONEST, LATEST))
                now = time.monotonic_ns()
                process.send_signal(signal.SIGKILL)
            found.append((now - int(read(path).steps["now"][-1])) / NS)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, choices=range(1, 1001), default=30, metavar="1..1000")
    parser.add_argument("--record", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.record is not None:
        record(options.record)
    ages = np.array(lost(options.kills))
    print(json.dumps({"kills": len(ages), "lost_ms_median": 1e3 * np.median(ages), "lost_ms_worst": 1e3 * ages.max()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
