"""Two processes of one run, as on two devices: each collects its own experience, both learn the same student."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
sys.path[:0] = [{root!r}, {here!r}]
from pathlib import Path
import torch
from test_loop import CONFIG, LoopConfig, distiller
config = LoopConfig(**{{**vars(CONFIG), "rounds": 1, "first_steps": 30, "steps": 10}})
loop, student = distiller(Path({folder!r}), config)
assert loop.accelerator.num_processes == 2
loop.run()
flat = torch.cat([p.detach().flatten() for p in student.module.parameters()])
seen = float(loop.shards.array(loop.shards.shards[0], "x").sum())
sums = flat.double().sum().item(), flat.double().square().sum().item()
print(*sums, loop.monitor.golden, loop.mixture.as_dict(), seen, sep="|")
"""


@pytest.mark.slow
def test_two_processes_learn_one_student_from_their_own_experience(tmp_path):
    here = Path(__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = PROGRAM.format(root=str(here.parents[2]), here=str(here), folder=str(tmp_path / "run"))
    running = []
    for rank in range(2):
        rest = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
        environment = {**os.environ, **{k: str(v) for k, v in rest.items()}, "MASTER_ADDR": "127.0.0.1"}
        environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", program],
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )  # fmt: skip
        )
    done = [process.communicate(timeout=180) for process in running]
    assert [p.returncode for p in running] == [0, 0], done[0][1] + done[1][1]
    first, second = ([part for part in out.strip().splitlines() if "|" in part][-1].split("|") for out, _ in done)
    assert first[:4] == second[:4], "same student, same golden metric, same mixture"
    assert first[4] != second[4], "each collects with its own seed"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 40
    assert not (tmp_path / "run" / "rank_1" / "summary.json").exists()
