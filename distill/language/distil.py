"""`barkour distill language`: teacher, student and text or chats of one's own into a folder that transformers loads.

The method says what is learned from (`distill.methods.method`), the core's loop does it. The folder holds the student
with the parameters of the round that was best on held-out data, its tokenizer with the chat template, a model card, the
summary and the curve; `run` in it holds the run, so that it can be resumed.
"""

import copy
import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from rich.console import Console
from transformers import GenerationConfig

from distill.core import sharding
from distill.core.checkpoints import newest, plain, write_json
from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.journal import Journal
from distill.core.loop import Distiller, LoopConfig, load_best
from distill.core.processes import connected, everybody, launched
from distill.core.tables import Rows
from distill.core.teachers import Teacher
from distill.language import harness, teaching
from distill.language.adapters import checkpoint_gradients, merged, trained, with_adapters
from distill.language.aligned import AlignedEncoder, RecordedSpans, with_likelihoods
from distill.language.begun import OPTIONS, begins, check_begun, read_begun
from distill.language.card import write_card
from distill.language.encoding import TEMPLATE, Encoded, Encoder, packed_rows, padded_rows
from distill.language.evaluate import batches, likeliest, log_probs, nats_per_token
from distill.language.evaluation import measured, speed
from distill.language.examples import HUB, Example, Reading, read_examples, require_different
from distill.language.models import causal, context_of, load, packs, parameters, require_memory
from distill.language.options import LanguageOptions, from_file
from distill.language.places import load_silently
from distill.language.plans import peak_bytes, seconds_per_step, timed_config
from distill.language.quantized import on_device, open_teacher, require_bits
from distill.language.serving import servable
from distill.language.several import Several
from distill.language.spread import open_spread, spread, spreads
from distill.language.student import ChunkedStudent, ModelStudent, projected, read_in_parts
from distill.language.students import PRUNE, end_tokens, open_student, open_tokenizer, require_same_tokens, sizes
from distill.language.tracking import Tracked, require_wandb
from distill.methods.capacity_gap.method import chosen
from distill.methods.method import OPTION_NAMES, Material, Method, MethodOptions, Stage, TextDomain, Writing, find
from distill.results import LanguageDistilled
from policies.learning import runs
from sim.errors import InputError
from sim.folders import makeable
from sim.results import printable

SUMMARY, RUN = "summary.json", "run"
FREE = (
    "config", "out", "resume", "plan", "dry_run", "checkpoint_minutes", "cache", "teacher_key", "wandb", "lm_eval",
    "lm_eval_limit",
)  # fmt: skip
"""Options that do not decide a run's result."""
MEASURED = 256
"""Held-out rows of a domain that the student is measured on, at most."""


@dataclass(frozen=True, kw_only=True)
class Domain(TextDomain):
    """One path of the data."""

    examples: int
    dropped: Counter[str]
    cut: Counter[str]
    files: Mapping[str, str]
    chosen: int | None = None
    """Rows that a method left of those of one example each; None: it takes all."""


