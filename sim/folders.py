"""A folder that a run writes is its own: a second one is refused in one line, whatever ended the first."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sim.errors import InputError

LOCK = ".lock"
"""The file that is locked. It stays; the lock on it ends with the process that holds it."""


@contextmanager
def alone(folder: Path, does: str = "is at work") -> Iterator[None]:
    """Makes the folder and keeps other processes out of it; the same process may ask twice.

    `does` says what the others do.

    Raises:
      InputError: another process is at work there, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, is_singleton=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"another process {does} in {folder}: wait for it, or choose another folder") from error
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    finally:
        lock.release()
