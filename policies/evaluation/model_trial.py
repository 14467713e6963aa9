"""A model from outside is compiled by a child process first, which may take only so much time and memory.

A MJCF of a hundred bytes can ask for a hundred million bodies, or for a picture of 30 GB.
"""

import json
import sys
from pathlib import Path

from sim.errors import InputError, first_line
from sim.limited import answer, limit

WALL, PROCESSOR = 40.0, 15
"""Seconds in all, and of processor time."""
MEMORY = 6 * 2**30
"""Bytes of address space."""


def try_out(file: Path) -> None:
    """Raises `InputError` where the model takes too much time or memory. What else is wrong with it the caller finds
    out by itself, without danger."""
    said = answer(__file__, str(file).encode("utf-8", "surrogateescape"), WALL + 2)
    if not isinstance(said, dict):
        raise InputError(
            f"cannot read the model {file}: it was not compiled within {PROCESSOR} s of processor time and {WALL:g} s "
            f"in all, with {MEMORY // 2**30} GiB"
        )
    if said["problem"]:
        raise InputError(f"cannot read the model {file}: {said['problem']}")


def _tried(file: Path) -> str:
    """What the caller must not find out by itself; empty where there is nothing."""
    from policies.evaluation.new_robot import read

    try:
        read(file)
    except InputError:
        return ""
    except Exception as error:
        return first_line(error)
    return ""


if __name__ == "__main__":
    limit(WALL, PROCESSOR, MEMORY)
    print(json.dumps({"problem": _tried(Path(sys.stdin.buffer.read().decode("utf-8", "surrogateescape")))}))
