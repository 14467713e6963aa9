"""A user's own rows with images: a prompt and its answer, or messages, as tokens among which an image has its own.

| form of a row | |
|---|---|
| `image`, `prompt`, `answer` | `image` is a file, relative to the data's folder; without one the row is text alone |
| `messages` | `{"type": "image", "image": FILE}` in a turn's parts, or `image` beside them; answers are learned |

Beside both may stand `rejected`: a worse answer than the last one. A row has one image at most.
"""

import hashlib
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill.core.errors import DistillError, first_line
from distill.core.reading import check_regular
from distill.language.encoding import REWRITTEN, TOO_LONG, Encoded, Encoder
from distill.language.examples import EMPTY, HUB, NO_ANSWER, NOT_TEXT, Chat, add_files, each_row, fault_of, reasons

FORMS = "image, prompt, answer | image, messages"
SEVERAL, STRAY = "more than one image", "the word for an image stands where there is none"
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ':\\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ 'IMAGE\\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ eos_token + '\\n' if message['role'] == 'assistant' else '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant:\\n' }}{% endif %}"
)
"""For processors without a chat template; `IMAGE` is the word for an image."""
NONE = -1
"""The number of no image."""
KEPT = 1 << 29
"""Bytes of prepared images that are kept in memory."""


class Pictures:
    """Image files by their numbers, each prepared for the models when it is asked for."""

    def __init__(self, processor: Any) -> None:
        """`processor` is an image processor of transformers that makes one size of all images."""
        self.processor = processor
        self.paths: list[Path] = []
        self._numbers: dict[Path, int] = {}
        self._kept: OrderedDict[int, Tensor] = OrderedDict()

    def add(self, path: Path) -> int:
        """Its number, the same for the same file."""
        path = path.absolute()
        if path not in self._numbers:
            self._numbers[path] = len(self.paths)
            self.paths.append(path)
        return self._numbers[path]

    def check(self, first: int = 0) -> str:
        """The SHA-256 of all image files from the `first` on, each of which is decoded.

        Raises:
          DistillError: one is missing or damaged.
        """
        digest = hashlib.sha256()
        for path in self.paths[first:]:
            _opened(path)
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def prepared(self, number: int) -> Tensor:
        """Pixels `[3, H, W]`. Raises `DistillError` for what cannot be read."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        pixels = self.pixels(_opened(self.paths[number]))
        self._kept[number] = pixels
        while pixels.nbytes * len(self._kept) > KEPT:  # all are of one size
            self._kept.popitem(last=False)
        return pixels

    def pixels(self, image: Image.Image) -> Tensor:
        """Of an image, `[3, H, W]`. Raises `DistillError` where the processor makes none of it."""
        try:
            found = self.processor(images=[image], return_tensors="pt")["pixel_values"]
        except Exception as error:  # what processors raise is their own affair
            reason = first_line(error)
            raise DistillError(f"the processor cannot prepare an image: {reason}") from error
        if not isinstance(found, Tensor) or found.ndim != 4 or len(found) != 1:
            raise DistillError("the processor cuts an image into parts: only models that see it as a whole learn here")
        return found[0].float()

    def __call__(self, numbers: Tensor) -> Tensor:
        """Pixels `[B, 3, H, W]` of numbers `[B]`, on their device; zeros where there is none."""
        found = [self.prepared(number) if number != NONE else None for number in numbers.tolist()]
        some = next((pixels for pixels in found if pixels is not None), torch.zeros(3, 1, 1))
        blank = torch.zeros_like(some)
        return torch.stack([blank if pixels is None else pixels for pixels in found]).to(numbers.device)


def _opened(path: Path) -> Image.Image:
    try:
        check_regular(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on how files were written
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                if image.format == "EPS":
                    raise DistillError("it is PostScript, a program")
                return image.convert("RGB")  # decodes all of it
    except FileNotFoundError as error:
        raise DistillError(f"the image {path} does not exist") from error
    except Exception as error:  # damaged files raise whatever their readers do
        reason = first_line(error)
        raise DistillError(f"the image {path} cannot be read: {reason}") from error


@dataclass(frozen=True)
class Pictured:
    """One row: turns whose contents are lists of parts, and the number of their image."""

    turns: tuple[Mapping[str, Any], ...]
    image: int
    rejected: str | None = None


@dataclass
class PicturedRows:
    """Rows as they were read."""

    rows: list[Pictured] = field(default_factory=list[Pictured])
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Reason -> rows."""
    files: dict[str, str] = field(default_factory=dict[str, str])
    """Name -> SHA-256."""


