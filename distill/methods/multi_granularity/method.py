"""Multi-granularity semantic revision (arXiv 2407.10068): corrected answers, adaptive KL, correlation in spans.

In every round the student answers; where the teacher disagrees most, its token is put in and the student writes on.
Beside the data's own answers it learns the teacher's distribution over the corrected ones, on the part of the
vocabulary that a small network picks, and how neighbours inside a phrase go together. A phrase lies between
tokens without a letter or digit; the paper's tool for phrases is not known. No public code is known either.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.core.collect import CollectionPlan, Experience, Student
from distill.core.errors import DistillError
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.granularity import (
    NO_ERROR,
    DistributionAdaptiveKL,
    SpanCorrelation,
    error_positions,
    span_pairs,
)
from distill.core.tables import Epochs, Rows, experience
from distill.core.teachers import Teacher, Teachers
from distill.language.encoding import Encoded, padded_rows
from distill.language.models import Read
from distill.language.student import ModelStudent, dense
from distill.language.views import NextOf, Views, every_view, one_view
from distill.language.writing import answers, in_turn
from distill.methods.method import Losses, Material, Method, MethodOptions, Stage, TextDomain, Writing, by_size

HEAD = 50
"""Largest probabilities that the adaptive KL's network sees."""


def span_loss() -> SpanCorrelation:
    """Products of neighbours' probabilities divided by their sum, and the square of their distance: the gradient of the
    plain norm does not fade as it nears 0, and at the paper's weight of 1 it drowns the other two losses."""
    return SpanCorrelation(normalised=True, squared=True)


def losses(options: MethodOptions, head: int = HEAD) -> Losses:
    """Right answers, adaptive KL on corrected ones, correlation inside spans with the weight given."""
    parts: dict[str, Any] = {"labels": (1.0, CrossEntropy()), "tokens": (1.0, DistributionAdaptiveKL(head=head))}
    return {**parts, **({"spans": (options.weight, span_loss())} if options.weight else {})}


def two_views(parts: Losses, teacher: Any, read: Read) -> tuple[Views, Teachers]:
    """The objective over the right answer, of `labels`, and the written one, of the others; each with its own mask."""
    places = {"labels": (0, 0), "tokens": (1, 1), "spans": (1, 2)}
    named: dict[str, Teacher] = {
        name: NextOf(0) if name == "labels" else dense(teacher, one_view(read, 1)) for name in parts
    }
    return Views(parts, {name: places[name] for name in parts}), Teachers(named)


