"""`barkour distill compressor`: a frozen model, a smaller one and tasks with demonstrations into a compressor's folder.

import distill.methods.mend.method    # makes its kind of model known to transformers

compressor = AutoModel.from_pretrained("runs/compressor")
vectors = compressor(demonstrations, seen)    # [1, m, width], what the frozen model reads in their place
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig

from distill.core.errors import DistillError
from distill.core.tables import Rows
from distill.language.encoding import Encoder
from distill.language.evaluate import answer_figures, answered, over
from distill.language.examples import (
    EMPTY,
    Text,
    add_files,
    fault_of,
    read_examples,
    reasons,
    require_different,
    rows_with,
)
from distill.language.labelled import chosen_rows
from distill.language.models import body, load, parameters, require_memory
from distill.language.own import Stage, Task, held_out_rows, require_room
from distill.language.own import distil as distil_own
from distill.language.own_options import CompressorOptions
from distill.language.places import loading
from distill.language.students import is_config, open_tokenizer
from distill.methods.mend.method import Compressor, after_demonstrations, after_vectors, losses, parts
from distill.methods.method import MethodOptions
from distill.results import OwnDistilled

LONG = "longer than --shown or --length"
FIELDS = ("demonstrations", "prompt", "completion")


def distil(options: CompressorOptions) -> OwnDistilled:
    """Distils as the options say and writes the compressor's folder. Raises `InputError` for what cannot be used."""
    return distil_own(options, prepare)


@dataclass
class Tasks:
    """Demonstrations, each with a query and its answer, as they were read."""

    rows: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Reason -> rows."""
    files: dict[str, str] = field(default_factory=dict[str, str])


def read_tasks(paths: Sequence[Path]) -> Tasks:
    """Rows with `demonstrations` (a text, or a list of them, one a line), `prompt` and `completion`.

    Raises:
      DistillError: nothing there, other fields, or no row that can be used.
    """
    found = Tasks()
    for _, row in rows_with(paths, FIELDS, found.files):
        shown, *others = (row[name] for name in FIELDS)
        texts = [*(shown if isinstance(shown, list | tuple) else [shown]), *others]
        if fault := fault_of(*texts) or EMPTY * (len(texts) < len(FIELDS)):
            found.dropped[fault] += 1
        else:
            found.rows.append(("".join(f"{each}\n" for each in texts[:-2]), texts[-2], texts[-1]))
    if not found.rows:
        where, why = ", ".join(map(str, paths)), reasons(found.dropped)
        raise DistillError(f"{where}: no row has demonstrations, a prompt and a completion ({why})")
    return found


@dataclass(frozen=True)
class Laid:
    """What a compressor and a frozen model read in one row."""

    shown: Sequence[int]
    tokens: Sequence[int]
    answer: int
    """Place of the answer's first token among `tokens`."""


def laid_out(every: Sequence[Laid], shown: int, length: int, pad: int) -> dict[str, np.ndarray]:
    """Rows as `distill.methods.mend.method.parts` wants them, of `shown` and `length` tokens."""
    count = len(every)
    text, seen = np.full((count, shown), pad, np.int64), np.zeros((count, shown), bool)
    tokens, mask = np.full((count, length + 1), pad, np.int64), np.zeros((count, 2, length + 1), bool)
    for row, one in enumerate(every):
        end = len(one.tokens)
        text[row, : len(one.shown)], seen[row, : len(one.shown)] = one.shown, True
        tokens[row, :end] = one.tokens
        mask[row, 0, one.answer : end], mask[row, 1, :end] = True, True
    return {"shown": text, "seen": seen, "tokens": tokens, "target": tokens[:, 1:], "mask": mask[:, :, 1:]}


def compressor_of(source: str, vectors: int, width: int, seed: int) -> Compressor:
    """One whose language model is that of a folder or name, or random from a config. Raises `DistillError` where it
    cannot be had."""
    with loading("student", source):
        torch.manual_seed(seed)
        if is_config(source):
            return Compressor.like(AutoConfig.from_pretrained(source).to_dict(), vectors, width).eval()
        return Compressor.around(body(source), vectors, width).eval()