def read_pictured(paths: Sequence[Path], pictures: Pictures, word: str) -> PicturedRows:
    """Rows of files or folders; `word` stands for an image in texts that say where it is.

    Raises:
      DistillError: nothing there, other fields, an image that is missing or damaged, or no row that can be used.
    """
    found, before = PicturedRows(), len(pictures.paths)
    for path in paths:
        digests: dict[str, str] = {}
        base = path if path.is_dir() else path.parent
        for where, row in each_row(path, digests):
            one = _row(row, where, None if str(path).startswith(HUB) else base, pictures, word)
            if isinstance(one, str):
                found.dropped[one] += 1
            else:
                found.rows.append(one)
        add_files(found.files, digests, path.name)
    if not found.rows:
        raise DistillError(f"{', '.join(map(str, paths))}: no row can be used ({reasons(found.dropped)})")
    digest = pictures.check(before)
    if len(pictures.paths) > before:
        found.files[f"{paths[0].name}: {len(pictures.paths) - before} images"] = digest
    return found


def _row(row: Any, where: str, base: Path | None, pictures: Pictures, word: str) -> Pictured | str:
    """The row, or why it cannot be used."""
    if not isinstance(row, Mapping) or not ("messages" in row or {"prompt", "answer"} <= set(row)):
        there = ", ".join(map(str, row)) if isinstance(row, Mapping) else type(row).__name__
        raise DistillError(f"{where}: the fields are {there or 'none'}; wanted are {FORMS}")
    if "messages" in row:
        turns: Any = row["messages"]
    else:
        turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["answer"]}]
    if not isinstance(turns, list) or not turns:
        return EMPTY
    images = [] if row.get("image") is None else [row["image"]]
    made: list[Mapping[str, Any]] = []
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("role"), str):
            return NOT_TEXT
        parts = _parts(turn.get("content"), images, word)
        if isinstance(parts, str):
            return parts
        made.append({"role": turn["role"], "content": parts})
    rejected = row.get("rejected")
    if fault := _fault(made, rejected, word):
        return fault
    places = sum(part["type"] == "image" for turn in made for part in turn["content"])
    if len(images) > 1 or places > 1:
        return SEVERAL
    if places and not images:
        return STRAY
    if images and not places:
        made[0] = {**made[0], "content": [{"type": "image"}, *made[0]["content"]]}
    return Pictured(tuple(made), pictures.add(_file(images[0], where, base)) if images else NONE, rejected)


def _parts(content: Any, images: list[Any], word: str) -> list[dict[str, str]] | str:
    """A turn's content as parts without their images, which are put to the others; or why there are none."""
    if content is None:
        return EMPTY
    found: list[dict[str, str]] = []
    if not isinstance(content, str | list):
        return NOT_TEXT
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            images += [part[name] for name in ("image", "path", "url") if part.get(name) is not None][:1]
            found.append({"type": "image"})
        elif kind == "text" and isinstance(part.get("text"), str):
            for place, text in enumerate(part["text"].split(word)):
                if place:
                    found.append({"type": "image"})
                text = text.removeprefix("\n") if place else text  # templates put their own line after an image
                if text:
                    found.append({"type": "text", "text": text})
        else:
            return NOT_TEXT
    return found


def _fault(turns: Sequence[Mapping[str, Any]], rejected: Any, word: str) -> str:
    answers = [turn for turn in turns if turn["role"] == "assistant"]
    if not answers or (rejected is not None and turns[-1]["role"] != "assistant"):
        return NO_ANSWER
    for turn in answers:
        if any(part["type"] == "image" for part in turn["content"]):
            return STRAY
        if not "".join(part["text"] for part in turn["content"]).strip():
            return EMPTY
    texts = [part.get("text", "") for turn in turns for part in turn["content"]] + [turn["role"] for turn in turns]
    if NOT_TEXT in map(fault_of, texts):
        return NOT_TEXT
    if rejected is not None:
        return fault_of(rejected) or STRAY * (word in rejected)
    return ""


def _file(image: Any, where: str, base: Path | None) -> Path:
    if not isinstance(image, str) or not image or base is None or "://" in image or "\0" in image:
        raise DistillError(f"{where}: an image is a file here, named by its path, got {str(image)[:60]!r}")
    return base / image


