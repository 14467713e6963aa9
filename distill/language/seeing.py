"""`barkour distill vision`: a model that sees, a smaller one and rows with images into a folder of transformers.

student = AutoModelForImageTextToText.from_pretrained("runs/vision")
processor = AutoProcessor.from_pretrained("runs/vision")

A student of llava_mod has experts, and loads so once `distill.language.sparse` has been imported.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.errors import DistillError
from distill.core.objectives.preference import DirectPreference, PairedKto
from distill.core.tables import Rows
from distill.language.evaluate import answer_figures, answered, over
from distill.language.examples import add_files, require_different
from distill.language.labelled import chosen_rows
from distill.language.models import Read, parameters, require_memory
from distill.language.own import Parts, Stage, Task, held_out_rows, planned, told_of
from distill.language.own import distil as distil_own
from distill.language.own_options import VisionOptions
from distill.language.pictured import (
    Laid,
    PicturedEncoder,
    PicturedRows,
    Pictures,
    held_out_groups,
    laid_out,
    laid_pairs,
    read_pictured,
)
from distill.language.seeing_models import (
    Processor,
    open_processor,
    open_seeing,
    open_sighted_student,
    patches,
    require_becomes_sparse,
    require_fits,
    require_same_preparation,
)
from distill.language.sparse import Routing, expert_distance, expert_loads, sparse_layers
from distill.language.students import is_config, require_same_tokens
from distill.language.vision import seeing
from distill.methods.llava_kd import method as llava_kd
from distill.methods.llava_mod import method as llava_mod
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
        return told_of(options.out, lambda: planned(options, prepare(options)))
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
    options.refuse_unused()
    plan: Sequence[str] = options.stages or DEFAULTS[options.method]
    _require_given(options, plan)
    models = open_models(options)
    told = _read(options, models)
    course = COURSES[options.method](options, plan, models, Lying(options, models, told))
    return _task(options, plan, models, told, course)


def _require_given(options: VisionOptions, plan: Sequence[str]) -> None:
    given = {"teacher": options.teacher, "student": options.student or options.language_model, "data": options.data}
    for name, value in given.items():
        if not value:
            raise DistillError(f"there is nothing to begin with: give --{name}")
    require_different([*options.data, *options.captions])
    known = KINDS[options.method]
    foreign = next((name for name in plan if name not in known), None)
    if foreign is not None:
        raise DistillError(f"{options.method} has the stages {', '.join(known)}, not {foreign}")
    described = [name for name in plan if known[name] == "captions"]
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


class Lying:
    """Rows laid out, and which of them are never trained on: images with all of their rows."""

    def __init__(self, options: VisionOptions, models: Models, told: Mapping[str, PicturedRows]) -> None:
        """Raises `DistillError` where nothing fits, or nothing is seen."""
        self.models, self.told = models, told
        self.laid: dict[str, Laid] = {}
        self.held: dict[str, np.ndarray] = {}
        for name, found in told.items():
            laid = laid_out(found.rows, models.encoder, models.pad)
            if not (laid.images >= 0).any():
                raise DistillError(f"no row of --{name} has an image")
            held = held_out_groups(laid.images, lambda count: held_out_rows(count, options.held_out, options.seed))
            self.laid[name], self.held[name] = laid, np.zeros(len(found.rows), bool)
            self.held[name][laid.rows] = held

    def halves(self, name: str, laid: Laid, table: Mapping[str, np.ndarray]) -> Halves:
        """A table of those rows in two. Raises `DistillError` where one of them is empty."""
        held = self.held[name][laid.rows]
        if held.all() or not held.any():
            raise DistillError(f"too few rows of --{name} serve a stage ({len(held)}, {held.sum()} of them held out)")
        return chosen_rows(table, ~held), chosen_rows(table, held)

    def each(self, make: Callable[[Laid], Mapping[str, np.ndarray]]) -> dict[str, Halves]:
        """Of data and captions, as tables of a method."""
        return {name: self.halves(name, laid, make(laid)) for name, laid in self.laid.items()}


@dataclass
class Course:
    """What a method makes of models and rows."""

    tables: Mapping[str, Halves]
    """By the names in `KINDS`."""
    given: Iterator[tuple[str, Parts]]
    """Stages by their names, each asked for when the one before has ended."""
    rates: Mapping[str, float]
    """Stage -> its learning rate, where it is not the options'."""
    settings: Mapping[str, Any]
    preferred: Callable[[Any, int], np.ndarray] | None = None
    """Log-probabilities `[N, 2]` that a model gives the answers of held-out pairs, so many at once."""


