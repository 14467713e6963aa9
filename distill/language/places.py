"""Where models and tokenizers come from: a folder here, or a name of the Hugging Face hub, told apart before any work.

What is neither is refused at once. Transformers asks the hub for whatever is no folder, and where the hub cannot be
reached it asks again for a minute, printing a line each time.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from distill.core.errors import DistillError, first_line
from distill.core.reading import check_regular, read_json
from distill.language.template_trial import check_templates

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Of a model on the hub, with its owner's where it has one."""
WEIGHTS = (".safetensors", ".bin", ".gguf", ".pt")
READ = (*WEIGHTS, ".json", ".jinja", ".model", ".txt", ".py")
"""Endings of what is read of a model's folder."""
CONFIG = "config.json"
GENERATION = "generation_config.json"
"""What ends an answer, above all: libraries pass over a damaged one without a word."""
COUNTED = {
    re.compile(r"(^|_)n(um)?_\w*(layer|block|expert|stage)|layers$|depths?$", re.IGNORECASE): 20_000,
    re.compile(r"^num_labels$"): 10_000_000,
}
"""Keys of a config which say how many there are of what is built one by one, and the most of them. Libraries build a
billion until the memory ends; published models have some hundred layers, and experts up to 16,384."""
LARGEST_TEXT = 2**29
"""Bytes of a file that is read as a whole: the largest published tokenizers have a tenth of that."""


def check_place(source: str | Path) -> None:
    """Whether a model, a config or a tokenizer can be there: a folder, a `.gguf` or `.json` file, or a published name.

    Raises:
      DistillError: it is another file, a folder with what libraries would read for ever, no name, or a name that is not
        in the cache while the hub cannot be reached.
    """
    text = str(source)
    path = Path(text)
    if path.is_dir():
        check_files(path)
        return
    if path.is_file() and path.suffix == ".json":
        check_counts(path)
        return
    if path.is_file() and path.suffix == ".gguf":
        return
    if os.path.lexists(path):
        raise DistillError(f"'{text}' is no folder of a model")
    if not NAME.fullmatch(text) or path.suffix in (".gguf", ".json"):
        raise DistillError(f"there is no '{text}' here, and no model can have that name on the hub")
    from huggingface_hub import constants, is_offline_mode, try_to_load_from_cache

    if is_offline_mode() or (problem := _unreachable(constants.ENDPOINT)) is None:
        return
    if not any(isinstance(try_to_load_from_cache(text, name), str) for name in ("config.json", "tokenizer.json")):
        raise DistillError(f"there is no folder '{text}' here, and {constants.ENDPOINT} cannot be reached: {problem}")
    constants.HF_HUB_OFFLINE = True  # what is cached is read without asking again


def check_files(folder: Path) -> None:
    """Raises `DistillError` where a pipe, a device, a folder or a link to nothing stands for a file of a model, a text
    fills the memory, its config asks for a billion layers, or its chat template computes for ever."""
    try:
        files = [path for path in folder.iterdir() if path.suffix in READ]
    except OSError as error:
        raise DistillError(f"the folder {folder} cannot be read: {error.strerror}") from error
    for path in files:
        try:
            size = check_regular(path)
        except OSError as error:  # a link to nothing, which libraries would pass over as if it were not there
            raise DistillError(f"{path} cannot be read: {error.strerror}") from error
        if path.suffix not in WEIGHTS and size > LARGEST_TEXT:
            raise DistillError(f"{path} has {size} bytes, {LARGEST_TEXT} are allowed")
        if path.name == GENERATION and not isinstance(read_json(path), dict):
            raise DistillError(f"{path} is no object")
        if path.name == CONFIG:
            check_counts(path)
    check_templates(folder)


def check_counts(path: Path) -> None:
    """Raises `DistillError` where a config asks for more layers, experts or the like than any model has."""

    def check(said: object) -> None:
        for key, value in said.items() if isinstance(said, dict) else ():
            for pattern, most in COUNTED.items():
                if pattern.search(key) and isinstance(value, int | float) and not value <= most:
                    raise DistillError(f"{path}: {key} is {value}, {most} are allowed")
            check(value)
        for value in said if isinstance(said, list) else ():
            check(value)

    check(read_json(path))


@contextmanager
def loading(what: str, source: str) -> Iterator[None]:
    """Whatever goes wrong while a model is read, as one `DistillError` that says `what` was to be read from where."""
    check_place(source)
    try:
        yield
    except DistillError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the {what} '{source}' cannot be loaded: {reason}") from error


def require_kept(model: Any, source: str) -> None:
    """Whether the folder that is written of a student in the end would load again, tried with its configs alone.

    Raises:
      DistillError: transformers takes a config that is changed, as to a width that the heads do not divide, and refuses
        it when it is written or read.
    """
    from transformers import AutoConfig

    with tempfile.TemporaryDirectory() as folder:
        try:
            model.config.save_pretrained(folder)
            AutoConfig.from_pretrained(folder)
            if (generation := getattr(model, "generation_config", None)) is not None:
                generation.save_pretrained(folder)
        except Exception as error:  # of whichever of its many checks
            reason = first_line(error.__cause__ or error)
            raise DistillError(f"the student '{source}' would be a folder that cannot be loaded: {reason}") from error


def load_silently() -> None:
    """Models are read without a bar of progress and a report for each: what is missing is refused anyway. Downloads
    still have their bars."""
    from huggingface_hub.utils import enable_progress_bars
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    enable_progress_bars()


@cache
def _unreachable(endpoint: str) -> str | None:
    """Why a server cannot be reached, None where it can; any answer counts, through a proxy too."""
    from huggingface_hub import get_session

    try:
        get_session().head(endpoint, timeout=5.0)
    except Exception as error:  # its client's own, of which there have been three
        return first_line(error)
    return None
