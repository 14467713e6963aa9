"""Logits of some positions, for objectives that compare positions with each other or learn something themselves."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils import checkpoint as checkpointing

from distill.core.objectives.base import StudentOutput
from distill.core.precision import wide


def student_logits(student: StudentOutput, rows: Tensor) -> Tensor:
    """The student's logits `[n, V]` at `rows` `[n]` of its flattened positions, in float32 or better.

    From its logits, or from its last hidden states and `lm_head`; `VocabularyObjective.elements` checks that they fit.
    """
    if student.logits is not None:
        logits = _chosen(student.logits, rows)
    else:
        assert student.hidden is not None and student.lm_head is not None
        logits = student.scaling(F.linear(_chosen(student.hidden[-1], rows), student.lm_head))
    return wide(logits)


def teacher_logits(logits: Tensor, rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The teacher's logits `[n, V]` at the same places."""
    return _chosen(logits, rows).to(dtype)


def in_chunks(losses: Callable[[Tensor], Tensor], rows: Tensor, chunk: int) -> Tensor:
    """`losses(rows [n]) -> [n]` over chunks of rows; a chunk's own tensors are made again in the backward pass.

    Gradients reach everything that `losses` reads: the student, its head, and what the objective itself learns.
    """
    again = cast("Callable[..., Tensor]", checkpointing.checkpoint)  # pyright: ignore[reportUnknownMemberType] (torch)
    return torch.cat([again(losses, part, use_reentrant=False) for part in torch.split(rows, max(1, chunk))])


def _chosen(values: Tensor, rows: Tensor) -> Tensor:
    return values.reshape(-1, values.shape[-1]).index_select(0, rows)
