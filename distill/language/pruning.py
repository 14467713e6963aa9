"""Structured pruning of Llama-type models by gates: a smaller model of whole heads, neurons and hidden dimensions.

Importance as in arXiv 2311.07052: with a gate of value 1 on everything that may go, the mean over batches of
|d loss / d gate|. Heads and neurons are ranked within their layer, so that all layers keep one shape.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.language.models import Shape, build


@dataclass(frozen=True)
class Importance:
    """What the gates say."""

    heads: Tensor
    """`[layers, heads]`."""
    neurons: Tensor
    """`[layers, inner]`."""
    hidden: Tensor
    """`[width]`, one gate for all layers."""


def importance(model: Any, batches: Iterable[Mapping[str, Tensor]]) -> Importance:
    """Of a causal Llama-type model without grouped keys, on batches of `tokens` `[B, T + 1]`."""
    layers, seen = model.model.layers, {}
    config = model.config
    if config.num_key_value_heads != config.num_attention_heads:
        raise DistillError("heads that share keys cannot be pruned one by one")

    def keep_inputs(name: str) -> Any:
        def hook(module: Any, inputs: tuple[Tensor, ...]) -> None:
            inputs[0].retain_grad()
            seen[name] = inputs[0]

        return hook

    places = {f"heads {i}": layer.self_attn.o_proj for i, layer in enumerate(layers)}
    places |= {f"neurons {i}": layer.mlp.down_proj for i, layer in enumerate(layers)}
    places |= {f"hidden {i}": layer.input_layernorm for i, layer in enumerate(layers)} | {"hidden": model.model.norm}
    handles = [part.register_forward_pre_hook(keep_inputs(name)) for name, part in places.items()]
    total: dict[str, Tensor] = {}
    try:
        for batch in batches:
            model.zero_grad()
            logits = model(input_ids=batch["tokens"][:, :-1], use_cache=False).logits
            F.cross_entropy(logits.flatten(0, 1), batch["tokens"][:, 1:].flatten()).backward()
            gates = {name: (values * values.grad).detach().flatten(0, -2).sum(0) for name, values in seen.items()}
            hidden = torch.stack([gate for name, gate in gates.items() if name.startswith("hidden")]).sum(0)
            for i in range(len(layers)):
                per_head = gates[f"heads {i}"].reshape(config.num_attention_heads, -1).sum(1)
                _add(total, f"heads {i}", per_head)
                _add(total, f"neurons {i}", gates[f"neurons {i}"])
            _add(total, "hidden", hidden)
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad()
    if not total:
        raise DistillError("importance needs at least one batch")
    heads, neurons = (torch.stack([total[f"{kind} {i}"] for i in range(len(layers))]) for kind in ("heads", "neurons"))
    return Importance(heads, neurons, total["hidden"])


def pruned(model: Any, found: Importance, shape: Shape) -> Any:
    """A model of that smaller shape, cut out of `model`: the most important heads, neurons and hidden dimensions.

    Raises:
      DistillError: the shape is larger, has other heads, layers or another vocabulary.
    """
    config, inner = model.config, shape.inner or 2 * shape.width
    size = config.head_dim
    if (shape.layers, shape.vocabulary, shape.width // shape.heads) != (
        config.num_hidden_layers, config.vocab_size, size
    ):  # fmt: skip
        raise DistillError("pruning keeps the layers, the vocabulary and the width of a head as they are")
    if shape.width > config.hidden_size or shape.heads > config.num_attention_heads or inner > config.intermediate_size:
        raise DistillError(f"a model {config.hidden_size} wide cannot be pruned to {shape}")
    small, hidden = build(shape), _top(found.hidden, shape.width)
    state, target = model.state_dict(), small.state_dict()
    cut = {name: state[name] for name in target}
    for i in range(shape.layers):
        heads = _top(found.heads[i], shape.heads)
        rows = (heads[:, None] * size + torch.arange(size)).flatten()
        neurons = _top(found.neurons[i], inner)
        stem = f"model.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj"):
            _cut(cut, f"{stem}self_attn.{part}.weight", rows, hidden)
        _cut(cut, f"{stem}self_attn.o_proj.weight", hidden, rows)
        for part in ("gate_proj", "up_proj"):
            _cut(cut, f"{stem}mlp.{part}.weight", neurons, hidden)
        _cut(cut, f"{stem}mlp.down_proj.weight", hidden, neurons)
        for part in ("input_layernorm", "post_attention_layernorm"):
            _cut(cut, f"{stem}{part}.weight", hidden)
    _cut(cut, "model.norm.weight", hidden)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in cut:
            cut[name] = cut[name][:, hidden]
    small.load_state_dict(cut)
    return small


def _add(total: dict[str, Tensor], name: str, values: Tensor) -> None:
    total[name] = total.get(name, torch.zeros_like(values)) + values.abs()


def _top(values: Tensor, count: int) -> Tensor:
    """Places of the largest, in order."""
    return values.topk(count).indices.sort().values


def _cut(state: dict[str, Tensor], name: str, rows: Tensor, columns: Tensor | None = None) -> None:
    state[name] = state[name][rows] if columns is None else state[name][rows][:, columns]
