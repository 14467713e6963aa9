"""Sparse mixtures of experts in causal models: upcycling a dense model, routing, what routers decided.

`upcycle` puts, in place of the feed-forward part of some layers, copies of it as experts and a linear router that sends
each token to the likeliest few of them; at the start the model says what the dense one said. Models of transformers
serve whose decoder layers have an `mlp` from `[..., D]` to `[..., D]` and whose family is in `FAMILIES`. It is saved as
a folder that transformers' auto classes read once this module has been imported.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.precision import wide
from distill.language.models import Read, Shape
from distill.language.taps import Taps

FAMILIES = {
    "llama": AutoModelForCausalLM, "mistral": AutoModelForCausalLM, "qwen2": AutoModelForCausalLM,
    "qwen3": AutoModelForCausalLM, "llava": AutoModelForImageTextToText,
}  # fmt: skip
"""What transformers calls `model_type`, and the auto class that reads it; a sparse one is a `sparse_` of it."""
PREFIX = "sparse_"


@dataclass(frozen=True)
class Routing:
    """How tokens go to experts."""

    experts: int = 4
    top_k: int = 2
    """Experts that each token goes to; their weights add up to 1."""
    capacity: float = 0.0
    """While a model learns, an expert takes this many times its even share of a batch's choices at most, first choices
    before second ones, and the rest is dropped; 0: no bound."""

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.experts or self.experts < 2:
            raise DistillError(f"each token goes to some of 2 experts or more, got {self.top_k} of {self.experts}")
        if not self.capacity >= 0:
            raise DistillError(f"capacity must not be negative, got {self.capacity}")

    def places(self, tokens: int) -> int | None:
        """How many of so many tokens one expert takes; None: all."""
        return ceil(self.capacity * self.top_k * tokens / self.experts) if self.capacity else None


def route(probabilities: Tensor, top_k: int, places: int | None = None) -> tuple[Tensor, Tensor]:
    """The experts `[N, top_k]` of each token, likeliest first, and their weights, of `probabilities` `[N, E]`.

    Weights are the probabilities over the sum of those that are kept, and 0 where an expert has no place left; a token
    that finds none has weights of 0. With `top_k` 1 the weight is 1 and passes the gradient of log probability on, so
    that the router learns all the same.
    """
    values, experts = probabilities.topk(top_k, -1)
    if places is not None:
        order = nn.functional.one_hot(experts.T.flatten(), probabilities.shape[-1])  # first choices, then second ones
        before = (order.cumsum(0) * order).sum(-1) - 1
        values = values * (before < places).reshape(top_k, -1).T
    total = values.sum(-1, keepdim=True)
    total = torch.where(total > 0, total, torch.ones_like(total))
    return experts, values / (total.detach() if top_k == 1 else total)


class SparseMLP(nn.Module):
    """Experts and their router, in place of a feed-forward part."""

    def __init__(self, dense: nn.Module, width: int, routing: Routing) -> None:
        """`dense` maps `[N, width]` to `[N, width]` and is copied."""
        super().__init__()
        self.routing = routing
        self.router = nn.Linear(width, routing.experts, bias=False)
        self.experts = nn.ModuleList([copy.deepcopy(dense) for _ in range(routing.experts)])

    def forward(self, hidden: Tensor) -> Tensor:
        """`[..., width]` of `[..., width]`."""
        flat = hidden.reshape(-1, hidden.shape[-1])
        places = self.routing.places(len(flat)) if self.training else None
        chosen, weights = route(probabilities(self.router(flat)), self.routing.top_k, places)
        found = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            tokens, choice = (chosen == number).nonzero(as_tuple=True)
            said = weights[tokens, choice, None] * expert(flat.index_select(0, tokens))
            found = found.index_add(0, tokens, said.to(found.dtype))  # mixed precision: parts compute in another type
        return found.reshape(hidden.shape)


def probabilities(logits: Tensor) -> Tensor:
    """Of a router's logits `[..., E]`, in float32 or better: routing is coarse enough as it is."""
    return wide(logits).softmax(-1)


