"""Self-distillation with a share of the true targets (Borup and Andersen, arXiv 2102.13088).

The student learns the data; then, from the same start, the data and what it said itself, generation after generation.
The theory is about squared errors of a fixed kernel. Here, with cross-entropy and forward KL, a generation has the
gradient of a cross-entropy with targets mixed of both.
"""

from typing import TypeVar

import numpy as np
import torch

from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.methods.method import Losses, Method, MethodOptions, weighed

Targets = TypeVar("Targets", np.ndarray, torch.Tensor)


def targets(truth: Targets, said: Targets, share: float) -> Targets:
    """What a generation learns, probabilities of one shape: that share of the truth, the rest of what the generation
    before said."""
    return share * truth + (1 - share) * said


def losses(options: MethodOptions) -> Losses:
    """The data's tokens and the generation before, which has the weight alpha: the paper's alpha is the data's."""
    return weighed(labels=(1 - options.alpha, CrossEntropy()), teacher=(options.alpha, ForwardKL()))


METHOD = Method(
    "self_distillation", "The student as its own teacher, with a share of the data in every generation",
    "arXiv 2102.13088", losses, reads=("alpha", "generations"), own=("labels", "teacher"),
    generations=lambda options: options.generations,
)  # fmt: skip
