"""Programs that run in two processes which know of each other, as torchrun starts them."""

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]


def launched(line: Sequence[str | Path], **more: str) -> list[str]:
    """What each of two Python processes with this command line says; `more` is set in their environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    running = []
    for rank in range(2):
        rest = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {**os.environ, **{k: str(v) for k, v in rest.items()}, "MASTER_ADDR": "127.0.0.1"}
        environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", **more}
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        running.append(
            subprocess.Popen(
                [sys.executable, *map(str, line)],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        )
    try:
        done = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:  # where one hangs so does the other
            process.kill()
    assert [process.returncode for process in running] == [0, 0], done[0][1] + done[1][1]
    return [out for out, _ in done]
