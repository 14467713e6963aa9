"""Language models that see: an image's patches, through a projector, are inputs of a causal model in place of words.

Any class of transformers serves that reads `input_ids` with one token for each patch and `pixel_values`, as LLaVA's do;
small ones are made of a `VisionShape`. Rows are `tokens` `[T + 1]` with the image's tokens among them, and `image`
`[3, H, W]`; a row without those tokens is text alone, and its image is not looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

from distill.core.errors import DistillError
from distill.language.models import Kind, Read, Shape
from distill.language.sparse import Routing, sparse_config

PROJECTOR, EYES = "multi_modal_projector", "vision_tower"
"""What the classes of transformers call the map from patches to words, and what makes patches of an image."""


@dataclass(frozen=True)
class VisionShape:
    """The size of a model that sees."""

    kind: ClassVar[Kind] = "seeing"
    language: Shape
    image_token: int
    """Id of the token that stands for a patch."""
    side: int = 8
    """Of an image, pixels."""
    patch: int = 2
    """Side of a patch, pixels."""
    width: int = 32
    """Of the vision tower."""
    layers: int = 0
    """Of the vision tower; 0: a linear map of each patch, plus its place."""
    heads: int = 4
    inner: int = 0
    """Width of its feed-forward layers; twice the width where 0."""

    def config(self) -> LlavaConfig:
        """As transformers describes it."""
        eyes = SiglipVisionConfig(
            hidden_size=self.width, intermediate_size=self.inner or 2 * self.width,
            num_hidden_layers=max(self.layers, 1), num_attention_heads=self.heads, image_size=self.side,
            patch_size=self.patch,
        )  # fmt: skip
        words = self.language.config()
        words.initializer_range = (
            self.language.width**-0.5
        )  # transformers' 0.02 is for large widths: attention stays flat
        seeing_config: Any = LlavaConfig  # its own annotations lack what it takes
        return seeing_config(
            vision_config=eyes, text_config=words, image_token_id=self.image_token,
            vision_feature_layer=[-1 if self.layers else 0], vision_feature_select_strategy="full",
            image_seq_length=(self.side // self.patch) ** 2, tie_word_embeddings=self.language.tied,
        )  # fmt: skip


@dataclass(frozen=True)
class SparseVisionShape(VisionShape):
    """The size of a model that sees and whose language model has sparse layers."""

    routing: Routing = Routing()
    every: int = 2
    """Which layers are sparse, as for `upcycle`."""

    def config(self) -> LlavaConfig:
        """As transformers describes it."""
        return sparse_config(super().config(), self.routing, self.every)


def build_seeing(shape: VisionShape, seed: int = 0, eyes: int = 0) -> Any:
    """A model of that shape with random weights; its vision tower is decided by `eyes` alone, so that models share it.

    The tower of `layers` 0 keeps the size of what it sees: its map and places are of unit variance.
    """
    torch.manual_seed(seed)
    model: Any = LlavaForConditionalGeneration(shape.config()).eval()
    generator = torch.Generator().manual_seed(eyes)
    with torch.no_grad():
        for tensor in part_of(model, PROJECTOR).parameters():
            if tensor.ndim > 1:
                tensor.mul_(tensor.shape[1] ** -0.5 / tensor.std())
        for tensor in part_of(model, EYES).parameters():
            scale = tensor[0].numel() ** -0.5 if tensor.ndim > 2 or shape.layers else 1.0
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator))
    return model


def seeing(vocabulary: int, image_token: int) -> Read:
    """Reads logits `[B, T, vocabulary]` of what follows in `tokens` `[B, T + 1]`, at the places of patches as well."""

    def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        tokens = batch["tokens"][:, :-1]
        with_image = (tokens == image_token).any(1)
        pixels = batch["image"][with_image] if bool(with_image.any()) else None
        _check(module, tokens[with_image], image_token)
        logits = module(input_ids=tokens, pixel_values=pixels, use_cache=False).logits
        if logits.shape[-1] < vocabulary:
            raise DistillError(f"the model knows {logits.shape[-1]} tokens, {vocabulary} are to be compared")
        return logits[..., :vocabulary]

    return read


def _check(module: Any, tokens: Tensor, image_token: int) -> None:
    """Raises `DistillError` where rows with an image have not as many of its tokens as it has patches; of classes
    whose images have any number of patches transformers itself says so."""
    config: Any = getattr(module, "config", None)
    if getattr(config, "model_type", "") not in ("llava", "sparse_llava"):
        return
    length, counts = config.image_seq_length, (tokens == image_token).sum(1)
    if bool((counts != length).any()):
        wrong = int(counts[counts != length][0])
        raise DistillError(f"an image has {length} patches, but a row has {wrong} tokens for them")


def part_of(model: nn.Module, name: str) -> nn.Module:
    """The part of that name, wherever it stands. Raises `DistillError` where there is none."""
    for path, part in model.named_modules():
        if path.rsplit(".", 1)[-1] == name:
            return part
    raise DistillError(f"a {type(model).__name__} has no {name}: is it a model that sees?")


def train_only(model: nn.Module, language: bool) -> list[str]:
    """Frees the projector, and with `language` all else but the vision tower; returns the names of what is free."""
    projector, eyes = part_of(model, PROJECTOR), part_of(model, EYES)
    own, frozen = ({id(p) for p in part.parameters()} for part in (projector, eyes))
    for tensor in model.parameters():
        tensor.requires_grad_(id(tensor) in own or (language and id(tensor) not in frozen))
    return [name for name, tensor in model.named_parameters() if tensor.requires_grad]
