"""What every long run needs: the revision it is made with, a folder that is its own, and a polite end."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from sim.errors import InputError
from sim.folders import replacing
from sim.reading import read_own
from sim.results import printable
from sim.signals import polite

MARK = "run.json"
"""What a folder's run was begun with."""
IMPORT = 10.0
"""s that an import may take from when an end is asked for; heavy libraries take 2."""


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


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C, a polite `kill` and a terminal that closes end the block with `KeyboardInterrupt`, also where the shell
    ignores Ctrl-C; not in a thread, which hears no signals. An import is waited for, up to `IMPORT` s: libraries
    swallow what is raised while they are imported, or make another error of it. Where Python itself swallows it, as in
    what a library has called when garbage is collected, it comes again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    asked: list[float] = []

    def stop(number: int, frame: FrameType | None) -> None:
        asked.append(time.monotonic())
        if _importing(frame) and asked[-1] < asked[0] + IMPORT:
            come_again()
        else:
            raise KeyboardInterrupt

    def come_again() -> None:
        signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, 0.05)

    def ignored(what: Any) -> None:
        if asked and what.exc_type is KeyboardInterrupt:
            come_again()
        else:
            say(what)

    kinds, say, sys.unraisablehook = polite(), sys.unraisablehook, ignored
    before = [signal.signal(kind, stop) for kind in kinds]
    try:
        yield
    except Exception as error:
        if asked:  # in the middle of a library's call, which made another error of it
            raise KeyboardInterrupt from error
        raise
    finally:
        sys.unraisablehook = say
        if asked:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
        for kind, handler in zip(kinds, before, strict=True):
            signal.signal(kind, handler)
