"""What test_sharding.py runs in two processes with the student spread over them; see two_processes.py."""

import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from two_processes import CONFIG, distiller, flat

from distill.core.loop import load_best


def main(folder: Path) -> None:
    """A whole run in pieces of three rows; one stopped at a checkpoint amid its fitting, resumed."""
    torch.set_num_threads(1)
    config = replace(CONFIG, micro_batch=3)
    whole = distiller(folder / "whole", config)
    parts = all(isinstance(p, DTensor) for p in whole.learner.parameters())
    mine = sum(p.to_local().numel() for p in whole.learner.parameters() if isinstance(p, DTensor))
    whole.run()
    torch.save(flat(whole), folder / f"whole_{whole.rank}.pt")
    load_best(whole.folder if whole.rank == 0 else folder / "whole", whole.student)

    stopped = distiller(folder / "cut", config)
    step = stopped._step

    def stop() -> float:
        if stopped.position.step == 8:
            raise RuntimeError("stopped")
        return step()

    stopped._step = stop
    with suppress(RuntimeError):
        stopped.run()
    again = distiller(folder / "cut", config, resume=True)
    begun = again.position.step
    again.run()
    torch.save(flat(again), folder / f"again_{again.rank}.pt")
    print("FOUND", parts, mine, flat(whole).numel(), begun)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
