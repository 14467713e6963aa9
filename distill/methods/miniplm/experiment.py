"""MiniPLM: the teacher chooses the corpus, then any student learns from plain text (arXiv 2410.17215).

Text is kept where the teacher finds it likelier than a small reference model does: what is easy for both or noise to
both goes. The teacher is asked once, and never while a student learns.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from distill.core.objectives.scores import difference_scores, matched_steps, top_fraction
from distill.core.tables import FixedDomain
from distill.language.evaluate import log_probs, nats_per_token
from distill.language.generation import generate
from distill.language.models import Shape, parameters
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.kd.method import METHOD as KD
from distill.methods.labs.text_lab import TextLab
from distill.methods.method import MethodOptions
from distill.methods.miniplm.method import choose
from distill.methods.statistics import Check, Interval, Results

CLEAN = ("rules", "prose")
"""Sources that are worth learning; with other data, every domain."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment; models may be published ones by name or path, which are then not trained first."""

    teacher: Shape | str = Shape(0, 64, 3, 4)
    reference: Shape | str = Shape(0, 48, 1, 4)
    student: Shape = Shape(0, 48, 2, 4)
    other_student: Shape = Shape(0, 32, 4, 2)
    sources: tuple[str, ...] = ("boilerplate", "rules", "prose", "noise")
    length: int = 128
    pool: int = 500
    """Rows of each source to choose from."""
    reference_rows: int = 25
    """Of each source, for the reference alone: never scored."""
    teacher_rows: int = 500
    """Of each source, for the teacher alone."""
    test: int = 48
    keep: float = 0.5
    teacher_steps: int = 700
    reference_steps: int = 500
    steps: int = 500
    batch: int = 8
    learning_rate: float = 3e-3


@dataclass(frozen=True)
class Choice(Arm):
    """Which half of the pool one arm trains on, and how."""

    by: Literal["chance", "difference", "teacher", "reference"] = "difference"
    other_student: bool = False
    """A student of another shape."""
    logits: bool = False
    """The teacher's logits beside the labels, in as many steps as cost the same."""


class Lab(TextLab):
    """Pool, teacher and reference, and the scores of both on the pool."""

    def __init__(self, trial: Trial) -> None:
        self.settings = s = trial.settings
        splits = {"pool": s.pool, "reference": s.reference_rows, "teacher": s.teacher_rows, "test": s.test}
        super().__init__(trial, s.sources, s.length, splits, (s.teacher, s.reference))
        self.teacher = self.pretrained(s.teacher, "teacher", s.teacher_steps, 2 * s.batch)
        self.reference = self.pretrained(s.reference, "reference", s.reference_steps, s.batch)
        parts = self.of("pool")
        order = trial.rng(1).permutation(sum(len(rows["tokens"]) for rows in parts.values()))
        self.pool = {
            key: np.concatenate([rows[key] for rows in parts.values()])[order] for key in ("tokens", "mask")
        }  # fmt: skip
        self.source = np.repeat(np.arange(len(parts)), [len(rows["tokens"]) for rows in parts.values()])[order]
        self.scores = {
            "teacher": log_probs(self.teacher, self.read, self.pool)[0],
            "reference": log_probs(self.reference, self.read, self.pool)[0],
        }

    def pretrained(self, source: Shape | str, split: str, steps: int, batch: int) -> Any:
        """A model that learned its own rows."""
        model = self.model(source, len(split))
        if isinstance(source, Shape):
            self.learn(model, self.of(split), steps, batch=batch, learning_rate=self.settings.learning_rate)
        return model

    def chosen(self, by: str) -> np.ndarray:
        """Places in the pool that an arm trains on, by a score of `Choice.by`."""
        teacher, reference, keep = self.scores["teacher"], self.scores["reference"], self.settings.keep
        if by == "difference":
            return choose(teacher, reference, None, MethodOptions(keep=keep))
        others = {"teacher": teacher, "reference": -reference}
        return top_fraction(others.get(by, self.trial.rng(2).random(len(self.source))), keep)

    def copies(self, model: Any, count: int = 200) -> float:
        """Share of unseen words of 6 letters that the model copies without a mistake."""
        rng, letters = self.trial.rng(3), "abcdefgh"
        words = ["".join(rng.choice(list(letters), 6)) for _ in range(count)]
        prompts = [self.tokens.encode(f"\n{word}>") for word in words]
        if len({len(prompt) for prompt in prompts}) > 1:  # a published tokenizer splits them unequally
            return float("nan")
        new = len(self.tokens.encode(words[0]))
        found, _ = generate(model, torch.tensor(prompts), new, self.vocabulary, 0, temperature=0)
        written = [self.tokens.decode(row) for row in found[:, -new:].tolist()]
        return float(np.mean([text == word for text, word in zip(written, words, strict=True)]))