def _course_of_llava_kd(options: VisionOptions, plan: Sequence[str], models: Models, lying: Lying) -> Course:
    every = llava_kd.losses(
        MethodOptions(temperature=options.temperature), options.responses, options.visual, options.relation
    )
    token = models.processor.token
    tables = lying.each(lambda laid: llava_kd.rows(laid.tokens, laid.images, laid.responses, token))
    captions, data = tables.get("captions", tables["data"]), tables["data"]
    given = llava_kd.stages(
        models.student, models.teacher, captions[0], data[0], models.read, plan, every, (captions[1], data[1])
    )
    rates = {name: options.projector_rate for name, kind in llava_kd.STAGES.items() if not kind.language}
    return Course(tables, given, rates, _settings(options, "responses", "visual", "relation", "temperature"))


def _course_of_llava_mod(options: VisionOptions, plan: Sequence[str], models: Models, lying: Lying) -> Course:
    kinds = {name: llava_mod.STAGES[name] for name in plan}
    grows = any(kind.learns == "feed-forward" for kind in kinds.values())
    if grows:
        require_becomes_sparse(models.student)
    if options.preference == "kto" and options.batch < 2 and "PD" in plan:
        raise DistillError("--preference kto compares the pairs of a batch: give --batch 2 or more, or dpo")
    preference = PairedKto(options.beta) if options.preference == "kto" else DirectPreference(options.beta)
    every = llava_mod.losses(MethodOptions(temperature=options.temperature), options.balance, preference, options.top_k)
    tables = lying.each(lambda laid: llava_mod.rows(laid.tokens, laid.images, laid.responses, models.pad))
    if "PD" in plan:
        tables["pairs"] = _pairs(models, lying, [name for name in plan if name != "PD"])
    names = {"captions": "general", "data": "specialised", "pairs": "pairs"}
    trained, held = ({names[name]: half[which] for name, half in tables.items()} for which in (0, 1))
    routing = Routing(options.experts, options.top_k, options.capacity)
    given = llava_mod.stages(
        models.student, models.teacher, trained, models.read, plan, every, routing, options.sparse_every, options.seed,
        "all" if options.learn_all else None, held,
    )  # fmt: skip
    alone = [name for name, kind in kinds.items() if kind.learns == "projector" and not options.learn_all]
    rates = dict.fromkeys(alone, options.projector_rate)
    rates |= {name: options.preference_rate for name, kind in kinds.items() if kind.data == "pairs"}

    def preferred(model: Any, size: int) -> np.ndarray:
        return llava_mod.answered(model, held["pairs"], models.read, size)

    settings = _settings(
        options,
        "experts",
        "top_k",
        "capacity",
        "sparse_every",
        "learn_all",
        "balance",
        "preference",
        "beta",
        "temperature",
    )
    return Course(tables, given, rates, settings, preferred if "PD" in plan else None)


def _pairs(models: Models, lying: Lying, others: Sequence[str]) -> Halves:
    rows = lying.told["data"].rows
    if all(row.rejected is None for row in rows):
        raise DistillError(
            "the stage PD learns from rows of --data with a rejected answer, and none has one: leave it out"
            + (f", --stages {' '.join(others)}" if others else "")
        )
    laid = laid_pairs(rows, models.encoder, models.pad)
    better, worse = laid.tokens.swapaxes(0, 1)
    table = llava_mod.pairs(better, worse, laid.images, [*laid.responses.swapaxes(0, 1)], models.pad)
    return lying.halves("data", laid, table)


def _settings(options: VisionOptions, *names: str) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names}


KINDS: Mapping[str, Mapping[str, str]] = {
    "llava_kd": {name: "captions" if kind.captions else "data" for name, kind in llava_kd.STAGES.items()},
    "llava_mod": {"AI": "captions", "D2D": "captions", "D2S": "data", "PD": "pairs"},
}
"""Method -> its stages, and which table each learns from."""
DEFAULTS: Mapping[str, Sequence[str]] = {
    "llava_kd": llava_kd.METHOD_STAGES, "llava_mod": ("AI", *llava_mod.METHOD_STAGES),
}  # fmt: skip
COURSES: Mapping[str, Callable[[VisionOptions, Sequence[str], Models, Lying], Course]] = {
    "llava_kd": _course_of_llava_kd, "llava_mod": _course_of_llava_mod,
}  # fmt: skip


