"""How a model's outputs at the positions of one row lie to each other, against a teacher's (arXiv 2410.16236).

Outputs `Y` `[K, V]` at K positions of a row make `R = Y Y^T` `[K, K]`; the loss of the row is 1 - the cosine between
the student's and the teacher's R. It is blind to the size of the outputs, so it goes beside a loss that is not.
Vocabularies need not agree: only positions are compared.
"""

from typing import ClassVar

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput
from distill.core.precision import wide, wide_type
from distill.core.signals import DenseLogits, TeacherSignal


class GramMatching(Objective):
    """1 - cosine of the relations between the positions that count, averaged over the rows that have any.

    The elements are positions `[B, T]`; a row weighs as much as the mean of the positions of it that count.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (DenseLogits,)

    def elements(self, student: StudentOutput, signal: DenseLogits) -> tuple[Tensor, torch.Size]:
        """The student's logits `[B, T, V]`, and the positions `[B, T]`."""
        logits = student.need("logits", self)
        if logits.ndim != 3 or logits.shape[:2] != signal.logits.shape[:2]:
            raise DistillError(
                f"relations need logits [rows, positions, ...], got the student's {list(logits.shape)} and the "
                f"teacher's {list(signal.logits.shape)}"
            )
        return logits, logits.shape[:2]

    def losses(self, student: StudentOutput, signal: DenseLogits, rows: Tensor, mask: Tensor | None) -> Tensor:  # noqa: ARG002
        """The loss of its row at each position that counts, `[N]`."""
        assert student.logits is not None
        shape = student.logits.shape[:2]
        chosen = torch.zeros(shape.numel(), dtype=torch.bool, device=rows.device)
        chosen[rows] = True
        chosen = chosen.reshape(shape)
        ours, theirs = (_relations(logits, chosen) for logits in (student.logits, signal.logits))
        return (1 - torch.cosine_similarity(ours, theirs, dim=-1))[rows // shape[1]]

    def mean(
        self, student: StudentOutput, signal: DenseLogits, rows: Tensor, weights: Tensor, mask: Tensor | None
    ) -> Tensor:
        """The mean over rows."""
        row = rows // signal.logits.shape[1]
        size = torch.bincount(row, minlength=len(signal.logits))
        exact = wide_type(signal.logits)
        return super().mean(student, signal, rows, weights.to(exact) / size[row], mask)


def _relations(logits: Tensor, chosen: Tensor) -> Tensor:
    """`[B, T * T]` in at least float32; 0 wherever a position does not count."""
    outputs = wide(torch.where(chosen[..., None], logits, 0.0))
    return (outputs @ outputs.transpose(1, 2)).flatten(1)
