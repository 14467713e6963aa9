"""`barkour distill tagger`: an encoder and a labelling model's answers of one's own into a tagger's folder.

from distill.language.tagger import Tagger

tagger = Tagger("runs/tagger")
tagger("Aspirin gave him a rash and nausea.", "aspirin")      # ['rash', 'nausea']
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from distill.core.errors import DistillError
from distill.core.tables import Rows
from distill.language.evaluate import over
from distill.language.examples import EMPTY, NOT_TEXT, add_files, fault_of, reasons, require_different, rows_with
from distill.language.labelled import Reader, chosen_rows
from distill.language.models import body, parameters, require_memory
from distill.language.own import Stage, Task, held_out_rows, require_room
from distill.language.own import distil as distil_own
from distill.language.own_options import TaggerOptions
from distill.language.places import loading
from distill.language.span_tagger import Asked, SpanTagger, encoder_of, read, spans_of, tagged_rows
from distill.language.spans import NOT_FOUND, located, overlap, split
from distill.language.students import is_config
from distill.methods import kept
from distill.methods.ade_extraction.method import labelled, parts
from distill.results import OwnDistilled

LONG = "longer than --length"
FIELDS = ("text", "mentions", "answer")


def distil(options: TaggerOptions) -> OwnDistilled:
    """Distils as the options say and writes the tagger's folder. Raises `InputError` for what cannot be used."""
    return distil_own(options, prepare)


@dataclass
class Answers:
    """Rows as they were read."""

    asked: list[Asked] = field(default_factory=list[Asked])
    """One for each mention of each text."""
    texts: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Reason -> rows, mentions and parts of answers that are not learned from."""
    files: dict[str, str] = field(default_factory=dict[str, str])


def read_answers(paths: Sequence[Path], fields: tuple[str, str]) -> Answers:
    """Rows with `text`, `mentions` and `answer` of files or folders; `fields` are those of an answer's objects.

    Raises:
      DistillError: nothing there, other fields, or no mention that stands in its text.
    """
    found = Answers()
    for _, row in rows_with(paths, FIELDS, found.files):
        text, mentions, answer = (row[name] for name in FIELDS)
        listed = isinstance(mentions, list | tuple)
        if fault := fault_of(text, answer, *(mentions if listed else ())) or _no_list(mentions):
            found.dropped[fault] += 1
            continue
        words = split(text)
        places = [located(words, split(mention)) for mention in mentions]
        found.dropped[NOT_FOUND] += sum(not there for there in places)
        about = dict.fromkeys(there[0] for there in places if there)
        found.asked += labelled(words, [*about], answer, found.dropped, fields)
        found.texts += bool(about)
    found.dropped = +found.dropped  # reasons that there were
    if not found.asked:
        raise DistillError(f"{', '.join(map(str, paths))}: no mention stands in its text ({reasons(found.dropped)})")
    return found


def _no_list(value: Any) -> str:
    return "" if isinstance(value, list | tuple) else EMPTY if value is None else NOT_TEXT


def prepare(options: TaggerOptions) -> Task:
    """Reads model and data, and checks that they fit together. Raises `DistillError` where they do not."""
    for name, value in (("student", options.student), ("data", options.data)):
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different([*options.data, *(() if options.test is None else (options.test,))])
    fields = options.about, options.finds
    told = read_answers(options.data, fields)
    reader = Reader(options.tokenizer or options.student, options.length)
    if not getattr(reader.tokenizer, "is_fast", False):
        raise DistillError("a tokenizer without a fast form does not say which word a token is of")
    student = tagger_of(options.student, reader.pad, options.seed)
    require_room(student.encoder, options.length, "--length")
    encode = encoder_of(reader.tokenizer)

    def rows(answers: Answers) -> tuple[list[Asked], Rows]:
        short = [each for each in answers.asked if len(encode(each.words)[0]) <= options.length]
        if len(short) < len(answers.asked):
            answers.dropped[LONG] += len(answers.asked) - len(short)
        if not short:
            raise DistillError(f"every text is {LONG} {options.length}")
        return short, tagged_rows(short, encode, options.length, reader.pad)

    asked, every = rows(told)
    held = held_out_rows(len(asked), options.held_out, options.seed)
    trained, held_out = chosen_rows(every, ~held), chosen_rows(every, held)
    judged, judged_by = [each for each, out in zip(asked, held, strict=True) if out], held_out
    if options.test is not None:
        tested = read_answers([options.test], fields)
        judged, judged_by = rows(tested)
        add_files(told.files, tested.files)

    def judge() -> dict[str, float]:
        return {"golden": -_nats(student, held_out)}

    def figures() -> dict[str, float]:
        said = [{(place, span) for span in spans} for place, spans in enumerate(spans_of(student, judged_by))]
        truth = [{(place, span) for span in each.spans} for place, each in enumerate(judged)]
        strict, lenient = overlap(truth, said), overlap(truth, said, lenient=True)
        return {**strict, "f1_lenient": lenient["f1"]}

    def save(folder: Path) -> dict[str, Any]:
        kept.save(student, folder)
        reader.tokenizer.save_pretrained(folder)
        return {}

    data = {
        "texts": told.texts, "rows": len(asked), "trained": int((~held).sum()), "held_out": int(held.sum()),
        "dropped": dict(told.dropped), "files": told.files,
    }  # fmt: skip
    about = {
        "method": "ade_extraction", "student": options.student, "parameters": {"student": parameters(student)},
        "data": data, "measured_on": "held-out rows" if options.test is None else "test",
    }  # fmt: skip
    require_memory(student.encoder, options.batch, trained["tokens"].shape[1])
    stage = Stage(parts(student, trained, held_out), len(trained["tokens"]), judge)
    return Task(about, student, [stage], figures, save)


def _nats(student: SpanTagger, rows: Rows) -> float:
    """A word's tag, in nats."""

    def measure(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        nats = -read(student, batch).log_softmax(-1).gather(-1, batch["tag"][..., None])[..., 0]
        return nats[batch["mask"]]

    return float(over(student, rows, measure).mean())


def tagger_of(source: str, pad: int, seed: int) -> SpanTagger:
    """A tagger whose head is random, and whose encoder is that of a folder or name, or random from a config.

    Raises:
      DistillError: it cannot be had.
    """
    with loading("encoder", source):
        torch.manual_seed(seed)
        if is_config(source):
            config: Any = AutoConfig.from_pretrained(source)
            return SpanTagger(config.to_dict(), pad).eval()
        return SpanTagger.of(body(source), pad).eval()


class Tagger:
    """A tagger's folder, to be asked."""

    def __init__(self, folder: Path | str) -> None:
        """Raises `DistillError` for a folder that `barkour distill tagger` did not write."""
        model = kept.load(Path(folder))
        if not isinstance(model, SpanTagger):
            raise DistillError(f"{folder} holds a {type(model).__name__}, no tagger")
        self.model = model
        self.encode = encoder_of(AutoTokenizer.from_pretrained(folder))

    def __call__(self, text: str, mention: str) -> list[str]:
        """What is found for a mention, as words in the order of the text; nothing where the text does not name it.

        Raises:
          DistillError: a text that is longer than its encoder reads.
        """
        words = split(text)
        places = located(words, split(mention))
        if not places:
            return []
        length = len(self.encode(words)[0])
        require_room(self.model.encoder, length, "the text")
        rows = tagged_rows([Asked(words, places[:1])], self.encode, length, self.model.pad)
        return [" ".join(words[a:b]) for a, b in spans_of(self.model, rows)[0]]
