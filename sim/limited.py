"""A child process that may take only so much time and memory, for what comes from outside and may do anything.

A policy's graph or a model's chat template of a few bytes can loop for ever or ask for every gigabyte there is, which
no look at the file tells. A child tries it first; only then does the caller's own process.
"""

import contextlib
import json
import resource
import signal
import subprocess
import sys
from typing import Any

from sim.children import APART, environment, running


def answer(program: str, content: bytes, wall: float) -> Any:
    """What a Python file prints as JSON when it is run with `content` on its standard input; None where it does not
    answer within `wall` seconds, prints no JSON, or ends by a signal. It limits itself: see `limit`."""
    line, pipe = [sys.executable, "-P", program], subprocess.PIPE
    apart = environment(**APART)
    with running(line, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=apart) as child:
        try:
            said, _ = child.communicate(content, timeout=wall)
            return json.loads(said)
        except (subprocess.TimeoutExpired, ValueError):
            return None


def limit(wall: float, processor: int, memory: int) -> None:
    """From now on this process ends when its time is over, whoever waits for it, has so much memory and writes no file.

    Args:
      wall, processor: seconds from now on, and of processor time in all.
      memory: bytes of address space.
    """
    signal.setitimer(signal.ITIMER_REAL, wall)
    for what, most in (
        (resource.RLIMIT_CPU, processor), (resource.RLIMIT_AS, memory), (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):  # fmt: skip
        _, hard = resource.getrlimit(what)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        with contextlib.suppress(ValueError, OSError):  # a system without this limit
            resource.setrlimit(what, (most, most))
