"""What a teacher says about a batch: one frozen dataclass of tensors for each kind of knowledge.

Leading dimensions `[...]` are free: `[B]` for states of a robot, `[B, T]` for tokens. A signal is checked when it is
made, by reductions only and without copies of the vocabulary's size, so that a loss never meets a broken teacher. It
carries no gradient. Positions that will be masked out (padding) must hold finite numbers as well, whichever.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor

from distill.core.errors import DistillError
from distill.core.precision import wide, wide_type

Index = slice | Tensor
"""A choice along the first leading dimension: a slice, integer indices `[N]`, or booleans `[B]`."""


@dataclass(frozen=True, eq=False)
class TeacherSignal(ABC):
    """Base of all kinds. Fields are tensors, tuples of tensors, or the settings named in `SETTINGS`."""

    KIND: ClassVar[str]
    """Name of the kind, in messages and files."""
    SETTINGS: ClassVar[tuple[str, ...]] = ()
    """Fields that are plain numbers or booleans."""

    def __post_init__(self) -> None:
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name not in self.SETTINGS and not (value is None and f.default is None):
                object.__setattr__(self, f.name, _mapped(value, _detached(f"{self.KIND}: {f.name}")))
        self._check()

    @abstractmethod
    def _check(self) -> None:
        """Raise `DistillError` unless shapes, dtypes and numbers fit together."""

    def to(self, device: torch.device | str) -> Self:
        """The same signal on another device."""
        return self._each(lambda tensor: tensor.to(device))

    def index(self, rows: Index) -> Self:
        """The signal of some rows of the batch, along the first leading dimension of every tensor."""
        return self._each(lambda tensor: tensor[rows])

    def flattened(self, dims: int) -> Self:
        """The signal with its first `dims` leading dimensions as one; a new one of length 1 for `dims` = 0."""
        return self._each(lambda tensor: tensor.flatten(0, dims - 1) if dims else tensor[None])

    def tensors(self) -> dict[str, Tensor]:
        """Named tensors that hold everything, for a safetensors file; item i of a tuple is called `name.i`."""
        named: dict[str, Tensor] = {}
        for name, value in self._values().items():
            if isinstance(value, tuple):
                items = cast("tuple[Tensor, ...]", value)
                named |= {f"{name}.{i}": item for i, item in enumerate(items)}
            else:
                named[name] = value
        settings = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in self.SETTINGS}
        return named | settings

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `tensors`. Raises `DistillError` for missing or unknown names."""
        values: dict[str, Any] = {}
        for name in sorted(tensors, key=_natural):
            stem, dot, _ = name.partition(".")
            if dot:
                values[stem] = (*values.get(stem, ()), tensors[name])
            else:
                values[name] = tensors[name].item() if name in cls.SETTINGS else tensors[name]
        known = {f.name for f in fields(cls)}
        required = {f.name for f in fields(cls) if f.default is MISSING}
        if not required <= set(values) <= known:
            raise DistillError(f"{cls.KIND} is stored as {sorted(known)}, got {sorted(values)}")
        return cls(**values)

    def _values(self) -> dict[str, Any]:
        """The fields that are tensors or tuples of tensors, and not None."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in self.SETTINGS}
        return {name: value for name, value in named.items() if value is not None}

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        """A copy with every tensor changed; not checked again, as moving and choosing rows break nothing."""
        copy = object.__new__(type(self))
        for name, value in self._values().items():
            object.__setattr__(copy, name, _mapped(value, change))
        for f in fields(self):
            if f.name not in copy.__dict__:
                object.__setattr__(copy, f.name, getattr(self, f.name))
        return copy


@dataclass(frozen=True, eq=False)
class DenseLogits(TeacherSignal):
    """The whole next-token (or class) distribution. A logit of -inf is a token that the teacher rules out."""

    KIND: ClassVar[str] = "dense logits"
    logits: Tensor
    """`[..., V]`, float; not normalised."""

    def _check(self) -> None:
        _floating("dense logits", self.logits, least_dims=1)
        if not self.logits.shape[-1]:
            raise DistillError("dense logits need at least one token in their last dimension")
        if not self.logits.amax(-1).isfinite().all():  # the largest of a row: NaN, inf and rows of -inf show in it
            raise DistillError("dense logits must have a finite largest logit everywhere (no NaN, no +inf)")

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.logits.shape[-1]

    @property
    def positions(self) -> torch.Size:
        """`[...]`."""
        return self.logits.shape[:-1]


@dataclass(frozen=True)
class LogitScaling:
    """What a model makes of its output layer's sums x before they are logits: softcap tanh(scale x / softcap)."""

    scale: float = 1.0
    softcap: float | None = None
    """None: no cap."""

    def __call__(self, sums: Tensor) -> Tensor:
        """Logits of any shape; the same tensor where nothing is to be done."""
        if self.scale != 1.0:
            sums = sums * self.scale
        return sums if self.softcap is None else torch.tanh(sums / self.softcap) * self.softcap


