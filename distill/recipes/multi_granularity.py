"""Multi-granularity semantic revision: corrected samples, adaptive KL, span consistency (arXiv 2407.10068).

Instructions over three short words (sort or reverse each, or reverse their order). The student writes an answer; where
the teacher disagrees most, one token is replaced and the student goes on from there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.core.collect import Experience, Plan, Student
from distill.core.objectives.base import Objective
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.granularity import (
    NO_ERROR,
    DistributionAdaptiveKL,
    SpanCorrelation,
    error_positions,
    fixed_spans,
    span_pairs,
)
from distill.core.teachers import Teachers
from distill.language.collect import Draws, Table
from distill.language.evaluate import log_probs
from distill.language.generation import generate
from distill.language.models import Shape, causal
from distill.language.student import ModelStudent, dense
from distill.language.text import characters
from distill.language.views import NextOf, Views, every_view, one_view
from distill.recipes.framework import Place, Recipe, Scale, Trial
from distill.recipes.statistics import Check, Interval, Results
from distill.recipes.text_lab import learn_rows, model_of

LETTERS, WORD = "abcdefgh", 3
TASKS = {
    "s": lambda words: ["".join(sorted(word)) for word in words],
    "r": lambda words: [word[::-1] for word in words],
    "w": lambda words: words[::-1],
}
"""Letter of the instruction -> the right answer's words."""
PROMPT, ANSWER = 2 + 3 * WORD + 2 + 1, 3 * WORD + 2


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    teacher: Shape = Shape(0, 64, 3, 4)
    student: Shape = Shape(0, 48, 2, 4)
    train: int = 3000
    student_train: int = 400
    test: int = 400
    mechanism: int = 500
    """Prompts of the test without training."""
    teacher_steps: int = 1200
    start_steps: int = 250
    steps: int = 300
    refresh: int = 20
    """Steps after which answers are written anew."""
    batch: int = 16
    learning_rate: float = 2e-3


@dataclass(frozen=True)
class Way:
    """What one arm adds to the labels."""

    about: str
    answers: str = "student"
    """Who writes what is distilled on: student, corrected, teacher."""
    loss: Objective | None = None
    spans: str = ""
    """words or random."""
    more: int = 1
    """Times as many answers."""


WAYS = {
    "labels": Way("right answers alone"),
    "KL": Way("forward KL on the student's answers", loss=ForwardKL()),
    "KL, equal budget": Way("the same with twice the answers, as many as corrections write", loss=ForwardKL(), more=2),
    "teacher's answers": Way("control: forward KL on the teacher's answers", "teacher", ForwardKL()),
    "SCRG": Way("forward KL on corrected answers", "corrected", ForwardKL()),
    "DAC-KL": Way("adaptive KL on the student's answers", loss=DistributionAdaptiveKL(head=8)),
    "top-p": Way("control: KL on a fixed mask of 0.95", loss=DistributionAdaptiveKL(head=8, top_p=0.95)),
    "spans": Way("KL and correlation inside words", loss=ForwardKL(), spans="words"),
    "random spans": Way("control: spans of 3 from anywhere", loss=ForwardKL(), spans="random"),
    "all": Way("all three together", "corrected", DistributionAdaptiveKL(head=8), "words"),
}  # fmt: skip


