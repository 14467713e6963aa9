"""Two processes that share each batch train the student that one process trains, whatever counts in whose rows."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.core.errors import DistillError


def launched(folder: Path) -> list[str]:
    """What each of the two says."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).with_name("two_processes.py")
    running = []
    for rank in range(2):
        rest = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {**os.environ, **{k: str(v) for k, v in rest.items()}, "MASTER_ADDR": "127.0.0.1"}
        environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join([str(here.parents[3]), os.environ.get("PYTHONPATH", "")])
        running.append(
            subprocess.Popen(
                [sys.executable, str(here), str(folder)],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        )
    done = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0, 0], done[0][1] + done[1][1]
    return [out for out, _ in done]


def test_two_processes_train_the_student_that_one_trains(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    from two_processes import distiller, flat

    said = launched(tmp_path)
    one = distiller(tmp_path / "one")
    one.run()
    found = [torch.load(tmp_path / f"{what}_{rank}.pt") for what in ("whole", "again") for rank in (0, 1)]
    assert all(torch.equal(found[0], other) for other in found[1:]), "ranks alike; resumed bit for bit after a kill"
    assert (found[0] - flat(one)).abs().max() < 1e-9
    assert all("FOUND 7 True" in out for out in said), "the last step that both have saved; strays are noticed"
    with pytest.raises(DistillError, match="2 processes, not 1"):
        distiller(tmp_path / "whole", resume=True)
