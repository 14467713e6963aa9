"""What removes teacher hacking: answers that the teacher writes anew in every round (arXiv 2502.02671).

On one fixed set of a teacher's answers a student comes closer to the teacher and further from the truth. The loss is
the forward divergence token by token; `--on-policy` gives a share of the answers to the student.
"""

from distill.core.objectives.divergences import ForwardKL
from distill.methods.method import Losses, Method, MethodOptions


def losses(options: MethodOptions) -> Losses:
    """The forward divergence, along whatever was written."""
    return {"teacher": (1.0, ForwardKL(temperature=options.temperature))}


METHOD = Method(
    "teacher_hacking", "Forward KL on answers that are written anew in every round", "arXiv 2502.02671", losses,
    reads=("temperature", "on_policy"), defaults={"on_policy": 0.0},
    student_writes=lambda options: options.on_policy, teacher_writes=lambda options: 1 - options.on_policy,
)  # fmt: skip
