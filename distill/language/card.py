"""The model card of a distilled student: where it comes from, how it was made, what it measures, what is missing."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from shlex import join
from typing import Any

import torch
import yaml

from distill.core.checkpoints import write_json, write_text
from distill.core.errors import DistillError
from distill.core.reading import read_json
from distill.language import harness
from distill.language.begun import OPTIONS, read_begun
from distill.language.evaluation import table
from distill.language.models import load
from distill.language.options import OF_THE_CALL, CardOptions, ClassifierOptions, LanguageOptions, MeasureOptions
from distill.language.own_options import (
    CompressorOptions,
    EncoderOptions,
    RecommenderOptions,
    StrategiesOptions,
    TaggerOptions,
    VisionOptions,
)
from distill.language.places import check_files, load_silently
from distill.language.quantized import on_device, open_teacher
from distill.language.serving import sentence, servable
from distill.language.students import open_tokenizer
from distill.language.trained_options import RunOptions, TrainedOptions
from distill.methods import catalogue
from distill.methods.framework import Recipe
from distill.methods.method import CLASSIFIERS, Method, find
from distill.results import CardWritten, StudentMeasured
from sim.errors import InputError
from sim.folders import alone
from sim.options import words_of
from sim.results import printable

SUMMARY = "summary.json"
Asked = LanguageOptions | RunOptions
"""Options of a command that makes a student."""
Parts = tuple[Sequence[Any], list[str], list[str]]
"""Base models, facts of which the last is the training, and tables."""


def command(options: Asked) -> str:
    """The command that makes the student."""
    return join(["barkour", "distill", FORMS[type(options)].command, *words_of(options, OF_THE_CALL)])


def write_card(folder: Path, options: Asked, found: Mapping[str, Any]) -> None:
    """Writes `README.md`; `found` is what the command's `distil` returns."""
    write_text(folder / "README.md", card_of(folder, options, found))


