"""Processes that this one starts and that are to run the same code."""

import os
from pathlib import Path

APART = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""For processes that share the cores: linear algebra on one thread."""


def environment(**more: str) -> dict[str, str]:
    """This process' environment and `more`, for Python processes that find this project's packages where this one did,
    whatever else is installed."""
    root = str(Path(__file__).resolve().parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)} | more
