"""Processes of one run: started together, ended together, nothing left running."""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robot.loop.controller import Times
from robot.loop.timing import DAMPED_WITHIN, ENDED_SPARE, ENDED_WITHIN, LOOK_EVERY, SOFT_STOP_SPARE
from sim.children import end, ended
from sim.errors import InputError
from sim.signals import held

LARGEST_DOMAIN = 101
"""Domains up to here have ports below those that Linux gives to clients."""
NICE = -10
"""Niceness of the processes, where it may be lowered."""
REAL_TIME = {"sim": 2, "onboard": 2, "localizer": 1}
"""Processes that get one of the lowest real-time priorities, where that is permitted: what they do does not wait for
ordinary work. A localizer that has fallen behind must not hold drives and control loop up, so it comes after them."""
PR_SET_PDEATHSIG = 1
UNKNOWN: dict[str, Any] = {"state": "unknown", "reason": "its process left no report", "refusals": {}, "history": []}
"""What is said of a controller whose process was killed."""


def free_domain() -> int:
    """A DDS domain (of ROS, too) in which nobody on this computer is: its first discovery port can be had."""
    for domain in random.SystemRandom().sample(range(1, LARGEST_DOMAIN + 1), LARGEST_DOMAIN):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("127.0.0.1", 7400 + 250 * domain + 10))
            except OSError:
                continue
            return domain
    raise InputError("no DDS domain is free on this computer")


class Processes:
    """The running processes of a course run; leaving the `with` block ends every one of them."""

    def __init__(
        self, commands: Mapping[str, list[str]], environment: Mapping[str, str], soft_stop: float = Times().soft_stop
    ) -> None:
        """What they write to standard error goes there too; their results stand in files. `soft_stop` is how
        long the control loop takes over one, s."""
        self.soft_stop = soft_stop
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._commands, self._environment = commands, environment

    def __enter__(self) -> "Processes":
        try:
            for name, line in self._commands.items():
                with held():
                    self.running[name] = subprocess.Popen(
                        line,
                        env=dict(self._environment),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=2,
                        process_group=0,
                        preexec_fn=_beginning(os.getpid(), REAL_TIME.get(name, 0)),
                    )
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: Any) -> None:
        self.end()

    def ended(self) -> dict[str, int]:
        """Process -> exit status, of those that have ended."""
        return {name: code for name, process in self.running.items() if (code := ended(process)) is not None}

    def aftermath(self, died: str) -> float:
        """Seconds for which the others go on after one died: so long it takes until the robot is in its safe state."""
        return {
            "navigator": self.soft_stop + SOFT_STOP_SPARE,
            "localizer": self.soft_stop + SOFT_STOP_SPARE,
            "referee": 0.0,  # ending the others stops the robot softly
        }.get(died, DAMPED_WITHIN)

    def end(self) -> None:
        """Ends all: first the control loop, which stops the robot softly, then the rest; by force who does not obey.

        Ctrl-C meanwhile cuts the waiting short, not the ending.
        """
        try:
            self._tell(["onboard"], self.soft_stop + SOFT_STOP_SPARE + ENDED_SPARE)
            self._tell([name for name in self.running if name != "onboard"], ENDED_WITHIN)
        finally:
            with held():
                for process in self.running.values():
                    end(process, group=True)

    def _tell(self, names: list[str], patience: float) -> None:
        told = [self.running[name] for name in names if name in self.running]
        for process in told:
            _ask(process)
        until = time.monotonic() + patience
        while any(ended(process) is None for process in told) and time.monotonic() < until:
            time.sleep(LOOK_EVERY)


def _ask(process: subprocess.Popen[bytes]) -> None:
    if ended(process) is None:
        os.killpg(process.pid, signal.SIGTERM)


def _beginning(parent: int, priority: int) -> Callable[[], None]:
    """What a child does before it becomes its program: it asks to be ended when its parent is gone, and to be let
    before other work on this computer, where that is permitted; with a real-time `priority` that is not 0."""
    library = ctypes.CDLL(None)

    def begin() -> None:
        library.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            os._exit(1)
        with contextlib.suppress(OSError):
            os.nice(NICE)
        if priority:
            with contextlib.suppress(OSError):
                os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))

    return begin


def read_report(file: Path) -> dict[str, Any]:
    """A report, or nothing where its process did not live to write it."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
