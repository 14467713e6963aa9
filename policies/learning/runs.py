"""What every long run needs: the revision it is made with, and a polite end."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.results import printable


def commit() -> str:
    """The source revision, with `+` when files differ from it; `unknown` outside a checkout."""
    here = Path(__file__).parent
    try:
        git = ["git", "-C", str(here)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed.strip() else "")


def say_begun(resume: bool, folder: Path) -> None:
    """Says on standard error that a run begins where one was to be gone on with: the folder may be misspelt."""
    if resume:
        print(printable(f"{folder} holds no checkpoint to resume from: this run begins anew"), file=sys.stderr)


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C and a polite `kill` both end the block with `KeyboardInterrupt`, also where the shell ignores Ctrl-C; not
    in a thread, which hears no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    kinds = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(kind, stop) for kind in kinds]
    try:
        yield
    finally:
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
