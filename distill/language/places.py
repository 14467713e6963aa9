"""Where models and tokenizers come from: a folder here, or a name of the Hugging Face hub, told apart before any work.

What is neither is refused at once. Transformers asks the hub for whatever is no folder, and where the hub cannot be
reached it asks again for a minute, printing a line each time.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from distill.core.errors import DistillError

NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)
"""Of a model on the hub, with its owner's where it has one."""


def check_place(source: str | Path) -> None:
    """Whether a model, a config or a tokenizer can be there: a folder, a `.gguf` or `.json` file, or a published name.

    Raises:
      DistillError: it is another file, no name, or a name that is not in the cache while the hub cannot be reached.
    """
    text = str(source)
    path = Path(text)
    if path.is_dir() or (path.is_file() and path.suffix in (".gguf", ".json")):
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


@contextmanager
def loading(what: str, source: str) -> Iterator[None]:
    """Whatever goes wrong while a model is read, as one `DistillError` that says `what` was to be read from where."""
    check_place(source)
    try:
        yield
    except DistillError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DistillError(f"the {what} '{source}' cannot be loaded: {reason}") from error


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
        return (str(error).strip() or type(error).__name__).splitlines()[0]
    return None
