"""Several processes of one run: what is trained in one wrapper, and what they have to agree on.

Data-parallel wrappers synchronise the gradients of what their own `forward` computes, and no others. Student and
objective are therefore one module whose forward is the loss: nothing that is trained can be left outside.
"""

import atexit
import hashlib
import os
import random
import time
from collections.abc import Mapping
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import gather_object
from torch import Tensor, nn

from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.objectives.base import Objective


class Learner(nn.Module):
    """All that is trained, and the loss as its forward."""

    def __init__(self, student: Student, objective: Objective, module: nn.Module | None = None) -> None:
        """`module` is trained in place of the student's own, where that is to stay whole."""
        super().__init__()
        self.student, self.learned = module or student.module, objective.learned()
        self._outputs, self._objective = student.outputs, objective

    def forward(self, batch: Mapping[str, Tensor], signal: Any) -> Tensor:
        """The loss of a batch, a scalar; its `mask`, where it has one, says what counts."""
        return self._objective(self._outputs(self.student, batch), signal, batch.get("mask"))

    def digest(self) -> str:
        """SHA-256 over the parameters: equal on all processes of a run, or something is not synchronised."""
        state = hashlib.sha256()
        for name, tensor in self.named_parameters():
            state.update(name.encode())
            state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return state.hexdigest()


class Processes(Protocol):
    """Of accelerate, an `Accelerator` or a `PartialState`."""

    num_processes: int


SETTLING = 0.5
"""Seconds in which the threads that worked for others have put down what they held: they need microseconds."""


def leave() -> None:
    """This process gives up the connections to the others, and their threads end; without any: nothing.

    A thread of gloo frees the Python objects that its last task held after it has said that the task is done, and
    needs the interpreter's lock for it. One that the interpreter's end meets before aborts a process whose work is all
    done, and who ends it with that lock in his hands waits for it forever. So they get time without it first.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        time.sleep(SETTLING)
        torch.distributed.destroy_process_group()


@cache
def leaves_at_exit() -> None:
    """This process leaves the others when it ends: to be said by whoever connects them, once or more often."""
    atexit.register(leave)


def launched() -> int:
    """Processes of this run as the launcher started them, known before they are connected."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def connected() -> PartialState:
    """The processes of this run, connected until this one ends."""
    leaves_at_exit()
    return PartialState(cpu=not torch.cuda.is_available())


def everybody(accelerator: Processes, value: Any) -> list[Any]:
    """What each process gives, in the order of their ranks. All processes have to ask."""
    if accelerator.num_processes == 1:
        return [value]
    return gather_object([value])


def summed(accelerator: Accelerator, *values: float) -> list[float]:
    """Sums over the processes, in float64."""
    if accelerator.num_processes == 1:
        return list(values)
    mine = torch.tensor(values, dtype=torch.float64, device=accelerator.device)
    return [float(value) for value in accelerator.reduce(mine, "sum")]


def counted(batch: Mapping[str, Tensor]) -> int:
    """Elements of a batch that count: by which means are weighed against each other."""
    mask = batch.get("mask")
    return int(mask.sum()) if mask is not None else len(next(iter(batch.values())))


def share(batch: Mapping[str, Tensor], rank: int, processes: int) -> dict[str, Tensor]:
    """One process's rows of a batch that all have drawn alike."""
    return {name: values[rank::processes] for name, values in batch.items()}


def pieces(batch: Mapping[str, Tensor], rows: int) -> list[dict[str, Tensor]]:
    """The batch in pieces of so many rows, the last perhaps shorter; 0: as a whole."""
    count = len(next(iter(batch.values())))
    return [
        {name: values[first : first + (rows or count)] for name, values in batch.items()}
        for first in range(0, count, rows or count)
    ]


def random_state(device: torch.device) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What Python's, NumPy's and torch's own generators draw from next: JSON-ready values, and tensors."""
    name, keys, *rest = cast("tuple[Any, ...]", np.random.get_state(legacy=True))  # noqa: NPY002 (others may draw from it)
    values = {"python": random.getstate(), "numpy": [name, keys.tolist(), *rest]}
    tensors = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return values, tensors


def set_random_state(device: torch.device, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Goes on where `random_state` was asked; what it did not say stays as it is."""
    if "python" in values:
        version, numbers, following = values["python"]
        random.setstate((version, tuple(numbers), following))
        name, keys, *rest = values["numpy"]
        np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    if "cpu" in tensors:
        torch.set_rng_state(tensors["cpu"])
    if "cuda" in tensors and device.type == "cuda":
        torch.cuda.set_rng_state(tensors["cuda"], device)


def common_checkpoint(accelerator: Accelerator, known: Mapping[str, Mapping[str, int]], folder: Any) -> str | None:
    """Name of the newest checkpoint that all processes have, None where none has any.

    `known`: name -> its `saves` and the `processes` of its run. All processes get one answer or one error.

    Raises:
      DistillError: checkpoints of another number of processes, or none that all have.
    """
    found = everybody(accelerator, {name: dict(about) for name, about in known.items()})
    if not any(found):
        return None
    begun = {about["processes"] for each in found for about in each.values()}
    if begun != {accelerator.num_processes}:
        number = ", ".join(str(n) for n in sorted(begun - {accelerator.num_processes}))
        raise DistillError(f"{folder} was begun with {number} processes, not {accelerator.num_processes}")
    saves = [{about["saves"]: name for name, about in each.items()} for each in found]
    common = set(saves[0]).intersection(*saves[1:])
    if not common:
        raise DistillError(f"{folder} has no checkpoint that all {len(found)} processes have")
    return saves[accelerator.process_index][max(common)]
