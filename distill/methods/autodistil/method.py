"""AutoDistil: students of many sizes learn together, and one is chosen without training (arXiv 2201.12507).

A super-net is cut out of a BERT-like masked language model. At every step its smallest, its largest and a few random
sizes learn the teacher's relations of queries, keys and values in the last layer, on text without labels. Then each
size's loss on held-out text and its cost are known, and the best below a limit is taken as it is.

    from distill.methods.autodistil.method import SPACES, chosen, distil, scored

    teacher = AutoModelForMaskedLM.from_pretrained("google-bert/bert-base-uncased")
    net = distil(teacher, SPACES["small"], rows, Path("runs/small"), steps=10_000, batch=128, seed=0)
    best = chosen(scored(net, teacher, held_out), flops=0.5 * cost(teacher.config, whole_size(teacher)).flops)
    net.extract(best.size).save_pretrained("student")

`rows`: `tokens` `[N, T]` and `mask` `[N, T]`, True where there is no padding. The folder loads with `from_pretrained`
of transformers' auto classes once `distill.language.supernet` has been imported, for fine-tuning as well.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import Collector, Student
from distill.core.errors import DistillError
from distill.core.fit import fit
from distill.core.objectives.base import Objective, StudentOutput
from distill.core.objectives.relations import RelationMatching
from distill.core.signals import HiddenStates
from distill.core.tables import Epochs, FixedDomain, Rows
from distill.core.teachers import Batch, LocalModel, Teacher
from distill.language.evaluate import over
from distill.language.supernet import Cost, Size, Space, SuperNet, Tapped, cost

RANDOM = 2
"""Random sizes of a step, beside the smallest and the largest."""
SPACES: Mapping[str, Space] = {
    "tiny": Space((4, 5, 6, 7), (128, 160, 192, 224), (2.0, 2.5, 3.0, 3.5), (7, 8, 9, 10)),
    "small": Space((9, 10, 11, 12), (256, 288, 320, 352), (2.5, 3.0, 3.5, 4.0), (7, 8, 9, 10)),
    "base": Space((9, 10, 11, 12), (544, 576, 608, 640), (2.5, 3.0, 3.5, 4.0), (9, 10, 11, 12)),
}
"""The paper's, for BERT-base as teacher: 256 sizes each."""


class Sandwich(Student):
    """A super-net, of which a few sizes learn at every step."""

    def __init__(self, net: SuperNet, seed: int = 0, ends: bool = True, random: int = RANDOM) -> None:
        """`ends`: whether the smallest and the largest are among them, beside so many `random` ones."""
        self.module, self.net, self.seed, self.ends, self.random = net, net, seed, ends, random

    def sizes(self, step: int) -> list[Size]:
        """Of a step: the same on every device."""
        rng, space = np.random.default_rng([self.seed, step]), self.net.space
        return [*([space.smallest, space.largest] if self.ends else []), *(space.draw(rng) for _ in range(self.random))]

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Queries, keys and values of each of the sizes; of those of the next step where it learns."""
        step = int(self.net.drawn)
        if module.training and torch.is_grad_enabled():
            self.net.drawn += 1
        found = module(batch["tokens"], batch["mask"], self.sizes(step))
        return StudentOutput(hidden=tuple(state for size in found for state in size))


class One(Student):
    """A masked language model of one size that learns relations alone: what the super-net is compared with."""

    def __init__(self, module: Any) -> None:
        self.module = module

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Its queries, keys and values."""
        return StudentOutput(hidden=tapped(module, batch))


def tapped(model: Any, batch: Batch) -> tuple[Tensor, ...]:
    """Queries, keys and values `[B, T, ...]` of a model's last layer."""
    with Tapped(model) as states:
        model(input_ids=batch["tokens"], attention_mask=batch["mask"].long())
    return states.states


def relation_teacher(model: Any) -> Teacher:
    """Gives the queries, keys and values of its last layer. Raises `DistillError` where they are not found."""
    Tapped(model)
    return LocalModel(model, lambda m, batch: HiddenStates(tapped(m, batch)), HiddenStates, "queries, keys, values")


def parts(
    teacher: Any, net: SuperNet, rows: Rows, held_out: Rows | None = None, seed: int = 0, **sandwich: Any
) -> tuple[Student, Objective, Teacher, Sequence[Collector]]:
    """What `distill.core.fit.fit` is given: the teacher's heads are the relation heads."""
    objective = RelationMatching(teacher.config.num_attention_heads)
    table = [FixedDomain("text", rows, held_out)]
    return Sandwich(net, seed, **sandwich), objective, relation_teacher(teacher), table


def distil(
    teacher: Any, space: Space, rows: Rows, folder: Path, *, steps: int, batch: int, seed: int = 0, **options: Any
) -> SuperNet:
    """A super-net of that space after so many steps; options are those of `distill.core.fit.fit`.

    Raises:
      DistillError: a teacher that is no BERT with its masked-language-model head or is smaller than the space, or rows
        without `tokens` and `mask`.
    """
    if {"tokens", "mask"} - set(rows):
        raise DistillError(f"text takes tokens and mask, got {', '.join(sorted(rows))}")
    net = SuperNet.of(teacher, space)
    options = {"sampler": Epochs(), "learning_rate": 4e-5, **options}
    fit(*parts(teacher, net, rows, seed=seed), folder, steps=steps, batch=batch, seed=seed, **options)
    return net.eval()


@dataclass(frozen=True)
class Scored:
    """A size, what it was measured to lose, and what it costs."""

    size: Size
    loss: float
    cost: Cost


def relation_loss(student: Any, teacher: Any, rows: Rows, size: Size | None = None) -> float:
    """Mean over held-out positions of what is lost by a super-net's size, or by a model of its own."""
    objective, giver = RelationMatching(teacher.config.num_attention_heads), relation_teacher(teacher)

    def each(batch: dict[str, Tensor]) -> Tensor:
        inputs = batch["tokens"], batch["mask"]
        states = tapped(student, batch) if size is None else student(*inputs, [size])[0]
        signal: Any = giver.label(batch)
        places = batch["mask"].flatten().nonzero().squeeze(-1)
        return objective.losses(StudentOutput(hidden=states), signal, places, batch["mask"])

    return float(over(student, rows, each).mean())


def scored(net: SuperNet, teacher: Any, rows: Rows, sizes: Iterable[Size] | None = None) -> list[Scored]:
    """Each size of the space as it is, on held-out text; costs are for texts of the rows' length."""
    length = int(np.asarray(rows["tokens"]).shape[1])
    return [
        Scored(size, relation_loss(net, teacher, rows, size), cost(net.model.config, size, length))
        for size in (net.space if sizes is None else sizes)
    ]


def chosen(found: Sequence[Scored], flops: float = np.inf, parameters: float = np.inf) -> Scored:
    """The one that loses least within the limits. Raises `DistillError` where none is."""
    within = [one for one in found if one.cost.flops <= flops and one.cost.parameters <= parameters]
    if not within:
        raise DistillError(f"no size costs at most {flops:g} multiplications and {parameters:g} parameters")
    return min(within, key=lambda one: one.loss)


def whole_size(model: Any) -> Size:
    """The size of a BERT-like model itself."""
    config = model.config
    ratio = config.intermediate_size / config.hidden_size
    return Size(config.num_hidden_layers, config.hidden_size, ratio, config.num_attention_heads)
