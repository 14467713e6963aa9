"""Few labelled texts of many classes, a small classifier for them, and a stand-in for a teacher that writes more."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.language.packing import padded
from distill.language.tasks import Unigrams, WordChains
from distill.language.text import words
from distill.methods.framework import Trial


class BagOfWords(nn.Module):
    """A linear classifier on the mean of learned word vectors."""

    def __init__(self, vocabulary: int, classes: int, seed: int) -> None:
        super().__init__()
        self.settings = {"vocabulary": vocabulary, "classes": classes}
        torch.manual_seed(seed)
        self.vectors = nn.EmbeddingBag(vocabulary, 64, mode="mean", padding_idx=0)
        self.last = nn.Linear(64, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class logits `[B, C]` of tokens `[B, T]`."""
        return self.last(self.vectors(tokens))


def read(module: nn.Module, batch: Any) -> Tensor:
    """Class logits."""
    return module(batch["tokens"])


class FewLabels:
    """One seed's labels, drawn by Zipf's law, with a teacher of unseen texts beside them."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s, rng = self.settings, trial.rng()
        pool, test, self.classes, self.vocabulary = self._texts(rng)
        share = 1 / np.arange(1, self.classes + 1)
        share = rng.permutation(share / share.sum())
        half = len(pool[1]) // 2
        first, unseen = [(pool[0][part], pool[1][part]) for part in (slice(None, half), slice(half, None))]
        self.test = {"tokens": test[0], "label": test[1]}
        self.writer = WordChains(*unseen, self.classes, s.noise)
        wanted = np.minimum(rng.multinomial(trial.scaled(s.labelled, 30), share), s.most)
        told = np.maximum(rng.multinomial(trial.scaled(s.validation, 10), share), 1)
        validation, labelled = [], []
        for label in range(self.classes):
            places = rng.permutation(np.flatnonzero(first[1] == label))
            validation.append(places[: told[label]])
            labelled.append(places[told[label] : told[label] + wanted[label]])
        self.sets: list[dict[str, np.ndarray]] = []
        """Labelled texts, and those of the validation report, in which no class is missing."""
        for parts in (labelled, validation):
            chosen = rng.permutation(np.concatenate(parts))
            self.sets.append({"tokens": first[0][chosen], "label": first[1][chosen]})

    def _texts(self, rng: np.random.Generator) -> tuple[Any, Any, int, int]:
        s, corpus = self.settings, self.trial.corpus
        if corpus is None:
            task = Unigrams(s.classes, s.words, s.length, scale=1.2, seed=self.trial.seed, uneven=s.uneven)
            sizes = (self.trial.scaled(2 * s.pool, 400), self.trial.scaled(s.test, 200))
            return task.draw(rng, sizes[0]), task.draw(rng, sizes[1]), task.classes, task.vocabulary
        splits = {name.split("/")[-1]: pairs for name, pairs in corpus.labelled.items()}
        if not {"train", "test"} <= set(splits):
            raise DistillError(f"labelled data need the splits train and test, found {sorted(splits)}")
        names = sorted({label for _, label in splits["train"]})
        tokens = words(text.lower() for text, _ in splits["train"])
        found = []
        for name in ("train", "test"):
            order = rng.permutation(len(splits[name])) if name == "train" else np.arange(len(splits[name]))
            chosen = [splits[name][i] for i in order]
            texts = padded(tokens.encode_all([text.lower() for text, _ in chosen]), 24, tokens.pad)
            found.append((texts, np.array([names.index(label) for _, label in chosen])))
        return found[0], found[1], len(names), tokens.size
