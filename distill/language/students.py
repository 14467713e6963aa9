"""The models of one distillation as users name them: a teacher, its tokenizer, and a student that fits both."""

import copy
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from distill.core.errors import DistillError, first_line
from distill.core.teachers import Batch
from distill.language.models import in_file, load, parameters
from distill.language.places import check_place, require_kept
from distill.language.pruning import importance, narrower
from distill.language.quantized import quantized

PRUNE = "prune:"
WEIGHTS = ("*.safetensors", "*.bin", "*.gguf")


def open_tokenizer(name: str) -> Any:
    """A fast tokenizer with an end token, without the truncation and padding that its file may keep.

    Raises:
      DistillError: it cannot be loaded, or is of no use here.
    """
    try:
        source, more = in_file(name)
        found: Any = AutoTokenizer.from_pretrained(source, **more)
    except DistillError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the tokenizer of '{name}' cannot be loaded: {reason}") from error
    if found.eos_token_id is None or not getattr(found, "is_fast", False):
        raise DistillError(f"the tokenizer of '{name}' has no end token or no fast form")
    found.backend_tokenizer.no_truncation()
    found.backend_tokenizer.no_padding()
    if found.pad_token_id is None:
        found.pad_token = found.eos_token
    return found


def require_same_tokens(teacher: Any, student: Any, more: bool = False) -> None:
    """Raises `DistillError` unless both tokenizers split text alike into the same ids; with `more` the teacher's may
    have tokens beyond the student's."""
    parts = [json.loads(each.backend_tokenizer.to_str()) for each in (teacher, student)]
    for part in parts:
        for name in ("truncation", "padding", "post_processor", "added_tokens", "version"):
            part.pop(name, None)
    theirs, ours = teacher.get_vocab(), student.get_vocab()
    if parts[0] != parts[1] or (not theirs.items() >= ours.items() if more else theirs != ours):
        raise DistillError(
            f"teacher and student have different tokenizers ({len(teacher)} and {len(student)} tokens), so that their "
            "distributions are about different events; a language model's method alm takes them"
        )


def is_config(source: str) -> bool:
    """Whether a student is named by a config alone: a JSON file, or a folder with one and without weights."""
    path = Path(source)
    if path.is_dir():
        return (path / "config.json").is_file() and not any(any(path.glob(kind)) for kind in WEIGHTS)
    return path.suffix == ".json"


def open_student(
    source: str, teacher: Any, tokenizer: Any, seed: int, batches: Callable[[], Iterable[Batch]] | None = None
) -> tuple[Any, str]:
    """The student in float32, and in words where it comes from.

    `batches` gives some of the data, by which is told what a narrower student needs of its teacher.

    Raises:
      DistillError: it cannot be had, its vocabulary is too small for the tokenizer, or its own tokenizer is another.
    """
    if source.startswith(PRUNE):
        model, about = cut_from(teacher, source, batches), f"cut from the teacher ({source})"
    elif is_config(source):
        model, about = from_config(source, tokenizer, seed), f"random weights ({source})"
    else:
        require_same_tokens(tokenizer, open_tokenizer(source))
        model, about = load(source, dtype=torch.float32), source
    size = model.config.get_text_config().vocab_size
    if size < len(tokenizer):
        raise DistillError(f"the student knows {size} tokens, the tokenizer has {len(tokenizer)}")
    require_kept(model, source)
    return model, about


def from_config(source: str, tokenizer: Any, seed: int) -> Any:
    """A causal model of a config with random weights that `seed` decides; it gets the tokenizer's special tokens."""
    check_place(source)
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as error:
        raise DistillError(f"the config '{source}' cannot be read: {first_line(error)}") from error
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(config, name, getattr(tokenizer, name))
    try:
        return load(config, seed=seed)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise DistillError(f"the config '{source}' gives no causal model: {first_line(error)}") from error