@dataclass
class Run:
    """Everything that a run is made of, read and checked."""

    options: LanguageOptions
    method: Method
    settings: MethodOptions
    teacher: Any
    student: Any
    origin: str
    tokenizer: Any
    domains: list[Domain]
    packed: bool
    steps: int
    config: LoopConfig
    read: Any = field(repr=False)
    readers: Mapping[str, Student] = field(repr=False)
    """How the logits of `student` and, where there is one, `teacher` are read: chunk by chunk where that gives the
    model's own, as a whole elsewhere."""
    signal: Teacher | None = None
    """What is known of the teacher where that is not all of its logits."""
    told: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of a teacher with other tokens: see `about`."""

    @property
    def material(self) -> Material:
        """What the method is put together from."""
        tokenizer, options = self.tokenizer, self.options
        ends = end_tokens(self.student, tokenizer)
        breaks = _breaks(tokenizer) if self.method.rewrites else []
        writing = Writing(options.length, options.new_tokens, len(tokenizer), ends, tokenizer.pad_token_id, breaks)
        reader, signal = self.readers.get("teacher"), self.signal
        if signal is None and isinstance(reader, ChunkedStudent):
            signal = projected(self.teacher, reader.vocabulary, reader.scaling)
        return Material(
            self.student, self.teacher, self.read, self.domains, writing, self.readers["student"], signal,
            options.weights,
        )  # fmt: skip

    def about(self) -> dict[str, Any]:
        """What is known before the first step, JSON-ready."""
        dropped, cut = (sum((getattr(d, name) for d in self.domains), Counter[str]()) for name in ("dropped", "cut"))
        models = {"teacher": self.teacher, "student": self.student}
        return {
            "method": self.method.name,
            "settings": {name: getattr(self.settings, name) for name in self.method.reads},
            "teacher": self.options.teacher, "student": self.origin,
            **({"reference": self.options.reference} if self.options.reference else {}),
            "parameters": {
                **{name: parameters(model) for name, model in models.items() if model is not None},
                **({"trained": trained(self.student)} if self.options.lora else {}),
            },
            "data": {
                "examples": sum(d.examples for d in self.domains), "dropped": dict(dropped), "cut": dict(cut),
                "rows": sum(len(d.rows["tokens"]) for d in self.domains),
                "held_out_rows": sum(len(d.held_out["tokens"]) for d in self.domains),
                "learned_tokens": sum(d.learned for d in self.domains), "packed": self.packed,
                "files": {f"{d.name}/{name}": digest for d in self.domains for name, digest in d.files.items()},
                **({"chosen": {d.name: d.chosen for d in self.domains}} if self.domains[0].chosen is not None else {}),
            },
            **({"teachers": teaching.named(self.options.teachers)} if self.options.teachers else {}),
            **({"aligned": dict(self.told)} if self.told else {}),
            **({"teacher_precision": bits} if (bits := self.options.teacher_precision) != "float32" else {}),
            **({"teacher_spread": True} if sharding.is_spread(self.teacher) else {}),
            **teaching.told(self.options, self.domains[0].rows),
            "logits": {
                name: "in chunks" if isinstance(reader, ChunkedStudent) else "whole"
                for name, reader in self.readers.items()
            },
            "steps": self.steps, "batch": self.options.batch, "length": self.options.length, "interrupted": False,
        }  # fmt: skip


def distil(options: LanguageOptions) -> LanguageDistilled:
    """Distils as the options say and writes the student's folder.

    Returns:
      `method`, `settings`, `teacher`, `student`, `parameters`, `data` (what was read, dropped, cut and held out),
      `steps`, `perplexity` (held-out data: student at the `start` and at the `end`, `teacher`), `agreement` (share of
      held-out tokens at which teacher and student have the same likeliest token), `evaluation`, `vllm` (see
      `serving.servable`), `minutes`, `out`. `interrupted` where
      Ctrl-C ended it. With `plan` or `dry_run` what those say, and no student.

    Raises:
      InputError: options, models, data or a folder that cannot be used.
    """
    options = from_file(options)
    load_silently()
    try:
        _check(options)
        if options.dry_run or options.plan:
            makeable(options.out)
            run = prepare(options)
            return LanguageDistilled.of({**run.about(), **(measured_plan(run) if options.plan else {"dry_run": True})})
        folder = options.out / RUN
        processes = connected()
        first = processes.is_main_process
        with begins(folder) if first else nullcontext(), runs.stopping():
            found = LanguageDistilled.of(_run(options, folder, processes))
        if not first:  # one of them says what came of it
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (to the process's end)
        return found
    except DistillError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot write to {options.out}: {error.strerror or error}") from error


def _run(options: LanguageOptions, folder: Path, processes: PartialState) -> dict[str, Any]:
    kept, first = {"options": _decisive(options)}, processes.is_main_process
    begun = read_begun(folder, "perplexity", float), newest(folder) is not None
    known, foreign = everybody(processes, begun)[0]  # one may write while another looks
    defaults = {name: plain(getattr(LanguageOptions, name)) for name in kept["options"]}
    check_begun(options.out, folder, known, foreign, options.resume, kept["options"], defaults)
    run = prepare(options)
    found = run.about()
    if first and known is None:
        runs.say_begun(options.resume, options.out)
    if first:
        _say(found)
    found |= {"out": str(options.out), "minutes": 0.0, "perplexity": {}}
    generations = run.method.generations(run.settings)
    start = {name: tensor.clone() for name, tensor in run.student.state_dict().items()} if generations > 1 else {}
    tracker: Tracked | None = None
    for generation in range(generations):
        if generations > 1:
            folder = options.out / RUN / f"generation_{generation + 1}"
        if generation:
            run.teacher = copy.deepcopy(run.student)
            run.readers = {**run.readers, "teacher": _reader(run.teacher, len(run.tokenizer), run.domains[0].rows)}
            run.student.load_state_dict(start)
        learning = run if generation or generations == 1 else replace(run, settings=replace(run.settings, alpha=0.0))
        distiller, stage = loop(learning, folder, options.resume)
        found |= {"found": dict(stage.found)} if stage.found else {}
        if not generation:
            found["perplexity"]["start"] = perplexity(run, "student") if known is None else known.start
            if options.wandb is not None and first:
                tracker = Tracked(options.wandb, options.out / RUN, options.out.name, kept["options"])
            if known is None and first:  # what cannot be put together leaves no run behind
                write_json(options.out / RUN / OPTIONS, {**kept, "perplexity": found["perplexity"]["start"]})
        if tracker is not None:
            distiller.tracker, tracker.before = tracker, generation * run.config.total_steps
        summary = distiller.run()
        found |= {"minutes": found["minutes"] + summary["minutes"], "interrupted": summary["interrupted"]}
        if summary["interrupted"]:
            if tracker is not None:
                tracker.finish({}, interrupted=True)
            return {name: value for name, value in found.items() if name != "perplexity"}
        best = load_best(distiller.folder, stage.student)
        found |= {
            "best_round": best["round"], "rounds": summary["rounds"], "teacher_hacking": summary["teacher_hacking"],
            "measured": summary["measured"],
        }  # fmt: skip
        found["perplexity"]["end"] = perplexity(run, "student")
        if generations > 1:
            found["perplexity"][f"generation {generation + 1}"] = found["perplexity"]["end"]
    if run.teacher is not None:
        found["perplexity"]["teacher"] = perplexity(run, "teacher")
        found["agreement"] = agreement(run)
    with sharding.led(run.teacher, first) as leads:
        if leads:
            found["evaluation"] = evaluated(run)
            save(run, found, folder)
            if options.lm_eval:  # the folder is whole by now, whatever becomes of them
                found["lm_eval"] = harness.asked(options.lm_eval, models_of(run), run.tokenizer, options.lm_eval_limit)
                describe(run, found)
            if tracker is not None:
                tracker.finish({f"perplexity/{name}": value for name, value in found["perplexity"].items()})
    processes.wait_for_everyone()
    return found


def _check(options: LanguageOptions) -> None:
    if launched() > 1 and (options.plan or options.dry_run):
        raise DistillError("--plan and --dry-run run in one process: start them without accelerate launch or torchrun")
    if not options.student:
        raise DistillError("there is no student: give --student MODEL, a config or prune:SPEC")
    if not options.data:
        raise DistillError("there are no data: give --data PATH")
    if options.weights and len(options.weights) != len(options.data):
        raise DistillError(f"there are {len(options.weights)} --weights for {len(options.data)} paths of --data")
    for path in options.data:
        if not str(path).startswith(HUB) and not path.exists():
            raise DistillError(f"the data {path} do not exist")
    require_different(options.data)
    if options.wandb is not None:
        require_wandb()
    if options.lm_eval:
        harness.open_tasks(options.lm_eval)
    require_bits(options.teacher_precision)
    _method(options)
    if not _finished(options):
        teaching.require_server(options)


def _finished(options: LanguageOptions) -> bool:
    """Whether the run that is resumed has nothing left to ask of a server."""
    return options.resume and (options.out / SUMMARY).is_file()


def _method(options: LanguageOptions) -> tuple[Method, MethodOptions]:
    """The method and its settings. Raises `DistillError` or `InputError` for options that it would ignore."""
    method = find(options.method)
    settings = method.settings({name: getattr(options, name) for name in OPTION_NAMES})
    method.refuse_unused(options, settings)
    return method, settings


def _decisive(options: LanguageOptions) -> dict[str, Any]:
    return {name: value for name, value in plain(asdict(options)).items() if name not in FREE}


def prepare(options: LanguageOptions) -> Run:
    """Reads models and data, and checks that they fit together. Raises `DistillError` where they do not."""
    method, settings = _method(options)
    method.check(len(options.data))
    options = _with_teacher(options, method, settings)
    teaching.check(options, method, settings)
    routed = teaching.routes(options, method, settings)
    route = options.route if routed else ""
    readings = [(str(path), read_examples(path, options.limit, route)) for path in options.data]
    here = [*routed.values()] if routed else [options.teacher] if options.teacher and not options.teacher_url else []
    parts = not routed and spreads(options, method, settings)
    cuts = options.student.startswith(PRUNE)  # a student out of a teacher, which is whole for that long
    opened = open_spread if parts and not cuts else open_teacher
    teachers = [opened(source, options.teacher_precision) for source in here]
    if method.aligns and cuts:
        raise DistillError(f"a student that is cut from its teacher has its tokens: {method.name} is for others")
    sharing = [] if method.aligns else here  # teachers that have the student's tokens
    tokenizer = open_tokenizer(options.tokenizer or (sharing or [options.student])[0])
    for source in sharing if options.tokenizer else sharing[1:]:
        require_same_tokens(open_tokenizer(source), tokenizer)
    student, origin = open_student(
        options.student, teachers[0] if teachers else None, tokenizer, options.seed,
        lambda: _some(readings, tokenizer, options.length),
    )  # fmt: skip
    if parts and cuts:
        teachers = [spread(teachers[0])]
    teacher = Several(teachers) if routed else teachers[0] if teachers else None
    if not tokenizer.chat_template:
        tokenizer.chat_template = TEMPLATE
    vocabulary = len(tokenizer)
    reference = None
    if method.choose is not None:
        assert options.reference is not None
        require_same_tokens(tokenizer, open_tokenizer(options.reference))
        reference = load(options.reference, dtype=torch.float32)
    models = [model for model in (*teachers, student, reference) if model is not None]
    for model in models:
        context = context_of(model)
        if context and options.length > context and not (method.aligns and model is teacher):
            raise DistillError(f"a length of {options.length} is beyond the {context} tokens of a model's context")
        on_device(model)
    writes = method.student_writes(settings) + method.teacher_writes(settings) > 0
    apart = writes or method.rewrites or method.aligns or method.views is not None
    packed = not options.no_pack and not apart and all(packs(model, vocabulary) for model in models)
    if method.convert is not None:
        rng = np.random.default_rng([options.seed, 32])
        for _, reading in readings:
            converted = method.convert(reading.examples, rng, settings)
            if None in converted:
                reading.dropped[f"nothing that {method.name} reads"] += list(converted).count(None)
            reading.examples = [example for example in converted if example is not None]
    names = list(routed)
    theirs = open_tokenizer(here[0]) if method.aligns else None

    def encoder() -> Encoder:
        if theirs is None:
            return Encoder(tokenizer, options.length)
        return AlignedEncoder(tokenizer, options.length, theirs, context_of(teacher))

    splits = [_split(name, reading, encoder(), options, writes, method, names) for name, reading in _named(readings)]
    if reference is not None and not options.dry_run:
        found = {"teacher": teacher, "reference": reference, "read": causal(vocabulary), "length": options.length}
        _choose(splits, method, settings, found)
    domains = [_laid(split, options, packed, tokenizer.pad_token_id) for split in splits]
    told: dict[str, float] = {}
    if theirs is not None:
        domains, told = _likelihoods(domains, splits, teacher, theirs, asks=not (options.dry_run or options.plan))
        teacher = None  # what it thinks of the rows stands in them
    units = sum(len(d.prompts) if writes else len(d.rows["tokens"]) for d in domains)
    steps = options.steps or max(math.ceil(options.epochs * units / options.batch), 1)
    rounds = min(options.rounds, steps)
    each = steps // rounds
    processes = launched()
    shared = processes > 1 and not (writes or method.rewrites)  # rows that are written anew are each process's own
    batch = options.batch if shared else max(options.batch // processes, 1)
    if options.gradient_checkpointing:
        checkpoint_gradients(student)
    if options.lora:
        student = with_adapters(student, options.lora, options.lora_alpha or 2.0 * options.lora, options.seed)
    config = LoopConfig(
        rounds=rounds - 1, first_rows=(steps - (rounds - 1) * each) * batch, rows=each * batch,
        first_steps=steps - (rounds - 1) * each, steps=each, batch=batch, learning_rate=options.learning_rate,
        micro_batch=options.micro_batch, shared=shared,
        last_learning_rate=options.learning_rate / 10, warmup=min(options.warmup, steps), smoothing=0.0,
        weight_decay=options.weight_decay, held_out=MEASURED, precision=options.precision, seed=options.seed,
        checkpoint_minutes=options.checkpoint_minutes,
    )  # fmt: skip
    rows = config.micro_batch or (batch // processes if shared else batch)
    wide = options.length if packed or writes else domains[0].rows["tokens"].shape[1]
    require_memory(student, min(rows, batch), wide)
    named = {name: model for name, model in (("student", student), ("teacher", teacher)) if model is not None}
    readers = {name: _reader(model, vocabulary, domains[0].rows) for name, model in named.items()}
    run = Run(
        options, method, settings, teacher, student, origin, tokenizer, domains, packed, steps, config,
        causal(vocabulary), readers, RecordedSpans() if method.aligns else None, told,
    )  # fmt: skip
    if not options.dry_run:
        _narrow(run)
    return run


def _narrow(run: Run) -> None:
    """Gives the run a teacher that tells its likeliest tokens alone, where the options say so."""
    options, temperature = run.options, run.settings.temperature
    if isinstance(run.teacher, Several):
        run.signal = teaching.of_each(run.teacher, len(run.tokenizer), run.domains[0].rows)
        return
    if options.teacher_url is not None:
        if not _finished(options):
            teaching.require_scores(options, run.tokenizer, run.domains[0].rows)
        run.signal = teaching.scored(options, run.tokenizer)
        return
    if run.teacher is not None and options.teacher_top_k:
        reader, vocabulary = run.readers["teacher"], len(run.tokenizer)
        run.signal = teaching.likeliest_of(
            run.teacher, reader, run.read, vocabulary, options.teacher_top_k, temperature
        )
    if options.cache is not None and not options.plan:
        processes = connected()
        device = next(run.student.parameters()).device
        kept = run.domains, run.signal, options, run.tokenizer, temperature, device
        if sharding.is_spread(run.teacher) and run.signal is not None:
            run.signal.fingerprint()  # in all processes; it is known from then on
            with sharding.led(run.teacher, processes.is_main_process) as leads:
                if leads:
                    teaching.recorded(*kept)
        with processes.main_process_first():  # others read what it wrote
            run.signal, run.domains = teaching.recorded(*kept)


def _some(readings: Sequence[tuple[str, Reading]], tokenizer: Any, length: int, rows: int = 32) -> Any:
    """Batches of some rows of each path, by which a student is cut from its teacher."""
    encoder = Encoder(tokenizer, length)
    each = max(rows // len(readings), 1)
    found = [[part for e in reading.examples[:rows] for part in encoder.encode(e)][:each] for _, reading in readings]
    laid = padded_rows([row for some in found for row in some], length, tokenizer.pad_token_id)
    return batches({name: laid[name] for name in ("tokens", "mask")}, 4)


def _with_teacher(options: LanguageOptions, method: Method, settings: MethodOptions) -> LanguageOptions:
    """With the one of the candidates that the method chooses; raises `DistillError` where there must be a teacher."""
    if options.candidates:
        if method.name != "capacity_gap" or options.teacher is not None:
            raise DistillError("--candidates are for the method capacity_gap, in place of --teacher")
        student, *teachers = sizes([options.student, *options.candidates])
        options = replace(options, teacher=options.candidates[chosen(student, teachers)], candidates=())
    alone = options.teacher is None and not options.teachers and not teaching.cached(options.cache)
    if alone and method.needs_teacher(settings):
        raise DistillError(f"the method {method.name} needs --teacher")
    if (options.reference is None) != (method.choose is None):
        raise DistillError(f"the method {method.name} {'takes no' if method.choose is None else 'needs a'} --reference")
    return options


def _named(readings: Sequence[tuple[str, Reading]]) -> list[tuple[str, Reading]]:
    """Domains by the last part of their paths, numbered where two are equal."""
    names = [printable((Path(path).stem or path).replace(":", "_").replace(",", "_")) for path, _ in readings]
    named: dict[str, Reading] = {}
    for i, (name, (_, reading)) in enumerate(zip(names, readings, strict=True)):
        number, own = i, name
        while names.count(name) > 1 and own in (*names, *named):
            own, number = f"{name}_{number}", number + len(names)
        named[own] = reading
    return [*named.items()]


@dataclass
class Split:
    """One path of the data as tokens, before rows are laid out."""

    name: str
    trained: list[Encoded]
    held_out: list[Encoded]
    prompts: list[list[int]]
    examples: int
    dropped: Counter[str]
    cut: Counter[str]
    files: Mapping[str, str]
    views: int = 1
    """Rows of each example, one after the other, in `trained` and `held_out`."""
    chosen: int | None = None
    """Of `trained` before a method chose from it: how many it left."""
    whose: Sequence[int] = ()
    """Of each prompt, which of several teachers it is."""


def _split(
    name: str, reading: Reading, encoder: Encoder, options: LanguageOptions, writes: bool, method: Method,
    teachers: Sequence[str] = (),
) -> Split:  # fmt: skip
    rng = np.random.default_rng([options.seed, 31])
    rows: dict[bool, list[Encoded]] = {False: [], True: []}
    prompts: list[list[int]] = []
    asked: list[int | None] = []
    encoded: list[tuple[Example, list[Encoded]]]
    if method.views is None:
        encoded = [(e, encoder.encode(e)) for e in reading.examples]
    else:
        encoded = [(e, _viewed(e, encoder, method)) for e in reading.examples]
    whose: list[int | None] = [None] * len(encoded)
    if teachers:
        whose = teaching.places(name, reading.routes, teachers)
        encoded = [
            (e, [replace(part, teacher=which) for part in parts])
            for (e, parts), which in zip(encoded, whose, strict=True)
        ]
    usable = [(example, parts) for example, parts in encoded if parts]
    whole = len(usable)
    if whole == 1 and len(usable[0][1]) > 1 and method.views is None:  # one long text: its pieces are held out
        usable = [(usable[0][0], [part]) for part in usable[0][1]]
    if len(usable) < 2:
        why = ", ".join(encoder.dropped) or "one example"
        raise DistillError(f"{name}: nothing is left to train on beside what is held out ({why})")
    held = set(rng.permutation(len(usable))[: max(round(options.held_out * len(usable)), 1)].tolist())
    dropped = reading.dropped + encoder.dropped
    for i, (example, parts) in enumerate(usable):
        rows[i in held] += parts
        if writes and i not in held:
            prompt = encoder.prompt(example)
            if 0 < len(prompt) <= options.length + 1 - options.new_tokens:
                prompts.append(prompt)
                asked.append(parts[0].teacher)
            else:
                dropped["a prompt leaves no room for an answer"] += 1
    if writes and not prompts:
        raise DistillError(f"{name}: no prompt leaves room for {options.new_tokens} tokens in {options.length}")
    each = len(usable[0][1]) if method.views is not None else 1
    return Split(
        name, rows[False], rows[True][: MEASURED * each], prompts, whole, dropped, encoder.cut, reading.files, each,
        whose=[which for which in asked if which is not None],
    )  # fmt: skip


def _viewed(example: Example, encoder: Encoder, method: Method) -> list[Encoded]:
    """One row for each view of the example, or none where it lacks one or does not fit; what is left out is counted."""
    assert method.views is not None
    views = method.views(example)
    if views is None:
        encoder.dropped[f"nothing that {method.name} reads beside the answer"] += 1
        return []
    rows = [encoder.encode(view) for view in views]
    if any(len(parts) > 1 for parts in rows):
        encoder.dropped["more rows than one"] += 1
    return [parts[0] for parts in rows] if all(len(parts) == 1 for parts in rows) else []


def _laid(split: Split, options: LanguageOptions, packed: bool, pad: int) -> Domain:
    lay, each = packed_rows if packed else padded_rows, split.views
    kept = [lay(split.trained[view::each], options.length, pad) for view in range(each)]
    test = [padded_rows(split.held_out[view::each], options.length, pad) for view in range(each)]
    if not packed:  # models without positions learn as well
        kept, test = (
            [{key: values for key, values in part.items() if key != "positions"} for part in parts]
            for parts in (kept, test)
        )
    return Domain(
        split.name, kept[0], test[0], split.prompts, split.whose, kept[1:], test[1:], examples=split.examples,
        dropped=split.dropped, cut=split.cut, files=split.files, chosen=split.chosen,
    )  # fmt: skip


def _likelihoods(
    domains: Sequence[Domain], splits: Sequence[Split], teacher: Any, tokenizer: Any, asks: bool
) -> tuple[list[Domain], dict[str, float]]:
    """Domains with what a teacher of another tokenizer thinks of their pieces, where it is asked; and in figures the
    number of `pieces`, the share of the learned tokens that are `in_pieces`, the teacher's `nats` for one of those."""
    reader, console = _reader(teacher, len(tokenizer)), Console(stderr=True)
    found: list[Domain] = []
    sums: Counter[str] = Counter()
    for domain, split in zip(domains, splits, strict=True):
        parts: list[Rows] = []
        for rows, encoded in ((domain.rows, split.trained), (domain.held_out, split.held_out)):
            some = encoded if asks else [replace(row, told=()) for row in encoded]
            part, counted = with_likelihoods(rows, some, teacher, reader, tokenizer.pad_token_id, console)
            parts.append(part)
            sums.update({**counted, "learned": int(rows["mask"].sum())})
        found.append(replace(domain, rows=parts[0], held_out=parts[1]))
    if not asks:
        return found, {}
    if not sums["pieces"]:
        raise DistillError("teacher and student split none of the data so that a piece of it begins and ends in both")
    share, nats = sums["tokens"] / sums["learned"], sums["nats"] / sums["tokens"]
    return found, {"in_pieces": share, "pieces": sums["pieces"], "nats": nats}


