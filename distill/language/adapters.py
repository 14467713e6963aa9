"""Less memory for a student: gradient checkpointing, and low-rank adapters (LoRA) in place of its weights."""

from typing import Any

import torch
from torch import nn

from distill.core.errors import DistillError, first_line


def checkpoint_gradients(model: Any) -> None:
    """Activations are computed again in the backward pass. Raises `DistillError` for models that cannot do that."""
    if not getattr(model, "supports_gradient_checkpointing", False):
        raise DistillError(f"{type(model).__name__} knows no gradient checkpointing")
    # the older, re-entrant kind gives no gradient to weights behind inputs that need none
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def with_adapters(model: nn.Module, rank: int, alpha: float, seed: int, task: str = "CAUSAL_LM") -> Any:
    """The model with adapters on all its linear layers but the output layer; they alone are trained (arXiv 2106.09685).

    At first they change nothing. `merged` gives the plain model back. `task` is what peft calls the kind of model;
    FEATURE_EXTRACTION is one without a head.

    Raises:
      DistillError: peft is not installed, or finds no layer to adapt.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise DistillError("--lora needs peft: pip install 'barkour[peft]'") from error
    torch.manual_seed(seed)  # pyright: ignore[reportUnknownMemberType] (torch types no seed)
    how: Any = LoraConfig
    try:
        return get_peft_model(
            model,
            how(r=rank, lora_alpha=alpha, target_modules="all-linear", task_type=task),  # pyright: ignore
        ).eval()
    except ValueError as error:
        raise DistillError(f"adapters cannot be put on a {type(model).__name__}: {first_line(error)}") from error


def merged(model: Any) -> Any:
    """The plain model, adapters added to its weights where it has any."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def trained(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
