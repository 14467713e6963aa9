"""Tokenizers: characters, bytes, words and byte-level BPE trained on a run's own text, or one that was published."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from distill.core.errors import DistillError, first_line
from distill.language.places import check_place

PAD, END, UNKNOWN = "<pad>", "<end>", "<unk>"
SPECIAL = (PAD, END, UNKNOWN)


class Tokens:
    """A tokenizer with the ids of its padding and its end."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, pad: str = PAD, end: str = END) -> None:
        """`pad` and `end` name tokens of the vocabulary; raises `DistillError` where they are not in it."""
        self.tokenizer = tokenizer
        ids = [tokenizer.token_to_id(token) for token in (pad, end)]
        for token, place in zip((pad, end), ids, strict=True):
            if place is None:
                raise DistillError(f"the tokenizer has no token '{token}'")
        self.pad, self.end = (int(place) for place in ids)  # type: ignore[arg-type]
        self._left_out = {tokenizer.token_to_id(token) for token in (pad, end, UNKNOWN)}

    @property
    def size(self) -> int:
        """Number of tokens, special ones with them. A model's vocabulary may be padded beyond it."""
        return self.tokenizer.get_vocab_size()

    def encode(self, text: str) -> list[int]:
        """Token ids, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        return [found.ids for found in self.tokenizer.encode_batch(list(texts), add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; special tokens are left out."""
        kept = [int(i) for i in ids if int(i) not in self._left_out]  # lists of words do not say which are special
        return self.tokenizer.decode(kept, skip_special_tokens=True)

    def fingerprint(self) -> str:
        """Hexadecimal text, equal for equal tokenizers."""
        return hashlib.sha256(self.tokenizer.to_str().encode()).hexdigest()

    def save(self, path: Path) -> None:
        """Writes `tokenizer.json` as the tokenizers library reads it."""
        self.tokenizer.save(str(path))


def characters(texts: Iterable[str]) -> Tokens:
    """One token for each character of the texts, in order of their code points."""
    return _listed(sorted(set().union(*map(set, texts))), pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated"))


def words(texts: Iterable[str]) -> Tokens:
    """One token for each word between white space."""
    known = sorted({word for text in texts for word in text.split()})
    return _listed(known, pre_tokenizers.WhitespaceSplit(), joined=False)


def byte_level() -> Tokens:
    """One token for each of the 256 bytes: any text, no training."""
    return bpe([], len(SPECIAL) + 256)


def bpe(texts: Iterable[str], size: int) -> Tokens:
    """Byte-level byte-pair encoding trained on the texts; `size` tokens at most, special ones and bytes with them."""
    if size < len(SPECIAL) + 256:
        raise DistillError(f"a byte-level vocabulary has at least {len(SPECIAL) + 256} tokens, got {size}")
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return Tokens(tokenizer)


def published(name: str) -> Tokens:
    """The tokenizer of a published model: a name (downloads it) or a folder; without the truncation and padding that
    its file may keep from an earlier use.

    Raises:
      DistillError: it cannot be loaded, or has no end token.
    """
    from transformers import AutoTokenizer

    check_place(name)
    try:
        loaded = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise DistillError(f"the tokenizer '{name}' cannot be loaded: {first_line(error)}") from error
    if loaded.eos_token is None or not hasattr(loaded, "backend_tokenizer"):
        raise DistillError(f"the tokenizer '{name}' has no end token or no fast form")
    loaded.backend_tokenizer.no_truncation()
    loaded.backend_tokenizer.no_padding()
    return Tokens(loaded.backend_tokenizer, loaded.pad_token or loaded.eos_token, loaded.eos_token)


def require_same(teacher: Tokens, student: Tokens) -> None:
    """Raises `DistillError` unless both split text alike: token distributions cannot be compared otherwise."""
    if teacher.fingerprint() != student.fingerprint():
        known = [tokens.tokenizer.get_vocab(with_added_tokens=True) for tokens in (teacher, student)]
        apart = min(known[0].items() ^ known[1].items(), key=lambda token: (token[1], token[0]), default=None)
        what = f"'{apart[0]}' is not the same token in both" if apart else "equal tokens, of texts split otherwise"
        raise DistillError(
            f"teacher and student have different tokenizers ({teacher.size} and {student.size} tokens; {what}): their "
            "token distributions are about different events; distil on the teacher's text instead"
        )


def _listed(known: Sequence[str], splitter: pre_tokenizers.PreTokenizer, joined: bool = True) -> Tokens:
    if not known:
        raise DistillError("a vocabulary needs at least one text that is not empty")
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *known])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = splitter
    if joined:
        tokenizer.decoder = decoders.Fuse()
    return Tokens(tokenizer)