def _choose(splits: Sequence[Split], method: Method, settings: MethodOptions, run: Mapping[str, Any]) -> None:
    """Leaves those rows of all domains that the method chooses by `run`: `teacher`, `reference`, `read`, `length`."""
    assert method.choose is not None
    every = [row for split in splits for row in split.trained]
    rows = padded_rows(every, run["length"], 0)
    rows = {name: rows[name] for name in ("tokens", "mask")}
    teacher, reference = (log_probs(run[who], run["read"], rows, 8) for who in ("teacher", "reference"))
    kept = set(method.choose(teacher[0], reference[0], teacher[1], settings).tolist())
    at = 0
    for split in splits:
        count = len(split.trained)
        split.trained = [row for place, row in enumerate(split.trained, at) if place in kept]
        split.chosen, at = len(split.trained), at + count
    empty = [split.name for split in splits if not split.trained]
    if empty:
        raise DistillError(f"nothing of {', '.join(empty)} is chosen: leave it out, or keep more")


def _breaks(tokenizer: Any) -> list[int]:
    """Ids of tokens without a letter or digit."""
    return [i for i in range(len(tokenizer)) if not any(c.isalnum() for c in tokenizer.decode([i]))]


def loop(run: Run, folder: Path, resume: bool = False, quiet: bool = False) -> tuple[Distiller, Stage]:
    """The core's loop over the stage that the method makes of the run, fresh or restored."""
    material = run.material
    stage, sizes = run.method.build(material, run.settings), material.sizes

    def evaluate(learner: Student) -> dict[str, float]:
        nats = {d.name: nats_per_token(learner.module, run.readers["student"], d.held_out, 8) for d in run.domains}
        mean = float(np.average(list(nats.values()), weights=sizes))
        each = {f"perplexity/{name}": math.exp(min(value, 50)) for name, value in nats.items()}
        return {"golden": -mean, **(each if len(each) > 1 else {"perplexity": math.exp(min(mean, 50))})}

    console = Console(stderr=True, quiet=quiet)
    distiller = Distiller(
        stage.student, stage.objective, stage.teacher, stage.collectors, stage.sampler, folder, run.config, evaluate,
        resume, console, stage.mixture,
    )  # fmt: skip
    return distiller, stage


