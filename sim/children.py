"""Processes that this one starts and that are to run the same code."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.signals import held

APART = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For processes that share the cores: linear algebra on one thread."""


def environment(**more: str) -> dict[str, str]:
    """This process' environment and `more`, for Python processes that find this project's packages where this one did,
    whatever else is installed."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more


def ended(process: "subprocess.Popen[Any]") -> int | None:
    """The exit status of a child, None while it runs. What a signal raises in the middle of `Popen.poll` leaves its
    lock taken for good, so that nobody learns of the child's end any more; here it waits."""
    with held():
        return process.poll()


def end(process: "subprocess.Popen[Any]", group: bool = False) -> None:
    """Kills a child, or with `group` all processes of the group that it leads, and waits until it is gone; also where
    an interrupted wait for it has left its lock taken, see `ended`."""
    with held():
        if group:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # its leader may have ended before others
                os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            try:
                os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # its number is its own yet
                os.kill(process.pid, signal.SIGKILL)
                process.returncode = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
            except ChildProcessError:  # an interrupted wait has learnt of its end, and told nobody
                process.returncode = 0


@contextmanager
def running(line: Sequence[str], group: bool = False, **how: Any) -> Generator["subprocess.Popen[Any]"]:
    """A child for the time of a block, at whose end it is ended as by `end`; also where a signal raises while it
    starts. `how` is as for `subprocess.Popen`."""
    with contextlib.ExitStack() as ending:
        with held():
            process = subprocess.Popen(line, **how)  # noqa: S603
            ending.callback(end, process, group)
        yield process
