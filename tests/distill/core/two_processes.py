"""What test_processes.py runs in two processes; run in one as well, it is what they are compared with."""

import atexit
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from distill.core import checkpoints
from distill.core.errors import DistillError
from distill.core.loop import Distiller, LoopConfig
from distill.core.objectives.base import WeightedSum
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.tables import Epochs, FixedDomain
from distill.core.teachers import Teachers
from distill.language.models import Shape, build
from distill.language.student import ChunkedStudent, Next, projected

V = 40
CONFIG = LoopConfig(
    rounds=1, first_steps=6, steps=6, batch=8, held_out=8, warmup=2, learning_rate=3e-3, shared=True, light=True,
    checkpoint_minutes=0.0,
)  # fmt: skip


def rows(count: int = 48, length: int = 12) -> dict[str, np.ndarray]:
    """Texts of which very different parts count: means of each process's own mean would be wrong."""
    rng = np.random.default_rng(0)
    counted = rng.integers(1, length + 1, count)
    counted[::2] = 1
    return {"tokens": rng.integers(0, V, (count, length + 1)), "mask": np.arange(length) < counted[:, None]}


def distiller(folder: Path, config: LoopConfig = CONFIG, resume: bool = False) -> Distiller:
    """A student whose logits never exist as a whole: it is read past its own forward."""
    teacher, student = (build(Shape(V, 16, layers, 2), layers).double() for layers in (2, 1))  # sums in any order agree
    objective = WeightedSum({"labels": (0.5, CrossEntropy()), "teacher": (0.5, ForwardKL())})
    teachers = Teachers({"labels": Next(), "teacher": projected(teacher, V)})
    return Distiller(
        ChunkedStudent(student, V), objective, teachers, [FixedDomain("text", rows())], Epochs(), folder, config,
        resume=resume, console=Console(quiet=True),
    )  # fmt: skip


def flat(loop: Distiller) -> torch.Tensor:
    """All parameters, `[N]`."""
    return torch.cat([p.detach().flatten() for p in loop.student.module.parameters()])


def killed_while_saving(loop: Distiller, step: int) -> None:
    """At a step the first process has written its checkpoint, and the other dies before it does."""

    def die(*_: object, **__: object) -> None:
        if loop.position.step == step:
            raise RuntimeError("killed")

    write, wait = checkpoints.save, loop.accelerator.wait_for_everyone
    if loop.rank:
        checkpoints.save = lambda *values, **more: (die(), write(*values, **more))[1]
    else:
        loop.accelerator.wait_for_everyone = lambda: (die(), wait())[1]
    with suppress(RuntimeError):
        loop.run()
    checkpoints.save = write


def main(folder: Path) -> None:
    """The whole run, in pieces of three rows; one that was killed while it saved, resumed; one that goes astray."""
    torch.set_num_threads(1)
    whole = distiller(folder / "whole", replace(CONFIG, micro_batch=3))
    whole.run()
    torch.save(flat(whole), folder / f"whole_{whole.rank}.pt")

    killed_while_saving(distiller(folder / "cut", replace(CONFIG, micro_batch=3)), 8)
    again = distiller(folder / "cut", replace(CONFIG, micro_batch=3), resume=True)
    steps = again.position.step
    again.run()
    torch.save(flat(again), folder / f"again_{again.rank}.pt")

    astray = distiller(folder / "astray")
    if astray.rank:
        with torch.no_grad():
            next(astray.student.module.parameters()).add_(1.0)
    refused = ""
    try:
        astray.run()
    except DistillError as error:
        refused = str(error)
    print("FOUND", steps, bool(refused))


if __name__ == "__main__":
    atexit.register(lambda: print("LEFT", not torch.distributed.is_initialized()))  # asked after what comes later
    main(Path(sys.argv[1]))
