"""Students of experiments in folders that load again: models of transformers as those do, others by their settings."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerFast

from distill.core.checkpoints import write_json
from distill.core.errors import DistillError, first_line
from distill.core.reading import read_json
from distill.language.models import CLASSES, Kind
from distill.language.places import check_files
from distill.language.text import END, PAD, Tokens

CONFIG, WEIGHTS = "config.json", "model.safetensors"
OWN = "kind"
"""Of a config of this project's own, what transformers calls `model_type`."""


def _window(settings: dict[str, Any]) -> nn.Module:
    from distill.language.window import WindowModel

    return WindowModel(**settings)


def _bag_of_words(settings: dict[str, Any]) -> nn.Module:
    from distill.methods.pgkd.few_labels import BagOfWords

    return BagOfWords(**settings, seed=0)


def _perceptron(settings: dict[str, Any]) -> nn.Module:
    from distill.methods.labs.feature_lab import Perceptron

    return Perceptron(**settings)


def _transformer(settings: dict[str, Any]) -> nn.Module:
    from policies.transformer import LocomotionTransformer, TransformerConfig

    return LocomotionTransformer(TransformerConfig(**settings))


def _span_tagger(settings: dict[str, Any]) -> nn.Module:
    from distill.language.span_tagger import SpanTagger

    return SpanTagger(**settings)


def _visit_recommender(settings: dict[str, Any]) -> nn.Module:
    from distill.methods.leader.method import VisitRecommender

    return VisitRecommender(**settings)


def _shared_prompt(settings: dict[str, Any]) -> nn.Module:
    from distill.methods.mend.method import SharedPrompt

    return SharedPrompt(**settings)


KINDS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "WindowModel": _window, "BagOfWords": _bag_of_words, "Perceptron": _perceptron,
    "LocomotionTransformer": _transformer,
    "SpanTagger": _span_tagger, "VisitRecommender": _visit_recommender,
    "SharedPrompt": _shared_prompt,
}  # fmt: skip

ENDINGS: dict[str, Kind] = {
    "ForCausalLM": "causal", "ForSequenceClassification": "encoder", "ForConditionalGeneration": "encoder-decoder",
    "ForMaskedLM": "masked", "ForTokenClassification": "tagger",
}  # fmt: skip


def save(module: nn.Module, folder: Path, tokens: Tokens | None = None) -> None:
    """Writes a student, with its tokenizer where it has one.

    Raises:
      DistillError: a module of a kind that could not be loaded again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(module, PreTrainedModel):
        module.save_pretrained(folder)
        if tokens is not None:
            fast: Any = PreTrainedTokenizerFast(tokenizer_object=tokens.tokenizer, pad_token=PAD, eos_token=END)
            fast.save_pretrained(folder)
        return
    kind = type(module).__name__
    if kind not in KINDS:
        raise DistillError(f"a {kind} cannot be kept: there is no way to load it again")
    settings: Any = getattr(module, "settings", None)
    settings = asdict(module.config) if settings is None else settings  # type: ignore[arg-type]
    state = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    write_json(folder / CONFIG, {OWN: kind, "settings": settings})


def load(folder: Path) -> nn.Module:
    """The student of a folder that `save` wrote, in evaluation mode. Raises `DistillError` where it holds none."""
    try:
        check_files(folder)
        about = read_json(folder / CONFIG)
        if OWN not in about:
            return _pretrained(folder)
        module = KINDS[about[OWN]](about["settings"])
        module.load_state_dict(load_file(folder / WEIGHTS))
    except DistillError as error:
        raise DistillError(f"{folder} holds no student: {error}") from error
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"{folder} holds no student: {reason}") from error
    return module.eval()


def _pretrained(folder: Path) -> nn.Module:
    from distill.language import sparse, supernet  # noqa: F401 (make their kinds of model known to transformers)
    from distill.methods.mend.method import Compressor

    config: Any = AutoConfig.from_pretrained(folder)
    name = (config.architectures or ["a model of no kind"])[0]
    if hasattr(config, "vision_config"):
        seeing: Any = AutoModelForImageTextToText.from_pretrained(folder)
        return seeing.eval()
    if name == Compressor.__name__:
        return Compressor.from_pretrained(folder).eval()
    kind = next((kind for ending, kind in ENDINGS.items() if name.endswith(ending)), None)
    if kind is None:
        raise DistillError(f"{name} is none of this project's students")
    found: Any = CLASSES[kind].from_pretrained(folder)
    return found.eval()
