"""Structured pruning of Llama-type models by gates: a smaller model of whole heads, neurons and hidden dimensions.

Importance as in arXiv 2311.07052: with a gate of value 1 on everything that may go, the mean over batches of
|d loss / d gate|. Heads and neurons are ranked within their layer, so that all layers keep one shape.
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from distill.core.errors import DistillError, first_line
from distill.language.models import Shape, build, load


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
    """Of a causal Llama-type model, on batches of `tokens` `[B, T + 1]`; where the batch has a `mask` `[B, T]`, of what
    counts there. Raises `DistillError` for models that are built otherwise."""
    seen: dict[str, Any] = {}
    config = model.config
    try:
        layers = model.model.layers
        for layer in layers:
            _ = layer.self_attn.o_proj, layer.mlp.down_proj, layer.input_layernorm, model.model.norm
    except AttributeError as error:
        raise DistillError(f"{type(model).__name__} is not built as Llama is: it cannot be made narrower") from error

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
            targets = batch["tokens"][:, 1:]
            if "mask" in batch:
                targets = targets.masked_fill(~batch["mask"], -100)
            F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
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
    if config.num_key_value_heads != config.num_attention_heads:
        raise DistillError("heads that share keys cannot be pruned one by one")
    return _cut_into(build(shape), model, found)


def narrower(model: Any, found: Importance, width: int = 0, inner: int = 0, heads: int = 0) -> Any:
    """A model of the same config with so many hidden dimensions, neurons of a layer and heads; 0: as many as now.

    Raises:
      DistillError: more than there are, or fewer heads where heads share keys.
    """
    config = copy.deepcopy(model.config)
    have = {"width": config.hidden_size, "inner": config.intermediate_size, "heads": config.num_attention_heads}
    for name, wanted in {"width": width, "inner": inner, "heads": heads}.items():
        if not 0 <= wanted <= have[name]:
            raise DistillError(f"a student is cut to a {name} from 1 to {have[name]}, got {wanted}")
    if 0 < heads < have["heads"] and config.num_key_value_heads != have["heads"]:
        raise DistillError("heads that share keys cannot be left out one by one: leave heads as they are")
    config.head_dim = getattr(config, "head_dim", None) or have["width"] // have["heads"]
    config.hidden_size, config.intermediate_size = width or have["width"], inner or have["inner"]
    if 0 < heads < have["heads"]:
        config.num_key_value_heads = config.num_attention_heads = heads
    return _cut_into(load(config).float(), model, found)


def _cut_into(small: Any, model: Any, found: Importance) -> Any:
    """Fills a smaller model of the same depth with the most important parts of a larger one."""
    config, target = small.config, small.state_dict()
    size = config.head_dim
    hidden = _top(found.hidden, config.hidden_size)
    state: dict[str, Tensor] = model.state_dict()
    if not target.keys() <= state.keys():
        raise DistillError(f"a narrower {type(model).__name__} has other weights, such as {min(target.keys() - state)}")
    cut = {name: state[name] for name in target}
    for i in range(config.num_hidden_layers):
        heads = _top(found.heads[i], config.num_attention_heads)
        rows = (heads[:, None] * size + torch.arange(size)).flatten()
        whole = config.num_key_value_heads != config.num_attention_heads  # then no head is left out
        neurons = _top(found.neurons[i], config.intermediate_size)
        stem = f"model.layers.{i}."
        for part in ("q_proj", "k_proj", "v_proj"):
            every = torch.arange(len(cut[f"{stem}self_attn.{part}.weight"]))
            _cut(cut, f"{stem}self_attn.{part}", every if whole else rows, hidden)
        _cut(cut, f"{stem}self_attn.o_proj", hidden, torch.arange(rows.numel()) if whole else rows)
        for part in ("gate_proj", "up_proj"):
            _cut(cut, f"{stem}mlp.{part}", neurons, hidden)
        _cut(cut, f"{stem}mlp.down_proj", hidden, neurons)
    for name in cut:  # norms, embeddings and output layer
        if name.endswith("norm.weight") and cut[name].shape == found.hidden.shape:
            cut[name] = cut[name][hidden]
        elif name in ("model.embed_tokens.weight", "lm_head.weight"):
            cut[name] = cut[name][:, hidden]
    try:
        small.load_state_dict(cut)
    except RuntimeError as error:
        raise DistillError(f"{type(model).__name__} cannot be made narrower: {first_line(error)}") from error
    return small


def _add(total: dict[str, Tensor], name: str, values: Tensor) -> None:
    total[name] = total.get(name, torch.zeros_like(values)) + values.abs()


def _top(values: Tensor, count: int) -> Tensor:
    """Places of the largest, in order."""
    return values.topk(count).indices.sort().values


def _cut(state: dict[str, Tensor], layer: str, rows: Tensor, columns: Tensor) -> None:
    """A linear layer's weight, and its bias where it has one."""
    state[f"{layer}.weight"] = state[f"{layer}.weight"][rows][:, columns]
    if f"{layer}.bias" in state:
        state[f"{layer}.bias"] = state[f"{layer}.bias"][rows]