@dataclass(frozen=True, eq=False)
class ProjectedLogits(TeacherSignal):
    """The same knowledge as last hidden states and an output layer: logits are made of rows as they are asked for.

    For large vocabularies, where the logits of a batch would take more memory than everything else.
    """

    KIND: ClassVar[str] = "projected logits"
    SETTINGS: ClassVar[tuple[str, ...]] = ("scaling",)
    states: Tensor
    """`[..., D]`, float: what the output layer is given."""
    head: Tensor
    """`[V, D]`: its weights."""
    scaling: LogitScaling = LogitScaling()

    def _check(self) -> None:
        _floating("projected logits' states", self.states, least_dims=1)
        _floating("projected logits' head", self.head, least_dims=2)
        if self.head.ndim != 2 or self.head.shape[-1] != self.states.shape[-1]:
            raise DistillError(
                f"projected logits need a head [V, D] for states [..., D], got {list(self.head.shape)} "
                f"and {list(self.states.shape)}"
            )
        if not (self.states.amax(-1).isfinite() & self.states.amin(-1).isfinite()).all():
            raise DistillError("projected logits need finite states")

    @property
    def logits(self) -> Tensor:
        """`[..., V]`, made anew each time."""
        return self.scaling(torch.nn.functional.linear(self.states, self.head))

    @property
    def vocabulary(self) -> int:
        """V."""
        return self.head.shape[0]

    @property
    def positions(self) -> torch.Size:
        """`[...]`."""
        return self.states.shape[:-1]

    def index(self, rows: Index) -> Self:
        """The states of some rows, and the whole head."""
        return self._with(self.states[rows])

    def flattened(self, dims: int) -> Self:
        """As of any signal; the head stays as it is."""
        return self._with(self.states.flatten(0, dims - 1) if dims else self.states[None])

    def tensors(self) -> dict[str, Tensor]:
        """Refused: the head would be stored with every batch."""
        raise DistillError(
            "projected logits are not for files, which would hold the teacher's head once a batch: use top-k"
        )

    def _with(self, states: Tensor) -> Self:
        copy = object.__new__(type(self))
        object.__setattr__(copy, "states", states)
        object.__setattr__(copy, "head", self.head)
        object.__setattr__(copy, "scaling", self.scaling)
        return copy


@dataclass(frozen=True, eq=False)
class RoutedLogits(ProjectedLogits):
    """`ProjectedLogits` of several teachers, each position of one of them; all have one vocabulary.

    Its own `states` are places, `[..., 2]`: which teacher, and where among that teacher's states; `head` is the first
    teacher's, for its size.
    """

    KIND: ClassVar[str] = "routed logits"
    SETTINGS: ClassVar[tuple[str, ...]] = ("scaling", "parts")
    parts: tuple[ProjectedLogits, ...] = ()
    """One for each teacher, with states `[n, D]` that may differ in width."""

    @classmethod
    def of(cls, parts: Sequence[ProjectedLogits], which: Tensor, place: Tensor) -> Self:
        """`which` `[...]` of the parts, and `place` `[...]` among its states."""
        return cls(torch.stack([which, place], -1), parts[0].head, parts=tuple(parts))

    def _check(self) -> None:
        sizes = sorted({part.vocabulary for part in self.parts})
        if len(sizes) != 1:
            raise DistillError(f"teachers of one student need one vocabulary, got {sizes}")

    @property
    def logits(self) -> Tensor:
        """`[..., V]`, made anew each time."""
        which, place = self.states.unbind(-1)
        dtype = wide_type(self.head)
        found = torch.empty(*which.shape, self.vocabulary, dtype=dtype, device=which.device)
        for i, part in enumerate(self.parts):
            own = which == i
            if own.any():
                found[own] = part.index(place[own]).logits.to(dtype)
        return found

    def _with(self, states: Tensor) -> Self:
        copy = super()._with(states)
        object.__setattr__(copy, "parts", self.parts)
        return copy


