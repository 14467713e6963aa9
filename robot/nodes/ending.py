"""How the programs of `robot.nodes.programs` end: asked for by a signal, and with a report in a file."""

import json
import math
import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from robot.loop.timing import ENDED_WITHIN
from sim.errors import InputError
from sim.folders import replacing, writable
from sim.signals import polite


class Ending:
    """Counts how often an end was asked for (SIGINT, SIGTERM, SIGHUP).

    Who started a program ends it by force where it does not obey. Where that one is gone, the program's own alarm does
    (SIGALRM, which ends a process whatever it hangs in): nobody else would.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.patience = 2 * ENDED_WITHIN
        """s that the program may take to end; the control loop's soft stop takes longer."""
        self._parent = os.getppid()

    @contextmanager
    def listening(self) -> Generator["Ending"]:
        """Takes the signals over, in the main thread, and gives them back to whoever called the program."""
        before = {kind: signal.signal(kind, self._ask) for kind in polite()}
        try:
            yield self
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)

    def _ask(self, *_: Any) -> None:
        self.asked += 1
        if os.getppid() != self._parent and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0:
            signal.alarm(math.ceil(self.patience))


def check_report(path: str | Path | None) -> None:
    """Before any work: that `write_report` will be able to write there; nothing where there is no path.

    Raises:
      InputError: it is a folder, a pipe or a device, or nothing can be written beside it.
    """
    if not path:
        return
    place = Path(path)
    if place.exists() and not place.is_file():
        raise InputError(f"cannot write {path}: it is {'a folder' if place.is_dir() else 'no regular file'}")
    writable(place.parent)


def write_report(path: Path, value: Any) -> None:
    """Writes JSON, whole or not at all; numbers that are not finite become null.

    Raises:
      InputError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial:
            partial.write_text(json.dumps(_finite(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in cast(dict[Any, Any], value).items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in cast(list[Any], value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
