"""`barkour distill classifier`: teacher, student and labelled texts of one's own into a classifier's folder.

As `barkour distill language`, for models that name a text's class: `AutoModelForSequenceClassification` loads what
comes out. Teacher and student may split texts differently, as classes are what they have in common.
"""

import copy
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from distill.core.checkpoints import newest, plain, write_json
from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.loop import Distiller, load_best
from distill.core.objectives.base import WeightedSum
from distill.core.tables import Epochs, FixedDomain, Rows
from distill.language.begun import OPTIONS, begins, check_begun, read_begun
from distill.language.card import write_card
from distill.language.evaluate import accuracy, calibration_error, class_probabilities, label_nats
from distill.language.examples import Text, add_files, read_examples, require_different
from distill.language.inner import seen
from distill.language.labelled import (
    Reader,
    chosen_rows,
    classes_of,
    classifier_of,
    held_out_places,
    read,
    read_labelled,
    teacher_of,
)
from distill.language.models import Read, context_of, load, parameters
from distill.language.options import ClassifierOptions
from distill.language.places import load_silently, require_kept
from distill.language.rounds import in_rounds
from distill.language.student import ModelStudent, Next, dense
from distill.language.students import end_tokens, open_tokenizer
from distill.language.writing import answers
from distill.methods.method import (
    CLASSIFIERS,
    OPTION_NAMES,
    ClassMaterial,
    Method,
    MethodOptions,
    Pass,
    find,
    taught,
)
from distill.methods.pgkd.method import FewShot, Guided
from distill.results import ClassifierDistilled
from policies.learning import runs
from sim.errors import InputError
from sim.folders import makeable

SUMMARY, RUN = "summary.json", "run"
FREE = ("out", "resume", "dry_run", "checkpoint_minutes")
"""Options that do not decide a run's result."""
CUT = "cut at the greatest length"


@dataclass
class Run:
    """Everything that a run is made of, read and checked."""

    options: ClassifierOptions
    method: Method
    settings: MethodOptions
    student: Any
    teacher: Any
    teacher_read: Read
    reader: Reader
    classes: list[str]
    trained: Rows
    held_out: Rows
    test: Rows | None
    writer: FewShot | None
    passes: list[Pass]
    """Trainings one after the other, where the method has several."""
    steps: int
    data: dict[str, Any]

    @property
    def judged(self) -> tuple[str, Rows]:
        """What the figures are of."""
        return ("held-out rows", self.held_out) if self.test is None else ("test", self.test)

    def about(self) -> dict[str, Any]:
        """What is known before the first step, JSON-ready."""
        models = {"teacher": self.teacher, "student": self.student}
        passes = {one.name: round(one.share * self.steps) for one in self.passes}
        return {
            "method": self.method.name,
            "settings": {name: getattr(self.settings, name) for name in self.method.reads if name in NAMES},
            "teacher": self.options.teacher, "student": self.options.student, "classes": self.classes,
            "parameters": {name: parameters(model) for name, model in models.items() if model is not None},
            "data": self.data, "steps": self.steps, **({"passes": passes} if passes else {}), "interrupted": False,
        }  # fmt: skip


NAMES = tuple(name for name in OPTION_NAMES if name in ClassifierOptions.__dataclass_fields__)
"""Options of methods that classifiers have."""


def distil(options: ClassifierOptions) -> ClassifierDistilled:
    """Distils as the options say and writes the student's folder.

    Returns:
      `method`, `settings`, `teacher`, `student`, `parameters`, `classes`, `data`, `steps`, `measured_on`, `accuracy`
      and `calibration_error` (student at the `start` and at the `end`, `teacher`), `minutes`, `out`.

    Raises:
      InputError: options, models, data or a folder that cannot be used.
    """
    load_silently()
    try:
        if options.dry_run:
            makeable(options.out)
            return ClassifierDistilled.of({**prepare(options).about(), "dry_run": True})
        folder = options.out / RUN
        with begins(folder), runs.stopping():
            return ClassifierDistilled.of(_run(options, folder))
    except DistillError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot write to {options.out}: {error.strerror or error}") from error