class Lab:
    """Questions, teacher, the students' start, and how corrections do without training."""

    def __init__(self, trial: Trial) -> None:
        self.trial, self.settings = trial, trial.settings
        s = self.settings
        self.tokens = characters([LETTERS + "srw:= "])
        self.vocabulary = self.tokens.size
        self.read = causal(self.vocabulary)
        self.questions = {
            name: self.draw(trial.scaled(getattr(s, name), 32), i) for i, name in enumerate(("train", "test"))
        }
        few = {key: rows[: trial.scaled(s.student_train, 32)] for key, rows in self.questions["train"].items()}
        options: Any = {"batch": s.batch, "learning_rate": s.learning_rate}
        self.teacher = model_of(trial, s.teacher, self.vocabulary, 3)
        rows = self.questions["train"]
        learn_rows(trial, self.teacher, self.read, {"text": rows}, s.teacher_steps, **{**options, "batch": 2 * s.batch})
        start = model_of(trial, s.student, self.vocabulary, 4)
        learn_rows(trial, start, self.read, {"text": few}, s.start_steps, **options)
        self.start = {name: tensor.clone() for name, tensor in start.state_dict().items()}
        self.mechanism = self._mechanism(start)

    def draw(self, count: int, stream: int) -> dict[str, np.ndarray]:
        """Rows of instructions with their answers."""
        rng, texts = self.trial.rng(stream), []
        for _ in range(count):
            words = ["".join(rng.choice(list(LETTERS), WORD)) for _ in range(3)]
            task = str(rng.choice(list(TASKS)))
            texts.append(f"{task}:{' '.join(words)}={' '.join(TASKS[task](words))}")
        tokens = np.array([self.tokens.encode(text) for text in texts])
        mask = np.zeros((count, PROMPT + ANSWER - 1), bool)
        mask[:, PROMPT - 1 :] = True
        return {"tokens": tokens, "mask": mask}

    def write(self, model: Any, prompts: Tensor, seed: int, temperature: float = 1.0) -> Tensor:
        """Prompts `[N, P]`, or beginnings of answers, written to their end."""
        left = PROMPT + ANSWER - prompts.shape[1]
        return generate(model, prompts, left, self.vocabulary, seed, temperature)[0] if left else prompts

    @torch.no_grad()
    def errors(self, student: Any, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """KL(teacher || student), the teacher's likeliest tokens and the written ones, each `[N, answer]`."""
        log_p, log_q = (
            self.read(m, {"tokens": tokens}).log_softmax(-1)[:, PROMPT - 1 :] for m in (self.teacher, student)
        )
        kl = ForwardKL().between(log_p.flatten(0, 1), log_q.flatten(0, 1)).reshape(log_p.shape[:2])
        return kl, log_p.argmax(-1), tokens[:, PROMPT:]

    def corrected(self, student: Any, tokens: Tensor, seed: int, by: Tensor | None = None) -> Tensor:
        """Answers in which one token became the teacher's and the student wrote on; `by` ranks places, or the KL."""
        kl, right, written = self.errors(student, tokens)
        places = error_positions(kl if by is None else by, written, right, torch.ones_like(written, dtype=torch.bool))
        found = tokens.clone()
        for place in sorted(set(places.tolist()) - {NO_ERROR}):
            rows = (places == place).nonzero().squeeze(-1)
            forced = torch.cat([tokens[rows, : PROMPT + place], right[rows, place : place + 1]], 1)
            found[rows] = self.write(student, forced, seed + place)
        return found

    def doubt(self, tokens: Tensor) -> float:
        """The teacher's nats a token on answers."""
        mask = np.zeros((len(tokens), PROMPT + ANSWER - 1), bool)
        mask[:, PROMPT - 1 :] = True
        total, count = log_probs(self.teacher, self.read, {"tokens": tokens.numpy(), "mask": mask})
        return float(-total.sum() / count.sum())

    def _mechanism(self, student: Any) -> dict[str, float]:
        prompts = torch.from_numpy(self.draw(self.trial.scaled(self.settings.mechanism, 32), 5)["tokens"][:, :PROMPT])
        tokens, seed = self.write(student, prompts, 6), self.trial.number(7)
        anywhere = torch.rand(len(tokens), ANSWER, generator=torch.Generator().manual_seed(seed))
        return {
            "doubt none": self.doubt(tokens), "doubt again": self.doubt(self.write(student, prompts, seed)),
            "doubt random": self.doubt(self.corrected(student, tokens, seed, anywhere)),
            "doubt largest": self.doubt(self.corrected(student, tokens, seed)),
        }  # fmt: skip


class Answers:
    """A collector of questions with two views: the right answer, and one that was written for distillation."""

    name = "questions"

    def __init__(self, lab: Lab, way: Way, student: Any) -> None:
        self.lab, self.way, self.student, self.written = lab, way, student, 0

    def collect(self, student: Student | None, plan: Plan) -> Experience:
        """`tokens` `[rows, 2, T + 1]`; `mask` `[rows, 3, T]`: of the right answer, of the other, of pairs in spans."""
        count, rng, lab = plan.rows * self.way.more, np.random.default_rng(plan.seed), self.lab
        rows = lab.questions["train"]
        chosen = rng.integers(len(rows["tokens"]), size=count)
        right = torch.from_numpy(rows["tokens"][chosen])
        writer = lab.teacher if self.way.answers == "teacher" else self.student
        other = right
        if self.way.loss is not None:
            other = lab.write(writer, right[:, :PROMPT], plan.seed)
            if self.way.answers == "corrected":
                other = lab.corrected(self.student, other, plan.seed + 100)
        mask = torch.from_numpy(rows["mask"][chosen])
        spaces = torch.tensor(lab.tokens.encode(" "))
        spans = torch.where(torch.isin(other[:, 1:], spaces), -1, torch.isin(other[:, 1:], spaces).cumsum(1))
        if self.way.spans == "random":
            spans = fixed_spans(tuple(mask.shape), WORD, plan.seed)
        masks = torch.stack([mask, mask, span_pairs(spans, mask)], 1)
        fields = {"tokens": torch.stack([right, other], 1).numpy(), "mask": masks.numpy()}
        return Table(self.name, fields).collect(None, Plan(0, 1.0, 0, 0))


def run_arm(trial: Trial, lab: Lab, name: str) -> dict[str, Any]:
    """One way of learning from the start."""
    s, way = lab.settings, WAYS[name]
    model = model_of(trial, s.student, lab.vocabulary, 4)
    model.load_state_dict(lab.start)
    parts: dict[str, tuple[float, Objective]] = {"labels": (1.0, CrossEntropy())}
    teachers: dict[str, Any] = {"labels": NextOf(0)}
    places = {"labels": (0, 0)}
    added: Mapping[str, Any] = {"tokens": way.loss, "spans": SpanCorrelation() if way.spans else None}
    for slot, (part, loss) in enumerate(added.items(), 1):
        if loss is not None:
            parts[part], places[part] = (1.0, loss), (1, slot)
            teachers[part] = dense(lab.teacher, one_view(lab.read, 1))
    steps = trial.scaled(s.steps)
    rounds = max(steps // s.refresh, 2)
    trial.fit(
        ModelStudent(model, every_view(lab.read)), Views(parts, places), Teachers(teachers), [Answers(lab, way, model)],
        steps=s.steps, rounds=rounds, rows=s.batch * (steps // rounds), sampler=Draws(newest=True), batch=s.batch,
        learning_rate=s.learning_rate,
    )  # fmt: skip
    test = torch.from_numpy(lab.questions["test"]["tokens"])
    written = lab.write(model, test[:, :PROMPT], 0, temperature=0)
    right = written[:, PROMPT:] == test[:, PROMPT:]
    return {
        "exact_match": float(right.all(1).float().mean()), "right_tokens": float(right.float().mean()),
        "doubt": lab.doubt(written), **(lab.mechanism if name == "labels" else {}),
    }  # fmt: skip


def rule(results: Results) -> list[Check]:
    """Corrections at the largest KL beat others and a second try, and the whole beats KL for as many written tokens."""
    doubt = {n: results.values("labels", f"doubt {n}") for n in ("again", "random", "largest")}
    random, again = Interval.of(doubt["largest"] - doubt["random"]), Interval.of(doubt["largest"] - doubt["again"])
    return [
        Check(f"teacher's nats after a correction at the largest KL less at a random error: {random}", random.negative),
        Check(f"the same less after writing again: {again}", again.negative),
        results.higher("all", "KL, equal budget"),
        results.lower("all", "KL, equal budget", role="falsifies"),
        Check(f"a correction at a random error does better: {random} wholly above 0", random.positive, "falsifies"),
        results.higher("SCRG", "KL, equal budget", role="reported"),
        results.higher("SCRG", "teacher's answers", role="reported"),
        results.higher("DAC-KL", "top-p", role="reported"),
        results.higher("spans", "random spans", role="reported"),
    ]


RECIPE = Recipe(
    name="multi_granularity",
    title="Multi-granularity semantic revision",
    source="arXiv 2407.10068",
    place=Place(
        "feedback", "divergence", "token logits", prefixes="student", granularity="span", skill="context following"
    ),
    signals=("dense logits",),
    data="instructions over three words of letters, generated",
    claim="Correcting a student's answer where the teacher disagrees most, an adaptive KL and span consistency "
    "together teach more than forward KL on as many of the student's answers",
    falsified="the whole is worse than forward KL at an equal number of written answers, or corrections at random "
    "errors do better",
    arms={name: way.about for name, way in WAYS.items()},
    metric="exact_match",
    seeds=5,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {
            "teacher": ("facebook/opt-6.7b", Shape(50272, 4096, 32, 32, 16384, 2048)),
            "student": ("facebook/opt-1.3b", Shape(50272, 2048, 24, 32, 8192, 2048)),
        },
        devices=8,
        tokens="databricks-dolly-15k; one correction an answer",
    ),
)
