"""Language models through transformers: small ones from a shape, published ones by name or path.

Nothing is downloaded unless a name is given that is no folder here.
"""

import logging
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertConfig,
    LlamaConfig,
    PretrainedConfig,
    T5Config,
)

from distill.core.errors import DistillError, first_line
from distill.core.objectives.base import choice
from distill.language.places import check_place
from sim.machine import need_memory

Kind = Literal["causal", "encoder", "encoder-decoder", "masked", "tagger", "seeing"]
CLASSES = {
    "causal": AutoModelForCausalLM,
    "encoder": AutoModelForSequenceClassification,
    "encoder-decoder": AutoModelForSeq2SeqLM,
    "masked": AutoModelForMaskedLM,
    "tagger": AutoModelForTokenClassification,
    "seeing": AutoModelForImageTextToText,
}
ENCODERS: tuple[Kind, ...] = ("encoder", "masked", "tagger")
"""Kinds that read a text in both directions."""
HEADS_OF_A_TASK: tuple[Kind, ...] = ("encoder", "tagger")
"""Kinds whose last layer is made for a task: it may be missing where a model is read."""
Read = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]
"""Logits that a model gives for a batch."""


@dataclass(frozen=True)
class Shape:
    """The size of a model: Llama-type where causal, T5-type as encoder-decoder, BERT-type otherwise: one class a text
    as encoder, one a token as tagger, hidden words as masked."""

    vocabulary: int
    width: int = 64
    layers: int = 2
    heads: int = 4
    inner: int = 0
    """Width of the feed-forward layers; twice the width where 0."""
    context: int = 512
    kind: Kind = "causal"
    classes: int = 2
    """Of an encoder or a tagger."""
    tied: bool = True
    """Whether input embeddings and the output layer share their weights."""
    key_value_heads: int = 0
    """Of a causal model; as many as heads where 0."""

    def config(self) -> PretrainedConfig:
        """As transformers describes it. Raises `DistillError` for sizes that do not fit together."""
        choice("kind", self.kind, tuple(kind for kind in CLASSES if kind != "seeing"))
        if min(self.vocabulary, self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise DistillError(f"a model cannot have the width {self.width} with {self.heads} heads: {self}")
        inner = self.inner or 2 * self.width
        if self.kind in ENCODERS:
            bert: Any = BertConfig  # its own annotations lack what every config takes
            return bert(
                vocab_size=self.vocabulary, hidden_size=self.width, num_hidden_layers=self.layers,
                num_attention_heads=self.heads, intermediate_size=inner, max_position_embeddings=self.context,
                num_labels=self.classes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, pad_token_id=0,
            )  # fmt: skip
        if self.kind == "encoder-decoder":
            t5: Any = T5Config
            return t5(
                vocab_size=self.vocabulary, d_model=self.width, d_kv=self.width // self.heads, d_ff=inner,
                num_layers=self.layers, num_heads=self.heads, dropout_rate=0.0, tie_word_embeddings=self.tied,
                pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
            )  # fmt: skip
        return LlamaConfig(
            vocab_size=self.vocabulary, hidden_size=self.width, intermediate_size=inner,
            num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads or self.heads, max_position_embeddings=self.context,
            tie_word_embeddings=self.tied, pad_token_id=0, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip


def build(shape: Shape, seed: int = 0) -> Any:
    """A model of that shape with random weights that `seed` decides."""
    torch.manual_seed(seed)
    return CLASSES[shape.kind].from_config(shape.config()).eval()


def load(
    source: Shape | PretrainedConfig | str | Path,
    kind: Kind = "causal",
    seed: int = 0,
    dtype: torch.dtype | None = None,
    more: Mapping[str, Any] | None = None,
) -> Any:
    """A model from a shape or config (random weights), from a folder, or by its published name (downloads it).

    `dtype` is what weights are read as, by default as they were written. A `.gguf` file, whose weights are small whole
    numbers, is read as what they stand for (needs `gguf`), and can be trained and saved like any other. `more` is given
    to transformers beside.

    Raises:
      DistillError: it cannot be read, weights are missing that would then be random, or there are others that a
        causal model of its config does not have.
    """
    if isinstance(source, Shape):
        return build(source, seed)
    choice("kind", kind, tuple(CLASSES))
    if isinstance(source, PretrainedConfig):
        torch.manual_seed(seed)
        return CLASSES[kind].from_config(source).eval()
    try:
        options: dict[str, Any] = {
            "output_loading_info": True,
            "ignore_mismatched_sizes": True,
            **({"dtype": dtype} if dtype else {}),
        }
        name, within = in_file(source)
        model, said = CLASSES[kind].from_pretrained(name, **options, **within, **(more or {}))
        if within:
            _no_longer_quantized(model)
    except DistillError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the model '{source}' cannot be loaded: {reason}") from error
    for key, in_weights, in_config, *_ in said.get("mismatched_keys", ()):
        sizes = " and not ".join(str(list(size)) for size in (in_weights, in_config))
        raise DistillError(f"the model '{source}' does not fit its config: {key} is {sizes}")
    missing, foreign = sorted(said["missing_keys"]), sorted(said["unexpected_keys"])
    if missing and kind not in HEADS_OF_A_TASK:
        others = f"; it has {len(foreign)} others, such as {foreign[0]}" if foreign else ""
        raise DistillError(f"the model '{source}' lacks {len(missing)} of its weights, such as {missing[0]}{others}")
    if kind in HEADS_OF_A_TASK:
        require_body(str(source), model, said)
    if foreign and kind == "causal":
        raise DistillError(
            f"the model '{source}' has {len(foreign)} weights that its config knows nothing of, such as {foreign[0]}"
        )
    require_finite(str(source), model)
    return model.eval()


def require_finite(source: str, model: nn.Module) -> None:
    """Raises `DistillError` where a weight is NaN or infinite: nothing can be learned from such a model, or by it."""
    bad = [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]
    if bad:
        raise DistillError(f"the model '{source}' has weights that are not finite, such as {bad[0]}")


def require_body(source: str, model: Any, said: Mapping[str, Any]) -> None:
    """Raises `DistillError` where weights are missing, or of another size, that are no head's and no pooler's: they
    would be random. `said` is what transformers tells of its loading."""
    lost = {*said["missing_keys"], *(key for key, *_ in said.get("mismatched_keys", ()))}
    body = sorted(key for key in lost if key.startswith(f"{model.base_model_prefix}.") and "pooler" not in key)
    if body:
        foreign = sorted(said["unexpected_keys"])
        more = f"; it has {len(foreign)} others, such as {foreign[0]}" if foreign else ""
        raise DistillError(f"the model '{source}' lacks {len(body)} of its weights, such as {body[0]}{more}")


def body(source: str) -> Any:
    """A model without its head, in float32. Raises `DistillError` where weights are missing or not finite, and what
    transformers raises where it cannot be read."""
    model, said = AutoModel.from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    require_body(source, model, said)
    require_finite(source, model)
    return model


def in_file(source: str | Path) -> tuple[str, dict[str, Any]]:
    """What transformers calls a model, and the options that it needs beside: a `.gguf` file is one in its folder.

    Raises:
      DistillError: no model can be there, as `check_place` says.
    """
    check_place(source)
    if str(source).endswith(".gguf"):
        return str(Path(source).parent), {"gguf_file": Path(source).name}
    return str(source), {}


def _no_longer_quantized(model: Any) -> None:
    """Transformers has made full weights of a GGUF file's and would still refuse to save them."""
    model.hf_quantizer = None
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "quantization_config"):
            del config.quantization_config


def parameters(model: nn.Module, embeddings: bool = True) -> int:
    """How many numbers a model has, those that stand packed in one included; without `embeddings`, those of its
    embeddings and its output layer left out."""
    total = sum(_numbers(p) for p in model.parameters())
    if embeddings:
        return total
    parts: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]  # type: ignore[operator]
    weights = {id(part.weight): part.weight.numel() for part in parts if part is not None}
    return total - sum(weights.values())