@dataclass(frozen=True, eq=False)
class TopKLogits(TeacherSignal):
    """The K likeliest tokens, and the probability of all others together.

    Together the K + 1 buckets are a distribution. A `tail` of -inf says that nothing but the K tokens is possible.
    """

    KIND: ClassVar[str] = "top-k logits"
    SETTINGS: ClassVar[tuple[str, ...]] = ("temperature",)
    log_probs: Tensor
    """`[..., K]`, natural logarithms, of probabilities at `temperature`."""
    indices: Tensor
    """`[..., K]`, int64 token ids, all different within a position."""
    tail: Tensor
    """`[...]`, log-probability of every other token together."""
    temperature: float = 1.0
    """The softmax temperature the probabilities were made at; the student's are compared at the same."""

    @classmethod
    def from_logits(cls, logits: Tensor, k: int, temperature: float = 1.0) -> Self:
        """Of the teacher's logits `[..., V]`, the `k` largest. Computed in float32 or better."""
        if not 1 <= k <= logits.shape[-1]:
            raise DistillError(f"k must lie between 1 and the vocabulary of {logits.shape[-1]}, got {k}")
        if not temperature > 0:
            raise DistillError(f"temperature must be above 0, got {temperature}")
        DenseLogits(logits)  # refuse NaN and infinities where they came in
        scaled = wide(logits.detach()) / temperature
        scaled = scaled - scaled.amax(-1, keepdim=True)  # logits of 1e4 would round their own sum
        norm = scaled.logsumexp(-1)
        largest, indices = scaled.topk(k, -1)
        tail = scaled.scatter(-1, indices, -torch.inf).logsumexp(-1)
        return cls(largest - norm[..., None], indices, tail - norm, temperature)

    def _check(self) -> None:
        _floating("top-k logits' log_probs", self.log_probs, least_dims=1)
        _floating("top-k logits' tail", self.tail)
        _integers("top-k logits' indices", self.indices)
        _same_shape("top-k logits", log_probs=self.log_probs, indices=self.indices)
        _same_shape("top-k logits", log_probs_of_one_token=self.log_probs[..., 0], tail=self.tail)
        if not self.temperature > 0:
            raise DistillError(f"top-k logits need a temperature above 0, got {self.temperature}")
        ordered = self.indices.sort(-1).values
        if (ordered[..., 1:] == ordered[..., :-1]).any() or (ordered[..., :1] < 0).any():
            raise DistillError("top-k logits need different token ids from 0 up at each position")
        total = torch.cat([self.log_probs, self.tail[..., None].to(self.log_probs)], -1).double().logsumexp(-1)
        error = total.abs().max().item() if total.numel() else 0.0
        if not error <= 1e-4 + 16 * torch.finfo(self.log_probs.dtype).eps:  # rounding of log-probabilities up to 16
            raise DistillError(
                f"top-k log_probs and tail must be a distribution, but its log-sum is off by {error:.3g}"
            )


@dataclass(frozen=True, eq=False)
class SampledLogProbs(TeacherSignal):
    """Given tokens and the teacher's log-probability of each. A hard label is a token of log-probability 0."""

    KIND: ClassVar[str] = "sampled log-probabilities"
    tokens: Tensor
    """`[...]`, int64 token ids."""
    log_probs: Tensor
    """`[...]`, natural logarithms."""

    @classmethod
    def labels(cls, tokens: Tensor) -> Self:
        """Tokens `[...]` of a data set, taken as certain."""
        return cls(tokens, torch.zeros_like(tokens, dtype=torch.float32))

    def _check(self) -> None:
        _integers("sampled tokens", self.tokens)
        _floating("sampled log-probabilities", self.log_probs)
        _same_shape("sampled log-probabilities", tokens=self.tokens, log_probs=self.log_probs)
        if self.log_probs.numel() and not (self.log_probs.isfinite().all() and self.log_probs.max() <= 1e-3):
            raise DistillError("sampled log-probabilities must be finite and at most 0")


