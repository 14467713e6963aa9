"""The survey that this catalogue has its axes from, and the smallest experiment on them (arXiv 2402.13116).

What is taken from the teacher and how it is put into the student can be combined freely. Here one of each is varied:
who writes the texts that are learned from, and in which direction the divergence is taken. Forward KL covers what the
teacher may say, reverse KL keeps to what it says most.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from distill.core.objectives.divergences import ForwardKL, ReverseKL
from distill.core.tables import RowSampler
from distill.language.collect import Generated
from distill.language.evaluate import nats_per_token
from distill.language.generation import generate
from distill.language.models import Shape
from distill.language.student import ModelStudent, dense
from distill.methods.claims import Claim, Power
from distill.methods.framework import Arm, Place, Recipe, Trial
from distill.methods.labs.text_lab import TextLab
from distill.methods.statistics import Check, Results


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment."""

    teacher: Shape = Shape(0, 64, 3, 4)
    student: Shape = Shape(0, 32, 1, 4)
    rows: int = 500
    prompts: int = 200
    prompt: int = 8
    answer: int = 24
    teacher_steps: int = 600
    start_steps: int = 150
    steps: int = 400
    rounds: int = 8
    batch: int = 32
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Corner(Arm):
    """Who writes the texts, and the direction of the divergence."""

    writer: Literal["teacher", "student"] = "teacher"
    direction: Literal["forward", "reverse"] = "forward"


class Lab:
    """One seed's text, teacher, and student's start."""

    def __init__(self, trial: Trial) -> None:
        self.settings: Settings = trial.settings
        s = self.settings
        splits = {"train": s.rows, "prompts": s.prompts, "test": s.prompts}
        self.text = TextLab(trial, ("prose",), s.prompt + s.answer, splits)
        train = self.text.of("train")
        how = {"batch": s.batch, "learning_rate": s.learning_rate}
        self.teacher, start = self.text.model(s.teacher, 1), self.text.model(s.student, 2)
        self.text.learn(self.teacher, train, s.teacher_steps, **how)
        self.text.learn(start, train, s.start_steps, **how)
        self.start = {name: tensor.clone() for name, tensor in start.state_dict().items()}

    def prompts(self, split: str) -> np.ndarray:
        """`[N, P]`."""
        (rows,) = self.text.of(split).values()
        return rows["tokens"][:, : self.settings.prompt]

    def written(self, student: Any, seed: int) -> dict[str, float]:
        """What a student writes on prompts that it did not see: nats a token of the teacher, and the share of
        different runs of four tokens."""
        prompts = torch.from_numpy(self.prompts("test"))
        tokens, mask = generate(student, prompts, self.settings.answer, self.text.vocabulary, seed)
        nats = nats_per_token(self.teacher, self.text.read, {"tokens": tokens.numpy(), "mask": mask.numpy()})
        answers = tokens[:, self.settings.prompt :].numpy()
        runs = np.lib.stride_tricks.sliding_window_view(answers, 4, axis=1).reshape(-1, 4)
        return {"teacher_nats": nats, "distinct": len(np.unique(runs, axis=0)) / len(runs)}


def run_arm(trial: Trial, lab: Lab, corner: Corner) -> dict[str, Any]:
    """One student of the common start."""
    s = lab.settings
    model = lab.text.model(s.student, 2)
    model.load_state_dict(lab.start)
    texts = Generated("texts", lab.prompts("prompts"), lab.teacher, model, s.answer, lab.text.vocabulary)
    steps = trial.scaled(s.steps)
    rounds = max(min(s.rounds, steps // 2), 1)
    trial.fit(
        ModelStudent(model, lab.text.read), ForwardKL() if corner.direction == "forward" else ReverseKL(),
        dense(lab.teacher, lab.text.read), [texts], steps=s.steps, rounds=rounds,
        rows=max(s.batch * (steps // rounds) // 4, s.batch), batch=s.batch, learning_rate=s.learning_rate,
        beta=1.0 if corner.writer == "teacher" else 0.0, sampler=RowSampler(newest=True),
    )  # fmt: skip
    trial.keep(model, tokens=lab.text.tokens)
    (test,) = lab.text.of("test").values()
    return {**lab.written(model, trial.number(5)), "text_nats": nats_per_token(model, lab.text.read, test)}


def _gain(results: Results, metric: str) -> np.ndarray:
    """`[seeds]`: forward less reverse KL, mean over both writers."""
    found = [results.values(f"{w}'s texts, forward", metric) - results.values(f"{w}'s texts, reverse", metric)
             for w in ("teacher", "student")]  # fmt: skip
    return np.mean(found, 0)


def likelier(results: Results) -> np.ndarray:
    """`[seeds]`: how much likelier to the teacher a text is after reverse KL, nats a token."""
    return _gain(results, "teacher_nats")


def less_varied(results: Results) -> np.ndarray:
    """`[seeds]`: how much smaller the share of different runs of tokens is after reverse KL."""
    return _gain(results, "distinct")


def rule(results: Results) -> list[Check]:
    """Beside the claims: what the writer changes, and which student knows the text best."""
    return [
        results.lower("student's texts, reverse", "teacher's texts, reverse", role="reported"),
        results.lower("student's texts, forward", "teacher's texts, forward", role="reported"),
        results.lower("teacher's texts, forward", "teacher's texts, reverse", "text_nats", role="reported"),
    ]


PILOT = (900, 901, 902)
"""There reverse KL made texts likelier by 0.398 nats a token, and the share of different runs less by 0.150."""

RECIPE = Recipe(
    name="survey_taxonomy",
    title="A survey's map of the methods, and the smallest experiment on it",
    source="arXiv 2402.13116",
    place=Place("feature", "divergence", "token logits", prefixes="mixed", skill="language modelling"),
    signals=("dense logits",),
    data="prose by a grammar in which several words may follow, generated; or text files by --data",
    claim="Reverse KL makes a student write what its teacher finds likelier, and less varied texts, than forward KL",
    falsified="both are the other way round",
    needs="none of its own: the catalogue says of every method what it takes",
    costs="none of its own",
    arms={
        f"{writer}'s texts, {direction}": Corner(f"the {writer} writes, {direction} KL", writer, direction)
        for writer in ("teacher", "student")
        for direction in ("forward", "reverse")
    },
    metric="teacher_nats",
    seeds=0,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=(
        Claim(
            "likelier", "Reverse KL makes a student write what its teacher finds likelier than forward KL does",
            likelier, Power(0.1, 0.177, PILOT),
            unit="teacher's nats a token of the student's texts, forward less reverse KL",
        ),
        Claim(
            "less varied", "It makes it write less varied texts", less_varied,
            Power(0.02, 0.0165, PILOT),
            unit="share of different runs of four tokens, forward less reverse KL",
        ),
    ),
    presets={"small": Settings()},
    reads=("texts", "pairs", "labelled", "tagged"),
    call="distill.methods.standing.catalogue",
)  # fmt: skip
