"""An elastic super-net: encoders of many sizes that share one set of weights, each cut out of the largest.

A student is never copied while the super-net learns: its parameters are views of the first rows and columns of the
super-net's (embeddings and layer norms too), of layers that are spread evenly. What is found is saved as a folder that
transformers reads once this module has been imported: its heads keep the teacher's size, so that their widths together
need not be the model's, which the library's own `bert` cannot say.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    BertModel,
)

from distill.core.errors import DistillError
from distill.language.taps import Taps

KINDS = ("query", "key", "value")


@dataclass(frozen=True)
class Size:
    """One student, the same in all its layers."""

    layers: int
    width: int
    ratio: float
    """Of the feed-forward layer's width to the model's."""
    heads: int
    """Each as wide as the teacher's."""

    @property
    def inner(self) -> int:
        """Width of the feed-forward layers."""
        return round(self.width * self.ratio)

    def __str__(self) -> str:
        return f"{self.layers}/{self.width}/{self.ratio:g}/{self.heads}"


@dataclass(frozen=True)
class Space:
    """Sizes that a super-net holds: every combination."""

    layers: tuple[int, ...]
    width: tuple[int, ...]
    ratio: tuple[float, ...]
    heads: tuple[int, ...]

    def __post_init__(self) -> None:
        for name, values in vars(self).items():
            if not values or min(values) <= 0:
                raise DistillError(f"a space needs {name} above 0, got {list(values)}")

    @property
    def smallest(self) -> Size:
        """In everything."""
        return Size(min(self.layers), min(self.width), min(self.ratio), min(self.heads))

    @property
    def largest(self) -> Size:
        """In everything: what the super-net itself is."""
        return Size(max(self.layers), max(self.width), max(self.ratio), max(self.heads))

    def __len__(self) -> int:
        return len(self.layers) * len(self.width) * len(self.ratio) * len(self.heads)

    def __iter__(self) -> Iterator[Size]:
        return (Size(*each) for each in product(self.layers, self.width, self.ratio, self.heads))

    def draw(self, rng: np.random.Generator) -> Size:
        """Any of them, evenly."""
        choices: list[Any] = [self.layers, self.width, self.ratio, self.heads]
        return Size(*(values[int(rng.integers(len(values)))] for values in choices))


class ElasticConfig(BertConfig):
    """A BERT whose heads have a width of their own: `elastic_heads` of `head_size` each."""

    model_type = "elastic_bert"

    def __init__(self, elastic_heads: int = 12, head_size: int = 64, **others: Any) -> None:
        others["num_attention_heads"] = 1  # the parts are built for one head, then made anew: see `_reshape`
        super().__init__(**others)
        self.elastic_heads, self.head_size = elastic_heads, head_size


def _reshape(model: Any, config: ElasticConfig) -> None:
    """Gives each layer's attention its heads."""
    across = config.elastic_heads * config.head_size
    for layer in model.base_model.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads, attention.attention_head_size = config.elastic_heads, config.head_size
        attention.all_head_size, attention.scaling = across, config.head_size**-0.5
        for kind in KINDS:
            setattr(attention, kind, nn.Linear(config.hidden_size, across))
        layer.attention.output.dense = nn.Linear(across, config.hidden_size)


def _elastic(base: Any) -> Any:
    """That class of transformers', with heads of any width."""

    class Elastic(base):
        config_class = ElasticConfig

        def __init__(self, config: ElasticConfig, **others: Any) -> None:
            super().__init__(config, **others)
            _reshape(self, config)
            self.post_init()

    Elastic.__name__ = Elastic.__qualname__ = base.__name__.replace("Bert", "ElasticBert")
    Elastic.__doc__ = f"{base.__name__} with heads of any width."
    return Elastic


