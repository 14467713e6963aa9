"""This computer: on what something was measured, and whether something can run here at all."""

import os
import platform
import re
import resource
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sim.errors import InputError

GIB = 1 << 30


def machine() -> dict[str, Any]:
    """JSON-ready: `processor`, `cores`, and `load` (averages of the system's load over 1, 5 and 15 minutes)."""
    return {"processor": processor(), "cores": os.cpu_count(), "load": list(os.getloadavg())}


def processor() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def memory() -> int:
    """Bytes that a process can have: of this computer, its container or its own limit, whichever is least."""
    least = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            said = (Path("/sys/fs/cgroup") / file).read_text().strip()
        except OSError:
            continue
        least += [int(said)] if said.isdigit() else []
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return min(least + ([limit] if limit != resource.RLIM_INFINITY else []))


def need_memory(needed: float, what: str) -> None:
    """Raises `InputError` where `what` takes more than there can be, in place of an end in the middle of the work.

    `needed` is the least that it takes, bytes: less than that is certainly too little.
    """
    if needed > memory():
        raise InputError(f"{what} take {needed / GIB:.1f} GiB of memory at least, of {memory() / GIB:.1f} GiB here")


def check_xla() -> None:
    """Raises `InputError` where XLA would end this process, without a traceback, for what XLA_FLAGS says.

    Tried in a process of its own, for one that has ended so cannot say why. Call before anything else uses JAX.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if why := _xla_ends(flags) if flags.strip() else "":
        raise InputError(f"JAX does not start with XLA_FLAGS={flags}: {why}")


@cache
def _xla_ends(flags: str) -> str:
    """Why XLA ends a process with such flags; empty: it does not."""
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"], capture_output=True, text=True, errors="replace",
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}, check=False,
    )  # fmt: skip
    if done.returncode == 0 or "Traceback" in done.stderr:  # an exception comes again, in this process
        return ""
    said = [line for line in done.stderr.splitlines() if re.match(r"F[0-9]{4} ", line)]  # the form of its log
    return said[0].partition("] ")[2] if said else f"it ends with status {done.returncode}"
