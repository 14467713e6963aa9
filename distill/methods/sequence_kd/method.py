"""Sequence-level distillation: fine-tuning on what the teacher writes (arXiv 1606.07947)."""

from distill.core.objectives.divergences import CrossEntropy
from distill.methods.method import Method

METHOD = Method(
    "sequence_kd", "Sequence-level distillation on the teacher's answers", "arXiv 1606.07947",
    losses=lambda options: {"labels": (1.0, CrossEntropy())},
    teacher_writes=lambda options: 1.0,
)  # fmt: skip
