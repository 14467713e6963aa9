"""The output layer of a causal model by itself: last hidden states, weights, and what is done to their product.

Logits of a whole vocabulary are the largest tensor of a training step. With these three they can be made for some
positions at a time (`core.objectives.chunks`). Families differ in the third: Cohere and Granite scale their logits,
Gemma 2 caps them, T5's decoder scales its states. It is therefore measured on each model, against the model's own
logits, in place of a list of families; a model whose logits cannot be made so is refused.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.signals import LogitScaling

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")
"""Names that configs give to the cap of their logits."""
SCALES = ("logit_scale", "logits_scaling", "lm_head_multiplier", "d_model", "hidden_size")
"""Names in configs of what a scale is made of: a measured one that is one of them, up to rounding, is set to it."""


def states_and_head(module: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """A causal model's last hidden states `[B, T, D]` for `tokens` `[B, T + 1]`, and its output layer `[V, D]`.

    The bias of an output layer is its last column, for states that end in 1. `positions` as for `models.causal`.

    Raises:
      DistillError: a model without the two parts.
    """
    hidden, head = every_state_and_head(module, batch, every=False)
    return hidden[-1], head


def every_state_and_head(
    module: nn.Module, batch: Mapping[str, Tensor], every: bool = True
) -> tuple[tuple[Tensor, ...], Tensor]:
    """As `states_and_head`, with the hidden states of all blocks before the last, the embedding's first; without them
    where `every` is False. For an output layer with a bias the last states stand there a second time, ending in 1.

    Raises:
      DistillError: as `states_and_head`, or a model that does not give its states.
    """
    inner: Any = getattr(module, "module", module)  # wrapped for several devices
    try:
        layer, decoder = inner.get_output_embeddings(), inner.get_decoder()
        weight = layer.weight
    except (AttributeError, NotImplementedError) as error:
        raise DistillError(f"{type(inner).__name__} has no decoder and output layer of its own") from error
    places = {"position_ids": batch["positions"]} if "positions" in batch else {}
    more = {"output_hidden_states": True} if every else {}
    found = decoder(input_ids=batch["tokens"][:, :-1], use_cache=False, **places, **more)
    before = getattr(found, "hidden_states", None) if every else ()
    if before is None:
        raise DistillError(f"a {type(inner).__name__} does not give its hidden states")
    states, bias = found.last_hidden_state, getattr(layer, "bias", None)
    hidden = (*before[:-1], states)
    if bias is None:
        return hidden, weight
    with_one = torch.cat([states, torch.ones_like(states[..., :1])], -1)
    return (*hidden, with_one), torch.cat([weight, bias[:, None]], 1)


@torch.no_grad()
def measured_scaling(model: Any, tokens: Tensor | None = None) -> LogitScaling:
    """What the model does between its output layer and its logits, from one small batch `[B, T + 1]` of tokens.

    Raises:
      DistillError: the logits are not those of the states, the output layer, a scale and a cap.
    """
    layer = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    weight = getattr(layer, "weight", None)
    if weight is None:
        raise DistillError(f"{type(model).__name__} has no output layer of its own")
    if tokens is None:
        tokens = torch.randint(0, len(weight), (2, 9), generator=torch.Generator().manual_seed(0))
    batch = {"tokens": tokens.to(weight.device)}
    training = model.training
    model.eval()
    try:
        own = model(input_ids=batch["tokens"][:, :-1], use_cache=False).logits.double()
        states, head = states_and_head(model, batch)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DistillError(f"{type(model).__name__} cannot be read in parts: {error}") from error
    finally:
        model.train(training)
    sums = F.linear(states, head).double()
    if sums.shape != own.shape:
        raise DistillError(f"{type(model).__name__} has {own.shape[-1]} logits, its output layer {sums.shape[-1]}")
    exact = torch.finfo(weight.dtype).bits >= 32
    config = model.config.get_text_config()
    caps = {float(cap) for name in SOFTCAPS if (cap := getattr(config, name, None))}
    for cap in (*sorted(caps), None):
        straight = own if cap is None else torch.atanh((own / cap).clamp(-0.99, 0.99)) * cap
        inside = torch.ones_like(own, dtype=torch.bool) if cap is None else own.abs() < 0.9 * cap
        scale = float((sums * straight)[inside].sum() / sums[inside].square().sum().clamp(min=1e-30))
        found = LogitScaling(_known(scale, config, 1e-5 if exact else 3e-3), cap)
        error = float((found(sums) - own).abs().max() / own.abs().max().clamp(min=1.0))
        if error < (1e-5 if exact else 2e-2):
            return found
    raise DistillError(f"the logits of {type(model).__name__} are not its last hidden states times its output layer")


def _known(scale: float, config: Any, tolerance: float) -> float:
    """The exact scale that a measured one is, where the config tells."""
    values = [getattr(config, name, None) for name in SCALES]
    numbers = [float(v) for v in values if isinstance(v, int | float) and v > 0]
    for value in [1.0, *(v**power for v in numbers for power in (1.0, -1.0, -0.5))]:
        if abs(value / scale - 1 if scale else 1.0) < tolerance:
            return value
    return scale
