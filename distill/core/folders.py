"""A run's folder to itself, and children that end with their parent."""

import os
import threading
import time
from multiprocessing import connection, parent_process
from pathlib import Path

from filelock import FileLock, Timeout

from distill.core.errors import DistillError

LOCK = ".lock"
"""The file that is locked. It stays; the lock on it ends with the process that holds it."""


def hold(folder: Path) -> FileLock:
    """Makes the folder and locks it against other processes until the lock is released; the same process may lock it
    again.

    Raises:
      DistillError: another process is at work there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rank = os.environ.get("RANK", "0")  # of processes that work together, each locks for itself
        lock = FileLock(folder / (LOCK if rank == "0" else f"{LOCK}_{rank}"), is_singleton=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DistillError(f"another process is at work in {folder}: wait for it, or choose another folder") from error
    except OSError as error:
        raise DistillError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
    return lock


LOOK_EVERY = 0.5
"""s between looks for a parent that cannot be waited for."""


def end_with_parent(program: int = 0) -> None:
    """In a child of `multiprocessing`, or of the process `program`: ends this process at once when its parent is gone,
    however that ended."""
    parent = parent_process()
    if parent is None and not program:
        return

    def watch() -> None:
        if parent is not None:
            connection.wait([parent.sentinel])
        while program and os.getppid() == program:
            time.sleep(LOOK_EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="ends with the parent").start()