def _run(options: ClassifierOptions, folder: Path) -> dict[str, Any]:
    asked = {name: value for name, value in plain(asdict(options)).items() if name not in FREE}
    known = read_begun(folder, "start", dict)
    check_begun(options.out, folder, known, newest(folder) is not None, options.resume, asked, {})
    run = prepare(options)
    found, (name, rows) = run.about(), run.judged
    start = known.start if known is not None else measured(run.student, read(), rows)
    if known is None:
        runs.say_begun(options.resume, options.out)
        write_json(folder / OPTIONS, {"options": asked, "start": start})
    figures = {"start": start}
    found |= {"out": str(options.out), "minutes": 0.0, "measured_on": name}
    place = folder
    for place, distiller in trainings(run, folder, options.resume):
        summary = distiller.run()
        found |= {"minutes": found["minutes"] + summary["minutes"], "interrupted": summary["interrupted"]}
        if summary["interrupted"]:
            return found
        if distiller.evaluate is not None:  # the latest passes know by what a student is judged
            best = load_best(place, distiller.student)
            found |= {"best_round": best["round"], "rounds": summary["rounds"], "measured": summary["measured"]}
    figures["end"] = measured(run.student, read(), rows)
    if run.teacher is not None:
        figures["teacher"] = measured(run.teacher, run.teacher_read, rows)
    for figure in ("accuracy", "calibration_error"):
        found[figure] = {who: values[figure] for who, values in figures.items()}
    if run.writer is not None:
        found["texts_refused"] = dict(run.writer.refused)
    save(run, found, place)
    return found


def trainings(run: Run, folder: Path, resume: bool) -> Iterator[tuple[Path, Distiller]]:
    """The loops of a run with their folders, each made when the one before has ended."""
    if run.passes:
        for one in run.passes:
            place = folder / one.name
            yield place, loop(run, place, run.settings, resume, one)
        return
    generations = run.method.generations(run.settings)
    weights = {key: tensor.clone() for key, tensor in run.student.state_dict().items()}
    for generation in range(generations):
        place = folder / f"generation_{generation + 1}" if generations > 1 else folder
        settings = run.settings
        if generations > 1:
            if generation:
                run.teacher, run.teacher_read = copy.deepcopy(run.student), read()
                run.student.load_state_dict(weights)
            else:
                settings = replace(settings, alpha=0.0)
        yield place, loop(run, place, settings, resume)


def prepare(options: ClassifierOptions) -> Run:
    """Reads models and data, and checks that they fit together. Raises `DistillError` where they do not."""
    method = find(options.method, CLASSIFIERS)
    settings = method.settings({name: getattr(options, name) for name in NAMES})
    method.refuse_unused(options, settings)
    losses = (method.class_losses or method.losses)(settings)
    for name, value in (("student", options.student), ("data", options.data)):
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    if set(losses) - set(method.own) and options.teacher is None:
        raise DistillError(f"the method {method.name} needs --teacher")
    if (method.name == "pgkd") != (options.writer is not None):
        raise DistillError(f"the method {method.name} {'needs a' if method.name == 'pgkd' else 'takes no'} --writer")
    for name, value in (("pretrained", options.pretrained), ("general", options.general)):
        if bool(value) != (method.passes is not None):
            raise DistillError(f"the method {method.name} {'takes no' if value else 'needs'} --{name}")
    require_different([*options.data, *(() if options.test is None else (options.test,))])
    told = read_labelled(options.data)
    classes = classes_of(told.labels)
    if len(classes) < 2:
        raise DistillError(f"the data have one class alone, {classes[0]}")
    reader = Reader(options.tokenizer or options.student, options.length)
    student = classifier_of(options.student, classes, reader.pad, options.seed)
    require_kept(student, options.student)
    teacher, teacher_reader, teacher_read, order = None, None, read(), None
    if options.teacher is not None:
        teacher, order = teacher_of(options.teacher, classes)
        teacher_reader, teacher_read = Reader(options.teacher, options.length), read("teacher_", order)
    for model in (student, teacher):
        if model is not None and torch.cuda.is_available():
            model.to("cuda")

    def rows(texts: Sequence[str], labels: Sequence[int]) -> dict[str, np.ndarray]:
        other = {} if teacher_reader is None else teacher_reader.rows(texts, "teacher_")
        found = {**reader.rows(texts), **other, "label": np.array(labels, np.int64)}
        return {**found, "mask": found["seen"]} if method.passes else found

    places = {name: i for i, name in enumerate(classes)}
    every = rows(told.texts, [places[name] for name in told.labels])
    held = held_out_places(every["label"], options.held_out, options.seed)
    trained, held_out = chosen_rows(every, ~held), chosen_rows(every, held)
    test, tested = None, None
    if options.test is not None:
        tested = read_labelled([options.test])
        foreign = sorted(set(tested.labels) - set(classes))
        if foreign:
            raise DistillError(f"{options.test} has the class {foreign[0]}, which the data do not")
        add_files(told.files, tested.files)
        test = rows(tested.texts, [places[name] for name in tested.labels])
    cut = Counter({CUT: reader.cut} if reader.cut else {})
    writer = None
    if options.writer is not None:
        kept = [(text, name) for text, name, out in zip(told.texts, told.labels, held, strict=True) if not out]
        secret = {text.strip().lower() for text in [*told.texts, *(tested.texts if tested else [])]}
        examples = [[text for text, name in kept if name == each] for each in classes]
        writer = FewShot(_continued(options), examples, classes, frozenset(secret), rows)
    passes: list[Pass] = []
    if method.passes:
        assert options.pretrained is not None
        for name in (options.teacher, options.pretrained):
            other = Reader(str(name), options.length).rows(told.texts)
            if any(not np.array_equal(every[field], other[field]) for field in ("tokens", "seen")):
                raise DistillError(f"'{name}' splits texts otherwise than the student: their states cannot be compared")
        pretrained = classifier_of(options.pretrained, classes, reader.pad, options.seed)
        if torch.cuda.is_available():
            pretrained.to("cuda")
        general = _general(options, reader)
        task = FixedDomain("texts", trained, held_out)
        material = ClassMaterial(student, teacher, pretrained, seen(), [task], [general], order)
        passes = list(method.passes(material, settings))
    steps = options.steps or max(math.ceil(options.epochs * len(trained["label"]) / options.batch), 1)
    data = {
        "trained": len(trained["label"]), "held_out": len(held_out["label"]), "dropped": dict(told.dropped),
        "cut": dict(cut), "files": told.files,
    }  # fmt: skip
    return Run(
        options, method, settings, student, teacher, teacher_read, reader, classes, trained, held_out, test, writer,
        passes, steps, data,
    )  # fmt: skip