def sparse_layers(model: nn.Module) -> dict[str, SparseMLP]:
    """A model's sparse layers by their paths, from the first to the last."""
    return {path: part for path, part in model.named_modules() if isinstance(part, SparseMLP)}


def expert_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Of all experts and routers."""
    for layer in sparse_layers(model).values():
        yield from layer.parameters()


class Routers(Taps):
    """What the routers of a model say while it runs in this context, layer by layer."""

    def __init__(self, model: nn.Module) -> None:
        """Raises `DistillError` for a model without sparse layers."""
        self.layers = list(sparse_layers(model).values())
        if not self.layers:
            raise DistillError(f"a {type(model).__name__} has no sparse layers: see `upcycle`")
        super().__init__([layer.router for layer in self.layers])

    def probabilities(self, shape: Sequence[int]) -> tuple[Tensor, ...]:
        """Of the last run, each `[*shape, E]`."""
        return tuple(probabilities(self.found[i]).reshape(*shape, -1) for i in range(len(self.layers)))


class SparseStudent(Student):
    """A model with sparse layers, and how its logits are read."""

    def __init__(self, module: nn.Module, read: Read) -> None:
        """Raises `DistillError` for a model without sparse layers."""
        Routers(module)
        self.module, self.read = module, read

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Logits `[..., T, V]`, and what the routers said of each token."""
        with Routers(module) as routers:
            logits = self.read(module, batch)
        return StudentOutput(logits=logits, router=routers.probabilities(logits.shape[:-1]))


def upcycle(model: Any, routing: Routing = Routing(), every: int = 2, seed: int = 0) -> Any:
    """A copy of a dense model whose first, and then every `every`-th, layer is sparse; it says what `model` says.

    Routers are random, by `seed`: equal experts learn different things from different tokens alone.

    Raises:
      DistillError: a model of no known family, one that is sparse already, or a layer without `mlp`.
    """
    family = getattr(getattr(model, "config", None), "model_type", "")
    if family not in FAMILIES:
        raise DistillError(f"models of {', '.join(FAMILIES)} become sparse, not a {family or type(model).__name__}")
    if every < 1:
        raise DistillError(f"every layer or fewer can be sparse, got every {every}")
    with torch.random.fork_rng(devices=[]):
        found = FAMILIES[family].from_config(sparse_config(model.config, routing, every))
    found = found.to(device=model.device, dtype=model.dtype)
    layers = sparse_layers(found)
    state = model.state_dict()
    for path in layers:
        dense = {name: state.pop(name) for name in list(state) if name.startswith(f"{path}.")}
        for name, values in dense.items():
            state |= {name.replace(path, f"{path}.experts.{i}", 1): values for i in range(routing.experts)}
    missing, foreign = found.load_state_dict(state, strict=False)
    if foreign or any(not name.endswith(".router.weight") for name in missing):
        raise DistillError(f"weights of the dense model have no place in the sparse one: {foreign + missing}")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in layers.values():
            weight = layer.router.weight
            weight.copy_((2 * torch.rand(weight.shape, generator=generator) - 1) * weight.shape[1] ** -0.5)
    return found.eval()


def sparse_config(config: Any, routing: Routing = Routing(), every: int = 2) -> Any:
    """The config of a dense model as that of a sparse one."""
    layers = list(range(0, config.get_text_config().num_hidden_layers, every))
    settings = {name: value for name, value in config.to_dict().items() if name not in ("model_type", "architectures")}
    return CONFIGS[config.model_type](**settings, sparse={**asdict(routing), "layers": layers})