@dataclass(frozen=True, eq=False)
class SpanLogProbs(TeacherSignal):
    """The teacher's log-probability of pieces of a given text, each of one or several of the student's tokens.

    What a teacher can say that splits texts into other tokens: of pieces that begin and end in both.
    """

    KIND: ClassVar[str] = "span log-probabilities"
    tokens: Tensor
    """`[..., T]`, int64 ids of the student's tokens."""
    ends: Tensor
    """`[..., T]`, int64: of each token, the place along T of the last token of its piece; -1 where it is in none."""
    log_probs: Tensor
    """`[..., T]`, natural logarithms, of each piece where its last token stands; elsewhere whatever is finite."""

    def _check(self) -> None:
        _integers("tokens of spans", self.tokens)
        _integers("ends of spans", self.ends)
        _floating("span log-probabilities", self.log_probs, least_dims=1)
        _same_shape("span log-probabilities", tokens=self.tokens, log_probs=self.log_probs)
        _same_shape("span log-probabilities", tokens=self.tokens, ends=self.ends)
        place = torch.arange(self.ends.shape[-1], device=self.ends.device)
        inside = self.ends >= 0
        if (inside & (self.ends < place)).any() or (self.ends >= self.ends.shape[-1]).any():
            raise DistillError("a span must end where one of its tokens stands, neither before it nor behind the text")
        known = self.log_probs[self.ends == place]
        if not (self.log_probs.isfinite().all() and (not known.numel() or known.max() <= 1e-3)):
            raise DistillError("span log-probabilities must be finite and at most 0")


@dataclass(frozen=True, eq=False)
class Text(TeacherSignal):
    """What a black-box teacher wrote, one string for each row of the batch."""

    KIND: ClassVar[str] = "text"
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "texts", tuple(self.texts))
        self._check()

    def _check(self) -> None:
        for text in cast("tuple[object, ...]", self.texts):
            if not isinstance(text, str):
                raise DistillError(f"text must be strings, got {type(text).__name__}")

    def to(self, device: torch.device | str) -> Self:
        """Itself: strings are on no device."""
        return self

    def index(self, rows: Index) -> Self:
        """The strings of some rows."""
        chosen = torch.arange(len(self.texts))[rows.cpu() if isinstance(rows, Tensor) else rows].numpy()
        return type(self)(tuple(self.texts[int(i)] for i in chosen))

    def tensors(self) -> dict[str, Tensor]:
        """`utf8`: all strings' bytes, uint8; `ends`: where each string ends in them, int64."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in self.texts]
        lengths = torch.tensor([len(data) for data in encoded], dtype=torch.int64)
        utf8 = torch.tensor(list(b"".join(encoded)), dtype=torch.uint8)
        return {"utf8": utf8, "ends": lengths.cumsum(0)}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Inverse of `tensors`. Raises `DistillError` for other names."""
        if set(tensors) != {"utf8", "ends"}:
            raise DistillError(f"text is stored as ['ends', 'utf8'], got {sorted(tensors)}")
        data, ends = tensors["utf8"].numpy().tobytes(), [int(end) for end in tensors["ends"].numpy()]
        starts = [0, *ends[:-1]]
        return cls(tuple(data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True)))


@dataclass(frozen=True, eq=False)
class HiddenStates(TeacherSignal):
    """Activations of some layers."""

    KIND: ClassVar[str] = "hidden states"
    layers: tuple[Tensor, ...]
    """Each `[..., T, D]`, float; widths may differ between layers."""

    def _check(self) -> None:
        _stack("hidden states", self.layers, least_dims=2)
        for layer in self.layers:
            _same_shape("hidden states", first=self.layers[0][..., 0], other=layer[..., 0])
            if not (layer.amax(-1).isfinite() & layer.amin(-1).isfinite()).all():
                raise DistillError("hidden states must be finite")


@dataclass(frozen=True, eq=False)
class Attention(TeacherSignal):
    """Attention of some layers: probabilities, or scores before the softmax, where -inf is a pair that is not seen."""

    KIND: ClassVar[str] = "attention"
    SETTINGS: ClassVar[tuple[str, ...]] = ("scores",)
    maps: tuple[Tensor, ...]
    """Each `[..., H, T, T]`: heads, queries, keys. Rows of probabilities sum to 1, or to 0 for a padded query."""
    scores: bool = False
    """Whether the maps are scores before the softmax."""

    def _check(self) -> None:
        object.__setattr__(self, "scores", bool(self.scores))
        _stack("attention", self.maps, least_dims=3)
        for layer in self.maps:
            _same_shape("attention", first=self.maps[0][..., 0, :, :], other=layer[..., 0, :, :])
            if layer.shape[-1] != layer.shape[-2]:
                raise DistillError(f"attention maps must be square, got {list(layer.shape)}")
            self._check_numbers(layer)

    def _check_numbers(self, layer: Tensor) -> None:
        if not layer.numel():
            return
        if self.scores:
            if not layer.amax() < torch.inf:  # false for NaN too
                raise DistillError("attention scores must hold neither NaN nor +inf")
            return
        total = layer.sum(-1, dtype=wide_type(layer))
        tolerance = 1e-4 + layer.shape[-1] * torch.finfo(layer.dtype).eps / 4
        off = torch.minimum(total.abs(), (total - 1).abs()).max().item()
        if not (off <= tolerance and layer.amin() >= 0):
            raise DistillError(
                "attention maps must hold probabilities whose rows sum to 1 (set scores=True for scores)"
            )


