"""Knowledge distillation: the tokens of the data and the teacher's distribution over them (arXiv 1503.02531)."""

from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.methods.method import Losses, Method, MethodOptions, weighed


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy and forward KL; the latter times temperature^2, so that its gradients keep their size."""
    teacher = ForwardKL(temperature=options.temperature, scale_by_temperature=True)
    return weighed(labels=(1 - options.alpha, CrossEntropy()), teacher=(options.alpha, teacher))


METHOD = Method(
    "kd", "Knowledge distillation on the data", "arXiv 1503.02531", losses, reads=("alpha", "temperature")
)  # fmt: skip