def _general(options: ClassifierOptions, reader: Reader) -> FixedDomain:
    """Text without labels as a domain."""
    texts = [each.text for path in options.general for each in read_examples(path).examples if isinstance(each, Text)]
    if not texts:
        raise DistillError(f"{options.general[0]} holds no plain text")
    rows = reader.pieces(texts)
    rows["mask"] = rows["seen"]
    held = held_out_places(np.zeros(len(rows["tokens"]), np.int64), options.held_out, options.seed)
    return FixedDomain("general", chosen_rows(rows, ~held), chosen_rows(rows, held))


def _continued(options: ClassifierOptions) -> Any:
    """What the writer writes after each of several texts, until the line's end."""
    assert options.writer is not None
    model: Any = load(options.writer, dtype=torch.float32)
    tokenizer = open_tokenizer(options.writer)
    if torch.cuda.is_available():
        model.to("cuda")
    context = context_of(model) or 10**6

    def continued(texts: Sequence[str], seed: int) -> list[str]:
        room = max(context - options.new_tokens, 1)
        prompts = [tokenizer(text, add_special_tokens=False)["input_ids"][-room:] for text in texts]
        written = answers(
            model, prompts, options.new_tokens, len(tokenizer), end_tokens(model, tokenizer), tokenizer.pad_token_id,
            seed,
        )  # fmt: skip
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in written]

    return continued


def loop(run: Run, folder: Path, settings: MethodOptions, resume: bool = False, one: Pass | None = None) -> Distiller:
    """The core's loop over the run's rows, or of `one` of its passes, fresh or restored."""
    options, losses = run.options, (run.method.class_losses or run.method.losses)(settings)
    steps = max(round(one.share * run.steps), 1) if one else run.steps
    config = in_rounds(options, steps)

    def evaluate(learner: Student) -> dict[str, float]:
        found = class_probabilities(learner.module, read(), run.held_out)
        return {"golden": -label_nats(found, run.held_out["label"]), **_figures(found, run.held_out["label"])}

    if one:
        stage, judged = one.stage, evaluate if one is run.passes[-1] else None
        return Distiller(
            stage.student, stage.objective, stage.teacher, stage.collectors, stage.sampler, folder, config, judged,
            resume, Console(stderr=True), stage.mixture,
        )  # fmt: skip
    if run.writer is None:
        collector: Any = FixedDomain("texts", run.trained, run.held_out)
    else:
        collector = Guided(
            run.trained, run.held_out, len(run.classes), read(), run.writer, count=options.texts, held_out=run.held_out
        )
    teacher = None if run.teacher is None else dense(run.teacher, run.teacher_read)
    return Distiller(
        ModelStudent(run.student, read()), WeightedSum(losses), taught(losses, teacher, Next("label")), [collector],
        Epochs(), folder, config, evaluate, resume, Console(stderr=True),
    )  # fmt: skip


def measured(model: Any, how: Read, rows: Rows) -> dict[str, float]:
    """Accuracy and calibration error on rows."""
    return _figures(class_probabilities(model, how, rows), rows["label"])


def _figures(found: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"accuracy": accuracy(found, labels), "calibration_error": calibration_error(found, labels)}


def save(run: Run, found: Mapping[str, Any], folder: Path) -> None:
    """The student's folder: weights, config with the classes' names, tokenizer, card, summary."""
    out, options = run.options.out, run.options
    run.student.save_pretrained(out)
    run.reader.tokenizer.save_pretrained(out)
    write_json(out / SUMMARY, plain(found))
    Journal(folder).plot(f"{run.method.name}: {type(run.student).__name__}")
    write_card(out, options, found)
