"""Generalised knowledge distillation: a part of the rows is the student's own (arXiv 2306.13649)."""

from distill.core.objectives.divergences import JensenShannon
from distill.methods.method import Method

METHOD = Method(
    "gkd", "Generalised knowledge distillation, in part on the student's own answers", "arXiv 2306.13649",
    losses=lambda options: {"teacher": (1.0, JensenShannon(temperature=options.temperature, beta=options.beta))},
    reads=("temperature", "beta", "on_policy"),
    student_writes=lambda options: options.on_policy,
)  # fmt: skip
