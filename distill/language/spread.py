"""A local teacher that is spread over the processes of a run, where it fits into none of them as a whole.

The first process reads the weights, block by block the others are given their parts. Embeddings, norms and the output
layer are whole in each: logits are made from them outside the model's own forward.
"""

import copy
from typing import Any, cast

import torch
from accelerate import init_empty_weights

from distill.core import sharding
from distill.core.errors import DistillError
from distill.core.processes import connected, everybody, launched
from distill.language.options import LanguageOptions
from distill.language.quantized import Bits, open_teacher
from distill.methods.method import Method, MethodOptions

FLOATS = ("float32", "bf16")
"""Precisions whose weights can be cut into parts."""


def spreads(options: LanguageOptions, method: Method, settings: MethodOptions) -> bool:
    """Whether the launcher asks for models in parts, and all processes ask the one local teacher equally often.

    Those that write with it or correct texts by it do not, nor are layers in 8 and 4 bits cut into parts.
    """
    several = launched() > 1 and sharding.asked()
    here = options.teacher is not None and options.teacher_url is None and options.teacher_precision in FLOATS
    return several and here and not method.rewrites and not method.teacher_writes(settings)


def open_spread(source: str, bits: Bits) -> Any:
    """As `open_teacher`, each process with its part of every block. All processes have to ask.

    Raises:
      DistillError: in all of them what the first one found wrong.
    """
    processes = connected()
    whole, wrong = None, ""
    if processes.is_main_process:
        try:
            whole = open_teacher(source, bits)
        except DistillError as error:
            wrong = str(error)
    wrong = everybody(processes, wrong)[0]
    if wrong:
        raise DistillError(wrong)
    return spread(whole)


def spread(whole: Any) -> Any:
    """The first process's `whole` model in parts; what the others give is not read. All processes have to ask."""
    processes = connected()
    about = (type(whole), whole.config, whole.dtype) if processes.is_main_process else None
    kind, config, dtype = cast("tuple[Any, Any, torch.dtype]", everybody(processes, about)[0])

    with init_empty_weights(include_buffers=False):
        model: Any = kind._from_config(copy.deepcopy(config), dtype=dtype)
    model.config.dtype = config.dtype  # what its fingerprint is of
    sharding.spread(model, processes.device)
    model.tie_weights()  # what was one on no device became two
    sharding.load_whole(model, whole.state_dict() if processes.is_main_process else {})
    return model.eval()