@dataclass(frozen=True)
class SparseShape(Shape):
    """The size of a causal model with sparse layers."""

    routing: Routing = Routing()
    every: int = 2
    """Which layers are sparse, as for `upcycle`."""

    def config(self) -> Any:
        """As transformers describes it."""
        return sparse_config(super().config(), self.routing, self.every)


def expert_loads(model: Any, read: Read, batch: Mapping[str, Tensor], mask: Tensor | None = None) -> list[Tensor]:
    """Shares `[E]` of a batch's choices that fall on each expert, layer by layer; of tokens where `mask` `[B, T]`."""
    with torch.no_grad(), Routers(model) as routers:
        shape = read(model, batch).shape[:-1]
    found: list[Tensor] = []
    for layer, said in zip(routers.layers, routers.probabilities(shape), strict=True):
        chosen, _ = route(said[mask] if mask is not None else said.flatten(0, -2), layer.routing.top_k)
        found.append(torch.bincount(chosen.flatten(), minlength=layer.routing.experts) / chosen.numel())
    return found


def expert_distance(model: nn.Module) -> float:
    """How far experts have come apart: the mean over layers and pairs of |a - b| / (|a| |b|)^(1/2), norms over all
    weights of an expert. 0 at the start, and where a router never tells tokens apart."""
    found: list[Tensor] = []
    for layer in sparse_layers(model).values():
        flat = torch.stack([torch.cat([p.detach().flatten() for p in expert.parameters()]) for expert in layer.experts])
        norms = flat.norm(dim=-1)
        pairs = torch.combinations(torch.arange(len(flat)))
        apart = (flat[pairs[:, 0]] - flat[pairs[:, 1]]).norm(dim=-1)
        found.append((apart / (norms[pairs[:, 0]] * norms[pairs[:, 1]]).sqrt()).mean())
    return float(torch.stack(found).mean())


def _put_in(model: Any, sparse: Mapping[str, Any]) -> None:
    """Gives the layers of that list experts."""
    layers: Any = getattr(model.get_decoder(), "layers", None)
    routing = Routing(**{name: sparse[name] for name in ("experts", "top_k", "capacity")})
    for number in sparse["layers"]:
        layer = layers[number]
        layer.mlp = SparseMLP(layer.mlp, model.config.get_text_config().hidden_size, routing)


def _sparse(family: str) -> tuple[Any, Any]:
    """That family's config and model with sparse layers, known to transformers."""
    auto: Any = FAMILIES[family]
    dense: Any = type(AutoConfig.for_model(family))
    base: Any = auto._model_mapping[dense]

    class Config(dense):
        model_type = PREFIX + family
        sparse: dict | None = None
        """As `Routing` has it, with the numbers of the sparse `layers`."""

    class Model(base):
        config_class = Config

        def __init__(self, config: Any, **others: Any) -> None:
            super().__init__(config, **others)
            _put_in(self, config.sparse)
            self.post_init()

    for made, like in ((Config, dense), (Model, base)):
        made.__name__ = made.__qualname__ = f"Sparse{like.__name__}"
    Config.__doc__, Model.__doc__ = f"Of a {family} with sparse layers.", f"{base.__name__} with sparse layers."
    AutoConfig.register(PREFIX + family, Config, exist_ok=True)
    auto.register(Config, Model, exist_ok=True)
    return Config, Model


SparseLlamaConfig, SparseLlamaForCausalLM = _sparse("llama")
SparseMistralConfig, SparseMistralForCausalLM = _sparse("mistral")
SparseQwen2Config, SparseQwen2ForCausalLM = _sparse("qwen2")
SparseQwen3Config, SparseQwen3ForCausalLM = _sparse("qwen3")
SparseLlavaConfig, SparseLlavaForConditionalGeneration = _sparse("llava")
CONFIGS = {
    "llama": SparseLlamaConfig, "mistral": SparseMistralConfig, "qwen2": SparseQwen2Config, "qwen3": SparseQwen3Config,
    "llava": SparseLlavaConfig,
}  # fmt: skip
