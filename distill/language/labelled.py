"""A user's own labelled texts, and what classifiers of transformers read of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer

from distill.core.errors import DistillError, first_line
from distill.core.tables import Rows
from distill.language.examples import fault_of, reasons, rows_with
from distill.language.models import CLASSES, Read, require_body, require_finite
from distill.language.places import check_place
from distill.language.students import is_config

LABELS = ("label", "category")
"""Names of the field that says a text's class."""


@dataclass
class LabelledTexts:
    """Texts and their classes as they were read."""

    texts: list[str] = field(default_factory=list[str])
    labels: list[str] = field(default_factory=list[str])
    dropped: Counter[str] = field(default_factory=Counter[str])
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name -> SHA-256."""


def read_labelled(paths: Sequence[Path]) -> LabelledTexts:
    """Rows with `text` and `label` (or `category`) of files or folders.

    Raises:
      DistillError: nothing there, other fields, or no row that can be used.
    """
    found = LabelledTexts()
    for _, row in rows_with(paths, ("text", "|".join(LABELS)), found.files):
        text, label = row["text"], next(row[name] for name in LABELS if name in row)
        label = str(label) if isinstance(label, int) else label
        if fault := fault_of(text, label):
            found.dropped[fault] += 1
        else:
            found.texts.append(text)
            found.labels.append(label)
    if not found.texts:
        raise DistillError(f"{', '.join(map(str, paths))}: no row has a text and a label ({reasons(found.dropped)})")
    return found


def classes_of(labels: Sequence[str]) -> list[str]:
    """The classes in order: of their numbers where all are numbers, of their letters otherwise."""
    names = sorted(set(labels))
    return sorted(names, key=int) if all(name.isdecimal() and len(name) < 100 for name in names) else names


class Reader:
    """A classifier's tokenizer: texts as tokens of one length, and which of them count."""

    def __init__(self, name: str, length: int) -> None:
        """`length` is the greatest number of tokens. Raises `DistillError` for a tokenizer that cannot be loaded."""
        check_place(name)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        except Exception as error:  # damaged files raise whatever their readers do
            reason = first_line(error)
            raise DistillError(f"the tokenizer of '{name}' cannot be loaded: {reason}") from error
        if self.tokenizer.pad_token_id is None:
            if self.tokenizer.eos_token_id is None:
                raise DistillError(f"the tokenizer of '{name}' has no token for padding")
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.length, self.cut = length, 0

    @property
    def pad(self) -> int:
        """Its id."""
        return int(self.tokenizer.pad_token_id)

    def rows(self, texts: Sequence[str], prefix: str = "") -> dict[str, np.ndarray]:
        """`tokens` and `seen` `[N, length]`, with the prefix before their names; `cut` counts what is too long."""
        self.cut += sum(len(self.tokenizer(text)["input_ids"]) > self.length for text in texts)
        kept = [self.tokenizer(text, truncation=True, max_length=self.length)["input_ids"] for text in texts]
        return self._filled(kept, prefix)

    def pieces(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """As `rows`, of whole texts: what is longer than a row goes on in the next one."""
        if not getattr(self.tokenizer, "is_fast", False):
            raise DistillError("a tokenizer without a fast form cannot go on with a text in a row of its own")
        cut = {"truncation": True, "max_length": self.length, "return_overflowing_tokens": True}
        found = [self.tokenizer(text, **cut)["input_ids"] for text in texts if text.strip()]
        return self._filled([ids for pieces in found for ids in pieces], "")

    def _filled(self, rows: Sequence[Sequence[int]], prefix: str) -> dict[str, np.ndarray]:
        tokens = np.full((len(rows), self.length), self.pad, np.int64)
        seen = np.zeros((len(rows), self.length), bool)
        for row, kept in enumerate(rows):
            tokens[row, : len(kept)], seen[row, : len(kept)] = kept, True
        return {f"{prefix}tokens": tokens, f"{prefix}seen": seen}


def read(prefix: str = "", order: Sequence[int] | None = None) -> Read:
    """Reads class logits `[B, C]` for rows of `Reader`, in the `order` of the model's classes where it is another."""

    def logits(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        found = module(input_ids=batch[f"{prefix}tokens"], attention_mask=batch[f"{prefix}seen"].long()).logits
        return found if order is None else found[..., list(order)]

    return logits


def classifier_of(source: str, classes: Sequence[str], pad: int, seed: int) -> Any:
    """A classifier of these classes; its head is random where the model has none of that size.

    Raises:
      DistillError: it cannot be had.
    """
    check_place(source)
    try:
        config: Any = AutoConfig.from_pretrained(source)
        known = getattr(config, "id2label", {})
        ours = dict(enumerate(classes))
        config.num_labels = len(classes)
        config.id2label, config.label2id = ours, {name: i for i, name in ours.items()}
        config.pad_token_id = pad
        torch.manual_seed(seed)
        if is_config(source):
            return CLASSES["encoder"].from_config(config).eval()
        found, said = CLASSES["encoder"].from_pretrained(
            source, config=config, ignore_mismatched_sizes=True, output_loading_info=True
        )
        require_body(source, found, said)
        require_finite(source, found)
        model = found.float()
        if list(known.values()) != list(classes) and len(known) == len(classes):
            _forget_head(model, source)
        return model.eval()
    except DistillError:
        raise
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the classifier '{source}' cannot be loaded: {reason}") from error


def _forget_head(model: Any, source: str) -> None:
    """A head of as many classes, but others, is no start: its rows would mean something else."""
    head = next((part for name in ("classifier", "score") if (part := getattr(model, name, None)) is not None), None)
    if head is None:
        raise DistillError(f"the head of '{source}' is not found, and its classes are others than those of the data")
    for part in head.modules():
        if isinstance(part, nn.Linear):
            part.reset_parameters()


def teacher_of(source: str, classes: Sequence[str]) -> tuple[Any, list[int]]:
    """A classifier and the places of the classes among its own.

    Raises:
      DistillError: it cannot be had, its head is missing, or it lacks a class.
    """
    check_place(source)
    try:
        model, said = CLASSES["encoder"].from_pretrained(source, dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the teacher '{source}' cannot be loaded: {reason}") from error
    if said["missing_keys"]:
        raise DistillError(f"the teacher '{source}' is no classifier: it lacks {sorted(said['missing_keys'])[0]}")
    require_finite(source, model)
    own = {str(name): int(i) for i, name in model.config.id2label.items()}
    if all(name.isdecimal() for name in classes) and set(own) == {f"LABEL_{i}" for i in range(len(own))}:
        own = {name.removeprefix("LABEL_"): i for name, i in own.items()}
    missing = [name for name in classes if name not in own]
    if missing:
        more = f"{', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}"
        raise DistillError(f"the teacher '{source}' does not know the classes {more}; it has {len(own)} of its own")
    return model.eval(), [own[name] for name in classes]


def held_out_places(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Which rows are never trained on, booleans `[N]`: the share of every class, rounded, and one row at least."""
    rng, chosen = np.random.default_rng([seed, 31]), np.zeros(len(labels), bool)
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        chosen[places[: min(round(share * len(places)), len(places) - 1)]] = True
    if not chosen.any():
        chosen[rng.integers(len(labels))] = True
    return chosen


def chosen_rows(rows: Rows, places: np.ndarray) -> dict[str, np.ndarray]:
    """The rows at some places."""
    return {name: values[places] for name, values in rows.items()}
