"""Students and teachers of the core's loop that read logits out of a model; top-k logits kept small on disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from distill.core.checkpoints import write_json
from distill.core.collect import Student
from distill.core.errors import DistillError
from distill.core.objectives.base import StudentOutput
from distill.core.objectives.chunks import rows_at_once
from distill.core.reading import read_json
from distill.core.signals import DenseLogits, LogitScaling, ProjectedLogits, SampledLogProbs, TeacherSignal, TopKLogits
from distill.core.teachers import Batch, DiskCache, LocalModel, Teacher
from distill.language.models import Read, causal
from distill.language.output_layer import measured_scaling, states_and_head
from distill.language.text import Tokens


class ModelStudent(Student):
    """A torch module and how its logits are read."""

    def __init__(self, module: nn.Module, read: Read) -> None:
        self.module, self.read = module, read

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Logits `[B, T, V]`, or `[B, C]` of a classifier."""
        return StudentOutput(logits=self.read(module, batch))


class ChunkedStudent(Student):
    """A causal model whose logits never exist as a whole: the loss makes them chunk by chunk from its last states."""

    def __init__(self, module: Any, vocabulary: int, tokens: Tensor | None = None) -> None:
        """The scale and cap of the model's logits are measured on `tokens` `[B, T + 1]`, or on a few of any.

        Raises:
          DistillError: its own logits are not those of the states, the output layer, a scale and a cap.
        """
        self.module, self.vocabulary = module, vocabulary
        self.scaling = measured_scaling(module, tokens)

    def outputs(self, module: nn.Module, batch: Mapping[str, Tensor]) -> StudentOutput:
        """Last hidden states `[B, T, D]` and the output layer `[V, D]`."""
        states, head = states_and_head(module, batch)
        return StudentOutput(hidden=(states,), lm_head=_cut(head, self.vocabulary), scaling=self.scaling)


def read_in_parts(model: Any, vocabulary: int, tokens: Tensor | None = None) -> Student:
    """Chunk by chunk where that gives the model's own logits on `tokens` `[B, T + 1]`, or a few of any; else whole."""
    try:
        return ChunkedStudent(model, vocabulary, tokens)
    except DistillError:
        return ModelStudent(model, causal(vocabulary))


def _cut(head: Tensor, vocabulary: int) -> Tensor:
    if len(head) < vocabulary:
        raise DistillError(f"the model knows {len(head)} tokens, its tokenizer has {vocabulary}")
    return head[:vocabulary]


def projected(module: nn.Module, vocabulary: int, known: LogitScaling | None = None) -> LocalModel:
    """A causal teacher whose logits never exist as a whole; its vocabulary is cut to the first `vocabulary` tokens.

    What its logits are scaled by is measured where it is not `known`; errors as for `ChunkedStudent`.
    """
    scaling = known or measured_scaling(module)

    def label(model: nn.Module, batch: Batch) -> ProjectedLogits:
        states, head = states_and_head(model, batch)
        return ProjectedLogits(states, _cut(head, vocabulary), scaling)

    return LocalModel(module, label, ProjectedLogits, f"projected to {vocabulary}")


def dense(module: nn.Module, read: Read, name: str = "logits") -> LocalModel:
    """A teacher that gives all logits."""
    return LocalModel(module, lambda m, batch: DenseLogits(read(m, batch)), DenseLogits, name)


class Next:
    """The labels that stand in the batch itself: the next tokens, or `label` of a classification."""

    kind = SampledLogProbs

    def __init__(self, name: str = "tokens") -> None:
        self.name = name

    def label(self, batch: Batch) -> SampledLogProbs:
        """Tokens `[B, T]` that follow, or classes `[B]`."""
        values = batch[self.name]
        return SampledLogProbs.labels(values[:, 1:] if self.name == "tokens" else values)

    def fingerprint(self) -> str:
        """Nothing but the data decides the labels."""
        return f"{self.name.encode().hex()}00"


