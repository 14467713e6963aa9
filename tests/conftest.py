"""All tests: compiled JAX programs and planned routes are kept for the session, so that each is made once."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="barkour-jax-")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", CACHE.name)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
os.environ["BARKOUR_CACHE"] = os.path.join(CACHE.name, "routes")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as of what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def spoil() -> Callable[[Path, str], None]:
    """Puts what cannot be read in a file's place: a pipe, a device, a folder, a link to nothing, 40 GB or nothing."""

    def put(path: Path, how: str) -> None:
        path.unlink(missing_ok=True)
        if how == "pipe":
            os.mkfifo(path)
        elif how == "device":
            path.symlink_to("/dev/zero")
        elif how == "folder":
            path.mkdir()
        elif how == "link to nothing":
            path.symlink_to("gone")
        elif how in ("huge", "empty"):
            with path.open("wb") as file:
                file.truncate(40 * 2**30 if how == "huge" else 0)
        else:
            raise ValueError(how)

    return put


@pytest.fixture
def interrupted_start(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[Any]]]:
    """Programs that were started; each start is interrupted when its program runs and before anybody knows of it."""
    start, started = subprocess.Popen, list[subprocess.Popen[Any]]()

    def interrupted(*words: Any, **how: Any) -> subprocess.Popen[Any]:
        started.append(start(*words, **how))
        signal.raise_signal(signal.SIGINT)
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", interrupted)
    yield started
    for each in started:
        if each.poll() is None:
            each.kill()
        each.wait()