def _numbers(weight: Any) -> int:
    packed = getattr(weight, "quant_state", None)  # of bitsandbytes, two numbers of 4 bits in a byte
    return weight.numel() if packed is None else math.prod(packed.shape)


def layers_and_width(model: Any) -> tuple[int, int]:
    """Of a model's blocks. Raises `DistillError` for one whose config says neither."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    layers, width = (getattr(text, name, None) for name in ("num_hidden_layers", "hidden_size"))
    if not isinstance(layers, int) or not isinstance(width, int) or layers < 1:
        raise DistillError(f"the layers and width of a {type(model).__name__} are not known")
    return layers, width


def require_memory(model: Any, rows: int, tokens: int) -> None:
    """Raises `InputError` where this computer cannot learn from so many rows of so many tokens at once.

    By what every block keeps at least for the backward pass, with checkpointed gradients too: its input, in two bytes a
    number. A device of its own says what it lacks itself.
    """
    if torch.cuda.is_available():
        return
    with suppress(DistillError):
        layers, width = layers_and_width(model)
        need_memory(2.0 * layers * width * rows * tokens, f"{rows} rows of {tokens} tokens at once")


def context_of(model: Any) -> int | None:
    """Tokens that a model reads at most, None where it does not say."""
    found = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return found if isinstance(found, int) and found > 0 else None


def causal(vocabulary: int) -> Read:
    """Reads next-token logits `[B, T, vocabulary]` for `tokens` `[B, T + 1]`, of which the last is never an input.

    `vocabulary` is the tokenizer's: ids beyond it that a model was padded with never occur and are cut off, so that
    models padded to different sizes agree. Padding must stand at the end of a row and be masked out of the loss.

    Where the batch has `positions` `[B, T]`, attention does not cross where they begin anew: see `packs`.
    """

    def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        if hasattr(module, "each"):  # several teachers: each row is read by its own
            return cast("Any", module).each(batch, read)
        places = {"position_ids": batch["positions"]} if "positions" in batch else {}
        logits = module(input_ids=batch["tokens"][:, :-1], use_cache=False, **places).logits
        return _cut(logits, vocabulary)

    return read


@torch.no_grad()
def packs(model: Any, vocabulary: int, tolerance: float = 1e-3) -> bool:
    """Whether a causal model keeps examples that stand in one row apart by their positions: asked of it, not assumed.

    State-space models do not, nor do those that take no positions. One in fewer than 32 bits rounds more than
    `tolerance`: it does where what is left is a tenth of what the first example does to the second without positions.
    """
    device = next(model.parameters()).device
    tokens = torch.randint(0, vocabulary, (1, 14), generator=torch.Generator().manual_seed(0)).to(device)
    first, second = {"tokens": tokens[:, :7]}, {"tokens": tokens[:, 6:]}
    places = torch.tensor([[0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 5, 6]], device=device)
    read, training = causal(vocabulary), model.training
    model.eval()
    try:
        alone = torch.cat([read(model, first), read(model, second)], 1)
        together = read(model, {"tokens": tokens, "positions": places})
        mixed = read(model, {"tokens": tokens})
    except (TypeError, ValueError, RuntimeError):
        return False
    finally:
        model.train(training)
    left, effect = (float((alone.log_softmax(-1) - other.log_softmax(-1)).abs().max()) for other in (together, mixed))
    short = any(weight.dtype.itemsize < 4 for weight in model.parameters())
    return left < max(tolerance, effect / 10 if short else 0.0)


def classifier(pad: int = 0) -> Read:
    """Reads class logits `[B, C]` for `tokens` `[B, T]` padded with `pad`; of masked models and taggers `[B, T, C]`."""

    def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        tokens = batch["tokens"]
        return module(input_ids=tokens, attention_mask=(tokens != pad).long()).logits

    return read


def sequence_to_sequence(vocabulary: int, pad: int = 0) -> Read:
    """Reads logits `[B, T, vocabulary]` for `inputs` `[B, S]` and `tokens` `[B, T + 1]`, the decoder's, start first."""

    def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        inputs = batch["inputs"]
        decoder = batch["tokens"][:, :-1]
        logits = module(input_ids=inputs, attention_mask=(inputs != pad).long(), decoder_input_ids=decoder).logits
        return _cut(logits, vocabulary)

    return read


