"""Methods that anyone may call on models and data of their own.

A method says what a student learns from: losses with their weights, who writes the rows, and, where it has more to say,
how data are chosen and how the stage of the core's loop is put together. `distill.language.distil` runs it on a user's
models, the experiments beside it run it as their arms.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from typing import Any

import numpy as np

from distill.core.collect import Collector, Sampler, Student
from distill.core.errors import DistillError
from distill.core.mixture import Mixture
from distill.core.objectives.base import Objective, WeightedSum
from distill.core.objectives.buckets import bucketed
from distill.core.signals import TopKLogits
from distill.core.tables import Epochs, FixedDomain, Rows
from distill.core.teachers import Teacher, Teachers
from distill.language.examples import Example
from distill.language.inner import Inputs
from distill.language.models import Read
from distill.language.student import ModelStudent, Next, dense
from distill.language.writing import Written
from sim.options import Options

METHODS = (
    "kd", "gkd", "reverse_kl", "sequence_kd", "labels", "hidden_states", "alm", "ddk", "sinkd", "teacher_hacking",
    "capacity_gap", "miniplm", "first", "step_by_step", "self_distillation", "multi_granularity",
    "universal_ner", "nesycd", "frontier_synthetic",
)  # fmt: skip
"""Folders of this package, each with the `METHOD` of its `method.py`."""

CLASSIFIERS = ("labels", "kd", "sinkd", "self_distillation", "pgkd", "ernie_tiny")
"""Those that `barkour distill classifier` runs."""

Losses = Mapping[str, tuple[float, Objective]]
"""Name -> weight and objective. `labels` learns the rows' own tokens, every other name the teacher's distribution."""


@dataclass(frozen=True)
class MethodOptions:
    """Settings that methods share; each says which it reads, and what it takes where none is given."""

    alpha: float = 0.5
    """The teacher's weight; what the labels have is the method's to say, most often the rest."""
    temperature: float = 1.0
    """Both models' logits are divided by it."""
    beta: float = 0.5
    """Place between the forward (0) and the reverse (1) divergence."""
    on_policy: float = 0.5
    """Share of the rows that the student writes."""
    smoothing: float = 0.5
    """Share of a mixture over domains that follows the student's lag; the rest is spread evenly."""
    weight: float = 0.2
    """Of what a method adds to labels and teacher."""
    keep: float = 0.5
    """Share of the rows that a method chooses."""
    top_k: int = 5
    """Tokens of the teacher's distribution at each position."""
    negatives: int = 4
    """Questions about types that a text lacks."""
    generations: int = 3
    """Times that a student is trained from its start."""

    def __post_init__(self) -> None:
        for name in ("alpha", "on_policy", "smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise DistillError(f"{name} must be from 0 to 1, got {getattr(self, name)}")
        if not 0 < self.beta < 1:
            raise DistillError(f"beta must lie between 0 and 1, got {self.beta}")
        if not self.temperature > 0:
            raise DistillError(f"the temperature must be positive, got {self.temperature}")
        if not self.weight >= 0:
            raise DistillError(f"the weight must not be negative, got {self.weight}")
        if not 0 < self.keep <= 1:
            raise DistillError(f"the share to keep must be above 0 and at most 1, got {self.keep}")
        if self.negatives < 0:
            raise DistillError(f"negatives must not be negative, got {self.negatives}")
        for name in ("top_k", "generations"):
            if getattr(self, name) < 1:
                raise DistillError(f"{name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class TextDomain:
    """One domain of a user's data, as rows."""

    name: str
    rows: Rows
    """`tokens` `[N, T + 1]`, `mask` `[N, T]`, and `positions` `[N, T]` where several examples share a row."""
    held_out: Rows
    """The same of what is never trained on, one example a row."""
    prompts: Sequence[Sequence[int]] = ()
    """Token ids to write on, where a method's models write."""
    whose: Sequence[int] = ()
    """Of each prompt, which of several teachers it is; empty where there is one at most."""
    views: Sequence[Rows] = ()
    """What a method reads of the same examples beside `rows`, row by row, see `Method.views`."""
    held_out_views: Sequence[Rows] = ()

    @property
    def learned(self) -> int:
        """Tokens that are learned in one pass."""
        return int(self.rows["mask"].sum())


@dataclass(frozen=True)
class Writing:
    """How models write."""

    length: int
    """Tokens of a row that are predicted."""
    new_tokens: int
    """Of an answer, at most."""
    vocabulary: int
    ends: Sequence[int]
    """Ids that end an answer."""
    pad: int
    breaks: Sequence[int] = ()
    """Ids of tokens that lie between phrases: without a letter or digit."""


@dataclass(frozen=True)
class Material:
    """What a method is put together from: models, how they are read, and data."""

    student: Any
    teacher: Any
    """A causal model, or None for methods that need none."""
    read: Read
    """All logits of either."""
    domains: Sequence[TextDomain]
    writing: Writing
    learner: Student | None = None
    """How the student is read; all logits at once where None."""
    signal: Teacher | None = None
    """The teacher's distribution, perhaps without all logits at once; all of them where None."""
    weights: Sequence[float] = ()
    """Of the domains, in place of their sizes."""

    @property
    def sizes(self) -> np.ndarray:
        """Shares `[domains]` of what is drawn: by the weights where there are any, else by the tokens to learn."""
        learned = np.array(self.weights or [domain.learned for domain in self.domains], float)
        return learned / learned.sum()


@dataclass(frozen=True)
class Stage:
    """What the core's loop runs, see `distill.core.loop.Distiller`."""

    student: Student
    objective: Objective
    teacher: Teacher | Teachers
    collectors: Sequence[Collector]
    sampler: Sampler
    mixture: Mixture
    found: Mapping[str, float] = field(default_factory=dict[str, float])
    """What was measured while it was put together, for the summary."""


@dataclass(frozen=True)
class ClassMaterial:
    """What a classifier's passes are put together from."""

    student: Any
    teacher: Any
    pretrained: Any
    """The teacher before it learned the task, with any head."""
    inputs: Inputs
    """What all three are called with: they split texts alike."""
    task: Sequence[Collector]
    """Labelled rows: `label` `[N]`, `mask` `[N, T]` of the tokens that are there."""
    general: Sequence[Collector]
    """Rows of other text, without labels."""
    order: Sequence[int] | None = None
    """Places of the student's classes among the teacher's; None: the same."""


@dataclass(frozen=True)
class Pass:
    """One of several trainings of a student, each of which begins where the one before ended."""

    name: str
    stage: Stage
    share: float
    """Of all optimiser steps."""


@dataclass(frozen=True)
class Method:
    """One method."""

    name: str
    title: str
    source: str
    losses: Callable[[MethodOptions], Losses]
    class_losses: Callable[[MethodOptions], Losses] | None = None
    """Of a classifier, where they are others."""
    reads: tuple[str, ...] = ()
    """Which of `MethodOptions` it heeds."""
    takes: tuple[str, ...] = ()
    """Options of the commands that are for it, and for others that name them; see `uses` for what follows from the rest
    of a method."""
    mixes: bool = False
    """Whether it finds the weights of the domains itself."""
    defaults: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Those of `reads` that the method sets otherwise than `MethodOptions` does."""
    student_writes: Callable[[MethodOptions], float] = lambda options: 0.0
    """Share of the rows."""
    teacher_writes: Callable[[MethodOptions], float] = lambda options: 0.0
    """Share of the rows."""
    stage: "Callable[[Method, Material, MethodOptions], Stage] | None" = None
    """Puts the loop's stage together; `plain` where None."""
    least_domains: int = 1
    """Paths of data that it must be given."""
    choose: Callable[[np.ndarray, np.ndarray, np.ndarray | None, MethodOptions], np.ndarray] | None = None
    """Places of the rows to learn from, from log-probabilities `[N]` of teacher and reference model and the numbers of
    tokens `[N]`: asked once, before training. None: all rows."""

    own: tuple[str, ...] = ("labels",)
    """Losses that need no teacher of the user's."""
    views: Callable[[Example], Sequence[Example] | None] | None = None
    """What a method reads of one example, the first as the student is asked later; None where the example lacks it."""
    convert: Callable[[Sequence[Example], np.random.Generator, MethodOptions], Sequence[Example | None]] | None = None
    """What a method makes of a domain's examples before they are encoded; None in the place of those that lack it."""
    inside: bool = False
    """Whether it reads the teacher's hidden states."""
    aligns: bool = False
    """Whether its teacher may split texts into other tokens than the student: it says how likely pieces of text are
    that begin and end in both, see `language.aligned`."""
    rewrites: bool = False
    """Whether it writes on the prompts of single rows, which then share no row with others."""
    generations: Callable[[MethodOptions], int] = lambda options: 1
    """Times that the student is trained from its start; its `teacher` is the one before, there is none at first."""
    passes: Callable[[ClassMaterial, MethodOptions], Sequence[Pass]] | None = None
    """Trainings of a classifier, one after the other, in place of the one that `losses` make."""

    def uses(self, options: MethodOptions) -> frozenset[str]:
        """Which of `PARTICULAR` decide something: those it declares, and those for what it does."""
        writes = self.student_writes(options) + self.teacher_writes(options) > 0 or self.rewrites
        found = {*self.reads, *self.takes}
        if writes:
            found.add("new_tokens")
        elif self.views is None and not self.aligns:  # rows that are written on, and of one example, are never packed
            found.add("no_pack")
        if not self.mixes:
            found.add("weights")
        return frozenset(found)

    def refuse_unused(self, asked: Options, options: MethodOptions) -> None:
        """Raises `InputError` for an option of a command that this method would ignore."""
        there, used = {item.name for item in fields(asked)}, self.uses(options)
        asked.refuse(
            (name for name in PARTICULAR if name in there and name not in used), f"with the method {self.name}"
        )

    def needs_teacher(self, options: MethodOptions) -> bool:
        """Whether it can be done without one."""
        more = set(self.losses(options)) - set(self.own)
        return bool(more) or self.teacher_writes(options) > 0 or self.choose is not None

    def settings(self, given: Mapping[str, Any]) -> MethodOptions:
        """The options of a run, of which `given` ones that are None take the method's own value.

        Raises:
          DistillError: one is given that the method does not read, or that is out of its range.
        """
        known = {name: value for name, value in given.items() if value is not None}
        for name in known:
            if name not in self.reads:
                raise DistillError(f"the method {self.name} does not read {name}: leave it out")
        return MethodOptions(**{**self.defaults, **known})

    def check(self, domains: int) -> None:
        """Raises `DistillError` where so many domains are not enough."""
        if domains < self.least_domains:
            raise DistillError(f"the method {self.name} needs {self.least_domains} domains: give --data several paths")

    def build(self, material: Material, options: MethodOptions) -> Stage:
        """The stage that the core's loop runs. Raises `DistillError` for data that the method can do nothing with."""
        self.check(len(material.domains))
        return (self.stage or plain)(self, material, options)


def plain(method: Method, material: Material, options: MethodOptions) -> Stage:
    """Losses by their names, rows of the data or written anew in every round, domains drawn from by their sizes."""
    losses = fitting(method.losses(options), material.signal)
    shares = method.student_writes(options), method.teacher_writes(options)
    writers = [(m, share) for m, share in zip((material.student, material.teacher), shares, strict=True) if share]
    collectors: list[Collector] = []
    for domain, part in zip(material.domains, material.sizes, strict=True):
        if writers:
            rows = domain.name, domain.rows, domain.held_out, domain.prompts
            how = {name: value for name, value in vars(material.writing).items() if name != "breaks"}
            collectors.append(Written(*rows, writers, **how, part=float(part), whose=domain.whose))
        else:
            collectors.append(FixedDomain(domain.name, domain.rows, domain.held_out))
    return Stage(
        learner(material), WeightedSum(losses), signals(losses, material), collectors,
        Epochs(newest=bool(writers)), by_size(material),
    )  # fmt: skip


def fitting(losses: Losses, signal: Teacher | None) -> Losses:
    """The losses for what the teacher gives: where that is its likeliest tokens, all others are one more class.

    Raises:
      DistillError: one that needs all of the teacher's logits.
    """
    if signal is None or not issubclass(signal.kind, TopKLogits):
        return losses
    return {
        name: (weight, objective if name == "labels" else bucketed(objective))
        for name, (weight, objective) in losses.items()
    }


def learner(material: Material) -> Student:
    """The student as the loop takes it."""
    return material.learner or ModelStudent(material.student, material.read)


def signals(losses: Losses, material: Material) -> Teachers:
    """The teacher of each loss: next tokens for `labels`; for others `material.signal` if all take it, else logits."""
    given = material.signal
    wanted = [objective.accepts for name, (_, objective) in losses.items() if name != "labels"]
    if given is None or not all(issubclass(given.kind, kinds) for kinds in wanted):
        given = None if material.teacher is None else dense(material.teacher, material.read)
    return taught(losses, given)


def taught(losses: Losses, teacher: Teacher | None, labels: Teacher | None = None) -> Teachers:
    """The teacher of each loss: `labels`, by default the next tokens, for that of this name, `teacher` for others.

    Raises:
      DistillError: a loss about a teacher where there is none.
    """
    named = {name: (labels or Next()) if name == "labels" else teacher for name in losses}
    missing = [name for name, found in named.items() if found is None]
    if missing:
        raise DistillError(f"the losses {', '.join(missing)} need a teacher")
    return Teachers({name: found for name, found in named.items() if found is not None})


def by_size(material: Material) -> Mixture:
    """Domains are drawn from by the tokens that are learned in them, and stay so."""
    mixture = Mixture([domain.name for domain in material.domains], smoothing=0.0)
    mixture.weights = material.sizes
    return mixture


def weighed(**parts: tuple[float, Objective]) -> Losses:
    """The parts that have a weight, in their order."""
    return {name: part for name, part in parts.items() if part[0]}


OPTION_NAMES = tuple(option.name for option in fields(MethodOptions))
PARTICULAR = (
    *OPTION_NAMES, "new_tokens", "no_pack", "weights", "candidates", "reference", "pretrained", "general", "writer",
    "texts",
)  # fmt: skip
"""Options of the commands that some methods have no use for."""


def find(name: str, among: Sequence[str] = METHODS) -> Method:
    """The method of that name; raises `DistillError` where there is none."""
    folder = name.replace("-", "_")
    if folder not in among:
        raise DistillError(f"there is no method '{name}'; there are {', '.join(among)}")
    return import_module(f"distill.methods.{folder}.method").METHOD
