"""`barkour distill strategies`: a student that stays as it is, a teacher and a judge into a folder with a library.

student = AutoModelForCausalLM.from_pretrained("runs/strategies")      # as it was
library = Library.load(Path("runs/strategies/library.jsonl"))
library.strategies(["my parcel is late"])                              # for its system message, at every turn
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.core.checkpoints import write_json
from distill.core.errors import DistillError
from distill.language.begun import OPTIONS
from distill.language.endpoint.answers import AnswerCache
from distill.language.endpoint.client import Endpoint, EndpointOptions, served
from distill.language.examples import Text, add_files, read_examples, require_different
from distill.language.models import load, parameters
from distill.language.own import begun, carried, finished, held_out_rows
from distill.language.own_options import StrategiesOptions
from distill.language.students import open_tokenizer
from distill.methods.strategy_teaching.method import (
    Coaching,
    Library,
    Message,
    Models,
    Speak,
    State,
    endpoint_speaker,
    speaker,
    teach,
)
from distill.results import OwnDistilled
from policies.learning import runs

LIBRARY = "library.jsonl"
PATIENCE = 10.0
"""Seconds that a server may take to say that it is there."""
FIGURE = "as good as the teacher"


def distil(options: StrategiesOptions) -> OwnDistilled:
    """Teaches as the options say and writes the folder. Raises `InputError` for what cannot be used."""
    return carried(options, lambda: prepare(options).about, lambda folder: _run(options, folder))


@dataclass(frozen=True)
class Prepared:
    """What a run is made of, read and checked."""

    about: Mapping[str, Any]
    student: Any
    tokenizer: Any
    learned: Sequence[str]
    """Personas whose dialogues are learned from."""
    held_out: Sequence[str]
    library: Library


def prepare(options: StrategiesOptions) -> Prepared:
    """Reads student, personas and library. Raises `DistillError` where they cannot be used."""
    for name in ("student", "teacher", "judge", "data"):
        if not getattr(options, name):
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different(options.data)
    library = Library() if options.library is None else Library.load(options.library)
    read = [(path, read_examples(path)) for path in options.data]
    personas = [each.text for _, found in read for each in found.examples if isinstance(each, Text)]
    others = sum(not isinstance(each, Text) for _, found in read for each in found.examples)
    held = held_out_rows(len(personas), options.held_out, options.seed)
    student: Any = load(options.student, dtype=torch.float32)
    tokenizer = open_tokenizer(options.tokenizer or options.student)
    if torch.cuda.is_available():
        student.to("cuda")
    files: dict[str, str] = {}
    for path, found in read:
        add_files(files, found.files, path.name)
    data = {
        "trained": int((~held).sum()), "held_out": int(held.sum()), "files": files,
        "dropped": {"no plain text": others} if others else {},
    }  # fmt: skip
    about = {
        "method": "strategy_teaching", "student": options.student, "teacher": options.teacher, "judge": options.judge,
        "settings": {name: getattr(options, name) for name in ("calls", "tries", "found", "novelty", "passes")},
        "parameters": {"student": parameters(student)}, "data": data, "measured_on": "held-out personas", "steps": 0,
    }  # fmt: skip
    learned, held_out = ([personas[place] for place in np.flatnonzero(which)] for which in (~held, held))
    return Prepared(about, student, tokenizer, learned, held_out, library)


def voices(options: StrategiesOptions, prepared: Prepared, folder: Path) -> dict[str, Speak]:
    """How student, teacher and judge are asked. Raises `DistillError` for models that cannot be had."""
    found = {"student": speaker(prepared.student, prepared.tokenizer, options.new_tokens)}
    for role, name, url in (
        ("teacher", options.teacher, options.teacher_url), ("judge", options.judge, options.judge_url),
    ):  # fmt: skip
        if url is not None:
            about = EndpointOptions(
                name, url, options.key, temperature=0.0, max_tokens=options.new_tokens, unfinished="keep"
            )
            served(replace(about, timeout_s=PATIENCE))
            found[role] = endpoint_speaker(Endpoint(about, folder / role))
            continue
        model: Any = load(name, dtype=torch.float32)
        if torch.cuda.is_available():
            model.to("cuda")
        found[role] = speaker(model, open_tokenizer(name), options.new_tokens)
    return found


def recorded(role: str, speak: Speak, answers: AnswerCache) -> Speak:
    """Asks what was never asked before: a run that goes on hears its own beginning again, from disk."""

    def asked(messages: Sequence[Message]) -> str:
        request = {"role": role, "messages": [dict(message) for message in messages]}
        known = answers.get(request)
        if known is None:
            known = {"text": speak(messages)}
            answers.put(request, known)
        return str(known["text"])

    return asked


def _run(options: StrategiesOptions, folder: Path) -> dict[str, Any]:
    asked, known = begun(options, folder)
    prepared = prepare(options)
    answers = AnswerCache(folder / "answers")
    heard = {role: recorded(role, speak, answers) for role, speak in voices(options, prepared, folder).items()}
    models = Models(**heard, turns=options.turns, policy=options.policy, found=options.found)
    today = date.today().isoformat() if known is None else str(known.start["date"])
    if known is None:
        runs.say_begun(options.resume, options.out)
        write_json(folder / OPTIONS, {"options": asked, "start": {"date": today}})
    found: dict[str, Any] = {**prepared.about, "out": str(options.out), "interrupted": False}
    coaching = Coaching(options.calls, options.tries, options.found, options.novelty, options.passes)
    try:
        states = [state for persona in prepared.held_out for state in models.hold(models, Library(), persona)]
        start = _figures(models, prepared.library, states, options.found)
        dialogues = models.dialogues(prepared.learned)
        library, cost = teach(dialogues, models, models, coaching, prepared.library, options.teacher, today)
        end = _figures(models, library, states, options.found)
    except KeyboardInterrupt:
        return {**found, "interrupted": True}
    found |= {"figures": {"start": start, "end": end}, "taught": cost, "lessons": len(library.lessons)}
    prepared.student.save_pretrained(options.out)
    prepared.tokenizer.save_pretrained(options.out)
    library.save(options.out / LIBRARY)
    finished(options, found)
    return found


def _figures(models: Models, library: Library, states: Sequence[State], count: int) -> dict[str, float]:
    """The share of states at which the judge finds the student, with a library, as good as the teacher."""
    said = models.answers(states, library.strategies([state.text for state in states], count))
    good = [models.as_good(state, text, models.answer(state)) for state, text in zip(states, said, strict=True)]
    return {FIGURE: sum(good) / len(good)}
