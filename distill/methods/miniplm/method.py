"""MiniPLM: the teacher chooses the corpus, then the student learns from plain text (arXiv 2410.17215).

Rows are kept where the teacher finds them likelier, a token, than a small `--reference` model does: what is easy for
both or noise to both goes. The reference must not have learned these rows. Both are asked once, before training.
"""

import numpy as np

from distill.core.objectives.divergences import CrossEntropy
from distill.core.objectives.scores import difference_scores, top_fraction
from distill.methods.method import Method, MethodOptions


def choose(
    teacher: np.ndarray, reference: np.ndarray, lengths: np.ndarray | None, options: MethodOptions
) -> np.ndarray:
    """Places that are kept, in their order, of log-probabilities `[N]` of both models and numbers of tokens `[N]`."""
    return top_fraction(difference_scores(teacher, reference, lengths), options.keep)


METHOD = Method(
    "miniplm", "Training on the rows that the teacher prefers more than a small reference model does",
    "arXiv 2410.17215", losses=lambda options: {"labels": (1.0, CrossEntropy())}, reads=("keep",), choose=choose,
    takes=("reference",),
)  # fmt: skip
