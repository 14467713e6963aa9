"""What happens inside a model of transformers, as signals: hidden states, attention scores before softmax, logits.

Scores come from an attention function of our own that gives them in the place of probabilities, so that any model
whose attention can be exchanged has them, without a line about its architecture.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.precision import wide_type
from distill.core.signals import Attention, DenseLogits, HiddenStates, TeacherSignal
from distill.core.teachers import Batch, OneModel, Teacher

SCORES = "attention_scores"
"""The name of the attention function."""
Inputs = Callable[[Batch], Mapping[str, Tensor]]
"""What a model is called with for a batch."""
KINDS: Mapping[str, type[TeacherSignal]] = {"hidden": HiddenStates, "attention": Attention, "logits": DenseLogits}


def padded(pad: int = 0) -> Inputs:
    """Calls a model with `tokens` `[B, T]` that are padded with `pad`."""
    return lambda batch: {"input_ids": batch["tokens"], "attention_mask": (batch["tokens"] != pad).long()}


def seen(prefix: str = "") -> Inputs:
    """Calls a model with the rows of `distill.language.labelled.Reader`."""
    return lambda batch: {"input_ids": batch[f"{prefix}tokens"], "attention_mask": batch[f"{prefix}seen"].long()}


def with_scores(model: Any) -> Any:
    """The model, whose attention is computed so that its scores can be read.

    Raises:
      DistillError: its attention cannot be exchanged.
    """
    AttentionInterface.register(SCORES, _attend)  # pyright: ignore[reportUnknownMemberType]
    AttentionMaskInterface.register(SCORES, eager_mask)  # pyright: ignore[reportUnknownMemberType]
    try:
        model.set_attn_implementation(SCORES)
    except (ValueError, AttributeError, ImportError) as error:
        raise DistillError(f"the attention of a {type(model).__name__} cannot be read: {error}") from error
    return model


def inner(module: nn.Module, inputs: Mapping[str, Tensor], scores: bool = True) -> StudentOutput:
    """Logits, hidden states (the embedding first) and, of a model `with_scores`, the scores of all layers.

    Scores are -inf where a key is not seen. Raises `DistillError` where the model does not give them.
    """
    found: Any = module(**inputs, output_hidden_states=True, output_attentions=scores)
    attention = getattr(found, "attentions", None) if scores else None
    if scores and (not attention or any(layer is None for layer in attention)):
        raise DistillError(f"a {type(module).__name__} gives no attention")
    hidden = tuple(found.hidden_states)
    return StudentOutput(getattr(found, "logits", None), hidden, attention and tuple(map(_unseen, attention)))


class InnerStudent(Student):
    """A student whose hidden states and scores are learned from beside its logits."""

    def __init__(self, module: Any, inputs: Inputs) -> None:
        self.module, self.inputs = with_scores(module), inputs

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """All of `inner`."""
        return inner(module, self.inputs(batch))


def inner_teacher(
    module: Any,
    inputs: Inputs,
    parts: Mapping[str, str],
    others: Mapping[str, Teacher] | None = None,
    order: Sequence[int] | None = None,
) -> OneModel:
    """A teacher that is asked once for everything: part -> one of `KINDS`; `others` are teachers of other parts.

    `order`: places of the student's classes among the teacher's, where they differ.
    """
    with_scores(module)

    def read(model: nn.Module, batch: Batch) -> dict[str, TeacherSignal]:
        found = inner(model, inputs(batch), "attention" in parts.values())
        return {part: _signal(found, kind, order) for part, kind in parts.items()}

    kinds = {part: KINDS[kind] for part, kind in parts.items()}
    return OneModel(module, read, kinds, f"inner: {', '.join(sorted(set(parts.values())))}, order {order}", others)


def _signal(found: StudentOutput, kind: str, order: Sequence[int] | None) -> TeacherSignal:
    if kind == "logits":
        if found.logits is None:
            raise DistillError("a model without a head has no logits to teach")
        return DenseLogits(found.logits if order is None else found.logits[..., list(order)])
    if kind == "hidden":
        return HiddenStates(found.hidden or ())
    return Attention(found.attention or (), scores=True)


def _unseen(scores: Tensor) -> Tensor:
    """Masks of transformers are the least number of their type, added up at times."""
    return scores.masked_fill(scores <= torch.finfo(scores.dtype).min / 4, -torch.inf)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    **others: Any,
) -> tuple[Tensor, Tensor]:
    """Attention as transformers' own `eager` computes it, but for the scores `[B, H, T, T]` beside its output."""
    if others.get("s_aux") is not None:
        raise DistillError("attention with sinks has no scores that could be compared")
    groups = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(groups, 1) for part in (key, value))
    scores = query @ key.transpose(-1, -2) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    shares = scores.softmax(-1, dtype=wide_type(query)).to(query.dtype)
    shares = nn.functional.dropout(shares, dropout, module.training)
    return (shares @ value).transpose(1, 2).contiguous(), scores
