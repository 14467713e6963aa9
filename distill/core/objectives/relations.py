"""Relations between positions: which queries, keys or values of a sequence are alike (MiniLMv2, arXiv 2012.15828).

They are maps of sequence by sequence, so models of any width and number of heads can be compared without projections.
"""

from typing import ClassVar

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput
from distill.core.precision import wide
from distill.core.signals import HiddenStates, TeacherSignal


def relations(states: Tensor, heads: int, seen: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(A A^T / sqrt(d)) `[B, heads, T, T]` of states `[B, T, D]`, split anew into heads of d = D // heads.

    What is left over of D is dropped. `seen` `[B, T]`: positions that are no padding; `causal` leaves out later ones.
    Raises `DistillError` for more heads than D.
    """
    each = states.shape[-1] // heads
    if not each:
        raise DistillError(f"states of {states.shape[-1]} numbers cannot be split into {heads} relation heads")
    parts = states[..., : heads * each].reshape(*states.shape[:-1], heads, each).transpose(-3, -2)
    scores = parts @ parts.transpose(-1, -2) * each**-0.5
    length = states.shape[-2]
    hidden = torch.zeros(len(states), 1, length, length, dtype=torch.bool, device=states.device)
    if seen is not None:
        hidden = hidden | ~seen[:, None, None, :]
    if causal:
        hidden = hidden | torch.ones(length, length, dtype=torch.bool, device=states.device).triu(1)
    least = torch.finfo(scores.dtype).min  # not -inf: a padded row may see nothing
    return scores.masked_fill(hidden, least).softmax(-1)


class RelationMatching(Objective):
    """Squared differences of relations, averaged over heads and keys that are seen, summed over kinds and students.

    The teacher gives its kinds (queries, keys, values) as layers of `HiddenStates`; the student gives as many for each
    of one or more students, one student after the other. Elements are positions `[B, T]`; a mask takes out keys too.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (HiddenStates,)

    def __init__(self, heads: int, causal: bool = False) -> None:
        """`heads`: relation heads, the same for teacher and students."""
        if heads < 1:
            raise DistillError(f"relations take at least one head, got {heads}")
        self.heads, self.causal = heads, causal

    def elements(self, student: StudentOutput, signal: HiddenStates) -> tuple[Tensor, torch.Size]:
        """The first student's queries `[B, T, D]`, and the positions `[B, T]`."""
        ours = student.need("hidden", self)
        if not ours or len(ours) % len(signal.layers):
            raise DistillError(f"the teacher gives {len(signal.layers)} kinds of states, the student {len(ours)}")
        for layer in ours:
            if layer.shape[:-1] != signal.layers[0].shape[:-1] or layer.dim() != 3:
                raise DistillError(
                    f"student's states {list(layer.shape)} and teacher's {list(signal.layers[0].shape)} must be of the "
                    "same batch and positions"
                )
        return ours[0], ours[0].shape[:-1]

    def losses(self, student: StudentOutput, signal: HiddenStates, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`."""
        assert student.hidden is not None
        theirs = [relations(wide(layer), self.heads, mask, self.causal) for layer in signal.layers]
        keys = torch.full(theirs[0].shape[::3], float(theirs[0].shape[-1]), device=theirs[0].device)
        if mask is not None:
            keys = mask.sum(-1, keepdim=True).expand(mask.shape).to(keys)
        found = torch.zeros((), dtype=theirs[0].dtype, device=theirs[0].device)
        for i, layer in enumerate(student.hidden):
            ours = wide(layer)
            other = theirs[i % len(theirs)]
            gap = (relations(ours, self.heads, mask, self.causal) - other.to(ours.dtype)).square()
            found = found + gap.sum(-1).mean(1) / keys
        return found.flatten().index_select(0, rows)
