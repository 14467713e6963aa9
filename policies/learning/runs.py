"""What every long run needs: the revision it is made with, a folder that is its own, and a polite end."""

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sim.errors import InputError
from sim.folders import replacing
from sim.reading import read_own
from sim.results import printable

MARK = "run.json"
"""What a folder's run was begun with."""


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


def check_own(folder: Path, begun_with: Mapping[str, Any], files: Iterable[str]) -> None:
    """Raises `InputError` where a folder without a checkpoint holds one of the files that a run writes, of another run
    or of no run: they would be replaced. `begun_with` tells runs apart."""
    foreign = [name for name in (MARK, *files) if (folder / name).exists()]
    if not foreign or _mark(folder) == begun_with:
        return
    raise InputError(f"{folder} holds {foreign[0]}, which is not of this run: choose another --out, or move it away")


def mark(folder: Path, begun_with: Mapping[str, Any]) -> None:
    """Says in a folder whose it is, so that a run that was killed before its first checkpoint can begin again."""
    with replacing(folder / MARK) as partial:
        partial.write_text(json.dumps(begun_with, indent=2) + "\n")


def _mark(folder: Path) -> Any:
    try:
        return read_own(folder / MARK)
    except InputError:
        return None


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
