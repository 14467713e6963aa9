"""A tagger that is asked about something: which words of a text are spans of it. Its rows, and what it says."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel

from distill.core.errors import DistillError
from distill.core.tables import Rows
from distill.language.evaluate import over
from distill.language.spans import Span, runs


@dataclass(frozen=True)
class Asked:
    """A text in words, the words of it that are asked about, and the spans of that, where they are known."""

    words: Sequence[str]
    about: Sequence[Span]
    spans: Sequence[Span] = ()
    judged: Span | None = None
    """Words that may be in a span at all; every one where None."""


Encode = Callable[[Sequence[str]], tuple[list[int], list[int | None]]]
"""Words -> token ids, and of each token the word that it is of; None for tokens of no word."""


def encoder_of(tokenizer: Any) -> Encode:
    """Of a fast tokenizer of transformers."""

    def encode(words: Sequence[str]) -> tuple[list[int], list[int | None]]:
        found = tokenizer(list(words), is_split_into_words=True)
        return found["input_ids"], found.word_ids()

    return encode


class SpanTagger(nn.Module):
    """An encoder whose states are read beside the mean state of the words that are asked about.

    P(word is in a span) = sigmoid(w . [h_word ; h_about] + b), given as two logits (0, score), whose cross-entropy is
    the binary one.
    """

    def __init__(self, encoder: Mapping[str, Any], pad: int = 0) -> None:
        """`encoder`: a config of transformers as a mapping. Weights are random: see `of`."""
        super().__init__()
        config = AutoConfig.for_model(**dict(encoder))
        self.settings = {"encoder": json.loads(config.to_json_string(use_diff=False)), "pad": pad}
        self.encoder: Any = AutoModel.from_config(config)
        self.head = nn.Linear(2 * config.hidden_size, 1)
        self.pad = pad

    @classmethod
    def of(cls, model: Any, pad: int) -> "SpanTagger":
        """With the weights of an encoder."""
        tagger = cls(json.loads(model.config.to_json_string(use_diff=False)), pad)
        tagger.encoder.load_state_dict(model.state_dict())
        return tagger

    def forward(self, tokens: Tensor, about: Tensor) -> Tensor:
        """`[B, T, 2]` for `tokens` `[B, T]` and booleans `about` `[B, T]`, of which each row has one."""
        states = self.encoder(input_ids=tokens, attention_mask=(tokens != self.pad).long()).last_hidden_state
        shares = about.to(states.dtype) / about.sum(1, keepdim=True).clamp(min=1)
        asked = (shares[..., None] * states).sum(1, keepdim=True).expand_as(states)
        score = self.head(torch.cat([states, asked], -1))
        return torch.cat([torch.zeros_like(score), score], -1)


def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits `[B, T, 2]`."""
    return module(batch["tokens"], batch["about"])


def tagged_rows(asked: Sequence[Asked], encode: Encode, length: int, pad: int = 0) -> Rows:
    """`tokens`, `about`, `tag` (1 in a span), `mask` (the first token of each word that is judged) and `word`, each
    `[N, length]`.

    Raises:
      DistillError: a text that does not fit, or what is asked about is not in it.
    """
    shape = (len(asked), length)
    tokens, word = np.full(shape, pad, np.int64), np.full(shape, -1, np.int64)
    about, tag, mask = np.zeros(shape, bool), np.zeros(shape, np.int64), np.zeros(shape, bool)
    for row, each in enumerate(asked):
        ids, places = encode(each.words)
        if len(ids) > length:
            raise DistillError(f"text {row} has {len(ids)} tokens, of {length}")
        begin, end = each.judged or (0, len(each.words))
        for i, (token, at) in enumerate(zip(ids, places, strict=True)):
            tokens[row, i], first = token, at is not None and at not in places[:i]
            if at is not None:
                word[row, i] = at
                about[row, i] = any(a <= at < b for a, b in each.about)
                tag[row, i] = any(a <= at < b for a, b in each.spans)
                mask[row, i] = first and begin <= at < end
        if not about[row].any():
            raise DistillError(f"text {row} has no word of what is asked about")
    return {"tokens": tokens, "about": about, "tag": tag, "mask": mask, "word": word}


def spans_of(module: nn.Module, rows: Rows, size: int = 256) -> list[list[Span]]:
    """The spans in words that a tagger finds in each row: neighbouring words whose first token is likelier in one."""
    chosen = over(module, rows, lambda batch: (read(module, batch)[..., 1] > 0) & batch["mask"], size).numpy()
    found: list[list[Span]] = []
    for flags, words in zip(chosen, rows["word"], strict=True):
        whole = np.zeros(int(words.max()) + 1, bool)
        whole[words[flags]] = True
        found.append(runs(whole))
    return found
