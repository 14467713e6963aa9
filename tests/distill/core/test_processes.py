"""Two processes of one run, as on two devices: each collects its own experience, both learn the same student."""

import json
from pathlib import Path

import pytest

from tests.distill.pairs import launched

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
    program = PROGRAM.format(root=str(here.parents[2]), here=str(here), folder=str(tmp_path / "run"))
    said = launched(["-c", program])
    first, second = ([part for part in out.strip().splitlines() if "|" in part][-1].split("|") for out in said)
    assert first[:4] == second[:4], "same student, same golden metric, same mixture"
    assert first[4] != second[4], "each collects with its own seed"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["steps"] == 40
    assert not (tmp_path / "run" / "rank_1" / "summary.json").exists()
