"""The precision that numbers are computed in, and what mixed precision costs on the device at hand."""

import time

import torch

TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SIZE, TIMES = 384, 5
"""Edge of the matrices that are multiplied to find out, and how often; the quickest time counts."""
SLOWER = 1.5
"""Times as slow as float32 from which on a precision is no gain."""


def wide_type(tensor: torch.Tensor) -> torch.dtype:
    """float32, or the tensor's own type where that is wider: what sums and logarithms are taken in."""
    return torch.promote_types(tensor.dtype, torch.float32)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in its `wide_type`."""
    return tensor.to(wide_type(tensor))


def slowness(precision: str, device: torch.device) -> float:
    """How many times as long as in float32 a product of matrices takes, forward and backward; 1 for "no".

    Processors without arithmetic of their own for it take ten times as long.
    """
    if precision not in TYPES:
        return 1.0
    return _seconds(TYPES[precision], device) / _seconds(torch.float32, device)


def _seconds(kind: torch.dtype, device: torch.device) -> float:
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(SIZE, SIZE, generator=generator).to(device, kind).requires_grad_() for _ in range(2))
    taken: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        torch.autograd.grad((left @ right).sum(), (left, right))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
    return min(taken)