@dataclass(frozen=True, eq=False)
class CompactTopK(TopKLogits):
    """Top-k logits of the size of what is kept on disk: float16 logarithms, and int32 ids there.

    6 bytes for each of the K tokens and 2 for the rest of a position. Rounding puts the sum of the probabilities off by
    up to 1 %; `wide` makes a distribution of them again.
    """

    @classmethod
    def from_logits(cls, logits: Tensor, k: int, temperature: float = 1.0) -> Self:
        """As `TopKLogits.from_logits`, rounded."""
        found = TopKLogits.from_logits(logits, k, temperature)
        return cls(found.log_probs.half(), found.indices, found.tail.half(), temperature)

    def wide(self) -> TopKLogits:
        """In float32, normalised."""
        log_probs, tail = self.log_probs.float(), self.tail.float()
        total = torch.cat([log_probs, tail[..., None]], -1).logsumexp(-1)
        return TopKLogits(log_probs - total[..., None], self.indices, tail - total, self.temperature)

    def tensors(self) -> dict[str, Tensor]:
        """With ids in int32."""
        return {**super().tensors(), "indices": self.indices.int()}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `tensors`."""
        if set(tensors) != {"log_probs", "indices", "tail", "temperature"}:
            raise DistillError(f"compact top-k logits are stored otherwise than {sorted(tensors)}")
        temperature = float(tensors["temperature"].item())
        return cls(tensors["log_probs"], tensors["indices"].long(), tensors["tail"], temperature)


def top_k(module: nn.Module, read: Read, k: int, temperature: float = 1.0) -> LocalModel:
    """A teacher that gives its k likeliest tokens and the rest's mass; k beyond the vocabulary is refused."""

    def label(model: nn.Module, batch: Batch) -> CompactTopK:
        return CompactTopK.from_logits(read(model, batch), k, temperature)

    return LocalModel(module, label, CompactTopK, f"top-{k} at temperature {temperature}")


def projected_top_k(
    module: nn.Module, vocabulary: int, k: int, temperature: float = 1.0, known: LogitScaling | None = None
) -> LocalModel:
    """As `top_k`, of a causal teacher whose logits never exist as a whole; `known` as for `projected`."""
    scaling = known or measured_scaling(module)

    def label(model: nn.Module, batch: Batch) -> CompactTopK:
        states, head = states_and_head(model, batch)
        head = _cut(head, vocabulary)
        flat = states.reshape(-1, states.shape[-1])
        parts = [
            CompactTopK.from_logits(scaling(nn.functional.linear(part, head)), k, temperature)
            for part in flat.split(rows_at_once(vocabulary, flat.device, None))
        ]
        joined = (torch.cat([getattr(part, name) for part in parts]) for name in ("log_probs", "indices", "tail"))
        log_probs, indices, tail = (values.unflatten(0, states.shape[:-1]) for values in joined)
        return CompactTopK(log_probs, indices, tail, temperature)

    return LocalModel(module, label, CompactTopK, f"top-{k} of {vocabulary} at temperature {temperature}")


@dataclass(frozen=True)
class AbsentTeacher:
    """One that is known by its answers on disk alone: for a `TopKCache` that was filled elsewhere."""

    identity: str
    """Its fingerprint."""

    @property
    def kind(self) -> type[TeacherSignal]:
        """Likeliest tokens."""
        return CompactTopK

    def label(self, batch: Batch) -> TeacherSignal:
        """Raises `DistillError`: there is nobody to ask."""
        raise DistillError("the teacher is not here, and its answers on disk are not about these rows")

    def fingerprint(self) -> str:
        """As the folder says."""
        return self.identity


class TopKCache(DiskCache):
    """Top-k logits of one teacher and one tokenizer in one folder; another's folder is refused.

    Give it equal batches to find them again: rows in order, in blocks of one size, as
    `distill.language.collect.labelled` does.
    """

    CARD = "teacher.json"

    def __init__(
        self, teacher: Teacher, folder: Path | str, tokens: Tokens, about: Mapping[str, float] | None = None
    ) -> None:
        """`about`: settings that are kept with the answers, such as K.

        Raises:
          DistillError: the folder holds another teacher's or tokenizer's answers, or of other settings.
        """
        super().__init__(teacher, folder)
        self.positions = 0
        said = {"teacher": teacher.fingerprint(), "tokenizer": tokens.fingerprint(), **(about or {})}
        card = self.folder / self.CARD
        self.folder.mkdir(parents=True, exist_ok=True)
        known = self.about(self.folder)
        if known is not None:
            for what, value in said.items():
                if known.get(what) != value:
                    raise DistillError(f"the cache {self.folder} is of another {what}: choose another folder")
        else:
            write_json(card, said)

    @classmethod
    def about(cls, folder: Path) -> dict[str, Any] | None:
        """What a folder says of its answers, None where it says nothing. Raises `DistillError` where it is damaged."""
        card = folder / cls.CARD
        if not card.is_file():
            return None
        try:
            return dict(read_json(card))
        except (ValueError, TypeError) as error:
            raise DistillError(f"{card} is damaged: {error}") from error

    def label(self, batch: Batch) -> TeacherSignal:
        """As `DiskCache.label`; counts positions."""
        signal = super().label(batch)
        assert isinstance(signal, TopKLogits)
        self.positions += signal.tail.numel()
        return signal

    def bytes_per_token(self) -> float:
        """Size of all files over the positions that this object labelled; meaningful after one pass over the rows."""
        size = sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))
        return size / max(self.positions, 1)
