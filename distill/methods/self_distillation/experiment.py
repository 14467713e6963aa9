"""Self-distillation with a share of the true targets (Borup and Andersen, arXiv 2102.13088).

Exact part: kernel ridge regression in closed form, with the paper's table. Experiment: a small transformer encoder on
flipped labels learns from itself step after step, with a share alpha of the labels mixed back in.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from distill.core.objectives.kernel import best_alpha
from distill.core.objectives.probabilities import ProbabilityMSE
from distill.core.teachers import RecordedLogits
from distill.language.evaluate import accuracy
from distill.language.models import Shape
from distill.language.tasks import Unigrams
from distill.methods.framework import Arm, Place, Recipe, Scale, Trial
from distill.methods.labs.class_lab import ClassLab
from distill.methods.self_distillation.kernel_toy import TABLE, laws, toy, toy_limit
from distill.methods.self_distillation.method import targets
from distill.methods.statistics import Check, Interval, Results

GRID = (0.1, 0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True)
class Settings:
    """Sizes of the experiment with networks."""

    classes: int = 6
    train: int = 600
    validation: int = 300
    test: int = 2000
    flipped: float = 0.2
    width: int = 32
    steps: int = 4
    """Times that a network is trained, each one from fresh weights; all but the first learn from the one before."""
    updates: int = 250
    weight_decay: float = 1.0


@dataclass(frozen=True)
class Share(Arm):
    """How much of the true targets every step of one arm is given."""

    alpha: float | None = None
    """Estimated anew in every step where None."""
    once: bool = False
    """One network, trained once on the true targets, with the weight decay over the last alpha of the arm it needs."""


class Lab(ClassLab):
    """One seed's data; trains networks on targets and says what they predict."""

    def __init__(self, trial: Trial) -> None:
        s, rng = trial.settings, trial.rng()
        super().__init__(trial, Unigrams(s.classes, seed=trial.seed), batch=64)
        for name in ("train", "validation", "test"):
            self.draw(rng, name, 40)
        for name in ("train", "validation"):  # a real validation set is as wrong as the training set
            self.flip(rng, name, s.flipped)
        self.truth = {name: np.eye(s.classes)[rows["label"]] for name, rows in self.sets.items()}
        self.last: Any = None
        """The network that was trained last."""
        self.first = self.train(self.truth["train"])

    def train(self, targets: np.ndarray, weight_decay: float | None = None) -> dict[str, np.ndarray]:
        """Probabilities on each set of a network trained from fresh weights on `targets` `[N, classes]`."""
        s = self.settings
        model = self.model(Shape(0, s.width, 2, 2, kind="encoder", context=16), self.trial.seed)
        logits = torch.from_numpy(targets).log().clamp(min=-60).float().numpy()
        rows = {"tokens": self.sets["train"]["tokens"], "logits": logits}
        decay = s.weight_decay if weight_decay is None else weight_decay
        self.learn(model, ProbabilityMSE(), RecordedLogits(), rows, s.updates, weight_decay=decay)
        self.last = model
        return {name: self.probabilities(model, name) for name in self.sets}

    def error(self, found: Mapping[str, np.ndarray], name: str = "test") -> float:
        """Share of wrong answers; clean labels on the test set."""
        return 1 - accuracy(found[name], self.sets[name]["label"])


def run_arm(trial: Trial, lab: Lab, arm: Share) -> dict[str, Any]:
    """One sequence of self-distillation, or a network that is trained once."""
    if arm.once:
        alpha = max(trial.measured(arm.needs[0])["alphas"][-1], 0.1)
        found = lab.train(lab.truth["train"], lab.settings.weight_decay / alpha)
        trial.keep(lab.last)
        return {"test_error": lab.error(found), "validation_error": lab.error(found, "validation"), "alpha": alpha}
    found, alphas, errors = lab.first, [], [lab.error(lab.first)]
    for _ in range(lab.settings.steps - 1):
        if arm.alpha is None:
            alone = lab.train(found["train"])
            guess = best_alpha(lab.first["validation"], alone["validation"], lab.truth["validation"])
            alphas.append(guess.value)
        else:
            alphas.append(arm.alpha)
        found = lab.train(targets(lab.truth["train"], found["train"], alphas[-1]))
        errors.append(lab.error(found))
    trial.keep(lab.last)
    validation = lab.error(found, "validation")
    return {
        "test_error": errors[-1], "first_error": errors[0], "second_error": errors[1], "validation_error": validation,
        "errors": errors, "alphas": alphas,
    }  # fmt: skip


