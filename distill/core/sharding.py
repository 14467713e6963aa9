"""Students that are spread over the processes of a run: torch's FSDP2, asked for by accelerate's own launcher.

`accelerate launch --config_file launch/fsdp2.yaml` says so in the environment. Parameters, gradients and moments are
then kept in parts, one for each process; what a block needs is gathered while it computes. Between fitting and
everything else, such as measuring, writing texts and checkpoints, the whole parameters are copied into the student
that the caller gave, so that nothing outside the loop has to know. Checkpoints hold whole parameters: those of one
process, or for `from_pretrained`, are the same.
"""

import os
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict as states
from torch.distributed.fsdp import FSDPModule, fully_shard

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
    for part in list(module.modules()):
        if isinstance(part, nn.ModuleList) and len(part) and not _within(part):
            for block in part:
                if any(True for _ in block.parameters()):
                    fully_shard(block)
    return fully_shard(module)


def _within(part: nn.Module) -> bool:
    """Whether blocks in it are spread already."""
    return any(isinstance(each, FSDPModule) for each in part.modules())


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
