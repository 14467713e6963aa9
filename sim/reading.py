"""Files from outside are read whole: regular ones, of a size that they may have."""

import stat
from pathlib import Path

from sim.errors import InputError


def check_file(path: Path, largest: int, what: str = "") -> None:
    """Raises `InputError` where a path is no regular file (a pipe or a device would never end) or larger than `largest`
    bytes. `what` says what it should be, such as `the log`."""
    name = f"{what} {path}".strip()
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {name}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"cannot read {name}: it is no regular file")
    if status.st_size > largest:
        raise InputError(f"cannot read {name}: it has {status.st_size} bytes, {largest} are allowed")


def read_text(path: Path, largest: int, what: str = "") -> str:
    """A text in UTF-8; raises `InputError` as `check_file` does, and where it is none."""
    check_file(path, largest, what)
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise InputError(f"cannot read {f'{what} {path}'.strip()}: {reason}") from error
