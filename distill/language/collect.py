"""Experience for the core's loop: tables of rows, texts that teacher or student write, and batches of both.

A row is one example, an episode of length 1: arrays of one shape each, such as `tokens` `[T + 1]` and `mask` `[T]`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.collect import Experience, Plan, Student
from distill.core.errors import DistillError
from distill.core.shards import Shard, Shards
from distill.core.signals import TopKLogits
from distill.core.teachers import Teacher
from distill.language.evaluate import Rows, batches
from distill.language.generation import generate
from distill.language.student import CompactTopK

HELD_OUT = "held_out"
"""The field that says of each row whether it is never trained on."""


class Table:
    """A domain of rows that are there from the start; later rounds bring nothing new."""

    def __init__(
        self,
        name: str,
        rows: Rows,
        held_out: Rows | None = None,
        measure: Callable[[Plan], Mapping[str, float]] | None = None,
    ) -> None:
        """`measure` is asked in every round, for `ratio` or `gain` of the mixture, see `core.collect.Experience`."""
        if not rows or not len(next(iter(rows.values()))):
            raise DistillError(f"the domain '{name}' has no rows")
        self.name, self.rows, self.held_out, self.measure = name, rows, held_out, measure

    def collect(self, student: Student | None, plan: Plan) -> Experience:
        """All rows in the first round, none later."""
        measured = dict(self.measure(plan)) if self.measure else {}
        if plan.round:
            return Experience({}, [], measured)
        return experience(self.rows, self.held_out, measured)


class Generated:
    """A domain of prompts of one length that teacher and student continue, the teacher `plan.beta` of them.

    Every round writes new texts for `plan.rows` prompts, taken in turn: all of them again and again where there are
    fewer. Only what was written counts in the mask.
    """

    def __init__(
        self,
        name: str,
        prompts: np.ndarray,
        teacher: Any,
        student: Any,
        new_tokens: int,
        vocabulary: int,
        temperature: float = 1.0,
        end: int | None = None,
        pad: int = 0,
    ) -> None:
        """`prompts` `[N, P]`; `teacher` and `student` are causal models, the student's is the one that learns."""
        if not len(prompts):
            raise DistillError(f"the domain '{name}' has no prompts")
        self.name, self.prompts, self.teacher, self.student = name, prompts, teacher, student
        self.settings = (new_tokens, vocabulary)
        self.options = {"temperature": temperature, "end": end, "pad": pad}

    def collect(self, student: Student | None, plan: Plan) -> Experience:
        """`tokens` `[rows, P + new]` and `mask` `[rows, P + new - 1]`."""
        rng = np.random.default_rng(plan.seed)
        chosen = np.arange(plan.rows) % len(self.prompts)
        theirs = rng.permutation(plan.rows) < round(plan.beta * plan.rows)
        tokens = mask = None
        for who, (writer, rows) in enumerate(((self.teacher, theirs), (self.student, ~theirs))):
            if not rows.any():
                continue
            prompts = torch.from_numpy(self.prompts[chosen[rows]])
            written, fresh = generate(writer, prompts, *self.settings, seed=plan.seed + who, **self.options)
            if tokens is None or mask is None:
                tokens = np.zeros((plan.rows, written.shape[1]), np.int64)
                mask = np.zeros((plan.rows, written.shape[1] - 1), bool)
            tokens[rows], mask[rows] = written.numpy(), fresh.numpy()
        assert tokens is not None and mask is not None
        return experience({"tokens": tokens, "mask": mask}, None, {"written_tokens": float(mask.sum())})


class Draws:
    """Rows of each domain, drawn with replacement: small sets come round again and again."""

    def __init__(self, newest: bool = False) -> None:
        """`newest` draws from each domain's last shard alone: a buffer that every round renews."""
        self.newest = newest
        self._known: dict[tuple[str, str, bool], np.ndarray] = {}

    def sample(
        self, shards: Shards, rng: np.random.Generator, counts: Mapping[str, int], held_out: bool = False
    ) -> dict[str, Tensor]:
        """The rows' fields, domain after domain. A domain without rows that are held out gives trained ones."""
        parts: list[dict[str, np.ndarray]] = []
        for domain, count in counts.items():
            if count:
                own = [s for s in shards.shards if s.about["domain"] == domain]
                parts += self._rows(shards, rng, own[-1:] if self.newest else own, count, held_out)
        if not parts:
            raise DistillError("a batch needs at least one row")
        return {
            name: torch.from_numpy(np.concatenate([part[name] for part in parts]))
            for name in parts[0]
        }  # fmt: skip

    def _rows(
        self, shards: Shards, rng: np.random.Generator, own: list[Shard], count: int, held_out: bool
    ) -> list[dict[str, np.ndarray]]:
        usable = [self._places(shards, shard, held_out) for shard in own]
        if held_out and not sum(map(len, usable)):
            usable = [self._places(shards, shard, False) for shard in own]
        sizes = np.array([len(places) for places in usable])
        each = rng.multinomial(count, sizes / sizes.sum())
        found = []
        for shard, places, n in zip(own, usable, each, strict=True):
            if n:
                rows = places[rng.integers(0, len(places), n)]
                found.append({name: shards.array(shard, name)[rows] for name in shard.files if name != HELD_OUT})
        return found

    def _places(self, shards: Shards, shard: Shard, held_out: bool) -> np.ndarray:
        key = (str(shards.folder), shard.name, held_out)
        if key not in self._known:
            self._known[key] = np.flatnonzero(shards.array(shard, HELD_OUT) == held_out)
        return self._known[key]


def labelled(rows: Rows, teacher: Teacher, block: int = 64) -> dict[str, np.ndarray]:
    """Rows with a teacher's top-k logits written beside them: `log_probs`, `indices` `[N, T, K]`, `tail` `[N, T]`.

    Rows are asked for in order and in blocks, so that a cache around the teacher finds them again in the next epoch,
    for another student, and where an interrupted run goes on.
    """
    parts: dict[str, list[np.ndarray]] = {"log_probs": [], "indices": [], "tail": []}
    for batch in batches(rows, block):
        signal = teacher.label({"tokens": batch["tokens"]})
        if not isinstance(signal, TopKLogits):
            raise DistillError(f"rows can be labelled with top-k logits, the teacher gives {signal.KIND}")
        for name, values in parts.items():
            values.append(getattr(signal, name).numpy())
    parts["indices"] = [ids.astype(np.int32) for ids in parts["indices"]]
    return {**rows, **{name: np.concatenate(values) for name, values in parts.items()}}


class RecordedTopK:
    """The teacher of rows that `labelled` wrote."""

    kind = TopKLogits

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def label(self, batch: Mapping[str, Tensor]) -> TopKLogits:
        """The recorded top-k logits, in float32."""
        return CompactTopK(batch["log_probs"], batch["indices"].long(), batch["tail"], self.temperature).wide()

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return "02"


def experience(rows: Rows, held_out: Rows | None = None, measured: Mapping[str, float] | None = None) -> Experience:
    """Rows as what a collector brings, of which those in `held_out` are never trained on."""
    count = len(next(iter(rows.values())))
    fields = {name: np.asarray(values) for name, values in rows.items()}
    flags = np.zeros(count, bool)
    if held_out is not None:
        fields = {name: np.concatenate([values, np.asarray(held_out[name])]) for name, values in fields.items()}
        flags = np.arange(len(next(iter(fields.values())))) >= count
    return Experience({**fields, HELD_OUT: flags}, [1] * len(flags), measured or {})
