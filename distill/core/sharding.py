"""Models that are spread over the processes of a run: torch's FSDP2, asked for by accelerate's own launcher.

`accelerate launch --config_file launch/fsdp2.yaml` says so in the environment. Parameters, gradients and moments are
then kept in parts, one for each process; what a block needs is gathered while it computes. Between fitting and
everything else, such as measuring, writing texts and checkpoints, the whole parameters are copied into the student
that the caller gave, so that nothing outside the loop has to know. Checkpoints hold whole parameters: those of one
process, or for `from_pretrained`, are the same.

A teacher stays spread all the time (`spread`), as it may fit nowhere as a whole. Processes compute with it together:
each asks it as often as the others do. What one process does alone, `led` lets it do.
"""

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from distill.core.errors import DistillError

ASKED = "ACCELERATE_USE_FSDP"
VERSION = "FSDP_VERSION"
WHOLE = states.StateDictOptions(full_state_dict=True)
FROM_FIRST = states.StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)


def asked() -> bool:
    """Whether the launcher asks for it; its word is taken away, so that accelerate does not shard a second time.

    Raises:
      DistillError: it asks for the first version of FSDP, or for DeepSpeed.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "").lower() == "true":
        raise DistillError("DeepSpeed is not taken: launch/fsdp2.yaml spreads a student as its third stage does")
    if os.environ.get(ASKED, "").lower() != "true" and os.environ.get("BARKOUR_SHARDED") != "1":
        return False
    if os.environ.get(VERSION, "2") != "2":
        raise DistillError(f"only version 2 of FSDP is taken, the launcher asks for {os.environ[VERSION]}")
    os.environ.pop(ASKED, None)
    os.environ["BARKOUR_SHARDED"] = "1"  # a later loop of this process is to know as well
    return True


def shard(module: nn.Module) -> FSDPModule:
    """Spreads a module over all processes, block by block where it has lists of blocks; the module itself."""
    for block in blocks(module):
        fully_shard(block)
    return fully_shard(module)


def blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The entries of the outermost lists in a module that have parameters: what computes as one piece."""
    for part in module.children():
        if isinstance(part, nn.ModuleList):
            yield from (block for block in part if any(True for _ in block.parameters()))
        else:
            yield from blocks(part)


def spread(module: nn.Module, device: torch.device | str) -> None:
    """Gives each process room for its part of every block of a module that is only read, and for the rest.

    Parameters are on the device `meta` before, and hold nothing yet after it: `load_whole` fills them. Buffers keep
    what they hold.
    """
    module.requires_grad_(False)
    for block in blocks(module):
        fully_shard(block, reshard_after_forward=True)
    held = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.to_empty(device=device)
    for name, buffer in module.named_buffers():
        buffer.copy_(held[name])


def is_spread(module: nn.Module | None) -> bool:
    """Whether processes keep parts of it."""
    return module is not None and any(isinstance(part, FSDPModule) for part in module.modules())


def printed(module: nn.Module) -> str:
    """The architecture as torch prints it; blocks of a module that is spread have names with `FSDP` before them."""
    return str(module).replace("FSDP", "") if is_spread(module) else str(module)


def entire(tensor: Tensor) -> Tensor:
    """A parameter as a whole. Of one that is spread all processes have to ask."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


DONE, FAILED = -1, -2
"""What the first process says in place of a block's number when it is done, or cannot go on."""


@contextmanager
def led(module: nn.Module | None, first: bool) -> Generator[bool]:
    """True in the first process, which may use the module within as it likes; the others help until it is done.

    Where the module is spread they gather their parts of every block that the first one comes to. Raises `DistillError`
    in them where it failed.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)] if module is not None else []
    if not parts:
        yield first
        return
    place = next(cast("nn.Module", parts[0]).parameters()).device

    def told(number: int = 0) -> int:
        said = torch.tensor(number, device=place)
        torch.distributed.broadcast(said, src=0)
        return int(said)

    if not first:
        while (number := told()) >= 0:
            parts[number].unshard()
            parts[number].reshard()
        if number == FAILED:
            raise DistillError("the first process could not go on")
        yield False
        return

    def says(number: int) -> Callable[..., None]:
        def before(*_: Any) -> None:
            told(number)

        return before

    hooks = [cast("nn.Module", part).register_forward_pre_hook(says(i), prepend=True) for i, part in enumerate(parts)]
    try:
        yield True
    except BaseException:
        told(FAILED)
        raise
    else:
        told(DONE)
    finally:
        for hook in hooks:
            hook.remove()


def whole(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """The whole parameters and buffers whose names begin so, without the prefix. All processes have to ask."""
    found = states.get_model_state_dict(module, options=WHOLE)
    return {n.removeprefix(prefix): cast("Tensor", v) for n, v in found.items() if n.startswith(prefix)}


def load_whole(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Gives all processes their parts of the whole state that the first one has; others' `state` is not read."""
    states.set_model_state_dict(module, dict(state), options=FROM_FIRST)


def optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The optimiser's state by parameters' names, whole; none before its first step. All processes have to ask."""
    if not optimizer.state:  # torch would make it by a step, which counts in the bias correction
        return {}
    return cast("dict[str, Any]", states.get_optimizer_state_dict(module, optimizer, options=WHOLE))


def load_optimizer_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """As `load_whole`, for `optimizer_state`: all processes get what the first one has, and keep their part."""
    box = [dict(state)]
    torch.distributed.broadcast_object_list(box, src=0)
    if box[0]:
        states.set_optimizer_state_dict(module, optimizer, box[0], options=WHOLE)
