"""How programs begin, whatever they were started with, and what they say where they fail."""

import contextlib
import io
import os
import sys

from sim.errors import InputError
from sim.results import printable

LONGEST_LINE = 2000
"""Characters of an error's line; longer ones, such as of a class of 100,000 letters, lose their middle."""


def open_streams() -> None:
    """Standard streams that take every text: closed ones lead nowhere, and no locale lacks a character.

    The system gives the number of a closed one to the next file that is opened: what a library or a child writes to its
    standard error would stand in that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (for as long as this process)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def told(error: Exception) -> tuple[str, int]:
    """What a program says of an error that nobody took, and its exit status: 2 for bad input and for what the system
    refused, 1 without memory and for a fault of ours."""
    if isinstance(error, InputError):
        return str(error), 2
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 2
    if isinstance(error, MemoryError):
        return "there is not enough memory for this", 1
    return f"unexpected {type(error).__name__}: {error} (BARKOUR_DEBUG=1 shows where)", 1


def fail(sentence: str, status: int = 2) -> int:
    """One line on standard error, which may lead nowhere by now; what others wrote into it does not make it endless.
    Returns the exit status."""
    line = printable(" ".join(sentence.split()))
    if len(line) > LONGEST_LINE:
        line = f"{line[: LONGEST_LINE // 2]} ... {line[-LONGEST_LINE // 4 :]}"
    with contextlib.suppress(OSError):
        print(f"barkour: {line}", file=sys.stderr, flush=True)
    return status