def run_arm(trial: Trial, lab: Lab, arm: Choice) -> dict[str, Any]:
    """Trains one student from scratch on one choice of the pool."""
    s = lab.settings
    places = lab.chosen(arm.by)
    rows = {key: values[places] for key, values in lab.pool.items()}
    model = lab.model(s.other_student if arm.other_student else s.student, 4)
    steps, options = s.steps, {"batch": s.batch, "learning_rate": s.learning_rate}
    if arm.logits:
        steps = matched_steps(s.steps, parameters(model), parameters(lab.teacher))
        lab.distil(
            model,
            [FixedDomain("text", lab.with_logits(lab.teacher, rows))],
            steps,
            KD.losses(MethodOptions()),
            **options,
        )
    else:
        lab.learn(model, {"text": rows}, steps, **options)
    trial.keep(model, tokens=lab.tokens)
    losses = {n: nats_per_token(model, lab.read, test) for n, test in lab.of("test").items()}
    clean = [losses[n] for n in CLEAN if n in losses] or list(losses.values())
    shares = {n: float((lab.source[places] == i).mean()) for i, n in enumerate(lab.domains)}
    return {
        "clean_loss": float(np.mean(clean)), **{f"loss {n}": value for n, value in losses.items()},
        "copies": lab.copies(model), "shares": shares, "steps": steps, "parameters": parameters(model),
        "negative": float((difference_scores(lab.scores["teacher"], lab.scores["reference"]) < 0).mean()),
    }  # fmt: skip


PILOT = tuple(range(5))
"""Seeds of the pilot, this same experiment: the figures below were 0.082, 0.175 and 0.053 there."""
CLAIMS = (
    Claim(
        "choice", "As many tokens chosen by the difference of log-likelihoods teach more than chosen evenly",
        Difference("uniform", "difference"), Power(effect=0.08, spread=0.093, pilot=PILOT),
    ),
    Claim(
        "teacher", "The teacher adds something: what the reference alone chooses teaches less",
        Difference("reference only", "difference"), Power(effect=0.08, spread=0.042, pilot=PILOT), role="mechanism",
    ),
    Claim(
        "another student", "The same choice serves a student of another shape",
        Difference("uniform, other student", "difference, other student"),
        Power(effect=0.08, spread=0.075, pilot=PILOT), role="mechanism",
    ),
)  # fmt: skip


def rule(results: Results) -> list[Check]:
    """What decides nothing: which sources each choice keeps, and KD at equal cost."""
    first = results.rows[results.seeds[0]]["difference"]["shares"]
    even, checks = 1 / len(first), []
    for arm in ("difference", "teacher only", "reference only"):
        kept = {
            n: Interval.of(np.array([row[arm]["shares"][n] for row in results.rows.values()]) - even) for n in first
        }
        text = ", ".join(f"{n} {found}" for n, found in kept.items())
        checks.append(Check(f"{arm} keeps of each source, less an even share: {text}", True, "reported"))
    return [*checks, results.lower("difference", "vanilla KD", role="reported")]


RECIPE = Recipe(
    name="miniplm",
    title="MiniPLM: distillation by choosing the pre-training corpus",
    source="arXiv 2410.17215",
    place=Place(
        "curation", "fine-tuning", "sequence log-probability", granularity="corpus", same_tokenizer=False,
        skill="language modelling",
    ),
    signals=("sampled log-probabilities",),
    data="boilerplate, rules, prose and noise in equal parts; or text files by --data",
    claim="Text chosen by the difference of the teacher's and a small reference's log-likelihood teaches a student "
    "more a token than text chosen evenly, and serves another student without scoring again",
    falsified="the loss on clean text is higher than with uniform choice",
    needs="a corpus, and a teacher and a small reference model that score texts",
    costs="both models read the corpus once; only what is kept is trained on",
    arms={
        "uniform": Choice("half of the pool, chosen evenly", "chance"),
        "difference": Choice("the half with the largest difference of log-likelihoods"),
        "teacher only": Choice("control: the half that is likeliest to the teacher", "teacher"),
        "reference only": Choice("control: the half that is least likely to the reference", "reference"),
        "vanilla KD": Choice(
            "teacher's logits and labels on the even half, as many steps as cost the same", "chance", logits=True
        ),
        "uniform, other student": Choice("uniform for a student of another shape", "chance", other_student=True),
        "difference, other student": Choice(
            "the same chosen half for a student of another shape", other_student=True
        ),
    },
    metric="clean_loss",
    seeds=15,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    claims=CLAIMS,
    presets={
        "small": Settings(),
        "real": Settings(
            "Qwen/Qwen1.5-1.8B", "MiniLLM/MiniPLM-Qwen-104M-ref", Shape(0, 768, 12, 12, 2112, 1024),
            Shape(0, 768, 12, 12, 2112, 1024, tied=False), length=1024, pool=10**8, batch=512, steps=100_000,
            learning_rate=6e-4,
        ),
    },
    scale=Scale(
        {
            "teacher": ("Qwen/Qwen1.5-1.8B", Shape(151936, 2048, 24, 16, 5504, 32768, tied=False)),
            "reference": ("MiniLLM/MiniPLM-Qwen-104M-ref", Shape(151936, 512, 8, 8, 1408, 1024, tied=False)),
            "student": ("from scratch, 200M", Shape(151936, 768, 12, 12, 2112, 1024, tied=False)),
        },
        devices=8,
        tokens="105B tokens of the Pile: 5B for the reference, 100B scored, 50B kept",
    ),
    reads=("texts", "pairs", "labelled", "tagged"),
)  # fmt: skip
