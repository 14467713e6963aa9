"""Approximate likelihood matching: a teacher that splits texts into other tokens (arXiv 2503.20083).

Teacher and student have no token in common, but pieces of text that begin and end in both; what the student thinks of
each piece is drawn towards what the teacher does, `core.objectives.likelihood`. The paper's correction for pieces whose
end one of both finds likelier than the other by how it splits is left out.
"""

from distill.core.objectives.divergences import CrossEntropy
from distill.core.objectives.likelihood import SpanLikelihood
from distill.methods.method import Losses, Method, MethodOptions, weighed


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy, and the likelihood of pieces."""
    teacher = SpanLikelihood(temperature=options.temperature)
    return weighed(labels=(1 - options.alpha, CrossEntropy()), teacher=(options.alpha, teacher))


METHOD = Method(
    "alm", "Approximate likelihood matching, for a teacher with other tokens", "arXiv 2503.20083", losses,
    reads=("alpha", "temperature"), defaults={"temperature": 100.0}, aligns=True,
)  # fmt: skip
