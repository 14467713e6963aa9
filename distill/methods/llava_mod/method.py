"""LLaVA-MoD: a sparse student that sees, taught by imitation and then by preferences (arXiv 2408.15881).

| stage | data | what learns | losses |
|---|---|---|---|
| AI, adaptor initialisation | captions | projector | labels |
| D2D, dense to dense | general | all but the eyes | responses |
| D2S, dense to sparse, upcycled | specialised | feed-forward parts, routers | responses, labels, 0.01 balance |
| PD, preference distillation | pairs of answers | as in D2S | preference, 0.01 balance |

`responses` is KL(teacher || student), which is the published cross-entropy less a constant; `preference` measures the
student against the frozen teacher. Where the public code differs by mistake this does not: its mask leaves the first
token of a response out, and its balance loss counts twice where there are labels. Other stages are what controls do.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from distill.core.errors import DistillError
from distill.core.objectives.balance import LoadBalance
from distill.core.objectives.base import Objective, OwnMasks
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.preference import PairedKto, Preference
from distill.core.tables import FixedDomain, Rows
from distill.core.teachers import Teachers
from distill.language.evaluate import over
from distill.language.models import Read
from distill.language.sparse import Routing, SparseStudent, sparse_layers, upcycle
from distill.language.student import ModelStudent, Next
from distill.language.views import every_view, scored
from distill.language.vision import train_only
from distill.methods.method import Losses, MethodOptions, weighed
from distill.methods.pictures import Given, picture_rows, stage

PARTS = ("labels", "responses", "balance")
"""Losses in the order of the masks `[B, 3, T]` of rows: responses count for two, all but padding for the balance."""
PAIR_PARTS = ("preference", "balance")
"""The same of the masks `[B, 2, 2, T]` of pairs."""
SHARED = ("image",)


@dataclass(frozen=True)
class Kind:
    """What a stage learns from, and what learns in it."""

    data: str
    """The name of its rows."""
    losses: tuple[str, ...]
    learns: Literal["projector", "all", "feed-forward"] = "all"
    sparse: bool = False
    """Whether a student that is dense becomes sparse first."""
    reference: Literal["teacher", "own"] = "teacher"
    """Whom preferences are measured against; `own`: the student as the stage began."""


IMITATED = ("labels", "responses", "balance")
STAGES: Mapping[str, Kind] = {
    "AI": Kind("general", ("labels",), "projector"),
    "D2D": Kind("general", ("responses",)),
    "D2S": Kind("specialised", IMITATED, "feed-forward", sparse=True),
    "PD": Kind("pairs", ("preference", "balance"), "feed-forward"),
    "SFT": Kind("general", ("labels",)),
    "sparse SFT": Kind("specialised", ("labels", "balance"), "feed-forward", sparse=True),
    "dense D2D": Kind("specialised", IMITATED, "feed-forward"),
    "sparse at once": Kind("both", IMITATED, sparse=True),
    "PD, own start": Kind("pairs", ("preference", "balance"), "feed-forward", reference="own"),
    "SFT on better": Kind("better", ("labels", "balance"), "feed-forward"),
}
"""The method's four, then those of controls. A dense student has no balance."""
METHOD_STAGES = ("D2D", "D2S", "PD")


def losses(
    options: MethodOptions, balance: float = 0.01, preference: Preference = PairedKto(), top_k: int = 2
) -> Losses:
    """All losses of all stages by their weights."""
    return weighed(
        labels=(1.0, CrossEntropy()), responses=(1.0, ForwardKL(temperature=options.temperature)),
        preference=(1.0, preference), balance=(balance, LoadBalance(top_k)),
    )  # fmt: skip


def rows(
    tokens: np.ndarray, images: np.ndarray, responses: np.ndarray, pad: int | None = None
) -> dict[str, np.ndarray]:
    """Rows of a stage from `tokens` `[N, T + 1]`, `images` `[N, 3, H, W]` and `responses` `[N, T + 1]`, which says
    which tokens are part of a response; routers need not balance where `pad` stands. Raises `DistillError` where none
    is."""
    asked = responses[:, 1:].astype(bool)
    return picture_rows(tokens, images, [asked, asked, _there(tokens, pad)])


def pairs(
    better: np.ndarray, worse: np.ndarray, images: np.ndarray, responses: Sequence[np.ndarray], pad: int | None = None
) -> dict[str, np.ndarray]:
    """Rows of two answers to the same, each as for `rows`; `responses` are of both. Raises `DistillError` for answers
    that do not pair up."""
    if not better.shape == worse.shape == responses[0].shape == responses[1].shape:
        raise DistillError(f"answers {list(better.shape)} and {list(worse.shape)} do not pair up with their responses")
    tokens, asked = np.stack([better, worse], 1), np.stack(responses, 1)[..., 1:].astype(bool)
    return picture_rows(tokens, images, [asked, _there(tokens, pad)])