ElasticBertModel = _elastic(BertModel)
ElasticBertForMaskedLM = _elastic(BertForMaskedLM)
ElasticBertForSequenceClassification = _elastic(BertForSequenceClassification)
ElasticBertForTokenClassification = _elastic(BertForTokenClassification)
AutoConfig.register(ElasticConfig.model_type, ElasticConfig, exist_ok=True)
for auto, elastic in (
    (AutoModel, ElasticBertModel),
    (AutoModelForMaskedLM, ElasticBertForMaskedLM),
    (AutoModelForSequenceClassification, ElasticBertForSequenceClassification),
    (AutoModelForTokenClassification, ElasticBertForTokenClassification),
):
    auto.register(ElasticConfig, elastic, exist_ok=True)


@dataclass(frozen=True)
class Cost:
    """What a size takes."""

    parameters: int
    """All of them, embeddings too; of a masked language model, whose output layer is tied."""
    flops: float
    """Multiplications with their additions of one text, embeddings and output layer left out."""


def cost(config: Any, size: Size, length: int = 128) -> Cost:
    """Of a size cut out of a BERT with that config, for texts of so many tokens."""
    model = _skeleton(config, size)
    across, width = size.heads * _head_size(config), size.width
    layer = length * (4 * width * across + 2 * width * size.inner) + 2 * length**2 * across
    return Cost(sum(p.numel() for p in model.parameters()), float(size.layers * layer))


class SuperNet(nn.Module):
    """A masked language model with the weights of all sizes of a space."""

    drawn: Tensor
    """Steps that sizes were drawn for."""

    def __init__(self, model: Any, space: Space) -> None:
        """`model`: `ElasticBertForMaskedLM` of the space's largest size; see `of`."""
        super().__init__()
        self.model, self.space = model, space
        self.register_buffer("drawn", torch.zeros((), dtype=torch.int64))
        self._skeletons: dict[Size, Any] = {}

    @classmethod
    def of(cls, teacher: Any, space: Space) -> "SuperNet":
        """The largest size of the space, cut out of a BERT-like masked language model of transformers.

        Raises:
          DistillError: a teacher of another kind, or one that is smaller than the space's largest size.
        """
        return cls(extract(teacher, space.largest), space)

    def forward(self, tokens: Tensor, seen: Tensor, sizes: Sequence[Size]) -> list[tuple[Tensor, ...]]:
        """Queries, keys and values of the last layer, each `[B, T, heads * head size]`, of each of the sizes."""
        return [self.one(tokens, seen, size)[1] for size in sizes]

    def one(self, tokens: Tensor, seen: Tensor, size: Size) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits `[B, T, V]` of a size, and its queries, keys and values."""
        if size not in self._skeletons:
            self._skeletons[size] = _skeleton(self.model.config, size)
        skeleton = self._skeletons[size].train(self.training)
        views = cut(dict(self.model.named_parameters()), self.model.config, size)
        with Tapped(skeleton) as tapped:
            inputs = {
                "input_ids": tokens, "attention_mask": seen.long(),
                "token_type_ids": torch.zeros_like(tokens),
                "position_ids": torch.arange(tokens.shape[1], device=tokens.device)[None],
            }  # fmt: skip
            logits = functional_call(skeleton, views, (), inputs, tie_weights=True).logits
        return logits, tapped.states

    def extract(self, size: Size) -> Any:
        """A size as a model of its own."""
        return extract(self.model, size)


class Tapped(Taps):
    """Reads the queries, keys and values of a BERT-like model's last layer while it runs."""

    def __init__(self, model: Any) -> None:
        """Raises `DistillError` for a model whose layers are not found."""
        try:
            self.attention = model.base_model.encoder.layer[-1].attention.self
            parts = [getattr(self.attention, kind) for kind in KINDS]
        except (AttributeError, IndexError, TypeError) as error:
            raise DistillError(f"queries, keys and values of a {type(model).__name__} are not found") from error
        super().__init__(parts)

    @property
    def states(self) -> tuple[Tensor, ...]:
        """Queries, keys, values."""
        return tuple(self.found[i] for i in range(len(KINDS)))


