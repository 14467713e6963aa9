"""The law of the capacity gap: for a student of one size there is a best teacher size (MiniMA, arXiv 2311.07052).

Of several `--candidates` the one is taken whose size is nearest to 2.5 times the student's, embeddings left out; then
labels and the teacher's distribution are learned half and half. The experiment beside this file found no line here.
"""

from collections.abc import Sequence

import numpy as np

from distill.core.errors import DistillError
from distill.core.objectives.divergences import CrossEntropy, ForwardKL
from distill.methods.method import Losses, Method, MethodOptions, weighed

RATIO = 2.5
"""Best teacher over student, in parameters."""


def losses(options: MethodOptions) -> Losses:
    """Cross-entropy and forward KL at temperature 1; the paper's cross-entropy with the teacher has its gradient."""
    return weighed(labels=(1 - options.alpha, CrossEntropy()), teacher=(options.alpha, ForwardKL()))


def chosen(student: int, teachers: Sequence[int], ratio: float = RATIO) -> int:
    """Place of the teacher whose size is nearest to `ratio` times the student's, in the ratio of the two.

    Raises:
      DistillError: no teacher, or a model without parameters.
    """
    sizes = np.array(teachers, float)
    if not len(sizes) or student < 1 or (sizes < 1).any():
        raise DistillError(f"a teacher of {list(teachers)} parameters cannot be chosen for a student of {student}")
    return int(np.abs(np.log(sizes / (ratio * student))).argmin())


METHOD = Method(
    "capacity_gap", "A teacher of 2.5 times the student's size, labels and distribution half and half",
    "arXiv 2311.07052", losses, reads=("alpha",), takes=("candidates",),
)  # fmt: skip
