"""Supervised fine-tuning: the data alone, the baseline of every method."""

from distill.core.objectives.divergences import CrossEntropy
from distill.methods.method import Method

METHOD = Method(
    "labels", "Supervised fine-tuning on the data alone", "the baseline",
    losses=lambda options: {"labels": (1.0, CrossEntropy())},
)  # fmt: skip