def _reader(model: Any, vocabulary: int, rows: Rows | None = None) -> Student:
    """Chunk by chunk where that gives the model's own logits on some of the data, or on any tokens where there are
    none of its own; as a whole where it does not."""
    if isinstance(model, Several):
        return ModelStudent(model, causal(vocabulary))
    return read_in_parts(model, vocabulary, None if rows is None else torch.from_numpy(rows["tokens"][:2, :65]))


def perplexity(run: Run, who: str) -> float:
    """Of `student` or `teacher` on all held-out rows, over the tokens that are learned."""
    model, reader = getattr(run, who), run.readers[who]
    sizes = [int(domain.held_out["mask"].sum()) for domain in run.domains]
    nats = [nats_per_token(model, reader, domain.held_out, 8) for domain in run.domains]
    return math.exp(min(float(np.average(nats, weights=sizes)), 50))


def agreement(run: Run) -> float:
    """Share of the held-out tokens that are learned at which teacher and student have the same likeliest token."""
    right, count = 0, 0
    for domain in run.domains:
        theirs, ours = (
            likeliest(getattr(run, who), run.readers[who], domain.held_out, 8)[0] for who in ("teacher", "student")
        )
        mask = domain.held_out["mask"]
        right, count = right + int((theirs == ours)[mask].sum()), count + int(mask.sum())
    return right / max(count, 1)