def _cut(logits: Tensor, vocabulary: int) -> Tensor:
    if logits.shape[-1] < vocabulary:
        raise DistillError(f"the model knows {logits.shape[-1]} tokens, its tokenizer has {vocabulary}")
    return logits[..., :vocabulary]


class Sized(Protocol):
    """A size that transformers can describe."""

    def config(self) -> PretrainedConfig: ...


def sharding(source: Sized | PretrainedConfig | str, devices: int, gigabytes: float, kind: Kind = "causal") -> dict:
    """How a model would lie on `devices` of so many `gigabytes` each, found without weights.

    Weights in bfloat16 are placed by accelerate's `infer_auto_device_map`; training is counted with 16 bytes a
    parameter (bfloat16 weights and gradients, float32 copy and two moments of AdamW), evenly sharded.

    Returns:
      `parameters`, `weights_gb`, `training_gb` (in all), `training_gb_per_device`, `layers`, `map` (device -> number
      of modules), `fits` (whether the weights fit without disk or CPU), `trains` (whether training fits, sharded).
    """
    from accelerate import infer_auto_device_map, init_empty_weights

    if devices < 1 or not gigabytes > 0:
        raise DistillError(f"a sharding plan needs devices with memory, got {devices} of {gigabytes} GB")
    if isinstance(source, str):
        source = AutoConfig.from_pretrained(source)
    config = source if isinstance(source, PretrainedConfig) else source.config()
    with init_empty_weights():
        model = CLASSES[kind].from_config(config, dtype=torch.bfloat16)
    model.tie_weights()
    blocks = [type(part[0]).__name__ for part in model.modules() if isinstance(part, nn.ModuleList) and len(part)]
    limits: dict[int | str, int | str] = {i: int(gigabytes * 1e9) for i in range(devices)}
    logging.getLogger("accelerate.utils.modeling").setLevel(logging.ERROR)  # the devices need not be here
    placed = infer_auto_device_map(
        model, {**limits, "cpu": 10**15}, no_split_module_classes=sorted(set(blocks)), dtype=torch.bfloat16
    )
    count = parameters(model)
    where = [str(device) for device in placed.values()]
    return {
        "parameters": count,
        "weights_gb": round(2 * count / 1e9, 2),
        "training_gb": round(16 * count / 1e9, 2),
        "training_gb_per_device": round(16 * count / devices / 1e9, 2),
        "layers": max((len(part) for part in model.modules() if isinstance(part, nn.ModuleList)), default=0),
        "map": {device: where.count(device) for device in sorted(set(where))},
        "fits": "cpu" not in where and "disk" not in where,
        "trains": 16 * count / devices < 0.9 * gigabytes * 1e9,
    }