def extract(model: Any, size: Size) -> Any:
    """A masked language model of that size with its own copy of the weights that are cut out of `model`.

    Raises:
      DistillError: another kind of model, or one that is smaller.
    """
    config = getattr(model, "config", None)
    if not isinstance(config, BertConfig) or not hasattr(model, "cls"):
        raise DistillError(f"sizes are cut out of a BERT that guesses hidden words, not a {type(model).__name__}")
    ratio = config.intermediate_size / config.hidden_size
    whole = Size(config.num_hidden_layers, config.hidden_size, ratio, _heads(config))
    wanted, there = ((one.layers, one.width, one.inner, one.heads) for one in (size, whole))
    if any(ours > theirs for ours, theirs in zip(wanted, there, strict=True)):
        raise DistillError(f"the size {size} cannot be cut out of a model of {whole}")
    found = ElasticBertForMaskedLM(_config(config, size))
    with torch.no_grad():
        for name, values in cut(dict(model.named_parameters()), config, size).items():
            found.get_parameter(name).copy_(values)
    return found.to(next(model.parameters()).dtype).eval()


def cut(parameters: Mapping[str, Tensor], config: Any, size: Size) -> dict[str, Tensor]:
    """Views of a BERT's parameters by their names in a model of that size."""
    step, across = config.num_hidden_layers, size.heads * _head_size(config)
    found: dict[str, Tensor] = {}
    for name, values in parameters.items():
        head, layer, tail = _layer(name)
        if layer is None:
            found[name] = _part(name, values, size.width, config)
            continue
        for i in range(size.layers):
            if i * step // size.layers == layer:
                found[f"{head}{i}{tail}"] = _inside(tail, values, size.width, across, size.inner)
    return found


def _layer(name: str) -> tuple[str, int | None, str]:
    """What stands before a layer's number, the number, what stands after it."""
    mark = "encoder.layer."
    if mark not in name:
        return name, None, ""
    before, after = name.split(mark)
    number, _, tail = after.partition(".")
    return before + mark, int(number), f".{tail}"


def _part(name: str, values: Tensor, width: int, config: Any) -> Tensor:
    """Outside of the layers: all rows of embeddings; the first `width` of what is as wide as the model."""
    if "embeddings." in name and values.dim() == 2 or name.endswith("decoder.weight"):
        return values[:, :width]
    if name.endswith(("predictions.bias", "decoder.bias")):
        return values  # one number a token
    return values[:width, :width] if values.dim() == 2 else values[:width]


def _inside(tail: str, values: Tensor, width: int, across: int, inner: int) -> Tensor:
    if any(f".self.{kind}." in tail for kind in KINDS):
        return values[:across, :width] if values.dim() == 2 else values[:across]
    if ".attention.output.dense.weight" in tail:
        return values[:width, :across]
    if ".intermediate.dense." in tail:
        return values[:inner, :width] if values.dim() == 2 else values[:inner]
    if tail == ".output.dense.weight":
        return values[:width, :inner]
    return values[:width]


def _heads(config: Any) -> int:
    return getattr(config, "elastic_heads", config.num_attention_heads)


def _head_size(config: Any) -> int:
    return getattr(config, "head_size", config.hidden_size // config.num_attention_heads)


def _config(config: Any, size: Size) -> ElasticConfig:
    """Of a size that is cut out of a model with that config."""
    kept = (
        "vocab_size", "max_position_embeddings", "type_vocab_size", "hidden_act", "hidden_dropout_prob",
        "attention_probs_dropout_prob", "layer_norm_eps", "pad_token_id", "initializer_range",
    )  # fmt: skip
    return ElasticConfig(
        size.heads, _head_size(config), hidden_size=size.width, num_hidden_layers=size.layers,
        intermediate_size=size.inner, **{name: getattr(config, name) for name in kept},
    )  # fmt: skip


def _skeleton(config: Any, size: Size) -> Any:
    """A model of that size without weights."""
    with torch.device("meta"):
        return ElasticBertForMaskedLM(_config(config, size))