def models_of(run: Run) -> dict[str, Any]:
    """Student and, where there is one, teacher."""
    return {name: model for name, model in (("student", run.student), ("teacher", run.teacher)) if model is not None}


def evaluated(run: Run) -> dict[str, Any]:
    """Student and teacher on each domain's held-out rows, in speed and in size; see `evaluation.measured`."""
    models = models_of(run)
    how = run.material.writing
    writing = {name: getattr(how, name) for name in ("vocabulary", "ends", "pad")}
    rows = run.domains[0].held_out
    return {
        "domains": {
            domain.name: {
                name: measured(
                    model, run.readers[name], domain.held_out, None if isinstance(model, Several) else writing
                )
                for name, model in models.items()
            }
            for domain in run.domains
        },
        "speed": {name: speed(model, run.readers[name], rows) for name, model in models.items()},
        "megabytes": {
            name: sum(p.numel() * p.element_size() for p in model.parameters()) / 1e6 for name, model in models.items()
        },
        "device": str(run.student.device),
    }  # fmt: skip


def save(run: Run, found: dict[str, Any], folder: Path) -> None:
    """The student's folder: weights, config, generation config, tokenizer, chat template, card, summary, curve.

    `found` is told what vLLM knows of it.
    """
    out, tokenizer = run.options.out, run.tokenizer
    ends = end_tokens(run.student, tokenizer)
    student = run.student = merged(run.student)
    student.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id, do_sample=True,
    )  # fmt: skip
    student.save_pretrained(out)
    tokenizer.save_pretrained(out)
    found["vllm"] = servable(out)
    Journal(folder).plot(f"{run.method.name}: {type(student).__name__}")
    if (folder / "curve.png").is_file():
        shutil.copyfile(folder / "curve.png", out / "curve.png")
    describe(run, found)


