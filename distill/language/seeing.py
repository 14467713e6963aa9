"""`barkour distill vision`: a model that sees, a smaller one and rows with images into a folder of transformers.

student = AutoModelForImageTextToText.from_pretrained("runs/vision")
processor = AutoProcessor.from_pretrained("runs/vision")
"""

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.tables import Rows
from distill.language.evaluate import answer_figures, answered, over
from distill.language.examples import require_different
from distill.language.labelled import chosen_rows
from distill.language.models import Read, parameters
from distill.language.own import Parts, Stage, Task, held_out_rows, planned, told_of
from distill.language.own import distil as distil_own
from distill.language.own_options import VisionOptions
from distill.language.pictured import (
    PicturedEncoder,
    PicturedRows,
    Pictures,
    held_out_groups,
    laid_out,
    read_pictured,
)
from distill.language.seeing_models import (
    Processor,
    open_processor,
    open_seeing,
    open_sighted_student,
    patches,
    require_fits,
    require_same_preparation,
)
from distill.language.students import is_config, require_same_tokens
from distill.language.vision import seeing
from distill.methods.llava_kd import method as llava_kd
from distill.methods.method import MethodOptions
from distill.results import OwnDistilled
from sim.results import printable

Halves = tuple[dict[str, np.ndarray], dict[str, np.ndarray]]
"""Rows that are trained on, and rows that never are."""
LOGITS = 1 << 24
"""That are made at once where a model is measured."""


def distil(options: VisionOptions) -> OwnDistilled:
    """Distils as the options say and writes the student's folder, or says what that would take. Raises `InputError` for
    what cannot be used."""
    if options.plan:
        return told_of(lambda: planned(options, prepare(options)))
    return distil_own(options, prepare)