def rule(results: Results) -> list[Check]:
    """Kernel: exact. Networks: alpha = 0 gets worse, some alpha > 0 does not, the estimate is as good as a grid."""
    off = max(
        abs(value - wanted)
        for alpha, column in TABLE.items()
        for value, wanted in zip((*toy(alpha, 6)[0], toy_limit(alpha)), column, strict=True)
    )
    deviation = laws()
    decline = results.values("alpha 0") - results.values("alpha 0", "second_error")
    names = [f"alpha {alpha}" for alpha in GRID]
    by_validation = np.array([results.values(name, "validation_error") for name in names]).argmin(0)
    grid = np.array([results.values(name) for name in names])
    chosen = grid[by_validation, np.arange(len(results.seeds))]
    falls, gain = Interval.of(decline), Interval.of(results.values("alpha 0") - chosen)
    behind = results.values("estimated") - chosen
    error = float(behind.std(ddof=1) / np.sqrt(len(behind))) if len(behind) > 1 else 0.0
    decay = Interval.of(results.values("weight decay") - chosen)
    worst = max(deviation.values())
    return [
        Check(f"the toy's table to 5 decimals: off by {off:.1e}", off < 6e-6),
        Check(f"laws on 20 random problems: off by {worst:.1e}", worst < 1e-8),
        Check(f"alpha 0: test error of the last step less the second's is {falls}, wholly above 0", falls.positive),
        Check(f"alpha 0 less the grid's best (by validation) is {gain}, wholly above 0", gain.positive),
        Check(
            f"the estimate less the grid's best is {behind.mean():+.4g}, at most one standard error {error:.4g}",
            bool(behind.mean() <= error),
        ),
        Check(f"alpha 0 keeps improving: {falls} wholly below 0", falls.negative, "falsifies"),
        results.higher("estimated", "alpha 0.5", role="falsifies"),
        Check(f"one network with weight decay / alpha less the grid's best is {decay}", not decay.positive, "reported"),
    ]


RECIPE = Recipe(
    name="self_distillation",
    title="Self-distillation with a share of the true targets",
    source="arXiv 2102.13088",
    place=Place("self-knowledge", "divergence", "token logits", granularity="class", skill="understanding"),
    signals=("dense logits",),
    data="sentences of 6 classes with 20 % flipped labels, generated; a kernel toy",
    claim="Distilling a model from itself alone ends up worse than with a share of the true targets mixed back in, and "
    "the best share can be estimated from two trainings a step",
    falsified="alpha = 0 keeps improving at every step, the estimate is worse than alpha = 0.5, or a closed form fails",
    arms={
        "alpha 0": Share("every step learns from the one before alone", 0.0),
        **{f"alpha {alpha}": Share(f"{alpha:.0%} of the labels mixed in", alpha) for alpha in GRID},
        "estimated": Share("alpha estimated on validation answers, two trainings a step"),
        "weight decay": Share(
            "control: one network, trained once, with weight decay / alpha", once=True, needs=("estimated",)
        ),
    },
    metric="test_error",
    seeds=5,
    prepare=Lab,
    arm=run_arm,
    rule=rule,
    presets={"small": Settings()},
    scale=Scale(
        {
            "student": ("google-bert/bert-base-uncased", Shape(30522, 768, 12, 12, 3072, kind="encoder", classes=77)),
        },
        devices=1,
        tokens="a classification set with noisy labels; 2 to 3 steps, each from the same initial checkpoint",
    ),
)