def better_of(table: Rows) -> dict[str, np.ndarray]:
    """The better answers of pairs, as rows to be imitated."""
    asked, there = table["mask"][:, 0, 0], table["mask"][:, 1, 0]
    return picture_rows(table["tokens"][:, 0], table["image"], [asked, asked, there])


def _there(tokens: np.ndarray, pad: int | None) -> np.ndarray:
    inputs = tokens[..., :-1]
    return np.ones(inputs.shape, bool) if pad is None else inputs != pad


def parts(student: Any, teacher: Any, table: Rows, parts_: Losses, read: Read, held_out: Rows | None = None) -> Given:
    """What `distill.core.fit.fit` is given for one stage; `table` as `rows` or, of preferences, as `pairs` makes it;
    `teacher` is then whom they are measured against. A dense student has no balance."""
    sparse = bool(sparse_layers(student))
    found = {name: part for name, part in parts_.items() if name != "balance" or sparse}
    of_pairs = "preference" in found
    seen = every_view(read, SHARED) if of_pairs else read
    learner = SparseStudent(student, seen) if sparse else ModelStudent(student, seen)
    if not of_pairs:
        return stage(learner, teacher, table, found, PARTS, read, own=("labels", "balance"), held_out=held_out)
    if teacher is None:
        raise DistillError("preferences need a reference that they are measured against")
    signals = {"preference": scored(teacher, read, shared=SHARED), "balance": Next("target")}
    objective: Objective = OwnMasks(found, PAIR_PARTS)
    teachers = Teachers({name: signals[name] for name in found})
    return learner, objective, teachers, [FixedDomain("pairs", table, held_out)]


def stages(
    student: Any, teacher: Any, tables: Mapping[str, Rows], read: Read, plan: Sequence[str] = METHOD_STAGES,
    every: Losses | None = None, routing: Routing = Routing(), sparse_every: int = 2, seed: int = 0,
    learns: Literal["projector", "all", "feed-forward"] | None = None, held_out: Mapping[str, Rows] | None = None,
) -> Iterator[tuple[str, Given]]:  # fmt: skip
    """The stages of a plan, one after the other: its name and what `distill.core.fit.fit` is given.

    Upcycling makes a new model, so the student of a stage is what it was given first (`given[0].module`). What learns
    in a stage is freed when it is asked for, so each must be trained before the next is.

    Args:
      tables: `general`, `specialised` and `pairs`, as `rows` and `pairs` make them; only those that the plan reads.
      every: losses by their weights, those of `losses` where None.
      routing, sparse_every, seed: of the layers that become sparse, see `distill.language.sparse.upcycle`; the public
        code bounds what an expert takes, `Routing(capacity=1.5)`.
      learns: what learns in all stages, in place of each one's own: where a student begins at random its attention has
        to learn too.
      held_out: rows of the same names that are never trained on.

    Raises:
      DistillError: a stage that there is not, rows that are missing, a loss without its teacher.
    """
    weights = losses(MethodOptions(), top_k=routing.top_k) if every is None else every
    model = student
    for name in plan:
        if name not in STAGES:
            raise DistillError(f"there is no stage '{name}'; there are {', '.join(STAGES)}")
        kind = STAGES[name]
        if kind.data not in tables:
            raise DistillError(f"the stage {name} reads rows called '{kind.data}', there are {', '.join(tables)}")
        if kind.sparse and not sparse_layers(model):
            model = upcycle(model, routing, sparse_every, seed)
        free(model, learns or kind.learns)
        reference = copy.deepcopy(model).requires_grad_(False) if kind.reference == "own" else teacher
        chosen = {part: weight for part, weight in weights.items() if part in kind.losses}
        yield name, parts(model, reference, tables[kind.data], chosen, read, (held_out or {}).get(kind.data))


def free(model: Any, learns: str) -> None:
    """Lets a part of the model learn: the `projector`, `all` but the eyes, or the `feed-forward` parts of the language
    model with their experts and routers."""
    train_only(model, language=learns == "all")
    if learns == "feed-forward":
        model.requires_grad_(False)
        for layer in model.get_decoder().layers:
            layer.mlp.requires_grad_(True)


def answered(model: Any, table: Rows, read: Read, size: int = 64) -> np.ndarray:
    """Log-probabilities, in nats, that a model gives both answers of pairs, `[N, 2]`; `size` pairs at once.

    Less those of a reference they are the d of `objectives.preference`: look at them before a preference stage. Where d
    lies many times 1 / beta below 0 the loss is flat; lower beta.
    """
    mine = scored(model, read, shared=SHARED)

    def measure(batch: Any) -> Any:
        found: Any = mine.label(batch)
        return (found.log_probs * batch["mask"][:, 0]).sum(-1)

    return over(model, table, measure, size).numpy()
