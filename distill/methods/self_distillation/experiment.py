"""Self-distillation with a share of the true targets (Borup and Andersen, arXiv 2102.13088).

Exact part: kernel ridge regression in closed form, with the paper's table. Experiment: a model on flipped labels learns
from itself step after step, with a share alpha of the labels mixed back in: small networks, or ridge regression on
vectors of a pretrained encoder (`--preset real-small`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from distill.core.objectives.kernel import best_alpha
from distill.language.models import Shape
from distill.methods.claims import Claim, Difference, Power
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.labs.feature_lab import MINILM
from distill.methods.self_distillation.kernel_toy import TABLE, laws, toy, toy_limit
from distill.methods.self_distillation.labs import Lab, Networks, Ridge, error
from distill.methods.self_distillation.method import targets
from distill.methods.statistics import Check, Interval, Results

GRID = (0.3, 0.6)
PILOT, PILOT_RIDGE = (901, 902, 950), (900, 901, 902, 903)
MARGIN = 0.01
"""Error that the estimated share may cost."""


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment with networks."""

    classes: int = 6
    train: int = 600
    validation: int = 300
    test: int = 2000
    flipped: float = 0.3
    hidden: int = 64
    steps: int = 6
    """Times that a model is fitted; all but the first learn from the one before."""
    updates: int = 200
    learning_rate: float = 3e-3
    weight_decay: float = 3.0


@dataclass(frozen=True)
class RidgeSettings:
    """Sizes of the experiment with ridge regression."""

    encoder: str = MINILM
    classes: int = 77
    flipped: float = 0.3
    steps: int = 10
    strengths: tuple[float, ...] = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class Share(Arm):
    """How much of the true targets every step of one arm is given."""

    alpha: float | None = None
    """Estimated anew in every step where None."""
    once: bool = False
    """One model, fitted once to the true targets, with the weight penalty over the last alpha of the arm it needs."""


def run_arm(trial: Trial, lab: Lab, arm: Share) -> dict[str, Any]:
    """One sequence of self-distillation, or a model that is fitted once."""
    truth = lab.truth["train"]
    first = lab.fit(truth, 0)
    if arm.once:
        alpha = max(trial.measured(arm.needs[0])["alphas"][-1], 0.1)
        found = lab.fit(truth, 0, 1 / alpha)
        trial.keep(lab.last)
        return {"test_error": error(lab, found), "validation_error": error(lab, found, "validation"), "alpha": alpha}
    found, alphas, errors = first, [], [error(lab, first)]
    for generation in range(1, trial.settings.steps):
        if arm.alpha is None:
            alone = lab.fit(found["train"], generation)
            alphas.append(best_alpha(first["validation"], alone["validation"], lab.truth["validation"]).value)
        else:
            alphas.append(arm.alpha)
        found = lab.fit(targets(truth, found["train"], alphas[-1]), generation)
        errors.append(error(lab, found))
    trial.keep(lab.last)
    return {
        "test_error": errors[-1], "first_error": errors[0], "second_error": errors[1],
        "validation_error": error(lab, found, "validation"), "errors": errors, "alphas": alphas,
    }  # fmt: skip


def best_of_grid(results: Results) -> np.ndarray:
    """`[seeds]`, the test error of the fixed share that the validation set likes best."""
    names = [f"alpha {alpha}" for alpha in GRID]
    chosen = np.array([results.values(name, "validation_error") for name in names]).argmin(0)
    return np.array([results.values(name) for name in names])[chosen, np.arange(len(results.seeds))]


def spared(results: Results) -> np.ndarray:
    """`[seeds]`, what is left of the margin after the estimate's error over the best fixed share's."""
    return MARGIN - (results.values("estimated") - best_of_grid(results))


def decline(results: Results) -> np.ndarray:
    """`[seeds]`, the error of alpha 0 after the last step less after the second."""
    return results.values("alpha 0") - results.values("alpha 0", "second_error")


def claims(guidance: Power, estimate: Power, fall: Power) -> tuple[Claim, ...]:
    """What is asked, with the power of each figure."""
    return (
        Claim(
            "guidance", "Distilling a model from itself alone ends with more errors than with an estimated share of "
            "the true targets mixed back in",
            Difference("alpha 0", "estimated"), guidance,
        ),
        Claim(
            "estimate", f"The estimated share costs less than {MARGIN:.0%} of error against the best fixed one",
            spared, estimate, unit="margin less the estimate's error over the best fixed share's",
        ),
        Claim(
            "decline", "Without true targets the model gets worse from step to step",
            decline, fall, role="mechanism", unit="error of alpha 0 after the last step less after the second",
        ),
    )  # fmt: skip


def rule(results: Results) -> list[Check]:
    """The closed forms must be exact; a single model with the limit's weight penalty is reported beside."""
    off = max(
        abs(value - wanted)
        for alpha, column in TABLE.items()
        for value, wanted in zip((*toy(alpha, 6)[0], toy_limit(alpha)), column, strict=True)
    )
    worst = max(laws().values())
    decay = Interval.of(results.values("penalty") - results.values("estimated"))
    return [
        Check(f"the toy's table to 5 decimals: off by {off:.1e}", off < 6e-6, "precondition"),
        Check(f"laws on 20 random problems: off by {worst:.1e}", worst < 1e-8, "precondition"),
        Check(f"one model with penalty / alpha less the estimate is {decay}", not decay.positive, "reported"),
    ]


RECIPE = Recipe(
    name="self_distillation",
    title="Self-distillation with a share of the true targets",
    source="arXiv 2102.13088",
    place=Place("self-knowledge", "divergence", "token logits", granularity="class", skill="understanding"),
    signals=("dense logits",),
    data="sentences of 6 classes with 30 % flipped labels, generated, or labelled tables by --data; a kernel toy",
    claim="Distilling a model from itself alone ends up worse than with a share of the true targets mixed back in, and "
    "the best share can be estimated from two trainings a step",
    falsified="distilling from itself alone ends with fewer errors",
    needs="labelled texts, or text; no teacher",
    costs="as many trainings as generations",
    arms={
        "alpha 0": Share("every step learns from the one before alone", 0.0),
        **{f"alpha {alpha}": Share(f"{alpha:.0%} of the labels mixed in", alpha) for alpha in GRID},
        "estimated": Share("alpha estimated on validation answers, two fits a step"),
        "penalty": Share(
            "control: one model, fitted once, with the weight penalty / alpha", once=True, needs=("estimated",)
        ),
    },
    metric="test_error",
    seeds=28,
    prepare=Networks,
    arm=run_arm,
    rule=rule,
    claims=claims(Power(0.03, 0.049, PILOT), Power(MARGIN, 0.0123, PILOT), Power(0.03, 0.04, PILOT)),
    presets={"small": Settings(), "real-small": RidgeSettings()},
    by_preset={
        "real-small": {
            "prepare": Ridge,
            "seeds": 20,
            "claims": claims(
                Power(0.01, 0.009, PILOT_RIDGE), Power(0.005, 0.002, PILOT_RIDGE), Power(0.01, 0.0085, PILOT_RIDGE)
            ),
        },
    },
    reads=("labelled",),
    scale=Scale(
        {
            "student": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="encoder", classes=77)),
        },
        devices=1,
        tokens="a classification set with noisy labels; 2 to 3 steps, each from the same initial checkpoint",
    ),
)