def describe(run: Run, found: Mapping[str, Any]) -> None:
    """Summary and card."""
    write_json(run.options.out / SUMMARY, plain(found))
    write_card(run.options.out, run.options, found)


def measured_plan(run: Run, steps: int = 4) -> dict[str, Any]:
    """What a run would take, from a few steps of it in a folder that is then deleted; the student is not kept.

    Returns:
      `seconds_per_step` (median), `minutes` of fitting in all, `tokens` that are learned, `peak_gb` of this process or
      its device, `training_gb` (16 bytes a parameter: weights, gradients, both moments).
    """
    if run.teacher is None and run.method.generations(run.settings) > 1:
        teacher = copy.deepcopy(run.student)
        read = _reader(teacher, len(run.tokenizer), run.domains[0].rows)
        run = replace(run, teacher=teacher, readers={**run.readers, "teacher": read})
    batch = run.options.batch
    config = timed_config(run.config, steps, batch)
    with tempfile.TemporaryDirectory() as folder:
        distiller, _ = loop(replace(run, config=config), Path(folder) / RUN, quiet=True)
        each = seconds_per_step(distiller)
    density = sum(d.learned for d in run.domains) / max(sum(len(d.rows["tokens"]) for d in run.domains), 1)
    return {
        "plan": True, "seconds_per_step": each, "minutes": each * run.steps * run.method.generations(run.settings) / 60,
        "tokens": round(density * batch * run.steps), "peak_gb": peak_bytes() / 1e9,
        "training_gb": 16 * parameters(run.student) / 1e9,
    }  # fmt: skip


def _say(found: Mapping[str, Any]) -> None:
    """What was read and what was left out, on standard error."""
    data, console = found["data"], Console(stderr=True)
    packed = ", several examples a row" if data["packed"] else ""
    console.print(
        f"{data['examples']} examples, {data['rows']} rows{packed}, {data['learned_tokens']} tokens to learn, "
        f"{data['held_out_rows']} rows held out; {found['steps']} steps",
        highlight=False,
        soft_wrap=True,
    )
    for what in ("dropped", "cut"):
        for reason, count in data[what].items():
            console.print(f"{what}: {count}, {reason}", highlight=False, soft_wrap=True)
