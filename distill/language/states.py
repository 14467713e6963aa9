"""Causal models as students and teachers whose hidden states are learned beside their logits, in one pass of each."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from distill.core.collect import Student
from distill.core.objectives.base import StudentOutput
from distill.core.signals import DenseLogits, HiddenStates, ProjectedLogits, TeacherSignal
from distill.core.teachers import Batch, OneModel, Teacher
from distill.language.output_layer import every_state_and_head
from distill.language.student import ChunkedStudent

STATES = "states"
"""The part of a sum of losses that is about hidden states; other parts are about logits."""


class StatefulStudent(Student):
    """A causal model that gives the hidden states of all blocks, the embedding's first, with its logits."""

    def __init__(self, reader: Student, vocabulary: int) -> None:
        """`reader` says how its logits are made: chunk by chunk, or all at once, `vocabulary` of them."""
        self.module, self.reader, self.vocabulary = reader.module, reader, vocabulary

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Hidden states, each `[B, T, D]`, and logits `[B, T, V]` or the output layer."""
        if isinstance(self.reader, ChunkedStudent):
            hidden, head = every_state_and_head(module, batch)
            return StudentOutput(hidden=hidden, lm_head=head[: self.vocabulary], scaling=self.reader.scaling)
        places = {"position_ids": batch["positions"]} if "positions" in batch else {}
        model: Any = module
        found = model(input_ids=batch["tokens"][:, :-1], use_cache=False, output_hidden_states=True, **places)
        return StudentOutput(found.logits[..., : self.vocabulary], tuple(found.hidden_states))


def stateful_teacher(reader: Student, vocabulary: int, parts: Sequence[str], others: Mapping[str, Teacher]) -> OneModel:
    """The teacher of parts of a sum: of `STATES` its hidden states, of the rest its logits; `others` have their own."""
    student = StatefulStudent(reader, vocabulary)
    chunked = isinstance(reader, ChunkedStudent)

    def read(module: nn.Module, batch: Batch) -> dict[str, TeacherSignal]:
        found = student.outputs(module, batch)
        hidden = found.hidden
        assert hidden is not None
        said: TeacherSignal
        if found.lm_head is not None:
            said = ProjectedLogits(hidden[-1], found.lm_head, found.scaling)
        else:
            assert found.logits is not None
            said = DenseLogits(found.logits)
        return {part: HiddenStates(hidden) if part == STATES else said for part in parts}

    kind = ProjectedLogits if chunked else DenseLogits
    kinds = {part: HiddenStates if part == STATES else kind for part in parts}
    return OneModel(student.module, read, kinds, f"states and {kind.KIND} of {vocabulary}", others)