@dataclass(frozen=True, eq=False)
class Actions(TeacherSignal):
    """What a control policy does: the mean of its actions and, where it is stochastic, their standard deviation."""

    KIND: ClassVar[str] = "actions"
    mean: Tensor
    """`[..., A]`, float, in the policy's own action units."""
    std: Tensor | None = None
    """`[..., A]`, positive, of independent normal distributions."""

    def _check(self) -> None:
        _floating("actions' mean", self.mean, least_dims=1)
        if not self.mean.isfinite().all():
            raise DistillError("actions must be finite")
        if self.std is not None:
            _floating("actions' std", self.std, least_dims=1)
            _same_shape("actions", mean=self.mean, std=self.std)
            if not ((self.std > 0) & self.std.isfinite()).all():
                raise DistillError("actions' std must be positive and finite")


@dataclass(frozen=True, eq=False)
class Rollout(TeacherSignal):
    """What a policy did and what came of it."""

    KIND: ClassVar[str] = "rollout"
    action: Tensor
    """`[..., A]`, float, in the policy's own action units."""
    log_likelihood: Tensor
    """`[...]`: of the action under the policy that took it, natural logarithm of a density."""
    advantage: Tensor
    """`[...]`: how much better than expected it was, in any unit."""

    def _check(self) -> None:
        _numbered("actions", self.action, likelihood=self.log_likelihood, advantage=self.advantage)


@dataclass(frozen=True, eq=False)
class Returns(TeacherSignal):
    """What was there to be seen, and what it turned out to be worth."""

    KIND: ClassVar[str] = "returns"
    seen: Tensor
    """`[..., D]`, float."""
    value: Tensor
    """`[...]`, in the unit of rewards."""

    def _check(self) -> None:
        _numbered("what was seen", self.seen, value=self.value)


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, tuple | list):
        return tuple(change(item) for item in cast("tuple[Any, ...]", value))
    return change(value)


def _detached(name: str) -> Callable[[Any], Tensor]:
    def detach(value: object) -> Tensor:
        if not isinstance(value, Tensor):
            raise DistillError(f"{name} must be a tensor, got {type(value).__name__}")
        return value.detach()

    return detach


def _natural(name: str) -> tuple[str, int]:
    """Sorts `maps.10` after `maps.9`."""
    stem, _, number = name.partition(".")
    return stem, int(number) if number.isdigit() else 0


def _floating(name: str, tensor: Tensor, least_dims: int = 0) -> None:
    if not tensor.is_floating_point() or tensor.ndim < least_dims:
        raise DistillError(
            f"{name} must be floating-point with at least {least_dims} dimensions, "
            f"got {tensor.dtype} of shape {list(tensor.shape)}"
        )


def _integers(name: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.int64:
        raise DistillError(f"{name} must be int64, got {tensor.dtype}")


def _same_shape(name: str, **tensors: Tensor) -> None:
    (one, a), (other, b) = tensors.items()
    if a.shape != b.shape:
        raise DistillError(f"{name}: shapes of {one} {list(a.shape)} and {other} {list(b.shape)} differ")


def _stack(name: str, layers: tuple[Tensor, ...], least_dims: int) -> None:
    if not isinstance(cast("object", layers), tuple) or not layers:
        raise DistillError(f"{name} need a tuple of at least one layer")
    for layer in layers:
        _floating(name, layer, least_dims)


def _numbered(name: str, vectors: Tensor, **numbers: Tensor) -> None:
    """Vectors `[..., D]`, with one number `[...]` of each kind for every one of them."""
    _floating(name, vectors, least_dims=1)
    for kind, values in numbers.items():
        if values.shape != vectors.shape[:-1]:
            raise DistillError(f"{name} {list(vectors.shape)} cannot have a {kind} {list(values.shape)}")
    if not all(values.isfinite().all() for values in (vectors, *numbers.values())):
        raise DistillError(f"{name} and their {' and '.join(numbers)} must be finite")
