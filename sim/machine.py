"""On what something was measured."""

import os
import platform
from pathlib import Path
from typing import Any


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