def card_of(folder: Path, options: Asked, found: Mapping[str, Any]) -> str:
    """The text of the card."""
    form = FORMS[type(options)]
    method = form.method(found["method"])
    bases, facts, figures = form.parts(options, found)
    head = {
        "library_name": form.library, "pipeline_tag": form.task,
        "tags": ["distillation", method.name], "license": "other", "license_name": "to-be-filled",
        "base_model": sorted({name for name in bases if name and "(" not in name}),
    }  # fmt: skip
    data = found["data"]
    settings = ", ".join(f"{name} {value}" for name, value in found.get("settings", {}).items())
    lines = [
        "---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {folder.name}", "",
        f"{method.title} ({method.source}){': ' + settings if settings else ''}.", "",
        *(f"- {fact}" for fact in facts[:-1]),
        *(f"- {what}: {n} ({why})" for what in ("dropped", "cut") for why, n in data.get(what, {}).items()),
        f"- {facts[-1]}", "", *figures, "",
        *(["![training](curve.png)", ""] if (folder / "curve.png").is_file() else []), "## Licence", "",
        "To be filled: the licences of the teacher, of the student's own weights and of the data decide it.", "",
        "## Made with", "", "```", command(options), "```", "", "| file | SHA-256 |", "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in data["files"].items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _figures(title: str, rows: Iterable[tuple[str, float]]) -> list[str]:
    return [f"| {title} | value |", "|---|---|", *(f"| {name} | {value:.4g} |" for name, value in rows)]


def _language(options: LanguageOptions, found: Mapping[str, Any]) -> Parts:
    data, count, perplexity = found["data"], found["parameters"], found["perplexity"]
    rows = [(f"perplexity on held-out data, at the {when}", perplexity[when]) for when in ("start", "end")]
    if "teacher" in perplexity:
        rows += [("the teacher's perplexity there", perplexity["teacher"])]
        rows += [("share of held-out tokens at which teacher and student agree", found["agreement"])]
    teachers = found.get("teachers", {})
    taught = ", ".join(f"{model} ({name})" for name, model in teachers.items()) or options.teacher or "none"
    if "teacher" in count:
        taught += f", {count['teacher']:,} parameters"
    elif options.teacher_url or options.cache:
        taught += f", by its {found['likeliest']} likeliest tokens"
    elif "teacher" in perplexity and not teachers:
        taught += "; below it is the student of the generation before"
    if "aligned" in found:
        taught += f", by its likelihood of pieces that hold {found['aligned']['in_pieces']:.0%} of the learned tokens"
    if "teacher_precision" in found:
        taught += f", kept in {found['teacher_precision']}"
    facts = [
        f"teacher: {taught}",
        f"student: {found['student']}, {count['student']:,} parameters",
        f"data: {data['examples']} examples, {data['learned_tokens']} tokens that are learned in a pass; "
        f"{data['held_out_rows']} rows held out",
        f"served: {sentence(found['vllm'])}",
        f"training: {found['steps']} steps of {found['batch']} rows of {found['length']} tokens; the parameters are "
        f"those of round {found['best_round'] + 1} of {found['rounds']}, the best on held-out data",
    ]
    tables = [*_figures("measure", rows), "", "On the rows of each domain that were held out:", ""]
    tables += table(found["evaluation"])
    if "lm_eval" in found:
        tables += ["", "On tasks:", "", *harness.table(found["lm_eval"])]
    return (options.teacher, *teachers.values(), found["student"]), facts, tables


def _classifier(options: ClassifierOptions, found: Mapping[str, Any]) -> Parts:
    data = found["data"]
    rows = [
        (f"{figure.replace('_', ' ')}, {who}", value)
        for figure in ("accuracy", "calibration_error")
        for who, value in found[figure].items()
    ]
    facts = [
        f"teacher: {options.teacher or 'none'}",
        f"student: {options.student}, {found['parameters']['student']:,} parameters",
        f"data: {data['trained']} rows of {len(found['classes'])} classes, {data['held_out']} held out",
        f"training: {found['steps']} steps of {options.batch} rows; the parameters of the round that was best on "
        "held-out rows",
    ]
    bases = options.teacher, options.student, options.writer
    return bases, facts, _figures(f"on {found['measured_on']}", rows)


def _training(options: RunOptions, found: Mapping[str, Any]) -> str:
    if isinstance(options, TrainedOptions):
        best = "the parameters of the round that was best on held-out rows"
        return f"{found['steps']} steps of {options.batch} rows; {best}"
    taught = found["taught"]
    lessons = f"library.jsonl has {found['lessons']} lessons, {taught['kept']} of them from this run"
    return f"none, the weights are as they were; {lessons}, for {taught['calls']} calls of the teacher"


def _own(options: RunOptions, found: Mapping[str, Any]) -> Parts:
    data, teacher = found["data"], found.get("teacher")
    told = {**found["figures"], **found.get("beside", {})}
    told |= {f"on {name}": values for name, values in found.get("measured_later", {}).items()}
    rows = [(f"{name}, {when}", value) for when, values in told.items() for name, value in values.items()]
    facts = [
        f"teacher: {teacher or 'whoever wrote the answers in the data'}",
        f"student: {found['student']}, {found['parameters']['student']:,} parameters",
        f"data: {data['trained']} rows, {data['held_out']} held out",
        f"training: {_training(options, found)}",
    ]
    bases = teacher, options.student, getattr(options, "language_model", "")
    return bases, facts, _figures(f"on {found['measured_on']}", rows)


@dataclass(frozen=True)
class Form:
    """What the card of one command's students says."""

    command: str
    """Of `barkour distill`."""
    library: str
    """What loads the folder."""
    task: str
    """As the Hugging Face hub names it."""
    parts: Callable[[Any, Mapping[str, Any]], Parts]
    method: Callable[[str], Method | Recipe] = find
    start: str = "start"
    """Where the run's options keep what the student measured before the first step."""


FORMS: Mapping[type[Any], Form] = {
    LanguageOptions: Form("language", "transformers", "text-generation", _language, start="perplexity"),
    ClassifierOptions: Form(
        "classifier", "transformers", "text-classification", _classifier, lambda name: find(name, CLASSIFIERS)
    ),
    TaggerOptions: Form("tagger", "barkour", "token-classification", _own, catalogue.find),
    CompressorOptions: Form("compressor", "transformers", "feature-extraction", _own, catalogue.find),
    RecommenderOptions: Form("recommender", "barkour", "tabular-classification", _own, catalogue.find),
    StrategiesOptions: Form("strategies", "transformers", "text-generation", _own, catalogue.find),
    VisionOptions: Form("vision", "transformers", "image-text-to-text", _own, catalogue.find),
    EncoderOptions: Form("encoder", "transformers", "fill-mask", _own, catalogue.find),
}
OWN = {
    "ade_extraction": TaggerOptions, "autodistil": EncoderOptions, "leader": RecommenderOptions,
    "llava_kd": VisionOptions, "llava_mod": VisionOptions, "mend": CompressorOptions,
    "strategy_teaching": StrategiesOptions,
}  # fmt: skip
"""Method -> what the command is asked for that it has beside `language` and `classifier`."""


def rewrite(options: CardOptions) -> CardWritten:
    """Writes the card of a finished student's folder anew, from what the folder knows of its run.

    Raises:
      InputError: no folder of a finished student, or a damaged one.
    """
    folder = options.folder
    with _described(folder):
        (folder / SUMMARY).stat()  # where there is none nothing is left, not even a lock
        with alone(folder):
            found, restored = _finished(folder)
            write_card(folder, restored, found)
    return CardWritten.of({"card": str(folder / "README.md"), "method": found["method"]})


def measure(options: MeasureOptions) -> StudentMeasured:
    """Asks a finished student, and its teacher where it can be loaded, tasks of lm-eval, a recommender patients in
    files, or one that sees rows with images; summary and card are told.

    Raises:
      InputError: no folder of a finished student that can be asked, no such task or file, or a task that fails.
    """
    folder = options.folder
    load_silently()
    with _described(folder):
        (folder / SUMMARY).stat()
    with alone(folder):
        with _described(folder):
            found, restored = _finished(folder)
            card_of(folder, restored, found)  # what cannot be told in the end is refused before anything is measured
        try:
            told = _asked(options, found, restored)
        except DistillError as error:  # of a model, or of what it was to be asked
            raise InputError(str(error)) from error
        with _described(folder):
            if isinstance(restored, LanguageOptions):
                found["lm_eval"] = harness.together(found.get("lm_eval", {}), told)
            else:
                found["measured_later"] = {**found.get("measured_later", {}), **told}
            write_json(folder / SUMMARY, found)
            write_card(folder, restored, found)
    kind = "lm_eval" if isinstance(restored, LanguageOptions) else "figures"
    return StudentMeasured.of({"card": str(folder / "README.md"), kind: told})


def _asked(options: MeasureOptions, found: Mapping[str, Any], restored: Asked) -> dict[str, Any]:
    """What a student says to tasks or files. Raises `DistillError` where it or they cannot be read."""
    folder = options.folder
    if isinstance(restored, RecommenderOptions):
        from distill.language.recommender import Recommender  # it imports this module

        if options.limit:
            raise DistillError("--limit is of lm-eval's tasks: of patients all are measured")
        recommender = Recommender(folder)
        return {path: recommender.measure([Path(path)]) for path in options.tasks}
    if isinstance(restored, VisionOptions):
        from distill.language.seeing import evaluated  # it imports this module

        return evaluated(folder, restored.teacher, restored.length, options.tasks, options.limit)
    if not isinstance(restored, LanguageOptions):
        raise DistillError("tasks of lm-eval are for models that write, this student names or finds")
    harness.open_tasks(options.tasks)
    models = {"student": load(str(folder), dtype=torch.float32)}
    if restored.teacher and restored.teacher_url is None:
        try:
            models["teacher"] = open_teacher(restored.teacher, restored.teacher_precision)
        except DistillError as error:  # it may have been another machine's
            print(printable(f"measured without the teacher: {error}"), file=sys.stderr)
    for model in models.values():
        on_device(model)
    return harness.asked(options.tasks, models, open_tokenizer(str(folder)), options.limit)


@contextmanager
def _described(folder: Path) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no finished student: {error.filename} is not there") from error
    except (DistillError, OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise InputError(f"{folder} cannot be described: {error}") from error


def _finished(folder: Path) -> tuple[dict[str, Any], Asked]:
    """What a folder's summary says, and the options of its run."""
    check_files(folder)
    found = read_json(folder / SUMMARY)
    if not isinstance(found, dict) or not isinstance(found.get("method"), str):
        raise DistillError(f"{folder / SUMMARY} names no method")
    kind = LanguageOptions if "perplexity" in found else OWN.get(found["method"], ClassifierOptions)
    begun = read_begun(folder / "run", FORMS[kind].start, lambda value: value)
    if begun is None:
        raise DistillError(f"{folder / 'run' / OPTIONS} is not there")
    if kind is LanguageOptions:
        found["vllm"] = servable(folder)  # its files may be others now
    values = {**begun.options, "out": str(folder)}
    return found, _restored(kind, values)


def _restored(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Options as JSON kept them."""
    given: dict[str, Any] = {}
    for item in fields(kind):
        value = values.get(item.name, item.default)
        if isinstance(item.default, tuple):
            paths = item.name in ("data", "general", "captions")
            value = tuple(Path(each) if paths else each for each in value)
        elif value is not None and item.name in ("out", "cache", "test", "library", "names", "interactions"):
            value = Path(value)
        given[item.name] = value
    return kind(**given)
