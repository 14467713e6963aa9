"""A folder that a run writes is its own: a second one is refused in one line, whatever ended the first.

`distill.core.folders` locks the same file, so that both kinds of runs keep each other out. It is a piece of its own:
the distillation core imports nothing of the robot's packages, and these import nothing that is above them.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sim.errors import InputError

LOCK = ".lock"
"""The file that is locked. It stays; the lock on it ends with the process that holds it."""


@contextmanager
def alone(folder: Path | None, does: str = "is at work") -> Iterator[None]:
    """Makes the folder and keeps other processes out of it; the same process may ask twice.

    `does` says what the others do. Without a folder nothing is locked: the run writes none. What fails before it has
    written anything leaves no folder that was not there before.

    Raises:
      InputError: another process is at work there, or nothing can be written there.
    """
    if folder is None:
        yield
        return
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, is_singleton=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise InputError(f"another process {does} in {folder}: wait for it, or choose another folder") from error
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror or error}") from error
    try:
        yield
    except Exception:
        with suppress(OSError):  # another has come, or all of it is gone: the refusal is what must be said
            if made and os.listdir(folder) == [LOCK]:
                (folder / LOCK).unlink()
                for path in made:
                    path.rmdir()
        raise
    finally:
        lock.release()


@contextmanager
def replacing(path: Path, new: bool = False) -> Iterator[Path]:
    """A new file beside `path` to write to, which takes its place at the end, or goes where that fails.

    Its name is no other program's: of two that write `path` at once one is there afterwards, whole; the first where
    each may only make a `new` one.

    Raises:
      OSError: it cannot take the place of `path`; `FileExistsError` where it was to be new and something is there.
    """
    made = path.with_name(f"{path.name[:200]}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield made
        if new:
            _put(made, path)
        else:
            os.replace(made, path)
    finally:
        with suppress(OSError):
            made.unlink(missing_ok=True)


def _put(made: Path, path: Path) -> None:
    """Gives a file a name that nothing has."""
    try:
        os.link(made, path, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: between looking and writing another may come
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(made), None, str(path)) from None
        os.replace(made, path)


def writable(folder: Path) -> Path:
    """`folder`, made if need be; `InputError` if nothing can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".barkour-write-test-{secrets.token_hex(4)}"  # no other program's, and no pipe's
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    return folder


def makeable(folder: Path) -> Path:
    """`folder`, of which nothing is made: `InputError` if it is no folder, or none that could be made and written."""
    try:
        for path in (folder, *folder.absolute().parents):
            if not os.path.lexists(path):
                continue
            kind = path.stat().st_mode
            if not stat.S_ISDIR(kind):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            break
        with suppress(FileNotFoundError):
            folder.stat()  # names that are too long
    except OSError as error:
        raise InputError(f"cannot write to the folder {folder}: {error.strerror}") from error
    return folder
