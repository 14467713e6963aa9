"""What `barkour distill language` is asked for. Light to import: the front door shows it without PyTorch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from distill.language.trained_options import Rate, Share, TrainedOptions
from sim import strict_yaml
from sim.errors import InputError
from sim.options import Options, Range, Seed, flag, types_in


@dataclass(frozen=True, kw_only=True)
class LanguageOptions(Options):
    """Distil a language model into a smaller one on own text or chats, into a folder that transformers loads."""

    config: Path | None = None
    """YAML file of these options by their names (new_tokens: 64); beside it only --resume, --plan and --dry-run"""
    teacher: str | None = None
    """folder, .gguf file or published name of a causal model; only the method labels does without"""
    teachers: tuple[str, ...] = ()
    """several teachers of one tokenizer in place of --teacher, as NAME=MODEL each; a column of the data says whose an
    example is"""
    route: str = "teacher"
    """the column that holds the name of one of --teachers"""
    teacher_url: str | None = None
    """address of a server, such as vLLM's http://HOST:8000/v1, that knows --teacher by its name and scores texts: the
    data's tokens and the student's own are sent to it as ids"""
    teacher_key: str | None = None
    """environment variable that holds the server's key"""
    teacher_precision: Literal["float32", "bf16", "int8", "nf4"] = "float32"
    """in which a teacher is kept here: float32, half of that (bf16), or 8 and 4 bits by bitsandbytes (extra quantized),
    embeddings and output layer in bf16"""
    teacher_top_k: Annotated[int, Range(0, 10**5)] = 0
    """learn from so many of the teacher's likeliest tokens and the mass of all others; 0: from all, of a server from
    20"""
    cache: Path | None = None
    """folder where the teacher's likeliest tokens are kept, block by block, for later epochs and other students; where
    all are kept no --teacher is needed, on another machine either"""
    tokenizer: str | None = None
    """folder or published name, where neither teacher nor student come with one"""
    candidates: tuple[str, ...] = ()
    """capacity_gap: teachers in place of --teacher, of which the one nearest to 2.5 times the student is taken"""
    reference: str | None = None
    """miniplm: folder or published name of a small model that has not learned these data"""
    student: str = ""
    """folder or published name of a model; a config (its JSON file, or a folder without weights) for random weights; or
    prune:layers=N,width=W,inner=I,heads=H (any of them) for so much of the teacher, by importance on the data"""
    data: tuple[Path, ...] = ()
    """files or folders of text or chats: JSONL, JSON, CSV, Parquet, text; folders that datasets saved; or
    datasets:NAME, datasets:NAME:SPLIT and datasets:NAME,CONFIG:SPLIT, which are downloaded; each is a domain"""
    weights: tuple[Annotated[float, Range(0, 10**9, above=True)], ...] = ()
    """one for each path of --data: how much is drawn from it; without them by its tokens; ddk finds its own"""
    limit: Annotated[int, Range(0, 10**9)] = 0
    """examples of each path that are read, what comes after them is not; 0: all"""
    out: Path = Path("runs/student")
    """folder for the student, as transformers loads it, and for its run"""
    method: Literal[
        "kd",
        "gkd",
        "reverse_kl",
        "sequence_kd",
        "labels",
        "hidden_states",
        "alm",
        "ddk",
        "sinkd",
        "teacher_hacking",
        "capacity_gap",
        "miniplm",
        "first",
        "step_by_step",
        "self_distillation",
        "multi_granularity",
        "universal_ner",
        "nesycd",
        "frontier_synthetic",
    ] = "kd"
    """what is learned from: the data and the teacher's distribution over them (kd), its hidden states too
    (hidden_states), the student's own answers in part (gkd) or alone (reverse_kl), the teacher's answers (sequence_kd),
    the data alone (labels), how likely a teacher with other tokens finds pieces of the data (alm), or a published
    method by its name, as barkour recipe show NAME describes it"""
    resume: bool = False
    """continue the run in --out"""
    plan: bool = False
    """measure a few steps and say what the run would take, in place of running it"""
    dry_run: bool = False
    """read and check everything, train nothing, write nothing"""
    seed: Seed = 0
    """of random weights, held-out data, batches and what is written"""
    epochs: Annotated[float, Range(0, 1000, above=True)] = 1.0
    """passes over the data, or over their prompts where answers are written"""
    steps: Annotated[int, Range(0, 10**7)] = 0
    """optimiser steps in place of --epochs; 0: as the epochs say"""
    batch: Annotated[int, Range(1, 2**16)] = 8
    """rows in a batch, of all processes together"""
    micro_batch: Annotated[int, Range(0, 2**16)] = 0
    """rows that are computed at once, so that large batches fit; 0: the whole batch"""
    gradient_checkpointing: bool = False
    """keep less of the student's forward pass and compute it again: less memory, more time"""
    lora: Annotated[int, Range(0, 10**4)] = 0
    """rank of adapters that are trained in place of the weights, and merged into them at the end; 0: all weights"""
    lora_alpha: Annotated[float, Range(0, 10**4)] = 0.0
    """scale of the adapters; 0: twice the rank"""
    length: Annotated[int, Range(2, 2**20)] = 512
    """tokens of a row that are predicted; longer texts become several rows, longer answers are cut and counted"""
    no_pack: bool = False
    """a row of its own for every example; without it several share one, kept apart, where the models can and the method
    writes on none and learns one text of each"""
    rounds: Annotated[int, Range(1, 1000)] = 8
    """times that the student is measured on held-out data, and that answers are written anew"""
    held_out: Annotated[float, Range(0, 0.9, above=True)] = 0.05
    """share of each domain's examples that is never trained on, one at least"""
    learning_rate: Rate = 2e-4
    """largest, after the warm-up; it falls to a tenth along a cosine"""
    warmup: Annotated[int, Range(0, 10**7)] = 20
    """optimiser steps in which the learning rate rises"""
    weight_decay: Share = 0.01
    """of AdamW"""
    alpha: Share | None = None
    """weight of the teacher (kd, hidden_states, alm, ddk, sinkd, capacity_gap), of rationales (step_by_step) or of the
    generation before (self_distillation); the data's answers have the rest, in ddk 1; without it 0.5, of ddk 0.2, of
    sinkd 0.9"""
    temperature: Annotated[float, Range(0, 100, above=True)] | None = None
    """of methods with a teacher's distribution: both models' logits are divided by it, in alm what both say of a piece;
    without it 1, of sinkd 2, of alm 100"""
    beta: Annotated[float, Range(0.001, 0.999)] | None = None
    """gkd: near 0 as the forward, near 1 as the reverse divergence; without it 0.5"""
    on_policy: Share | None = None
    """gkd, teacher_hacking: share of the rows that the student writes; without it 0.5, of teacher_hacking 0"""
    smoothing: Share | None = None
    """ddk: share of the mixture that follows the student's lag; the rest is spread evenly over the domains;
    without it 0.5"""
    weight: Annotated[float, Range(0, 1000)] | None = None
    """of the Sinkhorn distance (sinkd), the correlation inside phrases (multi_granularity), the hidden states
    (hidden_states), or each task beside the first (nesycd); without it 0.2, of multi_granularity 1, of hidden_states 1,
    of nesycd 0.5"""
    keep: Rate | None = None
    """miniplm: share of the rows that is learned from; without it 0.5"""
    top_k: Annotated[int, Range(1, 10**6)] | None = None
    """first: tokens of the teacher's distribution at each position; without it 5"""
    negatives: Annotated[int, Range(0, 1000)] | None = None
    """universal_ner: questions in each text about types that it lacks; without it 4"""
    generations: Annotated[int, Range(1, 1000)] | None = None
    """self_distillation: times that the student is trained from its start, --steps or --epochs each; without it 3"""
    new_tokens: Annotated[int, Range(1, 2**17)] = 128
    """of methods whose models write (gkd, reverse_kl, sequence_kd, teacher_hacking, multi_granularity): tokens of an
    answer at most"""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """of the arithmetic in training: float32, or mixed; weights stay in float32"""
    wandb: str | None = None
    """Weights & Biases project that is shown what TensorBoard is (package wandb; WANDB_MODE=offline keeps it here)"""
    checkpoint_minutes: Annotated[float, Range(0, 24 * 60)] = 3.0
    """minutes between checkpoints: the most that an interruption can lose"""
    lm_eval: tuple[str, ...] = ()
    """tasks that student and teacher are measured on in the end (extra lm-eval): names of the harness's, which
    downloads their data, or YAML files of own ones"""
    lm_eval_limit: Annotated[int, Range(0, 10**9)] = 0
    """examples of each task; 0: all"""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.need_utf8("out")
        if not self.lm_eval:
            self.refuse(("lm_eval_limit",), "without --lm-eval")
        if self.steps:
            self.refuse(("epochs",), "beside --steps")
        if not self.lora:
            self.refuse(("lora_alpha",), "without --lora")
        if not self.teachers:
            self.refuse(("route",), "without --teachers")
        if self.teacher_url is not None or not (self.teacher or self.teachers or self.candidates):
            self.refuse(("teacher_precision",), "without a teacher here")
        if self.dry_run:
            self.refuse(("plan",), "with --dry-run")
        if self.teacher_url is not None and not re.fullmatch(r"https?://[^\s/?#]+[^\s]*", self.teacher_url):
            raise InputError(f"--teacher-url must be an address such as http://HOST:8000/v1, got {self.teacher_url!r}")


