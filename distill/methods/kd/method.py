"""Knowledge distillation: the tokens of the data and the teacher's distribution over them (arXiv 1503.02531)."""

from collections.abc import Mapping

from distill.core.objectives.base import Objective
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.methods.method import Method, MethodOptions


def losses(options: MethodOptions) -> Mapping[str, tuple[float, Objective]]:
    """Cross-entropy and forward KL; the latter times temperature^2, so that its gradients keep their size."""
    teacher = ForwardKL(temperature=options.temperature, scale_by_temperature=True)
    parts: dict[str, tuple[float, Objective]] = {
        "labels": (1 - options.alpha, CrossEntropy()), "teacher": (options.alpha, teacher),
    }  # fmt: skip
    return {name: part for name, part in parts.items() if part[0]}


METHOD = Method(
    "kd", "Knowledge distillation on the data", "arXiv 1503.02531", losses, reads=("alpha", "temperature")
)  # fmt: skip