class PicturedEncoder(Encoder):
    """Rows as tokens, among which an image has as many of its own as it has patches."""

    def __init__(self, tokenizer: Any, length: int, word: str, patches: int) -> None:
        """`tokenizer` has the chat template that is used, or is given one; `word` stands for an image.

        Raises:
          DistillError: an image leaves no room for an answer, or as `Encoder`.
        """
        super().__init__(tokenizer, length)
        if patches + 2 > length:
            raise DistillError(f"an image is {patches} tokens, and --length {length} leaves no room for an answer")
        if not tokenizer.chat_template:
            tokenizer.chat_template = TEMPLATE.replace("IMAGE", word)
        self.word, self.patches = word, patches
        self.token = tokenizer.get_vocab()[word]
        said = self._render(_one("word"), 1)
        self.as_parts = said is not None and "word" in said and "'text'" not in said
        """Whether the template takes lists of parts, as those of models that see do; others take texts."""

    def rows(self, row: Pictured, rejected: bool = False) -> list[Encoded]:
        """None where they do not fit; the worse answer in place of the last one with `rejected`."""
        turns = [*row.turns]
        if rejected:
            turns[-1] = {**turns[-1], "content": [{"type": "text", "text": row.rejected}]}
        if not self.as_parts:
            turns = [{**turn, "content": "".join(map(self._text, turn["content"]))} for turn in turns]
        wanted = self.patches if row.image != NONE else 0
        found = self.encode(Chat(tuple(turns)))
        kept = [each for each in found if list(each.tokens).count(self.token) == wanted]
        if found and not kept:
            self.dropped[REWRITTEN if len(found[0].tokens) <= self.length else TOO_LONG] += 1
        return kept

    def _text(self, part: Mapping[str, str]) -> str:
        return f"{self.word}\n" if part["type"] == "image" else part["text"]

    def _render(self, example: Chat, turns: int, asks: bool = False) -> str | None:
        said = super()._render(example, turns, asks)  # None where a template for texts is given parts
        return None if said is None else said.replace(self.word, self.word * self.patches)


def _one(text: str) -> Chat:
    return Chat(({"role": "user", "content": [{"type": "text", "text": text}]},))


@dataclass
class Laid:
    """Rows of one length, the arrays that methods make theirs of."""

    tokens: np.ndarray
    """`[N, T + 1]`, and `[N, 2, T + 1]` of pairs, the better answer first."""
    responses: np.ndarray
    """Which tokens are of a response, of that shape."""
    images: np.ndarray
    """Numbers `[N]`."""
    rows: np.ndarray
    """Which of the rows that were read each is of, `[N]`."""

    def __len__(self) -> int:
        return len(self.tokens)


def laid_out(rows: Sequence[Pictured], encoder: PicturedEncoder, pad: int) -> Laid:
    """Each row's turns with every answer learned. Raises `DistillError` where none fits."""
    found = [([each], row.image, place) for place, row in enumerate(rows) for each in encoder.rows(row)]
    return _laid(found, encoder, pad)


def laid_pairs(rows: Sequence[Pictured], encoder: PicturedEncoder, pad: int) -> Laid:
    """Two answers to the same, of rows with a `rejected` one; the last answer alone is a response."""
    found: list[tuple[list[Encoded], int, int]] = []
    for place, row in enumerate(rows):
        if row.rejected is not None:
            both = [encoder.rows(row), encoder.rows(row, rejected=True)]
            if all(both):
                found.append(([_last(each[-1]) for each in both], row.image, place))
    return _laid(found, encoder, pad, 2)


def _last(row: Encoded) -> Encoded:
    """With its last answer alone."""
    learned = np.array(row.learned, bool)
    end = int(np.flatnonzero(learned)[-1]) + 1
    begin = int(np.flatnonzero(~learned[:end])[-1]) + 1
    return Encoded(row.tokens, [begin <= place < end for place in range(len(learned))])


def _laid(
    found: Sequence[tuple[Sequence[Encoded], int, int]], encoder: PicturedEncoder, pad: int, views: int = 1
) -> Laid:
    if not found:
        raise DistillError(f"no row fits ({reasons(encoder.dropped)}): see --length, {encoder.length} tokens")
    longest = max(len(each.tokens) for both, *_ in found for each in both)
    tokens = np.full((len(found), views, longest), pad, np.int64)
    responses = np.zeros(tokens.shape, bool)
    for place, (both, *_) in enumerate(found):
        for view, each in enumerate(both):
            end = len(each.tokens)
            tokens[place, view, :end], responses[place, view, :end] = each.tokens, each.learned
    shape = (len(found), longest) if views == 1 else tokens.shape
    numbers, places = np.array([each[1:] for each in found], np.int64).T
    return Laid(tokens.reshape(shape), responses.reshape(shape), numbers, places)


def held_out_groups(images: np.ndarray, choose: Callable[[int], np.ndarray]) -> np.ndarray:
    """Which rows are held out, booleans `[N]`: images with all of their rows, and rows of text alone each for itself.

    `choose(count)` says which of so many groups.
    """
    groups = np.where(images == NONE, -1 - np.arange(len(images)), images)
    _, which = np.unique(groups, return_inverse=True)
    return choose(int(which.max()) + 1)[which]
