"""What this project uses of accelerate, which says nothing of its types."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVarTuple

import torch
from torch import Tensor, nn

_Ts = TypeVarTuple("_Ts")

class Accelerator:
    process_index: int
    num_processes: int
    device: torch.device
    is_main_process: bool
    def __init__(self, *, mixed_precision: str | None = ..., cpu: bool = ..., **options: Any) -> None: ...
    def prepare(self, *args: *_Ts) -> tuple[*_Ts]: ...
    def autocast(self) -> AbstractContextManager[None]: ...
    def backward(self, loss: Tensor) -> None: ...
    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor | None: ...
    def gather(self, tensor: Tensor) -> Tensor: ...
    def unwrap_model(self, model: nn.Module) -> nn.Module: ...

def init_empty_weights(include_buffers: bool | None = ...) -> AbstractContextManager[None]: ...
def infer_auto_device_map(
    model: nn.Module,
    max_memory: Mapping[int | str, int | str] | None = ...,
    no_split_module_classes: list[str] | None = ...,
    dtype: torch.dtype | None = ...,
) -> dict[str, int | str | torch.device]: ...