def prepare(options: CompressorOptions) -> Task:
    """Reads models and data, and checks that they fit together. Raises `DistillError` where they do not."""
    for name, value in (("teacher", options.teacher), ("student", options.student), ("data", options.data)):
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different([*options.data, *options.general])
    told = read_tasks(options.data)
    tokenizer = open_tokenizer(options.tokenizer or options.teacher)
    frozen = load(options.teacher, dtype=torch.float32).requires_grad_(False)
    student = compressor_of(options.student, options.vectors, frozen.get_input_embeddings().embedding_dim, options.seed)
    require_room(frozen, options.shown + options.length, "--shown and --length together")
    require_room(student.model, options.shown + options.vectors, "--shown and --vectors together")
    for who, model in (("teacher", frozen), ("student", student.model)):
        if model.get_input_embeddings().num_embeddings < len(tokenizer):
            raise DistillError(f"the {who} knows fewer tokens than the tokenizer, which has {len(tokenizer)}")
    if torch.cuda.is_available():
        frozen.to("cuda")
    encoder = Encoder(tokenizer, options.length)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    every: list[Laid] = []
    for shown, prompt, completion in told.rows:
        asked = ids(prompt)
        one = Laid([*encoder.start, *ids(shown)], [*asked, *ids(completion), encoder.end], len(asked))
        if len(one.shown) > options.shown or len(one.tokens) > options.length + 1:
            told.dropped[LONG] += 1
        else:
            every.append(one)
    if not every:
        raise DistillError(f"every row is {LONG}, {options.shown} and {options.length} tokens")

    def table(chosen: Sequence[Laid]) -> tuple[Rows, Rows]:
        rows = laid_out(chosen, options.shown, options.length, tokenizer.pad_token_id)
        held = held_out_rows(len(chosen), options.held_out, options.seed)
        return chosen_rows(rows, ~held), chosen_rows(rows, held)

    tasks = table(every)
    settings = MethodOptions(temperature=options.temperature)

    def measured(rows: Rows, by: str = "vectors") -> dict[str, float]:
        return _measured(student, frozen, rows, by)

    def stage(name: str, rows: tuple[Rows, Rows], labels: float, teacher: float) -> Stage:
        def judge() -> dict[str, float]:
            found = measured(rows[1])
            return {"golden": -labels * found["nats"] - teacher * found["divergence"], **found}

        given = parts(student, frozen, rows[0], losses(settings, labels, teacher), rows[1])
        return Stage(given, len(rows[0]["tokens"]), judge, name)

    plain: tuple[Rows, Rows] | None = None
    if options.general:
        plain = table(list(_pieces(options, encoder, told.files)))

    def stages() -> Iterator[Stage]:
        if plain is not None:
            yield stage("text", plain, 0.0, 1.0)
        yield stage("tasks", tasks, 1.0, options.weight)

    def figures() -> dict[str, float]:
        return measured(tasks[1])

    def save(folder: Path) -> dict[str, Any]:
        student.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        bounds = {name: measured(tasks[1], name) for name in ("demonstrations", "nothing")}
        return {"frozen": {f"after {name}": values for name, values in bounds.items()}}

    data = {
        "rows": len(every), "trained": len(tasks[0]["tokens"]), "held_out": len(tasks[1]["tokens"]),
        "pieces": 0 if plain is None else len(plain[0]["tokens"]), "dropped": dict(told.dropped), "files": told.files,
    }  # fmt: skip
    about = {
        "method": "mend", "teacher": options.teacher, "student": options.student,
        "settings": {"vectors": options.vectors, "temperature": options.temperature, "weight": options.weight},
        "parameters": {"teacher": parameters(frozen), "student": parameters(student)}, "data": data,
        "measured_on": "held-out rows",
    }  # fmt: skip
    require_memory(frozen, options.batch, tasks[0]["tokens"].shape[1])
    return Task(about, student, stages(), figures, save)


def _pieces(options: CompressorOptions, encoder: Encoder, files: dict[str, str]) -> Iterator[Laid]:
    """Plain text in pieces, each cut at four fifths: the beginning stands for demonstrations, the rest for a query."""
    rest = min(options.shown // 4, options.length)
    if rest < 2:
        raise DistillError(f"--general needs --shown of 8 tokens at least, got {options.shown}")
    found = 0
    for path in options.general:
        read = read_examples(path)
        add_files(files, read.files, path.name)
        for each in read.examples:
            if isinstance(each, Text):
                tokens = encoder.tokenizer(each.text, add_special_tokens=False)["input_ids"]
                for first in range(0, len(tokens), 5 * rest):
                    piece = tokens[first : first + 5 * rest]
                    cut = len(piece) * 4 // 5
                    if len(piece) - cut >= 2:
                        found += 1
                        yield Laid(piece[:cut], piece[cut:], 0)
    if found < 2:
        raise DistillError(f"{', '.join(map(str, options.general))}: there is not enough plain text")


def _measured(student: Compressor, frozen: Any, rows: Rows, by: str) -> dict[str, float]:
    """Of the frozen model after the vectors, the demonstrations or nothing, as `answer_figures`; the divergence is that
    of query and answer from what it says after the demonstrations."""

    def asked(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        whole = after_demonstrations(frozen, batch)
        if by == "vectors":
            logits = after_vectors(frozen, student(batch["shown"], batch["seen"]), batch["tokens"])
        elif by == "nothing":
            logits = frozen(input_ids=batch["tokens"][:, :-1], use_cache=False).logits
        else:
            logits = whole
        return answered(logits, whole, batch["target"], batch["mask"][:, 0], batch["mask"][:, 1])

    return answer_figures(over(student, rows, asked))
