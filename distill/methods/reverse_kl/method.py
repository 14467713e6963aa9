"""Reverse KL on the student's own answers: on-policy distillation token by token.

MiniLLM (arXiv 2306.08543) adds the gradient through what is written; here, as in GKD's reverse-KL case, the written
tokens are taken as given.
"""

from distill.core.objectives.divergences import ReverseKL
from distill.methods.method import Method

METHOD = Method(
    "reverse_kl", "Reverse KL on the student's own answers alone", "arXiv 2306.13649, with the reverse KL",
    losses=lambda options: {"teacher": (1.0, ReverseKL(temperature=options.temperature))},
    reads=("temperature",),
    student_writes=lambda options: 1.0,
)  # fmt: skip