@dataclass(frozen=True)
class Models:
    """Both models, and how rows become what they read."""

    teacher: Any
    student: Any
    processor: Processor
    pictures: Pictures
    encoder: PicturedEncoder

    @property
    def read(self) -> Read:
        """Logits `[B, T, vocabulary]` of rows whose `image` is a number."""
        base = seeing(len(self.processor.tokenizer), self.processor.token)

        def read(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
            return base(module, {**batch, "image": self.pictures(batch["image"])})

        return read

    @property
    def pad(self) -> int:
        """Id of the token that fills rows."""
        return int(self.processor.tokenizer.pad_token_id)


def open_models(options: VisionOptions) -> Models:
    """Teacher, processor and student. Raises `DistillError` where they do not fit together."""
    teacher = open_seeing("teacher", options.teacher).requires_grad_(False)
    processor = open_processor(options.tokenizer or options.teacher)
    student = open_sighted_student(options.student, options.language_model, teacher, processor.tokenizer, options.seed)
    if options.student and not is_config(options.student):
        own = open_processor(options.student)
        require_same_tokens(processor.tokenizer, own.tokenizer)
        require_same_preparation(processor.whole, own.whole)
    pictures = Pictures(processor.whole.image_processor)
    both = {"teacher": teacher, "student": student}
    for what, model in both.items():
        require_fits(what, model, processor, options.length)
    first, second = (patches(what, model, processor, pictures) for what, model in both.items())
    if first != second:
        raise DistillError(f"the teacher makes {first} tokens of an image, and the student {second}")
    encoder = PicturedEncoder(processor.tokenizer, options.length, processor.word, first)
    if torch.cuda.is_available():
        teacher.to("cuda")
    return Models(teacher, student, processor, pictures, encoder)


def prepare(options: VisionOptions) -> Task:
    """Reads models and data, and checks that they fit together. Raises `DistillError` where they do not."""
    plan: Sequence[str] = options.stages or llava_kd.METHOD_STAGES
    _require_given(options, plan)
    models = open_models(options)
    told = _read(options, models)
    return _staged(options, plan, models, told)


def _require_given(options: VisionOptions, plan: Sequence[str]) -> None:
    given = {"teacher": options.teacher, "student": options.student or options.language_model, "data": options.data}
    for name, value in given.items():
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different([*options.data, *options.captions])
    described = [name for name in plan if llava_kd.STAGES[name].captions]
    if described and not options.captions:
        others = " ".join(name for name in plan if name not in described)
        raise DistillError(
            f"the stage {described[0]} learns from captions: give --captions, or leave it out, --stages {others}"
        )


def _read(options: VisionOptions, models: Models) -> dict[str, PicturedRows]:
    """Rows by the options that name them."""
    paths = {"data": options.data, "captions": options.captions}
    return {
        name: read_pictured(given, models.pictures, models.processor.word) for name, given in paths.items() if given
    }


def _halves(options: VisionOptions, table: Mapping[str, np.ndarray]) -> Halves:
    held = held_out_groups(table["image"], lambda count: held_out_rows(count, options.held_out, options.seed))
    return chosen_rows(table, ~held), chosen_rows(table, held)


def _staged(options: VisionOptions, plan: Sequence[str], models: Models, told: Mapping[str, PicturedRows]) -> Task:
    teacher, student, read = models.teacher, models.student, models.read
    tables: dict[str, Halves] = {}
    for name, found in told.items():
        laid = laid_out(found.rows, models.encoder, models.pad)
        if not (laid.images >= 0).any():
            raise DistillError(f"no row of --{name} has an image")
        tables[name] = _halves(options, llava_kd.rows(laid.tokens, laid.images, laid.responses, models.processor.token))
    data, captions = tables["data"], tables.get("captions", tables["data"])
    every = llava_kd.losses(
        MethodOptions(temperature=options.temperature), options.responses, options.visual, options.relation
    )

    def stages() -> Iterator[Stage]:
        given = llava_kd.stages(student, teacher, captions[0], data[0], read, plan, every, (captions[1], data[1]))
        for name, parts in given:
            kind = llava_kd.STAGES[name]
            half = captions if kind.captions else data
            changed = {} if kind.language else {"learning_rate": options.projector_rate}
            yield _stage(name, parts, half, changed, lambda rows=half[1]: measured(student, teacher, rows, read))

    def figures() -> dict[str, float]:
        return measured(student, teacher, data[1], read)

    return _task(options, plan, models, told, tables, stages(), figures)


def _stage(name: str, parts: Parts, half: Halves, changed: Mapping[str, Any], figures: Any) -> Stage:
    def judge() -> dict[str, float]:
        return {"golden": -held_out_loss(parts, half[1]), **figures()}

    return Stage(parts, len(half[0]["tokens"]), judge, name, changed)


def _task(
    options: VisionOptions, plan: Sequence[str], models: Models, told: Mapping[str, PicturedRows],
    tables: Mapping[str, Halves], stages: Iterator[Stage], figures: Any,
) -> Task:  # fmt: skip
    processor = models.processor

    def save(folder: Path) -> dict[str, Any]:
        ends = processor.tokenizer
        models.student.generation_config.eos_token_id = ends.eos_token_id
        models.student.generation_config.pad_token_id = ends.pad_token_id
        models.student.save_pretrained(folder)
        processor.whole.chat_template = ends.chat_template
        processor.whole.save_pretrained(folder)
        theirs = measured(models.teacher, models.teacher, tables["data"][1], models.read)
        return {"beside": {"teacher": {name: theirs[name] for name in ("nats", "right")}}}

    described = {"captions": sum(len(half["tokens"]) for half in tables["captions"])} if "captions" in tables else {}
    dropped = sum((found.dropped for found in told.values()), Counter(models.encoder.dropped))
    data = {
        "trained": len(tables["data"][0]["tokens"]), "held_out": len(tables["data"][1]["tokens"]),
        **described,
        "images": len(models.pictures.paths), "image_tokens": models.encoder.patches, "dropped": dict(dropped),
        "cut": dict(models.encoder.cut), "files": {k: v for found in told.values() for k, v in found.files.items()},
    }  # fmt: skip
    weights = ("responses", "visual", "relation", "temperature")
    about = {
        "method": options.method, "teacher": options.teacher, "student": options.student or options.language_model,
        "stages": list(plan), "settings": {name: getattr(options, name) for name in weights},
        "parameters": {"teacher": parameters(models.teacher), "student": parameters(models.student)},
        "data": data, "measured_on": "held-out rows",
    }  # fmt: skip
    return Task(about, models.student, stages, figures, save)


def measured(model: Any, teacher: Any, rows: Rows, read: Read) -> dict[str, float]:
    """Of a model's answers, as `answer_figures`: against the rows', and the divergence from the teacher's there."""

    def asked(batch: dict[str, Tensor]) -> Tensor:
        said = read(model, batch)
        taught = said if model is teacher else read(teacher, batch)
        answer = batch["mask"][:, 0]
        return answered(said, taught, batch["target"], answer, answer)

    return answer_figures(over(model, rows, asked, at_once(model, rows)))


def evaluated(folder: Path, teacher: str, length: int, paths: Sequence[str], limit: int) -> dict[str, dict[str, float]]:
    """What a finished student says to rows, at most `limit` of each path where that is not 0.

    Returns:
      Path -> its figures, as `measured`; and, where its teacher can be loaded, the teacher's.

    Raises:
      DistillError: no rows that can be used.
    """
    processor = open_processor(str(folder))
    models = {"student": open_seeing("student", str(folder))}
    try:
        models["teacher"] = open_seeing("teacher", teacher)
    except DistillError as error:  # it may have been another machine's
        print(printable(f"measured without the teacher: {error}"), file=sys.stderr)
    if torch.cuda.is_available():
        for model in models.values():
            model.to("cuda")
    pictures = Pictures(processor.whole.image_processor)
    count = [patches(who, model, processor, pictures) for who, model in models.items()][0]
    encoder = PicturedEncoder(processor.tokenizer, length, processor.word, count)
    both = Models(models.get("teacher"), models["student"], processor, pictures, encoder)
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        told = read_pictured([Path(path)], pictures, processor.word)
        laid = laid_out(told.rows[: limit or None], encoder, both.pad)
        rows = llava_kd.rows(laid.tokens, laid.images, laid.responses, processor.token)
        found[path] = {"rows": float(len(laid))}
        if "teacher" not in models:
            own = measured(models["student"], models["student"], rows, both.read)
            found[path] |= {name: own[name] for name in ("nats", "right")}
            continue
        found[path] |= measured(models["student"], models["teacher"], rows, both.read)
        theirs = measured(models["teacher"], models["teacher"], rows, both.read)
        found[path] |= {f"the teacher's {name}": theirs[name] for name in ("nats", "right")}
    return found


def held_out_loss(parts: Parts, rows: Rows) -> float:
    """The loss of a stage on rows that are not trained on: the mean over batches, by their numbers of rows."""
    student, objective, teacher, _ = parts

    def asked(batch: dict[str, Tensor]) -> Tensor:
        signal: Any = teacher.label(batch)
        count = len(batch["tokens"])
        return objective(student.outputs(student.module, batch), signal, batch["mask"]).double().reshape(1) * count

    count = len(rows["tokens"])
    return float(over(student.module, rows, asked, at_once(student.module, rows)).sum() / count)


def at_once(model: Any, rows: Rows) -> int:
    """Rows of which a model makes logits at once where it is measured."""
    tokens = int(np.prod(rows["tokens"].shape[1:]))
    return max(1, min(64, LOGITS // (tokens * model.get_input_embeddings().num_embeddings)))