def sizes(sources: Sequence[str]) -> list[int]:
    """Parameters of causal models without their embeddings, found from their configs alone.

    Raises:
      DistillError: a config that cannot be had, such as that of a student that is cut from its teacher.
    """
    found: list[int] = []
    for source in sources:
        if source.startswith(PRUNE):
            raise DistillError(f"a student '{source}' has no size before its teacher is chosen")
        try:
            with torch.device("meta"):
                name, more = in_file(source)
                model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(name, **more))
        except DistillError:
            raise
        except Exception as error:  # damaged files raise whatever their readers do
            reason = first_line(error)
            raise DistillError(f"the config '{source}' gives no causal model: {reason}") from error
        found.append(parameters(model, embeddings=False))
    return found


def cut_from(teacher: Any, spec: str, batches: Callable[[], Iterable[Batch]] | None = None) -> Any:
    """`prune:layers=N,width=W,inner=I,heads=H` of a teacher: any of them, what is not named stays as it is.

    Layers are left out as `pruned_layers` does; hidden dimensions, neurons and heads by their importance on the data
    (arXiv 2311.07052).

    Raises:
      DistillError: another spec, no teacher, or more than it has.
    """
    wanted: dict[str, int] = {}
    for part in spec.removeprefix(PRUNE).split(","):
        name, _, value = part.strip().partition("=")
        if name not in ("layers", "width", "inner", "heads") or name in wanted or not value.isdigit() or not int(value):
            raise DistillError(f"a student is cut as {PRUNE}layers=N,width=W,inner=I,heads=H, got '{spec}'")
        wanted[name] = int(value)
    if teacher is None:
        raise DistillError(f"a student '{spec}' is cut from a teacher, and there is none")
    if quantized(teacher):
        raise DistillError(f"a student '{spec}' is cut from whole weights: --teacher-precision float32 or bf16")
    layers = wanted.pop("layers", 0)
    model = pruned_layers(teacher, f"{PRUNE}layers={layers}") if layers else copy.deepcopy(teacher).float()
    if not wanted:
        return model
    if batches is None:
        raise DistillError(f"a student '{spec}' needs data that tell what is important")
    return narrower(model, importance(model, batches()), **wanted)


def pruned_layers(teacher: Any, spec: str) -> Any:
    """A copy of the teacher with `layers=N` of its layers, the first and the last and evenly those between.

    Raises:
      DistillError: no teacher, another spec, or a number that the teacher does not have.
    """
    if teacher is None:
        raise DistillError(f"a student '{spec}' is cut from a teacher, and there is none")
    config = teacher.config
    layers, wanted = int(config.num_hidden_layers), spec.removeprefix(PRUNE).partition("=")
    if wanted[0] != "layers" or not wanted[2].isdigit() or not 1 <= int(wanted[2]) <= layers:
        raise DistillError(f"a student is cut as {PRUNE}layers=N with N from 1 to {layers}, got '{spec}'")
    count = int(wanted[2])
    kept = sorted({round(i * (layers - 1) / max(count - 1, 1)) for i in range(count)})
    stacks = [
        (name, part)
        for name, part in teacher.named_modules()
        if isinstance(part, nn.ModuleList) and len(part) == layers
    ]
    if len(stacks) != 1:
        raise DistillError(f"the layers of {type(teacher).__name__} are not found, so that none can be left out")
    stem = f"{stacks[0][0]}."
    small = copy.deepcopy(config)
    small.num_hidden_layers = count
    for name in ("layer_types", "mlp_layer_types"):
        if isinstance(getattr(small, name, None), list):
            setattr(small, name, [getattr(config, name)[i] for i in kept])
    state: dict[str, torch.Tensor] = {}
    for name, tensor in teacher.state_dict().items():
        if not name.startswith(stem):
            state[name] = tensor
            continue
        place, _, rest = name.removeprefix(stem).partition(".")
        if int(place) in kept:
            state[f"{stem}{kept.index(int(place))}.{rest}"] = tensor
    model = load(small).float()
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise DistillError(f"layers of {type(teacher).__name__} cannot be left out: {error}") from error
    return model


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end an answer: the tokenizer's end, and what the model's generation config adds to it."""
    more = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found = [tokenizer.eos_token_id, *(more if isinstance(more, list) else [] if more is None else [more])]
    return sorted({int(token) for token in found if token < len(tokenizer)})
