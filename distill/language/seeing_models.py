"""Models that see as users name them: a teacher, its processor, and a student that reads the same words and patches."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from distill.core.errors import DistillError, first_line
from distill.language.models import load, require_finite
from distill.language.own import require_room
from distill.language.pictured import Pictures
from distill.language.places import loading, require_kept
from distill.language.sparse import FAMILIES, sparse_layers  # also makes models with experts known to transformers
from distill.language.students import is_config, open_tokenizer, require_same_tokens
from distill.language.vision import EYES, PROJECTOR, part_of

PREPARED = (
    "size", "crop_size", "do_resize", "do_center_crop", "do_rescale", "rescale_factor", "do_normalize", "image_mean",
    "image_std", "resample",
)  # fmt: skip
"""What decides the pixels that a processor makes of an image."""


@dataclass(frozen=True)
class Processor:
    """What makes tokens of texts and pixels of images."""

    whole: Any
    """As transformers saves it."""
    tokenizer: Any
    word: str
    """That stands for an image in texts."""

    @property
    def token(self) -> int:
        """Its id."""
        return int(self.tokenizer.get_vocab()[self.word])


def open_processor(source: str) -> Processor:
    """A processor whose fast tokenizer has tokens for an end and for images. Raises `DistillError` where it is none."""
    with loading("processor", source):
        found: Any = AutoProcessor.from_pretrained(source)
    if getattr(found, "image_processor", None) is None or getattr(found, "tokenizer", None) is None:
        raise DistillError(f"'{source}' has no processor of images and texts: a {type(found).__name__} is none")
    found.tokenizer = open_tokenizer(source)
    word = getattr(found, "image_token", None)
    if not isinstance(word, str) or word not in found.tokenizer.get_vocab():
        raise DistillError(f"the tokenizer of '{source}' has no token for an image, which its processor calls {word!r}")
    if found.tokenizer.pad_token == word:
        raise DistillError(f"the tokenizer of '{source}' pads with the token for an image")
    found.tokenizer.chat_template = getattr(found, "chat_template", None) or found.tokenizer.chat_template
    return Processor(found, found.tokenizer, word)


def open_seeing(what: str, source: str) -> Any:
    """A model of transformers with a vision tower, a projector and a language model, in float32.

    Raises:
      DistillError: it cannot be read, weights are missing or not finite, or it does not see.
    """
    _require_sees(what, source, _config(what, source))
    with loading(what, source):
        read: Any = AutoModelForImageTextToText.from_pretrained
        model, said = read(source, dtype=torch.float32, output_loading_info=True)
        missing = sorted(said["missing_keys"])
        if missing:
            raise DistillError(f"the {what} '{source}' lacks {len(missing)} of its weights, such as {missing[0]}")
        require_finite(source, model)
        for name in (PROJECTOR, EYES):
            part_of(model, name)
    return model.eval()


def open_sighted_student(student: str, language_model: str, teacher: Any, tokenizer: Any, seed: int) -> Any:
    """A model that sees, of a folder, a config or a `language_model`. Raises `DistillError` where it cannot be had."""
    model = _sighted_student(student, language_model, teacher, tokenizer, seed)
    require_kept(model, language_model or student)
    return model


def _sighted_student(student: str, language_model: str, teacher: Any, tokenizer: Any, seed: int) -> Any:
    if language_model:
        return _given_eyes(language_model, teacher, tokenizer, seed)
    if not is_config(student):
        return open_seeing("student", student)
    config = _config("student", student)
    _require_sees("student", student, config)
    theirs, ours = (each.vision_config.to_dict() for each in (teacher.config, config))
    other = next((n for n in sorted({*theirs, *ours} - {"dtype"}) if theirs.get(n) != ours.get(n)), None)
    if other is not None:
        raise DistillError(
            f"the config '{student}' has another vision tower than the teacher ({other} {ours.get(other)}, not "
            f"{theirs.get(other)}), and one of random weights, which stays frozen, sees nothing"
        )
    with loading("student", student):
        torch.manual_seed(seed)
        return _with_eyes_of(teacher, AutoModelForImageTextToText.from_config(config))


def _given_eyes(source: str, teacher: Any, tokenizer: Any, seed: int) -> Any:
    words: Any = load(source, dtype=torch.float32)
    require_same_tokens(tokenizer, open_tokenizer(source), more=True)
    with loading("student", source):
        torch.manual_seed(seed)
        if words.get_input_embeddings().num_embeddings < len(tokenizer):
            words.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        config = copy.deepcopy(teacher.config)
        config.text_config = copy.deepcopy(words.config)
        config.tie_word_embeddings = words.config.tie_word_embeddings
        model = _with_eyes_of(teacher, AutoModelForImageTextToText.from_config(config))
        model.get_decoder().load_state_dict(words.get_decoder().state_dict())
        model.get_output_embeddings().load_state_dict(words.get_output_embeddings().state_dict())
        model.tie_weights()
    return model


def _with_eyes_of(teacher: Any, model: Any) -> Any:
    part_of(model, EYES).load_state_dict(part_of(teacher, EYES).state_dict())
    part_of(model, PROJECTOR)
    return model.float().eval()


def _config(what: str, source: str) -> Any:
    with loading(what, source):
        return AutoConfig.from_pretrained(source)


def _require_sees(what: str, source: str, config: Any) -> None:
    if getattr(config, "vision_config", None) is None:
        raise DistillError(f"the {what} '{source}' is a {config.model_type}, which has no vision tower")


@torch.no_grad()
def patches(what: str, model: Any, processor: Processor, pictures: Pictures) -> int:
    """How many tokens an image has, asked of model and processor.

    Raises:
      DistillError: they differ, or the model cannot look at what the processor makes.
    """
    image = Image.new("RGB", (64, 48))
    pixels = pictures.pixels(image)[None].to(model.device)
    try:
        found = model.get_image_features(pixel_values=pixels)
        features = getattr(found, "pooler_output", found)
        count = int(features[0].reshape(-1, features[0].shape[-1]).shape[0])
        said = processor.whole(text=processor.word, images=[image])["input_ids"][0]
    except Exception as error:  # each kind of model says it in its own way
        reason = first_line(error)
        raise DistillError(f"the {what} cannot look at an image as the processor prepares it: {reason}") from error
    there = list(said).count(processor.token)
    if there != count:
        raise DistillError(f"the {what} makes {count} tokens of an image, and the processor writes {there}")
    model.config.image_seq_length = count  # which folders keep wrong, since transformers no longer reads it
    return count


def require_fits(what: str, model: Any, processor: Processor, length: int) -> None:
    """Raises `DistillError` where a model does not know all tokens, calls an image another, or reads shorter rows."""
    known, tokenizer = model.get_input_embeddings().num_embeddings, processor.tokenizer
    if known < len(tokenizer):
        raise DistillError(f"the {what} knows {known} tokens, fewer than the tokenizer, which has {len(tokenizer)}")
    theirs = getattr(model.config, "image_token_id", None)
    if theirs != processor.token:
        raise DistillError(
            f"the {what} takes the token {theirs} for an image, and the processor writes {processor.token}, "
            f"'{processor.word}'"
        )
    require_room(model, length, f"--length, for the {what},")


def require_same_preparation(teacher: Any, student: Any) -> None:
    """Raises `DistillError` where two image processors make other pixels of one image."""
    ours, theirs = (each.image_processor.to_dict() for each in (student, teacher))
    for name in PREPARED:
        if ours.get(name) != theirs.get(name):
            raise DistillError(
                f"student and teacher prepare images otherwise: {name} is {ours.get(name)} and {theirs.get(name)}"
            )


def require_becomes_sparse(model: Any) -> None:
    """Raises `DistillError` where the feed-forward parts of a model that sees can be given no experts."""
    if sparse_layers(model):
        return
    kind, layers = model.config.model_type, getattr(model.get_decoder(), "layers", ())
    seeing = [name for name, auto in FAMILIES.items() if auto is AutoModelForImageTextToText]
    if kind not in seeing or not layers or not all(hasattr(layer, "mlp") for layer in layers):
        raise DistillError(f"experts are for models of {', '.join(seeing)} with an mlp in each layer, not for a {kind}")