def _task(
    options: VisionOptions, plan: Sequence[str], models: Models, told: Mapping[str, PicturedRows], course: Course
) -> Task:
    teacher, read, tables, processor = models.teacher, models.read, course.tables, models.processor
    now: dict[str, Any] = {"student": models.student}
    """The student, which becomes another one where it is given experts."""
    beside: dict[str, dict[str, float]] = {}

    def figures(rows: Rows = tables["data"][1]) -> dict[str, float]:
        student = now["student"]
        found = measured(student, teacher, rows, read)
        if course.preferred is not None:
            both = course.preferred(student, at_once(student, tables["pairs"][1]))
            found["preferred"] = float((both[:, 0] > both[:, 1]).mean())
        return found

    def gains() -> dict[str, float]:
        """What the student gives held-out answers beyond the teacher: where it is far below 0 preferences are flat."""
        assert course.preferred is not None
        size = at_once(now["student"], tables["pairs"][1])
        found = (course.preferred(now["student"], size) - course.preferred(teacher, size)).mean(0)
        return {"nats beyond the teacher, better answers": float(found[0]), "worse answers": float(found[1])}

    def stages() -> Iterator[Stage]:
        for name, parts in course.given:
            now["student"] = parts[0].module
            kind = KINDS[options.method][name]
            half = tables[kind]
            if kind == "pairs":
                beside[f"before {name}"] = gains()
            rows = tables["data"][1] if kind == "pairs" else half[1]
            changed = {"learning_rate": course.rates[name]} if name in course.rates else {}

            def judge(parts: Parts = parts, held: Rows = half[1], rows: Rows = rows) -> dict[str, float]:
                return {"golden": -held_out_loss(parts, held), **figures(rows)}

            yield Stage(parts, len(half[0]["tokens"]), judge, name, changed)

    def save(folder: Path) -> dict[str, Any]:
        student, ends = now["student"], processor.tokenizer
        student.generation_config.eos_token_id = ends.eos_token_id
        student.generation_config.pad_token_id = ends.pad_token_id
        student.save_pretrained(folder)
        processor.whole.chat_template = ends.chat_template
        processor.whole.save_pretrained(folder)
        theirs = measured(teacher, teacher, tables["data"][1], read)
        beside["teacher"] = {name: theirs[name] for name in ("nats", "right")}
        if sparse_layers(student):
            beside["experts"] = experts(student, tables["data"][1], read)
        return {"beside": beside, "parameters": {**about["parameters"], "student": parameters(student)}}

    files: dict[str, str] = {}
    for found in told.values():
        add_files(files, found.files)
    dropped = sum((found.dropped for found in told.values()), Counter(models.encoder.dropped))
    others = {name: sum(len(half["tokens"]) for half in both) for name, both in tables.items() if name != "data"}
    data = {
        "trained": len(tables["data"][0]["tokens"]), "held_out": len(tables["data"][1]["tokens"]), **others,
        "images": len(models.pictures.paths), "image_tokens": models.encoder.patches, "dropped": dict(dropped),
        "cut": dict(models.encoder.cut), "files": files,
    }  # fmt: skip
    about: dict[str, Any] = {
        "method": options.method, "teacher": options.teacher, "student": options.student or options.language_model,
        "stages": list(plan), "settings": course.settings,
        "parameters": {"teacher": parameters(teacher), "student": parameters(models.student)},
        "data": data, "measured_on": "held-out rows",
    }  # fmt: skip
    require_memory(models.student, options.batch, tables["data"][0]["tokens"].shape[-1])
    return Task(about, models.student, stages(), figures, save)


def experts(model: Any, rows: Rows, read: Read) -> dict[str, float]:
    """Whether a sparse model uses its experts: the `least load`, a share of the choices that an even one has `1 /
    experts` of, over layers and experts; and how far they have come apart, as `sparse.expert_distance` has it."""
    first = {name: torch.from_numpy(np.asarray(values[: at_once(model, rows)])) for name, values in rows.items()}
    batch = {name: values.to(model.device) for name, values in first.items()}
    loads = expert_loads(model, read, batch, batch["mask"][:, 2])
    return {"least load": float(torch.stack(loads).min()), "distance": expert_distance(model)}


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
    for who, model in models.items():
        require_fits(who, model, processor, length)
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
