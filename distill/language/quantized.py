"""Teachers in fewer bits than they were trained in: bfloat16, or 8 and 4 bits by bitsandbytes.

A teacher is only read, so that half or a quarter of its memory does where a little of what it says may change. The
layers between embeddings and output layer are kept in 8 bits with their few large features in 16 (arXiv 2208.07339), or
in 4 as normal floats in blocks of 64 (NF4, arXiv 2305.14314). Embeddings and output layer stay in bfloat16.
"""

import importlib.util
import logging
from typing import Any, Literal

import torch
from transformers import BitsAndBytesConfig

from distill.core.errors import DistillError
from distill.language.models import load
from distill.language.places import loading

Bits = Literal["float32", "bf16", "int8", "nf4"]


def require_bits(bits: Bits) -> None:
    """Raises `DistillError` where bitsandbytes is wanted and not installed."""
    if bits in ("int8", "nf4") and importlib.util.find_spec("bitsandbytes") is None:
        raise DistillError(f"a teacher in {bits} needs bitsandbytes: pip install 'barkour[quantized]'")


def open_teacher(source: str, bits: Bits = "float32") -> Any:
    """A causal model that is only read; one in few bits stands where it computes, others are put there, `on_device`.

    Raises:
      DistillError: as `models.load` and `require_bits`, or layers that have no form in so few bits.
    """
    if bits in ("float32", "bf16"):
        return load(source, dtype=torch.float32 if bits == "float32" else torch.bfloat16)
    require_bits(bits)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it tells of a cast in every layer
    kind: Any = BitsAndBytesConfig
    four = {"bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    config = kind(load_in_8bit=True) if bits == "int8" else kind(load_in_4bit=True, **four)
    place: Any = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    model = load(source, dtype=torch.bfloat16, more={"quantization_config": config, "device_map": {"": place}})
    with loading("model", source), torch.no_grad():  # some are put in their last form when they compute first
        model(input_ids=torch.zeros(1, 2, dtype=torch.int64, device=place), use_cache=False)
    return model


def on_device(model: Any) -> Any:
    """The model on the device where this process computes; one in few bits stays where it was put when it was read."""
    if torch.cuda.is_available() and not quantized(model):
        model.to("cuda")
    return model


def quantized(model: Any) -> bool:
    """Whether a model's weights are no longer numbers that can be cut out or trained."""
    return getattr(model, "hf_quantizer", None) is not None