@dataclass(frozen=True)
class CardOptions(Options):
    """Write the model card of a finished student's folder anew, as after its name or its files were changed."""

    folder: Path
    """what barkour distill language, classifier, tagger or another of them was given as --out"""


@dataclass(frozen=True)
class MeasureOptions(Options):
    """Measure a finished student, and its teacher where it is here, on tasks of lm-eval, and write it into the card; a
    recommender on patients in files, one that sees on rows with images."""

    folder: Path
    """what barkour distill language, recommender or vision was given as --out"""
    tasks: tuple[str, ...]
    """names of the harness's tasks, which downloads their data, or YAML files of own ones (extra lm-eval); files or
    folders of patients for a recommender, of rows for one that sees"""
    limit: Annotated[int, Range(0, 10**9)] = 0
    """examples of each of lm-eval's tasks, rows with images; 0: all"""


@dataclass(frozen=True, kw_only=True)
class ClassifierOptions(TrainedOptions):
    """Distil a text classifier into a smaller one on own labelled texts, into a folder that transformers loads."""

    teacher: str | None = None
    """kd, sinkd, ernie_tiny: folder or published name of a classifier of the same classes"""
    student: str = ""
    """folder or published name of a model, with or without a classifier's head, or a config for random weights"""
    data: tuple[Path, ...] = ()
    """files or folders of rows with a text and its label (or category): CSV, JSONL, JSON, Parquet"""
    test: Path | None = None
    """the same, never used but for the figures at the end; without it those are of the held-out rows"""
    out: Path = Path("runs/classifier")
    """folder for the student, as transformers loads it, and for its run"""
    method: Literal["labels", "kd", "sinkd", "self_distillation", "pgkd", "ernie_tiny"] = "kd"
    """what is learned from: labels alone, labels and the teacher's distribution (kd), a distance over the whole batch
    beside both (sinkd), the student before (self_distillation), texts that --writer is asked for (pgkd), or states and
    attention in four stages (ernie_tiny)"""
    pretrained: str | None = None
    """ernie_tiny: folder or published name of what the teacher was before it learned the task"""
    general: tuple[Path, ...] = ()
    """ernie_tiny: files or folders of plain text, without labels"""
    writer: str | None = None
    """pgkd: folder or published name of a causal model that writes texts after examples"""
    texts: Annotated[int, Range(1, 10**5)] = 32
    """pgkd: texts that are asked for in every round"""
    seed: Seed = 0
    """of random weights, held-out rows, batches and what is written"""
    length: Annotated[int, Range(4, 2**16)] = 128
    """tokens of a text at most; what is longer is cut and counted"""
    rounds: Annotated[int, Range(1, 1000)] = 8
    """times that the student is measured on held-out rows, and that texts are written"""
    held_out: Annotated[float, Range(0, 0.9, above=True)] = 0.1
    """share of the rows that is never trained on, one at least; pgkd's report is on them"""
    alpha: Share | None = None
    """weight of the teacher, or of the student before; the labels have the rest; without it 0.5, of sinkd 0.9"""
    temperature: Annotated[float, Range(0, 100, above=True)] | None = None
    """kd, sinkd, ernie_tiny: both models' logits are divided by it; without it 1, of sinkd 2"""
    weight: Annotated[float, Range(0, 1000)] | None = None
    """sinkd: of the Sinkhorn distance; without it 0.2"""
    generations: Annotated[int, Range(1, 1000)] | None = None
    """self_distillation: times that the student is trained from its start; without it 3"""
    new_tokens: Annotated[int, Range(1, 2**16)] = 48
    """pgkd: tokens of a written text at most"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method != "pgkd":
            self.refuse(("texts", "new_tokens"), f"with --method {self.method}")


OF_THE_CALL = ("config", "resume", "plan", "dry_run")
"""Options that say what to do with a run, and are no part of it."""


def from_file(options: LanguageOptions) -> LanguageOptions:
    """The options with those of their `config` file in place; as they are where they name none.

    Raises:
      InputError: the file is none, has a key that is no option, a value of another kind, or stands beside options.
    """
    if options.config is None:
        return options
    values: Any = strict_yaml.read(options.config)
    if not isinstance(values, Mapping):
        raise InputError(f"{options.config} must hold options by their names, got {type(values).__name__}")
    own = {field.name: field.default for field in fields(options) if field.name not in OF_THE_CALL}
    beside = [name for name, default in own.items() if getattr(options, name) != default]
    if beside:
        raise InputError(f"{flag(beside[0])} stands beside --config {options.config}: write it into the file")
    unknown = [key for key in values if key not in own]
    if unknown:
        raise InputError(f"{options.config}: there is no option '{unknown[0]}'; there are {', '.join(own)}")
    hints = get_type_hints(LanguageOptions, include_extras=True)
    given = {name: _converted(f"{options.config}: {name}", value, hints[name]) for name, value in values.items()}
    return replace(options, config=None, **given)


def _converted(where: str, value: Any, hint: Any) -> Any:
    """A value of a YAML file as the option's own type; ranges are checked by the options themselves."""
    if get_origin(hint) is tuple:
        items = value if isinstance(value, list) else [value]
        return tuple(_converted(where, item, get_args(hint)[0]) for item in items)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise InputError(f"{where} must be one of {', '.join(get_args(hint))}, got {value!r}")
        return value
    kinds = types_in(hint)
    if value is None and NoneType in kinds:
        return None
    if isinstance(value, str) and float in kinds and value.isascii() and "_" not in value and value == value.strip():
        try:
            return float(value)  # YAML takes 2e-4, without a point, for a text
        except ValueError:
            pass
    right = {Path: str, float: (int, float)}
    for kind in kinds:
        if isinstance(value, right.get(kind, kind)) and (kind is bool or not isinstance(value, bool)):
            return kind(value)
    names = " or ".join(
        {Path: "a path", str: "a text", int: "a whole number", float: "a number"}.get(k, "true or false")
        for k in kinds
        if k is not NoneType
    )
    raise InputError(f"{where} must be {names}, got {value!r}")
