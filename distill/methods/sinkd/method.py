"""SinKD: a Sinkhorn distance between the outputs of a whole batch beside the usual losses (arXiv 2402.17110).

For a language model the samples are tokens; neighbours are compared in groups, as the costs of N tokens take N x N
numbers. The loss is a mean per sample; the public code sums over its batch.
"""

from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.core.objectives.sinkhorn import SinkhornDistance
from distill.methods.method import Losses, Method, MethodOptions, weighed

GROUP = 64
"""Tokens that are compared with each other."""


def losses(options: MethodOptions, group: int | None = GROUP) -> Losses:
    """Labels, KD and the distance; `group` None compares the whole batch, as classifiers do."""
    return weighed(
        labels=(1 - options.alpha, CrossEntropy()),
        kd=(options.alpha, ForwardKL(temperature=options.temperature)),
        sinkhorn=(options.weight, SinkhornDistance(group=group)),
    )


METHOD = Method(
    "sinkd", "Sinkhorn distance over groups of tokens beside labels and KD", "arXiv 2402.17110", losses,
    class_losses=lambda options: losses(options, group=None), reads=("alpha", "temperature", "weight"),
    defaults={"alpha": 0.9, "temperature": 2.0},
)  # fmt: skip