@torch.no_grad()
def disagreement(read: Read, teacher: nn.Module, student: nn.Module, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """KL(teacher || student) and the teacher's likeliest tokens, each `[N, T]`, along tokens `[N, T + 1]`."""
    log_p, log_q = (read(model, {"tokens": tokens}).log_softmax(-1) for model in (teacher, student))
    kl = ForwardKL().between(log_p.flatten(0, 1), log_q.flatten(0, 1)).reshape(log_p.shape[:2])
    return kl, log_p.argmax(-1)


def prompt_of(tokens: np.ndarray, mask: np.ndarray) -> list[int]:
    """A row's tokens before its last answer; `tokens` `[T + 1]`, `mask` `[T]`."""
    learned = np.flatnonzero(mask)
    gaps = np.flatnonzero(np.diff(learned) > 1)
    first = int(learned[gaps[-1] + 1 if len(gaps) else 0])
    return tokens[: first + 1].tolist()


def phrases(tokens: np.ndarray, breaks: Sequence[int]) -> np.ndarray:
    """The number of its phrase `[N, T]` for every token but the first of `[N, T + 1]`; -1 for what lies between."""
    between = np.isin(tokens[:, 1:], np.asarray(list(breaks), np.int64))
    return np.where(between, -1, between.cumsum(1))


@dataclass(frozen=True)
class Corrected:
    """A domain whose answers the student writes anew in every round and the teacher corrects, one token in each."""

    domain: TextDomain
    teacher: Any
    student: Any
    read: Read
    writing: Writing
    part: float = 1.0

    @property
    def name(self) -> str:
        """The domain."""
        return self.domain.name

    def collect(self, student: Student | None, plan: CollectionPlan) -> Experience:
        """`tokens` `[rows, 2, T + 1]`; `mask` `[rows, 3, T]`: of the right answer, of the other, of pairs in spans."""
        how, rows = self.writing, self.domain.rows
        asked = {i: prompt_of(rows["tokens"][i], rows["mask"][i]) for i in range(len(rows["tokens"]))}
        usable = [i for i, prompt in asked.items() if len(prompt) + how.new_tokens <= how.length + 1]
        if not usable:
            raise DistillError(f"{self.name}: no prompt leaves room for {how.new_tokens} tokens in {how.length}")
        rng, wanted = np.random.default_rng(plan.seed), max(round(self.part * plan.rows), 1)
        chosen = [usable[place] for place in in_turn(rng, len(usable), wanted)]
        prompts = [asked[i] for i in chosen]
        written = self._write(prompts, plan.seed)
        found, corrected = self._revised(prompts, written, plan.seed + 1)
        right = {name: rows[name][chosen] for name in ("tokens", "mask")}
        return experience(self._both(right, found), self._both(self.domain.held_out, self.domain.held_out), corrected)

    def _write(self, prompts: Sequence[Sequence[int]], seed: int) -> list[list[int]]:
        how = self.writing
        return answers(self.student, prompts, how.new_tokens, how.vocabulary, how.ends, how.pad, seed)

    def _revised(
        self, prompts: list[list[int]], written: list[list[int]], seed: int, size: int = 8
    ) -> tuple[Rows, dict[str, float]]:
        """Rows of answers of which one token is the teacher's, and the share of rows that had an error."""
        how, device = self.writing, next(self.teacher.parameters()).device
        rows = self._rows(prompts, written)
        places: list[int] = []
        right: list[int] = []
        for first in range(0, len(prompts), size):
            tokens = torch.from_numpy(rows["tokens"][first : first + size]).to(device)
            mask = torch.from_numpy(rows["mask"][first : first + size]).to(device)
            kl, likeliest = disagreement(self.read, self.teacher, self.student, tokens)
            place = error_positions(kl, tokens[:, 1:], likeliest, mask)
            places += place.tolist()
            right += likeliest.gather(1, place.clamp(min=0)[:, None])[:, 0].tolist()
        wrong = [i for i, place in enumerate(places) if place != NO_ERROR]
        begun = {i: [*rows["tokens"][i][: places[i] + 1].tolist(), right[i]] for i in wrong}
        going = [i for i in wrong if right[i] not in how.ends]
        more = dict(zip(going, self._write([begun[i] for i in going], seed) if going else [], strict=True))
        final: list[list[int]] = []
        for i, (prompt, answer) in enumerate(zip(prompts, written, strict=True)):
            whole = [*begun.get(i, [*prompt, *answer]), *more.get(i, [])]
            final.append(whole[len(prompt) : len(prompt) + how.new_tokens])
        return self._rows(prompts, final), {"corrected": len(wrong) / len(places)}

    def _rows(self, prompts: list[list[int]], written: list[list[int]]) -> Rows:
        texts = [
            Encoded([*prompt, *answer], [False] * len(prompt) + [True] * len(answer))
            for prompt, answer in zip(prompts, written, strict=True)
        ]
        return padded_rows(texts, self.writing.length, self.writing.pad)

    def _both(self, right: Rows, written: Rows) -> Rows:
        spans = torch.from_numpy(phrases(written["tokens"], self.writing.breaks))
        pairs = span_pairs(spans, torch.from_numpy(written["mask"])).numpy()
        return {
            "tokens": np.stack([right["tokens"], written["tokens"]], 1),
            "mask": np.stack([right["mask"], written["mask"], pairs], 1),
        }


def stage(method: Method, material: Material, options: MethodOptions) -> Stage:
    """Right answers beside those that the student writes and the teacher corrects."""
    parts = losses(options, min(HEAD, material.writing.vocabulary))
    objective, teachers = two_views(parts, material.teacher, material.read)
    collectors = [
        Corrected(domain, material.teacher, material.student, material.read, material.writing, float(part))
        for domain, part in zip(material.domains, material.sizes, strict=True)
    ]
    student = ModelStudent(material.student, every_view(material.read))
    return Stage(student, objective, teachers, collectors, Epochs(newest=True), by_size(material))


METHOD = Method(
    "multi_granularity", "Corrected answers of the student, adaptive KL, and correlation inside phrases",
    "arXiv 2407.10068", losses, reads=("weight",), defaults={"weight": 1.0}, stage=stage, rewrites=True,
)  # fmt: skip
