"""Losses on what happens inside the models: hidden states and attention, layer by layer.

A layer map says which of the teacher's layers each of the student's learns from. Losses are summed over the mapped
layers, as in TinyBERT (arXiv 1909.10351, section 3.1), and averaged over the positions that count. MiniLM (arXiv
2002.10957, section 3.1) is `AttentionMatching({-1: -1})`: the last layer alone, by KL.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distill.core.errors import DistillError
from distill.core.objectives.base import Objective, StudentOutput, choice
from distill.core.precision import wide
from distill.core.signals import Attention, HiddenStates, TeacherSignal


def uniform_layers(student: int, teacher: int) -> dict[int, int]:
    """TinyBERT's map for models of so many blocks: layer m learns from layer m * teacher / student, 0 (embedding) too.

    For hidden states, where 0 is the embedding; raises `DistillError` unless `student` divides `teacher`.
    """
    if student < 1 or teacher % student:
        raise DistillError(f"the teacher's {teacher} layers cannot be shared out evenly among the student's {student}")
    return {m: m * teacher // student for m in range(student + 1)}


class HiddenStateMatching(Objective):
    """Student's hidden states, through a learned linear projection where widths differ, against the teacher's.

    `mse`: the mean over the width of the squared difference. `cosine`: 1 - cosine of the angle, blind to length.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (HiddenStates,)

    def __init__(
        self,
        layers: Mapping[int, int],
        widths: tuple[int, int] | None = None,
        loss: str = "mse",
        shared: bool = True,
        seed: int = 0,
    ):
        """`layers`: student's layer -> teacher's, places in the tuples of states, negative ones from the end.

        `widths`: (student's, teacher's), where they differ; the projection has no bias. `shared`: one projection for
        all layers (TinyBERT's code), or one for each. `seed` makes its first weights.
        """
        choice("loss", loss, ("mse", "cosine"))
        self.layers, self.loss = _checked(layers), loss
        self.projections = nn.ModuleList()
        if widths is not None:
            generator = torch.Generator().manual_seed(seed)
            self.projections.extend(_projection(*widths, generator) for _ in range(1 if shared else len(layers)))

    def learned(self) -> nn.Module:
        """The projections; move them to the student's device and dtype, and save them with it."""
        return self.projections

    def elements(self, student: StudentOutput, signal: HiddenStates) -> tuple[Tensor, torch.Size]:
        """The student's first mapped layer `[..., T, D]`, and the positions `[..., T]`."""
        pairs = list(_pairs(self.layers, student.need("hidden", self), signal.layers))
        for ours, theirs in pairs:
            if ours.shape[:-1] != theirs.shape[:-1]:
                raise DistillError(
                    f"the student has the positions {list(ours.shape[:-1])}, the teacher {list(theirs.shape[:-1])}"
                )
            self._check_widths(ours.shape[-1], theirs.shape[-1])
        return pairs[0][0], pairs[0][0].shape[:-1]

    def losses(self, student: StudentOutput, signal: HiddenStates, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`, summed over layers."""
        assert student.hidden is not None
        values: list[Tensor] = []
        for i, (ours, theirs) in enumerate(_pairs(self.layers, student.hidden, signal.layers)):
            ours, theirs = (layer.reshape(-1, layer.shape[-1]).index_select(0, rows) for layer in (ours, theirs))
            if self.projections:
                ours = self.projections[min(i, len(self.projections) - 1)](ours)
            ours = wide(ours)
            values.append(self._difference(ours, theirs.to(ours.dtype)))
        return torch.stack(values).sum(0)

    def _difference(self, ours: Tensor, theirs: Tensor) -> Tensor:
        if self.loss == "cosine":
            return 1 - F.cosine_similarity(ours, theirs, dim=-1)
        return (ours - theirs).square().mean(-1)

    def _check_widths(self, ours: int, theirs: int) -> None:
        wanted = (self.projections[0].in_features, self.projections[0].out_features) if self.projections else None
        if wanted is None and ours != theirs:
            raise DistillError(
                f"hidden states are {ours} and {theirs} wide: give widths=({ours}, {theirs}) to learn a map"
            )
        if wanted is not None and wanted != (ours, theirs):
            raise DistillError(f"the projection maps widths {wanted}, but hidden states are {ours} and {theirs} wide")


class AttentionMatching(Objective):
    """Student's attention against the teacher's; elements are queries `[..., T]`, a mask takes out padded keys too.

    `kl`: KL(teacher || student) over the keys of a query, mean over heads (MiniLM). `mse`: mean over heads and keys of
    the squared difference, of probabilities or of scores (TinyBERT); a score of -inf on either side counts as no
    difference. Where head counts differ, both sides are averaged over their heads first.
    """

    accepts: ClassVar[tuple[type[TeacherSignal], ...]] = (Attention,)

    def __init__(self, layers: Mapping[int, int], loss: str = "kl"):
        """`layers`: student's layer -> teacher's, places in the tuples of maps, negative ones from the end."""
        choice("loss", loss, ("kl", "mse"))
        self.layers, self.loss = _checked(layers), loss

    def elements(self, student: StudentOutput, signal: Attention) -> tuple[Tensor, torch.Size]:
        """The student's first mapped layer `[..., H, T, T]`, and the queries `[..., T]`."""
        if signal.scores and self.loss == "kl":
            raise DistillError("AttentionMatching by KL needs attention probabilities, got scores")
        pairs = list(_pairs(self.layers, student.need("attention", self), signal.maps))
        for ours, theirs in pairs:
            if ours[..., 0, :, :].shape != theirs[..., 0, :, :].shape:
                raise DistillError(
                    f"attention maps of the student {list(ours.shape)} and the teacher {list(theirs.shape)} "
                    "may differ in their heads only"
                )
        first = pairs[0][0]
        return first, first[..., 0, :, 0].shape

    def losses(self, student: StudentOutput, signal: Attention, rows: Tensor, mask: Tensor | None) -> Tensor:
        """`[N]`, summed over layers."""
        assert student.attention is not None
        total: list[Tensor] = []
        for ours, theirs in _pairs(self.layers, student.attention, signal.maps):
            keys = ours.shape[-1]
            sequence, query = rows // keys, rows % keys
            seen = torch.ones(len(rows), 1, keys, dtype=torch.bool, device=ours.device)
            if mask is not None:
                seen = mask.reshape(-1, keys)[sequence][:, None]
            ours, theirs = (maps.reshape(-1, *maps.shape[-3:])[sequence, :, query] for maps in (ours, theirs))
            ours = wide(ours)  # [N, H, T]
            ours, theirs = _same_heads(ours, theirs.to(ours.dtype))
            total.append(_attention_kl(ours, theirs, seen) if self.loss == "kl" else _attention_mse(ours, theirs, seen))
        return torch.stack(total).sum(0)


def _checked(layers: Mapping[int, int]) -> dict[int, int]:
    if not layers:
        raise DistillError("a layer map needs at least one pair")
    return dict(layers)


def _pairs(layers: Mapping[int, int], ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]):
    """Student's and teacher's layer, pair by pair."""
    for mine, other in layers.items():
        for who, place, states in (("student", mine, ours), ("teacher", other, theirs)):
            if not -len(states) <= place < len(states):
                raise DistillError(f"the layer map names the {who}'s layer {place}, but it gave {len(states)}")
        yield ours[mine], theirs[other]


def _projection(student: int, teacher: int, generator: torch.Generator) -> nn.Linear:
    layer = nn.Linear(student, teacher, bias=False)
    bound = student**-0.5  # torch's own start for a linear layer
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
    return layer


def _same_heads(ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    if ours.shape[1] == theirs.shape[1]:
        return ours, theirs
    return ours.mean(1, keepdim=True), theirs.mean(1, keepdim=True)


def _attention_kl(ours: Tensor, theirs: Tensor, seen: Tensor) -> Tensor:
    """`[N]` of probabilities `[N, H, T]`; both are normalised over the keys that are seen `[N, 1, T]`."""
    q, p = (_normalised(maps, seen) for maps in (ours, theirs))
    tiny = torch.finfo(q.dtype).tiny
    return (p * (p.clamp(min=tiny).log() - q.clamp(min=tiny).log())).sum(-1).mean(-1)


def _normalised(maps: Tensor, seen: Tensor) -> Tensor:
    maps = torch.where(seen, maps, 0)
    total = maps.sum(-1, keepdim=True)
    return maps / torch.where(total > 0, total, 1)


def _attention_mse(ours: Tensor, theirs: Tensor, seen: Tensor) -> Tensor:
    """`[N]` of maps or scores `[N, H, T]`."""
    compared = seen & (ours > -torch.inf) & (theirs > -torch.inf)
    difference = torch.where(compared, ours, 0) - torch.where(compared, theirs, 0)
    return (difference.square().sum(-1) / seen.sum(-1)).mean(-1)
