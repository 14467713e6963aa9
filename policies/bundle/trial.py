"""A network from outside is first run by a child process that may take only so much time and memory.

A graph of a few bytes can loop for ever or ask for every gigabyte there is, which no look at the file tells. The child
loads it and answers its golden inputs; only then does the caller's own process. What ran once is remembered by its
digest, in this process and in the user's cache folder, so that the same file is not tried again.

Run as a program this module is the child: the file's bytes come on standard input.
"""

import contextlib
import hashlib
import json
import os
import sys
import tempfile
from pathlib import Path

from sim.errors import first_line
from sim.limited import answer, limit

WALL, PROCESSOR = 20, 6
"""Seconds that the child may take, and of processor time. The shipped generalist takes 0.4 s of it."""
MEMORY = 1 << 30
"""Bytes of address space besides `PER_BYTE` for each byte of the file. The shipped generalist takes 0.15 GiB in all."""
PER_BYTE = 8
VARIABLE = "BARKOUR_CACHE"
"""Environment variable with the user's cache folder; empty keeps nothing."""
KEPT = 500
"""Digests in that folder; the oldest make room."""
_tried: set[str] = set()


def try_out(content: bytes) -> None:
    """Runs the model `content` in a child process, unless it ran before; raises `InputError` where it takes too much
    time or memory. What else is wrong with it the caller finds out by itself, without danger."""
    from sim.errors import InputError

    digest = _digest(content)
    file = _file(digest)
    if digest in _tried or (file is not None and file.is_file()):
        return
    said = answer(__file__, content, WALL + 2)
    problem = said.get("problem") if isinstance(said, dict) else None
    if problem is None:
        problem = f"its network did not answer within {PROCESSOR} s of processor time and {WALL} s in all, or crashed"
    if problem:
        raise InputError(problem)


def remember(content: bytes) -> None:
    """The model `content` was run and is not tried again, by this process or another one of this user."""
    digest = _digest(content)
    if digest in _tried:
        return
    _tried.add(digest)
    file = _file(digest)
    if file is None:
        return
    with contextlib.suppress(OSError):  # no place to keep it: it is tried again
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
            pass
        os.replace(partial.name, file)
        for old in sorted(file.parent.iterdir(), key=lambda each: each.stat().st_mtime)[:-KEPT]:
            old.unlink()


def _digest(content: bytes) -> str:
    from policies.bundle.runtime import onnxruntime

    return hashlib.sha256(onnxruntime.__version__.encode() + b"\0" + content).hexdigest()


def _file(digest: str) -> Path | None:
    given = os.environ.get(VARIABLE)
    if given is not None:
        return Path(given) / "bundles" / digest if given else None
    try:
        home = Path.home()
    except RuntimeError:
        return None
    return Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache") / "barkour" / "bundles" / digest


# --- the child --------------------------------------------------------------------------------------------------------


def _problem(content: bytes) -> str:
    """What the network takes too much of, in a sentence; empty where it answers, or is refused."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import numpy as np
    import onnxruntime

    limit(WALL, PROCESSOR, MEMORY + PER_BYTE * len(content))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        said = json.loads(session.get_modelmeta().custom_metadata_map["barkour"])
        rows = np.asarray(said["golden"]["observation"], np.float32)
        name = session.get_inputs()[0].name
        for part in (rows, rows[:1]):
            session.run(None, {name: part})
    except MemoryError:
        return "its network takes too much memory"
    except Exception as error:  # onnxruntime raises its own unrelated classes
        text = first_line(error)
        if "bad_alloc" in text or "llocate" in text:
            return f"its network takes more than {(MEMORY + PER_BYTE * len(content)) >> 20} MiB of memory"
    return ""


if __name__ == "__main__":
    print(json.dumps({"problem": _problem(sys.stdin.buffer.read())}))
